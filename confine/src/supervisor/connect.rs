//! connect(2): the address is read once, the egress is asked, and the supervisor connects the socket that it holds.
//!
//! Where it holds none, since the app bound it, disconnected it or waited too long, a fresh socket is connected and put in its
//! place; so what is connected was made here in any case, and was aimed by this process.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};

use super::{Shared, birth, datagram, descriptor, unix};
use crate::address::{self, Address, Destination, Family};
use crate::caller::{Caller, Flags, Process, Protocol};
use crate::egress::{Reply, Request};
use crate::established::{self, State};
use crate::sockets::{Held, Kind, Outcome, Recalled};
use crate::sys::{self, Notification, Place};

/// How many requests wait for an answer of the egress at most; any more are refused.
const MOST_PENDING: usize = 4096;

/// How many threads wait for a blocking connect that goes nowhere near a proxy.
pub(super) const MOST_SLOW: usize = 64;

type Introduce = Box<dyn FnOnce(SocketAddr) + Send>;

/// One connect that waits for a decision.
pub(crate) struct Attempt {
    shared: Arc<Shared>,
    id: u64,
    caller: Caller,
    number: i32,
    destination: SocketAddr,
    socket: Socket,
    /// Counts it as pending for as long as it lives.
    _slot: Slot,
}

/// What is to be connected.
enum Socket {
    /// The caller's own.
    Held(Held),
    /// A new one, to be put in place of the caller's.
    Fresh(Family, Flags),
}

/// One of a limited number.
pub(super) struct Slot(Arc<Shared>, fn(&Shared) -> &AtomicUsize);

