//! connect(2): the address is read once, the egress is asked, and the supervisor connects the socket that it holds.
//!
//! Where it holds none, since the app bound it, disconnected it or waited too long, a fresh socket is connected and put in its
//! place; so what is connected was made here in any case, and was aimed by this process.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};

use super::{Shared, birth, datagram, descriptor, dial, unix};
use crate::address::{Address, Destination, Family};
use crate::caller::{Caller, Flags, Process, Protocol};
use crate::egress::{Reply, Request};
use crate::established::{self, State};
use crate::sockets::{Held, Kind, Outcome, Recalled};
use crate::sys::{self, Notification, Place};

/// How many requests wait for an answer of the egress at most; any more are refused.
const MOST_PENDING: usize = 4096;

/// How many threads wait for a blocking connect that goes nowhere near a proxy.
pub(super) const MOST_SLOW: usize = 64;

/// How long a connection to a listener of this machine takes at most, which accepts quickly.
const LONGEST_WAY: Duration = Duration::from_secs(2);

/// How often a thread that waits for a connection looks whether somebody waits for it.
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

type Introduce = Box<dyn FnOnce(SocketAddr) + Send>;

/// One connect that waits for a decision.
pub(crate) struct Attempt {
    shared: Arc<Shared>,
    id: u64,
    caller: Caller,
    number: i32,
    destination: SocketAddr,
    socket: Socket,
    /// Whether the socket is a blocking one.
    waits: bool,
    /// Counts it as pending for as long as it lives.
    _slot: Slot,
}

/// What is to be connected.
enum Socket {
    /// The caller's own.
    Held(Held),
    /// A new one, to be put in place of the caller's.
    Fresh(Family, Flags),
    /// The new one, and whether its descriptor ends with the program.
    Made(Held, bool),
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
        Address::Kernel if !shared.abilities.own_connects_fail => to_kernel(caller.protocol(number)?),
        Address::Unix(_) | Address::Kernel | Address::Other => local(shared, caller.protocol(number)?),
    }
}

/// A connect to nobody outside: unix, netlink. It goes on by itself, but only where the kernel would keep the app's own TCP
/// sockets from connecting should the address have changed by then.
fn local(shared: &Shared, protocol: Protocol) -> Result<Step, Errno> {
    match protocol {
        Protocol::Tcp(_) | Protocol::Udp(_) => Err(Errno::AFNOSUPPORT),
        Protocol::Unix | Protocol::Netlink if shared.abilities.own_connects_fail => Ok(Step::LetThrough),
        // As the kernel says to whoever has no privilege in this network.
        Protocol::Netlink => Err(Errno::PERM),
        Protocol::Unix | Protocol::Other => Err(Errno::ACCESS),
    }
}

/// A connect to the kernel that may not go on by itself. Netlink sockets are with the kernel from birth, and nothing here connects
/// one to anybody else: so nothing is to be done, but that the kernel would have given the socket a number, which it now gets when
/// it sends.
fn to_kernel(protocol: Protocol) -> Result<Step, Errno> {
    match protocol {
        Protocol::Netlink => Ok(Step::Answer(Ok(()))),
        Protocol::Tcp(_) | Protocol::Udp(_) => Err(Errno::AFNOSUPPORT),
        Protocol::Unix | Protocol::Other => Err(Errno::INVAL),
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
        return datagram::connect(shared, call, inode, family, to.address);
    }
    let slot = Slot::take(shared, |shared| &shared.pending, MOST_PENDING).ok_or(Errno::AGAIN)?;
    let socket = match shared.sockets.take_to_connect(inode, to.address) {
        Some(held) => Socket::Held(held),
        None if shared.sockets.join(inode, to.address, call.id)? => return Ok(Step::Done),
        None => match again(shared, call, inode, to.address)? {
            Some(step) => return Ok(step),
            None => Socket::Fresh(family, caller.flags(number)?),
        },
    };
    let waits = !match &socket {
        Socket::Held(held) | Socket::Made(held, _) => dial::is_nonblocking(&held.socket),
        Socket::Fresh(_, flags) => flags.nonblocking,
    };
    let (shared, destination) = (Arc::clone(shared), to.address);
    let attempt = Attempt { shared, id: call.id, caller, number, destination, socket, waits, _slot: slot };
    let request = Request { destination, nonblocking: !waits, tid: call.tid };
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
        Protocol::Unix | Protocol::Netlink | Protocol::Other => Err(Errno::INVAL),
    }
}

