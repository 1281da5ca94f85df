//! The discovery report in its forms: text that begins like the lists of known gateways, JSON, CSV.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Destination, Discovery};
use crate::flows::trends::{Around, Trend, Trends};
use crate::reading::Missing;
use crate::replay::counted;

/// The version of the JSON form.
const VERSION: u32 = 1;

/// The report as programs read it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    v: u32,
    destinations: Vec<Row>,
    /// Sightings of destinations beyond the table of 2,048.
    other: u64,
    /// What went around the proxy.
    #[serde(default)]
    around: Vec<Around>,
    /// Lines of what went around beyond the table of 1,024.
    #[serde(default)]
    around_other: u64,
    /// Every flow, by hour and destination.
    #[serde(default)]
    trends: Vec<Trend>,
    #[serde(flatten)]
    missing: Missing,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    destination: Destination,
    marks: Vec<String>,
}

impl Report {
    pub(crate) fn new(discovery: &Discovery, flows: &Trends, missing: Missing) -> Self {
        let row = |destination: &Destination| Row {
            destination: destination.clone(),
            marks: destination.marks().into_iter().map(str::to_owned).collect(),
        };
        Self {
            v: VERSION,
            destinations: discovery.destinations().map(row).collect(),
            other: discovery.other(),
            around: flows.around(),
            around_other: flows.other,
            trends: flows.rows(),
            missing,
        }
    }

    /// A count line, `host,tcp,port` rows with a mark where there is one, and a table.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{} destinations\n", self.destinations.len());
        for row in &self.destinations {
            let Destination { host, port, protocol, .. } = &row.destination;
            let marks: String = row.marks.iter().map(|mark| format!(",{mark}")).collect();
            let _ = writeln!(out, "{host},{protocol},{port}{marks}");
        }
        if !self.destinations.is_empty() {
            out.push('\n');
            out.push_str(&self.table());
        }
        if self.other > 0 {
            let _ = writeln!(out, "\n{} connections to further destinations are not listed", self.other);
        }
        if !self.around.is_empty() {
            out.push_str(&self.around_text());
        }
        if self.missing.skipped_lines > 0 {
            let _ = writeln!(out, "\n{} lines were no events of egret's and were skipped", self.missing.skipped_lines);
        }
        if self.missing.newer_lines > 0 {
            let _ = writeln!(out, "\n{} lines were written by a newer egret and were skipped", self.missing.newer_lines);
        }
        if self.missing.lost_events > 0 {
            let _ =
                writeln!(out, "\n{} events were lost before they were written: this report lacks them", self.missing.lost_events);
        }
        out
    }

    /// What went around, and what to set against it.
    fn around_text(&self) -> String {
        let mut out = "\nwent around the proxy:\n".to_owned();
        for around in &self.around {
            let owner = around.exe.as_deref().map_or_else(
                || format!("unknown, because {}", around.unknown.as_deref().unwrap_or("its executable can't be read")),
                |exe| exe.escape_debug().to_string(),
            );
            let uid = around.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
            let address = around.address.as_deref().unwrap_or("an unknown address");
            let port = around.port.map(|port| format!(" port {port}")).unwrap_or_default();
            let names = if around.names.is_empty() { String::new() } else { format!(" ({})", around.names.join(", ")) };
            let bytes = around.bytes_up.zip(around.bytes_down).map(|(up, down)| format!(", {up} bytes up, {down} down"));
            let (new, bytes) = (if around.new { ", new" } else { "" }, bytes.unwrap_or_default());
            let connections = counted(around.connections, "connection");
            let _ = writeln!(out, "  {owner}{uid}: {} {address}{port}{names}, {connections}{bytes}{new}", around.protocol);
            if let Some(advice) = &around.advice {
                let _ = writeln!(out, "    {advice}");
            }
        }
        if self.around_other > 0 {
            let _ = writeln!(out, "  {} more are not listed", counted(self.around_other, "line"));
        }
        out
    }

    fn table(&self) -> String {
        let head = ["VERDICT", "HOST", "PORT", "CONNS", "DENIED", "FAILED", "UP", "DOWN", "KNOWN BY", "CLASS", "REASON OR RULE"];
        let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.destinations.iter().map(Row::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        rows.iter().map(line).collect()
    }

    /// One row a destination, and then one for each owner and destination that went around.
    pub(crate) fn csv(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(CSV_HEAD.iter().chain(&CSV_OWNER))?;
        for row in &self.destinations {
            let nobody = CSV_OWNER.map(|_| String::new());
            writer.write_record(row.csv_cells().iter().chain(&nobody))?;
        }
        for around in &self.around {
            writer.write_record(around_cells(around).iter().chain(&owner_cells(around)))?;
        }
        Ok(String::from_utf8(writer.into_inner()?)?)
    }
}

