//! What rules do to one another: those that change nothing because others say the same, those that a deny rule
//! takes back, and those of one target that disagree. It judges conservatively: what it names is so, and two rules that
//! only together cover a third are not found.

use std::collections::HashSet;

use crate::decide::UnixTime;
use crate::matcher::Entry;
use crate::policy::{Policy, RoleId};
use crate::ports::Ports;
use crate::rule::{Effect, Mode, Protocol, Rule, To};

/// Of the rules that cover a target only so many are looked at, so that many rules for one name take no time.
const LOOKED_AT: usize = 64;

/// One rule that another makes idle or ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Its place in [`Policy::rules`].
    pub rule: usize,
    /// The place of the other.
    pub by: usize,
    /// What the other does to it.
    pub kind: OverlapKind,
}

/// What another rule does to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlapKind {
    /// It says the same.
    Duplicate,
    /// It says the same and more: without this rule nothing would change.
    Shadowed,
    /// It denies all that this rule allows.
    Denied,
    /// It speaks of the same target and asks for something else; only the stricter of the two is ever used.
    Conflicting,
}

impl Policy {
    /// The overlaps among the rules that are in force at this time: at most one for each rule, the gravest.
    #[must_use]
    pub fn overlaps(&self, now: UnixTime) -> Vec<Overlap> {
        let mut idle = HashSet::new();
        let mut found = Vec::new();
        for (at, rule) in (0u32..).zip(&self.rules).filter(|(_, rule)| !rule.is_expired(now)) {
            let Some(overlap) = self.overlap(at, rule, now, &idle) else { continue };
            if matches!(overlap.kind, OverlapKind::Duplicate | OverlapKind::Shadowed) {
                idle.insert(at);
            }
            found.push(overlap);
        }
        found
    }

    /// What has been found idle before makes no other rule idle: all that is found can be taken out together.
    fn overlap(&self, at: u32, rule: &Rule, now: UnixTime, idle: &HashSet<u32>) -> Option<Overlap> {
        let found = |kind: OverlapKind| move |by: u32| Overlap { rule: at as usize, by: by as usize, kind };
        let denied = || self.denier(rule, now).map(found(OverlapKind::Denied));
        let idled = || self.idled_by(at, rule, now, idle).map(|(by, kind)| found(kind)(by));
        let conflicting = || self.contradicted_by(at, rule, now).map(found(OverlapKind::Conflicting));
        match rule.effect {
            Effect::Allow => denied().or_else(idled).or_else(conflicting),
            Effect::Deny => idled(),
        }
    }

    /// A deny rule that binds and covers all of an allow rule.
    fn denier(&self, rule: &Rule, now: UnixTime) -> Option<u32> {
        let binds = |other: &Rule| self.mode_of(other, now) == Mode::Enforce && outlives(other, rule);
        all_covered(rule, |target| {
            let covers = |entry: &Entry| binds(entry.rule(&self.rules)) && entry_covers(*entry, target, rule, &self.rules);
            self.deny.covering(&target.0, &self.rules).take(LOOKED_AT).find(covers)
        })
    }

    /// A rule without which, or with which alone, everything would be the same.
    fn idled_by(&self, at: u32, rule: &Rule, now: UnixTime, idle: &HashSet<u32>) -> Option<(u32, OverlapKind)> {
        let index = match rule.effect {
            Effect::Allow => &self.allow,
            Effect::Deny => &self.deny,
        };
        let by = all_covered(rule, |target| {
            let others = index
                .covering(&target.0, &self.rules)
                .take(LOOKED_AT)
                .filter(|entry| entry.rule != at && !idle.contains(&entry.rule));
            for entry in others.filter(|entry| !entry.rule(&self.rules).is_expired(now)) {
                if self.idles(entry, target, at, rule) {
                    return Some(entry);
                }
                // Without this rule, one that asks for something else would come before any that covers it.
                if self.stands_between(entry, target, rule) {
                    return None;
                }
            }
            None
        })?;
        let other = &self.rules[by as usize];
        let mutual = covers_all(rule, other) && covers_all(other, rule);
        Some((by, if mutual { OverlapKind::Duplicate } else { OverlapKind::Shadowed }))
    }

