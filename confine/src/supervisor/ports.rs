//! Ports of the app's datagram sockets, from which the supervisor sends what is allowed. What is answered there is received by the
//! app, whose socket was there first.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, RwLock};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::Shared;
use crate::address::{self, Family};
use crate::{established, sys};

/// Held by whoever sends from a port of the app, for as long as that keeps the app from binding it anew.
pub(super) type Sending = Arc<RwLock<()>>;

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

/// Has the port of this socket be one that the supervisor may send from, for the app: others of this user may use it as well,
/// and it is the one that receives.
pub(super) fn share_port(socket: &OwnedFd) -> Result<(), Errno> {
    rustix::net::sockopt::set_socket_reuseport(socket, true)?;
    sys::first_of_group_receives(socket.as_fd())
}

/// The address of a datagram socket, which is bound if it was not.
pub(super) fn local_address(shared: &Shared, inode: u64, family: Family) -> Result<SocketAddr, Errno> {
    let any = match family {
        Family::V4 => SocketAddr::from(([0, 0, 0, 0], 0)),
        Family::V6 => SocketAddr::from(([0_u16; 8], 0)),
    };
    let Some(held) = shared.sockets.get(inode) else {
        let port = established::udp_port_of(inode)?.ok_or(Errno::ADDRNOTAVAIL)?;
        return Ok(SocketAddr::new(any.ip(), port));
    };
    let local: SocketAddr = rustix::net::getsockname(&held.socket)?.try_into()?;
    if local.port() != 0 {
        return Ok(local);
    }
    share_port(&held.socket)?;
    rustix::net::bind(&held.socket, &any)?;
    let local: SocketAddr = rustix::net::getsockname(&held.socket)?.try_into()?;
    shared.sockets.bound(inode, local.port());
    Ok(local)
}
