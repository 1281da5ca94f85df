//! Connecting a socket that the app has, too, and has configured as it likes: nothing here waits for it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt;

use super::Shared;
use crate::address;
use crate::sockets::{self, Held};

pub(super) fn is_nonblocking(socket: &OwnedFd) -> bool {
    fcntl_getfl(socket).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

/// Begins to connect without waiting, whatever the mode of the socket is; `waits` says which it is. A connect that is over at once,
/// as on this machine, is ended at once, too: INPROGRESS says that it is not.
///
/// The mode is the app's, too, and may change in between: then whoever watches ends the call.
pub(super) fn begin(shared: &Shared, held: &Held, to: SocketAddr, waits: bool) -> Result<(), Errno> {
    let socket = &held.socket;
    let to = address::for_family(to, held.family).ok_or(Errno::AFNOSUPPORT)?;
    if matches!(to, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some()) {
        // A socket for IPv6 only could not get there. It has no address yet, so this may still be changed.
        let _ = sockopt::set_ipv6_v6only(socket, false);
    }
    refuse_device(socket)?;
    if waits {
        ioctl_fionbio(socket, true)?;
    }
    let mut begun = shared.watched.run(|| rustix::net::connect(socket, &to));
    if waits && begun == Err(Errno::INPROGRESS) {
        begun = match end(shared, held, to) {
            Err(Errno::ALREADY) => Err(Errno::INPROGRESS),
            ended => ended,
        };
    }
    if waits {
        ioctl_fionbio(socket, false)?;
    }
    let begun = begun.map_err(|errno| if errno == Errno::INTR { Errno::TIMEDOUT } else { errno });
    if refuse_device(socket).is_err() || begun == Err(Errno::TIMEDOUT) {
        // What the app could do with it ends here.
        let _ = shared.watched.run(|| rustix::net::connect_unspec(socket));
        return Err(begun.err().filter(|errno| *errno != Errno::INPROGRESS).unwrap_or(Errno::ACCESS));
    }
    begun
}

/// What came of a connect that was begun; ALREADY if it is not over. To ask the kernel by the same call makes it connected in its
/// own eyes, too.
pub(super) fn end(shared: &Shared, held: &Held, to: SocketAddr) -> Result<(), Errno> {
    let to = address::for_family(to, held.family).ok_or(Errno::AFNOSUPPORT)?;
    match shared.watched.run(|| rustix::net::connect(&held.socket, &to)) {
        Err(Errno::ISCONN) => Ok(()),
        Err(Errno::INTR | Errno::INPROGRESS) => Err(Errno::TIMEDOUT),
        ended => ended,
    }
}

/// Whether a connect is over, well or not; waits for it this long.
pub(super) fn is_over(socket: &OwnedFd, patience: Timespec) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut polled, Some(&patience)).is_ok_and(|ready| ready > 0)
}

/// A socket that has a device connects and sends by it, even to loopback. No call that is known to give it one reaches the kernel;
/// but one that is let through may mean another socket by then, and Landlock stands behind that for TCP alone, if at all.
pub(super) fn refuse_device(socket: &OwnedFd) -> Result<(), Errno> {
    if sockets::sys::device_of(socket.as_fd())? == 0 { Ok(()) } else { Err(Errno::ACCESS) }
}
