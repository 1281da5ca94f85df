//! What journals prove, as far as it matters to a policy: who asked for what, what became of it, where it went and what
//! the client showed. The same observation made many times is kept once, with its count. A policy can be asked about
//! each as if it were made again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use egret_policy::{DEFAULT_ROLE, Denial, Flight, Host, Name, Permit, Policy, Reason, Request, Sni, Target, UnixTime};
use serde::Serialize;
use serde_json::Value;

use crate::config::read::is_label;
use crate::reading::{self, Missing};
use crate::stderr;

/// More observations than this, of what passed and of what was refused, are counted, not kept: an app can ask for as
/// many names as it likes, and must not crowd out what it really talks to.
const MAX_KEPT: usize = 100_000;

/// One connection, or one request of a connection that carries HTTP in the clear.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Observation {
    pub(crate) destination: Destination,
    pub(crate) outcome: Outcome,
    pub(crate) shown: Shown,
    /// The address dialled, or the one that was refused.
    pub(crate) address: Option<IpAddr>,
    /// The name that was shown for a literal address did not resolve to it.
    pub(crate) elsewhere: bool,
    /// A deny rule spoke against it.
    pub(crate) unwanted: bool,
}

/// Who asked for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Destination {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) role: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Let through, and connected.
    Reached,
    /// Let through, and never connected.
    Failed,
    /// Refused for its name, port, role or address.
    Refused,
    /// Refused for the space that its address lies in.
    RefusedAddress,
    /// Refused for what the client showed.
    RefusedFlight,
    /// Refused whatever the policy says: malformed, egret's own, over a limit, another host inside a tunnel.
    Beyond,
}

/// What the client showed first, as far as the journal tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shown {
    /// It never came to that.
    Unknown,
    /// TLS with this server name.
    Sni(String),
    /// TLS without a server name, or with one that is none, or with two.
    NoSni,
    BadSni,
    TwoSnis,
    BadHello,
    Http,
    /// Neither TLS nor HTTP, or the server spoke first.
    Bytes,
    /// Nothing in time.
    Nothing,
}

/// Everything that some journals hold.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) observations: BTreeMap<Observation, u64>,
    /// Connections and requests, those that are not kept included.
    pub(crate) events: u64,
    /// Those that passed and are not kept.
    pub(crate) beyond: u64,
    kept_passed: usize,
    kept_refused: usize,
    /// RFC 3339 times of the first and the last event.
    pub(crate) first: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) missing: Missing,
}

impl Evidence {
    /// Reads journals.
    ///
    /// # Errors
    /// A journal cannot be opened or read.
    pub(crate) fn read(journals: &[PathBuf]) -> anyhow::Result<Self> {
        let mut evidence = Self::default();
        let missing = reading::read(journals, |event| evidence.see(event))?;
        if evidence.beyond > 0 {
            stderr::say(format_args!(
                "{} let through are beyond the {MAX_KEPT} different ones that are kept, and left out",
                evidence.beyond
            ));
        }
        Ok(Self { missing, ..evidence })
    }

    /// Reads one journal that is in memory.
    pub(crate) fn of(journal: &[u8]) -> Self {
        let (mut evidence, mut missing) = (Self::default(), Missing::default());
        // To read what is in memory cannot fail.
        let _ = reading::lines(Path::new("journal"), journal, &mut missing, &mut |event| evidence.see(event));
        Self { missing, ..evidence }
    }

    fn see(&mut self, event: &Value) {
        let Some(observation) = Observation::of(event) else { return };
        self.events += 1;
        if let Some(time) = event["time"].as_str().filter(|time| time.parse::<jiff::Timestamp>().is_ok()) {
            let earlier = self.first.as_deref().is_none_or(|first| time < first);
            let later = self.last.as_deref().is_none_or(|last| time > last);
            self.first = if earlier { Some(time.to_owned()) } else { self.first.take() };
            self.last = if later { Some(time.to_owned()) } else { self.last.take() };
        }
        if let Some(count) = self.observations.get_mut(&observation) {
            *count += 1;
            return;
        }
        let passed = observation.passed();
        let kept = if passed { &mut self.kept_passed } else { &mut self.kept_refused };
        if *kept < MAX_KEPT {
            *kept += 1;
            self.observations.insert(observation, 1);
        } else {
            self.beyond += u64::from(passed);
        }
    }

    /// How many different hosts and ports were asked for.
    pub(crate) fn destinations(&self) -> usize {
        let targets: std::collections::BTreeSet<(&str, u16)> =
            self.observations.keys().map(|seen| (&*seen.destination.host, seen.destination.port)).collect();
        targets.len()
    }
}

impl Destination {
    /// The host and the port.
    pub(crate) fn target(&self) -> Option<Target> {
        Some(Target { host: host(&self.host)?, port: self.port })
    }
}

/// Host and port, and the role if it is not the default one.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port)?,
            false => write!(f, "{}:{}", self.host, self.port)?,
        }
        if self.role == DEFAULT_ROLE { Ok(()) } else { write!(f, " as {}", self.role) }
    }
}

