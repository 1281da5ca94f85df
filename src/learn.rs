//! From what was seen to the smallest readable policy that allows it: exact names, grouped by registered domain, and
//! nothing that was only asked for, never connected, never confirmed by the client, or refused for its address, unless
//! the user asks for it. It proposes; it never writes `enforce`.

mod edit;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;
use egret_policy::{
    Class, Host, Name, NamePattern, Policy, Protocol, Reason, RuleLine, Target, To, UnixTime, classify, embedded_ipv4,
};
use ipnet::IpNet;

use crate::evidence::{Destination, Evidence, Observation, Outcome, Shown};

pub(crate) use self::edit::{extended, unified};
pub(crate) use self::write::{json, policy};

/// More addresses than this in one `within:` are no longer read; their networks are named instead.
const MAX_WITHIN: usize = 8;

/// The mark of a destination for which the base and what was seen ask for different rules.
const CONFLICT: &str = "conflict";

/// Why a destination is left out unless asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Mark {
    /// Refused for its name, port or role: only asked for
    Asked,
    /// Let through, and never connected
    Failed,
    /// Nothing that the client showed confirmed the name
    Unverified,
    /// Refused for the space that its address lies in
    AddressClass,
}

/// What to make of the evidence.
pub(crate) struct Learner<'a> {
    pub(crate) wildcard_after: Option<u32>,
    pub(crate) include: &'a [Mark],
    /// The policy to extend, enforcing.
    pub(crate) base: Option<&'a Arc<Policy>>,
    pub(crate) now: UnixTime,
}

/// A proposal.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    /// In the order of the file to be.
    pub(crate) rules: Vec<Learn>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// A proposed rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Learn {
    pub(crate) line: RuleLine,
    /// The registered domain, or the address.
    pub(crate) group: String,
    pub(crate) names: usize,
    pub(crate) events: u64,
}

/// A destination that no rule is proposed for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeftOut {
    pub(crate) destination: Destination,
    /// A [`Mark`]; or of the base: `denied` by one of its rules, [`CONFLICT`] with one that asks for something else at the
    /// same target, `unknown-role`.
    pub(crate) mark: String,
    pub(crate) events: u64,
}

/// What is known of one destination.
#[derive(Default)]
struct Known<'e> {
    /// What a rule must admit: what is learnt from, and what the base admits already.
    admitted: Vec<&'e Observation>,
    /// How often something was seen that the base does not admit.
    events: u64,
    /// By mark, as the journal names who asked.
    left_out: BTreeMap<(String, &'e Destination), u64>,
    /// Whether something reached it without showing what it is.
    opaque: bool,
}

/// A destination that asks for a rule, and the rule.
struct Candidate<'e> {
    destination: Destination,
    known: Known<'e>,
    order: Order,
    learn: Learn,
}

impl Known<'_> {
    /// What to tell of a destination that no rule is proposed for. What could be learnt from conflicts with what the base
    /// admits there already: no one rule lets both pass.
    fn nothing_learnt(self, destination: Destination) -> impl Iterator<Item = LeftOut> {
        let conflict = (self.events > 0).then(|| LeftOut { destination, mark: CONFLICT.to_owned(), events: self.events });
        let objected = self.left_out.into_iter();
        let objected = objected.map(|((mark, asked), events)| LeftOut { destination: asked.clone(), mark, events });
        conflict.into_iter().chain(objected)
    }
}

impl Mark {
    /// The mark of an observation that proves nothing by itself; `None` for one that does.
    fn of(seen: &Observation) -> Option<Self> {
        match (&seen.outcome, &seen.shown) {
            (Outcome::Refused | Outcome::Beyond, _) => Some(Self::Asked),
            (Outcome::RefusedAddress, _) => Some(Self::AddressClass),
            (Outcome::RefusedFlight, _) => Some(Self::Unverified),
            (Outcome::Failed, _) => Some(Self::Failed),
            (Outcome::Reached, Shown::Http) => None,
            (Outcome::Reached, Shown::Sni(name)) if *name == seen.destination.host => None,
            // A literal address proves itself, but not the name that was shown for it: many live at one address.
            (Outcome::Reached, Shown::Bytes) if egret_policy::literal(&seen.destination.host).is_some() => None,
            (Outcome::Reached, _) => Some(Self::Unverified),
        }
    }

