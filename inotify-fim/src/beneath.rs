//! Opening a directory below a root without following a link below it. The root's own path is the operator's: its links are
//! followed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often the kernel may say that something moved while it looked (EAGAIN, openat2(2)).
const ATTEMPTS: usize = 3;

/// Opens the directory at `path`, which is `root` or below it, for listing.
pub(crate) fn open(root: &[u8], path: &[u8]) -> Result<OwnedFd, Errno> {
    let top = rustix::fs::open(root, flags(), Mode::empty())?;
    let inside = path.get(root.len()..).unwrap_or_default();
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    if inside.is_empty() {
        return Ok(top);
    }
    match in_one(top.as_fd(), inside) {
        // Not known to this kernel or its filters, more than a path may be long, or too much was moved: step by step.
        Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => in_steps(top, inside),
        opened => opened,
    }
}

fn in_one(top: BorrowedFd<'_>, inside: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let attempt = || rustix::fs::openat2(top, inside, flags(), Mode::empty(), resolve);
    (1..ATTEMPTS).map(|_| attempt()).find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or_else(attempt)
}

fn in_steps(top: OwnedFd, inside: &[u8]) -> Result<OwnedFd, Errno> {
    inside.split(|byte| *byte == b'/').try_fold(top, |directory, name| {
        rustix::fs::openat(directory, OsStr::from_bytes(name), flags() | OFlags::NOFOLLOW, Mode::empty())
    })
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// A path as the directory that it stands in and its name there; `None` for `/`.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &OsStr)> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let name = &path[slash + 1..];
    (!name.is_empty()).then(|| (if slash == 0 { b"/".as_slice() } else { &path[..slash] }, OsStr::from_bytes(name)))
}

/// The path of a name in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = crate::view::below(directory);
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests;
