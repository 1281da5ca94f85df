use super::*;
use crate::decide::UnixTime;
use crate::permit::Flight;
use crate::policy::{Draft, Surroundings};
use crate::rule::{Protocol, RuleDraft, To};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn policy(build: impl FnOnce(&mut Draft)) -> Arc<Policy> {
    let mut draft = Draft::default();
    build(&mut draft);
    Arc::new(Policy::new(draft, Surroundings::default()))
}

fn rule(name: &str) -> RuleDraft {
    RuleDraft::name(name.parse().unwrap())
}

fn request(policy: &Policy, target: &str) -> Request {
    Request::new(target.parse().unwrap(), policy.default_role(), NOW)
}

#[test]
fn it_tells_the_same_verdict_and_what_came_near() {
    let policy = policy(|draft| ["allowed.test", "*.wild.test"].iter().for_each(|name| draft.allow(rule(name))));
    let explanation = policy.explain(&request(&policy, "wild.test:443"));
    assert_eq!(explanation.verdict.unwrap_err().reason, Reason::NoRule);
    assert_eq!(explanation.near.len(), 1);
    let other_port = policy.explain(&request(&policy, "allowed.test:80"));
    assert_eq!(other_port.near[0].why, Some(Reason::PortNotListed));
}

#[test]
fn the_smallest_line_is_as_narrow_as_the_request() {
    let policy = policy(|draft| {
        let web = draft.role("web").unwrap();
        draft.allow(RuleDraft { roles: vec![web], ..rule("web.test") });
        draft.allow(RuleDraft { protocol: Some(Protocol::Tcp), ..rule("db.test") });
        draft.deny(rule("bad.test"));
    });
    let line = |target: &str, role: &str, answer: Option<&str>| {
        let request = Request::new(target.parse().unwrap(), policy.role_named(role).unwrap(), NOW);
        let answer = answer.map(|answer| answer.parse().unwrap());
        let denial = match policy.admit(&request) {
            Err(denial) => denial,
            Ok(mut permit) => permit.vet(&Vec::from_iter(answer)).unwrap_err(),
        };
        policy.line_that_allows(&request, &denial, answer).map(|line| line.to_string())
    };
    assert_eq!(line("a.test:443", "default", None).unwrap(), "- a.test");
    assert_eq!(line("a.test:80", "default", None).unwrap(), "- a.test:80");
    assert_eq!(line("a.test:80", "web", None).unwrap(), "- { to: \"a.test:80\", for: [web] }");
    assert_eq!(line("web.test:443", "default", None).unwrap(), "- { to: \"web.test\", for: [default] }");
    assert_eq!(line("1.1.1.1:443", "default", None).unwrap(), "- 1.1.1.1");
    assert_eq!(line("[2001:db8::1]:53", "default", None).unwrap(), "- { to: \"2001:db8::1\", ports: [53] }");
    assert_eq!(line("[2001:db8::1]:443", "default", None).unwrap(), "- \"2001:db8::1\"");
    let db = line("db.test:443", "default", Some("10.0.0.1")).unwrap();
    assert_eq!(db, "- { to: \"db.test\", as: tcp, within: [\"10.0.0.1\"] }");
    assert_eq!(line("db.test:443", "default", Some("64:ff9b::a00:1")), None, "two readings need two rules");
    assert_eq!(line("bad.test:443", "default", None), None);
}

#[test]
fn a_permit_is_judged_again_by_another_policy() {
    let nets = |draft: &mut Draft| draft.deny(RuleDraft::new(vec![(To::Net("1.1.1.0/24".parse().unwrap()), None)]));
    let before = policy(|draft| draft.allow(rule("a.test")));
    let permit = before.admit(&request(&before, "a.test:443")).unwrap();
    let again = |other: &Arc<Policy>| {
        let shown = Flight::Tls { sni: crate::permit::Sni::One("a.test".parse().unwrap()), ech: false };
        permit.again(other, "1.1.1.1".parse().unwrap(), &shown, NOW).map(drop).map_err(|denial| denial.reason)
    };
    assert_eq!(again(&before), Ok(()));
    assert_eq!(again(&policy(|_| {})), Err(Reason::NoRule));
    let http = policy(|draft| draft.allow(RuleDraft { protocol: Some(Protocol::Http), ..rule("a.test") }));
    assert_eq!(again(&http), Err(Reason::NotHttp));
    let denied = policy(|draft| {
        draft.allow(rule("a.test"));
        nets(draft);
    });
    assert_eq!(again(&denied), Err(Reason::DenyRule));
}
