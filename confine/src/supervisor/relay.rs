//! Datagrams to whoever the egress lets them go to: daemons of this machine that take measurements and traces.
//!
//! A socket that is connected there is replaced by one end of a pair, as for a nameserver; what is written to it is passed on by
//! a socket of the supervisor, and what comes back is passed to it. What can't be passed on at once is lost, as by UDP; beyond
//! `net.unix.max_dgram_qlen` datagrams that were not taken yet, whoever sends waits a moment, or hears AGAIN if it does not
//! wait. That nobody is there (ICMP) hears who receives by recvfrom(2) with an address, and nobody else.
//!
//! What is sent without connecting is read from the caller once and sent from the same port. sendmsg(2) and sendmmsg(2) with an
//! address are not asked about, since connections use them all the time: they fail with PIPE.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

use super::Shared;
use super::datagram::{Pair, read_message};
use super::ports::{local_address, send_here};
use crate::address::Family;
use crate::caller::Caller;
use crate::sockets;
use crate::sys::Notification;

/// How many there are at most; the one that was not used for longest goes.
pub(super) const MOST_RELAYS: usize = 256;

/// Marks events of the side that is not the app's. No inode is as large.
pub(super) const OUTSIDE: u64 = 1 << 63;

/// The longest datagram of UDP over IPv4; IPv6 has a few bytes more.
const LONGEST_DATAGRAM: usize = 65_507;

/// How many are passed on before others get their turn.
const AT_ONCE: usize = 16;

const NOW: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// The supervisor's socket for one of the app's.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) socket: OwnedFd,
    /// Nobody was there, and the app was not told.
    refused: AtomicBool,
    used: AtomicU64,
}

impl Relay {
    /// Connected there.
    pub(super) fn new(to: SocketAddr) -> Result<Self, Errno> {
        let socket = socket_for(to)?;
        rustix::net::connect(&socket, &to)?;
        let relay = Relay { socket, refused: AtomicBool::new(false), used: AtomicU64::new(0) };
        relay.touch();
        Ok(relay)
    }

    /// The address that others see.
    pub(super) fn local(&self) -> Result<SocketAddr, Errno> {
        rustix::net::getsockname(&self.socket)?.try_into()
    }

    /// Passes on what one side has for the other.
    pub(super) fn pass(&self, app: &OwnedFd, from_outside: bool) {
        self.touch();
        let (from, to) = if from_outside { (&self.socket, app) } else { (app, &self.socket) };
        let mut message = [0; LONGEST_DATAGRAM];
        for _ in 0..AT_ONCE {
            let received = rustix::net::recv(from, &mut message[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC);
            let passed = match received {
                // What is longer than its datagram may be is lost.
                Ok((_, whole)) if whole > LONGEST_DATAGRAM => continue,
                Ok((length, _)) => rustix::net::send(to, &message[..length], NOW).map(drop),
                Err(Errno::CONNREFUSED) => Err(Errno::CONNREFUSED),
                Err(_) => return,
            };
            if passed == Err(Errno::CONNREFUSED) {
                self.refused.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Sends one datagram to this address.
    pub(super) fn send(&self, message: &[u8], to: SocketAddr) -> Result<(), Errno> {
        self.touch();
        rustix::net::sendto(&self.socket, message, NOW, &to).map(drop)
    }

    /// The error that nobody was told of.
    pub(super) fn take_error(&self) -> Result<(), Errno> {
        if self.refused.swap(false, Ordering::Relaxed) { Err(Errno::CONNREFUSED) } else { Ok(()) }
    }

    /// The number of its last use: of two, the one that was used before has the smaller one.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        static USES: AtomicU64 = AtomicU64::new(0);
        self.used.store(USES.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// sendto(2) to whom datagrams may go. Returns how much was sent.
pub(super) fn send(
    shared: &Shared,
    call: &Notification,
    (inode, pair): (u64, Option<Arc<Pair>>),
    family: Family,
    to: SocketAddr,
) -> Result<i64, Errno> {
    let caller = Caller { tid: call.tid };
    let message = read_message(caller, call, LONGEST_DATAGRAM)?;
    if !shared.waits(call.id) {
        return Err(Errno::INTR);
    }
    match pair.as_ref().and_then(|pair| pair.relay.as_ref()) {
        Some(relay) => relay.send(&message, to)?,
        None => send_once(local_address(shared, inode, family), family, to, &message)?,
    }
    i64::try_from(message.len()).map_err(|_| Errno::MSGSIZE)
}

/// Sends one datagram from the port of a socket that is not connected, if that port can be shared; or else from any.
fn send_once(from: Result<SocketAddr, Errno>, family: Family, to: SocketAddr, message: &[u8]) -> Result<(), Errno> {
    match from.and_then(|local| send_here(local, family, to, message)) {
        Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) => rustix::net::sendto(&socket_for(to)?, message, NOW, &to).map(drop),
        sent => sent,
    }
}

fn socket_for(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let domain = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(domain, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockets::sys::keep_here(socket.as_fd())?;
    Ok(socket)
}
