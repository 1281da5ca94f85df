//! What can be the answer: a [`Permit`] and its [`VettedAddr`]s, which only this crate can make, or a [`Denial`]
//! with a reason from one closed list.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::decide::UnixTime;
use crate::policy::{Policy, RoleId};
use crate::rule::{Mode, Protocol, Rule, RuleId};
use crate::target::Target;

macro_rules! reasons {
    ($(#[doc = $meaning:literal] $variant:ident = $code:literal,)*) => {
        /// Why something was denied. The codes are stable: they stand in journals, metrics and answers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $(#[doc = $meaning] $variant,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What it means, in a sentence for people.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning.trim_ascii(),)* }
            }
        }
    };
}

reasons! {
    /// The request breaks its protocol, or names a host or port that is none.
    Malformed = "malformed",
    /// The first byte belongs to no protocol that is served here.
    UnknownProtocol = "unknown_protocol",
    /// A SOCKS command, authentication or URI scheme that egret does not serve.
    Unsupported = "unsupported",
    /// No rule speaks of the name.
    NoRule = "no_rule",
    /// A rule speaks of the name, but not on this port.
    PortNotListed = "port_not_listed",
    /// A rule speaks of the name and port, but not for this role.
    RoleNotListed = "role_not_listed",
    /// The rule that spoke of it has expired.
    RuleExpired = "rule_expired",
    /// A deny rule speaks against it, and deny beats allow.
    DenyRule = "deny_rule",
    /// Only a rule that is itself in audit allows it: without audit it would be refused.
    AuditRule = "audit_rule",
    /// A literal address that no address rule holds.
    AddressNotListed = "address_not_listed",
    /// A literal address with the SNI of an allowed name that does not resolve to it.
    AddressNotOfName = "address_not_of_name",
    /// An address of a class that needs a rule naming its space.
    AddressClass = "address_class",
    /// The rule says where the answers lie, and this one does not.
    AddressOutsideWithin = "address_outside_within",
    /// One of egret's own listeners.
    OwnListener = "own_listener",
    /// An S3 endpoint whose bucket is hidden in the path.
    S3PathStyle = "s3_path_style",
    /// The first flight begins as a ClientHello and is none.
    HelloMalformed = "hello_malformed",
    /// A ClientHello without a server name.
    SniMissing = "sni_missing",
    /// A server name that is no DNS name.
    SniInvalid = "sni_invalid",
    /// More than one server name.
    SniAmbiguous = "sni_ambiguous",
    /// The server name is not the requested name.
    SniMismatch = "sni_mismatch",
    /// The rule wants TLS and the first flight is something else.
    NotTls = "not_tls",
    /// The rule wants cleartext HTTP and the first flight is something else.
    NotHttp = "not_http",
    /// An HTTP request inside a tunnel names another host.
    HostMismatch = "host_mismatch",
    /// The client showed nothing by the deadline, and the rule wants to see it.
    NoFirstFlight = "no_first_flight",
    /// More connections are open than the limit allows.
    ConnectionLimit = "connection_limit",
}

/// A refusal: what was refused, why, by which rule, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason, for programs.
    pub reason: Reason,
    /// The rule that decided, or that came nearest.
    pub rule: Option<RuleId>,
    /// The line of that rule in the policy file, from 1; 0 where there is none.
    pub line: u32,
    /// What was refused and why, in one line for people.
    pub detail: String,
    /// What would change the verdict, in one line.
    pub help: String,
}

impl Denial {
    /// A refusal without a rule.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>, help: impl Into<String>) -> Self {
        Self { reason, rule: None, line: 0, detail: detail.into(), help: help.into() }
    }

    pub(crate) fn by(mut self, rule: Option<&Rule>) -> Self {
        self.rule = rule.map(|rule| rule.id().clone());
        self.line = rule.map_or(0, Rule::line);
        self
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Leave to connect, and what was promised for it. It carries the policy it was given under, so that one connection
/// is judged by one policy to its end.
#[derive(Clone, Debug)]
pub struct Permit {
    pub(crate) policy: Arc<Policy>,
    pub(crate) target: Target,
    pub(crate) pinned: Option<IpAddr>,
    pub(crate) role: RoleId,
    pub(crate) now: UnixTime,
    pub(crate) rule: Option<u32>,
    pub(crate) protocol: Protocol,
    pub(crate) mode: Mode,
    pub(crate) would_deny: Option<Denial>,
}

impl Permit {
    /// What was permitted.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What the first flight must be.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The policy it was given under.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The rule that allows it; `None` if only audit lets it through.
    #[must_use]
    pub fn rule(&self) -> Option<&Rule> {
        self.rule.map(|at| self.policy.rule(at))
    }

    /// What would have been denied, were it not for audit.
    #[must_use]
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_ref()
    }

    /// Whether verdicts on this connection bind.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Refuses, or under audit notes the refusal and goes on. The first one noted is kept.
    pub(crate) fn obey(&mut self, mode: Mode, denial: Denial) -> Result<(), Denial> {
        match mode {
            Mode::Enforce => Err(denial),
            Mode::Audit => {
                self.would_deny.get_or_insert(denial);
                Ok(())
            }
        }
    }
}

/// An address that passed [`Permit::vet`]: the only thing that may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VettedAddr {
    pub(crate) socket: SocketAddr,
}

impl VettedAddr {
    /// The address and port to connect to.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }
}
