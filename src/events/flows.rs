//! What the watch over flows tells, as fields.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rfc3339;
use crate::discovery::{is_one_word, shown};

/// How far clocks may differ.
const AHEAD: Duration = Duration::from_secs(24 * 3_600);

/// The longest word for a state, way or protocol.
const MOST_WORD: usize = 16;

/// A step in the life of a flow, or many such steps together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FlowLine {
    /// `began` (of what goes around only), `goes`, `ended`; `folded`: many.
    pub(crate) state: String,
    /// `proxy`, `direct`, `around`, `in`, `open`.
    pub(crate) way: String,
    pub(crate) protocol: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    /// What the address was resolved from through egret, the latest first.
    pub(crate) names: Vec<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) exe: Option<String>,
    pub(crate) uid: Option<u32>,
    /// Another container than egret's.
    pub(crate) container: Option<String>,
    /// Why the process is not known.
    pub(crate) unknown: Option<String>,
    /// Since the last line of this flow; of UDP nobody knows.
    pub(crate) bytes_up: Option<u64>,
    pub(crate) bytes_down: Option<u64>,
    /// Flows that ended.
    pub(crate) connections: u64,
    pub(crate) duration_ms: Option<u64>,
    /// How it ended: `final`, `gone`, `reused`, `wiped`.
    pub(crate) end: Option<String>,
    /// What the policy says of it.
    pub(crate) action: Option<String>,
    /// Nobody had been there before.
    pub(crate) new: bool,
    /// When, of a line that was read.
    #[serde(skip_serializing)]
    pub(crate) time: String,
}

impl FlowLine {
    /// From a line of a journal, which anybody may have written. Anything else gives `None`.
    pub(crate) fn of_event(event: &Value) -> Option<Self> {
        let is_flow = matches!(event.get("event")?.as_str()?, "flow" | "around");
        let line: Self = is_flow.then(|| serde_json::from_value(event.clone()).ok())??;
        let is_word = |word: &str| word.len() <= MOST_WORD && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        // What says that it is of a time to come would stand before all that is true.
        let is_to_come = line.time > rfc3339(SystemTime::now() + AHEAD);
        if is_to_come || ![&line.state, &line.way, &line.protocol].iter().all(|word| is_word(word)) {
            return None;
        }
        Some(Self {
            names: line.names.iter().filter(|name| is_one_word(name)).cloned().collect(),
            exe: line.exe.as_deref().map(shown),
            unknown: line.unknown.as_deref().map(shown),
            container: line.container.as_deref().map(shown),
            ..line
        })
    }

    /// The kind of event that it is.
    pub(crate) fn event(&self) -> &'static str {
        if self.way == "around" { "around" } else { "flow" }
    }

    /// Stamped with the time of now.
    pub(crate) fn now(self) -> Self {
        Self { time: rfc3339(SystemTime::now()), ..self }
    }
}

/// Two counts together. One that nobody knows adds nothing, and hides nothing.
pub(crate) fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.zip(other).map(|(one, other)| one.saturating_add(other)).or(one).or(other)
}

/// Ends of flows were lost.
#[derive(Debug, Serialize)]
pub(crate) struct FlowGap {
    pub(crate) section: &'static str,
    pub(crate) cause: &'static str,
}
