//! `egret report`: what the task talked to, from journals or from the egret that is running.

use std::path::PathBuf;

use anyhow::Context;

use super::ask::ask;
use super::{print, print_json};
use crate::cli::{Failure, Outcome, ReportArgs, ReportOutput};
use crate::discovery::report::Report;
use crate::discovery::{Discovery, Sighting};
use crate::events::flows::FlowLine;
use crate::flows::trends::Trends;
use crate::reading;

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

fn from_journals(paths: &[PathBuf]) -> anyhow::Result<Report> {
    let (mut discovery, mut flows) = (Discovery::default(), Trends::default());
    let missing = reading::read(paths, |event| {
        Sighting::of_event(event).into_iter().for_each(|sighting| discovery.see(sighting));
        FlowLine::of_event(event).iter().for_each(|line| flows.see(line));
    })?;
    Ok(Report::new(&discovery, &flows, missing))
}
