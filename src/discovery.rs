//! What the task talks to: a pure fold of what was seen into a bounded table, and the report of it. It does not decide
//! what should be allowed, and it says of every name how sure it is.

pub(crate) mod report;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use egret_policy::RuleId;
use egret_proxy::{Decision, NameRecord, Record, RequestRecord, Stage, Via};
use serde::{Deserialize, Serialize};

use crate::events::host_text;
use crate::moment::Moment;

/// The most destinations that are kept apart; an app can ask for as many names as it likes. Further ones are counted
/// together.
const MAX_DESTINATIONS: usize = 2048;

/// Names that were refused as names are listed with the port of DNS: which one they were wanted for is not known.
const DNS: u16 = 53;

/// One thing seen: a connection, or one request of a forward connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Option<Cow<'static, str>>,
    pub(crate) rule: Option<Rule>,
    pub(crate) known_by: &'static str,
    pub(crate) verified: bool,
    pub(crate) failed: bool,
    pub(crate) class: Option<Cow<'static, str>>,
    pub(crate) time: Moment,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

/// A rule by its id, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Known(RuleId),
    Read(String),
}

/// What was decided. Ordered: of two, the later one is what a reader must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Allow,
    WouldDeny,
    Deny,
}

/// The longest host of a journal in octets: a name whose every octet is escaped.
const MAX_HOST: usize = 1024;

/// One host and port.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    /// The worst that happened; `reason` and `rule` belong to it.
    pub(crate) verdict: Verdict,
    /// Never connected: every try that was let through failed, in DNS, in connecting or later.
    pub(crate) failed: bool,
    /// Nothing that the client showed confirmed the name.
    pub(crate) unverified: bool,
    pub(crate) reason: Option<String>,
    pub(crate) rule: Option<String>,
    pub(crate) known_by: BTreeSet<String>,
    pub(crate) classes: BTreeSet<String>,
    pub(crate) connections: u64,
    pub(crate) denied: u64,
    pub(crate) would_deny: u64,
    pub(crate) failures: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) first_seen: Moment,
    pub(crate) last_seen: Moment,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovery {
    seen: BTreeMap<(String, u16), Destination>,
    other: u64,
}

impl Discovery {
    /// Folds one sighting in.
    pub(crate) fn see(&mut self, mut sighting: Sighting) {
        let key = (std::mem::take(&mut sighting.host), sighting.port);
        let full = self.seen.len() >= MAX_DESTINATIONS;
        match self.seen.get_mut(&key) {
            Some(destination) => destination.add(&sighting),
            None if full => self.other += 1,
            None => {
                sighting.host.clone_from(&key.0);
                self.seen.insert(key, Destination::new(sighting));
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.seen.values()
    }

    /// Sightings of destinations beyond the table.
    pub(crate) fn other(&self) -> u64 {
        self.other
    }
}

impl Destination {
    fn new(sighting: Sighting) -> Self {
        let mut destination = Self {
            host: String::new(),
            port: sighting.port,
            protocol: "tcp".to_owned(),
            verdict: sighting.verdict,
            failed: true,
            unverified: true,
            reason: sighting.reason.as_deref().map(str::to_owned),
            rule: sighting.rule.as_ref().map(ToString::to_string),
            known_by: BTreeSet::new(),
            classes: BTreeSet::new(),
            connections: 0,
            denied: 0,
            would_deny: 0,
            failures: 0,
            bytes_up: 0,
            bytes_down: 0,
            first_seen: sighting.time,
            last_seen: sighting.time,
        };
        destination.add(&sighting);
        destination.host = sighting.host;
        destination
    }

    /// Adds what was seen once more; where that tells nothing new, nothing is allocated.
    fn add(&mut self, sighting: &Sighting) {
        if sighting.verdict > self.verdict {
            self.verdict = sighting.verdict;
            self.reason = sighting.reason.as_deref().map(str::to_owned);
            self.rule = sighting.rule.as_ref().map(ToString::to_string);
        }
        self.failed &= sighting.failed || sighting.verdict == Verdict::Deny;
        self.unverified &= !sighting.verified;
        add(&mut self.known_by, sighting.known_by);
        if let Some(class) = &sighting.class {
            add(&mut self.classes, class);
        }
        self.connections += 1;
        self.denied += u64::from(sighting.verdict == Verdict::Deny);
        self.would_deny += u64::from(sighting.verdict == Verdict::WouldDeny);
        self.failures += u64::from(sighting.failed);
        // A journal may say anything.
        self.bytes_up = self.bytes_up.saturating_add(sighting.bytes_up);
        self.bytes_down = self.bytes_down.saturating_add(sighting.bytes_down);
        self.first_seen = self.first_seen.min(sighting.time);
        self.last_seen = self.last_seen.max(sighting.time);
    }

    /// What a reader must know before taking the name for an allow-list.
    pub(crate) fn marks(&self) -> Vec<&'static str> {
        let verdict = match (self.denied, self.would_deny) {
            (0, 0) => None,
            (0, n) => Some(if n == self.connections { "would_deny" } else { "some_would_deny" }),
            (n, _) => Some(if n == self.connections { "denied" } else { "some_denied" }),
        };
        let all_denied = self.denied == self.connections;
        let failed = (self.failed && !all_denied).then_some("failed");
        let unverified = (self.unverified && !self.failed && !all_denied).then_some("unverified");
        verdict.into_iter().chain(failed).chain(unverified).collect()
    }
}

fn add(texts: &mut BTreeSet<String>, text: &str) {
    if !texts.contains(text) {
        texts.insert(text.to_owned());
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known(id) => id.as_str(),
            Self::Read(text) => text,
        })
    }
}

