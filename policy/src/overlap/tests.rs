use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::decide::Request;
use crate::policy::{Draft, Surroundings};
use crate::ports::{PortRange, Ports};
use crate::rule::{Protocol, RuleDraft};
use crate::verdict::Denial;

const NOW: UnixTime = UnixTime(1_800_000_000);

/// A rule as the tests write it.
#[derive(Clone, Debug)]
struct Written {
    deny: bool,
    to: Vec<(String, Option<(u16, u16)>)>,
    roles: Vec<&'static str>,
    protocol: Option<Protocol>,
    expires: Option<i64>,
}

fn allow(to: &str) -> Written {
    Written { deny: false, to: vec![(to.to_owned(), None)], roles: Vec::new(), protocol: None, expires: None }
}

fn deny(to: &str) -> Written {
    Written { deny: true, ..allow(to) }
}

fn policy(rules: &[Written]) -> Arc<Policy> {
    let mut draft = Draft::default();
    for (at, written) in rules.iter().enumerate() {
        let to =
            written.to.iter().map(|(to, ports)| (target(to), ports.and_then(|(a, b)| Ports::of(vec![PortRange::new(a, b)?]))));
        let mut rule = RuleDraft::new(to.collect());
        rule.id = Some(format!("r{at}"));
        rule.roles = written.roles.iter().filter_map(|role| draft.role(role)).collect();
        rule.protocol = written.protocol;
        rule.expires = written.expires.map(UnixTime);
        if written.deny { draft.deny(rule) } else { draft.allow(rule) }
    }
    draft.role("web");
    Arc::new(Policy::new(draft, Surroundings::default()))
}

fn target(text: &str) -> To {
    text.parse().map_or_else(|_| To::Name(text.parse().unwrap()), To::Net)
}

fn found(rules: &[Written]) -> Vec<(usize, usize, OverlapKind)> {
    policy(rules).overlaps(NOW).iter().map(|overlap| (overlap.rule, overlap.by, overlap.kind)).collect()
}

#[test]
fn each_kind_is_named_for_what_it_is() {
    use OverlapKind::{Conflicting, Denied, Duplicate, Shadowed};
    assert_eq!(found(&[allow("a.test"), allow("a.test")]), [(1, 0, Duplicate)]);
    assert_eq!(found(&[allow("x.a.test"), allow("*.a.test")]), [(0, 1, Shadowed)]);
    assert_eq!(found(&[allow("*.b.a.test"), allow("*.a.test")]), [(0, 1, Shadowed)]);
    assert_eq!(found(&[allow("10.1.0.0/16"), allow("10.0.0.0/8")]), [(0, 1, Shadowed)]);
    assert_eq!(found(&[allow("x.a.test"), deny("*.a.test")]), [(0, 1, Denied)]);
    let tcp = Written { protocol: Some(Protocol::Tcp), ..allow("a.test") };
    assert_eq!(found(&[allow("a.test"), tcp]), [(1, 0, Conflicting)]);
    let tls = Written { protocol: Some(Protocol::Tls), ..allow("a.test") };
    assert_eq!(found(&[allow("a.test"), tls]), [(1, 0, Duplicate)], "443 is TLS anyway");
    let any = |ports| Written { to: vec![("a.test".into(), Some(ports))], protocol: Some(Protocol::Any), ..allow("") };
    let plain = |ports| Written { protocol: None, ..any(ports) };
    assert_eq!(found(&[plain((8080, 8090)), any((8080, 8090))]), [(1, 0, Duplicate)]);
    assert_eq!(found(&[plain((440, 450)), any((440, 450))]), [(1, 0, Conflicting)], "443 is among them");
}

#[test]
fn what_is_named_idle_can_be_taken_out_together() {
    let both = Written { to: vec![("a.test".into(), None), ("b.test".into(), None)], ..allow("") };
    let shadowed = [(0, 2, OverlapKind::Shadowed), (1, 2, OverlapKind::Shadowed)];
    assert_eq!(found(&[allow("a.test"), allow("b.test"), both]), shadowed);
}

#[test]
fn what_differs_is_left_alone() {
    let worker = Written { roles: vec!["worker"], ..allow("*.a.test") };
    let wide_ports = Written { to: vec![("a.test".into(), Some((1, 9)))], ..allow("") };
    let tcp = Written { protocol: Some(Protocol::Tcp), ..allow("x.a.test") };
    for rules in [
        [allow("x.a.test"), worker],
        [allow("a.test"), allow("*.a.test")],
        [allow("a.test"), wide_ports],
        [allow("*.a.test"), tcp],
        [allow("*.a.test"), deny("x.a.test")],
        [allow("x.a.test"), Written { expires: Some(NOW.0 + 9), ..allow("*.a.test") }],
        [allow("x.a.test"), Written { expires: Some(NOW.0 - 9), ..deny("x.a.test") }],
    ] {
        assert_eq!(found(&rules), [], "{rules:?}");
    }
}

