//! Datagrams: sockets of the app can't send any, so that all that remains is what is done for them here: DNS, and what the egress
//! lets pass ([`relay`]).
//!
//! A socket that is connected to a nameserver is replaced by one end of a pair whose other end is read here; who has registered it
//! with epoll before must do it again. What it is asked of its addresses is answered so that it looks like what it stands for. A
//! query that is sent without connecting is taken from the caller's memory, and what is allowed of it is sent from the same port.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::connect::{MOST_SLOW, Slot, Step, socket_flags};
use super::dial::is_nonblocking;
use super::ports::{Sending, local_address, send_from};
use super::relay::{self, MOST_RELAYS, OUTSIDE, Relay};
use super::{Shared, descriptor, earnest, readers};
use crate::address::{self, Address, Family};
use crate::caller::{Caller, Memory, Process, Protocol};
use crate::names::Query;
use crate::sockets::{self, Kind};
use crate::sys::{self, Notification, Place};

/// How many sockets stand for one connected to a nameserver at most; the oldest goes. A lookup has one or two for a moment, a
/// program that keeps its own a few for long.
const MOST_PAIRS: usize = 128;

/// The longest query that is read. By UDP few are longer than 512 bytes (RFC 1035 section 2.3.4).
pub(super) const LONGEST_QUERY: usize = 4096;

/// The longest answer, as of UDP.
const LONGEST_ANSWER: usize = 65_535;

/// The inode that no socket has.
const NO_PAIR: u64 = 0;

/// How often a receiver that waits is looked after.
const PATIENCE: Duration = Duration::from_millis(250);

/// A socket that stands for one connected to a nameserver, or to whom datagrams may go.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The app's end, for as long as the app seems to have it as well.
    app: Mutex<Option<Arc<OwnedFd>>>,
    /// Our end.
    pub(super) here: Arc<OwnedFd>,
    pub(super) peer: SocketAddr,
    local: SocketAddr,
    family: Family,
    /// Whom it is passed on to, if that is no nameserver.
    pub(super) relay: Option<Relay>,
    /// Who connected it.
    caller: Caller,
    pub(super) process: Option<Process>,
    born: Instant,
}

