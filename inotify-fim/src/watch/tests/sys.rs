//! A write through io_uring(7), which rustix gives no safe way to.

#![allow(unsafe_code, reason = "the ring is memory that the kernel reads")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// `IORING_OP_WRITE` (include/uapi/linux/io_uring.h), as the other numbers here.
const WRITE: u8 = 23;
const GET_EVENTS: u32 = 1;
const OFFSET_OF_ENTRIES: libc::off_t = 0x1000_0000;

/// `struct io_uring_params` in words: ten of its own, and then where in the ring what is.
type Parameters = [u32; 30];
const TAIL: usize = 11;
const ARRAY: usize = 16;

/// Writes these octets to the beginning of a file, with no write(2).
pub(super) fn write_by_ring(file: &File, content: &[u8]) -> io::Result<()> {
    let mut parameters: Parameters = [0; 30];
    // SAFETY: the kernel writes the parameters, which are as long as it takes them to be.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let ring = i32::try_from(ring).ok().filter(|ring| *ring >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given it.
    let ring = unsafe { OwnedFd::from_raw_fd(ring) };
    let at = |field: usize| parameters[field] as usize;
    let queue = map(&ring, at(ARRAY) + 4, 0)?;
    let entry = map(&ring, 64, OFFSET_OF_ENTRIES)?;
    // SAFETY: an entry has 64 octets, which are all zero now; the offsets of its fields and those in the ring are the
    // kernel's own, and the tail is aligned as its type.
    unsafe {
        *entry = WRITE;
        ptr::copy_nonoverlapping(file.as_raw_fd().to_ne_bytes().as_ptr(), entry.add(4), 4);
        ptr::copy_nonoverlapping((content.as_ptr() as u64).to_ne_bytes().as_ptr(), entry.add(16), 8);
        ptr::copy_nonoverlapping((content.len() as u32).to_ne_bytes().as_ptr(), entry.add(24), 4);
        (*queue.add(at(TAIL)).cast::<AtomicU32>()).store(1, Ordering::Release);
    }
    // SAFETY: it waits until the one entry is done, and so does whoever holds `content` and `file`.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, GET_EVENTS, ptr::null::<u8>(), 0) };
    if done == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A part of the ring, until the process ends.
fn map(ring: &OwnedFd, length: usize, offset: libc::off_t) -> io::Result<*mut u8> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: new memory, of which nobody else knows.
    let at = unsafe { libc::mmap(ptr::null_mut(), length, access, flags, ring.as_raw_fd(), offset) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}
