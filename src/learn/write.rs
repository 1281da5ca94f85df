//! A proposal as a whole policy file, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Learn, Learnt, LeftOut};
use crate::evidence::Evidence;
use crate::replay::counted;

/// More left-out destinations than this are counted, not listed: a comment is for reading.
const MAX_LISTED: usize = 200;

/// A whole policy in audit, and the line of its mode.
pub(crate) fn policy(learnt: &Learnt, evidence: &Evidence) -> (String, usize) {
    let mut out = String::new();
    let times = match (&evidence.first, &evidence.last) {
        (Some(first), Some(last)) => format!(", {first} to {last}"),
        _ => String::new(),
    };
    let _ = writeln!(out, "# Learnt from {}{times}.", counted(evidence.events, "event"));
    let _ = writeln!(out, "version: 1\nmode: audit\n\negress:");
    let mode_line = 3;
    if learnt.rules.is_empty() {
        let _ = writeln!(out, "  allow: []");
    } else {
        let _ = writeln!(out, "  allow:");
        groups(&mut out, &learnt.rules);
    }
    left_out(&mut out, &learnt.left_out);
    (out, mode_line)
}

fn groups(out: &mut String, rules: &[Learn]) {
    for group in rules.chunk_by(|a, b| a.group == b.group) {
        let names: usize = group.iter().map(|learn| learn.names).sum();
        let events = group.iter().map(|learn| learn.events).sum();
        let _ = writeln!(out, "    # {}: {}, {}", group[0].group, counted(names as u64, "destination"), counted(events, "event"));
        for learn in group {
            let _ = writeln!(out, "    {}", learn.line);
        }
    }
}

fn left_out(out: &mut String, left_out: &[LeftOut]) {
    if left_out.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n# Left out; `egret learn --include MARK` takes them in:");
    for left in left_out.iter().take(MAX_LISTED) {
        let _ = writeln!(out, "#   {}: {}, {}", left.destination, left.mark, counted(left.events, "event"));
    }
    if left_out.len() > MAX_LISTED {
        let _ = writeln!(out, "#   and {} more", left_out.len() - MAX_LISTED);
    }
}

/// The proposal for programs.
pub(crate) fn json(learnt: &Learnt, evidence: &Evidence) -> Value {
    let rule = |learn: &Learn| {
        let line = &learn.line;
        json!({
            "to": line.to.to_string(),
            "ports": [line.port],
            "for": line.roles,
            "as": line.protocol.map(|protocol| protocol.to_string()),
            "within": line.within.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "events": learn.events,
        })
    };
    let left = |left: &LeftOut| {
        let d = &left.destination;
        json!({ "host": d.host, "port": d.port, "role": d.role, "mark": left.mark, "events": left.events })
    };
    json!({
        "v": 1,
        "events": evidence.events,
        "rules": learnt.rules.iter().map(rule).collect::<Vec<_>>(),
        "left_out": learnt.left_out.iter().map(left).collect::<Vec<_>>(),
        "skipped_lines": evidence.missing.skipped_lines,
        "newer_lines": evidence.missing.newer_lines,
        "lost_events": evidence.missing.lost_events,
    })
}
