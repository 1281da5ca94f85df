//! Rules as written to rules as meant: hosts, networks, sets, ports, dates. Every error names the word at fault and
//! what to write instead, and the next rule is read all the same.

use std::collections::HashSet;

use egret_policy as policy;
use egret_policy::{
    Draft, Effect, Mode, NamePattern, PortRange, Ports, Protocol, RoleId, RuleDraft, S3Rule, SharedSuffix, To, UnixTime,
};
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Reader;
use super::diagnose::{Code, Diagnostic};
use super::read::Fields;
use super::yaml::{Node, Place, Value};

/// The keys of a rule.
pub(super) const RULE: &[&str] = &["to", "s3", "ports", "for", "as", "within", "mode", "expires", "note", "id", "wide"];
/// The keys of `s3:`.
pub(super) const S3: &[&str] = &["buckets", "regions"];

pub(super) const PROTOCOLS: &[(&str, Protocol)] =
    &[("tls", Protocol::Tls), ("http", Protocol::Http), ("tcp", Protocol::Tcp), ("any", Protocol::Any)];
pub(super) const MODES: &[(&str, Mode)] = &[("audit", Mode::Audit), ("enforce", Mode::Enforce)];

/// The most targets that all uses of sets may stand for together: a set is copied into each rule that uses it.
const MAX_EXPANDED: usize = 250_000;

/// A host or network of a rule, with the port that was written beside it.
type Target = (To, Option<Ports>);

/// A set, its members read once.
pub(super) struct Set {
    at: Place,
    members: Option<Vec<Target>>,
    used: bool,
}

/// A date is its first instant in UTC; a time says its zone.
pub(crate) fn instant(text: &str) -> Option<UnixTime> {
    // The library would also read a day out of a longer text, and days in other forms.
    let day = Some(text).filter(|text| text.len() == "2027-03-31".len()).and_then(|text| text.parse::<Date>().ok());
    let midnight = day.and_then(|day| day.to_zoned(TimeZone::UTC).ok()).map(|zoned| zoned.timestamp());
    let instant = midnight.or_else(|| text.parse::<Timestamp>().ok())?;
    Some(UnixTime(instant.as_second()))
}

impl<'t> Reader<'t> {
    /// All sets, whether rules use them or not.
    pub(super) fn sets(&mut self, node: Option<&Node<'t>>) {
        let Some(sets) = node.and_then(|node| self.found.any_map(node, "`sets:`")) else { return };
        for (name, key, node) in sets.iter() {
            let members = self.found.list(node, &format!("the set {name}"));
            if members.is_some_and(<[_]>::is_empty) {
                let help = "name at least one host or network in it";
                self.found.note(Code::EmptyList, key.at, format!("the set {name} is empty"), Some(help));
            }
            let members = members.and_then(|members| {
                let read: Vec<Option<Target>> = members.iter().map(|member| self.member(member)).collect();
                read.into_iter().collect()
            });
            self.sets.insert(name.to_owned(), Set { at: key.at, members, used: false });
        }
    }

    fn member(&mut self, node: &Node<'_>) -> Option<Target> {
        let text = self.found.text(node, "a member of a set")?;
        self.target(text, node.at)
    }

    /// The sets that no rule uses.
    pub(super) fn unused_sets(&mut self) {
        for (name, set) in self.sets.iter().filter(|(_, set)| !set.used) {
            let message = format!("no rule uses the set {name}");
            let help = format!("write `to: ${name}` in a rule, or remove it");
            self.lints.push(Diagnostic::warning(Code::UnusedSet, set.at, message, Some(&help)));
        }
    }

    /// All rules of one list of the `egress:` section.
    pub(super) fn rules(&mut self, node: Option<&Node<'t>>, effect: Effect, draft: &mut Draft) {
        let what = match effect {
            Effect::Allow => "`allow:`",
            Effect::Deny => "`deny:`",
        };
        let Some(rules) = node.and_then(|node| self.found.list(node, what)) else { return };
        for (at, node) in (1u32..).zip(rules) {
            let Some(rule) = self.rule(node, effect, draft).map(|rule| self.named(rule, at)) else { continue };
            match effect {
                Effect::Allow => draft.allow(rule),
                Effect::Deny => draft.deny(rule),
            }
            self.rule_places.push(node.at);
        }
    }

    /// The rules of a preset bear its name, and no line of the user's file.
    fn named(&self, rule: RuleDraft, at: u32) -> RuleDraft {
        let Some(prefix) = self.prefix else { return rule };
        let id = rule.id.unwrap_or_else(|| at.to_string());
        RuleDraft { id: Some(format!("{prefix}/{id}")), line: 0, ..rule }
    }

