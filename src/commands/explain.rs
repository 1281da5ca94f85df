//! `egret explain`: what would the policy decide, by which rule, what came near, and what would change it. It asks the
//! questions that a connection asks, short of DNS.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use egret_policy::{Denial, Explanation, Host, Permit, Policy, Reason, Request, Target};
use egret_proxy::now;
use serde_json::json;

use super::{print, print_json};
use crate::cli::{ExplainArgs, Failure, Outcome, Output};
use crate::config;
use crate::config::source::{self, Source};
use crate::run;

/// Exit 0 if it would be let through, 1 if not, 2 if the target or the policy is invalid.
pub(crate) fn explain(args: &ExplainArgs) -> Outcome {
    let mode = args.policy.mode();
    let source = Source::find(args.policy.policy.as_deref(), source::variable, false).map_err(Failure::Usage)?;
    let text = source.read().map_err(Failure::Usage)?;
    let config = config::load(&text, mode).map_err(|found| Failure::Usage(anyhow!("the policy is invalid\n{found}")))?;
    let surroundings = run::surroundings(&run::configured_listeners(&config));
    let policy = Arc::new(Policy::new(config.draft, surroundings));
    let role = policy.role_named(&args.role).ok_or_else(|| Failure::Usage(anyhow!("there is no role named {}", args.role)))?;
    let target = target(&args.target).map_err(Failure::Usage)?;
    let mut explanation = policy.explain(&Request::new(target.clone(), role, now()));
    vet_literal(&target, &mut explanation);
    let answer = Answer { target: &target, role: &args.role, origin: &text.origin, explanation: &explanation };
    match args.output {
        Output::Text => print(&answer.text())?,
        Output::Json => print_json(&answer.json())?,
    }
    if explanation.verdict.is_ok() { Ok(()) } else { Err(Failure::Negative) }
}

/// A literal address needs no look-up, so that the second question can be asked too.
fn vet_literal(target: &Target, explanation: &mut Explanation) {
    if let (Host::Address(_), Ok(permit)) = (&target.host, &mut explanation.verdict)
        && let Err(denial) = permit.vet(&[])
    {
        explanation.verdict = Err(denial);
    }
}

/// A host, host:port, or URL; the port of a URL without one is its scheme's.
fn target(text: &str) -> anyhow::Result<Target> {
    let (default, rest) = match text.split_once("://") {
        Some(("https" | "wss", rest)) => (443, rest),
        Some(("http" | "ws", rest)) => (80, rest),
        Some((scheme, _)) => return Err(anyhow!("{scheme}:// says no port: write host:port")),
        None => (443, text),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    Target::parse_or(authority, default).with_context(|| format!("{text:?} names no target"))
}

struct Answer<'a> {
    target: &'a Target,
    role: &'a str,
    origin: &'a str,
    explanation: &'a Explanation,
}

impl Answer<'_> {
    fn text(&self) -> String {
        let (sign, why) = match &self.explanation.verdict {
            Ok(permit) => match permit.would_deny() {
                None => ("+ allow", self.allowed_by(permit)),
                Some(denial) => ("~ would deny", self.denied_by(denial)),
            },
            Err(denial) => ("- deny", self.denied_by(denial)),
        };
        let mut out = format!("{sign}  {} for role {}\n{why}", self.target, self.role);
        for near in &self.explanation.near {
            let why = near.why.map_or("speaks of a neighbouring name".to_owned(), |reason| reason.to_string());
            out.push_str(&format!("near miss: {} ({}:{}): {why}\n", near.rule, self.origin, near.rule.line()));
        }
        if self.explanation.wants_name {
            out.push_str("a TLS client may still pass: egret judges it by the SNI that it shows for this address\n");
        }
        out
    }

    fn allowed_by(&self, permit: &Permit) -> String {
        let Some(rule) = permit.rule() else { return String::new() };
        let note = rule.note().map(|note| format!("note: {note}\n")).unwrap_or_default();
        format!(
            "rule: {} ({}:{}): {rule}\nfirst flight: must be {}\n{note}",
            rule.id(),
            self.origin,
            rule.line(),
            permit.protocol()
        )
    }

    fn denied_by(&self, denial: &Denial) -> String {
        let rule =
            denial.rule.as_ref().map(|rule| format!("rule: {rule} ({}:{})\n", self.origin, denial.line)).unwrap_or_default();
        format!("reason: {}: {}\n{rule}to change this: {}\n", denial.reason, denial.detail, denial.help)
    }

    fn json(&self) -> serde_json::Value {
        let (decision, denial, rule) = match &self.explanation.verdict {
            Ok(permit) => (
                if permit.would_deny().is_some() { "would_deny" } else { "allow" },
                permit.would_deny(),
                permit.rule().map(egret_policy::Rule::id),
            ),
            Err(denial) => ("deny", Some(denial), None),
        };
        let rule = denial.and_then(|denial| denial.rule.as_ref()).or(rule);
        json!({
            "v": 1,
            "target": self.target.to_string(),
            "role": self.role,
            "decision": decision,
            "reason": denial.map(|denial| denial.reason.code()),
            "rule": rule.map(ToString::to_string),
            "detail": denial.map(|denial| &denial.detail),
            "help": denial.map(|denial| &denial.help),
            "near": self.explanation.near.iter().map(|near| json!({
                "rule": near.rule.id().to_string(), "line": near.rule.line(), "why": near.why.map(Reason::code),
            })).collect::<Vec<_>>(),
            "wants_name": self.explanation.wants_name,
        })
    }
}
