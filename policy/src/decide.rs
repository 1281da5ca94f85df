//! The three questions: [`Policy::admit`], [`Permit::vet`], [`Permit::confirm`]. Precedence, read aloud: egret's own
//! listeners are never reached; a deny rule beats every allow rule; of the allow rules the most specific is reported;
//! what no rule allows is denied. Audit turns a verdict on names into a note, and touches nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::{Class, embedded_ipv4};
use crate::matcher::Entry;
use crate::name::Name;
use crate::policy::{Policy, RoleId};
use crate::rule::{Mode, Protocol, Rule};
use crate::s3::S3Host;
use crate::target::{Host, Target};
use crate::verdict::{Denial, Permit, Reason, VettedAddr};

/// The most answers of one resolution that are looked at; a longer answer is cut here, not dialled further.
const MAX_ANSWERS: usize = 16;

/// Seconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    target: Target,
    pinned: Option<IpAddr>,
    role: RoleId,
    now: UnixTime,
}

/// What a client shows first on its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flight {
    /// A TLS ClientHello.
    Tls {
        /// Its server name.
        sni: Sni,
        /// Whether it offers Encrypted Client Hello, for real or as GREASE (RFC 9849); they look alike.
        ech: bool,
    },
    /// A ClientHello that cannot be read.
    Malformed,
    /// An HTTP/1 request.
    Http,
    /// Bytes that are neither.
    Opaque,
    /// Nothing yet: the server spoke first.
    ServerFirst,
    /// Nothing by the deadline, or the end.
    Silent,
}