/// A connect of a socket that is in use already: a program that asks how it went, a call that the kernel restarted after a signal
/// (before Linux 5.19), or a socket that listens or was accepted. None if it is in use for nothing, so that another may take its
/// place.
fn again(shared: &Shared, call: &Notification, inode: u64, to: SocketAddr) -> Result<Option<Step>, Errno> {
    let tell = |outcome: Outcome| shared.answer(call.id, outcome.answer.map(|()| 0));
    let past = match shared.sockets.recall(inode, to, tell) {
        Some(Recalled::Told) => return Ok(Some(Step::Done)),
        Some(Recalled::Past(past)) => Some(past),
        None => None,
    };
    Ok(match (established::state_of(inode)?, past) {
        (None, _) => None,
        (Some(State::Connecting), _) => Some(Step::Answer(Err(Errno::ALREADY))),
        (Some(State::Connected), Some(past)) if past.answer == Err(Errno::INPROGRESS) => {
            conclude(shared, call.id, inode, Outcome { answer: Ok(()), told: false, ..past });
            Some(Step::Done)
        }
        (Some(State::Connected | State::Listening), _) => Some(Step::Answer(Err(Errno::ISCONN))),
    })
}

/// connect(2) to nobody. A socket that was never connected stays as it is; of one that was, a fresh one takes the place.
fn disconnect(shared: &Arc<Shared>, call: &Notification, inode: u64) -> Result<Step, Errno> {
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    if let Some(held) = shared.sockets.get(inode) {
        if held.kind == Kind::Udp {
            rustix::net::connect_unspec(&held.socket)?;
        }
        return Ok(Step::Answer(Ok(())));
    }
    if shared.pairs.family_of(inode).is_some() {
        return Ok(Step::Answer(Ok(())));
    }
    let Protocol::Tcp(family) = caller.protocol(number)? else {
        // Datagram sockets can't send, whatever they are connected to; of the rest none is of the internet.
        return if shared.abilities.own_connects_fail { Ok(Step::LetThrough) } else { unix::disconnect(shared, call, inode) };
    };
    let flags = caller.flags(number)?;
    let socket = birth::tcp(family, socket_flags(flags))?;
    let held = Held::new(socket, family, Kind::Tcp)?.of(caller);
    let copy = Arc::clone(&held.socket);
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
        self.establish(to, None, None);
    }

    pub(crate) fn through(self, proxy: SocketAddr, introduce: Introduce) {
        self.establish(proxy, Some(introduce), Some(LONGEST_WAY));
    }

    /// Begins to connect, and waits for it on a thread of its own if it is not over at once. Nothing here waits itself: whoever
    /// called has other things to do.
    fn establish(mut self, to: SocketAddr, introduce: Option<Introduce>, longest: Option<Duration>) {
        let held = match self.make() {
            Ok(held) => held,
            Err(errno) => return self.fail(errno),
        };
        match dial::begin(&self.shared, &held, to, self.waits) {
            Err(Errno::INPROGRESS) if self.waits => self.wait_elsewhere(held, to, introduce, longest),
            begun => {
                drop(held);
                self.finish(begun, introduce);
            }
        }
    }

    /// The socket to connect; made now if it is to be a fresh one.
    fn make(&mut self) -> Result<Held, Errno> {
        if let Socket::Fresh(family, flags) = self.socket {
            let made = Held::new(birth::tcp(family, socket_flags(flags))?, family, Kind::Tcp)?;
            self.socket = Socket::Made(made, flags.close_on_exec);
        }
        match &self.socket {
            Socket::Held(held) | Socket::Made(held, _) => Ok(held.clone()),
            Socket::Fresh(..) => Err(Errno::BADF),
        }
    }

    fn wait_elsewhere(self, held: Held, to: SocketAddr, introduce: Option<Introduce>, longest: Option<Duration>) {
        let Some(slot) = Slot::take(&self.shared, |shared| &shared.slow, MOST_SLOW) else {
            return self.give_up(held, Errno::AGAIN);
        };
        let (shared, id, inode) = (Arc::clone(&self.shared), self.id, held.inode);
        let work = move || {
            let _slot = slot;
            match self.wait(&held, to, longest) {
                connected @ (Ok(()) | Err(Errno::INPROGRESS)) => {
                    drop(held);
                    self.finish(connected, introduce);
                }
                Err(errno) => self.give_up(held, errno),
            }
        };
        if thread::Builder::new().name("confine-connect".into()).spawn(work).is_err() {
            // The socket went with the thread that is not.
            for id in shared.sockets.over(inode).into_iter().chain([id]) {
                shared.answer(id, Err(Errno::AGAIN));
            }
        }
    }

    /// Waits for the connection, for as long as somebody waits for the answer.
    fn wait(&self, held: &Held, to: SocketAddr, longest: Option<Duration>) -> Result<(), Errno> {
        let since = Instant::now();
        let callers = sockopt::socket_timeout(&held.socket, sockopt::Timeout::Send)?;
        let mut awaited = since;
        while !dial::is_over(&held.socket, GLANCE) {
            if longest.is_some_and(|longest| since.elapsed() >= longest) {
                return Err(Errno::TIMEDOUT);
            }
            if callers.is_some_and(|callers| since.elapsed() >= callers) {
                // As connect(2) with SO_SNDTIMEO (socket(7)).
                return Err(Errno::INPROGRESS);
            }
            if self.is_awaited() || self.shared.sockets.is_joined(held.inode, |call| self.shared.waits(call)) {
                awaited = Instant::now();
            } else if self.shared.abilities.waits_until_killed || awaited.elapsed() > LONGEST_WAY {
                return Err(Errno::INTR);
            }
        }
        // What is not over by now is ended.
        dial::end(&self.shared, held, to).map_err(|errno| if errno == Errno::ALREADY { Errno::TIMEDOUT } else { errno })
    }

    /// Ends the attempt of the socket itself, and fails.
    fn give_up(self, held: Held, errno: Errno) {
        let _ = self.shared.watched.run(|| rustix::net::connect_unspec(&held.socket));
        drop(held);
        self.fail(errno);
    }

    /// The socket is connected, or is being connected; or not.
    fn finish(self, connected: Result<(), Errno>, introduce: Option<Introduce>) {
        if !matches!(connected, Ok(()) | Err(Errno::INPROGRESS)) {
            return self.fail(connected.err().unwrap_or(Errno::ACCESS));
        }
        let own = match self.hand_over() {
            Ok(own) => own,
            Err(errno) => return self.fail(errno),
        };
        let (Socket::Held(held) | Socket::Made(held, _)) = self.socket else { return };
        let (inode, stands_in) = (held.inode, introduce.is_some().then_some(held.family));
        // Let go before the app hears of it, so that what it closes is closed. If it has closed it, this is the close that lingers.
        self.shared.watched.run(|| held.let_go());
        let outcome = Outcome { destination: self.destination, answer: connected, told: false, stands_in };
        conclude(&self.shared, self.id, inode, outcome);
        // The app need not wait for this.
        if let Some(introduce) = introduce {
            introduce(own);
        }
    }

    /// What must be done with a connection before the app hears of it. Gives its own address.
    fn hand_over(&self) -> Result<SocketAddr, Errno> {
        let (Socket::Held(held) | Socket::Made(held, _)) = &self.socket else { return Err(Errno::BADF) };
        let own: SocketAddr = rustix::net::getsockname(&held.socket)?.try_into()?;
        if let Socket::Made(held, close_on_exec) = &self.socket {
            let place = Place::Over(self.number);
            sys::give(self.shared.listener.as_fd(), self.id, held.socket.as_fd(), place, *close_on_exec)?;
            self.shared.counts.replaced.fetch_add(1, Ordering::Relaxed);
        }
        Ok(SocketAddr::new(own.ip().to_canonical(), own.port()))
    }

    /// The copy is not kept: most programs close what was refused, and epoll would tell them of it for as long as it is open.
    fn fail(self, errno: Errno) {
        let mut told = vec![self.id];
        if let Socket::Held(held) = self.socket {
            told.extend(self.shared.sockets.over(held.inode));
            self.shared.watched.run(|| held.let_go());
        }
        for id in told {
            self.shared.answer(id, Err(errno));
        }
    }
}

/// Tells whoever waits that a socket is connected, or is being connected.
fn conclude(shared: &Shared, id: u64, inode: u64, outcome: Outcome) {
    shared.sockets.conclude(inode, outcome, |joined, outcome| {
        let answer = if outcome.told { Err(Errno::ISCONN) } else { outcome.answer.map(|()| 0) };
        shared.answer(joined.unwrap_or(id), answer)
    });
}
