//! What one journal leads to, as `egret report` and `egret learn` print it. For tests: whoever can write into a journal
//! chooses every byte of it, and none may reach further than a refusal to take it for anything.

use std::path::Path;

use crate::discovery::report::Report;
use crate::discovery::{Discovery, Sighting};
use crate::events::flows::FlowLine;
use crate::evidence::Evidence;
use crate::flows::trends::Trends;
use crate::learn::{self, Learner, Mark};
use crate::reading::{self, Missing};

/// The report of a journal.
#[must_use]
pub fn report(journal: &[u8]) -> String {
    let (mut discovery, mut flows, mut missing) = (Discovery::default(), Trends::default(), Missing::default());
    let mut each = |event: &_| {
        Sighting::of_event(event).into_iter().for_each(|sighting| discovery.see(sighting));
        FlowLine::of_event(event).iter().for_each(|line| flows.see(line));
    };
    // To read what is in memory cannot fail.
    let _ = reading::lines(Path::new("journal"), journal, &mut missing, &mut each);
    Report::new(&discovery, &flows, missing).text()
}

/// The policy that is learnt from a journal, everything that is left out unless asked for included; `None` if it holds
/// no connection and no request.
#[must_use]
pub fn policy(journal: &[u8]) -> Option<String> {
    let evidence = Evidence::of(journal);
    let include = [Mark::Asked, Mark::Failed, Mark::Unverified, Mark::AddressClass];
    let learner = Learner { wildcard_after: Some(3), include: &include, base: None, now: egret_proxy::now() };
    (evidence.events > 0).then(|| learn::policy(&learner.learn(&evidence), &evidence).0)
}
