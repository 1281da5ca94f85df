//! Which way a flow takes. Nothing is guessed in favour of a flow: what is not known to be ours, near, direct or asked for by
//! somebody outside goes around.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use egret_flows::diag::{Direction, Protocol};
use egret_flows::{Flow, Octets, Totals, traffic};
use ipnet::IpNet;

/// egret's own sockets that are remembered. One that is forgotten while it lives is known by its holder.
const MOST_OWN: usize = 32_768;
/// The port of DNS (RFC 1035 section 4.2).
const DNS: u16 = 53;
/// Who comes from outside has no port below this.
const FIRST_EPHEMERAL: u16 = 1024;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Way {
    /// egret's own: what it does for others, and its DNS.
    Proxy,
    /// An address that the policy leaves to everybody, or a nameserver of this machine.
    Direct,
    /// Past egret.
    Around,
    /// Somebody outside asked for it.
    In,
    /// A UDP socket without a peer, or with one on this machine: it may send anywhere, or only be asked.
    Open,
    /// It stays on this machine.
    Near,
}

impl Way {
    /// All that are told.
    pub(crate) const TOLD: [Self; 5] = [Self::Proxy, Self::Direct, Self::Around, Self::In, Self::Open];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Direct => "direct",
            Self::Around => "around",
            Self::In => "in",
            Self::Open => "open",
            Self::Near => "near",
        }
    }
}

/// What is needed to know a way.
pub(crate) struct Surroundings<'a> {
    pub(crate) own: &'a OwnSockets,
    pub(crate) direct: &'a [IpNet],
    pub(crate) nameservers: &'a [IpAddr],
    pub(crate) listening: &'a Listening,
    /// Whether an address is this machine's.
    pub(crate) is_near: &'a dyn Fn(IpAddr) -> bool,
    pub(crate) pid: u32,
}

impl Surroundings<'_> {
    pub(crate) fn way(&self, flow: &Flow) -> Way {
        let is_held = flow.holder.as_ref().is_ok_and(|holder| holder.pid == self.pid);
        if is_held || self.own.has(flow.cookie) {
            return Way::Proxy;
        }
        let Some(peer) = flow.peer else {
            return if flow.protocol == Protocol::Udp { Way::Open } else { Way::Around };
        };
        let is_direct = || self.direct.iter().any(|net| net.contains(&peer.ip()));
        let is_dns = || peer.port() == DNS && self.nameservers.contains(&peer.ip());
        match () {
            () if (self.is_near)(peer.ip()) => near(flow),
            () if self.is_from_outside(flow, peer.port()) => Way::In,
            () if is_direct() || is_dns() => Way::Direct,
            () => Way::Around,
        }
    }

    /// Where counters don't tell who began it, the ports must speak for the other side: ours listens, theirs is one that
    /// the kernel gives.
    fn is_from_outside(&self, flow: &Flow, port: u16) -> bool {
        match flow.direction {
            _ if flow.protocol == Protocol::Udp => false,
            Some(direction) => direction == Direction::In,
            None => self.listening.has(flow.local.port()) && (port == 0 || port >= FIRST_EPHEMERAL),
        }
    }
}

/// A TCP peer on this machine is all that there is. A UDP one is only the default: sendto(2) takes another address, and the
/// kernel refuses that only if the socket's own address is loopback as well.
fn near(flow: &Flow) -> Way {
    let is_bound = flow.protocol == Protocol::Tcp || flow.local.ip().to_canonical().is_loopback();
    if is_bound { Way::Near } else { Way::Open }
}

/// Ports on which somebody listens, or did at the listing before: who was accepted may outlive the listener by a moment, and
/// a port that listened long ago speaks for nobody.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    latest: HashSet<u16>,
    before: HashSet<u16>,
}

impl Listening {
    /// Another listing.
    pub(crate) fn listed(&mut self, ports: &[u16]) {
        self.before = std::mem::replace(&mut self.latest, ports.iter().copied().collect());
    }

    fn has(&self, port: u16) -> bool {
        self.latest.contains(&port) || self.before.contains(&port)
    }
}

/// The sockets that egret made itself, told before they are connected.
#[derive(Debug, Default)]
pub(crate) struct OwnSockets(Mutex<Own>);

#[derive(Debug, Default)]
struct Own {
    cookies: HashSet<u64>,
    order: VecDeque<u64>,
}

impl OwnSockets {
    pub(crate) fn add(&self, cookie: u64) {
        let mut own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if own.cookies.insert(cookie) {
            own.order.push_back(cookie);
        }
        if own.order.len() > MOST_OWN
            && let Some(oldest) = own.order.pop_front()
        {
            own.cookies.remove(&oldest);
        }
    }

    /// For whoever makes sockets.
    pub(crate) fn note(self: &Arc<Self>) -> Arc<dyn Fn(u64) + Send + Sync> {
        let own = Arc::clone(self);
        Arc::new(move |cookie| own.add(cookie))
    }

    pub(crate) fn has(&self, cookie: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cookies.contains(&cookie)
    }
}

/// What interfaces carried that no TCP connection explains, since a beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unexplained {
    begin: Option<(Octets, Totals)>,
    /// TCP that stayed on this machine: its octets, and connections.
    near: (Octets, u64),
    pub(crate) passed: Octets,
    pub(crate) unexplained: Octets,
}

impl Unexplained {
    /// What is new of a flow that stays here. Of one that is told for the first time the connection is.
    pub(crate) fn near(&mut self, flow: &Flow, new: Octets) {
        let (octets, connections) = self.near;
        let is_another = flow.is_news && flow.protocol == Protocol::Tcp;
        self.near = (octets + new, connections + u64::from(is_another));
    }

    pub(crate) fn look(&mut self, totals: Totals, passed: Octets) {
        let (first, begun) = *self.begin.get_or_insert((passed, totals));
        let (near, stayed) = self.near;
        let payload = totals.octets - begun.octets - near;
        let connections = totals.connections.saturating_sub(begun.connections).saturating_sub(stayed);
        self.passed = passed - first;
        self.unexplained = self.passed - traffic::with_headers(payload, connections);
    }
}

#[cfg(test)]
mod tests;
