//! What a connection leaves behind: one [`Record`], opened at accept and given to the [`Observer`] on every path out,
//! panics included, because dropping it is what closes it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use egret_policy::{Class, Denial, Permit, RuleId, Target};

use crate::confined::{NameRecord, Process};
use crate::fault::{ConnectFault, DnsFault, Stop};

/// How a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// HTTP CONNECT.
    Connect,
    /// HTTP in absolute form.
    Forward,
    /// SOCKS5.
    Socks5,
    /// SOCKS4 or 4a.
    Socks4,
    /// TLS from the first byte.
    Tls,
    /// connect(2) of a confined program.
    Confined,
}

/// The furthest step a connection reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accepted.
    Accept,
    /// Waiting for its first byte.
    Sniff,
    /// Reading its request.
    Parse,
    /// Asking whether it may.
    Admit,
    /// Resolving the name.
    Resolve,
    /// Asking which addresses may be dialled.
    Vet,
    /// Dialling.
    Connect,
    /// Answered; looking at the first flight.
    Confirm,
    /// Relaying.
    Relay,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The client ended first.
    Client,
    /// The upstream ended first.
    Upstream,
    /// Silence for longer than the idle limit.
    Idle,
    /// One side had ended, and the other went on longer than the limit.
    Linger,
    /// Either side reset.
    Reset,
    /// Refused.
    Denied,
    /// Another policy came that would not let it through.
    Revoked,
    /// A fault, by its code.
    Fault(&'static str),
    /// Not egret's to see: the program was left to connect by itself.
    Direct,
    /// Closed because egret stops.
    Drained,
    /// A panic of ours; the connection died, egret lives.
    Panic,
}

/// The id of a connection: which gateway, and its number there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    instance: Arc<str>,
    number: u64,
}

/// One accepted connection, from its first byte to its last.
#[derive(Clone, Debug)]
pub struct Record {
    /// Unique within and across tasks.
    pub id: Id,
    /// When it was accepted.
    pub opened: SystemTime,
    /// How long it lived.
    pub duration: Duration,
    /// Where the client came from; `None` if it was gone, or is a confined program that got no connection.
    pub client: Option<SocketAddr>,
    /// The confined program that asked.
    pub process: Option<Process>,
    /// How it asked; `None` if it never got so far.
    pub via: Option<Via>,
    /// The name of its role.
    pub role: Arc<str>,
    /// What it asked for: of a forward connection, its first request.
    pub target: Option<Target>,
    /// The server name it showed.
    pub sni: Option<Arc<str>>,
    /// Whether its ClientHello offered ECH.
    pub ech: bool,
    /// The rule that allowed it, or decided against it.
    pub rule: Option<RuleId>,
    /// Why it was denied.
    pub denial: Option<Denial>,
    /// Why it would have been denied, were it not for audit.
    pub would_deny: Option<Denial>,
    /// The address dialled.
    pub address: Option<SocketAddr>,
    /// The first answer, where none was dialled because none passed.
    pub refused: Option<IpAddr>,
    /// The class of the address dialled, or of the first answer where nothing was.
    pub class: Option<Class>,
    /// Bytes from the client to the upstream.
    pub bytes_up: u64,
    /// Bytes from the upstream to the client.
    pub bytes_down: u64,
    /// HTTP requests seen in the clear.
    pub requests: u64,
    /// The furthest step reached.
    pub stage: Stage,
    /// How it ended.
    pub close: Close,
    /// What failed, for people.
    pub detail: Option<String>,
    /// The hash of the policy that judged it.
    pub policy: Arc<str>,
}