    fn rule(&mut self, node: &Node<'t>, effect: Effect, draft: &mut Draft) -> Option<RuleDraft> {
        let line = node.at.line;
        match &node.value {
            Value::Text { text, .. } if !node.is_null() => {
                let targets = self.targets(text, node.at)?;
                self.refuse_shared(&targets, effect == Effect::Deny, node.at);
                Some(RuleDraft { line, ..RuleDraft::new(targets) })
            }
            Value::Map { .. } => {
                let fields = self.found.map(node, "a rule", RULE)?;
                // Everything is read before anything is given up, so that all mistakes are told.
                let targets = self.long_targets(fields);
                let wide = fields.get("wide").and_then(|wide| self.found.flag(wide, "`wide:`")).unwrap_or(false);
                let rule = RuleDraft { line, ..self.details(fields, targets.clone().unwrap_or_default(), draft) };
                let to = fields.get("to").map_or(node.at, |to| to.at);
                self.refuse_shared(&targets?, wide || effect == Effect::Deny, to);
                self.lint_rule(fields, &rule, effect, wide);
                Some(rule)
            }
            Value::Refused => None,
            Value::Text { .. } | Value::List { .. } => {
                let help = "write api.example.com:443, or a mapping with `to:`";
                let what = if node.is_null() { "nothing" } else { "a list" };
                self.found.refuse(
                    Code::WrongType,
                    node.at,
                    format!("a rule is a host or a mapping, and this is {what}"),
                    Some(help),
                )
            }
        }
    }

    fn details(&mut self, fields: Fields<'_, 't>, to: Vec<Target>, draft: &mut Draft) -> RuleDraft {
        let roles = self.narrowing("for", fields).iter().filter_map(|role| self.role_of(role, draft)).collect();
        let within = self.narrowing("within", fields).iter().filter_map(|net| self.net(net, "`within:`")).collect();
        RuleDraft {
            id: fields.get("id").and_then(|id| self.id(id)),
            roles,
            protocol: fields.get("as").and_then(|word| self.found.word(word, "`as:`", PROTOCOLS)),
            within,
            mode: fields.get("mode").and_then(|word| self.found.word(word, "`mode:`", MODES)),
            expires: fields.get("expires").and_then(|date| self.instant(date, "`expires:`")),
            note: fields.get("note").and_then(|note| self.found.text(note, "`note:`")).map(one_line),
            ..RuleDraft::new(to)
        }
    }

    fn long_targets(&mut self, fields: Fields<'_, 't>) -> Option<Vec<Target>> {
        let at = fields.at;
        let ports = fields.get("ports").map(|ports| self.ports(ports));
        let targets = match (fields.get("to"), fields.get("s3")) {
            (Some(to), None) => self.found.text(to, "`to:`").and_then(|text| self.targets(text, to.at)),
            (None, Some(s3)) => self.buckets(s3).map(|buckets| vec![(To::S3(buckets), None)]),
            (None, None) => {
                let help = "write `to: api.example.com`";
                self.found.refuse(Code::MissingKey, at, "a rule needs `to:` or `s3:`", Some(help))
            }
            (Some(_), Some(_)) => {
                self.found.refuse(Code::Conflict, at, "a rule has `to:` or `s3:`, not both", Some("make two rules"))
            }
        };
        let targets = targets?;
        let Some(ports) = ports else { return Some(targets) };
        let ports = ports?;
        if targets.iter().any(|(_, own)| own.is_some()) {
            let message = "the port is written twice, in `to:` and in `ports:`";
            return self.found.refuse(Code::Conflict, at, message, Some("write it in one place"));
        }
        Some(targets.into_iter().map(|(to, _)| (to, Some(ports.clone()))).collect())
    }

    /// One host, one network, or all of a set.
    fn targets(&mut self, text: &str, at: Place) -> Option<Vec<Target>> {
        let Some(name) = text.strip_prefix('$') else { return self.target(text, at).map(|target| vec![target]) };
        if let Some(set) = self.sets.get_mut(name) {
            set.used = true;
            self.expanded += set.members.as_ref().map_or(0, Vec::len);
            if self.expanded <= MAX_EXPANDED {
                return set.members.clone();
            }
            let help = "name the set in one rule with all its roles and ports, instead of in many";
            let message = format!("the sets of this policy stand for more than {MAX_EXPANDED} targets");
            return self.found.refuse(Code::Conflict, at, message, Some(help));
        }
        let known: Vec<&str> = self.sets.keys().map(String::as_str).collect();
        let help = match super::read::nearest(name, &known) {
            Some(near) => format!("did you mean ${near}?"),
            None if known.is_empty() => "there are no `sets:`".to_owned(),
            None => format!("sets are: {}", super::read::some_of(&known)),
        };
        self.found.refuse(Code::UnknownName, at, format!("there is no set named {name}"), Some(&help))
    }

