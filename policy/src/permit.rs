//! The second and the third question, which a permit answers: which addresses may be dialled ([`Permit::vet`]), and
//! whether what the client shows first agrees with what was permitted ([`Permit::confirm`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::address::Class;
use crate::decide::{Request, UnixTime, denied_by, embedded};
use crate::line::RuleLine;
use crate::name::Name;
use crate::policy::Policy;
use crate::rule::{Mode, Protocol};
use crate::target::{Host, Target};
use crate::verdict::{Denial, Permit, Reason, VettedAddr};

/// The most answers of one resolution that are looked at; a longer answer is cut here, not dialled further.
const MAX_ANSWERS: usize = 16;

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
            self.obey(self.mode_for_others(), not_of_name(&self.target, address).by(self.rule()))?;
        }
        let candidates = literal.as_ref().map_or(answers, std::slice::from_ref);
        let candidates = &candidates[..candidates.len().min(MAX_ANSWERS)];
        let mut first_denial = None;
        let mut vetted = Vec::with_capacity(candidates.len());
        for &address in candidates {
            match self.judge(address) {
                Ok(()) => vetted.push(VettedAddr { socket: SocketAddr::new(address, self.target.port) }),
                Err(denial) => drop(first_denial.get_or_insert(denial)),
            }
        }
        if vetted.is_empty() { Err(first_denial.unwrap_or_else(|| no_answers(&self.target).by(self.rule()))) } else { Ok(vetted) }
    }

    fn judge(&mut self, address: IpAddr) -> Result<(), Denial> {
        let policy = Arc::clone(&self.policy);
        let own = policy.refuse_own_listener(address, self.target.port, &format_args!("{} at {address}", self.target));
        own.map_err(|denial| denial.by(self.rule()))?;
        let as_address = self.as_request(address);
        if let Some(rule) = policy.first_deny(policy.deny_nets(address), &as_address) {
            let denial = denied_by(rule, &format_args!("{} at {address}", self.target));
            self.obey(policy.mode_of(rule, self.now), denial)?;
        }
        self.check_within(address)?;
        self.check_class(address)?;
        embedded(address).map_or(Ok(()), |inner| self.check_class(inner))
    }

    fn as_request(&self, address: IpAddr) -> Request {
        let target = Target { host: Host::Address(address), port: self.target.port };
        Request::new(target, self.role, self.now)
    }

    fn within(&self) -> &[IpNet] {
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
            Host::Name(_) if self.rule().is_some() => format!("add `within: [{address}]` to the rule if the answer is right"),
            Host::Name(_) => {
                let line = RuleLine { within: vec![address.into()], ..RuleLine::for_target(&self.target) };
                format!("add `{line}` under egress.allow if the answer is right")
            }
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
            (Protocol::Tls | Protocol::Any, Flight::Malformed) => {
                let what = "the ClientHello cannot be read";
                let denial = self.flight(Reason::HelloMalformed, what, "mend the client, or write `as: tcp`");
                // It may name anybody: a rule in audit speaks of its own name.
                self.obey(self.mode_for_others(), denial)
            }
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
        let Some(rule) = policy.deny_rule(&Request::new(target, self.role, self.now)) else { return Ok(()) };
        let denial = denied_by(rule, &format_args!("{} with SNI {shown}", self.target));
        self.obey(policy.mode_of(rule, self.now), denial)
    }

    /// How what no rule names is judged: a rule in audit speaks of its name, and only a policy in audit lets others through.
    fn mode_for_others(&self) -> Mode {
        if self.policy.mode_at(self.now) == Mode::Audit { self.mode } else { Mode::Enforce }
    }

    fn refuse_flight(&mut self, reason: Reason, what: &str, help: &str) -> Result<(), Denial> {
        let denial = self.flight(reason, what, help);
        self.obey(self.mode, denial)
    }

    fn flight(&self, reason: Reason, what: &str, help: &str) -> Denial {
        Denial::new(reason, format!("the connection to {} is refused: {what}", self.target), help).by(self.rule())
    }
}

/// A reload.
impl Permit {
    /// The same connection under another policy: what was asked for, the address that was dialled, and what the client
    /// showed first, all judged anew.
    ///
    /// # Errors
    /// The [`Denial`] that this connection would get now.
    pub fn again(&self, policy: &Arc<Policy>, dialled: IpAddr, shown: &Flight, now: UnixTime) -> Result<Self, Denial> {
        let role = policy.role_named(self.policy.role_name(self.role)).unwrap_or_else(|| policy.default_role());
        let mut request = Request::new(self.target.clone(), role, now);
        request.pinned = self.pinned;
        let mut permit = policy.admit(&request)?;
        permit.vet(&[dialled])?;
        permit.confirm(shown)?;
        Ok(permit)
    }
}

fn mismatch(target: &Target, shown: &Name, ech: bool) -> Denial {
    let hint = if ech { " (it offers ECH: this is the outer name)" } else { "" };
    let detail = format!("the connection to {target} is refused: its SNI is {shown}{hint}");
    Denial::new(Reason::SniMismatch, detail, "ask the proxy for the host that the SNI names")
}