/// The server name of a ClientHello (RFC 6066 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sni {
    /// No server name extension.
    Absent,
    /// One name.
    One(Name),
    /// Bytes that are no DNS name, escaped for people.
    Invalid(String),
    /// More than one entry.
    Many,
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
            self.refuse_own_listener(address, request.target.port, &request.target.to_string())?;
        }
        let denied = self.deny_rule(request).map(|rule| (self.mode_of(rule), denied_by(rule, &request.target.to_string())));
        if let Some((Mode::Enforce, denial)) = denied {
            return Err(denial);
        }
        let entry = self.best_allow(request);
        if entry.is_none() && self.mode == Mode::Enforce {
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
            mode: rule.and_then(|rule| rule.mode).unwrap_or(self.mode),
            would_deny: None,
        }
    }

    /// The most specific allow rule; one that enforces is taken before one that is itself in audit.
    fn best_allow(&self, request: &Request) -> Option<Entry> {
        let mut in_audit = None;
        for entry in self.entries(&request.target.host) {
            if self.misses(entry, request).is_some() {
                continue;
            }
            if self.allowing(entry).mode != Some(Mode::Audit) {
                return Some(entry);
            }
            in_audit.get_or_insert(entry);
        }
        in_audit
    }

    fn entries<'a>(&'a self, host: &'a Host) -> Box<dyn Iterator<Item = Entry> + 'a> {
        match host {
            Host::Name(name) => Box::new(self.allow.names(name, &self.rules)),
            Host::Address(address) => Box::new(self.allow.nets(*address)),
        }
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

    /// The deny rule that matches; one that enforces is taken before one in audit.
    fn deny_rule(&self, request: &Request) -> Option<&Rule> {
        match &request.target.host {
            Host::Name(name) => self.first_deny(self.deny.names(name, &self.rules), request),
            Host::Address(address) => self.first_deny(self.deny_nets(*address), request),
        }
    }

    fn first_deny(&self, entries: impl Iterator<Item = Entry>, request: &Request) -> Option<&Rule> {
        let mut matching = entries.filter(|entry| self.misses(*entry, request).is_none()).map(|entry| entry.rule(&self.rules));
        let first = matching.next()?;
        if self.mode_of(first) == Mode::Enforce {
            return Some(first);
        }
        matching.find(|rule| self.mode_of(rule) == Mode::Enforce).or(Some(first))
    }

    /// Deny rules for the address in every reading of it: as it is, and as the IPv4 address it embeds.
    fn deny_nets(&self, address: IpAddr) -> impl Iterator<Item = Entry> + '_ {
        let inner = embedded(address).into_iter().flat_map(|inner| self.deny.nets(inner));
        self.deny.nets(address).chain(inner)
    }

    fn mode_of(&self, rule: &Rule) -> Mode {
        rule.mode.unwrap_or(self.mode)
    }

    /// Refuses egret's own sockets in every reading of the address: as it is, and as the IPv4 address it embeds.
    fn refuse_own_listener(&self, address: IpAddr, port: u16, what: &str) -> Result<(), Denial> {
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

fn denied_by(rule: &Rule, what: &str) -> Denial {
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
        Denial::new(Reason::NoRule, detail, format!("add `- {name}{port}` under egress.allow"))
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

fn embedded(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded_ipv4(v6).map(IpAddr::V4),
    }
}

/// The second question.
impl Permit {
    /// The name to resolve; `None` for a literal address, which [`Permit::vet`] takes as its own answer.
    #[must_use]
    pub fn name_to_resolve(&self) -> Option<&Name> {
        self.target.host.name()
    }

    /// Which of the addresses may be dialled: of the first 16 answers those that pass, in their order. For a literal
    /// address the answers are not looked at.
    ///
    /// # Errors
    /// Nothing passed; the [`Denial`] is that of the first address.
    pub fn vet(&mut self, answers: &[IpAddr]) -> Result<Vec<VettedAddr>, Denial> {
        let literal = match self.target.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => self.pinned,
        };
        if let Some(address) = self.pinned.filter(|pinned| !answers.contains(pinned)) {
            // A rule in audit speaks of its name; only a policy in audit lets unlisted addresses through.
            let mode = if self.policy.mode == Mode::Audit { self.mode } else { Mode::Enforce };
            self.obey(mode, not_of_name(&self.target, address).by(self.rule()))?;
        }
        let candidates: Vec<IpAddr> = match literal {
            Some(address) => vec![address],
            None => answers.iter().copied().take(MAX_ANSWERS).collect(),
        };
        let mut first_denial = None;
        let mut vetted = Vec::with_capacity(candidates.len());
        for address in candidates {
            match self.judge(address) {
                Ok(()) => vetted.push(VettedAddr { socket: SocketAddr::new(address, self.target.port) }),
                Err(denial) => drop(first_denial.get_or_insert(denial)),
            }
        }
        if vetted.is_empty() { Err(first_denial.unwrap_or_else(|| no_answers(&self.target).by(self.rule()))) } else { Ok(vetted) }
    }

    fn judge(&mut self, address: IpAddr) -> Result<(), Denial> {
        let policy = Arc::clone(&self.policy);
        let what = format!("{} at {address}", self.target);
        policy.refuse_own_listener(address, self.target.port, &what).map_err(|denial| denial.by(self.rule()))?;
        let as_address = self.as_request(address);
        if let Some(rule) = policy.first_deny(policy.deny_nets(address), &as_address) {
            self.obey(policy.mode_of(rule), denied_by(rule, &what))?;
        }
        self.check_within(address)?;
        self.check_class(address)?;
        embedded(address).map_or(Ok(()), |inner| self.check_class(inner))
    }

    fn as_request(&self, address: IpAddr) -> Request {
        let target = Target { host: Host::Address(address), port: self.target.port };
        Request::new(target, self.role, self.now)
    }

    fn within(&self) -> &[ipnet::IpNet] {
        self.rule().map_or(&[], |rule| &rule.within)
    }

    fn check_within(&self, address: IpAddr) -> Result<(), Denial> {
        let within = self.within();
        if within.is_empty() || within.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        let detail =
            format!("{} at {address} is refused: its rule says where its answers lie, and this one does not", self.target);
        Err(Denial::new(Reason::AddressOutsideWithin, detail, "widen the rule's `within:` or mend the DNS answer")
            .by(self.rule()))
    }

    fn check_class(&self, address: IpAddr) -> Result<(), Denial> {
        let class = self.policy.class_of(address);
        let private = class == Class::Private && self.policy.private_answers && self.name_to_resolve().is_some();
        if class == Class::Global || private || self.is_covered(address) {
            return Ok(());
        }
        let detail = format!("{} at {address} is refused: {class} space needs a rule that names it", self.target);
        let help = match self.target.host {
            Host::Name(_) => format!("add `within: [{address}]` to the rule if the answer is right"),
            Host::Address(_) => format!("add `- {{ to: {address}, ports: [{}] }}` under egress.allow", self.target.port),
        };
        Err(Denial::new(Reason::AddressClass, detail, help).by(self.rule()))
    }

    /// Whether this rule's `within`, or an address rule in force for this port and role, names the space.
    fn is_covered(&self, address: IpAddr) -> bool {
        let request = self.as_request(address);
        self.within().iter().any(|net| net.contains(&address))
            || self.policy.allow.nets(address).any(|entry| self.policy.misses(entry, &request).is_none())
    }
}

fn not_of_name(target: &Target, address: IpAddr) -> Denial {
    let detail = format!("{address} with the SNI of {target} is refused: the name does not resolve to that address");
    Denial::new(Reason::AddressNotOfName, detail, "let the client ask by name, or allow the address itself")
}

fn no_answers(target: &Target) -> Denial {
    let detail = format!("{target} has no address");
    Denial::new(Reason::AddressClass, detail, "mend the DNS answer")
}