/// One HTTP request on a forward connection, or inside a cleartext tunnel.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The id of its connection.
    pub id: Id,
    /// The name of its role.
    pub role: Arc<str>,
    /// Its method, as sent.
    pub method: String,
    /// What it asked for.
    pub target: Option<Target>,
    /// The rule that allowed or denied it.
    pub rule: Option<RuleId>,
    /// Why it was denied.
    pub denial: Option<Denial>,
    /// Why it would have been denied, were it not for audit.
    pub would_deny: Option<Denial>,
    /// The status that the client got.
    pub status: u16,
    /// The fault behind a 5xx of ours, by its code.
    pub fault: Option<&'static str>,
    /// The address it went to.
    pub address: Option<SocketAddr>,
    /// The first answer, where none was dialled because none passed.
    pub refused: Option<IpAddr>,
    /// The class of that address, or of the first answer where it went nowhere.
    pub class: Option<Class>,
    /// Bytes to the upstream, heads included.
    pub bytes_up: u64,
    /// Bytes from the upstream, heads included.
    pub bytes_down: u64,
    /// The hash of the policy that judged it.
    pub policy: Arc<str>,
}

/// Who is told. Calls come from many tasks, and must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A connection took its way in; its record will name the same.
    fn began(&self, via: Via);
    /// A verdict fell on a connection: before it relays, or as it is refused. Of a connection that carries HTTP in the
    /// clear, its requests are told instead.
    fn decided(&self, record: &Record);
    /// A verdict fell on an HTTP request: before its answer begins.
    fn answered(&self, request: &RequestRecord);
    /// A connection left: once for each accepted one.
    fn closed(&self, record: Box<Record>);
    /// An HTTP request was answered to its end: once for each one answered.
    fn requested(&self, request: RequestRecord);
    /// A confined program asked DNS for a name and was refused.
    fn name_refused(&self, name: NameRecord);
    /// A name was resolved, or not.
    fn resolved(&self, outcome: Result<(), DnsFault>, took: Duration);
    /// egret made a socket of its own for an upstream, and connects it next; its number (`SO_COOKIE`, socket(7)).
    fn opened(&self, _socket: u64) {}
    /// A dial ended.
    fn dialled(&self, outcome: Result<(), ConnectFault>, took: Duration);
    /// The executable of a client could not be told, for this reason, though roles of the policy ask for it.
    fn unattributed(&self, why: &str);
    /// Accepting failed for want of descriptors or memory; accepting goes on after a pause.
    fn accept_failed(&self, error: &std::io::Error);
}

impl Id {
    /// The connection of this number.
    #[must_use]
    pub fn new(instance: Arc<str>, number: u64) -> Self {
        Self { instance, number }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.instance, self.number)
    }
}

impl Via {
    /// The stable text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Forward => "forward",
            Self::Socks5 => "socks5",
            Self::Socks4 => "socks4",
            Self::Tls => "tls",
            Self::Confined => "confined",
        }
    }
}

impl Stage {
    /// The stable text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Sniff => "sniff",
            Self::Parse => "parse",
            Self::Admit => "admit",
            Self::Resolve => "resolve",
            Self::Vet => "vet",
            Self::Connect => "connect",
            Self::Confirm => "confirm",
            Self::Relay => "relay",
        }
    }
}

impl Close {
    /// The stable text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Idle => "idle",
            Self::Linger => "linger",
            Self::Reset => "reset",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
            Self::Fault(code) => code,
            Self::Direct => "direct",
            Self::Drained => "drained",
            Self::Panic => "panic",
        }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Let through.
    Allow,
    /// Let through by audit alone.
    WouldDeny,
    /// Refused.
    Deny,
}

impl Decision {
    /// The stable text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::WouldDeny => "would_deny",
            Self::Deny => "deny",
        }
    }

    fn of(denial: Option<&Denial>, would_deny: Option<&Denial>) -> Self {
        match (denial, would_deny) {
            (Some(_), _) => Self::Deny,
            (None, Some(_)) => Self::WouldDeny,
            (None, None) => Self::Allow,
        }
    }
}

impl RequestRecord {
    /// What was decided.
    #[must_use]
    pub fn decision(&self) -> Decision {
        Decision::of(self.denial.as_ref(), self.would_deny.as_ref())
    }

