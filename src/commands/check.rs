//! `egret check`: is this policy valid, is it what was meant, do its own tests hold, and what would it have done to what
//! journals hold?

mod sarif;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use egret_policy::{Mode, Policy, Surroundings};
use egret_proxy::now;
use serde_json::{Value, json};

use super::learn::enforcing;
use super::{print, print_json};
use crate::cli::{CheckArgs, CheckOutput, Failure, Outcome};
use crate::config::diagnose::{Diagnostic, Diagnostics, Severity};
use crate::config::source::{self, Source, Text};
use crate::config::{self, Config};
use crate::evidence::Evidence;
use crate::replay::{Replay, counted};
use crate::stderr;

/// Exit 0 if the policy is valid and its tests hold; 1 if a test fails, a replay would deny, or with `--strict` anything
/// is warned of; 2 if it is invalid.
pub(crate) fn check(args: &CheckArgs) -> Outcome {
    let audit = args.mode() == Some(Mode::Audit);
    usage(args).map_err(Failure::Usage)?;
    let advice = "name one, egret check FILE; with --mode audit an empty one is checked";
    let source = Source::find(args.file.as_deref(), source::variable, audit, advice).map_err(Failure::Usage)?;
    let text = source.read().map_err(Failure::Usage)?;
    let config = match config::load(&text, args.mode()) {
        Ok(config) => config,
        Err(found) => return invalid(&found, args.output),
    };
    let told = Told::of(&text, config);
    let replay = replay(args, &text)?;
    let strict = args.strict && told.found.count(Severity::Warning) > 0;
    let negative = strict || told.failed > 0 || replay.as_ref().is_some_and(Replay::is_negative);
    match args.output {
        CheckOutput::Text => told.print_text(&text, replay.as_ref(), negative)?,
        CheckOutput::Json => print_json(&told.json(replay.as_ref()))?,
        CheckOutput::Sarif => print_json(&sarif::log(&told.found))?,
    }
    if negative { Err(Failure::Negative) } else { Ok(()) }
}

/// What clap cannot tell: a policy that was taken for a journal, and a form that has no place for a replay.
fn usage(args: &CheckArgs) -> anyhow::Result<()> {
    let is_policy = |path: &PathBuf| path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    if let Some(policy) = args.replay.iter().find(|path| is_policy(path)) {
        bail!("{} is taken for a journal: write the policy first, `egret check POLICY --replay JOURNAL`", policy.display());
    }
    if args.output == CheckOutput::Sarif && !args.replay.is_empty() {
        bail!("SARIF has no place for a replay, which stands in no line of the policy: use --output json");
    }
    Ok(())
}

fn invalid(found: &Diagnostics, output: CheckOutput) -> Outcome {
    match output {
        CheckOutput::Text => stderr::print(&format!("{found}\n")),
        CheckOutput::Json => print_json(&json!({ "v": 1, "valid": false, "diagnostics": found.all }))?,
        CheckOutput::Sarif => print_json(&sarif::log(found))?,
    }
    Err(Failure::Usage(anyhow!("the policy is invalid")))
}

fn replay(args: &CheckArgs, text: &Text) -> Result<Option<Replay>, Failure> {
    if args.replay.is_empty() {
        return Ok(None);
    }
    let policy = enforcing(text)?;
    let evidence = Evidence::read(&args.replay).map_err(Failure::Environment)?;
    Ok(Some(Replay::of(&evidence, &policy, now())))
}

/// What there is to say about a valid policy.
struct Told {
    found: Diagnostics,
    failed: usize,
    rules: usize,
    tests: usize,
    mode: Mode,
}

impl Told {
    fn of(text: &Text, config: Config) -> Self {
        let mut found = config.lints(now(), config.has_executables() && egret_flows::others_visible());
        let (rules, tests, mode) = (config.draft.rules().len(), config.tests.len(), config.draft.mode_at(now()));
        let failed = failed_tests(config);
        let count = failed.len();
        found.extend(failed);
        Self { found: Diagnostics::new(&text.origin, &text.yaml, found), failed: count, rules, tests, mode }
    }

    fn print_text(&self, text: &Text, replay: Option<&Replay>, negative: bool) -> Outcome {
        if !self.found.all.is_empty() {
            stderr::print(&format!("{}\n", self.found));
        }
        print(&replay.map(Replay::text).unwrap_or_default())?;
        if self.failed > 0 {
            return Ok(());
        }
        let (rules, tests) = (counted(self.rules as u64, "rule"), counted(self.tests as u64, "test"));
        let warnings = match self.found.count(Severity::Warning) {
            0 => String::new(),
            count => format!(", {}", counted(count as u64, "warning")),
        };
        let verdict = if negative { "not ok" } else { "ok" };
        print(&format!("{}: {verdict} ({rules}, {tests}, mode {}{warnings})\n", text.origin, self.mode))
    }

    fn json(&self, replay: Option<&Replay>) -> Value {
        let mut told = json!({
            "v": 1,
            "valid": true,
            "rules": self.rules,
            "tests": self.tests,
            "mode": self.mode.to_string(),
            "diagnostics": self.found.all,
        });
        if let Some(replay) = replay {
            told["replay"] = json!(replay);
        }
        told
    }
}

fn failed_tests(config: Config) -> Vec<Diagnostic> {
    let policy = Arc::new(Policy::new(config.draft, Surroundings::default()));
    config.tests.iter().filter_map(|test| test.run(&policy, now()).err()).collect()
}
