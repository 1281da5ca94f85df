//! Journals as input, of one task or many, mixed with whatever else a log service delivers. A line that is no event of
//! egret's, or of a newer egret, is counted, the first few are named, and none is fatal.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::events::VERSION;
use crate::stderr;

/// The longest line of a journal in octets; egret's longest, of a reload that changes many rules, are
/// below 30 KiB, and a log driver may double one by escaping.
const MAX_LINE: u64 = 64 * 1024;
/// How many lines that cannot be used are named.
const NAMED: u64 = 3;

/// What the journals do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// Lines that were no events of egret's.
    pub(crate) skipped_lines: u64,
    /// Lines of a newer egret, whose fields may mean something else.
    #[serde(default)]
    pub(crate) newer_lines: u64,
    /// Events that a journal says it lost.
    pub(crate) lost_events: u64,
}

/// Reads journals to their ends and gives every event; `-` is stdin.
///
/// # Errors
/// A journal cannot be opened or read.
pub(crate) fn read(paths: &[PathBuf], mut each: impl FnMut(&Value)) -> anyhow::Result<Missing> {
    let mut missing = Missing::default();
    for path in paths {
        let from: Box<dyn Read> = match path.to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?),
        };
        lines(path, BufReader::new(from), &mut missing, &mut each).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(missing)
}

/// Reads one journal to its end; `path` is what it is called in messages.
///
/// # Errors
/// It cannot be read.
pub(crate) fn lines(path: &Path, mut from: impl BufRead, missing: &mut Missing, each: &mut impl FnMut(&Value)) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            // What follows is the same line still; read alone it could look like one of egret's.
            from.skip_until(b'\n')?;
            line.clear();
            line.push(b'?');
        }
        match understood(&line) {
            Line::Event(event) => {
                let lost = event["lost"].as_u64().filter(|_| event["event"] == "gap").unwrap_or(0);
                missing.lost_events = missing.lost_events.saturating_add(lost);
                each(&event);
            }
            Line::Empty => {}
            Line::Foreign => {
                missing.skipped_lines += 1;
                name(missing.skipped_lines, path, number, "no event of egret's");
            }
            Line::Newer(version) => {
                missing.newer_lines += 1;
                name(missing.newer_lines, path, number, &format!("written by a newer egret (v{version})"));
            }
        }
    }
    Ok(())
}

fn name(count: u64, path: &Path, number: u64, what: &str) {
    if count <= NAMED {
        stderr::say(format_args!("{}:{number}: {what}", path.display()));
    }
}

enum Line {
    Event(Value),
    Empty,
    Foreign,
    Newer(u64),
}

fn understood(line: &[u8]) -> Line {
    if line.trim_ascii().is_empty() {
        return Line::Empty;
    }
    let Some(event) = serde_json::from_slice::<Value>(line).ok().and_then(unwrapped) else { return Line::Foreign };
    match event.get("v").and_then(Value::as_u64) {
        None => Line::Foreign,
        Some(newer) if newer > VERSION.into() => Line::Newer(newer),
        Some(_) => Line::Event(event),
    }
}

/// What log drivers and services put beside the text of a line; at least one of it marks a wrapped line.
const BESIDE: &[&str] = &[
    "@timestamp",
    "container_id",
    "container_name",
    "eventId",
    "ingestionTime",
    "kubernetes",
    "logStreamName",
    "source",
    "stream",
    "timestamp",
];

/// The event itself, or the one that a log driver has put as a text into `log` or `message`. Any program of the task can
/// log such a line; so can it log an event of egret's outright.
fn unwrapped(value: Value) -> Option<Value> {
    if value.get("event").is_some_and(Value::is_string) {
        return Some(value);
    }
    BESIDE.iter().find(|key| value.get(key).is_some())?;
    let text = ["log", "message"].iter().find_map(|key| value.get(key)?.as_str())?;
    serde_json::from_str::<Value>(text).ok().filter(|event| event.get("event").is_some_and(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(journal: &[u8]) -> (Vec<String>, Missing) {
        let (mut events, mut missing) = (Vec::new(), Missing::default());
        let mut each = |event: &Value| events.push(event["event"].as_str().unwrap_or_default().to_owned());
        lines(Path::new("journal"), journal, &mut missing, &mut each).unwrap();
        (events, missing)
    }

    #[test]
    fn foreign_broken_and_newer_lines_are_counted_and_lost_events_told() {
        let journal = "app says hello\n{\"v\":1,\"event\":\"lifecycle\"}\n\n{\"event\":\"conn\n{\"v\":2,\"event\":\"connection\"}\n\
                       {\"v\":1,\"event\":\"gap\",\"lost\":7}\n{\"event\":\"connection\"}\n[1]\n{\"event\":5}\n";
        let (events, missing) = of(journal.as_bytes());
        assert_eq!(events, ["lifecycle", "gap"]);
        assert_eq!(missing, Missing { skipped_lines: 5, newer_lines: 1, lost_events: 7 });
    }

    #[test]
    fn a_line_that_a_log_driver_wrapped_is_unwrapped() {
        let wrapped = serde_json::json!({ "log": "{\"v\":1,\"event\":\"connection\"}\n", "stream": "stdout" }).to_string();
        let deep = serde_json::json!({ "timestamp": 7, "message": "{\"v\":9,\"event\":\"connection\"}" }).to_string();
        let app = serde_json::json!({ "level": "info", "message": "{\"v\":1,\"event\":\"connection\"}" }).to_string();
        let (events, missing) = of(format!("{wrapped}\n{deep}\n{app}\n").as_bytes());
        assert_eq!((events.len(), missing.newer_lines, missing.skipped_lines), (1, 1, 1));
    }

    #[test]
    fn o54_a_line_that_is_too_long_is_one_line_and_no_event_to_its_end() {
        assert_eq!(of(&[b'x'; 200_000]).1.skipped_lines, 1);
        let event = b"{\"v\":1,\"event\":\"connection\"}\n";
        let smuggled = [&vec![b' '; MAX_LINE as usize][..], event, event].concat();
        let (events, missing) = of(&smuggled);
        assert_eq!((events.len(), missing.skipped_lines), (1, 1));
    }

    #[test]
    fn o55_lost_events_beyond_counting_are_no_panic() {
        let gap = format!("{{\"v\":1,\"event\":\"gap\",\"lost\":{}}}\n", u64::MAX);
        assert_eq!(of(gap.repeat(2).as_bytes()).1.lost_events, u64::MAX);
    }
}
