//! The naive twin: every rule is asked in turn. The index must name the same entries.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::rule::{Effect, RuleDraft};

fn build(targets: &[To]) -> (Vec<Rule>, Index) {
    let rules: Vec<Rule> = targets.iter().map(|to| RuleDraft::new(vec![(to.clone(), None)]).build(Effect::Allow, &[])).collect();
    let index = Index::of(&rules, Effect::Allow);
    (rules, index)
}

fn scan(rules: &[Rule], hit: impl Fn(&To) -> bool) -> BTreeSet<u32> {
    let rule = |(at, rule): (u32, &Rule)| hit(&rule.to[0].0).then_some(at);
    (0u32..).zip(rules).filter_map(rule).collect()
}

fn name_rule() -> impl Strategy<Value = To> {
    // A small alphabet, so that rules and names meet often.
    "(\\*\\.)?[ab]{1,2}(\\.[ab]{1,2}){0,3}".prop_map(|text| To::Name(text.parse().unwrap()))
}

fn net_rule() -> impl Strategy<Value = To> {
    let v4 = (any::<u8>(), 0u8..=32).prop_map(|(d, len)| IpNet::new([10, 0, 0, d].into(), len).unwrap());
    let v6 = (any::<u16>(), 0u8..=128).prop_map(|(d, len)| IpNet::new([0xfd00, 0, 0, 0, 0, 0, 0, d].into(), len).unwrap());
    prop_oneof![v4, v6].prop_map(To::Net)
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = any::<u8>().prop_map(|d| IpAddr::from([10, 0, 0, d]));
    let v6 = any::<u16>().prop_map(|d| IpAddr::from([0xfd00u16, 0, 0, 0, 0, 0, 0, d]));
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn names_agree_with_the_naive_twin(
        targets in prop::collection::vec(name_rule(), 0..40),
        name in "[ab]{1,2}(\\.[ab]{1,2}){0,4}",
    ) {
        let (rules, index) = build(&targets);
        let name = Name::parse(&name).unwrap();
        let found: Vec<Entry> = index.names(&name, &rules).collect();
        let naive = scan(&rules, |to| matches!(to, To::Name(pattern) if pattern.matches(&name)));
        prop_assert_eq!(found.iter().map(|entry| entry.rule).collect::<BTreeSet<_>>(), naive);
        let lengths: Vec<usize> = found.iter().map(|entry| specificity(&entry.of(&rules).0)).collect();
        prop_assert!(lengths.is_sorted_by(|a, b| a >= b), "most specific first: {:?}", lengths);
    }

    #[test]
    fn addresses_agree_with_the_naive_twin(targets in prop::collection::vec(net_rule(), 0..40), address in address()) {
        let (rules, index) = build(&targets);
        let found: Vec<Entry> = index.nets(address).collect();
        let naive = scan(&rules, |to| matches!(to, To::Net(net) if net.contains(&address)));
        prop_assert_eq!(found.iter().map(|entry| entry.rule).collect::<BTreeSet<_>>(), naive);
    }
}

/// An exact rule outranks every wildcard; of two wildcards the one with more labels.
fn specificity(to: &To) -> usize {
    match to {
        To::Name(NamePattern::Exact(_)) => usize::MAX,
        To::Name(NamePattern::Below(apex)) => apex.labels(),
        To::Net(net) => net.prefix_len().into(),
        To::S3(_) => 0,
    }
}
