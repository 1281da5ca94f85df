//! A verdict with its neighbourhood: which rules nearly matched, why they did not, and the smallest rule that would
//! allow what was denied. It asks the same questions as a connection does, so that it cannot tell another story.

use std::net::IpAddr;
use std::sync::Arc;

use crate::decide::Request;
use crate::line::RuleLine;
use crate::name::Name;
use crate::policy::{DEFAULT_ROLE, Policy};
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

    /// Whether some rule, allow or deny, names this name or covers it, on whatever port.
    #[must_use]
    pub fn speaks_of(&self, name: &Name) -> bool {
        self.allow.names(name, &self.rules).chain(self.deny.names(name, &self.rules)).next().is_some()
    }

    fn near(&self, request: &Request) -> Vec<NearMiss> {
        let Host::Name(name) = &request.target().host else { return Vec::new() };
        let missed = self.allow.names(name, &self.rules).filter_map(|entry| Some((entry, Some(self.misses(entry, request)?))));
        let around = self.allow.around(name).map(|entry| (entry, None));
        missed.chain(around).take(MAX_NEAR).map(|(entry, why)| NearMiss { rule: entry.rule(&self.rules).clone(), why }).collect()
    }
}

impl Policy {
    /// The smallest line under `egress.allow` that would let the denied request through, tried out. `answer` is the
    /// address that was refused, where one was. `None` where no line can: what denies must go, or the client must show
    /// something else.
    #[must_use]
    pub fn line_that_allows(&self, request: &Request, denial: &Denial, answer: Option<IpAddr>) -> Option<RuleLine> {
        // Where others have a rule of their own, nobody else is let in along with the default role.
        let told_apart = denial.reason == Reason::RoleNotListed;
        let role = Some(&**self.role_name(request.role())).filter(|role| told_apart || *role != DEFAULT_ROLE);
        let nearest = denial.rule.as_ref().and_then(|id| self.rules.iter().find(|rule| rule.id == *id));
        let mut line = RuleLine {
            roles: role.map(str::to_owned).into_iter().collect(),
            // What its author asked of the host on other ports, for others or until yesterday, is likely meant here.
            protocol: nearest.and_then(|rule| rule.protocol),
            within: nearest.map(|rule| rule.within.clone()).unwrap_or_default(),
            ..RuleLine::for_target(request.target())
        };
        match denial.reason {
            Reason::NoRule
            | Reason::PortNotListed
            | Reason::RoleNotListed
            | Reason::RuleExpired
            | Reason::AuditRule
            | Reason::AddressNotListed => {}
            Reason::AddressClass if line.within.is_empty() => {
                line.within = request.target().host.name().and(answer).map(Into::into).into_iter().collect();
            }
            _ => return None,
        }
        if self.is_helped_by(&line, request, answer) {
            return Some(line);
        }
        // The name alone would not do: its answer is in space that has to be named.
        line.within =
            request.target().host.name().and(answer).filter(|_| line.within.is_empty()).map(Into::into).into_iter().collect();
        (!line.within.is_empty() && self.is_helped_by(&line, request, answer)).then_some(line)
    }

    fn is_helped_by(&self, line: &RuleLine, request: &Request, answer: Option<IpAddr>) -> bool {
        let tried = Arc::new(self.plus([line]));
        let permit = tried.admit(request).and_then(|mut permit| {
            let answers: Vec<IpAddr> = answer.or(line.within.first().map(ipnet::IpNet::addr)).into_iter().collect();
            if !answers.is_empty() || permit.name_to_resolve().is_none() {
                permit.vet(&answers)?;
            }
            Ok(permit)
        });
        permit.is_ok_and(|permit| permit.would_deny().is_none())
    }
}

#[cfg(test)]
mod tests;