/// The third question.
impl Permit {
    /// What the client shows first, against what was permitted. Nothing the client sent has reached the upstream.
    ///
    /// # Errors
    /// The [`Denial`] for the record; the client has had its yes already and sees a close.
    pub fn confirm(&mut self, flight: &Flight) -> Result<(), Denial> {
        match (self.protocol, flight) {
            (Protocol::Tcp, _)
            | (Protocol::Any, Flight::Http | Flight::Opaque | Flight::ServerFirst | Flight::Silent)
            | (Protocol::Http, Flight::Http) => Ok(()),
            (Protocol::Tls | Protocol::Any, Flight::Tls { sni, ech }) => self.confirm_sni(sni, *ech),
            (Protocol::Tls | Protocol::Any, Flight::Malformed) => self.refuse_flight(
                Reason::HelloMalformed,
                "the ClientHello cannot be read",
                "mend the client, or write `as: tcp`",
            ),
            (Protocol::Tls | Protocol::Http, Flight::Silent) => self.refuse_flight(
                Reason::NoFirstFlight,
                "the client showed nothing in time",
                "write `as: tcp` if that is its protocol",
            ),
            (Protocol::Tls, _) => {
                self.refuse_flight(Reason::NotTls, "the rule wants TLS and this is not", "write `as: any` or `as: tcp`")
            }
            (Protocol::Http, Flight::Tls { sni, ech }) => {
                self.refuse_flight(Reason::NotHttp, "the rule wants cleartext HTTP and this is TLS", "write `as: tls`")?;
                self.confirm_sni(sni, *ech)
            }
            (Protocol::Http, _) => self.refuse_flight(
                Reason::NotHttp,
                "the rule wants cleartext HTTP and this is not",
                "write `as: any` or `as: tcp`",
            ),
        }
    }

    /// An HTTP request inside a tunnel, or over a forward connection, against the permitted host.
    ///
    /// # Errors
    /// [`Reason::HostMismatch`]; audit does not relax it, as with a differing SNI.
    pub fn confirm_host(&self, host: &Target) -> Result<(), Denial> {
        if *host == self.target || self.pinned.is_some_and(|ip| host.host == Host::Address(ip) && host.port == self.target.port) {
            return Ok(());
        }
        let detail = format!("a request for {host} inside the connection to {} is refused", self.target);
        Err(Denial::new(Reason::HostMismatch, detail, "ask the proxy for that host itself").by(self.rule()))
    }

    fn confirm_sni(&mut self, sni: &Sni, ech: bool) -> Result<(), Denial> {
        let Host::Name(name) = &self.target.host else { return self.confirm_sni_at_address(sni) };
        match sni {
            Sni::One(shown) if shown == name => Ok(()),
            Sni::One(shown) => Err(mismatch(&self.target, shown, ech).by(self.rule())),
            Sni::Absent => self.refuse_flight(
                Reason::SniMissing,
                "its ClientHello names no server",
                "write `as: tcp` if the client cannot send SNI",
            ),
            Sni::Invalid(text) => {
                Err(self.flight(Reason::SniInvalid, &format!("its SNI {text} is no DNS name"), "mend the client"))
            }
            Sni::Many => Err(self.flight(Reason::SniAmbiguous, "its ClientHello names two servers", "mend the client")),
        }
    }

    /// At an address allowed by an address rule any server name will do, but none that a deny rule names.
    fn confirm_sni_at_address(&mut self, sni: &Sni) -> Result<(), Denial> {
        let Sni::One(shown) = sni else { return Ok(()) };
        let target = Target { host: Host::Name(shown.clone()), port: self.target.port };
        let policy = Arc::clone(&self.policy);
        let what = format!("{} with SNI {shown}", self.target);
        let Some(rule) = policy.deny_rule(&Request::new(target, self.role, self.now)) else { return Ok(()) };
        self.obey(policy.mode_of(rule), denied_by(rule, &what))
    }

    fn refuse_flight(&mut self, reason: Reason, what: &str, help: &str) -> Result<(), Denial> {
        let denial = self.flight(reason, what, help);
        self.obey(self.mode, denial)
    }

    fn flight(&self, reason: Reason, what: &str, help: &str) -> Denial {
        Denial::new(reason, format!("the connection to {} is refused: {what}", self.target), help).by(self.rule())
    }
}

fn mismatch(target: &Target, shown: &Name, ech: bool) -> Denial {
    let hint = if ech { " (it offers ECH: this is the outer name)" } else { "" };
    let detail = format!("the connection to {target} is refused: its SNI is {shown}{hint}");
    Denial::new(Reason::SniMismatch, detail, "ask the proxy for the host that the SNI names")
}

#[cfg(test)]
mod tests;