    fn target(&mut self, text: &str, at: Place) -> Option<Target> {
        if let Some(net) = self.written_net(text, at)? {
            return Some((To::Net(net), None));
        }
        let (host, port) = match split_port(text) {
            Ok(parts) => parts,
            Err(port) => {
                let help = "ports are 1 to 65535: api.example.com:8443";
                return self.found.refuse(Code::BadValue, at, format!("{port:?} is no port"), Some(help));
            }
        };
        if let Some(address) = policy::literal(host) {
            return Some((To::Net(address.into()), port));
        }
        match NamePattern::parse(host) {
            Ok(pattern) => Some((To::Name(pattern), port)),
            Err(error) => {
                let help = "write api.example.com, \"*.example.com\" or 10.0.0.0/8";
                self.found.refuse(Code::BadValue, at, format!("{text:?} is no host: {error}"), Some(help))
            }
        }
    }

    /// A network, if the text is one; the outer `None` if it is one with host bits, which has been noted.
    fn written_net(&mut self, text: &str, at: Place) -> Option<Option<IpNet>> {
        match text.parse::<IpNet>() {
            Ok(net) if net.trunc() == net => Some(Some(net)),
            Ok(net) => {
                let help = format!("write {} for the network, or {} for the address", net.trunc(), net.addr());
                self.found.refuse(Code::BadValue, at, format!("{text:?} is an address inside its network"), Some(&help))
            }
            Err(_) => Some(None),
        }
    }

    fn refuse_shared(&mut self, targets: &[Target], wide: bool, at: Place) {
        for (to, _) in targets {
            let To::Name(pattern) = to else { continue };
            let Some(shared) = pattern.shared_suffix().filter(|_| !wide) else { continue };
            let whose = match shared {
                SharedSuffix::Public => "anybody can register a name",
                SharedSuffix::Provider => "a provider gives names to strangers",
            };
            let message = format!("\"{pattern}\" covers a suffix under which {whose}");
            self.found.note(Code::SharedSuffix, at, message, Some("name the hosts, or write `wide: true` in the rule"));
        }
    }

    fn ports(&mut self, node: &Node<'_>) -> Option<Ports> {
        let ports = self.found.list(node, "`ports:`")?;
        let mut ranges = Vec::with_capacity(ports.len());
        for port in ports {
            let range = self.found.text(port, "a port").map(PortRange::parse);
            if range == Some(None) {
                let help = "write 443 or 6379-6381, from 1 to 65535";
                self.found.note(Code::BadValue, port.at, "this is no port", Some(help));
            }
            ranges.push(range.flatten());
        }
        let ranges: Option<Vec<PortRange>> = ranges.into_iter().collect();
        match Ports::of(ranges?) {
            Some(ports) => Some(ports),
            None => {
                self.found.refuse(Code::EmptyList, node.at, "`ports:` is empty", Some("name at least one, or leave the key out"))
            }
        }
    }

    fn buckets(&mut self, node: &Node<'t>) -> Option<S3Rule> {
        let fields = self.found.map(node, "`s3:`", S3)?;
        let Some(buckets) = fields.get("buckets") else {
            let help = "write `buckets: [acme-reports]`";
            return self.found.refuse(Code::MissingKey, node.at, "`s3:` needs `buckets:`", Some(help));
        };
        let listed = self.found.list(buckets, "`buckets:`")?;
        if listed.is_empty() {
            return self.found.refuse(Code::EmptyList, buckets.at, "`buckets:` is empty", Some("name at least one bucket"));
        }
        let buckets: Vec<Option<policy::BucketPattern>> = listed.iter().map(|bucket| self.bucket(bucket)).collect();
        let regions = self.narrowing("regions", fields).iter().filter_map(|region| self.found.text(region, "a region"));
        let regions = regions.map(Box::from).collect();
        Some(S3Rule { buckets: buckets.into_iter().collect::<Option<_>>()?, regions })
    }

    fn bucket(&mut self, node: &Node<'_>) -> Option<policy::BucketPattern> {
        let text = self.found.text(node, "a bucket")?;
        let help = "small letters, digits, dots, hyphens and *";
        policy::BucketPattern::parse(text)
            .or_else(|| self.found.refuse(Code::BadValue, node.at, format!("{text:?} is no bucket name"), Some(help)))
    }

