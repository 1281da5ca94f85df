//! Datagram sockets that are connected to somebody who is no nameserver, and what goes over to a socket that takes the place of
//! one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};

use super::connect::{Step, socket_flags};
use super::{Shared, birth, descriptor};
use crate::address::{self, Family};
use crate::caller::Caller;
use crate::sockets::{Held, Kind};
use crate::sys::{self, Notification, Place};

/// Connects a socket that can't send, wherever it is to go: nothing is sent by that, and whoever looks for the address that this
/// machine has towards somebody finds it.
pub(super) fn connect(shared: &Shared, call: &Notification, inode: u64, family: Family, to: SocketAddr) -> Result<Step, Errno> {
    let to = address::for_family(to, family).ok_or(Errno::AFNOSUPPORT)?;
    if let Some(held) = shared.sockets.get(inode) {
        rustix::net::connect(&held.socket, &to)?;
        return Ok(Step::Answer(Ok(())));
    }
    let (number, caller) = (descriptor(call), Caller { tid: call.tid });
    let flags = caller.flags(number)?;
    let held = Held::new(birth::receive_only(family, socket_flags(flags))?, family, Kind::Udp)?.of(caller);
    rustix::net::connect(&held.socket, &to)?;
    sys::give(shared.listener.as_fd(), call.id, held.socket.as_fd(), Place::Over(number), flags.close_on_exec)?;
    shared.sockets.hold(held);
    Ok(Step::Answer(Ok(())))
}

/// What was set before, as far as it means the same to the socket that takes the place. What epoll knows of the former one is
/// lost.
pub(super) fn carry_options(from: &OwnedFd, to: &OwnedFd) {
    for kind in [Timeout::Recv, Timeout::Send] {
        // An option that can't be had is one that was not set.
        let _ = sockopt::socket_timeout(from, kind).and_then(|timeout| sockopt::set_socket_timeout(to, kind, timeout));
    }
    // The kernel tells twice of what it was told (socket(7)).
    let _ = sockopt::socket_recv_buffer_size(from).and_then(|size| sockopt::set_socket_recv_buffer_size(to, size / 2));
}
