//! Extended attributes of a name in a directory: two calls that Linux has since 6.13 and no library yet. Elsewhere the way
//! to such a name leads through `/proc`, which takes three times as long.

#![allow(unsafe_code, reason = "the kernel is called by number")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

/// The numbers are the same on every architecture that Rust knows (include/uapi/asm-generic/unistd.h).
const GETXATTRAT: libc::c_long = 464;
const LISTXATTRAT: libc::c_long = 465;

/// Such a call was refused: the next would be too.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// `struct xattr_args` (include/uapi/linux/xattr.h).
#[repr(C, align(8))]
struct Arguments {
    value: u64,
    size: u32,
    flags: u32,
}

/// The names of the extended attributes of what `name` is in `directory`, itself if it is a link: each ends with a zero.
/// `None` if there is no such call.
pub(super) fn list(directory: BorrowedFd<'_>, name: &CStr, names: &mut [u8]) -> Option<Result<usize, Errno>> {
    let (directory, flags) = (directory.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: the kernel reads `name` up to its zero, and writes no more than `names.len()` octets to `names`; both live
    // until the call has returned, and nobody else has `names`.
    let mut call = || unsafe { libc::syscall(LISTXATTRAT, directory, name.as_ptr(), flags, names.as_mut_ptr(), names.len()) };
    unless_refused(&REFUSED, || answer(call()))
}

/// The value of one of them.
pub(super) fn get(directory: BorrowedFd<'_>, name: &CStr, which: &CStr, value: &mut [u8]) -> Option<Result<usize, Errno>> {
    let (directory, flags) = (directory.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let arguments = Arguments { value: value.as_mut_ptr() as u64, size, flags: 0 };
    let (arguments, length) = (&raw const arguments, size_of::<Arguments>());
    // SAFETY: the kernel reads `name` and `which` up to their zeros and as much of `arguments` as it has, and writes no more
    // than `size` octets to `value`, which has as many; all live until the call has returned, and nobody else has `value`.
    let call = || unsafe { libc::syscall(GETXATTRAT, directory, name.as_ptr(), flags, which.as_ptr(), arguments, length) };
    unless_refused(&REFUSED, || answer(call()))
}

/// What the kernel answered a moment ago.
fn answer(returned: libc::c_long) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// What a call answers, unless it is not known here, or refused by a filter (seccomp(2)): it is not tried again then.
fn unless_refused(refused: &AtomicBool, call: impl FnOnce() -> Result<usize, Errno>) -> Option<Result<usize, Errno>> {
    if refused.load(Ordering::Relaxed) {
        return None;
    }
    match call() {
        Err(Errno::NOSYS | Errno::PERM) => {
            refused.store(true, Ordering::Relaxed);
            None
        }
        answer => Some(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_refused_is_not_tried_again() {
        let refused = AtomicBool::new(false);
        assert_eq!(unless_refused(&refused, || Ok(3)), Some(Ok(3)));
        assert_eq!(unless_refused(&refused, || Err(Errno::NOENT)), Some(Err(Errno::NOENT)));
        for error in [Errno::NOSYS, Errno::PERM] {
            let refused = AtomicBool::new(false);
            assert_eq!(unless_refused(&refused, || Err(error)), None);
            assert_eq!(unless_refused(&refused, || panic!("tried again")), None);
        }
    }
}