#[test]
fn a_rule_keeps_another_from_coming_first() {
    let tcp = Written { protocol: Some(Protocol::Tcp), ..allow("*.b.a.test") };
    assert_eq!(found(&[allow("*.a.test"), allow("*.b.a.test"), tcp]), [(2, 1, OverlapKind::Conflicting)]);
}

#[test]
fn a_rule_for_several_is_idle_only_if_all_its_targets_are() {
    let both = |a: &str, b: &str| Written { to: vec![(a.into(), None), (b.into(), None)], ..allow("") };
    assert_eq!(found(&[both("x.a.test", "c.test"), allow("*.a.test")]), []);
    assert_eq!(found(&[both("x.a.test", "y.a.test"), allow("*.a.test")]), [(0, 1, OverlapKind::Shadowed)]);
}

fn written() -> impl Strategy<Value = Written> {
    let to = prop_oneof!["(\\*\\.)?[ab](\\.[ab]){0,2}", "10\\.0\\.0\\.0/(8|9|30|32)"];
    let ports = prop::option::of((1u16..4, 0u16..2).prop_map(|(first, more)| (first, first + more)));
    let roles = prop::sample::subsequence(vec!["default", "web"], 0..=2);
    let protocol = prop::option::of(prop::sample::select(vec![Protocol::Tcp, Protocol::Any]));
    let expires = prop::option::of(prop::sample::select(vec![NOW.0 - 1, NOW.0 + 1, NOW.0 + 2]));
    (any::<bool>(), prop::collection::vec((to, ports), 1..3), roles, protocol, expires)
        .prop_map(|(deny, to, roles, protocol, expires)| Written { deny, to, roles, protocol, expires })
}

/// What a policy says of everything the generated rules can tell apart.
fn verdicts(policy: &Arc<Policy>) -> Vec<Result<(Protocol, Vec<String>), crate::verdict::Reason>> {
    let hosts = ["a", "b", "a.a", "b.a", "a.b", "b.b", "a.a.a", "a.b.a", "b.a.b", "10.0.0.0", "10.0.0.9", "10.200.0.1"];
    let mut all = Vec::new();
    for (host, port, role, time) in hosts.iter().flat_map(|host| {
        [1u16, 2, 3, 4, 443].into_iter().flat_map(move |port| {
            ["default", "web"].into_iter().flat_map(move |role| [0, 1, 2].map(move |later| (host, port, role, NOW.0 + later)))
        })
    }) {
        let role = policy.role_named(role).unwrap();
        let request = Request::new(format!("{host}:{port}").parse().unwrap(), role, UnixTime(time));
        let allowed = policy.admit(&request).map(|permit| (permit.protocol(), Vec::new()));
        all.push(allowed.map_err(|denial: Denial| match denial.reason {
            crate::verdict::Reason::DenyRule => denial.reason,
            _ => crate::verdict::Reason::NoRule,
        }));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// The naive twin of "changes nothing": take the rule out and ask everything again.
    #[test]
    fn rules_named_idle_change_no_verdict(rules in prop::collection::vec(written(), 1..6)) {
        let whole = policy(&rules);
        let idle: Vec<usize> = whole.overlaps(NOW).iter()
            .filter(|overlap| matches!(overlap.kind, OverlapKind::Duplicate | OverlapKind::Shadowed))
            .map(|overlap| overlap.rule).collect();
        let kept: Vec<Written> =
            rules.iter().enumerate().filter(|(at, _)| !idle.contains(at)).map(|(_, rule)| rule.clone()).collect();
        prop_assert!(verdicts(&whole) == verdicts(&policy(&kept)), "all that is idle, taken out together: {idle:?}");
        for overlap in whole.overlaps(NOW) {
            let mut less = rules.clone();
            less.remove(overlap.rule);
            match overlap.kind {
                OverlapKind::Duplicate | OverlapKind::Shadowed => {
                    prop_assert!(verdicts(&whole) == verdicts(&policy(&less)), "{:?}", overlap);
                }
                OverlapKind::Denied => prop_assert!(
                    verdicts(&whole).iter().zip(verdicts(&policy(&less))).all(|(with, without)| with.is_err() || without.is_ok()),
                    "{:?}", overlap
                ),
                OverlapKind::Conflicting => prop_assert!(rules[overlap.rule].protocol != rules[overlap.by].protocol),
            }
        }
    }

    #[test]
    fn the_order_of_rules_changes_no_verdict(rules in prop::collection::vec(written(), 1..6)) {
        let backwards: Vec<Written> = rules.iter().rev().cloned().collect();
        prop_assert!(verdicts(&policy(&rules)) == verdicts(&policy(&backwards)));
    }
}
