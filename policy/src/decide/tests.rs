use ipnet::IpNet;

use super::*;
use crate::pattern::NamePattern;
use crate::permit::{Flight, Sni};
use crate::policy::{Asker, Draft, Surroundings};
use crate::ports::{PortRange, Ports};
use crate::rule::{RuleDraft, To};
use crate::s3::{BucketPattern, S3Rule};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn policy(build: impl FnOnce(&mut Draft)) -> Arc<Policy> {
    let mut draft = Draft::default();
    build(&mut draft);
    let surroundings = Surroundings {
        listeners: vec!["127.0.0.1:3128".parse().unwrap(), "127.0.0.1:3129".parse().unwrap()],
        interfaces: vec!["10.9.8.7".parse().unwrap(), "127.0.0.1".parse().unwrap()],
    };
    Arc::new(Policy::new(draft, surroundings))
}

fn allowing(texts: &[&str]) -> Arc<Policy> {
    policy(|draft| texts.iter().for_each(|text| draft.allow(rule(text))))
}

/// `name`, `name:port` or a network, as the short form of a rule.
fn rule(text: &str) -> RuleDraft {
    if let Ok(net) = text.parse::<IpNet>() {
        return RuleDraft::new(vec![(To::Net(net), None)]);
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    let ports = PortRange::parse(port).and_then(|range| Ports::of(vec![range]));
    RuleDraft::new(vec![(To::Name(NamePattern::parse(name).unwrap()), ports)])
}

fn request(policy: &Policy, target: &str) -> Request {
    Request::new(target.parse().unwrap(), policy.default_role(), NOW)
}

fn admit(policy: &Arc<Policy>, target: &str) -> Result<Permit, Denial> {
    policy.admit(&request(policy, target))
}

fn reason(policy: &Arc<Policy>, target: &str) -> Option<Reason> {
    match admit(policy, target) {
        Ok(permit) => permit.would_deny().map(|denial| denial.reason),
        Err(denial) => Some(denial.reason),
    }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn vet(permit: &mut Permit, answers: &[&str]) -> Result<Vec<String>, Reason> {
    let vetted = permit.vet(&addresses(answers)).map_err(|denial| denial.reason)?;
    Ok(vetted.iter().map(|v| v.socket().ip().to_string()).collect())
}

fn tls(name: &str) -> Flight {
    Flight::Tls { sni: Sni::One(name.parse().unwrap()), ech: false }
}

#[test]
fn c01_an_empty_policy_denies_everything() {
    let empty = allowing(&[]);
    assert_eq!(reason(&empty, "allowed.test:443"), Some(Reason::NoRule));
    assert_eq!(reason(&empty, "93.184.216.34:443"), Some(Reason::AddressNotListed));
}

#[test]
fn a_rule_is_for_its_port_and_name() {
    let policy = allowing(&["allowed.test", "db.test:5432"]);
    assert_eq!(reason(&policy, "allowed.test:443"), None);
    assert_eq!(reason(&policy, "allowed.test:8443"), Some(Reason::PortNotListed));
    assert_eq!(reason(&policy, "db.test:5432"), None);
    assert_eq!(reason(&policy, "db.test:443"), Some(Reason::PortNotListed));
    assert_eq!(reason(&policy, "www.allowed.test:443"), Some(Reason::NoRule));
}

#[test]
fn c07_deny_beats_allow_in_every_order_and_on_every_port() {
    for deny_first in [false, true] {
        let policy = policy(|draft| {
            if deny_first {
                draft.deny(rule("bad.allowed.test"));
            }
            draft.allow(rule("*.allowed.test:1-65535"));
            draft.allow(rule("bad.allowed.test:8080"));
            if !deny_first {
                draft.deny(rule("bad.allowed.test"));
            }
        });
        assert_eq!(reason(&policy, "bad.allowed.test:443"), Some(Reason::DenyRule));
        assert_eq!(reason(&policy, "bad.allowed.test:8080"), Some(Reason::DenyRule));
        assert_eq!(reason(&policy, "good.allowed.test:443"), None);
    }
}

#[test]
fn the_most_specific_allow_rule_is_reported() {
    let policy = policy(|draft| {
        for (id, text) in [("short", "*.test"), ("long", "*.a.test"), ("exact", "x.a.test")] {
            draft.allow(RuleDraft { id: Some(id.into()), ..rule(text) });
        }
    });
    for (target, id) in [("x.a.test:443", "exact"), ("y.a.test:443", "long"), ("a.test:443", "short")] {
        assert_eq!(admit(&policy, target).unwrap().rule().unwrap().id().as_str(), id);
    }
}

#[test]
fn a02_name_rules_never_match_addresses_nor_the_reverse() {
    let policy = allowing(&["*.test", "93.184.216.0/24"]);
    assert_eq!(reason(&policy, "1.1.1.1:443"), Some(Reason::AddressNotListed));
    assert_eq!(reason(&policy, "93.184.216.34:443"), None);
    assert_eq!(reason(&policy, "other.example:443"), Some(Reason::NoRule));
}

#[test]
fn roles_are_told_apart() {
    let policy = policy(|draft| {
        let worker = draft.role("worker").unwrap();
        draft.role_by_port(3130, worker);
        draft.role_by_user("w", worker);
        draft.allow(RuleDraft { roles: vec![worker], ..rule("allowed.test") });
    });
    assert_eq!(reason(&policy, "allowed.test:443"), Some(Reason::RoleNotListed));
    let asked = Asker { user: Some("w"), executable: Some("/bin/other"), port: 1 };
    for asker in [asked, Asker { user: Some("x"), port: 3130, ..asked }] {
        let role = policy.role_of(asker);
        assert_eq!(&**policy.role_name(role), "worker");
        assert!(policy.admit(&Request::new("allowed.test:443".parse().unwrap(), role, NOW)).is_ok());
    }
    assert_eq!(policy.role_of(Asker { user: Some("x"), ..asked }), policy.default_role());
}

#[test]
fn what_a_request_says_goes_before_what_was_observed_and_that_before_the_port() {
    let policy = policy(|draft| {
        let [user, executable, port] = ["user", "executable", "port"].map(|name| draft.role(name).unwrap());
        draft.role_by_user("u", user);
        draft.role_by_executable("/app", executable);
        draft.role_by_port(3130, port);
    });
    let all = Asker { user: Some("u"), executable: Some("/app"), port: 3130 };
    let name = |asker| &**policy.role_name(policy.role_of(asker));
    assert_eq!(name(all), "user");
    assert_eq!(name(Asker { user: None, ..all }), "executable");
    assert_eq!(name(Asker { user: None, executable: Some("/app2"), ..all }), "port");
    assert!(policy.has_executables());
}

#[test]
fn audit_ends_at_its_instant() {
    let policy = policy(|draft| {
        draft.mode = Mode::Audit;
        draft.audit_until = Some(NOW);
    });
    let at = |time| policy.admit(&Request::new("a.test:443".parse().unwrap(), policy.default_role(), UnixTime(time)));
    assert!(at(NOW.0 - 1).unwrap().would_deny().is_some());
    assert_eq!(at(NOW.0).unwrap_err().reason, Reason::NoRule);
    assert_eq!((policy.mode_at(UnixTime(NOW.0 - 1)), policy.mode_at(NOW)), (Mode::Audit, Mode::Enforce));
}

#[test]
fn expired_rules_stop_at_their_instant() {
    let policy = policy(|draft| draft.allow(RuleDraft { expires: Some(NOW), ..rule("allowed.test") }));
    assert_eq!(reason(&policy, "allowed.test:443"), Some(Reason::RuleExpired));
    let before = Request::new("allowed.test:443".parse().unwrap(), policy.default_role(), UnixTime(NOW.0 - 1));
    assert!(policy.admit(&before).is_ok());
}

#[test]
fn s3_rules_match_buckets_and_refuse_path_style() {
    let policy = policy(|draft| {
        let buckets = S3Rule { buckets: vec![BucketPattern::parse("acme").unwrap()], regions: vec!["eu-west-1".into()] };
        draft.allow(RuleDraft::new(vec![(To::S3(buckets), None)]));
    });
    assert_eq!(reason(&policy, "acme.s3.eu-west-1.amazonaws.com:443"), None);
    assert_eq!(reason(&policy, "evil.s3.eu-west-1.amazonaws.com:443"), Some(Reason::NoRule));
    assert_eq!(reason(&policy, "s3.eu-west-1.amazonaws.com:443"), Some(Reason::S3PathStyle));
}

#[test]
fn l01_l02_own_listeners_are_refused_in_every_spelling_and_mode() {
    for mode in [Mode::Enforce, Mode::Audit] {
        let policy = policy(|draft| {
            draft.mode = mode;
            draft.allow(rule("self.test:3128"));
            for net in ["0.0.0.0/0", "::/0"] {
                let every = PortRange::new(1, u16::MAX).and_then(|range| Ports::of(vec![range]));
                draft.allow(RuleDraft::new(vec![(To::Net(net.parse().unwrap()), every)]));
            }
        });
        for host in ["127.0.0.1", "127.0.0.9", "0.0.0.0", "10.9.8.7", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"]
        {
            for port in [3128, 3129] {
                assert_eq!(reason(&policy, &format!("{host}:{port}")), Some(Reason::OwnListener), "{host}:{port}");
            }
        }
        let mut permit = admit(&policy, "self.test:3128").unwrap();
        assert_eq!(vet(&mut permit, &["127.0.0.1"]), Err(Reason::OwnListener));
        assert_eq!(reason(&policy, "127.0.0.1:80"), None);
    }
}

#[test]
fn a03_to_a08_only_global_answers_are_vetted() {
    let policy = allowing(&["allowed.test"]);
    for answer in [
        "127.0.0.1",
        "10.0.0.5",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "fc00::1",
        "240.0.0.1",
    ] {
        let mut permit = admit(&policy, "allowed.test:443").unwrap();
        assert_eq!(vet(&mut permit, &[answer]), Err(Reason::AddressClass), "{answer}");
    }
    let mut permit = admit(&policy, "allowed.test:443").unwrap();
    assert_eq!(vet(&mut permit, &["1.1.1.1", "2606:4700::1111"]), Ok(vec!["1.1.1.1".into(), "2606:4700::1111".into()]));
}

#[test]
fn a10_of_a_mixed_answer_only_the_permitted_addresses_are_dialled() {
    let policy = allowing(&["allowed.test"]);
    let mut permit = admit(&policy, "allowed.test:443").unwrap();
    assert_eq!(vet(&mut permit, &["10.0.0.5", "1.1.1.1"]), Ok(vec!["1.1.1.1".into()]));
    assert_eq!(vet(&mut permit, &[]), Err(Reason::AddressClass));
}

#[test]
fn within_opens_its_space_and_closes_all_other() {
    let within = vec!["10.20.0.0/16".parse().unwrap()];
    let policy = policy(|draft| draft.allow(RuleDraft { within, ..rule("db.test:5432") }));
    let mut permit = admit(&policy, "db.test:5432").unwrap();
    assert_eq!(vet(&mut permit, &["10.20.1.1"]), Ok(vec!["10.20.1.1".into()]));
    assert_eq!(vet(&mut permit, &["10.21.1.1"]), Err(Reason::AddressOutsideWithin));
    assert_eq!(vet(&mut permit, &["1.1.1.1"]), Err(Reason::AddressOutsideWithin));
}

#[test]
fn an_address_rule_opens_its_space_for_its_port_to_names() {
    let policy = policy(|draft| {
        draft.allow(rule("a.test:443"));
        draft.allow(rule("a.test:444"));
        draft.allow(rule("10.0.0.0/8"));
    });
    assert!(vet(&mut admit(&policy, "a.test:443").unwrap(), &["10.1.1.1"]).is_ok());
    assert_eq!(vet(&mut admit(&policy, "a.test:444").unwrap(), &["10.1.1.1"]), Err(Reason::AddressClass));
}

#[test]
fn an_embedding_address_needs_leave_for_both_of_its_readings() {
    let within = vec!["64:ff9b::/96".parse().unwrap()];
    let policy = policy(|draft| draft.allow(RuleDraft { within, ..rule("allowed.test") }));
    let mut permit = admit(&policy, "allowed.test:443").unwrap();
    assert!(vet(&mut permit, &["64:ff9b::101:101"]).is_ok());
    assert_eq!(vet(&mut permit, &["64:ff9b::a9fe:a9fe"]), Err(Reason::AddressClass));
}

#[test]
fn a_denied_network_is_denied_to_names_too() {
    let policy = policy(|draft| {
        draft.allow(rule("allowed.test"));
        draft.deny(rule("1.1.1.0/24"));
    });
    let mut permit = admit(&policy, "allowed.test:443").unwrap();
    assert_eq!(vet(&mut permit, &["1.1.1.1"]), Err(Reason::DenyRule));
    assert_eq!(vet(&mut permit, &["1.1.1.1", "1.0.0.1"]), Ok(vec!["1.0.0.1".into()]));
}

#[test]
fn l03_own_interfaces_are_no_ordinary_space() {
    let policy = policy(|draft| {
        draft.private_answers = true;
        draft.allow(rule("allowed.test"));
    });
    let mut permit = admit(&policy, "allowed.test:443").unwrap();
    assert_eq!(vet(&mut permit, &["10.9.8.7"]), Err(Reason::AddressClass));
    assert!(vet(&mut permit, &["10.9.8.8"]).is_ok());
}

#[test]
fn t26_a_literal_address_is_judged_by_the_name_it_shows() {
    let policy = allowing(&["allowed.test"]);
    let literal = request(&policy, "1.1.1.1:443");
    assert!(policy.wants_name(&literal));
    assert!(!policy.wants_name(&request(&policy, "1.1.1.1:22")));
    assert!(!policy.wants_name(&request(&policy, "allowed.test:443")));
    let web = allowing(&["allowed.test:80"]);
    assert!(!web.wants_name(&request(&web, "1.1.1.1:80")), "a rule for cleartext HTTP is satisfied by no SNI");
    let mut permit = policy.admit(&literal.clone().shown("allowed.test".parse().unwrap())).unwrap();
    assert_eq!(vet(&mut permit, &["1.0.0.1", "1.1.1.1"]), Ok(vec!["1.1.1.1".into()]));
    assert_eq!(vet(&mut permit, &["1.0.0.1"]), Err(Reason::AddressNotOfName));
    assert_eq!(policy.admit(&literal.shown("evil.test".parse().unwrap())).unwrap_err().reason, Reason::NoRule);
}

#[test]
fn t27_a_rule_in_audit_does_not_open_every_address_to_its_name() {
    let literal = |mode: Mode| {
        let policy = policy(|draft| {
            draft.mode = mode;
            draft.allow(RuleDraft { mode: Some(Mode::Audit), ..rule("allowed.test") });
        });
        let shown = request(&policy, "1.1.1.1:443").shown("allowed.test".parse().unwrap());
        let mut permit = policy.admit(&shown).unwrap();
        vet(&mut permit, &["1.0.0.1"])
    };
    assert_eq!(literal(Mode::Enforce), Err(Reason::AddressNotOfName));
    assert_eq!(literal(Mode::Audit), Ok(vec!["1.1.1.1".into()]));
}

#[test]
fn t01_t03_t10_the_sni_is_the_requested_name() {
    let policy = allowing(&["allowed.test", "other.test"]);
    let confirm = |flight: Flight| admit(&policy, "allowed.test:443").unwrap().confirm(&flight).map_err(|d| d.reason);
    assert_eq!(confirm(tls("allowed.test")), Ok(()));
    assert_eq!(confirm(tls("evil.test")), Err(Reason::SniMismatch));
    assert_eq!(confirm(tls("other.test")), Err(Reason::SniMismatch));
    assert_eq!(confirm(Flight::Tls { sni: Sni::Absent, ech: false }), Err(Reason::SniMissing));
    assert_eq!(confirm(Flight::Tls { sni: Sni::Many, ech: false }), Err(Reason::SniAmbiguous));
    assert_eq!(confirm(Flight::Tls { sni: Sni::Invalid("10.0.0.1".into()), ech: false }), Err(Reason::SniInvalid));
    assert_eq!(confirm(Flight::Malformed), Err(Reason::HelloMalformed));
    assert_eq!(confirm(Flight::Opaque), Err(Reason::NotTls));
    assert_eq!(confirm(Flight::Http), Err(Reason::NotTls));
    assert_eq!(confirm(Flight::ServerFirst), Err(Reason::NotTls));
    assert_eq!(confirm(Flight::Silent), Err(Reason::NoFirstFlight));
}

#[test]
fn t13_a_differing_outer_name_under_ech_is_told_as_such() {
    let policy = allowing(&["allowed.test"]);
    let flight = Flight::Tls { sni: Sni::One("cloudflare-ech.test".parse().unwrap()), ech: true };
    let denial = admit(&policy, "allowed.test:443").unwrap().confirm(&flight).unwrap_err();
    assert_eq!(denial.reason, Reason::SniMismatch);
    assert!(denial.detail.contains("ECH"), "{}", denial.detail);
}

#[test]
fn protocols_are_what_the_rule_says() {
    let on = |protocol: Protocol, flight: Flight| {
        let policy = policy(|draft| draft.allow(RuleDraft { protocol: Some(protocol), ..rule("a.test:9000") }));
        admit(&policy, "a.test:9000").unwrap().confirm(&flight).map_err(|d| d.reason)
    };
    assert_eq!(on(Protocol::Http, Flight::Http), Ok(()));
    assert_eq!(on(Protocol::Http, tls("a.test")), Err(Reason::NotHttp));
    assert_eq!(on(Protocol::Http, Flight::Opaque), Err(Reason::NotHttp));
    for flight in [Flight::Http, Flight::Opaque, Flight::ServerFirst, Flight::Silent, tls("a.test")] {
        assert_eq!(on(Protocol::Any, flight.clone()), Ok(()), "{flight:?}");
    }
    assert_eq!(on(Protocol::Any, tls("b.test")), Err(Reason::SniMismatch));
    assert_eq!(on(Protocol::Tcp, tls("b.test")), Ok(()));
    assert_eq!(Protocol::of_port(443), Protocol::Tls);
    assert_eq!(Protocol::of_port(80), Protocol::Http);
    assert_eq!(Protocol::of_port(22), Protocol::Any);
}

#[test]
fn a_request_inside_a_tunnel_names_the_permitted_host() {
    let policy = allowing(&["a.test:80"]);
    let permit = admit(&policy, "a.test:80").unwrap();
    assert!(permit.confirm_host(&"A.test.:80".parse().unwrap()).is_ok());
    assert_eq!(permit.confirm_host(&"b.test:80".parse().unwrap()).unwrap_err().reason, Reason::HostMismatch);
    assert_eq!(permit.confirm_host(&"a.test:81".parse().unwrap()).unwrap_err().reason, Reason::HostMismatch);
}

#[test]
fn a_name_that_a_deny_rule_names_is_refused_at_an_allowed_address() {
    let policy = policy(|draft| {
        draft.allow(rule("1.1.1.0/24"));
        draft.deny(rule("evil.test"));
    });
    let confirm = |flight: Flight| admit(&policy, "1.1.1.1:443").unwrap().confirm(&flight).map_err(|d| d.reason);
    assert_eq!(confirm(tls("good.test")), Ok(()));
    assert_eq!(confirm(Flight::Tls { sni: Sni::Absent, ech: false }), Ok(()));
    assert_eq!(confirm(tls("evil.test")), Err(Reason::DenyRule));
    assert_eq!(confirm(Flight::Opaque), Err(Reason::NotTls));
}

#[test]
fn c08_audit_relaxes_name_rules_and_nothing_else() {
    let policy = policy(|draft| {
        draft.mode = Mode::Audit;
        draft.allow(rule("allowed.test"));
        draft.deny(rule("bad.test"));
        draft.deny(RuleDraft { mode: Some(Mode::Enforce), ..rule("worse.test") });
    });
    assert_eq!(reason(&policy, "allowed.test:443"), None);
    let mut unknown = admit(&policy, "unknown.test:443").unwrap();
    assert_eq!(unknown.would_deny().unwrap().reason, Reason::NoRule);
    assert_eq!(vet(&mut unknown, &["169.254.169.254"]), Err(Reason::AddressClass));
    assert!(vet(&mut unknown, &["1.1.1.1"]).is_ok());
    assert_eq!(unknown.confirm(&tls("evil.test")).unwrap_err().reason, Reason::SniMismatch);
    assert!(unknown.confirm(&Flight::ServerFirst).is_ok());
    assert_eq!(unknown.would_deny().unwrap().reason, Reason::NoRule, "the first reason is kept");
    assert!(admit(&policy, "bad.test:443").is_ok());
    assert_eq!(admit(&policy, "worse.test:443").unwrap_err().reason, Reason::DenyRule);
    let mut literal = admit(&policy, "169.254.169.254:80").unwrap();
    assert_eq!(vet(&mut literal, &[]), Err(Reason::AddressClass));
    let mut missing = admit(&policy, "allowed.test:443").unwrap();
    assert!(missing.confirm(&Flight::Tls { sni: Sni::Absent, ech: false }).is_ok());
    assert_eq!(missing.would_deny().unwrap().reason, Reason::SniMissing);
}

#[test]
fn a_rule_in_audit_lets_through_and_says_so() {
    let policy = policy(|draft| draft.allow(RuleDraft { mode: Some(Mode::Audit), ..rule("new.test") }));
    assert_eq!(reason(&policy, "new.test:443"), Some(Reason::AuditRule));
    assert_eq!(reason(&policy, "unknown.test:443"), Some(Reason::NoRule));
    assert!(admit(&policy, "unknown.test:443").is_err());
}

#[test]
fn a_rule_that_enforces_binds_in_a_file_in_audit() {
    let policy = policy(|draft| {
        draft.mode = Mode::Audit;
        draft.allow(RuleDraft { mode: Some(Mode::Enforce), ..rule("allowed.test") });
    });
    let mut permit = admit(&policy, "allowed.test:443").unwrap();
    assert_eq!(permit.confirm(&Flight::Tls { sni: Sni::Absent, ech: false }).unwrap_err().reason, Reason::SniMissing);
}

#[test]
fn ids_are_stable_and_follow_the_content() {
    let id = |draft: RuleDraft| draft.build(crate::rule::Effect::Allow, &[]).id().to_string();
    let plain = id(rule("allowed.test"));
    assert_eq!(plain.len(), 12);
    assert_eq!(id(RuleDraft { note: Some("why".into()), line: 7, ..rule("allowed.test") }), plain);
    assert_ne!(id(rule("allowed.test:444")), plain);
    assert_eq!(id(RuleDraft { id: Some("mine".into()), ..rule("allowed.test") }), "mine");
}

#[test]
fn a_role_more_changes_no_id() {
    let id = |names: &[&str]| {
        let policy = policy(|draft| {
            let roles: Vec<_> = names.iter().map(|name| draft.role(name).unwrap()).collect();
            draft.allow(RuleDraft { roles: vec![roles[roles.len() - 1]], ..rule("allowed.test") });
        });
        policy.rules()[0].id().clone()
    };
    assert_eq!(id(&["web"]), id(&["alpha", "web"]));
    assert_ne!(id(&["web"]), id(&["alpha"]));
}

#[test]
fn of_rules_with_one_target_the_stricter_is_used_in_every_order() {
    let tls = |text: &str| RuleDraft { protocol: Some(Protocol::Tls), ..rule(text) };
    let narrow = |text: &str| RuleDraft { within: vec!["10.0.0.0/8".parse().unwrap()], ..rule(text) };
    for (one, other, protocol, within) in [
        (rule("a.test:8443"), tls("a.test:8443"), Protocol::Tls, 0),
        (rule("a.test:8443"), narrow("a.test:8443"), Protocol::Any, 1),
        (RuleDraft { mode: Some(Mode::Audit), ..tls("a.test:8443") }, rule("a.test:8443"), Protocol::Any, 0),
    ] {
        for rules in [[one.clone(), other.clone()], [other, one]] {
            let policy = policy(|draft| rules.into_iter().for_each(|rule| draft.allow(rule)));
            let permit = admit(&policy, "a.test:8443").unwrap();
            assert_eq!((permit.protocol(), permit.rule().unwrap().within().len()), (protocol, within));
        }
    }
}
