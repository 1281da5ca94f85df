//! `egret check`: is this policy valid, and do its own tests hold?

use std::sync::Arc;

use anyhow::anyhow;
use egret_policy::{Policy, Surroundings};
use egret_proxy::now;
use serde_json::json;

use super::{print, print_json};
use crate::cli::{CheckArgs, Failure, Outcome, Output};
use crate::config::diagnose::{Diagnostic, Diagnostics};
use crate::config::source::{self, Source, Text};
use crate::config::{self, Config};

/// How long before its end a rule is warned of.
const SOON: i64 = 14 * 24 * 3_600;

/// Exit 0 if the policy is valid and its tests hold, 1 if a test fails, 2 if it is invalid.
pub(crate) fn check(args: &CheckArgs) -> Outcome {
    let source = Source::find(args.file.as_deref(), source::variable, false).map_err(Failure::Usage)?;
    let text = source.read().map_err(Failure::Usage)?;
    let config = match config::load(&text, args.mode()) {
        Ok(config) => config,
        Err(found) => return refused(&found, args.output, Failure::Usage(anyhow!("the policy is invalid"))),
    };
    warn(&text, &config);
    let (rules, tests, mode) = (config.draft.rules().len(), config.tests.len(), config.draft.mode);
    let failed = failed_tests(config);
    if !failed.is_empty() {
        return refused(&Diagnostics::new(&text.origin, &text.yaml, failed), args.output, Failure::Negative);
    }
    match args.output {
        Output::Text => print(&format!("{}: ok ({rules} rules, {tests} tests, mode {mode})\n", text.origin)),
        Output::Json => print_json(
            &json!({ "v": 1, "valid": true, "rules": rules, "tests": tests, "mode": mode.to_string(), "diagnostics": [] }),
        ),
    }
}

fn failed_tests(config: Config) -> Vec<Diagnostic> {
    let policy = Arc::new(Policy::new(config.draft, Surroundings::default()));
    config.tests.iter().filter_map(|test| test.run(&policy, now()).err()).collect()
}

fn refused(found: &Diagnostics, output: Output, failure: Failure) -> Outcome {
    match output {
        Output::Text => eprintln!("{found}"),
        Output::Json => print_json(&json!({ "v": 1, "valid": false, "diagnostics": found.all }))?,
    }
    Err(failure)
}

/// What is valid and yet worth a word.
fn warn(text: &Text, config: &Config) {
    if config.draft.rules().is_empty() {
        eprintln!("egret: {} has no rules: it denies everything", text.origin);
    }
    for rule in config.draft.rules() {
        let left = rule.expires().map_or(i64::MAX, |end| end.0.saturating_sub(now().0));
        if left <= SOON {
            let when = if left <= 0 { "has expired".to_owned() } else { format!("expires in {} days", left / 86_400) };
            eprintln!("egret: {}:{}: the rule for {rule} {when}", text.origin, rule.line());
        }
    }
}
