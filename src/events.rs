//! Everything that can be told to the outside, and its JSON: one object a line, flat, stable, versioned. This is the
//! only place that turns the members' own types into text.

pub(crate) mod files;
pub(crate) mod flows;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use egret_policy::{Denial, Effect, Host, Rule, Target, UnixTime};
use egret_proxy::{Decision, NameRecord, Process, Record, RequestRecord};
use jiff::Timestamp;
use serde::Serialize;

use self::files::PathFields;
use crate::confinement::Confinement;
use crate::moment::Moment;

/// The version of every event. It changes when a field changes its meaning or goes; new fields do not change it.
pub(crate) const VERSION: u32 = 1;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection ended.
    Connection(Box<Record>),
    /// A forwarded HTTP request was answered.
    Request(Box<RequestRecord>),
    /// The policy was read anew, or its audit ended.
    Policy(Box<Reload>),
    /// Something that the policy asks for and that is not done.
    Coverage {
        /// The section that asks.
        section: &'static str,
        /// Why not.
        why: String,
    },
    /// A watched file changed.
    File(Box<files::File>),
    /// Many watched files changed.
    Files(Box<files::Files>),
    /// What the file watch sees, and what it does not.
    FileCoverage(Box<files::Coverage>),
    /// The file watch missed something.
    FileGap(Box<files::Gap>),
    /// What became of a flow, or of many.
    Flow(Box<flows::FlowLine>),
    /// The watch over flows missed ends.
    FlowGap(flows::FlowGap),
    /// egret began or ends.
    Lifecycle(Box<Lifecycle>),
    /// The command that egret started began or ends; a `lifecycle` event too.
    Child(Box<Child>),
    /// How far that command is held to the policy.
    Confinement(Box<Confinement>),
    /// A confined program asked DNS for a name and was refused.
    Name(Box<NameRecord>),
    /// A confined program was about to execute what the list does not have.
    Exec {
        /// `deny`, or `would_deny` in audit.
        decision: &'static str,
        /// The process.
        pid: u32,
        /// What it is.
        path: String,
        /// The hash of the policy.
        policy: String,
    },
    /// Events were lost.
    Gap {
        /// Why.
        cause: &'static str,
        /// How many.
        lost: u64,
    },
}

/// The outcome of a reload.
#[derive(Debug, Serialize)]
pub(crate) struct Reload {
    pub(crate) result: &'static str,
    /// The hash of the policy in force from now on.
    pub(crate) policy: String,
    pub(crate) mode: String,
    pub(crate) error: Option<String>,
    /// How many rules are in force.
    pub(crate) rules: usize,
    #[serde(flatten)]
    pub(crate) difference: Difference,
}

/// The longest text of a rule in an event, in characters: a set may hold thousands of names.
const MAX_TEXT: usize = 200;
/// The longest error in an event.
const MAX_ERROR: usize = 4_000;
/// The longest path of a program in a record, in characters, and in octets where it is no UTF-8: short enough for a line that a pipe
/// takes as one piece, however it is spelt.
const MAX_EXE: usize = 500;

/// At most so many characters of a text.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Reload {
    /// The error, as far as an event should carry it.
    pub(crate) fn error(error: &anyhow::Error) -> String {
        shortened(&format!("{error:#}"), MAX_ERROR)
    }
}

/// What another policy has and lacks.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Difference {
    /// At most 50.
    pub(crate) added: Vec<RuleLine>,
    pub(crate) added_count: usize,
    /// At most 50.
    pub(crate) removed: Vec<RuleLine>,
    pub(crate) removed_count: usize,
}

/// A rule in a few words.
#[derive(Debug, Serialize)]
pub(crate) struct RuleLine {
    id: String,
    effect: &'static str,
    text: String,
    line: u32,
}

impl From<&Rule> for RuleLine {
    fn from(rule: &Rule) -> Self {
        let effect = if rule.effect() == Effect::Allow { "allow" } else { "deny" };
        Self { id: rule.id().to_string(), effect, text: shortened(&rule.to_string(), MAX_TEXT), line: rule.line() }
    }
}

