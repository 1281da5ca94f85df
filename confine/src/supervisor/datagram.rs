//! Datagrams: sockets of the app can't send any, so that all that remains is what is done for them here: DNS, and what the egress
//! lets pass ([`relay`]).
//!
//! A socket that is connected to a nameserver is replaced by one end of a pair whose other end is read here. What it is asked
//! of its addresses is answered so that it looks like what it stands for. A query that is sent without connecting is taken from
//! the caller's memory, and what is allowed of it is sent from the same port.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::connect::{MOST_SLOW, Slot, Step, is_nonblocking, socket_flags};
use super::relay::{self, MOST_RELAYS, OUTSIDE, Relay};
use super::{Shared, descriptor};
use crate::address::{self, Address, Family};
use crate::caller::{Caller, Protocol};
use crate::established;
use crate::names::{Answer, Query};
use crate::sockets::{Held, Kind};
use crate::sys::{self, Notification, Place};

/// How many sockets stand for one connected to a nameserver at most; the oldest goes. A lookup has one or two for a moment, a
/// program that keeps its own a few for long.
const MOST_PAIRS: usize = 128;

/// The longest query that is read. By UDP few are longer than 512 bytes (RFC 1035 section 2.3.4).
const LONGEST_QUERY: usize = 4096;

/// The longest answer, as of UDP.
const LONGEST_ANSWER: usize = 65_535;

/// The inode that no socket has.
const NO_PAIR: u64 = 0;

/// How often a receiver that waits is looked after, in nanoseconds.
const PATIENCE: i64 = 250_000_000;

/// A socket that stands for one connected to a nameserver, or to whom datagrams may go.
#[derive(Debug)]
pub(super) struct Pair {
    /// The app's end, which it has as well.
    app: Arc<OwnedFd>,
    /// Our end.
    here: Arc<OwnedFd>,
    peer: SocketAddr,
    local: SocketAddr,
    family: Family,
    /// Whom it is passed on to, if that is no nameserver.
    pub(super) relay: Option<Relay>,
}

/// All pairs of one confinement.
#[derive(Debug)]
pub(crate) struct Pairs {
    table: Mutex<Table>,
    readable: OwnedFd,
    alarm: OwnedFd,
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
    Port { local: SocketAddr, family: Family, nameserver: SocketAddr },
}

impl Asker {
    pub(crate) fn tell(&self, answer: &[u8], instead: &[u8]) {
        // As with any datagram, nobody hears of it if it is lost.
        let _ = match self {
            Asker::Pair(here) => rustix::net::send(here, answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map(drop),
            Asker::Port { local, family, nameserver } => send_from(*local, *family, *nameserver, instead),
        };
    }
}

/// Sends from a port that the app has, too; the answer is for the app, whose socket was there first.
pub(super) fn send_from(local: SocketAddr, family: Family, nameserver: SocketAddr, message: &[u8]) -> Result<(), Errno> {
    let domain = if family == Family::V4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(domain, SocketType::DGRAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &local)?;
    let nameserver = address::for_family(nameserver, family).ok_or(Errno::AFNOSUPPORT)?;
    rustix::net::sendto(&socket, message, SendFlags::NOSIGNAL, &nameserver).map(drop)
}

impl Pairs {
    pub(crate) fn new() -> Result<Self, Errno> {
        let readable = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&readable, &alarm, epoll::EventData::new_u64(NO_PAIR), epoll::EventFlags::IN)?;
        Ok(Pairs { table: Mutex::default(), readable, alarm })
    }

    /// Wakes whoever waits for queries.
    pub(crate) fn wake(&self) {
        // It has one number to hold, which fits.
        let _ = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
    }