impl Observation {
    /// From an event. Anything that asked for nothing gives `None`; so does a connection whose requests tell of it.
    fn of(event: &Value) -> Option<Self> {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let request = match text("event")? {
            "request" => true,
            "connection" if event["requests"].as_u64().unwrap_or(0) == 0 && text("via") != Some("forward") => false,
            _ => return None,
        };
        let decision = text("decision").filter(|decision| matches!(*decision, "allow" | "would_deny" | "deny"))?;
        let port = u16::try_from(event["port"].as_u64()?).ok().filter(|port| *port != 0)?;
        let target = Target { host: host(text("host")?)?, port };
        // Journals come from anywhere, and what they say ends up in files.
        let role = text("role").filter(|role| is_label(role))?;
        let reason = text("reason").and_then(|code| Reason::ALL.iter().find(|reason| reason.code() == code).copied());
        let reached = if request { text("fault").is_none() } else { text("stage") == Some("relay") };
        let outcome = match (decision, reason) {
            ("deny", Some(reason)) => outcome_of(reason),
            ("deny", None) => Outcome::Beyond,
            _ if reached => Outcome::Reached,
            _ => Outcome::Failed,
        };
        let socket = text("address").and_then(|address| address.parse::<SocketAddr>().ok()).map(|socket| socket.ip());
        let refused = text("refused").and_then(|address| address.parse().ok());
        let literal = match target.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => None,
        };
        Some(Self {
            destination: Destination { host: target.host.to_string(), port, role: role.to_owned() },
            outcome,
            shown: if request { Shown::Http } else { shown(text("sni"), reason, outcome) },
            address: socket.or(refused).or(literal),
            elsewhere: reason == Some(Reason::AddressNotOfName),
            unwanted: reason == Some(Reason::DenyRule),
        })
    }

    /// What was asked for.
    pub(crate) fn target(&self) -> Option<Target> {
        self.destination.target()
    }

    /// Whether egret let it through then.
    pub(crate) fn passed(&self) -> bool {
        matches!(self.outcome, Outcome::Reached | Outcome::Failed)
    }

    /// What a policy says of it: the three questions, as far as the journal tells what to ask. `None` if it would be
    /// refused by any policy, or was refused for an address that the journal does not name.
    pub(crate) fn judge(&self, policy: &Arc<Policy>, now: UnixTime) -> Option<Result<Permit, Denial>> {
        let unknown = self.outcome == Outcome::RefusedAddress && self.address.is_none();
        let target = self.target().filter(|_| self.outcome != Outcome::Beyond && !unknown)?;
        let role = policy.role_named(&self.destination.role).unwrap_or_else(|| policy.default_role());
        let mut request = Request::new(target, role, now);
        if let Shown::Sni(name) = &self.shown
            && let Ok(name) = Name::parse(name)
            && policy.wants_name(&request)
        {
            request = request.shown(name);
        }
        Some(policy.admit(&request).and_then(|mut permit| {
            if let Some(address) = self.address {
                let answers: &[IpAddr] = if self.elsewhere { &[] } else { &[address] };
                permit.vet(answers)?;
            }
            self.flight().map_or(Ok(()), |flight| permit.confirm(&flight))?;
            Ok(permit)
        }))
    }

    fn flight(&self) -> Option<Flight> {
        let tls = |sni| Some(Flight::Tls { sni, ech: false });
        match &self.shown {
            Shown::Unknown => None,
            Shown::Sni(name) => tls(Name::parse(name).map_or(Sni::Invalid(name.clone()), Sni::One)),
            Shown::NoSni => tls(Sni::Absent),
            Shown::BadSni => tls(Sni::Invalid(String::new())),
            Shown::TwoSnis => tls(Sni::Many),
            Shown::BadHello => Some(Flight::Malformed),
            Shown::Http => Some(Flight::Http),
            Shown::Bytes => Some(Flight::Opaque),
            Shown::Nothing => Some(Flight::Silent),
        }
    }
}

fn outcome_of(reason: Reason) -> Outcome {
    match reason {
        Reason::NoRule
        | Reason::PortNotListed
        | Reason::RoleNotListed
        | Reason::RuleExpired
        | Reason::DenyRule
        | Reason::AuditRule
        | Reason::AddressNotListed
        | Reason::S3PathStyle => Outcome::Refused,
        Reason::AddressClass | Reason::AddressOutsideWithin => Outcome::RefusedAddress,
        Reason::HelloMalformed
        | Reason::SniMissing
        | Reason::SniInvalid
        | Reason::SniAmbiguous
        | Reason::SniMismatch
        | Reason::NotTls
        | Reason::NotHttp
        | Reason::NoFirstFlight
        | Reason::AddressNotOfName => Outcome::RefusedFlight,
        Reason::Malformed
        | Reason::UnknownProtocol
        | Reason::Unsupported
        | Reason::OwnListener
        | Reason::HostMismatch
        | Reason::ConnectionLimit => Outcome::Beyond,
    }
}

fn shown(sni: Option<&str>, reason: Option<Reason>, outcome: Outcome) -> Shown {
    match (sni, reason) {
        (_, Some(Reason::SniMissing)) => Shown::NoSni,
        (_, Some(Reason::SniInvalid)) => Shown::BadSni,
        (_, Some(Reason::SniAmbiguous)) => Shown::TwoSnis,
        (_, Some(Reason::HelloMalformed)) => Shown::BadHello,
        (_, Some(Reason::NoFirstFlight)) => Shown::Nothing,
        (Some(name), _) => Shown::Sni(name.to_ascii_lowercase()),
        (None, Some(Reason::NotTls | Reason::NotHttp)) => Shown::Bytes,
        (None, _) if outcome == Outcome::Reached => Shown::Bytes,
        (None, _) => Shown::Unknown,
    }
}

/// A host as journals write it: IPv6 without brackets. Anything else is no evidence.
fn host(text: &str) -> Option<Host> {
    match egret_policy::literal(text) {
        Some(address) => Some(Host::Address(address)),
        None => Name::parse(text).ok().map(Host::Name),
    }
}
