//! A flow as it is shown: for programs as JSON, for people as a line of a table.

use std::net::IpAddr;

use egret_flows::diag::{Direction, Protocol};
use egret_flows::{End, Flow, Unseen};
use serde::{Deserialize, Serialize};

use super::ways::Way;
use crate::events::flows::FlowLine;
use crate::events::shortened;

/// The longest path of an executable, in characters.
const MAX_PATH: usize = 1_000;

/// One flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Row {
    /// `proxy`, `direct`, `around`, `in`, `open`, `near`.
    pub(crate) way: String,
    pub(crate) protocol: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) names: Vec<String>,
    pub(crate) local: String,
    /// Of TCP; `ended`, and then how.
    pub(crate) state: String,
    pub(crate) end: Option<String>,
    pub(crate) direction: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) exe: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) container: Option<String>,
    pub(crate) unknown: Option<String>,
    pub(crate) bytes_up: Option<u64>,
    pub(crate) bytes_down: Option<u64>,
    pub(crate) age_ms: u64,
    /// The socket's number.
    pub(crate) cookie: u64,
}

impl Row {
    /// A live flow, seen for so many milliseconds.
    pub(crate) fn new(flow: &Flow, way: Way, names: Vec<String>, age_ms: u64) -> Self {
        let line = line(flow, way, names, "");
        Self {
            way: line.way,
            protocol: line.protocol,
            address: line.address,
            port: line.port,
            names: line.names,
            local: flow.local.to_string(),
            state: flow.state.as_str().to_owned(),
            end: None,
            direction: flow.direction.map(|direction| if direction == Direction::Out { "out" } else { "in" }.to_owned()),
            pid: line.pid,
            exe: line.exe,
            uid: line.uid,
            container: line.container,
            unknown: line.unknown,
            bytes_up: counted(flow, flow.octets.sent),
            bytes_down: counted(flow, flow.octets.received),
            age_ms,
            cookie: flow.cookie,
        }
    }

    pub(crate) fn ended(self, end: End) -> Self {
        Self { state: "ended".to_owned(), end: Some(end_word(end).to_owned()), ..self }
    }

    /// Its cells, as [`HEAD`] names them. Whatever a program may have chosen is escaped.
    pub(crate) fn cells(&self) -> [String; HEAD.len()] {
        let exe = self.exe.as_deref().map(|exe| exe.escape_debug().to_string());
        let owner = match (exe, self.pid) {
            (Some(exe), Some(pid)) => format!("{exe} ({pid})"),
            (_, pid) => {
                let uid = self.uid.map(|uid| format!("uid {uid}, ")).unwrap_or_default();
                let pid = pid.map(|pid| format!("pid {pid}, ")).unwrap_or_default();
                format!("{uid}{pid}unknown: {}", self.unknown.as_deref().unwrap_or("its executable can't be read"))
            }
        };
        let owner = self.container.iter().fold(owner, |owner, container| format!("{owner} in {}", container.escape_debug()));
        let bytes = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let state = self.end.as_ref().map_or_else(|| self.state.clone(), |end| format!("{} ({end})", self.state));
        [
            self.way.clone(),
            self.protocol.clone(),
            self.destination(),
            self.names.first().cloned().unwrap_or_else(|| "-".to_owned()),
            state,
            bytes(self.bytes_up),
            bytes(self.bytes_down),
            age(self.age_ms),
            owner,
        ]
    }

    fn destination(&self) -> String {
        match (self.address, self.port) {
            (Some(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => format!("{address} (port wiped)"),
            (None, _) => "anywhere".to_owned(),
        }
    }
}

/// The columns of the table.
pub(crate) const HEAD: [&str; 9] = ["WAY", "PROTO", "DESTINATION", "NAME", "STATE", "UP", "DOWN", "AGE", "OWNER"];

/// Rows under their heads, as wide as they must be.
pub(crate) fn table(rows: &[Row]) -> String {
    let all: Vec<[String; HEAD.len()]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    all.iter().map(|row| padded(row, &widths)).collect()
}

/// Columns of rows that are printed as they come; the last is as long as it is.
const USUAL: [usize; HEAD.len()] = [6, 5, 24, 24, 18, 10, 10, 6, 0];

/// The heads of such rows.
pub(crate) fn heading() -> String {
    padded(&HEAD.map(str::to_owned), &USUAL)
}

/// One of them.
pub(crate) fn line_of(row: &Row) -> String {
    padded(&row.cells(), &USUAL)
}

fn padded(cells: &[String; HEAD.len()], widths: &[usize]) -> String {
    let cells: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    format!("{}\n", cells.join("  ").trim_end())
}

fn age(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7_199 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3_600),
    }
}

/// The event of a flow, with what is new.
pub(crate) fn line(flow: &Flow, way: Way, names: Vec<String>, state: &str) -> FlowLine {
    let holder = flow.holder.as_ref().ok();
    let exe = holder.and_then(|holder| holder.exe.as_ref()).map(|exe| shortened(&exe.to_string_lossy(), MAX_PATH));
    FlowLine {
        state: state.to_owned(),
        way: way.as_str().to_owned(),
        protocol: flow.protocol.as_str().to_owned(),
        address: flow.peer.map(|peer| peer.ip()),
        port: flow.peer.map(|peer| peer.port()).filter(|port| *port != 0),
        names,
        pid: holder.map(|holder| holder.pid),
        exe,
        uid: holder.map(|holder| holder.uid).or(flow.uid),
        container: holder.and_then(|holder| holder.container.clone()),
        unknown: flow.holder.as_ref().err().map(|unseen| Unseen::why(*unseen).to_owned()),
        bytes_up: counted(flow, flow.new.sent),
        bytes_down: counted(flow, flow.new.received),
        ..FlowLine::default()
    }
}

fn counted(flow: &Flow, octets: u64) -> Option<u64> {
    (flow.protocol == Protocol::Tcp).then_some(octets)
}

/// The stable text.
pub(crate) fn end_word(end: End) -> &'static str {
    match end {
        End::Told => "final",
        End::Gone => "gone",
        End::Reused => "reused",
        End::Wiped => "wiped",
    }
}
