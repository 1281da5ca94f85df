//! `egret report`: what the task talked to, from journals or from the egret that is running.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;

use super::ask::ask;
use super::{print, print_json};
use crate::cli::{Failure, Outcome, ReportArgs, ReportOutput};
use crate::discovery::report::{Missing, Report};
use crate::discovery::{Discovery, Sighting};

/// The longest line of a journal in octets; egret's own are below 4 KiB.
const MAX_LINE: u64 = 64 * 1024;

/// Prints the report.
pub(crate) fn report(args: &ReportArgs) -> Outcome {
    let report =
        if args.journals.is_empty() { running(args)? } else { from_journals(&args.journals).map_err(Failure::Environment)? };
    match args.output {
        ReportOutput::Text => print(&report.text()),
        ReportOutput::Json => print_json(&serde_json::json!(report)),
        ReportOutput::Csv => print(&report.csv().map_err(Failure::Environment)?),
    }
}

fn running(args: &ReportArgs) -> Result<Report, Failure> {
    let body = ask(args.admin, "/report").and_then(|answer| answer.ok_body());
    let report = body.and_then(|body| serde_json::from_slice(&body).context("its report cannot be read"));
    report.with_context(|| format!("no report from an egret at {}", args.admin)).map_err(Failure::Environment)
}

fn from_journals(paths: &[impl AsRef<Path>]) -> anyhow::Result<Report> {
    let (mut discovery, mut missing) = (Discovery::default(), Missing::default());
    for path in paths {
        let path = path.as_ref();
        let from: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
        };
        fold(BufReader::new(from), &mut discovery, &mut missing).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(Report::new(&discovery, missing))
}

/// Folds a journal in, and counts the lines that are no events of egret's, and the events that it says are lost. A
/// foreign line is never fatal: log services mix streams.
fn fold(mut from: impl BufRead, discovery: &mut Discovery, missing: &mut Missing) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match serde_json::from_slice::<serde_json::Value>(&line) {
            Ok(event) if event.get("event").is_some() => {
                missing.lost_events += event["lost"].as_u64().filter(|_| event["event"] == "gap").unwrap_or(0);
                Sighting::of_event(&event).into_iter().for_each(|sighting| discovery.see(sighting));
            }
            _ => missing.skipped_lines += u64::from(!line.trim_ascii().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(journal: &[u8]) -> (usize, Missing) {
        let (mut discovery, mut missing) = (Discovery::default(), Missing::default());
        fold(journal, &mut discovery, &mut missing).unwrap();
        (discovery.len(), missing)
    }

    #[test]
    fn foreign_and_broken_lines_are_counted_and_lost_events_told() {
        let journal = "app says hello\n{\"event\":\"lifecycle\"}\n\n{\"event\":\"conn\n{\"event\":\"gap\",\"lost\":7}\n\
                       {\"event\":\"connection\",\"via\":\"connect\",\"decision\":\"deny\",\"host\":\"a.test\",\"port\":443,\"time\":\"t\"}\n";
        assert_eq!(folded(journal.as_bytes()), (1, Missing { skipped_lines: 2, lost_events: 7 }));
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        assert_eq!(folded(&[b'x'; 200_000]), (0, Missing { skipped_lines: 4, lost_events: 0 }));
    }
}