    /// The word of the command line.
    pub(crate) fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Learner<'_> {
    /// The proposal. The same evidence gives the same proposal, in whatever order it was read.
    pub(crate) fn learn(&self, evidence: &Evidence) -> Learnt {
        let (candidates, mut left_out) = self.candidates(evidence);
        let (helped, helpless) = self.tried(candidates);
        left_out.extend(helpless);
        let mut rules: BTreeMap<Order, Learn> = BTreeMap::new();
        for Candidate { order, learn, .. } in helped {
            merge(&mut rules, order, learn);
        }
        let mut rules: Vec<Learn> = rules.into_values().collect();
        if !self.base.is_some_and(|base| base.has_roles()) {
            rules.iter_mut().for_each(|learn| learn.line.roles.clear());
        }
        let left_out: Vec<LeftOut> = left_out.into_iter().collect();
        let wider = self.with_wildcards(rules.clone(), &left_out);
        let rules = if self.takes_nothing_away(&wider, evidence) { wider } else { rules };
        Learnt { rules, left_out }
    }

    /// Whether the base would still admit what it admits: a new wildcard can stand before a looser one of the base.
    fn takes_nothing_away(&self, rules: &[Learn], evidence: &Evidence) -> bool {
        let Some(base) = self.base.filter(|_| self.wildcard_after.is_some()) else { return true };
        let extended = Arc::new(base.plus(rules.iter().map(|learn| &learn.line)));
        let mut covered = evidence.observations.keys().filter(|seen| self.is_covered(seen));
        covered.all(|seen| matches!(seen.judge(&extended, self.now), Some(Ok(_))))
    }

