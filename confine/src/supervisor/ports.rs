//! Ports of the app's datagram sockets, from which the supervisor sends what is allowed. What is answered there is received by the
//! app, whose socket was there first.
//!
//! What such a socket is bound to may not be what the app asked for: a bind that is let through for a unix socket may mean this one
//! by the time the kernel looks. So its address counts only if it is one that the app may send from.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, RwLock};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::Shared;
use super::dial::refuse_device;
use crate::address::{self, Family};
use crate::names::Names;
use crate::{established, sockets, sys};

/// The port of nameservers (RFC 1035 section 4.2). What comes from there may be taken for an answer, by this process as well, and an
/// answer says where an allowed name leads.
const DNS: u16 = 53;

/// Held by whoever sends from a port of the app, for as long as that keeps the app from binding it anew.
pub(super) type Sending = Arc<RwLock<()>>;

/// Sends from a port that the app has, too; the answer is for the app, whose socket was there first. The address is one of
/// [`local_address`].
pub(super) fn send_from(local: SocketAddr, family: Family, to: SocketAddr, message: &[u8]) -> Result<(), Errno> {
    send(&bound(local, family)?, family, to, message)
}

/// The same to somebody on this machine.
pub(super) fn send_here(local: SocketAddr, family: Family, to: SocketAddr, message: &[u8]) -> Result<(), Errno> {
    let socket = bound(local, family)?;
    sockets::sys::keep_here(socket.as_fd())?;
    send(&socket, family, to, message)
}

fn bound(local: SocketAddr, family: Family) -> Result<OwnedFd, Errno> {
    let domain = if family == Family::V4 { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(domain, SocketType::DGRAM, flags, None)?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &local)?;
    // Whatever it was bound to: what has a device sends by it, even to loopback.
    refuse_device(&socket)?;
    Ok(socket)
}

fn send(socket: &OwnedFd, family: Family, to: SocketAddr, message: &[u8]) -> Result<(), Errno> {
    let to = address::for_family(to, family).ok_or(Errno::AFNOSUPPORT)?;
    rustix::net::sendto(socket, message, SendFlags::NOSIGNAL, &to).map(drop)
}

/// Refuses an address that nothing is sent from for the app: one of a link, since that names a device, and one that answers to
/// names come from.
fn refuse_source(names: &dyn Names, local: SocketAddr) -> Result<(), Errno> {
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let is_of_a_link = matches!(local, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
    let is_of_names = local.port() == DNS || names.is_nameserver(local);
    if is_of_a_link || is_of_names { Err(Errno::ACCESS) } else { Ok(()) }
}

/// Has the port of this socket be one that the supervisor may send from, for the app: others of this user may use it as well,
/// and it is the one that receives.
pub(super) fn share_port(socket: &OwnedFd) -> Result<(), Errno> {
    rustix::net::sockopt::set_socket_reuseport(socket, true)?;
    sys::first_of_group_receives(socket.as_fd())
}

/// The address of a datagram socket, which is bound if it was not.
///
/// # Errors
/// ACCESS: nothing is sent from there.
pub(super) fn local_address(shared: &Shared, inode: u64, family: Family) -> Result<SocketAddr, Errno> {
    let local = find_address(shared, inode, family)?;
    refuse_source(&*shared.names, local)?;
    Ok(local)
}

fn find_address(shared: &Shared, inode: u64, family: Family) -> Result<SocketAddr, Errno> {
    let any = match family {
        Family::V4 => SocketAddr::from(([0, 0, 0, 0], 0)),
        Family::V6 => SocketAddr::from(([0_u16; 8], 0)),
    };
    let Some(held) = shared.sockets.get(inode) else {
        let port = established::udp_port_of(inode)?.ok_or(Errno::ADDRNOTAVAIL)?;
        return Ok(SocketAddr::new(any.ip(), port));
    };
    refuse_device(&held.socket)?;
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
