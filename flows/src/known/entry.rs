//! What is kept of one socket, in little room.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Flow, Octets};
use crate::diag::{Direction, Protocol, Socket, State};
use crate::holders::{Process, Unseen};

/// What is kept of a socket. A test holds it to its size.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    local: Compact,
    peer: Compact,
    pub(super) octets: Octets,
    pub(super) told: Octets,
    began: u32,
    pub(super) told_at: u32,
    pub(super) turn: u32,
    pub(super) uid: u32,
    pub(super) inode: u32,
    process: Option<Arc<Process>>,
    /// Why there is none. Apart from it, as both in one would take a word more.
    unseen: Unseen,
    pub(super) protocol: Protocol,
    pub(super) state: State,
    direction: Option<Direction>,
    /// [`Socket::seems_out`] of the latest listing.
    seemed_out: bool,
    /// It was in one listing so far.
    is_fresh: bool,
    pub(super) is_news: bool,
}

/// An address in 18 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Compact([u8; 16], u16);

impl From<SocketAddr> for Compact {
    fn from(address: SocketAddr) -> Self {
        let v6 = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self(v6.octets(), address.port())
    }
}

impl From<Compact> for SocketAddr {
    fn from(Compact(octets, port): Compact) -> Self {
        Self::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), port)
    }
}

/// What `uid_t` has for nobody.
pub(super) const NO_USER: u32 = u32::MAX;

impl Entry {
    pub(super) fn new(protocol: Protocol, socket: &Socket, turn: u32, now: Duration) -> Self {
        Self {
            local: socket.local.into(),
            peer: peer(socket),
            octets: Octets { sent: socket.sent(), received: socket.received() },
            told: Octets::default(),
            began: seconds(now),
            told_at: seconds(now),
            turn,
            uid: socket.uid,
            inode: socket.inode,
            process: None,
            unseen: if socket.inode == 0 { Unseen::Unheld } else { Unseen::NotLooked },
            protocol,
            state: socket.state,
            direction: socket.direction(),
            seemed_out: socket.seems_out(),
            is_fresh: true,
            is_news: true,
        }
    }

    /// Whether a socket with this cookie is still the same flow. A UDP socket without a peer may have had one.
    pub(super) fn is(&self, socket: &Socket) -> bool {
        let counts_on = socket.received() >= self.octets.received && socket.sent() >= self.octets.sent;
        peer(socket) == self.peer && (self.protocol == Protocol::Udp || counts_on)
    }

    pub(super) fn see(&mut self, socket: &Socket, turn: u32) {
        self.see_end(socket, turn);
        if self.seemed_out && socket.seems_out() {
            self.direction = Some(Direction::Out);
        }
        (self.seemed_out, self.is_fresh) = (socket.seems_out(), false);
        if socket.inode != 0 && socket.inode != self.inode {
            self.inode = socket.inode;
            self.held(Err(Unseen::NotLooked));
        }
        self.uid = socket.uid;
    }

    pub(super) fn see_end(&mut self, socket: &Socket, turn: u32) {
        self.octets.sent = self.octets.sent.max(socket.sent());
        self.octets.received = self.octets.received.max(socket.received());
        // A SYN that was acknowledged is not taken back.
        if self.direction != Some(Direction::Out) {
            self.direction = socket.direction().or(self.direction);
        }
        if socket.local.port() != 0 {
            self.local = socket.local.into();
        }
        (self.state, self.turn) = (socket.state, turn);
    }

    pub(super) fn held(&mut self, holder: Result<Arc<Process>, Unseen>) {
        (self.process, self.unseen) = match holder {
            Ok(process) => (Some(process), self.unseen),
            Err(unseen) => (None, unseen),
        };
    }

    /// Whether nobody has looked yet who holds it.
    pub(super) fn is_unlooked(&self) -> bool {
        self.process.is_none() && self.unseen == Unseen::NotLooked
    }

    /// Whether the next listing may say who began it.
    pub(super) fn is_unsure(&self) -> bool {
        self.is_fresh && self.direction.is_none() && matches!(self.state, State::Established | State::CloseWait)
    }

    pub(super) fn flow(&self, cookie: u64) -> Flow {
        let peer = SocketAddr::from(self.peer);
        Flow {
            cookie,
            protocol: self.protocol,
            local: self.local.into(),
            peer: (!peer.ip().is_unspecified()).then_some(peer),
            state: self.state,
            direction: self.direction,
            uid: (self.uid != NO_USER).then_some(self.uid),
            holder: self.process.clone().ok_or(self.unseen),
            octets: self.octets,
            new: self.octets - self.told,
            began: Duration::from_secs(self.began.into()),
            is_news: self.is_news,
        }
    }
}

/// Where a socket is, or was, connected to.
fn peer(socket: &Socket) -> Compact {
    socket.peer.unwrap_or_else(|| SocketAddr::new(socket.former, 0)).into()
}

pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