    /// The destinations that ask for a rule, and those that are left out. What the base admits is neither.
    fn candidates<'e>(&self, evidence: &'e Evidence) -> (Vec<Candidate<'e>>, BTreeSet<LeftOut>) {
        let mut known: BTreeMap<Destination, Known<'e>> = BTreeMap::new();
        for (seen, count) in &evidence.observations {
            let entry = known.entry(self.key(&seen.destination)).or_default();
            if self.is_covered(seen) {
                entry.admitted.push(seen);
                continue;
            }
            match self.objection(seen) {
                None => {
                    entry.admitted.push(seen);
                    entry.events += count;
                }
                Some(mark) => {
                    entry.opaque |= seen.outcome == Outcome::Reached;
                    *entry.left_out.entry((mark, &seen.destination)).or_default() += count;
                }
            }
        }
        let (mut candidates, mut left_out) = (Vec::new(), BTreeSet::new());
        for (destination, known) in known {
            match self.rule(&destination, &known) {
                Some((order, learn)) => candidates.push(Candidate { destination, known, order, learn }),
                None => left_out.extend(known.nothing_learnt(destination)),
            }
        }
        (candidates, left_out)
    }

    /// Tries the rules on the base: one that does not help, because the base asks for something else there, is no
    /// proposal.
    fn tried<'e>(&self, candidates: Vec<Candidate<'e>>) -> (Vec<Candidate<'e>>, Vec<LeftOut>) {
        let Some(base) = self.base else { return (candidates, Vec::new()) };
        let extended = Arc::new(base.plus(candidates.iter().map(|candidate| &candidate.learn.line)));
        let admits = |seen: &&Observation| matches!(seen.judge(&extended, self.now), Some(Ok(_)));
        let (helped, helpless): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| candidate.known.admitted.iter().all(admits));
        let left_out = |candidate: Candidate<'e>| LeftOut {
            destination: candidate.destination,
            mark: CONFLICT.to_owned(),
            events: candidate.known.events,
        };
        (helped, helpless.into_iter().map(left_out).collect())
    }

    fn is_covered(&self, seen: &Observation) -> bool {
        !self.is_of_unknown_role(seen) && self.base.is_some_and(|base| matches!(seen.judge(base, self.now), Some(Ok(_))))
    }

    /// Whether nobody can be who asked: the base tells roles apart, and not this one.
    fn is_of_unknown_role(&self, seen: &Observation) -> bool {
        self.base.is_some_and(|base| base.has_roles() && base.role_named(&seen.destination.role).is_none())
    }

    /// Roles are told apart where there is a base that has some.
    fn key(&self, destination: &Destination) -> Destination {
        let apart = self.base.is_some_and(|base| base.has_roles());
        let role = if apart { destination.role.clone() } else { egret_policy::DEFAULT_ROLE.to_owned() };
        Destination { role, ..destination.clone() }
    }

    /// Why an observation is not learnt from.
    fn objection(&self, seen: &Observation) -> Option<String> {
        if seen.unwanted {
            return Some("denied".to_owned());
        }
        let mark = Mark::of(seen);
        if let Some(mark) = mark.filter(|mark| !self.include.contains(mark)) {
            return Some(mark.word());
        }
        if seen.outcome == Outcome::Beyond || protocol_for(&[seen]).is_err() {
            return Some(mark.unwrap_or(Mark::Unverified).word());
        }
        if mark == Some(Mark::AddressClass) && seen.address.is_none() {
            return Some(Mark::AddressClass.word());
        }
        let base = self.base?;
        if self.is_of_unknown_role(seen) {
            return Some("unknown-role".to_owned());
        }
        let denied = seen.judge(base, self.now)?.err().is_some_and(|denial| denial.reason == Reason::DenyRule);
        denied.then(|| "denied".to_owned())
    }

    /// The rule for a destination, if there is something to learn it from.
    fn rule(&self, destination: &Destination, known: &Known<'_>) -> Option<(Order, Learn)> {
        let target = known.admitted.first().filter(|_| known.events > 0)?.target()?;
        // Where bytes without a name went too, nothing is asked on ports that ask nothing by themselves.
        let unasked = known.opaque && Protocol::of_port(target.port) == Protocol::Any;
        let protocol = protocol_for(&known.admitted).ok()?.filter(|protocol| !unasked || *protocol > Protocol::Any);
        let line = RuleLine {
            protocol,
            within: within(&target, &known.admitted),
            roles: vec![destination.role.clone()],
            ..RuleLine::for_target(&target)
        };
        let group = match &target.host {
            Host::Name(name) => egret_policy::registered_domain(name).to_owned(),
            Host::Address(_) => "addresses".to_owned(),
        };
        let order =
            Order { named: target.host.name().is_none(), group: group.clone(), target: target.to_string(), more: more(&line) };
        Some((order, Learn { line, group, names: 1, events: known.events }))
    }

    /// Many names directly below one parent become a wildcard, if the user asked for it; never over a suffix that
    /// strangers share, never over a single label, and never over a name that is left out.
    fn with_wildcards(&self, rules: Vec<Learn>, left_out: &[LeftOut]) -> Vec<Learn> {
        let Some(least) = self.wildcard_after.and_then(|n| usize::try_from(n).ok()) else { return rules };
        let taken = parents_of(left_out);
        let mut below: HashMap<RuleLine, Vec<usize>> = HashMap::new();
        for (at, learn) in rules.iter().enumerate() {
            let Some(line) = wildcard(&learn.line, &taken) else { continue };
            below.entry(line).or_default().push(at);
        }
        let mut replaced: BTreeMap<usize, Option<Learn>> = BTreeMap::new();
        for (line, members) in below.into_iter().filter(|(_, members)| members.len() >= least) {
            let events = members.iter().map(|at| rules[*at].events).sum();
            let wide = Learn { line, group: rules[members[0]].group.clone(), names: members.len(), events };
            replaced.extend(members.iter().map(|at| (*at, None)));
            replaced.insert(members[0], Some(wide));
        }
        rules.into_iter().enumerate().filter_map(|(at, learn)| replaced.remove(&at).unwrap_or(Some(learn))).collect()
    }
}