    /// What spoke against it: the denial, or what would have been one, were it not for audit.
    #[must_use]
    pub fn objection(&self) -> Option<&Denial> {
        self.denial.as_ref().or(self.would_deny.as_ref())
    }
}

impl Record {
    /// What was decided; `None` if the client went, or timed out, before it had asked for anything.
    #[must_use]
    pub fn decision(&self) -> Option<Decision> {
        let decision = Decision::of(self.denial.as_ref(), self.would_deny.as_ref());
        (decision != Decision::Allow || self.stage >= Stage::Admit).then_some(decision)
    }

    /// What spoke against it: the denial, or what would have been one, were it not for audit.
    #[must_use]
    pub fn objection(&self) -> Option<&Denial> {
        self.denial.as_ref().or(self.would_deny.as_ref())
    }

    /// Notes what a permit says.
    pub(crate) fn permitted(&mut self, permit: &Permit) {
        self.rule = permit.rule().map(|rule| rule.id().clone());
        self.would_deny = permit.would_deny().cloned();
    }

    /// Notes a step, if it is a further one.
    pub(crate) fn reached(&mut self, stage: Stage) {
        self.stage = self.stage.max(stage);
    }

    /// Notes in the record of a request where it goes.
    pub(crate) fn went_to(&self, request: &mut RequestRecord) {
        request.address = self.address;
        request.refused = self.refused;
        request.class = self.class;
    }

    /// Takes over what the steps of one request noted on a copy; where it went, only from the first.
    pub(crate) fn took(&mut self, notes: Self) {
        self.reached(notes.stage);
        if self.requests <= 1 {
            (self.address, self.refused, self.class) = (notes.address, notes.refused, notes.class);
        }
    }

    /// Notes what stopped the connection.
    pub(crate) fn stopped(&mut self, stop: &Stop) {
        match stop {
            Stop::Denied(denial) => {
                self.close = Close::Denied;
                if denial.rule.is_some() {
                    self.rule.clone_from(&denial.rule);
                }
                self.denial = Some(denial.clone());
            }
            Stop::Fault(fault) => {
                self.close = Close::Fault(fault.code());
                self.detail = Some(fault.detail());
            }
        }
    }
}

/// A record that closes itself when dropped.
pub(crate) struct Open {
    record: Option<Box<Record>>,
    started: Instant,
    observer: Arc<dyn Observer>,
}

impl Open {
    pub(crate) fn new(id: Id, policy: Arc<str>, client: Option<SocketAddr>, observer: Arc<dyn Observer>) -> Self {
        let record = Record {
            id,
            opened: SystemTime::now(),
            duration: Duration::ZERO,
            client,
            process: None,
            via: None,
            role: egret_policy::default_role_name(),
            target: None,
            sni: None,
            ech: false,
            rule: None,
            denial: None,
            would_deny: None,
            address: None,
            refused: None,
            class: None,
            bytes_up: 0,
            bytes_down: 0,
            requests: 0,
            stage: Stage::Accept,
            close: Close::Drained,
            detail: None,
            policy,
        };
        Self { record: Some(Box::new(record)), started: Instant::now(), observer }
    }

    /// Tells the verdict, if there is one: a client that asked for nothing has none.
    pub(crate) fn decided(&self) {
        if self.decision().is_some() {
            self.observer.decided(self);
        }
    }

    pub(crate) fn began(&mut self, via: Via) {
        self.via = Some(via);
        self.observer.began(via);
    }
}

impl Deref for Open {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.record.as_deref().expect("a record is taken only by drop")
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut Record {
        self.record.as_deref_mut().expect("a record is taken only by drop")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.duration = self.started.elapsed();
            if std::thread::panicking() {
                record.close = Close::Panic;
            }
            self.observer.closed(record);
        }
    }
}
