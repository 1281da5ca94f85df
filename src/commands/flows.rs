//! `egret flows`: every flow of this network namespace, from the egret that runs here, or by this command's own look.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use egret_flows::{Event as Seen, Options, Watch};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::ask;
use super::env::direct_of;
use super::{print, print_json};
use crate::cli::{Failure, FlowsArgs, Outcome, Output};
use crate::flows::glance::{self, Bystander};
use crate::flows::row::{Row, heading, line_of, table};
use crate::replay::counted;
use crate::stderr;
use crate::stream::Patient;

/// How often a running egret is asked for what ended.
const BEAT: Duration = Duration::from_secs(1);

/// An egret that does not answer for so long is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a running egret answers.
#[derive(Debug, Deserialize)]
struct Answer {
    flows: Vec<Row>,
    ended: Vec<Row>,
    seq: u64,
    /// Flows that ended and are not kept any more.
    lost: u64,
    /// What it cannot see.
    blind: Vec<String>,
}

/// Prints the flows.
pub(crate) fn flows(args: &FlowsArgs) -> Outcome {
    let direct = args.policy.as_deref().map(direct_of).transpose()?.unwrap_or_default();
    let answer = asked(args, "/flows").ok();
    match (answer, args.follow) {
        (Some(answer), false) => show("egret", answer.flows, &answer.blind, args.output),
        (Some(answer), true) => follow(args, answer),
        (None, follows) => {
            stderr::say(format_args!(
                "no egret answers at {}: this is what the command itself sees, without names, and without what egret \
                 knows of its own flows",
                args.admin
            ));
            if follows {
                return watch(direct, args.output);
            }
            let rows = glance::now(direct).map_err(Failure::Environment)?;
            show("self", rows, &blind_here(), args.output)
        }
    }
}

fn asked(args: &FlowsArgs, path: &str) -> anyhow::Result<Answer> {
    let body = ask(args.admin, path)?.ok_body()?;
    serde_json::from_slice(&body).context("its flows cannot be read")
}

/// What this process cannot see.
fn blind_here() -> Vec<String> {
    let hidden = "owners: no process of others can be looked at here; run as the app's user in a shared process namespace";
    if egret_flows::others_visible() { Vec::new() } else { vec![hidden.to_owned()] }
}

fn show(source: &str, mut rows: Vec<Row>, blind: &[String], output: Output) -> Outcome {
    rows.retain(|row| row.way != "near");
    // What goes around comes first.
    let rank = |row: &Row| ["around", "open", "direct", "proxy"].iter().position(|way| *way == row.way);
    rows.sort_by_key(|row| (rank(row).unwrap_or(usize::MAX), row.exe.clone(), row.address, row.port, row.cookie));
    if output == Output::Json {
        return print_json(&json!({ "v": 1, "source": source, "flows": rows, "blind": blind }));
    }
    let around = rows.iter().filter(|row| row.way == "around").count();
    let mut text = format!("{}, {around} around the proxy\n", counted(rows.len() as u64, "flow"));
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&rows));
    }
    for line in blind {
        text.push_str(&format!("\nnot seen: {line}\n"));
    }
    print(&text)
}

/// Asks again and again; ends when nobody reads any more.
fn follow(args: &FlowsArgs, first: Answer) -> Outcome {
    let mut printer = Printer::new(args.output);
    let mut seq = first.seq;
    first.blind.iter().for_each(|line| stderr::say(format_args!("not seen: {line}")));
    let (mut flows, mut answered) = (first.flows, Instant::now());
    loop {
        if !printer.began(&flows)? {
            return Ok(());
        }
        std::thread::sleep(BEAT);
        let answer = match asked(args, &format!("/flows?since={seq}")) {
            Ok(answer) => answer,
            // It may be busy.
            Err(_) if answered.elapsed() < PATIENCE => continue,
            Err(error) => {
                let gone = anyhow!("the egret at {} does not answer any more: {error:#}", args.admin);
                return Err(Failure::Environment(gone));
            }
        };
        answered = Instant::now();
        if answer.lost > 0 {
            stderr::say(format_args!("{} ended meanwhile and cannot be shown", counted(answer.lost, "flow")));
        }
        for row in &answer.ended {
            if !printer.ended(row)? {
                return Ok(());
            }
        }
        (seq, flows) = (answer.seq, answer.flows);
    }
}

/// Watches by itself.
fn watch(direct: Vec<IpNet>, output: Output) -> Outcome {
    blind_here().iter().for_each(|line| stderr::say(format_args!("not seen: {line}")));
    let (tell, told) = channel();
    let watch = Watch::start(Options::default(), move |seen| {
        let _ = tell.send(seen);
    });
    let _watch = watch.map_err(|refused| Failure::Environment(refused.into()))?;
    let (mut bystander, mut printer) = (Bystander::new(direct), Printer::new(output));
    for seen in told {
        let goes_on = match seen {
            Seen::Began(flow) => printer.began(&[bystander.row(&flow)])?,
            Seen::Ended(flow, end) => printer.ended(&bystander.row(&flow).ended(end))?,
            Seen::Listed(listed) => {
                bystander.listens(&listed.listening);
                true
            }
            Seen::Goes(_) => true,
            Seen::Lost(_) => {
                stderr::say(format_args!("ends of flows were lost; everything was listed anew"));
                true
            }
            Seen::Refused(_, why) => {
                stderr::say(&why);
                true
            }
        };
        if !goes_on {
            return Ok(());
        }
    }
    Ok(())
}

/// A flow that is printed on its own, for programs.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    #[serde(flatten)]
    row: &'a Row,
}

/// Prints flows as they come.
struct Printer {
    output: Output,
    headed: bool,
    live: HashSet<u64>,
}

impl Printer {
    fn new(output: Output) -> Self {
        Self { output, headed: false, live: HashSet::new() }
    }

    /// Of these the ones that were not printed; false if nobody reads.
    fn began(&mut self, flows: &[Row]) -> Result<bool, Failure> {
        for row in flows {
            if self.live.insert(row.cookie) && !self.print(row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn ended(&mut self, row: &Row) -> Result<bool, Failure> {
        self.live.remove(&row.cookie);
        self.print(row)
    }

    fn print(&mut self, row: &Row) -> Result<bool, Failure> {
        if row.way == "near" {
            return Ok(true);
        }
        let head =
            if self.output == Output::Text && !std::mem::replace(&mut self.headed, true) { heading() } else { String::new() };
        let line = match self.output {
            Output::Text => line_of(row),
            Output::Json => format!("{}\n", json!(Line { v: 1, row })),
        };
        match Patient(io::stdout()).write_all((head + &line).as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot print").map_err(Failure::Environment),
        }
    }
}
