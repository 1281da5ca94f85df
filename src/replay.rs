//! What a policy would have done to what journals hold: each observation is judged again, as if the policy enforced.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use egret_policy::{Policy, Reason, UnixTime};
use serde::Serialize;

use crate::evidence::{Destination, Evidence, Observation};
use crate::reading::Missing;

/// What changes, by destination.
#[derive(Debug, Serialize)]
pub(crate) struct Replay {
    events: u64,
    destinations: usize,
    /// Let through then, and denied by this policy.
    would_deny: Vec<Change>,
    /// Denied then, and let through by this policy.
    newly_allowed: Vec<Change>,
    /// Let through by rules that are themselves in audit.
    by_audit_rules: Vec<Change>,
    /// Denied then and still.
    still_denied: u64,
    /// Let through then, and too many to be judged.
    unjudged: u64,
    #[serde(flatten)]
    missing: Missing,
}

/// One destination, and how often.
#[derive(Debug, Serialize)]
struct Change {
    #[serde(flatten)]
    destination: Destination,
    events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// How a verdict differs from the one in the journal. The order is that of the text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    WouldDeny,
    NewlyAllowed,
    ByAuditRule,
}

impl Replay {
    /// Judges everything again. The policy is one that was loaded to enforce.
    pub(crate) fn of(evidence: &Evidence, policy: &Arc<Policy>, now: UnixTime) -> Self {
        let mut changes: BTreeMap<(Kind, &Destination, Option<&'static str>), Change> = BTreeMap::new();
        let mut still_denied = 0;
        for (seen, count) in &evidence.observations {
            let Some((kind, change)) = change(seen, policy, now) else {
                still_denied += if seen.passed() { 0 } else { *count };
                continue;
            };
            let entry = changes.entry((kind, &seen.destination, change.reason)).or_insert(change);
            entry.events += count;
        }
        let mut replay = Self {
            events: evidence.events,
            destinations: evidence.destinations(),
            would_deny: Vec::new(),
            newly_allowed: Vec::new(),
            by_audit_rules: Vec::new(),
            still_denied,
            unjudged: evidence.beyond,
            missing: evidence.missing,
        };
        for ((kind, ..), change) in changes {
            match kind {
                Kind::WouldDeny => replay.would_deny.push(change),
                Kind::NewlyAllowed => replay.newly_allowed.push(change),
                Kind::ByAuditRule => replay.by_audit_rules.push(change),
            }
        }
        replay
    }

    /// Whether the policy would break what worked, or may, or there was nothing to judge, which proves nothing.
    pub(crate) fn is_negative(&self) -> bool {
        !self.would_deny.is_empty() || self.unjudged > 0 || self.events == 0
    }

    pub(crate) fn text(&self) -> String {
        let mut out =
            format!("replay: {}, {}\n", counted(self.events, "event"), counted(self.destinations as u64, "destination"));
        section(&mut out, "would deny", '-', &self.would_deny);
        section(&mut out, "newly allows", '+', &self.newly_allowed);
        section(&mut out, "let through by rules in audit:", '~', &self.by_audit_rules);
        if self.still_denied > 0 {
            let _ = writeln!(out, "still denied: {}", counted(self.still_denied, "event"));
        }
        if self.events == 0 {
            out.push_str("nothing to judge: no connection or request is in the journals\n");
        }
        if self.unjudged > 0 {
            let _ = writeln!(out, "not judged, as there are too many: {}", counted(self.unjudged, "event"));
        }
        if self.missing.lost_events > 0 {
            let _ = writeln!(out, "{} were lost before they were written", counted(self.missing.lost_events, "event"));
        }
        out
    }
}

/// The change, if the verdict is another one now.
fn change(seen: &Observation, policy: &Arc<Policy>, now: UnixTime) -> Option<(Kind, Change)> {
    let change = Change { destination: seen.destination.clone(), events: 0, reason: None, help: None, rule: None };
    match (seen.passed(), seen.judge(policy, now)?) {
        (true, Err(denial)) => {
            Some((Kind::WouldDeny, Change { reason: Some(denial.reason.code()), help: Some(denial.help), ..change }))
        }
        (_, Ok(permit)) if permit.would_deny().is_some_and(|denial| denial.reason == Reason::AuditRule) => {
            let rule = permit.rule().map(|rule| rule.id().to_string());
            Some((Kind::ByAuditRule, Change { rule, ..change }))
        }
        (false, Ok(permit)) => {
            let rule = permit.rule().map(|rule| rule.id().to_string());
            Some((Kind::NewlyAllowed, Change { rule, ..change }))
        }
        _ => None,
    }
}

fn section(out: &mut String, title: &str, sign: char, changes: &[Change]) {
    if changes.is_empty() {
        return;
    }
    let events = changes.iter().map(|change| change.events).sum();
    let _ = writeln!(out, "{title} {}, {}:", counted(changes.len() as u64, "destination"), counted(events, "event"));
    for change in changes {
        let why = match (change.reason, &change.help, &change.rule) {
            (Some(reason), Some(help), _) => format!("{reason}: {help}"),
            (_, _, Some(rule)) => format!("rule {rule}"),
            _ => String::new(),
        };
        let _ = writeln!(out, "{sign} {}  {}  {why}", change.destination, change.events);
    }
}

/// `1 event`, `2 events`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
