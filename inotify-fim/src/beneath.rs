//! Opening a directory below a root without following a link below it. The root's own path is the operator's: its links are
//! followed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::fingerprint;

/// How often the kernel may say that something moved while it looked (EAGAIN, openat2(2)).
const ATTEMPTS: usize = 3;

/// Octets that the kernel takes as one path, with the NUL (PATH_MAX, limits.h).
const LONGEST: usize = 4096;

/// Directories that are held open at once to go back by `..`.
const DEEPEST: usize = 256;

/// Links that are followed one by one until it is taken for a loop: the kernel's own number (path_resolution(7)).
const LINKS: usize = 40;

/// Opens the directory at `path`, which is `root` or below it, for listing.
pub(crate) fn open(root: &[u8], path: &[u8]) -> Result<OwnedFd, Errno> {
    let top = rustix::fs::open(root, flags(), Mode::empty())?;
    let inside = path.get(root.len()..).unwrap_or_default();
    if inside.is_empty() { Ok(top) } else { open_in(&top, inside) }
}

/// Opens a directory that stands below another; itself, if `inside` is empty.
pub(crate) fn open_in(top: &OwnedFd, inside: &[u8]) -> Result<OwnedFd, Errno> {
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    let inside = if inside.is_empty() { b"." } else { inside };
    match in_one(top.as_fd(), inside) {
        // Not known to this kernel or its filters, more than a path may be long, or too much was moved: step by step.
        Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => in_pieces(top, inside),
        opened => opened,
    }
}

/// Opens what stands at `path` in the way that opens nothing yet (`O_PATH`), itself if it is a link.
pub(crate) fn point_at(root: &[u8], path: &[u8]) -> Result<OwnedFd, Errno> {
    let (parent, name) = split(path).ok_or(Errno::INVAL)?;
    let directory = if path == root { open(parent, parent)? } else { open(root, parent)? };
    rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn in_one(top: BorrowedFd<'_>, inside: &[u8]) -> Result<OwnedFd, Errno> {
    resolved(top, inside, flags(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn resolved(top: BorrowedFd<'_>, inside: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let attempt = || rustix::fs::openat2(top, inside, flags, Mode::empty(), resolve);
    (1..ATTEMPTS).map(|_| attempt()).find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or_else(attempt)
}

/// As many components at once as the kernel takes.
fn in_pieces(top: &OwnedFd, inside: &[u8]) -> Result<OwnedFd, Errno> {
    let (mut directory, mut rest) = (top.try_clone().map_err(|_| Errno::MFILE)?, inside);
    while !rest.is_empty() {
        let (piece, after) = piece(rest);
        directory = match in_one(directory.as_fd(), piece) {
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => in_steps(directory, piece)?,
            opened => opened?,
        };
        rest = after;
    }
    Ok(directory)
}

/// The longest beginning of a path that is no longer than the kernel takes, and the rest.
fn piece(path: &[u8]) -> (&[u8], &[u8]) {
    let window = &path[..path.len().min(LONGEST - 1)];
    let slash = window.iter().rposition(|byte| *byte == b'/').filter(|_| window.len() < path.len());
    slash.map_or((path, &[]), |slash| (&path[..slash], &path[slash + 1..]))
}

fn in_steps(top: OwnedFd, inside: &[u8]) -> Result<OwnedFd, Errno> {
    inside.split(|byte| *byte == b'/').try_fold(top, |directory, name| {
        rustix::fs::openat(directory, OsStr::from_bytes(name), flags() | OFlags::NOFOLLOW, Mode::empty())
    })
}

/// What is found at the end of a link that stands at `inside` below `top`, which is the directory `root`: a descriptor that
/// opens nothing yet (`O_PATH`). Nothing outside `top` is touched, not even on the way; with `stays` nothing that is
/// mounted inside it either. An error is a link that leads nowhere, outside, or round in a loop.
pub(crate) fn follow(root: &[u8], top: &OwnedFd, inside: &[u8], stays: bool) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::NO_MAGICLINKS | if stays { ResolveFlags::NO_XDEV } else { ResolveFlags::empty() };
    // Where nothing is outside, a link that begins with a slash is inside.
    resolve |= if root == b"/" { ResolveFlags::IN_ROOT } else { ResolveFlags::BENEATH };
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    match resolved(top.as_fd(), inside, OFlags::PATH | OFlags::CLOEXEC, resolve) {
        // The kernel's reasons as above; or a link with a slash at its beginning, which may lead back in.
        Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => follow_in_steps(root, top, inside, stays),
        Err(Errno::XDEV) if root != b"/" => follow_in_steps(root, top, inside, stays),
        opened => opened,
    }
}

/// The same, a component at a time.
fn follow_in_steps(root: &[u8], top: &OwnedFd, inside: &[u8], stays: bool) -> Result<OwnedFd, Errno> {
    let device = |file: &OwnedFd| fingerprint::stat(file.as_fd()).map(|stat| (stat.stx_dev_major, stat.stx_dev_minor));
    let home = device(top).ok();
    let reversed = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    // The directories gone through, and the components to come, the next one last.
    let (mut passed, mut rest, mut links): (Vec<OwnedFd>, _, _) = (Vec::new(), reversed(inside), 0);
    while let Some(name) = rest.pop() {
        match &*name {
            b"" | b"." => continue,
            // Above the top is outside.
            b".." => drop(passed.pop().ok_or(Errno::XDEV)?),
            name => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let found = rustix::fs::openat(passed.last().unwrap_or(top), OsStr::from_bytes(name), flags, Mode::empty())?;
                if stays && device(&found).ok() != home {
                    return Err(Errno::XDEV);
                }
                match rustix::fs::readlinkat(&found, "", Vec::new()) {
                    Ok(text) => {
                        links += 1;
                        let text = into(root, text.as_bytes(), &mut passed)?;
                        rest.extend(reversed(text));
                    }
                    // No link.
                    Err(Errno::INVAL | Errno::NOENT) => passed.push(found),
                    Err(error) => return Err(error),
                }
            }
        }
        if links > LINKS || rest.len() > LONGEST || passed.len() > DEEPEST {
            return Err(Errno::LOOP);
        }
    }
    passed.pop().ok_or(Errno::ISDIR)
}

/// A link's text, as far as it counts from where it stands or, if it begins with a slash and leads back in, from the top.
fn into<'a>(root: &[u8], text: &'a [u8], passed: &mut Vec<OwnedFd>) -> Result<&'a [u8], Errno> {
    if text.first() != Some(&b'/') {
        return Ok(text);
    }
    passed.clear();
    let below = text.strip_prefix(root).ok_or(Errno::XDEV)?;
    if below.is_empty() || below.starts_with(b"/") { Ok(below) } else { Err(Errno::XDEV) }
}

/// What is found at the end of a link in a directory, wherever it leads; a descriptor that opens nothing yet (`O_PATH`).
pub(crate) fn follow_out(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match resolved(directory.as_fd(), name.as_bytes(), flags, ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        opened => opened,
    }
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
