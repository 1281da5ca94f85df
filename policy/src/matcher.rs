//! Which rules speak of a name or an address, in time that does not grow with the number of rules: a name is looked
//! up whole and then once per parent, a bucket by its name, an address once per prefix length in use. Its naive twin, a scan, is in the
//! tests, and a property test holds the two together.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::Name;
use crate::pattern::NamePattern;
use crate::rule::{Effect, Rule, To};
use crate::s3::{BucketPattern, S3Host, S3Rule};

/// One target of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) rule: u32,
    pub(crate) target: u32,
    /// Whether others may have the very same target.
    pub(crate) shared: bool,
}

/// The rules of one effect, by what they speak of.
#[derive(Debug, Default)]
pub(crate) struct Index {
    exact: HashMap<Box<str>, Vec<Entry>>,
    below: HashMap<Box<str>, Vec<Entry>>,
    /// By the whole name of a bucket.
    buckets: HashMap<Box<str>, Vec<Entry>>,
    /// Rules with a star in some bucket, asked in turn.
    bucket_globs: Vec<Entry>,
    nets: HashMap<IpNet, Vec<Entry>>,
    v4_lengths: BTreeSet<u8>,
    v6_lengths: BTreeSet<u8>,
}

impl Index {
    /// The rules of this effect.
    pub(crate) fn of(rules: &[Rule], effect: Effect) -> Self {
        let mut index = Self::default();
        for (at, rule) in (0u32..).zip(rules).filter(|(_, rule)| rule.effect() == effect) {
            index.insert(at, rule);
        }
        index.forget_order(rules);
        index
    }

    fn insert(&mut self, at: u32, rule: &Rule) {
        for (target, (to, _)) in (0u32..).zip(&rule.to) {
            let entry = Entry { rule: at, target, shared: false };
            match to {
                To::Name(NamePattern::Exact(name)) => push(&mut self.exact, name.as_str(), entry),
                To::Name(NamePattern::Below(apex)) => push(&mut self.below, apex.as_str(), entry),
                To::S3(buckets) => self.insert_buckets(buckets, entry),
                To::Net(net) => self.insert_net(net.trunc(), entry),
            }
        }
    }

    fn insert_buckets(&mut self, rule: &S3Rule, entry: Entry) {
        if rule.buckets.iter().any(|bucket| bucket.whole().is_none()) {
            return self.bucket_globs.push(entry);
        }
        for bucket in rule.buckets.iter().filter_map(BucketPattern::whole).collect::<BTreeSet<_>>() {
            push(&mut self.buckets, bucket, entry);
        }
    }

    /// Rules with the very same target come in the order of their ids, wherever they stand in the file.
    fn forget_order(&mut self, rules: &[Rule]) {
        let by_name = self.exact.values_mut().chain(self.below.values_mut()).chain(self.buckets.values_mut());
        let lists = by_name.chain(self.nets.values_mut()).chain([&mut self.bucket_globs]);
        for entries in lists.filter(|entries| entries.len() > 1) {
            entries.sort_by_cached_key(|entry| entry.rule(rules).id.clone());
            entries.iter_mut().for_each(|entry| entry.shared = true);
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
        exact.chain(self.wildcards(name)).chain(self.bucket_entries(name, rules)).copied()
    }

    /// Entries of wildcards above the name, the longest first.
    fn wildcards<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Entry> {
        name.parents().filter_map(|parent| self.below.get(parent)).flatten()
    }

    fn bucket_entries<'a>(&'a self, name: &'a Name, rules: &'a [Rule]) -> impl Iterator<Item = &'a Entry> {
        let bucket = self.has_buckets().then(|| S3Host::bucket_of(name)).flatten();
        let matching = move |entry: &&Entry| matches!(&entry.of(rules).0, To::S3(rule) if rule.matches(name));
        let whole = bucket.and_then(|bucket| self.buckets.get(bucket)).into_iter().flatten();
        let globs = bucket.map(|_| self.bucket_globs.iter()).into_iter().flatten();
        whole.chain(globs).filter(matching)
    }

    /// Entries of the same kind that speak of everything this target speaks of, and maybe more. Networks of one kind
    /// of address, names and wildcards; of buckets only those that are written alike.
    pub(crate) fn covering<'a>(&'a self, to: &'a To, rules: &'a [Rule]) -> Box<dyn Iterator<Item = Entry> + 'a> {
        match to {
            To::Name(NamePattern::Exact(name)) => Box::new(self.names(name, rules)),
            To::Name(NamePattern::Below(apex)) => {
                let same = self.below.get(apex.as_str()).into_iter().flatten();
                Box::new(same.chain(self.wildcards(apex)).copied())
            }
            To::Net(net) => {
                let wider = move |entry: &Entry| matches!(&entry.of(rules).0, To::Net(other) if other.contains(net));
                Box::new(self.nets(net.network()).filter(wider))
            }
            To::S3(buckets) => {
                let first = buckets.buckets.first().and_then(BucketPattern::whole).and_then(|name| self.buckets.get(name));
                let alike = move |entry: &&Entry| entry.of(rules).0 == *to;
                Box::new(first.into_iter().flatten().chain(&self.bucket_globs).filter(alike).copied())
            }
        }
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
        !self.buckets.is_empty() || !self.bucket_globs.is_empty()
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
