//! A verdict with its neighbourhood: which rules nearly matched, and why they did not. It asks the same questions as
//! a connection does, so that it cannot tell another story.

use std::sync::Arc;

use crate::decide::Request;
use crate::policy::Policy;
use crate::rule::Rule;
use crate::target::Host;
use crate::verdict::{Denial, Permit, Reason};

/// What [`Policy::explain`] tells.
#[derive(Debug)]
pub struct Explanation {
    /// The verdict that a connection would get.
    pub verdict: Result<Permit, Denial>,
    /// Rules that came near.
    pub near: Vec<NearMiss>,
    /// The request is for a literal address, and would be judged again by the SNI it shows.
    pub wants_name: bool,
}

/// A rule that came near.
#[derive(Debug)]
pub struct NearMiss {
    /// The rule.
    pub rule: Rule,
    /// Why it did not match; `None` if it speaks of the parent or the children of the name only.
    pub why: Option<Reason>,
}

/// The most near misses that are told.
const MAX_NEAR: usize = 8;

impl Policy {
    /// The verdict on a request, and what nearly decided otherwise.
    #[must_use]
    pub fn explain(self: &Arc<Self>, request: &Request) -> Explanation {
        Explanation { verdict: self.admit(request), near: self.near(request), wants_name: self.wants_name(request) }
    }

    fn near(&self, request: &Request) -> Vec<NearMiss> {
        let Host::Name(name) = &request.target().host else { return Vec::new() };
        let missed = self.allow.names(name, &self.rules).filter_map(|entry| Some((entry, Some(self.misses(entry, request)?))));
        let around = self.allow.around(name).map(|entry| (entry, None));
        missed.chain(around).take(MAX_NEAR).map(|(entry, why)| NearMiss { rule: entry.rule(&self.rules).clone(), why }).collect()
    }
}