/// A phase of egret's own life.
#[derive(Debug, Serialize)]
pub(crate) struct Lifecycle {
    pub(crate) phase: &'static str,
    pub(crate) version: &'static str,
    pub(crate) pid: u32,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) mode: String,
    pub(crate) policy: String,
    /// What ends it, if no signal and no command does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// A phase of the life of the command that egret started. Its arguments may hold secrets and are not told.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Child {
    pub(crate) phase: &'static str,
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) status: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// What ends it.
    pub(crate) why: Option<String>,
    /// How long it has for that.
    pub(crate) grace_ms: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a, T> {
    v: u32,
    time: String,
    event: &'a str,
    #[serde(flatten)]
    fields: T,
}

/// A confined program; nothing of others.
#[derive(Default, Serialize)]
struct Caller {
    pid: Option<u32>,
    exe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_raw: Option<String>,
    uid: Option<u32>,
}

impl From<&Process> for Caller {
    fn from(process: &Process) -> Self {
        let path = process.executable.as_ref().map(|path| PathFields::shortened(path.as_os_str().as_bytes(), MAX_EXE));
        let (exe, exe_raw) = path.map_or((None, None), |path| (Some(path.path), path.path_raw));
        Self { pid: Some(process.pid), exe, exe_raw, uid: Some(process.uid) }
    }
}

#[derive(Serialize)]
struct Connection<'a> {
    id: String,
    decision: Option<&'static str>,
    reason: Option<&'static str>,
    rule: Option<&'a str>,
    role: &'a str,
    via: Option<&'static str>,
    client: Option<SocketAddr>,
    #[serde(flatten)]
    caller: Caller,
    host: Option<String>,
    port: Option<u16>,
    sni: Option<&'a str>,
    ech: bool,
    address: Option<SocketAddr>,
    refused: Option<IpAddr>,
    class: Option<&'static str>,
    bytes_up: u64,
    bytes_down: u64,
    requests: u64,
    duration_ms: u64,
    stage: &'static str,
    close: &'static str,
    detail: Option<&'a str>,
    policy: &'a str,
}

#[derive(Serialize)]
struct NameFields<'a> {
    decision: &'static str,
    reason: &'static str,
    rule: Option<&'a str>,
    role: &'a str,
    name: &'a str,
    kind: &'a str,
    #[serde(flatten)]
    caller: Caller,
    detail: &'a str,
    policy: &'a str,
}

#[derive(Serialize)]
struct Request<'a> {
    id: String,
    decision: &'static str,
    reason: Option<&'static str>,
    rule: Option<&'a str>,
    role: &'a str,
    method: &'a str,
    host: Option<String>,
    port: Option<u16>,
    status: u16,
    fault: Option<&'static str>,
    address: Option<SocketAddr>,
    refused: Option<IpAddr>,
    class: Option<&'static str>,
    bytes_up: u64,
    bytes_down: u64,
    detail: Option<&'a str>,
    policy: &'a str,
}

impl Event {
    /// The event as one line, without its end.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Connection(record) => line("connection", record.opened + record.duration, connection(record)),
            Self::Request(request) => line("request", SystemTime::now(), self::request(request)),
            Self::Policy(reload) => line("policy", SystemTime::now(), reload),
            Self::Coverage { section, why } => {
                line("coverage", SystemTime::now(), serde_json::json!({ "section": section, "served": false, "why": why }))
            }
            Self::File(file) => line("file", SystemTime::now(), file),
            Self::Files(files) => line("files", SystemTime::now(), files),
            Self::FileCoverage(coverage) => line("coverage", SystemTime::now(), coverage),
            Self::FileGap(gap) => line("gap", SystemTime::now(), gap),
            Self::Flow(flow) => line(flow.event(), SystemTime::now(), flow),
            Self::FlowGap(gap) => line("gap", SystemTime::now(), gap),
            Self::Lifecycle(lifecycle) => line("lifecycle", SystemTime::now(), lifecycle),
            Self::Child(child) => line("lifecycle", SystemTime::now(), child),
            Self::Confinement(confinement) => line("confinement", SystemTime::now(), confinement),
            Self::Name(record) => line("name", SystemTime::now(), name(record)),
            Self::Exec { decision, pid, path, policy } => line(
                "exec",
                SystemTime::now(),
                serde_json::json!({ "decision": decision, "pid": pid, "path": path, "policy": policy }),
            ),
            Self::Gap { cause, lost } => line("gap", SystemTime::now(), serde_json::json!({ "cause": cause, "lost": lost })),
        }
    }
}

