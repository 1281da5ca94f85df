//! What is valid in a policy and probably not meant: rules that change nothing, that never match, that have ended. What
//! can be told from one key alone is noted while reading; here the rules are looked at together.

use std::net::IpAddr;

use egret_policy::{Effect, Mode, NamePattern, OverlapKind, Policy, Rule, Surroundings, To, UnixTime};

use ipnet::IpNet;

use super::diagnose::{Code, Diagnostic};
use super::yaml::Place;
use super::{Around, Config};
use crate::replay::counted;

/// How long before its end a rule is warned of, in seconds: 14 days.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 86_400;
/// Without its date an audit would go on for ever.
const AUDIT_OVER: &str = "from then on it enforces: write `mode: enforce` without `audit-until:`, or set a later date";

impl Config {
    /// Everything worth a word. `processes` says whether other processes can be looked at here.
    #[must_use]
    pub fn lints(&self, now: UnixTime, processes: bool) -> Vec<Diagnostic> {
        let policy = Policy::new(self.draft.clone(), Surroundings::default());
        let mut found = self.lints.clone();
        found.extend(self.no_rules());
        found.extend(self.around_alone());
        found.extend(policy.overlaps(now).iter().filter_map(|overlap| self.overlap(*overlap)));
        for (rule, at) in self.own_rules() {
            found.extend(end(rule.expires(), "the rule", "set a later date, or remove the rule", at, now));
            found.extend(never_matches(rule, &policy, at, now));
            found.extend(opens_metadata(rule, at));
            found.extend(apex_missing(rule, &policy, at));
        }
        found.extend(self.audit_end.and_then(|at| end(self.draft.audit_until, "the audit", AUDIT_OVER, at, now)));
        found.extend(self.executables.iter().filter(|_| !processes).map(|(role, at)| not_visible(role, *at)));
        found
    }

    /// Whether some role is told by its executable.
    #[must_use]
    pub fn has_executables(&self) -> bool {
        !self.executables.is_empty()
    }

    /// The rules of the file itself; those of presets are not its author's to mend.
    fn own_rules(&self) -> impl Iterator<Item = (&Rule, Place)> {
        self.draft.rules().iter().zip(self.rule_places.iter().copied()).filter(|(rule, _)| rule.line() != 0)
    }

    fn no_rules(&self) -> Option<Diagnostic> {
        let at = self.allow_is_empty_at?;
        Some(match self.draft.mode {
            Mode::Enforce => Diagnostic::warning(
                Code::NoRules,
                at,
                "there are no allow rules: everything is denied",
                Some("add rules under egress.allow"),
            ),
            // How an observation begins, and how it must not end.
            Mode::Audit => Diagnostic::remark(
                Code::NoRules,
                at,
                "there are no allow rules: everything is let through and told as would_deny; to enforce this denies everything",
                Some("add rules under egress.allow; `egret learn` finds them in the journal"),
            ),
        })
    }

    fn around_alone(&self) -> Option<Diagnostic> {
        let (at, around) = self.around_alone_at.zip(self.around)?;
        let end = if around == Around::Stop { "ends egret" } else { "ends readiness" };
        let message = format!(
            "nothing is `direct:`, so a program that fetches the task's credentials from the platform goes around the proxy, \
             which {end}"
        );
        let help = "name the platform's preset, such as aws-ecs-task or aws-eks-pod, or list its addresses under `direct:`; \
                    `direct: []` says that there are none";
        Some(Diagnostic::warning(Code::AroundWithoutDirect, at, message, Some(help)))
    }

    fn overlap(&self, overlap: egret_policy::Overlap) -> Option<Diagnostic> {
        let (rule, by) = (&self.draft.rules()[overlap.rule], &self.draft.rules()[overlap.by]);
        if rule.line() == 0 {
            return None;
        }
        let whose = match by.line() {
            0 => format!("rule {}", by.id()),
            line => format!("the rule in line {line}"),
        };
        let (code, message, help) = match overlap.kind {
            OverlapKind::Duplicate => (Code::DuplicateRule, format!("{whose} says the same"), "remove one of the two"),
            OverlapKind::Shadowed => (
                Code::ShadowedRule,
                format!("{whose} covers this one: without it nothing would change"),
                "remove it, or narrow the other",
            ),
            OverlapKind::Denied => {
                (Code::DeniedRule, format!("{whose} denies all that this one allows"), "deny beats allow: remove one of the two")
            }
            OverlapKind::Conflicting => (
                Code::ConflictingRule,
                format!("{whose} asks for something else for the same target; only the stricter is used"),
                "keep one, or give them different ports or roles",
            ),
        };
        Some(Diagnostic::warning(code, self.rule_places[overlap.rule], message, Some(help)))
    }
}