/// The columns of the CSV form; [`Row::csv_cells`] has them in the same order.
const CSV_HEAD: [&str; 17] = [
    "host",
    "protocol",
    "port",
    "verdict",
    "marks",
    "reason",
    "rule",
    "known_by",
    "classes",
    "connections",
    "denied",
    "would_deny",
    "failures",
    "bytes_up",
    "bytes_down",
    "first_seen",
    "last_seen",
];

/// Further columns, which only what went around has; [`owner_cells`] has them in the same order.
const CSV_OWNER: [&str; 6] = ["names", "exe", "uid", "container", "unknown", "advice"];

/// What went around, in the columns of a destination; what does not apply is empty.
fn around_cells(around: &Around) -> [String; CSV_HEAD.len()] {
    let none = String::new;
    let number = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    [
        around.address.clone().unwrap_or_else(|| "unknown".to_owned()),
        as_text(around.protocol.clone()),
        number(around.port.map(u64::from)),
        "around".to_owned(),
        if around.new { "around new" } else { "around" }.to_owned(),
        none(),
        none(),
        none(),
        none(),
        around.connections.to_string(),
        none(),
        none(),
        none(),
        number(around.bytes_up),
        number(around.bytes_down),
        as_text(around.first_seen.clone()),
        as_text(around.last_seen.clone()),
    ]
}

fn owner_cells(around: &Around) -> [String; CSV_OWNER.len()] {
    let text = |text: Option<&String>| as_text(text.cloned().unwrap_or_default());
    [
        as_text(around.names.join(" ")),
        text(around.exe.as_ref()),
        around.uid.map(|uid| uid.to_string()).unwrap_or_default(),
        text(around.container.as_ref()),
        text(around.unknown.as_ref()),
        text(around.advice.as_ref()),
    ]
}

impl Row {
    fn csv_cells(&self) -> [String; CSV_HEAD.len()] {
        let d = self.destination.clone();
        let verdict = serde_json::json!(d.verdict).as_str().unwrap_or_default().to_owned();
        let [connections, denied, would_deny] = [d.connections, d.denied, d.would_deny].map(|n| n.to_string());
        let [failures, up, down] = [d.failures, d.bytes_up, d.bytes_down].map(|n| n.to_string());
        let (reason, rule) = (as_text(d.reason.unwrap_or_default()), as_text(d.rule.unwrap_or_default()));
        let (known_by, classes) = (joined(&d.known_by), as_text(joined(&d.classes)));
        let (port, marks) = (d.port.to_string(), self.marks.join(" "));
        [
            d.host,
            d.protocol,
            port,
            verdict,
            marks,
            reason,
            rule,
            known_by,
            classes,
            connections,
            denied,
            would_deny,
            failures,
            up,
            down,
            d.first_seen.to_string(),
            d.last_seen.to_string(),
        ]
    }

    fn cells(&self) -> Vec<String> {
        let d = &self.destination;
        let verdict = if self.marks.is_empty() { "allow".to_owned() } else { self.marks.join(" ") };
        let why = d.reason.clone().or_else(|| d.rule.clone()).unwrap_or_default();
        vec![
            verdict,
            d.host.clone(),
            d.port.to_string(),
            d.connections.to_string(),
            (d.denied + d.would_deny).to_string(),
            d.failures.to_string(),
            d.bytes_up.to_string(),
            d.bytes_down.to_string(),
            joined(&d.known_by),
            joined(&d.classes),
            why,
        ]
    }
}

/// Text of a journal that no spreadsheet takes for a formula.
fn as_text(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell }
}

fn joined(set: &std::collections::BTreeSet<String>) -> String {
    set.iter().cloned().collect::<Vec<_>>().join(" ")
}
