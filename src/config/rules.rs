//! Rules as written to rules as meant: hosts, networks, sets, ports, dates. Every error names the word at fault and
//! what to write instead, and the next rule is read all the same.

use std::collections::HashSet;

use egret_policy as policy;
use egret_policy::{Draft, Mode, NamePattern, PortRange, Ports, Protocol, RoleId, RuleDraft, S3Rule, SharedSuffix, To, UnixTime};
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_saphyr::Location;

use super::Reader;
use super::raw;

/// A host or network of a rule, with the port that was written beside it.
type Target = (To, Option<Ports>);

impl Reader<'_> {
    /// All rules of the `egress:` section.
    pub(super) fn rules(&mut self, egress: &raw::Egress, draft: &mut Draft) {
        let mut ids = HashSet::new();
        for rule in &egress.allow {
            if let Some(built) = self.rule(rule, draft, &mut ids) {
                draft.allow(built);
            }
        }
        for rule in &egress.deny {
            if let Some(built) = self.rule(rule, draft, &mut ids) {
                draft.deny(built);
            }
        }
    }

    fn rule(&mut self, rule: &super::Spanned<raw::Rule>, draft: &mut Draft, ids: &mut HashSet<String>) -> Option<RuleDraft> {
        let at = rule.referenced;
        let line = u32::try_from(at.line()).unwrap_or(0);
        match &rule.value {
            raw::Rule::Short(text) => {
                let targets = self.targets(text, at)?;
                self.refuse_shared(&targets, false, at);
                Some(RuleDraft { line, ..RuleDraft::new(targets) })
            }
            raw::Rule::Long(long) => {
                let targets = self.long_targets(long, at)?;
                self.refuse_shared(&targets, long.wide, long.to.as_ref().map_or(at, |to| to.referenced));
                let id = long.id.as_ref().and_then(|id| self.id(id, ids));
                Some(RuleDraft { id, line, ..self.details(long, targets, draft, at) })
            }
        }
    }

    fn details(&mut self, long: &raw::LongRule, to: Vec<Target>, draft: &mut Draft, at: Location) -> RuleDraft {
        RuleDraft {
            roles: self.written("for", &long.r#for, at).iter().filter_map(|role| self.role_of(role, draft)).collect(),
            protocol: long.r#as.map(protocol),
            within: self.written("within", &long.within, at).iter().filter_map(|net| self.net(net)).collect(),
            mode: long.mode.map(mode),
            expires: long.expires.as_ref().and_then(|date| self.instant(date)),
            note: long.note.clone(),
            ..RuleDraft::new(to)
        }
    }

    fn long_targets(&mut self, long: &raw::LongRule, at: Location) -> Option<Vec<Target>> {
        let ports = match &long.ports {
            Some(ports) => Some(self.ports(ports, at)?),
            None => None,
        };
        let targets = match (&long.to, &long.s3) {
            (Some(to), None) => self.targets(&to.value, to.referenced)?,
            (None, Some(s3)) => vec![(To::S3(self.buckets(&s3.value, at)?), None)],
            (None, None) => return self.error(at, "a rule needs `to:` or `s3:`", Some("write `to: api.example.com`")),
            (Some(_), Some(_)) => return self.error(at, "a rule has `to:` or `s3:`, not both", Some("make two rules")),
        };
        let Some(ports) = ports else { return Some(targets) };
        if targets.iter().any(|(_, own)| own.is_some()) {
            return self.error(at, "the port is written twice, in `to:` and in `ports:`", Some("write it in one place"));
        }
        Some(targets.into_iter().map(|(to, _)| (to, Some(ports.clone()))).collect())
    }

    /// One host, one network, or all of a set.
    fn targets(&mut self, text: &str, at: Location) -> Option<Vec<Target>> {
        let Some(set) = text.strip_prefix('$') else { return self.target(text, at).map(|target| vec![target]) };
        let Some(members) = self.sets.get(set) else {
            let known: Vec<&str> = self.sets.keys().map(String::as_str).collect();
            let help =
                if known.is_empty() { "there are no `sets:`".to_owned() } else { format!("sets are: {}", known.join(", ")) };
            return self.error(at, format!("there is no set named {set}"), Some(&help));
        };
        if members.is_empty() {
            return self.error(at, format!("the set {set} is empty"), Some("name at least one host or network in it"));
        }
        let members: Vec<Option<Target>> = members.iter().map(|member| self.target(&member.value, member.referenced)).collect();
        members.into_iter().collect()
    }

    fn target(&mut self, text: &str, at: Location) -> Option<Target> {
        if let Some(net) = network(text) {
            return Some((To::Net(net), None));
        }
        let (host, port) = match split_port(text) {
            Ok(parts) => parts,
            Err(port) => {
                return self.error(at, format!("{port:?} is no port"), Some("ports are 1 to 65535: api.example.com:8443"));
            }
        };
        if let Some(address) = policy::literal(host) {
            return Some((To::Net(address.into()), port));
        }
        match NamePattern::parse(host) {
            Ok(pattern) => Some((To::Name(pattern), port)),
            Err(error) => self.error(
                at,
                format!("{text:?} is no host: {error}"),
                Some("write api.example.com, \"*.example.com\" or 10.0.0.0/8"),
            ),
        }
    }

    fn refuse_shared(&mut self, targets: &[Target], wide: bool, at: Location) {
        for (to, _) in targets {
            let To::Name(pattern) = to else { continue };
            let Some(shared) = pattern.shared_suffix().filter(|_| !wide) else { continue };
            let whose = match shared {
                SharedSuffix::Public => "anybody can register a name",
                SharedSuffix::Provider => "a provider gives names to strangers",
            };
            self.note(
                at,
                format!("\"{pattern}\" covers a suffix under which {whose}"),
                Some("name the hosts, or write `wide: true` in the rule"),
            );
        }
    }

    fn ports(&mut self, ports: &[raw::Text], at: Location) -> Option<Ports> {
        let ranges: Vec<Option<PortRange>> = ports
            .iter()
            .map(|port| {
                let range = PortRange::parse(&port.value);
                if range.is_none() {
                    self.note(
                        port.referenced,
                        format!("{:?} is no port", port.value),
                        Some("write 443 or 6379-6381, from 1 to 65535"),
                    );
                }
                range
            })
            .collect();
        let ranges: Option<Vec<PortRange>> = ranges.into_iter().collect();
        match Ports::of(ranges?) {
            Some(ports) => Some(ports),
            None => self.error(at, "`ports:` is empty", Some("leave it out for 443")),
        }
    }

    fn buckets(&mut self, s3: &raw::S3, at: Location) -> Option<S3Rule> {
        if s3.buckets.is_empty() {
            return self.error(at, "`buckets:` is empty", Some("name at least one bucket"));
        }
        let buckets: Vec<Option<policy::BucketPattern>> = s3
            .buckets
            .iter()
            .map(|bucket| {
                let pattern = policy::BucketPattern::parse(&bucket.value);
                if pattern.is_none() {
                    self.note(
                        bucket.referenced,
                        format!("{:?} is no bucket name", bucket.value),
                        Some("small letters, digits, dots, hyphens and *"),
                    );
                }
                pattern
            })
            .collect();
        let buckets: Option<Vec<_>> = buckets.into_iter().collect();
        let regions =
            self.written("regions", &s3.regions, at).iter().map(|region| region.value.clone().into_boxed_str()).collect();
        Some(S3Rule { buckets: buckets?, regions })
    }

    fn role_of(&mut self, role: &raw::Text, draft: &mut Draft) -> Option<RoleId> {
        if role.value != policy::DEFAULT_ROLE && !self.roles.contains_key(&role.value) {
            let help = format!("add it under `roles:`, or use {}", policy::DEFAULT_ROLE);
            return self.error(role.referenced, format!("there is no role named {}", role.value), Some(&help));
        }
        draft.role(&role.value)
    }

    fn net(&mut self, net: &raw::Text) -> Option<IpNet> {
        let parsed = network(&net.value).or_else(|| policy::literal(&net.value).map(IpNet::from));
        if parsed.is_none() {
            return self.error(
                net.referenced,
                format!("{:?} is no network", net.value),
                Some("write 10.20.0.0/16 or \"fd00::/8\""),
            );
        }
        parsed
    }

    fn id(&mut self, id: &raw::Text, ids: &mut HashSet<String>) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if id.value.is_empty() || id.value.len() > 64 || !id.value.chars().all(plain) {
            return self.error(id.referenced, "an id is 1 to 64 letters, digits, `-`, `_` or `.`", None);
        }
        if !ids.insert(id.value.clone()) {
            return self.error(id.referenced, format!("the id {} is taken", id.value), Some("ids tell rules apart in records"));
        }
        Some(id.value.clone())
    }

    /// A list that narrows a rule. Written and empty it would widen it, which nobody means.
    fn written<'t>(&mut self, key: &str, list: &'t Option<Vec<raw::Text>>, at: Location) -> &'t [raw::Text] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            self.note(at, format!("`{key}:` is empty"), Some("name at least one, or leave the key out"));
        }
        list.as_deref().unwrap_or_default()
    }

    /// A date is its first instant in UTC; a time says its zone.
    fn instant(&mut self, text: &raw::Text) -> Option<UnixTime> {
        let day =
            text.value.parse::<Date>().ok().and_then(|date| date.to_zoned(TimeZone::UTC).ok()).map(|zoned| zoned.timestamp());
        match day.or_else(|| text.value.parse::<Timestamp>().ok()) {
            Some(instant) => Some(UnixTime(instant.as_second())),
            None => self.error(
                text.referenced,
                format!("{:?} is no date", text.value),
                Some("write 2027-03-31 or 2027-03-31T12:00:00Z"),
            ),
        }
    }
}

/// `10.0.0.0/8` and the like; host bits that are set make it no network.
fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().filter(|net| net.trunc() == *net)
}

/// A host and the port after its last colon; the error is what stands there instead.
fn split_port(text: &str) -> Result<(&str, Option<Ports>), &str> {
    let bracketed = text.starts_with('[');
    let Some((host, port)) =
        text.rsplit_once(':').filter(|(host, _)| if bracketed { host.ends_with(']') } else { !host.contains(':') })
    else {
        return Ok((text, None));
    };
    if port.starts_with("//") {
        return Ok((text, None));
    }
    let range = PortRange::parse(port).and_then(|range| Ports::of(vec![range]));
    range.map(|ports| (host, Some(ports))).ok_or(port)
}

fn protocol(written: raw::Protocol) -> Protocol {
    match written {
        raw::Protocol::Tls => Protocol::Tls,
        raw::Protocol::Http => Protocol::Http,
        raw::Protocol::Tcp => Protocol::Tcp,
        raw::Protocol::Any => Protocol::Any,
    }
}

pub(super) fn mode(written: raw::Mode) -> Mode {
    match written {
        raw::Mode::Audit => Mode::Audit,
        raw::Mode::Enforce => Mode::Enforce,
    }
}
