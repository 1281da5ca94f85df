//! The first question, [`Policy::admit`]. Precedence, read aloud: egret's own listeners are never reached; a deny rule
//! beats every allow rule; of the allow rules the most specific is reported; what no rule allows is denied. Audit turns
//! a verdict on names into a note, and touches nothing else. The second and third are the permit's, in `permit`.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::embedded_ipv4;
use crate::matcher::Entry;
use crate::name::Name;
use crate::policy::{Policy, RoleId};
use crate::rule::{Mode, Protocol, Rule};
use crate::s3::S3Host;
use crate::target::{Host, Target};
use crate::verdict::{Denial, Permit, Reason};

/// Seconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    target: Target,
    pub(crate) pinned: Option<IpAddr>,
    role: RoleId,
    now: UnixTime,
}

impl Request {
    /// A request as the client made it.
    #[must_use]
    pub fn new(target: Target, role: RoleId, now: UnixTime) -> Self {
        Self { target, pinned: None, role, now }
    }

    /// The same request to a literal address, judged by the name that the client shows for it: the name must be
    /// allowed, and must resolve to the address.
    #[must_use]
    pub fn shown(self, name: Name) -> Self {
        let pinned = match self.target.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => self.pinned,
        };
        let target = Target { host: Host::Name(name), port: self.target.port };
        Self { target, pinned, ..self }
    }

    /// Whom the client wants to reach.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Who is asking.
    #[must_use]
    pub fn role(&self) -> RoleId {
        self.role
    }
}

impl Policy {
    /// The first question: may this be asked for at all? No DNS query has been made yet, and none is made for what
    /// is refused here.
    ///
    /// # Errors
    /// The [`Denial`] for the client, the record and the metrics.
    pub fn admit(self: &Arc<Self>, request: &Request) -> Result<Permit, Denial> {
        if let Host::Address(address) = request.target.host {
            self.refuse_own_listener(address, request.target.port, &request.target)?;
        }
        let denied = self.deny_rule(request).map(|rule| (self.mode_of(rule, request.now), denied_by(rule, &request.target)));
        if let Some((Mode::Enforce, denial)) = denied {
            return Err(denial);
        }
        let entry = self.best_allow(request);
        if entry.is_none() && self.mode_at(request.now) == Mode::Enforce {
            return Err(self.why_not(request));
        }
        let mut permit = self.permit(request, entry);
        permit.would_deny = denied.map(|(_, denial)| denial).or_else(|| self.only_by_audit(request, entry));
        Ok(permit)
    }

    /// What audit alone lets through: a request without a rule, or with a rule that is itself in audit.
    fn only_by_audit(&self, request: &Request, entry: Option<Entry>) -> Option<Denial> {
        let Some(entry) = entry else { return Some(self.why_not(request)) };
        let rule = self.allowing(entry);
        (rule.mode == Some(Mode::Audit)).then(|| audit_rule(request, rule))
    }

    /// Whether this literal address, which no address rule allows, may yet be allowed by the name that the client
    /// shows in its ClientHello (rule: the name is allowed, and its resolution holds the address).
    #[must_use]
    pub fn wants_name(&self, request: &Request) -> bool {
        let Host::Address(address) = request.target.host else { return false };
        let port = request.target.port;
        self.best_allow(request).is_none()
            && !self.is_own_listener(address, port)
            && self.deny_rule(request).is_none()
            && self.has_tls_names(port, request.role)
    }

    fn permit(self: &Arc<Self>, request: &Request, entry: Option<Entry>) -> Permit {
        let rule = entry.map(|entry| self.allowing(entry));
        let port = request.target.port;
        Permit {
            policy: Arc::clone(self),
            target: request.target.clone(),
            pinned: request.pinned,
            role: request.role,
            now: request.now,
            rule: entry.map(|entry| entry.rule),
            protocol: rule.map_or_else(|| Protocol::of_port(port), |rule| rule.protocol_on(port)),
            mode: rule.and_then(|rule| rule.mode).unwrap_or(self.mode_at(request.now)),
            would_deny: None,
        }
    }

