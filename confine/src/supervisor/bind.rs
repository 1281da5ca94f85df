//! bind(2) of internet sockets: the address is read once, and the supervisor binds the socket that it holds.
//!
//! The kernel must never read the address of such a call itself: a link-local one names a device, which stays with the socket
//! even if the call fails, and what is connected over it to loopback leaves by that device.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::connect::socket_flags;
use super::{Shared, birth, descriptor, ports, unix};
use crate::address::{self, Family};
use crate::caller::{Caller, Protocol};
use crate::established;
use crate::sockets::{Held, Kind};
use crate::sys::{self, Notification, Place};

/// What is to happen with a call.
enum Step {
    Answer,
    LetThrough,
}

pub(super) fn handle(shared: &Shared, call: &Notification) {
    match look(shared, call) {
        Ok(Step::Answer) => drop(shared.answer(call.id, Ok(0))),
        Ok(Step::LetThrough) => shared.let_through(call.id),
        Err(errno) => drop(shared.answer(call.id, Err(errno))),
    }
}

fn look(shared: &Shared, call: &Notification) -> Result<Step, Errno> {
    let caller = Caller { tid: call.tid };
    let number = descriptor(call);
    // In the kernel's order: first the descriptor, then the address.
    let inode = caller.socket(number)?;
    if shared.sockets.is_underway(inode) || shared.pairs.family_of(inode).is_some() {
        // It has a port already.
        return Err(Errno::INVAL);
    }
    let held = shared.sockets.get(inode);
    let (family, kind) = match (&held, held.is_none().then(|| caller.protocol(number)).transpose()?) {
        (Some(held), _) => (held.family, held.kind),
        (None, Some(Protocol::Tcp(family))) => (family, Kind::Tcp),
        (None, Some(Protocol::Udp(family))) => (family, Kind::Udp),
        // Should the descriptor mean an internet socket by the time the kernel looks: Landlock refuses to bind one of TCP, or a
        // connect finds the device; and whoever sends for one of datagrams looks at what it is bound to by then ([`ports`]).
        (None, Some(Protocol::Unix | Protocol::Netlink)) => {
            unix::let_go(shared, call, inode);
            return Ok(Step::LetThrough);
        }
        (None, _) => return Err(Errno::OPNOTSUPP),
    };
    let to = address::parse_local(&caller.bytes(call.arguments[1], call.arguments[2])?, family)?;
    // Whoever has the address of a nameserver that is not there is asked in its place, by this process as well.
    if shared.names.is_asked(SocketAddr::new(to.ip().to_canonical(), to.port())) {
        return Err(Errno::ACCESS);
    }
    if to.port() != 0 && to.port() < first_free_port() && !caller.may_bind_any_port()? {
        return Err(Errno::ACCESS);
    }
    if !shared.waits(call.id) {
        // What was read may have been another thread's.
        return Err(Errno::INTR);
    }
    match held {
        Some(held) => bind(shared, held, to)?,
        None => replace(shared, call, inode, (family, kind), to)?,
    }
    Ok(Step::Answer)
}

/// Binds a socket that is held, and keeps it, unless it is a server's.
fn bind(shared: &Shared, held: Held, to: SocketAddr) -> Result<(), Errno> {
    let (inode, kind) = (held.inode, held.kind);
    let port = bind_with_patience(shared, &held, to)?;
    shared.sockets.bound(inode, port);
    drop(held);
    if kind == Kind::Udp && to.port() != 0 {
        // It is to receive, and would go on receiving here once the app has closed it.
        shared.sockets.let_go(inode);
    }
    Ok(())
}

/// Returns the port.
fn bind_with_patience(shared: &Shared, held: &Held, to: SocketAddr) -> Result<u16, Errno> {
    let bound = match bind_alone(held, to) {
        Err(Errno::ADDRINUSE) if to.port() != 0 => {
            // The app may have closed the one that is in the way, which only stays open here, or something is sent from there.
            shared.sockets.take_bound(held.kind, to.port(), held.inode).into_iter().for_each(Held::let_go);
            shared.pairs.all_sent();
            bind_alone(held, to)
        }
        bound => bound,
    };
    bound?;
    let local: SocketAddr = rustix::net::getsockname(&held.socket)?.try_into()?;
    Ok(local.port())
}

/// The port of a datagram socket is one that the supervisor may send from, for the app. Who chooses a port wants to know
/// whether it is free, though, which the kernel does not tell where ports are shared; an app that shares it by itself does not.
fn bind_alone(held: &Held, to: SocketAddr) -> Result<(), Errno> {
    if held.kind == Kind::Udp && (to.port() == 0 || !sockopt::socket_reuseport(&held.socket)?) {
        if to.port() != 0 {
            is_free(held, to)?;
        }
        ports::share_port(&held.socket)?;
    }
    rustix::net::bind(&held.socket, &to)
}

/// Fails if another socket is bound there. Whatever else may be wrong with the address is for the app's own socket to say.
fn is_free(held: &Held, to: SocketAddr) -> Result<(), Errno> {
    let domain = if held.family == Family::V4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let other = rustix::net::socket_with(domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&other, sockopt::socket_reuseaddr(&held.socket)?)?;
    if held.family == Family::V6 {
        sockopt::set_ipv6_v6only(&other, sockopt::ipv6_v6only(&held.socket)?)?;
    }
    match rustix::net::bind(&other, &to) {
        Err(Errno::ADDRINUSE) => Err(Errno::ADDRINUSE),
        _ => Ok(()),
    }
}

/// Binds a fresh socket, and puts it in place of one that is not held any more and in use for nothing yet.
fn replace(
    shared: &Shared,
    call: &Notification,
    inode: u64,
    (family, kind): (Family, Kind),
    to: SocketAddr,
) -> Result<(), Errno> {
    let is_used = match kind {
        Kind::Tcp => established::state_of(inode)?.is_some(),
        Kind::Udp => established::udp_port_of(inode)?.is_some(),
    };
    if is_used {
        return Err(Errno::INVAL);
    }
    let number = descriptor(call);
    let flags = (Caller { tid: call.tid }).flags(number)?;
    let socket = match kind {
        Kind::Tcp => birth::tcp(family, socket_flags(flags))?,
        Kind::Udp => birth::receive_only(family, socket_flags(flags) | SocketFlags::CLOEXEC)?,
    };
    let held = Held::new(socket, family, kind)?.of(Caller { tid: call.tid });
    let port = bind_with_patience(shared, &held, to)?;
    sys::give(shared.listener.as_fd(), call.id, held.socket.as_fd(), Place::Over(number), flags.close_on_exec)?;
    if kind == Kind::Tcp || to.port() == 0 {
        let inode = held.inode;
        shared.sockets.hold(held);
        shared.sockets.bound(inode, port);
    }
    Ok(())
}

/// The first port that everybody may bind (`ip_unprivileged_port_start` of ip(7)); 1024 on kernels and in containers that do not
/// tell.
fn first_free_port() -> u16 {
    let told = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    told.ok().and_then(|told| told.trim().parse().ok()).unwrap_or(1024)
}