/// Where a rule stands: names by registered domain, then addresses.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    named: bool,
    group: String,
    target: String,
    more: String,
}

/// What tells rules for one target apart, but for the roles.
fn more(line: &RuleLine) -> String {
    format!("{:?} {:?}", line.protocol, line.within)
}

/// Rules that differ in their roles only are one.
fn merge(rules: &mut BTreeMap<Order, Learn>, order: Order, learn: Learn) {
    match rules.get_mut(&order) {
        Some(same) => {
            let roles: BTreeSet<String> = same.line.roles.iter().chain(&learn.line.roles).cloned().collect();
            same.line.roles = roles.into_iter().collect();
            same.events += learn.events;
        }
        None => drop(rules.insert(order, learn)),
    }
}

/// The `as:` under which all of these pass: `None` for the port's own default; an error if no rule lets them pass.
fn protocol_for(seen: &[&Observation]) -> Result<Option<Protocol>, ()> {
    let port = seen.first().map_or(443, |seen| seen.destination.port);
    let literal = seen.iter().any(|seen| egret_policy::literal(&seen.destination.host).is_some());
    let mut kinds = BTreeSet::new();
    for seen in seen {
        kinds.insert(match &seen.shown {
            Shown::Unknown => continue,
            Shown::Sni(name) if *name == seen.destination.host || literal => Protocol::Tls,
            Shown::NoSni if literal => Protocol::Tls,
            Shown::Sni(_) | Shown::BadSni | Shown::TwoSnis => return Err(()),
            Shown::Http => Protocol::Http,
            Shown::Bytes | Shown::Nothing => Protocol::Any,
            Shown::NoSni | Shown::BadHello => Protocol::Tcp,
        });
    }
    let wanted = match kinds.into_iter().collect::<Vec<_>>()[..] {
        [] => return Ok(None),
        [one] => one,
        [.., Protocol::Tcp] => Protocol::Tcp,
        _ => Protocol::Any,
    };
    Ok(Some(wanted).filter(|wanted| *wanted != Protocol::of_port(port)))
}

/// Where the answers lay, if any of them needs a rule that names its space.
fn within(target: &Target, seen: &[&Observation]) -> Vec<IpNet> {
    let addresses: BTreeSet<IpAddr> = seen.iter().filter_map(|seen| seen.address).collect();
    let named = target.host.name().is_some();
    if !named || addresses.iter().all(|address| classify(*address) == Class::Global) {
        return Vec::new();
    }
    let inner = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(v6) => embedded_ipv4(*v6).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    });
    let all: BTreeSet<IpAddr> = addresses.iter().copied().chain(inner).collect();
    let exact = all.len() <= MAX_WITHIN;
    let nets: BTreeSet<IpNet> = all.into_iter().map(|address| if exact { address.into() } else { network_of(address) }).collect();
    nets.into_iter().collect()
}

/// The network that is usually one subnet: 24 bits of IPv4, 64 of IPv6.
fn network_of(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// The names above those that are left out, with their ports: no wildcard may stand there.
fn parents_of(left_out: &[LeftOut]) -> HashSet<(String, u16)> {
    let names = left_out.iter().filter_map(|left| Some((Name::parse(&left.destination.host).ok()?, left.destination.port)));
    names.flat_map(|(name, port)| name.parents().map(|parent| (parent.to_owned(), port)).collect::<Vec<_>>()).collect()
}

/// The line of a wildcard over the name's parent, if one may stand there.
fn wildcard(line: &RuleLine, taken: &HashSet<(String, u16)>) -> Option<RuleLine> {
    let To::Name(NamePattern::Exact(name)) = &line.to else { return None };
    let parent = Name::parse(name.parents().next()?).ok().filter(|parent| parent.labels() > 1)?;
    if taken.contains(&(parent.to_string(), line.port)) {
        return None;
    }
    let pattern = NamePattern::Below(parent);
    pattern.shared_suffix().is_none().then(|| RuleLine { to: To::Name(pattern), ..line.clone() })
}

#[cfg(test)]
mod tests;