    /// The most specific allow rule; one that enforces is taken before one that is itself in audit, and of rules with
    /// the very same target the one that asks for more.
    fn best_allow(&self, request: &Request) -> Option<Entry> {
        let (mut best, mut in_audit) = (None, None);
        for entry in self.entries(&request.target.host) {
            if best.is_some_and(|best| !self.same_target(best, entry)) {
                break;
            }
            if self.misses(entry, request).is_some() {
                continue;
            }
            let audit = self.allowing(entry).mode == Some(Mode::Audit);
            if !audit && !entry.shared && best.is_none() {
                return Some(entry);
            }
            let kept = if audit { &mut in_audit } else { &mut best };
            *kept = Some(kept.map_or(entry, |kept| self.stricter(kept, entry, request.target.port)));
        }
        best.or(in_audit)
    }

    fn same_target(&self, one: Entry, other: Entry) -> bool {
        one.of(&self.rules).0 == other.of(&self.rules).0
    }

    /// Of two entries the first, unless the second has the same target and asks for more.
    fn stricter(&self, first: Entry, second: Entry, port: u16) -> Entry {
        let demand = |entry: Entry| (self.allowing(entry).within.is_empty(), self.allowing(entry).protocol_on(port));
        if self.same_target(first, second) && demand(second) < demand(first) { second } else { first }
    }

    fn entries<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = Entry> + 'a {
        let (name, address) = match host {
            Host::Name(name) => (Some(name), None),
            Host::Address(address) => (None, Some(*address)),
        };
        let names = name.into_iter().flat_map(|name| self.allow.names(name, &self.rules));
        names.chain(address.into_iter().flat_map(|address| self.allow.nets(address)))
    }

    /// Why a rule that speaks of the host does not speak of this request.
    pub(crate) fn misses(&self, entry: Entry, request: &Request) -> Option<Reason> {
        let rule = entry.rule(&self.rules);
        let (_, ports) = entry.of(&self.rules);
        if !ports.contains(request.target.port) {
            return Some(Reason::PortNotListed);
        }
        if !rule.is_for(request.role) {
            return Some(Reason::RoleNotListed);
        }
        rule.is_expired(request.now).then_some(Reason::RuleExpired)
    }

    /// The deny rule that binds against this request, whatever allows it: for what is reached without being admitted.
    #[must_use]
    pub fn denies(&self, request: &Request) -> Option<Denial> {
        let rule = self.deny_rule(request).filter(|rule| self.mode_of(rule, request.now) == Mode::Enforce)?;
        Some(denied_by(rule, &request.target))
    }

    /// The deny rule that matches; one that enforces is taken before one in audit.
    pub(crate) fn deny_rule(&self, request: &Request) -> Option<&Rule> {
        match &request.target.host {
            Host::Name(name) => self.first_deny(self.deny.names(name, &self.rules), request),
            Host::Address(address) => self.first_deny(self.deny_nets(*address), request),
        }
    }

    pub(crate) fn first_deny(&self, entries: impl Iterator<Item = Entry>, request: &Request) -> Option<&Rule> {
        let mut matching = entries.filter(|entry| self.misses(*entry, request).is_none()).map(|entry| entry.rule(&self.rules));
        let first = matching.next()?;
        if self.mode_of(first, request.now) == Mode::Enforce {
            return Some(first);
        }
        matching.find(|rule| self.mode_of(rule, request.now) == Mode::Enforce).or(Some(first))
    }

    /// Deny rules for the address in every reading of it: as it is, and as the IPv4 address it embeds.
    pub(crate) fn deny_nets(&self, address: IpAddr) -> impl Iterator<Item = Entry> + '_ {
        let inner = embedded(address).into_iter().flat_map(|inner| self.deny.nets(inner));
        self.deny.nets(address).chain(inner)
    }

    pub(crate) fn mode_of(&self, rule: &Rule, now: UnixTime) -> Mode {
        rule.mode.unwrap_or(self.mode_at(now))
    }

    /// Refuses egret's own sockets in every reading of the address: as it is, and as the IPv4 address it embeds.
    pub(crate) fn refuse_own_listener(&self, address: IpAddr, port: u16, what: &impl Display) -> Result<(), Denial> {
        let own = |ip| self.is_own_listener(ip, port);
        if own(address) || embedded(address).is_some_and(own) {
            let detail = format!("{what} is refused: this is egret itself");
            return Err(Denial::new(
                Reason::OwnListener,
                detail,
                "ask for a host; nothing opens egret's own listeners to its clients",
            ));
        }
        Ok(())
    }
}