    fn idles(&self, entry: Entry, target: &Spoken, at: u32, rule: &Rule) -> bool {
        let other = entry.rule(&self.rules);
        // Of two rules that cover one another the later one is the idle one.
        let later = entry.rule < at || !covers_all(rule, other);
        let alike = asks_alike(other, rule, &entry.of(&self.rules).1, &target.1);
        later && outlives(other, rule) && alike && entry_covers(entry, target, rule, &self.rules)
    }

    fn stands_between(&self, entry: Entry, (_, ports): &Spoken, rule: &Rule) -> bool {
        let other = entry.rule(&self.rules);
        let other_ports = &entry.of(&self.rules).1;
        !asks_alike(other, rule, other_ports, ports) && other_ports.meet(ports) && roles_meet(&other.roles, &rule.roles)
    }

    /// An earlier rule for one of its targets, for a common port and role, that asks for something else.
    fn contradicted_by(&self, at: u32, rule: &Rule, now: UnixTime) -> Option<u32> {
        rule.to.iter().find_map(|(to, ports)| {
            let contradicts = |entry: &Entry| {
                let (other, (other_to, other_ports)) = (entry.rule(&self.rules), entry.of(&self.rules));
                entry.rule < at
                    && !other.is_expired(now)
                    && other_to == to
                    && other_ports.meet(ports)
                    && roles_meet(&other.roles, &rule.roles)
                    && !asks_alike(other, rule, other_ports, ports)
            };
            self.allow.covering(to, &self.rules).take(LOOKED_AT).find(contradicts).map(|entry| entry.rule)
        })
    }
}

/// What a rule speaks of, and on which ports.
type Spoken = (To, Ports);

/// The first of the entries that cover the targets of a rule, if each target has one.
fn all_covered(rule: &Rule, cover: impl Fn(&Spoken) -> Option<Entry>) -> Option<u32> {
    let mut found = rule.to.iter().map(|target| cover(target).map(|entry| entry.rule));
    let first = found.next()??;
    found.all(|by| by.is_some()).then_some(first)
}

/// Whether an entry that covers the target covers its ports and roles too.
fn entry_covers(entry: Entry, (_, ports): &Spoken, rule: &Rule, rules: &[Rule]) -> bool {
    entry.of(rules).1.cover(ports) && roles_cover(&entry.rule(rules).roles, &rule.roles)
}

/// The same for two rules, with the plain meaning of their targets.
fn covers_all(rule: &Rule, other: &Rule) -> bool {
    let covered = |(to, ports): &Spoken| rule.to.iter().any(|(own, own_ports)| own.covers(to) && own_ports.cover(ports));
    roles_cover(&rule.roles, &other.roles) && outlives(rule, other) && other.to.iter().all(covered)
}

fn roles_cover(roles: &[RoleId], others: &[RoleId]) -> bool {
    roles.is_empty() || (!others.is_empty() && others.iter().all(|role| roles.contains(role)))
}

fn roles_meet(roles: &[RoleId], others: &[RoleId]) -> bool {
    roles.is_empty() || others.is_empty() || others.iter().any(|role| roles.contains(role))
}

fn outlives(rule: &Rule, other: &Rule) -> bool {
    rule.expires.is_none_or(|end| other.expires.is_some_and(|other_end| other_end <= end))
}

/// Whether two rules ask the same of a connection that both allow, on the ports that both speak of; or deny it in the
/// same mode.
fn asks_alike(rule: &Rule, other: &Rule, ports: &Ports, other_ports: &Ports) -> bool {
    let protocols = rule.effect == Effect::Deny || same_protocols(rule, other, ports, other_ports);
    rule.mode == other.mode && rule.within == other.within && protocols
}

/// Ports 80 and 443 have a protocol by default, all others have another.
fn same_protocols(rule: &Rule, other: &Rule, ports: &Ports, other_ports: &Ports) -> bool {
    let same_on = |port: u16| rule.protocol_on(port) == other.protocol_on(port);
    let elsewhere = rule.protocol.unwrap_or(Protocol::Any) == other.protocol.unwrap_or(Protocol::Any);
    ports.common(other_ports).all(|range| {
        let known = [80, 443].into_iter().filter(|port| range.holds(*port)).all(same_on);
        known && (elsewhere || !range.has_beside(80, 443))
    })
}

#[cfg(test)]
mod tests;
