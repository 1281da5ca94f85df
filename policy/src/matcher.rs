//! Which rules speak of a name or an address, in time that does not grow with the number of rules: a name is looked
//! up whole and then once per parent, an address once per prefix length in use. Its naive twin, a scan, is in the
//! tests, and a property test holds the two together.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::Name;
use crate::pattern::NamePattern;
use crate::rule::{Rule, To};

/// One target of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) rule: u32,
    pub(crate) target: u32,
}

/// The rules of one effect, by what they speak of.
#[derive(Debug, Default)]
pub(crate) struct Index {
    exact: HashMap<Box<str>, Vec<Entry>>,
    below: HashMap<Box<str>, Vec<Entry>>,
    buckets: Vec<Entry>,
    nets: HashMap<IpNet, Vec<Entry>>,
    v4_lengths: BTreeSet<u8>,
    v6_lengths: BTreeSet<u8>,
}

impl Index {
    pub(crate) fn insert(&mut self, at: u32, rule: &Rule) {
        for (target, (to, _)) in (0u32..).zip(&rule.to) {
            let entry = Entry { rule: at, target };
            match to {
                To::Name(NamePattern::Exact(name)) => push(&mut self.exact, name.as_str(), entry),
                To::Name(NamePattern::Below(apex)) => push(&mut self.below, apex.as_str(), entry),
                To::S3(_) => self.buckets.push(entry),
                To::Net(net) => self.insert_net(net.trunc(), entry),
            }
        }
    }

    fn insert_net(&mut self, net: IpNet, entry: Entry) {
        match net {
            IpNet::V4(_) => self.v4_lengths.insert(net.prefix_len()),
            IpNet::V6(_) => self.v6_lengths.insert(net.prefix_len()),
        };
        self.nets.entry(net).or_default().push(entry);
    }

    /// Entries whose pattern covers the name, most specific first: exact, then longer wildcards, then buckets.
    pub(crate) fn names<'a>(&'a self, name: &'a Name, rules: &'a [Rule]) -> impl Iterator<Item = Entry> + 'a {
        let exact = self.exact.get(name.as_str()).into_iter().flatten();
        let below = name.parents().filter_map(|parent| self.below.get(parent)).flatten();
        let buckets = self.buckets.iter().filter(move |entry| match &entry.of(rules).0 {
            To::S3(buckets) => buckets.matches(name),
            To::Name(_) | To::Net(_) => false,
        });
        exact.chain(below).chain(buckets).copied()
    }

    /// Entries whose network holds the address, longest prefix first.
    pub(crate) fn nets(&self, address: IpAddr) -> impl Iterator<Item = Entry> + '_ {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        let net_of = move |length: &u8| IpNet::new(address, *length).ok().map(|net| net.trunc());
        lengths.iter().rev().filter_map(net_of).filter_map(|net| self.nets.get(&net)).flatten().copied()
    }

    /// Whether any rule speaks of buckets.
    pub(crate) fn has_buckets(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// Wildcards at this very name, and exact rules for it: what nearly matched its children and its parent.
    pub(crate) fn around<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = Entry> + 'a {
        let apex_wildcard = self.below.get(name.as_str()).into_iter().flatten();
        let parents = name.parents().filter_map(|parent| self.exact.get(parent)).flatten();
        apex_wildcard.chain(parents).copied()
    }
}

impl Entry {
    pub(crate) fn of<'a>(&self, rules: &'a [Rule]) -> &'a (To, crate::ports::Ports) {
        &self.rule(rules).to[self.target as usize]
    }

    pub(crate) fn rule<'a>(&self, rules: &'a [Rule]) -> &'a Rule {
        &rules[self.rule as usize]
    }
}

fn push(map: &mut HashMap<Box<str>, Vec<Entry>>, key: &str, entry: Entry) {
    map.entry(key.into()).or_default().push(entry);
}

#[cfg(test)]
mod tests;