/// Whether this can stand in a row of a report: whoever may write into a journal must not write further rows, columns, or
/// formulas of a spreadsheet. Hosts and names as egret writes them pass.
pub(crate) fn is_one_word(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:*\\-".contains(&byte);
    !host.is_empty() && host.len() <= MAX_HOST && !host.starts_with('-') && host.bytes().all(is_plain)
}

impl Sighting {
    /// From a connection that ended. Where HTTP was seen in the clear, its requests are the sightings.
    pub(crate) fn of_record(record: &Record) -> Option<Self> {
        if record.requests > 0 {
            return None;
        }
        let known_by = match record.via? {
            Via::Connect => "connect",
            Via::Socks5 | Via::Socks4 => "socks",
            Via::Tls => "sni",
            Via::Confined => "connect(2)",
            // It ended before its first request.
            Via::Forward => return None,
        };
        let verdict = verdict(record.decision()?);
        let denial = record.objection();
        let target = record.target.as_ref()?;
        let host = host_text(&target.host);
        Some(Self {
            verified: record.sni.as_deref() == Some(&host),
            host,
            port: target.port,
            verdict,
            reason: denial.map(|denial| denial.reason.code().into()),
            rule: record.rule.clone().map(Rule::Known),
            known_by,
            failed: verdict != Verdict::Deny && record.stage != Stage::Relay,
            class: record.class.map(|class| class.as_str().into()),
            time: (record.opened + record.duration).into(),
            bytes_up: record.bytes_up,
            bytes_down: record.bytes_down,
        })
    }

    /// From a name that a confined program asked DNS for in vain.
    pub(crate) fn of_name(name: &NameRecord) -> Self {
        Self {
            host: name.name.clone(),
            port: DNS,
            verdict: Verdict::Deny,
            reason: Some(name.denial.reason.code().into()),
            rule: name.denial.rule.clone().map(Rule::Known),
            known_by: "dns",
            verified: false,
            failed: false,
            class: None,
            time: SystemTime::now().into(),
            bytes_up: 0,
            bytes_down: 0,
        }
    }

    /// From a request that was answered.
    pub(crate) fn of_request(request: &RequestRecord) -> Option<Self> {
        let verdict = verdict(request.decision());
        let denial = request.objection();
        let target = request.target.as_ref()?;
        Some(Self {
            host: host_text(&target.host),
            port: target.port,
            verdict,
            reason: denial.map(|denial| denial.reason.code().into()),
            rule: request.rule.clone().map(Rule::Known),
            known_by: "host",
            verified: true,
            failed: request.fault.is_some(),
            class: request.class.map(|class| class.as_str().into()),
            time: SystemTime::now().into(),
            bytes_up: request.bytes_up,
            bytes_down: request.bytes_down,
        })
    }

    /// From a line of a journal. Anything that is no sighting gives `None`.
    pub(crate) fn of_event(event: &serde_json::Value) -> Option<Self> {
        let text = |key: &str| event.get(key).and_then(serde_json::Value::as_str).map(shown);
        let number = |key: &str| event.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let kind = event.get("event")?.as_str()?;
        let via = text("via");
        let known_by = match (kind, via.as_deref()) {
            ("request", _) => "host",
            ("connection", Some("connect")) => "connect",
            ("connection", Some("socks5" | "socks4")) => "socks",
            ("connection", Some("tls")) => "sni",
            ("connection", Some("confined")) => "connect(2)",
            ("name", _) => "dns",
            _ => return None,
        };
        if number("requests") > 0 {
            return None;
        }
        let verdict: Verdict = serde_json::from_value(event.get("decision")?.clone()).ok()?;
        let host = text(if kind == "name" { "name" } else { "host" }).filter(|host| is_one_word(host))?;
        let verified = kind == "request" || text("sni").as_deref() == Some(host.as_str());
        Some(Self {
            port: if kind == "name" { DNS } else { u16::try_from(number("port")).ok()? },
            verdict,
            reason: text("reason").map(Cow::Owned),
            rule: text("rule").map(Rule::Read),
            known_by,
            verified,
            failed: verdict != Verdict::Deny
                && if kind == "request" { text("fault").is_some() } else { text("stage").as_deref() != Some("relay") },
            class: text("class").map(Cow::Owned),
            time: event.get("time")?.as_str()?.parse().ok()?,
            bytes_up: number("bytes_up"),
            bytes_down: number("bytes_down"),
            host,
        })
    }
}

/// Text of a journal as a report may print it. Whoever can write into the journal chooses it; what would steer a terminal,
/// or end a line for some reader, is escaped.
pub(crate) fn shown(text: &str) -> String {
    let plain = |c: char| c == '"' || c == '\'' || c == '\\' || c.escape_debug().len() == 1;
    let escaped = |c: char| if plain(c) { c.to_string() } else { c.escape_debug().to_string() };
    text.chars().map(escaped).collect()
}

fn verdict(decision: Decision) -> Verdict {
    match decision {
        Decision::Allow => Verdict::Allow,
        Decision::WouldDeny => Verdict::WouldDeny,
        Decision::Deny => Verdict::Deny,
    }
}

#[cfg(test)]
mod tests;
