//! Unix sockets where Landlock does not keep the app's own TCP sockets from connecting (before Linux 6.7).
//!
//! There a connect must not go on by itself, whatever its address says now: by the time the kernel looks it may say something
//! else. So these sockets, too, are made and connected here; their address is read once, and a path is resolved as the caller
//! would, and with no more rights than it has. What differs from a connect of the app's own: `SO_PEERCRED` tells the
//! supervisor's pid, beside the caller's user and group; a socket that was made long ago is replaced, so that its options and a
//! registration with epoll are lost; one that has a name and was made long ago is refused, and so is a path through procfs but
//! for the caller's own descriptors.

pub(crate) mod held;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use held::{Found, Shareable};

use super::birth::answer_with;
use super::connect::{MOST_SLOW, Slot, Step, socket_flags};
use super::dial::is_nonblocking;
use super::{Shared, descriptor};
use crate::address::{Address, UnixName};
use crate::caller::{Caller, Flags, Protocol};
use crate::established::{self, UnixState};
use crate::identity::Identity;
use crate::resolve::{self, Place};
use crate::sys::{self, Notification, Place as Slotted};

/// How long a connect waits for room before somebody looks whether the caller still does.
const PATIENCE: Duration = Duration::from_millis(250);

/// socket(2): as for the internet, the caller gets a copy.
pub(super) fn birth(shared: &Shared, call: &Notification, kind: i32, protocol: i32) -> Result<(), Errno> {
    let flags = SocketFlags::from_bits_retain((kind & !0xf).cast_unsigned());
    if !(SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).contains(flags) {
        return Err(Errno::INVAL);
    }
    let kind = match kind & 0xf {
        libc::SOCK_STREAM => SocketType::STREAM,
        libc::SOCK_DGRAM => SocketType::DGRAM,
        libc::SOCK_SEQPACKET => SocketType::SEQPACKET,
        _ => return Err(Errno::SOCKTNOSUPPORT),
    };
    if protocol != 0 && protocol != libc::AF_UNIX {
        return Err(Errno::PROTONOSUPPORT);
    }
    let (inode, socket) = make(kind, flags)?;
    shared.unix.hold(inode, socket.clone());
    let given = answer_with(shared, call, &socket.socket, flags.contains(SocketFlags::CLOEXEC));
    if given.is_err() {
        shared.unix.let_go(inode);
    }
    given
}

fn make(kind: SocketType, flags: SocketFlags) -> Result<(u64, Shareable), Errno> {
    let socket = socket_with(AddressFamily::UNIX, kind, flags | SocketFlags::CLOEXEC, None)?;
    Ok((fstat(&socket)?.st_ino, Shareable::new(socket)))
}

/// bind(2) or listen(2). Whoever binds a path may still connect; a listener must end when the app closes it, and so must an
/// abstract name.
pub(super) fn let_go(shared: &Shared, call: &Notification, inode: u64) {
    if shared.unix.get(inode).is_none() {
        return;
    }
    let address = (Caller { tid: call.tid }).address(call.arguments[1], call.arguments[2]);
    let has_path = matches!(address, Ok(Address::Unix(name)) if name.path().is_some());
    if i64::from(call.call) == libc::SYS_bind && has_path {
        shared.unix.let_go_soon(inode);
    } else {
        shared.unix.let_go(inode);
    }
}

/// connect(2) to a unix address.
pub(super) fn connect(shared: &Arc<Shared>, call: &Notification, inode: u64, name: UnixName) -> Result<Step, Errno> {
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    let (Shareable { socket, turn }, replaces) = match shared.unix.find(inode, name, || shared.answer(call.id, Ok(0))) {
        Found::Told => return Ok(Step::Done),
        Found::Held(socket) => (socket, None),
        Found::Nothing => {
            let flags = caller.flags(number)?;
            (replacement(shared, caller, number, inode, flags)?, Some((number, flags)))
        }
    };
    let identity = Identity::of(caller)?;
    let place = name.path().map(|path| Place::of(caller, path)).transpose()?;
    if !shared.waits(call.id) {
        // What was read may have been another thread's.
        return Err(Errno::INTR);
    }
    let waits = !is_nonblocking(&socket) && sockopt::socket_type(&socket)? != SocketType::DGRAM;
    let is_own = identity.is_own()?;
    let attempt = Attempt { shared: Arc::clone(shared), id: call.id, socket, turn, replaces, name, place, waits };
    if is_own && !waits {
        attempt.run(None);
        return Ok(Step::Done);
    }
    let slot = Slot::take(shared, |shared| &shared.slow, MOST_SLOW).ok_or(Errno::AGAIN)?;
    let work = move || {
        let _slot = slot;
        attempt.run(Some(&identity).filter(|_| !is_own));
    };
    // Who has no thread for it has the caller try again.
    thread::Builder::new().name("confine-unix".into()).spawn(work).map(|_| Step::Done).map_err(|_| Errno::AGAIN)
}

/// A fresh socket for one that is not held any more, if it is one that may be replaced.
fn replacement(shared: &Shared, caller: Caller, number: i32, inode: u64, flags: Flags) -> Result<Shareable, Errno> {
    let state = state_of(shared, caller, number, inode)?.ok_or(Errno::ACCESS)?;
    if state.is_connected && state.kind != libc::SOCK_DGRAM {
        return Err(Errno::ISCONN);
    }
    fresh(state, flags)
}

