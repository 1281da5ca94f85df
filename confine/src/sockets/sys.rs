//! Options of sockets that no crate of ours wraps (socket(7), asm-generic/socket.h).

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// The index of the device that a socket is bound to, 0 if none (SO_BINDTOIFINDEX of asm-generic/socket.h, Linux 5.1).
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn device_of(socket: BorrowedFd<'_>) -> Result<i32, Errno> {
    const SO_BINDTOIFINDEX: libc::c_int = 62;
    let mut index: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    let (place, room) = ((&raw mut index).cast(), &raw mut length);
    // SAFETY: the kernel writes at most `length` bytes to `index`, which has them, and the length.
    let returned = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_BINDTOIFINDEX, place, room) };
    if returned == 0 { Ok(index) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}

/// Has what this socket sends stay on this machine, whoever has the addresses by then (SO_BINDTODEVICE of socket(7), without
/// privilege since Linux 5.7).
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn keep_here(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    const LOOPBACK: &[u8] = b"lo";
    let (name, length) = (LOOPBACK.as_ptr().cast(), LOOPBACK.len() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes of `LOOPBACK`, which has them.
    let returned = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name, length) };
    if returned == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}

/// Has nobody send descriptors to this unix socket (SO_PASSRIGHTS of asm-generic/socket.h, Linux 6.16). On older kernels they come,
/// and are closed by whoever receives.
pub(crate) fn refuse_rights(socket: BorrowedFd<'_>) {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let (no, size): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel reads one int.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const no).cast(), size) };
}
