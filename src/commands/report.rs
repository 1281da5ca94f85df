//! `egret report`: what the task talked to, from journals or from the egret that is running.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;

use super::ask::ask;
use crate::cli::{Failure, Outcome, ReportArgs, ReportOutput};
use crate::discovery::report::Report;
use crate::discovery::{Discovery, Sighting};

/// The longest line of a journal in octets; egret's own are below 4 KiB.
const MAX_LINE: u64 = 64 * 1024;

/// Prints the report.
pub(crate) fn report(args: &ReportArgs) -> Outcome {
    let report =
        if args.journals.is_empty() { running(args)? } else { from_journals(&args.journals).map_err(Failure::Environment)? };
    match args.output {
        ReportOutput::Text => print!("{}", report.text()),
        ReportOutput::Json => println!("{}", serde_json::json!(report)),
        ReportOutput::Csv => print!("{}", report.csv().map_err(Failure::Environment)?),
    }
    Ok(())
}

fn running(args: &ReportArgs) -> Result<Report, Failure> {
    let body = ask(args.admin, "/report").and_then(|answer| answer.ok_body());
    let report = body.and_then(|body| serde_json::from_slice(&body).context("its report cannot be read"));
    report.with_context(|| format!("no report from an egret at {}", args.admin)).map_err(Failure::Environment)
}

fn from_journals(paths: &[impl AsRef<Path>]) -> anyhow::Result<Report> {
    let (mut discovery, mut skipped) = (Discovery::default(), 0);
    for path in paths {
        let path = path.as_ref();
        let from: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
        };
        skipped += fold(BufReader::new(from), &mut discovery).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(Report::new(&discovery, skipped))
}

/// Folds a journal in, and counts the lines that are no events of egret's. A foreign line is never fatal: log services
/// mix streams.
fn fold(mut from: impl BufRead, discovery: &mut Discovery) -> io::Result<u64> {
    let mut skipped = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(skipped);
        }
        match serde_json::from_slice::<serde_json::Value>(&line) {
            Ok(event) if event.get("event").is_some() => {
                Sighting::of_event(&event).into_iter().for_each(|sighting| discovery.see(sighting))
            }
            _ => skipped += u64::from(!line.trim_ascii().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_and_broken_lines_are_counted_and_skipped() {
        let journal = "app says hello\n{\"event\":\"lifecycle\"}\n\n{\"event\":\"conn\n{\"event\":\"connection\",\"via\":\"connect\",\"decision\":\"deny\",\"host\":\"a.test\",\"port\":443,\"time\":\"t\"}\n";
        let mut discovery = Discovery::default();
        assert_eq!(fold(journal.as_bytes(), &mut discovery).unwrap(), 2);
        assert_eq!(discovery.len(), 1);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let endless = vec![b'x'; 200_000];
        assert_eq!(fold(&*endless, &mut Discovery::default()).unwrap(), 4);
    }
}
