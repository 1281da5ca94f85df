//! How a connection can end before it relays: refused by policy, or a fault of client, upstream or DNS. A refusal is
//! not a fault.

use std::io;

use egret_policy::{Denial, Reason};

/// What stopped a connection.
#[derive(Debug)]
pub enum Stop {
    /// The policy, or a protocol error, refused it.
    Denied(Denial),
    /// Something failed.
    Fault(Fault),
}

/// What failed.
#[derive(Debug)]
pub enum Fault {
    /// The client closed or reset its connection.
    ClientGone,
    /// The client did not finish its request in time.
    ClientTimeout,
    /// The name did not resolve.
    Dns(DnsFault),
    /// No address could be connected to.
    Connect(ConnectFault),
    /// The upstream broke HTTP, or its connection.
    Upstream(String),
}

/// How a resolution failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsFault {
    /// The name does not exist (RFC 8020).
    NxDomain,
    /// The name exists and has no address.
    NoAddress,
    /// The server failed or refused.
    Failed,
    /// No answer in time.
    Timeout,
}

/// How a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFault {
    /// Every address refused.
    Refused,
    /// No answer in time.
    Timeout,
    /// Unreachable, or out of local resources.
    Failed(io::ErrorKind),
}

impl DnsFault {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NxDomain => "dns_nxdomain",
            Self::NoAddress => "dns_no_address",
            Self::Failed => "dns_failed",
            Self::Timeout => "dns_timeout",
        }
    }
}

impl ConnectFault {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Refused => "connect_refused",
            Self::Timeout => "connect_timeout",
            Self::Failed(_) => "connect_failed",
        }
    }
}

impl Fault {
    /// The stable code, as it stands in `close`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::ClientTimeout => "client_timeout",
            Self::Dns(fault) => fault.code(),
            Self::Connect(fault) => fault.code(),
            Self::Upstream(_) => "upstream_failed",
        }
    }

    /// What failed, for people.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::ClientGone => "the client closed the connection".into(),
            Self::ClientTimeout => "the client did not finish its request in time".into(),
            Self::Dns(DnsFault::NxDomain) => "the name does not exist (NXDOMAIN)".into(),
            Self::Dns(DnsFault::NoAddress) => "the name has no address".into(),
            Self::Dns(DnsFault::Failed) => "the DNS server failed or refused".into(),
            Self::Dns(DnsFault::Timeout) => "the DNS server did not answer in time".into(),
            Self::Connect(ConnectFault::Refused) => "the upstream refused the connection".into(),
            Self::Connect(ConnectFault::Timeout) => "the upstream did not accept the connection in time".into(),
            Self::Connect(ConnectFault::Failed(kind)) => format!("the upstream cannot be reached: {kind}"),
            Self::Upstream(what) => what.clone(),
        }
    }
}

impl Stop {
    /// A request that breaks its protocol.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::Denied(Denial::new(Reason::Malformed, detail, "mend the client's request"))
    }
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<DnsFault> for Stop {
    fn from(fault: DnsFault) -> Self {
        Self::Fault(Fault::Dns(fault))
    }
}

impl From<ConnectFault> for Stop {
    fn from(fault: ConnectFault) -> Self {
        Self::Fault(Fault::Connect(fault))
    }
}
