use egret_policy::{Mode, Request, Surroundings};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config;
use crate::config::source::Text;

const NOW: UnixTime = UnixTime(1_800_000_000);

/// A line of a journal, as the tests need it.
#[derive(Clone, Debug)]
struct Seen {
    host: &'static str,
    port: u16,
    role: &'static str,
    /// Decision, reason and stage.
    became: (&'static str, Option<&'static str>, &'static str),
    request: bool,
    sni: Option<&'static str>,
    address: Option<&'static str>,
}

const TLS: Seen = Seen {
    host: "api.example.com",
    port: 443,
    role: "default",
    became: ("would_deny", Some("no_rule"), "relay"),
    request: false,
    sni: Some("api.example.com"),
    address: Some("93.184.216.34"),
};

fn tls(host: &'static str) -> Seen {
    Seen { host, sni: Some(host), ..TLS }
}

fn evidence(seen: &[Seen]) -> Evidence {
    let mut journal = tempfile::NamedTempFile::new().unwrap();
    for one in seen {
        let (decision, reason, stage) = one.became;
        let socket = one.address.filter(|_| decision != "deny").map(|address| match address.contains(':') {
            true => format!("[{address}]:{}", one.port),
            false => format!("{address}:{}", one.port),
        });
        let event = json!({
            "v": 1, "time": "2026-11-01T00:00:00.000Z", "event": if one.request { "request" } else { "connection" },
            "decision": decision, "reason": reason, "role": one.role, "via": "connect", "host": one.host, "port": one.port,
            "sni": one.sni, "address": socket, "refused": one.address.filter(|_| decision == "deny"), "requests": 0,
            "stage": stage, "fault": null,
        });
        std::io::Write::write_all(&mut journal, format!("{event}\n").as_bytes()).unwrap();
    }
    Evidence::read(&[journal.path().to_owned()]).unwrap()
}

fn loaded(yaml: &str) -> Arc<Policy> {
    let text = Text { origin: "learnt".into(), yaml: yaml.to_owned() };
    let config = config::load(&text, Some(Mode::Enforce)).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    Arc::new(Policy::new(config.draft, Surroundings::default()))
}

fn lines(learner: &Learner<'_>, seen: &[Seen]) -> Vec<String> {
    learner.learn(&evidence(seen)).rules.iter().map(|learn| learn.line.to_string()).collect()
}

const PLAIN: Learner<'_> = Learner { wildcard_after: None, include: &[], base: None, now: NOW };

#[test]
fn a_rule_says_no_more_than_it_must() {
    let seen = [
        tls("api.example.com"),
        Seen { port: 8443, ..tls("api.example.com") },
        Seen { port: 80, request: true, sni: None, ..tls("plain.example.com") },
        Seen { port: 8080, request: true, sni: None, ..tls("plain.example.com") },
        Seen { address: Some("10.0.0.7"), ..tls("db.example.org") },
        Seen { host: "1.2.3.4", sni: None, port: 5432, address: Some("1.2.3.4"), ..TLS },
    ];
    let expected = [
        "- api.example.com",
        "- { to: \"api.example.com:8443\", as: tls }",
        "- plain.example.com:80",
        "- { to: \"plain.example.com:8080\", as: http }",
        "- { to: \"db.example.org\", within: [\"10.0.0.7\"] }",
        "- { to: \"1.2.3.4\", ports: [5432] }",
    ];
    assert_eq!(lines(&PLAIN, &seen), expected);
}

#[test]
fn many_private_addresses_become_their_networks() {
    let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.1.6", "10.0.1.7", "10.0.1.8", "10.0.1.9"];
    let seen: Vec<Seen> = addresses.iter().map(|address| Seen { address: Some(address), ..TLS }).collect();
    assert_eq!(lines(&PLAIN, &seen), ["- { to: \"api.example.com\", within: [\"10.0.0.0/24\", \"10.0.1.0/24\"] }"]);
}

#[test]
fn a_wildcard_takes_many_names_and_none_that_is_left_out() {
    let learner = Learner { wildcard_after: Some(3), ..PLAIN };
    let three = [tls("a.cdn.example.com"), tls("b.cdn.example.com"), tls("c.cdn.example.com")];
    assert_eq!(lines(&learner, &three), ["- \"*.cdn.example.com\""]);
    assert_eq!(lines(&learner, &three[..2]).len(), 2);
    let asked = Seen { became: ("deny", Some("no_rule"), "admit"), sni: None, address: None, ..tls("d.cdn.example.com") };
    assert_eq!(lines(&learner, &[&three[..], &[asked]].concat()).len(), 3);
    for shared in [["a.github.io", "b.github.io", "c.github.io"], ["a.com", "b.com", "c.com"], ["a.corp", "b.corp", "c.corp"]] {
        assert_eq!(lines(&learner, &shared.map(tls)).len(), 3, "{shared:?}");
    }
}

#[test]
fn roles_are_kept_apart_where_the_base_knows_them() {
    let base = loaded("version: 1\nroles: { web: { port: 1 } }\n");
    let learner = Learner { base: Some(&base), ..PLAIN };
    let web = Seen { role: "web", ..TLS };
    assert_eq!(lines(&learner, std::slice::from_ref(&web)), ["- { to: \"api.example.com\", for: [web] }"]);
    assert_eq!(lines(&learner, &[web.clone(), TLS]), ["- { to: \"api.example.com\", for: [default, web] }"]);
    assert_eq!(lines(&learner, &[TLS]), ["- { to: \"api.example.com\", for: [default] }"], "no more than was seen");
    let gone = learner.learn(&evidence(&[Seen { role: "gone", ..TLS }]));
    assert_eq!((gone.rules.len(), &*gone.left_out[0].mark), (0, "unknown-role"));
}

#[test]
fn a_rule_that_does_not_help_is_no_proposal() {
    let base = loaded("version: 1\negress: { allow: [{ to: \"api.example.com:8080\", as: tls }] }\n");
    let learner = Learner { base: Some(&base), ..PLAIN };
    let learnt = learner.learn(&evidence(&[Seen { port: 8080, request: true, sni: None, ..TLS }]));
    assert_eq!((learnt.rules.len(), &*learnt.left_out[0].mark), (0, "conflict"));
}

#[test]
fn what_no_rule_can_take_beside_the_base_is_told() {
    let base = loaded("version: 1\negress: { allow: [{ to: \"*.example.com\", as: tcp }] }\n");
    let learner = Learner { include: &[Mark::Unverified], base: Some(&base), ..PLAIN };
    let private = Seen { became: ("allow", None, "relay"), sni: None, address: Some("10.0.0.7"), ..TLS };
    let foreign = Seen { became: ("deny", Some("sni_mismatch"), "confirm"), sni: Some("evil.test"), address: None, ..TLS };
    let learnt = learner.learn(&evidence(&[private, foreign]));
    let left_out: Vec<_> = learnt.left_out.iter().map(|left| (&*left.mark, left.events)).collect();
    assert_eq!((learnt.rules.len(), &*left_out), (0, &[("conflict", 1)][..]));
}

#[test]
fn what_the_base_admits_is_neither_learnt_nor_left_out() {
    let base = loaded("version: 1\negress: { allow: [{ to: \"api.example.com:5432\", as: tcp }] }\n");
    let learnt = Learner { base: Some(&base), ..PLAIN }.learn(&evidence(&[Seen { port: 5432, sni: None, ..TLS }]));
    assert_eq!((learnt.rules.len(), learnt.left_out.len()), (0, 0));
}

#[test]
fn what_the_base_admits_or_denies_is_not_learnt() {
    let base = loaded("version: 1\negress: { allow: [\"*.example.com\"], deny: [bad.example.com, other.test] }\n");
    let learner = Learner { base: Some(&base), ..PLAIN };
    let learnt = learner.learn(&evidence(&[TLS, tls("bad.example.com"), tls("other.test"), tls("new.test")]));
    assert_eq!(learnt.rules.len(), 1);
    let left_out: Vec<_> = learnt.left_out.iter().map(|left| (&*left.destination.host, &*left.mark)).collect();
    assert_eq!(left_out, [("bad.example.com", "denied"), ("other.test", "denied")]);
}

const HOSTS: &[&str] = &[
    "api.example.com",
    "a.cdn.example.com",
    "b.cdn.example.com",
    "c.cdn.example.com",
    "a.github.io",
    "b.github.io",
    "db.corp",
    "null",
    "1.2.3.4",
    "2001:db8::7",
];

const BECAME: &[(&str, Option<&str>, &str)] = &[
    ("allow", None, "relay"),
    ("would_deny", Some("no_rule"), "relay"),
    ("would_deny", Some("not_tls"), "relay"),
    ("would_deny", Some("sni_missing"), "relay"),
    ("would_deny", Some("hello_malformed"), "relay"),
    ("would_deny", Some("no_first_flight"), "relay"),
    ("allow", None, "connect"),
    ("deny", Some("no_rule"), "admit"),
    ("deny", Some("role_not_listed"), "admit"),
    ("deny", Some("address_class"), "vet"),
    ("deny", Some("sni_mismatch"), "confirm"),
    ("deny", Some("own_listener"), "admit"),
];

fn seen() -> impl Strategy<Value = Seen> {
    let host = prop::sample::select(HOSTS);
    let port = prop::sample::select(vec![443u16, 80, 8443]);
    let role = prop::sample::select(vec!["default", "web", "ghost"]);
    let address = prop::sample::select(vec![None, Some("93.184.216.34"), Some("10.0.0.7"), Some("64:ff9b::a00:7")]);
    (host, port, role, prop::sample::select(BECAME), any::<bool>(), any::<bool>(), address).prop_map(
        |(host, port, role, became, request, shows, address)| {
            let sni = match became.1 {
                Some("sni_mismatch") => Some("evil.test"),
                Some("not_tls" | "sni_missing" | "hello_malformed" | "no_first_flight") => None,
                _ => (shows && !request).then_some(host),
            };
            let request = request && !matches!(became.1, Some("not_tls" | "sni_missing" | "hello_malformed" | "no_first_flight"));
            Seen { host, port, role, became, request, sni, address }
        },
    )
}

fn marks() -> impl Strategy<Value = Vec<Mark>> {
    prop::sample::subsequence(Mark::value_variants().to_vec(), 0..=4)
}

const BASES: &[&str] = &[
    "version: 1\n",
    "version: 1\nroles: { web: { port: 1 } }\negress:\n  allow:\n    - api.example.com   # kept\n  deny:\n    - \"*.corp\"\n",
    "version: 1\negress: { allow: [{ to: \"*.cdn.example.com\", as: tcp }, { to: 10.0.0.0/8, ports: [443, 8443] }] }\n",
    "{\"version\": 1, \"egress\": {\"deny\": [\"a.github.io\"]}}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What is learnt is admitted, as often as it was seen; what is left out is not, unless the base admits it.
    #[test]
    fn a_learnt_policy_admits_what_it_was_made_from_and_nothing_left_out(
        seen in prop::collection::vec(seen(), 1..25),
        include in marks(),
        wildcard_after in prop::option::of(2u32..4),
        base in prop::option::of(prop::sample::select(BASES)),
    ) {
        let base_policy = base.map(loaded);
        let learner = Learner { wildcard_after, include: &include, base: base_policy.as_ref(), now: NOW };
        let evidence = evidence(&seen);
        let learnt = learner.learn(&evidence);
        let yaml = match base {
            None => policy(&learnt, &evidence).0,
            Some(base) => {
                let rules: Vec<RuleLine> = learnt.rules.iter().map(|learn| learn.line.clone()).collect();
                if rules.is_empty() { base.to_owned() } else { extended(base, &rules).unwrap() }
            }
        };
        let learnt_policy = loaded(&yaml);
        let conflicts = |seen: &Observation| learnt.left_out.iter().any(|left| {
            left.mark == "conflict" && left.destination == learner.key(&seen.destination)
        });
        let learnable = |seen: &&Observation| learner.is_covered(seen) || learner.objection(seen).is_none();
        for seen in evidence.observations.keys().filter(learnable).filter(|seen| !conflicts(seen)) {
            let verdict = seen.judge(&learnt_policy, NOW).unwrap();
            prop_assert!(verdict.is_ok(), "{seen:?}: {verdict:?}\n{yaml}");
        }
        for left in &learnt.left_out {
            let target = Target { host: left.destination.host.parse::<Name>().map_or_else(
                |_| Host::Address(left.destination.host.parse().unwrap()), Host::Name), port: left.destination.port };
            let known = learnt_policy.role_named(&left.destination.role);
            // Nobody has a role that the policy does not know.
            let Some(role) = known.or((!learnt_policy.has_roles()).then(|| learnt_policy.default_role())) else { continue };
            let before = base_policy.as_ref().is_some_and(|base| base.admit(&Request::new(target.clone(), role, NOW)).is_ok());
            let verdict = learnt_policy.admit(&Request::new(target, role, NOW));
            prop_assert!(before || verdict.is_err(), "{left:?}\n{yaml}");
        }
    }

    #[test]
    fn the_order_of_a_journal_makes_no_difference(seen in prop::collection::vec(seen(), 1..25)) {
        let backwards: Vec<Seen> = seen.iter().rev().cloned().collect();
        let text = |seen: &[Seen]| { let evidence = evidence(seen); policy(&PLAIN.learn(&evidence), &evidence).0 };
        prop_assert_eq!(text(&seen), text(&backwards));
    }
}
