use super::*;
use crate::pattern::NamePattern;
use crate::policy::{Draft, Surroundings};
use crate::ports::{PortRange, Ports};
use crate::rule::{Mode, RuleDraft, To};
use crate::verdict::Reason;

const NOW: UnixTime = UnixTime(1_800_000_000);

/// `name ports within`, of which only the first must be there.
fn rule(text: &str) -> RuleDraft {
    let mut words = text.split(' ');
    let name = NamePattern::parse(words.next().unwrap()).unwrap();
    let ports =
        words.next().and_then(|ports| Ports::of(ports.split(',').map(|range| PortRange::parse(range).unwrap()).collect()));
    let within = words.map(|net| net.parse().unwrap()).collect();
    RuleDraft { within, ..RuleDraft::new(vec![(To::Name(name), ports)]) }
}

fn policy(allow: &[&str], deny: &[&str], mode: Mode) -> Arc<Policy> {
    let mut draft = Draft::default();
    draft.mode = mode;
    allow.iter().for_each(|text| draft.allow(rule(text)));
    deny.iter().for_each(|text| draft.deny(rule(text)));
    Arc::new(Policy::new(draft, Surroundings::default()))
}

fn known(policy: &Arc<Policy>, name: &str, answers: &[&str]) -> Result<Vec<String>, Reason> {
    let answers: Vec<IpAddr> = answers.iter().map(|answer| answer.parse().unwrap()).collect();
    let mut lookup = policy.lookup(&name.parse().unwrap(), &[policy.default_role()], NOW).map_err(|denial| denial.reason)?;
    lookup.vet(&answers).map(|passed| passed.iter().map(ToString::to_string).collect()).map_err(|denial| denial.reason)
}

#[test]
fn a_name_of_some_rule_is_known_whatever_its_port() {
    let policy = policy(&["a.test", "db.test 5432", "wide.test 1000-2000,9"], &[], Mode::Enforce);
    for name in ["a.test", "db.test", "wide.test"] {
        assert_eq!(known(&policy, name, &["8.8.8.8"]), Ok(vec!["8.8.8.8".to_owned()]), "{name}");
    }
    assert_eq!(known(&policy, "sub.a.test", &["8.8.8.8"]), Err(Reason::NoRule));
}

#[test]
fn what_is_denied_on_every_port_that_is_allowed_is_not_known() {
    let policy = policy(&["*.a.test 443,8443", "b.test 443,8443"], &["evil.a.test", "b.test 443"], Mode::Enforce);
    assert_eq!(known(&policy, "evil.a.test", &["8.8.8.8"]), Err(Reason::DenyRule));
    assert!(known(&policy, "b.test", &["8.8.8.8"]).is_ok(), "8443 is left");
}

#[test]
fn private_answers_are_told_only_where_a_connection_could_use_them() {
    let policy = policy(&["a.test", "db.test 5432 10.0.0.0/8"], &[], Mode::Enforce);
    assert_eq!(known(&policy, "a.test", &["10.0.0.1"]), Err(Reason::AddressClass));
    assert_eq!(known(&policy, "a.test", &["10.0.0.1", "8.8.8.8"]), Ok(vec!["8.8.8.8".to_owned()]));
    assert_eq!(known(&policy, "db.test", &["8.8.8.8", "10.0.0.1"]), Ok(vec!["10.0.0.1".to_owned()]));
}

#[test]
fn audit_knows_every_name_and_no_private_answer() {
    let policy = policy(&[], &[], Mode::Audit);
    assert!(known(&policy, "any.test", &["8.8.8.8"]).is_ok());
    assert_eq!(known(&policy, "any.test", &["169.254.169.254"]), Err(Reason::AddressClass));
}

#[test]
fn several_roles_know_together_what_each_may_know() {
    let mut draft = Draft::default();
    let role = draft.role("worker").unwrap();
    draft.role_by_executable("/app/worker", role);
    draft.allow(RuleDraft { roles: vec![role], ..rule("a.test 443 10.0.0.0/8") });
    let policy = Arc::new(Policy::new(draft, Surroundings::default()));
    let (name, private) = ("a.test".parse().unwrap(), "10.0.0.1".parse().unwrap());
    assert!(policy.lookup(&name, &[policy.default_role()], NOW).is_err());
    assert!(policy.lookup(&"b.test".parse().unwrap(), &policy.roles_of_executables(), NOW).is_err());
    let mut lookup = policy.lookup(&name, &policy.roles_of_executables(), NOW).unwrap();
    assert_eq!(lookup.vet(&[private]), Ok(vec![private]));
}