    fn role_of(&mut self, node: &Node<'_>, draft: &mut Draft) -> Option<RoleId> {
        let name = self.known_role(node)?;
        self.used_roles.insert(name.to_owned());
        draft.role(name)
    }

    /// The name of a role that exists.
    pub(super) fn known_role<'n>(&mut self, node: &'n Node<'_>) -> Option<&'n str> {
        let name = self.found.text(node, "a role")?;
        if name == policy::DEFAULT_ROLE || self.roles.iter().any(|role| role == name) {
            return Some(name);
        }
        let known: Vec<&str> = self.roles.iter().map(String::as_str).collect();
        let help = match super::read::nearest(name, &known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("add it under `roles:`, or use {}", policy::DEFAULT_ROLE),
        };
        self.found.refuse(Code::UnknownName, node.at, format!("there is no role named {name}"), Some(&help))
    }

    /// An address or a network.
    pub(super) fn net(&mut self, node: &Node<'_>, what: &str) -> Option<IpNet> {
        let text = self.found.text(node, what)?;
        if let Some(net) = self.written_net(text, node.at)?.or_else(|| policy::literal(text).map(IpNet::from)) {
            return Some(net);
        }
        let help = "write 10.20.0.0/16 or \"fd00::/8\"";
        self.found.refuse(Code::BadValue, node.at, format!("{text:?} is no address or network"), Some(help))
    }

    fn id(&mut self, node: &Node<'_>) -> Option<String> {
        let id = self.found.text(node, "`id:`")?;
        if !super::read::is_label(id) {
            let message = "an id is 1 to 64 letters, digits, `-`, `_` or `.`";
            return self.found.refuse(Code::BadValue, node.at, message, Some("leave it out for a hash of the rule"));
        }
        if !self.ids.insert(id.to_owned()) {
            let help = "ids tell rules apart in records";
            return self.found.refuse(Code::Conflict, node.at, format!("the id {id} is taken"), Some(help));
        }
        Some(id.to_owned())
    }

    /// A list that narrows a rule. Written and empty it would widen it, which nobody means.
    fn narrowing<'n>(&mut self, key: &str, fields: Fields<'n, 't>) -> &'n [Node<'t>] {
        let Some(node) = fields.get(key) else { return &[] };
        let list = self.found.list(node, &format!("`{key}:`")).unwrap_or_default();
        if matches!(&node.value, Value::List { items, .. } if items.is_empty()) {
            let help = "name at least one, or leave the key out";
            self.found.note(Code::EmptyList, node.at, format!("`{key}:` is empty"), Some(help));
        }
        list
    }

    /// A date, as [`instant`] reads it.
    pub(super) fn instant(&mut self, node: &Node<'_>, what: &str) -> Option<UnixTime> {
        let text = self.found.text(node, what)?;
        match instant(text) {
            Some(instant) => Some(instant),
            None => {
                let help = "write 2027-03-31 or 2027-03-31T12:00:00Z";
                self.found.refuse(Code::BadValue, node.at, format!("{text:?} is no date"), Some(help))
            }
        }
    }

    /// What is valid in a rule and yet worth a word.
    fn lint_rule(&mut self, fields: Fields<'_, 't>, rule: &RuleDraft, effect: Effect, wide: bool) {
        if wide && rule.note.is_none() {
            let help = "add a `note:` that says who needs it";
            let message = "a rule for names that strangers share says nothing of its reason";
            self.lints.push(Diagnostic::warning(Code::WideWithoutNote, fields.at, message, Some(help)));
        }
        let names_none = !rule.to.iter().any(|(to, _)| !matches!(to, To::Net(_)));
        for (key, idle) in [("within", effect == Effect::Deny || names_none), ("as", effect == Effect::Deny)] {
            let Some(node) = fields.get(key).filter(|_| idle) else { continue };
            let whose = if effect == Effect::Deny { "a deny rule" } else { "a rule for addresses" };
            let message = format!("`{key}:` changes nothing in {whose}");
            self.lints.push(Diagnostic::warning(Code::NoEffect, node.at, message, Some("remove it")));
        }
        if rule.mode == Some(Mode::Audit) && rule.expires.is_none() && effect == Effect::Allow {
            let message = "this rule stays in audit until somebody remembers it";
            self.lints.push(Diagnostic::remark(Code::AuditWithoutEnd, fields.at, message, Some("add `expires:`")));
        }
    }
}

/// A note stands in answers, records and on terminals: one line, nothing that steers.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// The ids that rules have been given.
pub(super) type Ids = HashSet<String>;

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