    fn get(&self, inode: u64) -> Option<Arc<Pair>> {
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

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Returns those that had to go.
    fn add(&mut self, inode: u64, pair: Pair) -> Vec<Arc<Pair>> {
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

/// Reads what is asked and sent through pairs; at most this long, if nothing is.
pub(super) fn serve_queries(shared: &Shared, patience: Duration) {
    let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 16];
    let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    let Ok((ready, _)) = epoll::wait(&shared.pairs.readable, &mut events, Some(&patience)) else { return };
    for event in ready {
        let token = event.data.u64();
        let Some(pair) = shared.pairs.get(token & !OUTSIDE) else { continue };
        match &pair.relay {
            Some(relay) => relay.pass(&pair.here, token & OUTSIDE != 0),
            None => read_query(shared, &pair),
        }
    }
}

fn read_query(shared: &Shared, pair: &Pair) {
    let mut message = vec![0; LONGEST_QUERY];
    let Ok((length, whole)) = rustix::net::recv(&pair.here, &mut message[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) else {
        return;
    };
    if whole > LONGEST_QUERY {
        return;
    }
    message.truncate(length);
    let query = Query { nameserver: pair.peer, message };
    shared.names.query(query, Answer::new(Asker::Pair(Arc::clone(&pair.here))));
}

/// connect(2) of a datagram socket.
pub(super) fn connect(shared: &Shared, call: &Notification, family: Family, to: SocketAddr) -> Result<Step, Errno> {
    let relay = match shared.names.is_nameserver(to) {
        true => None,
        false if shared.egress.datagram(to) => Some(Relay::new(to)?),
        // Who looks for a source address by connecting learns that there is none.
        false => return Err(Errno::NETUNREACH),
    };
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    let flags = caller.flags(number)?;
    let pair_flags = SocketFlags::CLOEXEC | socket_flags(flags);
    let (app, here) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, pair_flags, None)?;
    let inode = rustix::fs::fstat(&app)?.st_ino;
    let local = relay.as_ref().map_or_else(|| source_for(to), Relay::local)?;
    let pair = Pair { app: Arc::new(app), here: Arc::new(here), peer: to, local, family, relay };
    let app = Arc::clone(&pair.app);
    shared.pairs.add(inode, pair)?;
    sys::give(shared.listener.as_fd(), call.id, app.as_fd(), Place::Over(number), flags.close_on_exec)?;
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
            Protocol::Tcp(_) | Protocol::Other => return Ok(None),
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
        _ => Asker::Port { local: local_address(shared, inode, family)?, family, nameserver: to.address },
    };
    let message = read_message(caller, call, LONGEST_QUERY)?;
    if !shared.waits(call.id) {
        return Err(Errno::INTR);
    }
    let length = i64::try_from(message.len()).map_err(|_| Errno::MSGSIZE)?;
    shared.names.query(Query { nameserver: to.address, message }, Answer::new(asker));
    Ok(Some(length))
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

/// Has the port of this socket be one that the supervisor may send from, for the app. That is for ports that the kernel
/// chooses: of those that the app chooses it may want to know whether they are free.
pub(super) fn prepare_to_bind(call: &Notification, held: &Held) {
    let address = (Caller { tid: call.tid }).address(call.arguments[1], call.arguments[2]);
    if i64::from(call.call) == libc::SYS_bind && matches!(address, Ok(Address::Internet(to)) if to.address.port() == 0) {
        // Without it, what is sent from there does not arrive.
        let _ = share_port(&held.socket);
    }
}

/// Others of this user may use the port of this socket as well; it is the one that receives.
fn share_port(socket: &OwnedFd) -> Result<(), Errno> {
    rustix::net::sockopt::set_socket_reuseport(socket, true)?;
    sys::first_of_group_receives(socket.as_fd())
}

/// The address of a datagram socket, which is bound if it was not.
pub(super) fn local_address(shared: &Shared, inode: u64, family: Family) -> Result<SocketAddr, Errno> {
    let any = match family {
        Family::V4 => SocketAddr::from(([0, 0, 0, 0], 0)),
        Family::V6 => SocketAddr::from(([0_u16; 8], 0)),
    };
    let bound = shared.sockets.look(inode, |held| {
        let local: SocketAddr = rustix::net::getsockname(&held.socket)?.try_into()?;
        if local.port() == 0 {
            share_port(&held.socket)?;
            rustix::net::bind(&held.socket, &any)?;
        }
        rustix::net::getsockname(&held.socket)?.try_into()
    });
    bound.unwrap_or_else(|| {
        let port = established::udp_port_of(inode).ok_or(Errno::ADDRNOTAVAIL)?;
        Ok(SocketAddr::new(any.ip(), port))
    })
}

/// recvfrom(2) with an address, getsockname(2), getpeername(2): of a pair they are answered, others go on.
pub(super) fn look_like_internet(shared: &Arc<Shared>, call: &Notification) {
    let pair = (Caller { tid: call.tid }).socket(descriptor(call)).ok().and_then(|inode| shared.pairs.get(inode));
    // A caller that may be interrupted may use its memory for something else by the time it is written to.
    let Some(pair) = pair.filter(|_| shared.abilities.waits_until_killed) else { return shared.let_through(call.id) };
    match i64::from(call.call) {
        libc::SYS_getsockname => name(shared, call, pair.local, pair.family),
        libc::SYS_getpeername => name(shared, call, pair.peer, pair.family),
        _ => receive(shared, *call, &pair),
    }
}

fn name(shared: &Shared, call: &Notification, address: SocketAddr, family: Family) {
    let caller = Caller { tid: call.tid };
    let written = write_address(caller, address, family, call.arguments[1], call.arguments[2]);
    shared.answer(call.id, written.map(|()| 0));
}

/// As `move_addr_to_user` of the kernel: as much as there is room for, and the whole length.
fn write_address(caller: Caller, address: SocketAddr, family: Family, to: u64, length_at: u64) -> Result<(), Errno> {
    let bytes = address::to_bytes(address, family);
    let mut room = [0; 4];
    caller.read(length_at, &mut room)?;
    let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| Errno::INVAL)?;
    caller.write(to, &bytes[..room.min(bytes.len())])?;
    caller.write(length_at, &u32::try_from(bytes.len()).unwrap_or(0).to_ne_bytes())
}

fn receive(shared: &Arc<Shared>, call: Notification, pair: &Arc<Pair>) {
    let waits = RecvFlags::from_bits_retain((call.arguments[3] & 0xffff_ffff) as u32);
    let received = receive_now(call, pair);
    if received != Err(Errno::AGAIN) || waits.contains(RecvFlags::DONTWAIT) || is_nonblocking(&pair.app) {
        shared.answer(call.id, received);
        return;
    }
    let Some(slot) = Slot::take(shared, |shared| &shared.slow, MOST_SLOW) else {
        shared.answer(call.id, Err(Errno::AGAIN));
        return;
    };
    let (pair, waiting) = (Arc::clone(pair), Arc::clone(shared));
    let wait = move || {
        let _slot = slot;
        let mut received = Err(Errno::AGAIN);
        while received == Err(Errno::AGAIN) && waiting.waits(call.id) {
            let mut polled = [PollFd::new(&*pair.app, PollFlags::IN)];
            let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: PATIENCE }));
            received = receive_now(call, &pair);
        }
        waiting.answer(call.id, received);
    };
    if thread::Builder::new().name("confine-receive".into()).spawn(wait).is_err() {
        shared.answer(call.id, Err(Errno::AGAIN));
    }
}

fn receive_now(call: Notification, pair: &Pair) -> Result<i64, Errno> {
    pair.relay.as_ref().map_or(Ok(()), Relay::take_error)?;
    let caller = Caller { tid: call.tid };
    let [_, buffer, room, flags, address, length_at] = call.arguments;
    let flags = RecvFlags::from_bits_retain((flags & 0xffff_ffff) as u32);
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(LONGEST_ANSWER);
    let mut message = vec![0; room];
    let kept = flags & (RecvFlags::PEEK | RecvFlags::TRUNC);
    let (length, whole) = rustix::net::recv(&*pair.app, &mut message[..], kept | RecvFlags::DONTWAIT)?;
    caller.write(buffer, message.get(..length.min(room)).ok_or(Errno::FAULT)?)?;
    write_address(caller, pair.peer, pair.family, address, length_at)?;
    let told = if flags.contains(RecvFlags::TRUNC) { whole } else { length.min(room) };
    i64::try_from(told).map_err(|_| Errno::MSGSIZE)
}