impl Pair {
    fn app(&self) -> Option<Arc<OwnedFd>> {
        self.app.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All pairs of one confinement.
#[derive(Debug)]
pub(crate) struct Pairs {
    table: Mutex<Table>,
    pub(super) readable: OwnedFd,
    alarm: OwnedFd,
    sending: Sending,
}

#[derive(Debug, Default)]
struct Table {
    /// By the inode of the app's end.
    pairs: HashMap<u64, Arc<Pair>>,
    order: VecDeque<u64>,
    /// Of those that are passed on.
    relays: HashSet<u64>,
}

/// Who asked, and how to answer.
#[derive(Debug)]
pub(crate) enum Asker {
    /// Through a pair.
    Pair(Arc<OwnedFd>),
    /// From this address, to that nameserver.
    Port { local: SocketAddr, family: Family, nameserver: SocketAddr, sending: Sending },
}

impl Asker {
    pub(crate) fn tell(&self, answer: &[u8], instead: &[u8]) {
        // As with any datagram, nobody hears of it if it is lost.
        let _ = match self {
            Asker::Pair(here) => rustix::net::send(here, answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map(drop),
            Asker::Port { local, family, nameserver, sending } => {
                let _sending = sending.read().unwrap_or_else(PoisonError::into_inner);
                send_from(*local, *family, *nameserver, instead)
            }
        };
    }
}

impl Pairs {
    pub(crate) fn new() -> Result<Self, Errno> {
        let readable = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&readable, &alarm, epoll::EventData::new_u64(NO_PAIR), epoll::EventFlags::IN)?;
        Ok(Pairs { table: Mutex::default(), readable, alarm, sending: Arc::default() })
    }

    /// Waits until nobody sends from a port of the app, which takes a call or two.
    pub(super) fn all_sent(&self) {
        drop(self.sending.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Wakes whoever waits for queries.
    pub(crate) fn wake(&self) {
        // It has one number to hold, which fits.
        let _ = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
    }

    pub(super) fn get(&self, inode: u64) -> Option<Arc<Pair>> {
        self.table().pairs.get(&inode).cloned()
    }

    /// The family that the app takes it for, if it is a pair.
    pub(super) fn family_of(&self, inode: u64) -> Option<Family> {
        self.table().pairs.get(&inode).map(|pair| pair.family)
    }

    fn add(&self, inode: u64, pair: Pair) -> Result<(), Errno> {
        let event = epoll::EventData::new_u64(inode);
        epoll::add(&self.readable, &pair.here, event, epoll::EventFlags::IN)?;
        if let Some(relay) = &pair.relay {
            let event = epoll::EventData::new_u64(inode | OUTSIDE);
            epoll::add(&self.readable, &relay.socket, event, epoll::EventFlags::IN)?;
        }
        let gone = self.table().add(inode, pair);
        // Whoever waits on it may keep it open a while.
        for pair in gone {
            let _ = epoll::delete(&self.readable, &pair.here);
            if let Some(relay) = &pair.relay {
                let _ = epoll::delete(&self.readable, &relay.socket);
            }
        }
        Ok(())
    }

    /// Lets go of the app's end of those that are older than this and that `has` says nobody has any more; what epoll has
    /// registered goes with it. Of the others' ends nobody knows, and they stay until there are too many.
    pub(super) fn let_go(&self, older: Duration, mut has: impl FnMut(Caller, u64) -> bool) {
        let old = |(inode, pair): (&u64, &Arc<Pair>)| (pair.born.elapsed() > older).then(|| (*inode, Arc::clone(pair)));
        let old: Vec<(u64, Arc<Pair>)> = self.table().pairs.iter().filter_map(old).collect();
        for (inode, pair) in old {
            if pair.app().is_some() && !has(pair.caller, inode) {
                let gone = pair.app.lock().unwrap_or_else(PoisonError::into_inner).take();
                drop(gone);
            }
        }
    }

    /// A pair that hung whoever read from it is read no more.
    pub(super) fn remove(&self, inode: u64) {
        let removed = self.table().pairs.remove(&inode);
        if let Some(pair) = removed {
            let _ = epoll::delete(&self.readable, &pair.here);
            if let Some(relay) = &pair.relay {
                let _ = epoll::delete(&self.readable, &relay.socket);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Returns those that had to go.
    fn add(&mut self, inode: u64, pair: Pair) -> Vec<Arc<Pair>> {
        self.order.retain(|other| *other != inode);
        self.relays.remove(&inode);
        if pair.relay.is_some() {
            self.relays.insert(inode);
        } else {
            self.order.push_back(inode);
        }
        let mut gone: Vec<_> = self.pairs.insert(inode, Arc::new(pair)).into_iter().collect();
        while self.order.len() > MOST_PAIRS {
            let oldest = self.order.pop_front();
            gone.extend(oldest.and_then(|oldest| self.pairs.remove(&oldest)));
        }
        while self.relays.len() > MOST_RELAYS {
            let used = |inode: &u64| self.pairs.get(inode).and_then(|pair| pair.relay.as_ref()).map(Relay::used);
            let Some(idlest) = self.relays.iter().copied().min_by_key(used) else { break };
            self.relays.remove(&idlest);
            gone.extend(self.pairs.remove(&idlest));
        }
        gone
    }
}

/// connect(2) of a datagram socket.
pub(super) fn connect(shared: &Shared, call: &Notification, inode: u64, family: Family, to: SocketAddr) -> Result<Step, Errno> {
    let relay = match shared.names.is_nameserver(to) {
        true => None,
        false if shared.egress.datagram(to) => Some(Relay::new(to)?),
        false => return earnest::connect(shared, call, inode, family, to),
    };
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    let flags = caller.flags(number)?;
    let pair_flags = SocketFlags::CLOEXEC | socket_flags(flags);
    let (app, here) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, pair_flags, None)?;
    sockets::sys::refuse_rights(here.as_fd());
    if let Some(held) = shared.sockets.get(inode) {
        earnest::carry_options(&held.socket, &app);
    }
    let local = relay.as_ref().map_or_else(|| source_for(to), Relay::local)?;
    let app = Arc::new(app);
    let process = caller.process().filter(|_| shared.waits(call.id));
    let pair = Pair {
        app: Mutex::new(Some(Arc::clone(&app))),
        here: Arc::new(here),
        peer: to,
        local,
        family,
        relay,
        caller,
        process,
        born: Instant::now(),
    };
    shared.pairs.add(rustix::fs::fstat(&app)?.st_ino, pair)?;
    sys::give(shared.listener.as_fd(), call.id, app.as_fd(), Place::Over(number), flags.close_on_exec)?;
    // Another socket has taken its place.
    shared.sockets.let_go(inode);
    Ok(Step::Answer(Ok(())))
}

/// The address that a socket would have which is connected there. Nothing is sent.
fn source_for(to: SocketAddr) -> Result<SocketAddr, Errno> {
    let domain = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &to)?;
    rustix::net::getsockname(&socket)?.try_into()
}

/// sendto(2) with an address.
pub(super) fn send(shared: &Shared, call: &Notification) {
    match look_at_send(shared, call) {
        Ok(Some(length)) => drop(shared.answer(call.id, Ok(length))),
        // Of sockets other than of datagrams none looks at the address, or none leads outside; and should the descriptor mean
        // another one by the time the kernel looks: none of the app's datagram sockets can send.
        Ok(None) => shared.let_through(call.id),
        Err(errno) => drop(shared.answer(call.id, Err(errno))),
    }
}

/// How much was sent; none if the call is of no concern.
fn look_at_send(shared: &Shared, call: &Notification) -> Result<Option<i64>, Errno> {
    let caller = Caller { tid: call.tid };
    let inode = caller.socket(descriptor(call))?;
    let pair = shared.pairs.get(inode);
    let family = match (&pair, shared.sockets.look(inode, |held| (held.kind, held.family))) {
        (Some(pair), _) => pair.family,
        (None, Some((Kind::Udp, family))) => family,
        (None, Some((Kind::Tcp, _))) => return Ok(None),
        (None, None) => match caller.protocol(descriptor(call))? {
            Protocol::Udp(family) => family,
            Protocol::Tcp(_) | Protocol::Unix | Protocol::Netlink | Protocol::Other => return Ok(None),
        },
    };
    let Address::Internet(to) = caller.address(call.arguments[4], call.arguments[5])? else {
        return Err(Errno::AFNOSUPPORT);
    };
    if !shared.names.is_nameserver(to.address) {
        let may = shared.egress.datagram(to.address);
        return if may { relay::send(shared, call, (inode, pair), family, to.address).map(Some) } else { Err(Errno::ACCESS) };
    }
    let asker = match pair {
        Some(pair) if pair.relay.is_none() => Asker::Pair(Arc::clone(&pair.here)),
        _ => {
            let (local, sending) = (local_address(shared, inode, family)?, Arc::clone(&shared.pairs.sending));
            Asker::Port { local, family, nameserver: to.address, sending }
        }
    };
    let message = read_message(caller, call, LONGEST_QUERY)?;
    if !shared.waits(call.id) {
        return Err(Errno::INTR);
    }
    let length = i64::try_from(message.len()).map_err(|_| Errno::MSGSIZE)?;
    let process = caller.process().filter(|_| shared.waits(call.id));
    let query = Query { nameserver: to.address, message, process };
    let is_refused = matches!(asker, Asker::Port { .. }) && shared.names.refuses(&query);
    readers::ask(shared, query, asker);
    if is_refused { Err(Errno::CONNREFUSED) } else { Ok(Some(length)) }
}

pub(super) fn read_message(caller: Caller, call: &Notification, longest: usize) -> Result<Vec<u8>, Errno> {
    let length = usize::try_from(call.arguments[2]).map_err(|_| Errno::MSGSIZE)?;
    if length > longest {
        return Err(Errno::MSGSIZE);
    }
    let mut message = vec![0; length];
    caller.read(call.arguments[1], &mut message)?;
    Ok(message)
}

/// recvfrom(2) with an address, getsockname(2), getpeername(2): of a pair they are answered, and so is the peer of a connection that
/// leads to somebody who stands for it; others go on.
pub(super) fn look_like_internet(shared: &Arc<Shared>, call: &Notification) {
    let inode = (Caller { tid: call.tid }).socket(descriptor(call)).ok();
    // A caller that may be interrupted may use its memory for something else by the time it is written to.
    let Some(inode) = inode.filter(|_| shared.abilities.waits_until_killed) else { return shared.let_through(call.id) };
    let Some(pair) = shared.pairs.get(inode) else {
        let peer = shared.sockets.peer_of(inode).filter(|_| i64::from(call.call) == libc::SYS_getpeername);
        return match peer {
            Some((peer, family)) => name(shared, call, peer, family),
            None => shared.let_through(call.id),
        };
    };
    match i64::from(call.call) {
        libc::SYS_getsockname => name(shared, call, pair.local, pair.family),
        libc::SYS_getpeername => name(shared, call, pair.peer, pair.family),
        _ => match pair.app() {
            Some(app) => receive(shared, *call, &pair, &app),
            // The app has it in places where nobody found it.
            None => shared.let_through(call.id),
        },
    }
}

fn name(shared: &Shared, call: &Notification, address: SocketAddr, family: Family) {
    let memory = (Caller { tid: call.tid }).memory(|| shared.waits(call.id));
    let written = memory.and_then(|memory| write_address(&memory, address, family, call.arguments[1], call.arguments[2]));
    shared.answer(call.id, written.map(|()| 0));
}

/// As `move_addr_to_user` of the kernel: as much as there is room for, and the whole length.
fn write_address(memory: &Memory, address: SocketAddr, family: Family, to: u64, length_at: u64) -> Result<(), Errno> {
    let bytes = address::to_bytes(address, family);
    let mut room = [0; 4];
    memory.read(length_at, &mut room)?;
    let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| Errno::INVAL)?;
    memory.write(to, &bytes[..room.min(bytes.len())])?;
    memory.write(length_at, &u32::try_from(bytes.len()).unwrap_or(0).to_ne_bytes())
}

fn receive(shared: &Arc<Shared>, call: Notification, pair: &Arc<Pair>, app: &Arc<OwnedFd>) {
    let memory = match (Caller { tid: call.tid }).memory(|| shared.waits(call.id)) {
        Ok(memory) => memory,
        Err(errno) => {
            shared.answer(call.id, Err(errno));
            return;
        }
    };
    let waits = RecvFlags::from_bits_retain((call.arguments[3] & 0xffff_ffff) as u32);
    let received = receive_now(&memory, &call, pair, app);
    if received != Err(Errno::AGAIN) || waits.contains(RecvFlags::DONTWAIT) || is_nonblocking(app) {
        shared.answer(call.id, received);
        return;
    }
    let Some(slot) = Slot::take(shared, |shared| &shared.slow, MOST_SLOW) else {
        shared.answer(call.id, Err(Errno::AGAIN));
        return;
    };
    let (pair, app, waiting) = (Arc::clone(pair), Arc::clone(app), Arc::clone(shared));
    let longest = sockopt::socket_timeout(&app, Timeout::Recv).ok().flatten();
    let wait = move || {
        let _slot = slot;
        let mut received = Err(Errno::AGAIN);
        let since = Instant::now();
        while received == Err(Errno::AGAIN) && waiting.waits(call.id) {
            let left = longest.map_or(PATIENCE, |longest| PATIENCE.min(longest.saturating_sub(since.elapsed())));
            if left.is_zero() {
                break;
            }
            let mut polled = [PollFd::new(&app, PollFlags::IN)];
            let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() }));
            received = receive_now(&memory, &call, &pair, &app);
        }
        waiting.answer(call.id, received);
    };
    if thread::Builder::new().name("confine-receive".into()).spawn(wait).is_err() {
        shared.answer(call.id, Err(Errno::AGAIN));
    }
}

fn receive_now(memory: &Memory, call: &Notification, pair: &Pair, app: &OwnedFd) -> Result<i64, Errno> {
    pair.relay.as_ref().map_or(Ok(()), Relay::take_error)?;
    let [_, buffer, room, flags, address, length_at] = call.arguments;
    let flags = RecvFlags::from_bits_retain((flags & 0xffff_ffff) as u32);
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(LONGEST_ANSWER);
    let mut message = vec![0; room];
    let kept = flags & (RecvFlags::PEEK | RecvFlags::TRUNC);
    let (length, whole) = rustix::net::recv(app, &mut message[..], kept | RecvFlags::DONTWAIT)?;
    memory.write(buffer, message.get(..length.min(room)).ok_or(Errno::FAULT)?)?;
    write_address(memory, pair.peer, pair.family, address, length_at)?;
    let told = if flags.contains(RecvFlags::TRUNC) { whole } else { length.min(room) };
    i64::try_from(told).map_err(|_| Errno::MSGSIZE)
}
