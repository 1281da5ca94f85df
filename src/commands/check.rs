//! `egret check`: is this policy valid, and do its own tests hold?

use std::sync::Arc;

use anyhow::anyhow;
use egret_policy::{Policy, Surroundings};
use serde_json::json;

use super::now;
use crate::cli::{CheckArgs, Failure, Outcome, Output};
use crate::config::diagnose::{Diagnostic, Diagnostics};
use crate::config::source::{Source, Text};
use crate::config::{self, Config};

/// Exit 0 if the policy is valid and its tests hold, 1 if a test fails, 2 if it is invalid.
pub(crate) fn check(args: &CheckArgs) -> Outcome {
    let source = Source::find(args.file.as_deref(), |name| std::env::var(name).ok(), false).map_err(Failure::Usage)?;
    let text = source.read().map_err(Failure::Usage)?;
    let config = match config::load(&text, None) {
        Ok(config) => config,
        Err(found) => return refused(&found, args.output, || Failure::Usage(anyhow!("the policy is invalid\n{found}"))),
    };
    let (rules, tests, mode) = (config.draft.rules().len(), config.tests.len(), config.draft.mode);
    let failed = failed_tests(config);
    if !failed.is_empty() {
        let found = Diagnostics::new(&text.origin, &text.yaml, failed);
        return refused(&found, args.output, || {
            eprintln!("{found}");
            Failure::Negative
        });
    }
    match args.output {
        Output::Text => println!("{}: ok ({rules} rules, {tests} tests, mode {mode})", text.origin),
        Output::Json => println!(
            "{}",
            json!({ "v": 1, "valid": true, "rules": rules, "tests": tests, "mode": mode.to_string(), "diagnostics": [] })
        ),
    }
    warn_of_nothing(&text, rules);
    Ok(())
}

fn failed_tests(config: Config) -> Vec<Diagnostic> {
    let policy = Arc::new(Policy::new(config.draft, Surroundings::default()));
    config.tests.iter().filter_map(|test| test.run(&policy, now()).err()).collect()
}

fn refused(found: &Diagnostics, output: Output, failure: impl Fn() -> Failure) -> Outcome {
    match output {
        Output::Text => Err(failure()),
        Output::Json => {
            println!("{}", json!({ "v": 1, "valid": false, "diagnostics": found.all }));
            let text = failure();
            Err(if matches!(text, Failure::Negative) { text } else { Failure::Usage(anyhow!("the policy is invalid")) })
        }
    }
}

fn warn_of_nothing(text: &Text, rules: usize) {
    if rules == 0 {
        eprintln!("egret: {} has no rules: it denies everything", text.origin);
    }
}