/// An end that has come, or comes soon.
fn end(expires: Option<UnixTime>, what: &str, help: &str, at: Place, now: UnixTime) -> Option<Diagnostic> {
    let left = expires?.0.saturating_sub(now.0);
    let (code, when) = match left {
        ..=0 => (Code::Expired, "has ended".to_owned()),
        1..DAY => (Code::Expiring, "ends within a day".to_owned()),
        DAY..=SOON => (Code::Expiring, format!("ends in {}", counted(left.unsigned_abs() / DAY.unsigned_abs(), "day"))),
        _ => return None,
    };
    Some(Diagnostic::warning(code, at, format!("{what} {when}"), Some(help)))
}

/// Networks shorter than this hold more than one kind of space, and hardly name the one that they open.
const NARROW: u8 = 16;

/// An allow rule whose networks hold a metadata service (credentials for whoever asks) without naming its space.
fn opens_metadata(rule: &Rule, at: Place) -> Option<Diagnostic> {
    let named = rule.to().iter().filter_map(|(to, _)| match to {
        To::Net(net) => Some(net),
        To::Name(_) | To::S3(_) => None,
    });
    let services: [IpAddr; 2] = [[169, 254, 169, 254].into(), [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254].into()];
    let holds = |net: &&IpNet| net.prefix_len() < NARROW && services.iter().any(|service| net.contains(service));
    let net = rule.within().iter().chain(named).find(holds).filter(|_| rule.effect() == Effect::Allow)?;
    let message = format!("{net} holds the metadata service, which hands out credentials");
    Some(Diagnostic::warning(Code::OpensMetadata, at, message, Some("name the networks that are needed, such as 10.0.0.0/8")))
}

/// An allow rule for names that no connection can have.
fn never_matches(rule: &Rule, policy: &Policy, at: Place, now: UnixTime) -> Option<Diagnostic> {
    if rule.effect() == Effect::Deny {
        return None;
    }
    let (pattern, why) = rule.to().iter().find_map(|(to, _)| match to {
        To::Name(pattern) => Some((pattern, never(pattern, rule, policy, now)?)),
        To::Net(_) | To::S3(_) => None,
    })?;
    let help = if why == LOOPBACK { "add `within: [127.0.0.0/8]` if that is meant" } else { "remove it" };
    Some(Diagnostic::warning(Code::NeverMatches, at, format!("{pattern} never matches: {why}"), Some(help)))
}

const LOOPBACK: &str = "localhost is loopback (RFC 6761), and no rule opens that space";
/// The longest name below which there can be another, in octets (RFC 1035: 253 in all, a label and a dot less).
const LONGEST_PARENT: usize = 251;

fn never(pattern: &NamePattern, rule: &Rule, policy: &Policy, now: UnixTime) -> Option<&'static str> {
    let (NamePattern::Exact(name) | NamePattern::Below(name)) = pattern;
    let top = name.as_str().rsplit('.').next().unwrap_or_default();
    match top {
        "invalid" => Some("names under .invalid do not exist (RFC 6761)"),
        "onion" => Some("names under .onion are not resolved (RFC 7686)"),
        "localhost" if rule.within().is_empty() && !opens_loopback(policy, now) => Some(LOOPBACK),
        _ if matches!(pattern, NamePattern::Below(apex) if apex.as_str().len() > LONGEST_PARENT) => {
            Some("no longer name fits into DNS (RFC 1035)")
        }
        _ => None,
    }
}

fn opens_loopback(policy: &Policy, now: UnixTime) -> bool {
    let loopback = std::net::IpAddr::from([127, 0, 0, 1]);
    policy.rules().iter().any(|rule| {
        let live = rule.expires().is_none_or(|end| now < end);
        live && rule.effect() == Effect::Allow
            && rule.to().iter().any(|(to, _)| matches!(to, To::Net(net) if net.contains(&loopback)))
    })
}

/// A wildcard beside which nothing speaks of the name itself: people often mean both.
fn apex_missing(rule: &Rule, policy: &Policy, at: Place) -> Option<Diagnostic> {
    if rule.effect() == Effect::Deny {
        return None;
    }
    let apex = rule.to().iter().find_map(|(to, _)| match to {
        To::Name(pattern @ NamePattern::Below(apex)) => {
            (pattern.shared_suffix().is_none() && apex.labels() > 1 && !policy.speaks_of(apex)).then_some(apex)
        }
        _ => None,
    })?;
    let help = format!("add `- {apex}` if it is needed too");
    let message = format!("\"*.{apex}\" does not cover {apex} itself");
    Some(Diagnostic::remark(Code::ApexMissing, at, message, Some(&help)))
}

fn not_visible(role: &str, at: Place) -> Diagnostic {
    let message = format!("the role {role} is told by its executable, and here no other process can be seen: it never matches");
    let help =
        "share the process namespace (ECS `pidMode: task`, Kubernetes `shareProcessNamespace`) and run egret as the app's user";
    Diagnostic::warning(Code::ExeNotVisible, at, message, Some(help))
}