fn line(event: &str, time: SystemTime, fields: impl Serialize) -> String {
    let line = Line { v: VERSION, time: rfc3339(time), event, fields };
    let text = serde_json::to_string(&line).unwrap_or_else(|error| {
        // Nothing that is told can fail so; if something does, that it happened is still told.
        serde_json::json!({ "v": VERSION, "time": rfc3339(time), "event": event, "error": error.to_string() }).to_string()
    });
    escape(text)
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    Moment::from(time).to_string()
}

/// The same for a time of the policy, to the second.
pub(crate) fn rfc3339_of(time: UnixTime) -> String {
    Timestamp::from_second(time.0).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// JSON escapes C0; readers of logs also trip over DEL, C1 and the Unicode line ends. In JSON these stand only inside
/// strings, so the escape is the same character.
pub(crate) fn escape(json: String) -> String {
    // As nearly every line is, and this is the fast way to know.
    if json.is_ascii() && !json.contains('\u{7f}') {
        return json;
    }
    let steers = |c: char| {
        matches!(c, '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    json.chars().map(|c| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

fn connection(record: &Record) -> Connection<'_> {
    let denial = record.objection();
    Connection {
        id: record.id.to_string(),
        decision: record.decision().map(Decision::as_str),
        reason: reason(denial),
        rule: record.rule.as_ref().map(egret_policy::RuleId::as_str),
        role: &record.role,
        via: record.via.map(egret_proxy::Via::as_str),
        client: record.client,
        caller: record.process.as_ref().map(Caller::from).unwrap_or_default(),
        host: host(record.target.as_ref()),
        port: record.target.as_ref().map(|target| target.port),
        sni: record.sni.as_deref(),
        ech: record.ech,
        address: record.address,
        refused: record.refused,
        class: record.class.map(egret_policy::Class::as_str),
        bytes_up: record.bytes_up,
        bytes_down: record.bytes_down,
        requests: record.requests,
        duration_ms: u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
        stage: record.stage.as_str(),
        close: record.close.as_str(),
        detail: denial.map(|denial| denial.detail.as_str()).or(record.detail.as_deref()),
        policy: &record.policy,
    }
}

fn request(record: &RequestRecord) -> Request<'_> {
    let denial = record.objection();
    Request {
        id: record.id.to_string(),
        decision: record.decision().as_str(),
        reason: reason(denial),
        rule: record.rule.as_ref().map(egret_policy::RuleId::as_str),
        role: &record.role,
        method: &record.method,
        host: host(record.target.as_ref()),
        port: record.target.as_ref().map(|target| target.port),
        status: record.status,
        fault: record.fault,
        address: record.address,
        refused: record.refused,
        class: record.class.map(egret_policy::Class::as_str),
        bytes_up: record.bytes_up,
        bytes_down: record.bytes_down,
        detail: denial.map(|denial| denial.detail.as_str()),
        policy: &record.policy,
    }
}

fn name(record: &NameRecord) -> NameFields<'_> {
    NameFields {
        decision: Decision::Deny.as_str(),
        reason: record.denial.reason.code(),
        rule: record.denial.rule.as_ref().map(egret_policy::RuleId::as_str),
        role: &record.role,
        name: &record.name,
        kind: &record.kind,
        caller: record.process.as_ref().map(Caller::from).unwrap_or_default(),
        detail: &record.denial.detail,
        policy: &record.policy,
    }
}

fn reason(denial: Option<&Denial>) -> Option<&'static str> {
    denial.map(|denial| denial.reason.code())
}

fn host(target: Option<&Target>) -> Option<String> {
    target.map(|target| host_text(&target.host))
}

/// A host without the brackets that a URL puts around IPv6.
pub(crate) fn host_text(host: &Host) -> String {
    match host {
        Host::Name(name) => name.to_string(),
        Host::Address(address) => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