/// A socket like this one, unless it has a name, which only one can have.
fn fresh(state: UnixState, flags: Flags) -> Result<Shareable, Errno> {
    if state.is_named {
        return Err(Errno::ACCESS);
    }
    let kind = u32::try_from(state.kind).map_err(|_| Errno::SOCKTNOSUPPORT)?;
    make(SocketType::from_raw(kind), socket_flags(flags)).map(|(_, socket)| socket)
}

/// What state a socket is in that is not held; none if it is no unix socket.
fn state_of(shared: &Shared, caller: Caller, number: i32, inode: u64) -> Result<Option<UnixState>, Errno> {
    if shared.sockets.look(inode, |_| ()).is_some() || shared.pairs.family_of(inode).is_some() {
        return Err(Errno::AFNOSUPPORT);
    }
    match caller.protocol(number)? {
        Protocol::Tcp(_) | Protocol::Udp(_) => Err(Errno::AFNOSUPPORT),
        Protocol::Unix => Ok(established::unix_state_of(inode)),
        Protocol::Netlink => Ok(None),
        Protocol::Other => Err(Errno::AFNOSUPPORT),
    }
}

/// connect(2) to nobody.
pub(super) fn disconnect(shared: &Shared, call: &Notification, inode: u64) -> Result<Step, Errno> {
    let (caller, number) = (Caller { tid: call.tid }, descriptor(call));
    if let Some(Shareable { socket, .. }) = shared.unix.get(inode) {
        // It is not connected yet.
        let is_datagram = sockopt::socket_type(&socket)? == SocketType::DGRAM;
        return Ok(Step::Answer(if is_datagram { Ok(()) } else { Err(Errno::INVAL) }));
    }
    // Datagram sockets can't send, whatever they are connected to; of the rest none is of the internet.
    let Some(state) = state_of(shared, caller, number, inode)? else { return Ok(Step::Answer(Ok(()))) };
    if state.kind != libc::SOCK_DGRAM {
        return Err(Errno::INVAL);
    }
    let flags = caller.flags(number)?;
    let socket = fresh(state, flags)?;
    shared.unix.hold(fstat(&socket.socket)?.st_ino, socket.clone());
    let over = Slotted::Over(number);
    sys::give(shared.listener.as_fd(), call.id, socket.socket.as_fd(), over, flags.close_on_exec).map(|_| Step::Answer(Ok(())))
}

/// One connect under way.
struct Attempt {
    shared: Arc<Shared>,
    id: u64,
    socket: Arc<OwnedFd>,
    turn: Arc<Mutex<()>>,
    /// The caller's descriptor that it is to take the place of.
    replaces: Option<(i32, Flags)>,
    name: UnixName,
    place: Option<Place>,
    waits: bool,
}

impl Attempt {
    /// Connects as the caller, and tells it. With an identity, the thread is not to be used for anything else.
    fn run(mut self, identity: Option<&Identity>) {
        let turn = Arc::clone(&self.turn);
        let my_turn = if self.waits { Some(turn.lock().unwrap_or_else(PoisonError::into_inner)) } else { turn.try_lock().ok() };
        let inode = fstat(&self.socket).map_or(0, |found| found.st_ino);
        if let Found::Told = self.shared.unix.find(inode, self.name, || self.shared.answer(self.id, Ok(0))) {
            return;
        }
        let done = match my_turn {
            Some(_) => self.connect_as(identity).and_then(|()| self.hand_over()),
            None => Err(Errno::ALREADY),
        };
        if let Err(errno) = done {
            self.shared.answer(self.id, Err(errno));
            return;
        }
        self.shared.unix.conclude(inode, self.name, self.socket, || self.shared.answer(self.id, Ok(0)));
    }

    fn connect_as(&mut self, identity: Option<&Identity>) -> Result<(), Errno> {
        identity.map_or(Ok(()), Identity::take).map_err(|_| Errno::ACCESS)?;
        // Held until it is connected: the address below is that of the descriptor.
        let opened = self.place.take().map(Place::open).transpose()?;
        let address = match (&opened, self.name.abstract_name()) {
            (Some(opened), _) => SocketAddrUnix::new(resolve::own_path(opened))?,
            (None, Some(name)) => SocketAddrUnix::new_abstract_name(name)?,
            (None, None) => return Err(Errno::INVAL),
        };
        if self.waits { self.connect_patiently(&address) } else { rustix::net::connect(&self.socket, &address) }
    }

    /// Waits for room in a listener's queue, for as long as the caller waits and would.
    fn connect_patiently(&self, address: &SocketAddrUnix) -> Result<(), Errno> {
        let begun = Instant::now();
        let limit = sockopt::socket_timeout(&self.socket, Timeout::Send)?;
        sockopt::set_socket_timeout(&self.socket, Timeout::Send, Some(limit.map_or(PATIENCE, |limit| limit.min(PATIENCE))))?;
        let mut connected = rustix::net::connect(&self.socket, address);
        while matches!(connected, Err(Errno::AGAIN | Errno::INTR)) {
            if limit.is_some_and(|limit| begun.elapsed() >= limit) || !self.shared.waits(self.id) {
                break;
            }
            connected = rustix::net::connect(&self.socket, address);
        }
        sockopt::set_socket_timeout(&self.socket, Timeout::Send, limit)?;
        connected
    }

    fn hand_over(&self) -> Result<(), Errno> {
        let Some((number, flags)) = self.replaces else { return Ok(()) };
        let over = Slotted::Over(number);
        sys::give(self.shared.listener.as_fd(), self.id, self.socket.as_fd(), over, flags.close_on_exec).map(drop)
    }
}