pub(crate) fn denied_by(rule: &Rule, what: &impl Display) -> Denial {
    let detail = format!("{what} is denied by rule {}{}", rule.id(), note_of(rule));
    Denial::new(Reason::DenyRule, detail, "deny beats allow: remove or narrow that rule").by(Some(rule))
}

fn note_of(rule: &Rule) -> String {
    rule.note().map(|note| format!(" ({note})")).unwrap_or_default()
}

/// Why nothing allows it: the rule that came nearest, or none.
impl Policy {
    fn why_not(&self, request: &Request) -> Denial {
        let nearest = self.entries(&request.target.host).find_map(|entry| Some((entry, self.misses(entry, request)?)));
        if let Some((entry, reason)) = nearest {
            return self.nearly(request, entry, reason);
        }
        match &request.target.host {
            Host::Address(address) => not_listed(*address, request.target.port),
            Host::Name(name) if self.allow.has_buckets() && S3Host::of(name) == Some(S3Host::PathStyle) => path_style(name),
            Host::Name(name) => self.no_rule(request, name),
        }
    }

    fn nearly(&self, request: &Request, entry: Entry, reason: Reason) -> Denial {
        let rule = entry.rule(&self.rules);
        let (to, ports) = entry.of(&self.rules);
        let (target, role) = (&request.target, self.role_name(request.role));
        let (detail, help) = match reason {
            Reason::PortNotListed => (
                format!("{target} is refused: the rule for {to} lists port {ports}"),
                format!("add {} to its ports", target.port),
            ),
            Reason::RoleNotListed => (
                format!("{target} is refused for role {role}: the rule for {to} is for other roles"),
                format!("add {role} to its `for:`"),
            ),
            _ => (format!("{target} is refused: the rule for {to} has expired"), "renew or remove its `expires:`".to_owned()),
        };
        Denial::new(reason, detail, help).by(Some(rule))
    }

    fn no_rule(&self, request: &Request, name: &Name) -> Denial {
        let port = match request.target.port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let detail = format!("{} is refused for role {}: no rule names it", request.target, self.role_name(request.role));
        let line = match name.is_loopback() {
            true => format!("{{ to: \"{name}{port}\", within: [127.0.0.1] }}"),
            false => format!("{name}{port}"),
        };
        Denial::new(Reason::NoRule, detail, format!("add `- {line}` under egress.allow"))
    }
}

fn audit_rule(request: &Request, rule: &Rule) -> Denial {
    let detail = format!("{} is let through by a rule in audit", request.target);
    Denial::new(Reason::AuditRule, detail, "remove `mode: audit` from the rule to allow it for good").by(Some(rule))
}

fn not_listed(address: IpAddr, port: u16) -> Denial {
    let detail = format!("{address} port {port} is refused: a literal address needs an address rule");
    let help = format!("let the client ask by name, or add `- {{ to: {address}, ports: [{port}] }}` under egress.allow");
    Denial::new(Reason::AddressNotListed, detail, help)
}

fn path_style(name: &Name) -> Denial {
    let detail = format!("{name} is refused: a path-style S3 request hides its bucket");
    Denial::new(Reason::S3PathStyle, detail, "use virtual-hosted addressing (BUCKET.s3.REGION.amazonaws.com)")
}

pub(crate) fn embedded(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded_ipv4(v6).map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests;
