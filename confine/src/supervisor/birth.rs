//! socket(2) of the families that are asked about: the socket is made here, given to the caller, and held.
//!
//! The filter lets through only what is known here; it is looked at again all the same.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, ipproto, shutdown, socket_with};

use super::Shared;
use crate::address::Family;
use crate::caller::Caller;
use crate::sockets::{Held, Kind};
use crate::sys::{self, Notification, Place};

pub(super) fn handle(shared: &Shared, call: &Notification) {
    if let Err(errno) = deliver(shared, call) {
        shared.answer(call.id, Err(errno));
    }
}

fn deliver(shared: &Shared, call: &Notification) -> Result<(), Errno> {
    let int = |index: usize| ((call.arguments[index] & 0xffff_ffff) as u32).cast_signed();
    let family = match int(0) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        libc::AF_UNIX => return super::unix::birth(shared, call, int(1), int(2)),
        _ => return Err(Errno::AFNOSUPPORT),
    };
    let flags = SocketFlags::from_bits_retain((int(1) & !0xf).cast_unsigned());
    if !(SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).contains(flags) {
        return Err(Errno::INVAL);
    }
    let kind = match (int(1) & 0xf, int(2)) {
        (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => Kind::Tcp,
        (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => Kind::Udp,
        _ => return Err(Errno::PROTONOSUPPORT),
    };
    let socket = match kind {
        Kind::Tcp => tcp(family, flags)?,
        Kind::Udp if shared.abilities.receive_only => receive_only(family, flags)?,
        Kind::Udp => return Err(Errno::ACCESS),
    };
    let held = Held::new(socket, family, kind)?.of(Caller { tid: call.tid });
    give(shared, call, held, flags.contains(SocketFlags::CLOEXEC))
}

/// A TCP socket of this process's network.
pub(crate) fn tcp(family: Family, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(domain(family), SocketType::STREAM, flags | SocketFlags::CLOEXEC, Some(ipproto::TCP))
}

/// A datagram socket that can receive and not send, for good: what is shut down stays so, whatever it is connected to or
/// disconnected from afterwards.
pub(crate) fn receive_only(family: Family, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let socket = socket_with(domain(family), SocketType::DGRAM, flags | SocketFlags::CLOEXEC, Some(ipproto::UDP))?;
    match shutdown(&socket, Shutdown::Write) {
        // It is not connected, and is shut down all the same.
        Ok(()) | Err(Errno::NOTCONN) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

fn domain(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    }
}

/// Holds the socket, and answers with it. It is held first: another thread may guess the descriptor and connect it at once.
/// Giving waits for the caller, and nothing is locked meanwhile: a caller that does not get to run keeps nobody else waiting.
fn give(shared: &Shared, call: &Notification, held: Held, close_on_exec: bool) -> Result<(), Errno> {
    let inode = held.inode;
    let socket = Arc::clone(&held.socket);
    shared.sockets.hold(held);
    let given = answer_with(shared, call, &socket, close_on_exec);
    drop(socket);
    if given.is_err() {
        drop(shared.sockets.take(inode));
    }
    given
}

pub(super) fn answer_with(shared: &Shared, call: &Notification, socket: &OwnedFd, close_on_exec: bool) -> Result<(), Errno> {
    let listener = shared.listener.as_fd();
    if shared.abilities.answer_with_descriptor {
        return sys::give(listener, call.id, socket.as_fd(), Place::FreeAndAnswer, close_on_exec).map(drop);
    }
    let number = sys::give(listener, call.id, socket.as_fd(), Place::Free, close_on_exec)?;
    // If the caller was interrupted in between, it has a descriptor that it does not know of, and calls again.
    sys::answer(listener, call.id, Ok(number.into()))
}