impl Slot {
    pub(super) fn take(shared: &Arc<Shared>, counter: fn(&Shared) -> &AtomicUsize, most: usize) -> Option<Slot> {
        let slot = Slot(Arc::clone(shared), counter);
        // Dropping the slot takes it back.
        (counter(shared).fetch_add(1, Ordering::Relaxed) < most).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").field("id", &self.id).field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// What is to happen with a call.
pub(super) enum Step {
    Ask(Request, Attempt),
    LetThrough,
    Answer(Result<(), Errno>),
    /// It is answered, or will be by whoever connects that socket already.
    Done,
}

pub(super) fn handle(shared: &Arc<Shared>, call: &Notification) {
    match look(shared, call) {
        Ok(Step::Ask(request, attempt)) => shared.egress.connect(request, Reply::new(attempt)),
        Ok(Step::Done) => {}
        Ok(Step::LetThrough) => shared.let_through(call.id),
        Ok(Step::Answer(answer)) => {
            shared.answer(call.id, answer.map(|()| 0));
        }
        Err(errno) => {
            shared.answer(call.id, Err(errno));
        }
    }
}

fn look(shared: &Arc<Shared>, call: &Notification) -> Result<Step, Errno> {
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    // In the kernel's order: first the descriptor, then the address.
    let inode = caller.socket(number)?;
    let address = caller.address(call.arguments[1], call.arguments[2])?;
    if !shared.waits(call.id) {
        // What was read may have been another thread's.
        return Err(Errno::INTR);
    }
    match address {
        Address::Internet(destination) => aim(shared, call, inode, destination),
        Address::Nobody => disconnect(shared, call, inode),
        Address::Unix(name) if !shared.abilities.own_connects_fail => unix::connect(shared, call, inode, name),
        Address::Unix(_) | Address::Other => local(shared, caller.protocol(number)?),
    }
}

/// A connect to nobody outside: unix, netlink. It goes on by itself, but only where the kernel would keep the app's own TCP
/// sockets from connecting should the address have changed by then.
fn local(shared: &Shared, protocol: Protocol) -> Result<Step, Errno> {
    match protocol {
        Protocol::Tcp(_) | Protocol::Udp(_) => Err(Errno::AFNOSUPPORT),
        Protocol::Other if shared.abilities.own_connects_fail => Ok(Step::LetThrough),
        Protocol::Other => Err(Errno::ACCESS),
    }
}

fn aim(shared: &Arc<Shared>, call: &Notification, inode: u64, to: Destination) -> Result<Step, Errno> {
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    let (family, kind) = kind_of(shared, caller, number, inode)?;
    if family != to.family {
        return Err(Errno::AFNOSUPPORT);
    }
    if kind == Kind::Udp {
        let step = datagram::connect(shared, call, family, to.address)?;
        // Another socket has taken its place.
        drop(shared.sockets.take(inode));
        return Ok(step);
    }
    let slot = Slot::take(shared, |shared| &shared.pending, MOST_PENDING).ok_or(Errno::AGAIN)?;
    let socket = match shared.sockets.take_to_connect(inode, to.address) {
        Some(held) => Socket::Held(held),
        None if shared.sockets.join(inode, to.address, call.id)? => return Ok(Step::Done),
        None => match again(shared, call, inode, to.address) {
            Some(step) => return Ok(step),
            None => Socket::Fresh(family, caller.flags(number)?),
        },
    };
    let (shared, destination) = (Arc::clone(shared), to.address);
    let attempt = Attempt { shared, id: call.id, caller, number, destination, socket, _slot: slot };
    let request = Request { destination, nonblocking: attempt.is_nonblocking(), tid: call.tid };
    Ok(Step::Ask(request, attempt))
}

/// What the descriptor stands for; what is held is known, the rest is looked up.
fn kind_of(shared: &Shared, caller: Caller, number: i32, inode: u64) -> Result<(Family, Kind), Errno> {
    if let Some(held) = shared.sockets.look(inode, |held| (held.family, held.kind)) {
        return Ok(held);
    }
    if let Some(family) = shared.pairs.family_of(inode) {
        return Ok((family, Kind::Udp));
    }
    match caller.protocol(number)? {
        Protocol::Tcp(family) => Ok((family, Kind::Tcp)),
        Protocol::Udp(family) => Ok((family, Kind::Udp)),
        Protocol::Other => Err(Errno::INVAL),
    }
}

/// A connect of a socket that was connected before: a program that asks how it went, or a call that the kernel restarted after
/// a signal (before Linux 5.19).
fn again(shared: &Shared, call: &Notification, inode: u64, to: SocketAddr) -> Option<Step> {
    let tell = |outcome: Outcome| shared.answer(call.id, outcome.answer.map(|()| 0));
    let Recalled::Past(past) = shared.sockets.recall(inode, to, tell)? else { return Some(Step::Done) };
    match established::state_of(inode)? {
        State::Connecting => Some(Step::Answer(Err(Errno::ALREADY))),
        State::Connected if past.answer == Err(Errno::INPROGRESS) => {
            conclude(shared, call.id, inode, past.destination, Ok(()));
            Some(Step::Done)
        }
        State::Connected => Some(Step::Answer(Err(Errno::ISCONN))),
    }
}

/// connect(2) to nobody. A socket that was never connected stays as it is; of one that was, a fresh one takes the place.
fn disconnect(shared: &Arc<Shared>, call: &Notification, inode: u64) -> Result<Step, Errno> {
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    if shared.sockets.look(inode, |_| ()).is_some() || shared.pairs.family_of(inode).is_some() {
        return Ok(Step::Answer(Ok(())));
    }
    let Protocol::Tcp(family) = caller.protocol(number)? else {
        // Datagram sockets can't send, whatever they are connected to; of the rest none is of the internet.
        return if shared.abilities.own_connects_fail { Ok(Step::LetThrough) } else { unix::disconnect(shared, call, inode) };
    };
    let flags = caller.flags(number)?;
    let socket = birth::tcp(family, socket_flags(flags))?;
    let held = Held::new(socket, family, Kind::Tcp)?;
    let copy = rustix::io::fcntl_dupfd_cloexec(&held.socket, 3)?;
    let fresh = held.inode;
    shared.sockets.forget(inode);
    shared.sockets.hold(held);
    let given = sys::give(shared.listener.as_fd(), call.id, copy.as_fd(), Place::Over(number), flags.close_on_exec);
    if given.is_err() {
        drop(shared.sockets.take(fresh));
    }
    given.map(|_| Step::Answer(Ok(())))
}

pub(super) fn socket_flags(flags: Flags) -> SocketFlags {
    if flags.nonblocking { SocketFlags::NONBLOCK } else { SocketFlags::empty() }
}

pub(super) fn is_nonblocking(socket: &OwnedFd) -> bool {
    fcntl_getfl(socket).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

impl Attempt {
    pub(crate) fn process(&self) -> Option<Process> {
        let process = self.caller.process();
        // Read first, then asked whether it was that thread.
        process.filter(|_| self.is_awaited())
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.shared.waits(self.id)
    }

    pub(crate) fn refuse(self, errno: Errno) {
        self.fail(errno);
    }

    pub(crate) fn direct(self) {
        let to = self.destination;
        if self.is_nonblocking() {
            self.establish(to, None);
        } else {
            self.establish_elsewhere(to);
        }
    }

    pub(crate) fn through(self, proxy: SocketAddr, introduce: Introduce) {
        self.establish(proxy, Some(introduce));
    }

    /// Of the socket that is held; none of ours is 0.
    fn inode(&self) -> u64 {
        if let Socket::Held(held) = &self.socket { held.inode } else { 0 }
    }

    fn is_nonblocking(&self) -> bool {
        match &self.socket {
            Socket::Held(held) => is_nonblocking(&held.socket),
            Socket::Fresh(_, flags) => flags.nonblocking,
        }
    }

    /// On a thread of its own, as nobody knows how long it takes.
    fn establish_elsewhere(self, to: SocketAddr) {
        let Some(slot) = Slot::take(&self.shared, |shared| &shared.slow, MOST_SLOW) else {
            return self.fail(Errno::AGAIN);
        };
        let shared = Arc::clone(&self.shared);
        let (id, inode) = (self.id, self.inode());
        let work = move || {
            let _slot = slot;
            self.establish(to, None);
        };
        if thread::Builder::new().name("confine-connect".into()).spawn(work).is_err() {
            // The socket went with the thread that is not.
            for id in shared.sockets.put_back(inode, None).into_iter().chain([id]) {
                shared.answer(id, Err(Errno::AGAIN));
            }
        }
    }

    fn establish(mut self, to: SocketAddr, introduce: Option<Introduce>) {
        match self.socket {
            Socket::Held(held) => {
                let connected = connect(&held.socket, held.family, to, introduce);
                self.socket = Socket::Held(held);
                self.finish(connected);
            }
            Socket::Fresh(family, flags) => match self.replace(family, flags, to, introduce) {
                Ok((inode, connected)) => {
                    self.shared.counts.replaced.fetch_add(1, Ordering::Relaxed);
                    conclude(&self.shared, self.id, inode, self.destination, connected);
                }
                Err(errno) => self.fail(errno),
            },
        }
    }

    /// The held socket was connected, or is being connected.
    fn finish(self, connected: Result<(), Errno>) {
        let Socket::Held(held) = &self.socket else { return };
        if !matches!(connected, Ok(()) | Err(Errno::INPROGRESS)) {
            return self.fail(connected.err().unwrap_or(Errno::ACCESS));
        }
        let inode = held.inode;
        // Let go before the app hears of it, so that what it closes is closed.
        drop(self.socket);
        conclude(&self.shared, self.id, inode, self.destination, connected);
    }

    fn fail(self, errno: Errno) {
        let mut told = vec![self.id];
        if let Socket::Held(held) = self.socket {
            told.extend(self.shared.sockets.put_back(held.inode, Some(held)));
        }
        for id in told {
            self.shared.answer(id, Err(errno));
        }
    }

    /// Connects a fresh socket and puts it in place of the caller's. Returns its inode, and what the caller is to be told: that
    /// it is connected, or is being connected.
    fn replace(
        &self,
        family: Family,
        flags: Flags,
        to: SocketAddr,
        introduce: Option<Introduce>,
    ) -> Result<(u64, Result<(), Errno>), Errno> {
        let socket = birth::tcp(family, socket_flags(flags))?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        let connected = connect(&socket, family, to, introduce);
        if !matches!(connected, Ok(()) | Err(Errno::INPROGRESS)) {
            return Err(connected.err().unwrap_or(Errno::ACCESS));
        }
        let place = Place::Over(self.number);
        sys::give(self.shared.listener.as_fd(), self.id, socket.as_fd(), place, flags.close_on_exec)?;
        Ok((inode, connected))
    }
}

/// Tells whoever waits that a socket is connected, or is being connected.
fn conclude(shared: &Shared, id: u64, inode: u64, destination: SocketAddr, connected: Result<(), Errno>) {
    let outcome = Outcome { destination, answer: connected, told: false };
    shared.sockets.conclude(inode, outcome, |joined, outcome| {
        let answer = if outcome.told { Err(Errno::ISCONN) } else { connected.map(|()| 0) };
        shared.answer(joined.unwrap_or(id), answer)
    });
}

/// Connects, and tells who it is that comes.
fn connect(socket: &OwnedFd, family: Family, to: SocketAddr, introduce: Option<Introduce>) -> Result<(), Errno> {
    let to = address::for_family(to, family).ok_or(Errno::AFNOSUPPORT)?;
    if matches!(to, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some()) {
        // A socket for IPv6 only could not get there. It has no address yet, so this may still be changed.
        let _ = sockopt::set_ipv6_v6only(socket, false);
    }
    let connected = match rustix::net::connect(socket, &to) {
        Err(Errno::INTR) => wait_until_connected(socket),
        connected => connected,
    };
    if let (Ok(()) | Err(Errno::INPROGRESS), Some(introduce)) = (connected, introduce) {
        let local = rustix::net::getsockname(socket).ok().and_then(|local| SocketAddr::try_from(local).ok());
        let local = local.ok_or(Errno::ADDRNOTAVAIL)?;
        introduce(SocketAddr::new(local.ip().to_canonical(), local.port()));
    }
    connected
}

/// Waits for a connection that is being made; at most as long as the kernel tries to make it.
fn wait_until_connected(socket: &OwnedFd) -> Result<(), Errno> {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    while let Err(errno) = poll(&mut polled, None) {
        if errno != Errno::INTR {
            return Err(errno);
        }
    }
    sockopt::socket_error(socket)?
}
