//! `egret learn`: a policy, or a change to one, from what journals hold.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use egret_policy::{Mode, Policy, RuleLine};
use egret_proxy::now;

use super::{print, print_json};
use crate::cli::{Failure, LearnArgs, Outcome, Output};
use crate::config::source::{Source, Text};
use crate::config::{self, Config};
use crate::evidence::Evidence;
use crate::learn::{self, Learner, Learnt};
use crate::replay::counted;
use crate::run;
use crate::stderr;

/// Exit 0 with a proposal, 1 if the journals hold nothing to learn from.
pub(crate) fn learn(args: &LearnArgs) -> Outcome {
    let base = args.base.as_deref().map(Base::read).transpose()?;
    let evidence = Evidence::read(&args.journals).map_err(Failure::Environment)?;
    if evidence.events == 0 {
        stderr::say(format_args!("nothing to learn: no connection or request is in the journals"));
        return Err(Failure::Negative);
    }
    let policy = base.as_ref().map(|base| &base.policy);
    let learner = Learner { wildcard_after: args.wildcard_after, include: &args.include, base: policy, now: now() };
    let learnt = learner.learn(&evidence);
    let left_out = counted(learnt.left_out.len() as u64, "destination");
    let learnt_from = counted(evidence.events, "event");
    stderr::say(format_args!("learnt {} from {learnt_from}; left out {left_out}", counted(learnt.rules.len() as u64, "rule")));
    match (args.output, &base) {
        (Output::Json, _) => print_json(&learn::json(&learnt, &evidence)),
        (Output::Text, None) => whole(&learnt, &evidence),
        (Output::Text, Some(base)) => base.change(&learnt),
    }
}

fn whole(learnt: &Learnt, evidence: &Evidence) -> Outcome {
    let (policy, line) = learn::policy(learnt, evidence);
    print(&policy)?;
    if learnt.rules.is_empty() {
        stderr::say(format_args!("nothing can be vouched for yet: what was left out stands at the end of the policy"));
    } else {
        stderr::say(format_args!("to enforce, change `mode: audit` to `mode: enforce` in line {line}"));
    }
    Ok(())
}

/// A policy to extend.
struct Base {
    text: Text,
    policy: Arc<Policy>,
}

impl Base {
    fn read(path: &Path) -> Result<Self, Failure> {
        let text = Source::File(path.to_owned()).read().map_err(Failure::Usage)?;
        let policy = enforcing(&text)?;
        Ok(Self { text, policy })
    }

    /// Prints the difference that adds what was learnt.
    fn change(&self, learnt: &Learnt) -> Outcome {
        for left in &learnt.left_out {
            stderr::say(format_args!("left out {}: {}", left.destination, left.mark));
        }
        if learnt.rules.is_empty() {
            let rest = if learnt.left_out.is_empty() { "everything that was seen" } else { "everything else" };
            stderr::say(format_args!("the base admits {rest}"));
            return Ok(());
        }
        let lines: Vec<RuleLine> = learnt.rules.iter().map(|learn| learn.line.clone()).collect();
        let extended = learn::extended(&self.text.yaml, &lines);
        // What was edited is read again before anybody is given it.
        let valid = extended.filter(|yaml| config::load(&Text { yaml: yaml.clone(), ..self.text.clone() }, None).is_ok());
        let Some(yaml) = valid else {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            let by_hand = anyhow!("{} cannot be edited; add under egress.allow:\n{}", self.text.origin, lines.join("\n"));
            return Err(Failure::Environment(by_hand));
        };
        print(&learn::unified(&self.text.origin, &self.text.yaml, &yaml))
    }
}

/// The policy of a text, as if it enforced.
pub(super) fn enforcing(text: &Text) -> Result<Arc<Policy>, Failure> {
    let config = config::load(text, Some(Mode::Enforce)).map_err(Failure::invalid)?;
    Ok(in_force(config))
}

/// A policy on this host.
pub(super) fn in_force(config: Config) -> Arc<Policy> {
    let surroundings = run::surroundings(&run::configured_listeners(&config));
    Arc::new(Policy::new(config.draft, surroundings))
}
