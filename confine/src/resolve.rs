//! What a path of a caller leads to: from its own root and directory, wherever it was chrooted or unshared to.
//!
//! A path that leads through the descriptors of the caller (`/proc/self/fd/3/socket`) starts at that descriptor. No other magic
//! link of procfs is followed: `self` would be the supervisor.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;

use crate::caller::Caller;

/// Names and not contents: nothing can be done with it but to look, and to start from it.
const NAME: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// How often a walk that others disturbed is begun anew.
const MOST_WALKS: u32 = 4;

/// Where procfs shows a thread's own descriptors.
const OWN_DESCRIPTORS: [&str; 3] = ["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"];

/// A path, and where it starts.
#[derive(Debug)]
pub(crate) struct Place {
    from: OwnedFd,
    path: PathBuf,
    how: ResolveFlags,
    /// Whether root is the supervisor's own.
    is_ours: bool,
}

impl Place {
    /// Where this path of the caller starts. It is to be opened by whoever may open it.
    ///
    /// # Errors
    /// ACCESS: nobody may look, or the directory is not below the root; NOENT: no path.
    pub(crate) fn of(caller: Caller, path: &[u8]) -> Result<Self, Errno> {
        let path = Path::new(OsStr::from_bytes(path));
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT);
        }
        let root = open(caller, "root")?;
        let is_ours = is_our_root(&root);
        if let Some((number, rest)) = own_descriptor(path) {
            return Self::below(open(caller, &format!("fd/{number}"))?, rest, is_ours);
        }
        if path.is_absolute() {
            return Ok(Place { from: root, path: path.to_owned(), how: ResolveFlags::IN_ROOT, is_ours });
        }
        let directory = open(caller, "cwd")?;
        if is_ours {
            return Self::below(directory, path, is_ours);
        }
        // By its name, which is that from the supervisor's root.
        let (inside, root_name) = (name_of(&directory)?, name_of(&root)?);
        let inside = inside.strip_prefix(root_name).map_err(|_| Errno::ACCESS)?;
        Ok(Place { from: root, path: inside.join(path), how: ResolveFlags::IN_ROOT, is_ours })
    }

    /// A path below a descriptor of the caller (`dirfd` of execveat(2)).
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(crate) fn at(caller: Caller, number: i32, path: &[u8]) -> Result<Self, Errno> {
        if path.starts_with(b"/") || number == libc::AT_FDCWD {
            return Self::of(caller, path);
        }
        let is_ours = is_our_root(&open(caller, "root")?);
        Self::below(open(caller, &format!("fd/{number}"))?, Path::new(OsStr::from_bytes(path)), is_ours)
    }

    /// A link to elsewhere would lead from the supervisor's root, so that it must be the caller's as well.
    fn below(from: OwnedFd, path: &Path, is_ours: bool) -> Result<Self, Errno> {
        let is_itself = path.as_os_str().is_empty();
        if !is_ours && !is_itself {
            return Err(Errno::ACCESS);
        }
        Ok(Place { from, path: path.to_owned(), how: ResolveFlags::NO_MAGICLINKS, is_ours })
    }

    /// Opens it, links followed, as the calling thread may.
    ///
    /// # Errors
    /// Those of open(2); LOOP for links of procfs.
    pub(crate) fn open(self) -> Result<OwnedFd, Errno> {
        if self.path.as_os_str().is_empty() {
            return Ok(self.from);
        }
        let mut opened = Err(Errno::AGAIN);
        for _ in 0..MOST_WALKS {
            opened = openat2(&self.from, &self.path, NAME, Mode::empty(), self.how);
            if !matches!(opened, Err(Errno::AGAIN)) {
                break;
            }
        }
        match opened {
            // Profiles of older runtimes don't know the call.
            Err(Errno::NOSYS | Errno::PERM) if self.is_ours => openat(&self.from, &self.path, NAME, Mode::empty()),
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => Err(Errno::ACCESS),
            // Out of the root, by a magic link.
            Err(Errno::XDEV) => Err(Errno::LOOP),
            opened => opened,
        }
    }
}

/// The name of what was opened, from the supervisor's root.
pub(crate) fn name_of(opened: &OwnedFd) -> Result<PathBuf, Errno> {
    std::fs::read_link(own_path(opened)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A path by which this process gets at what it has opened.
pub(crate) fn own_path(opened: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", opened.as_raw_fd())
}

fn open(caller: Caller, what: &str) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/{}/{what}", caller.tid);
    caller.look(|| Ok(openat(CWD, &path, NAME, Mode::empty())?))
}

/// The descriptor that a path starts with, and what follows.
fn own_descriptor(path: &Path) -> Option<(i32, &Path)> {
    let text = path.as_os_str().as_bytes();
    let rest = OWN_DESCRIPTORS.iter().find_map(|prefix| text.strip_prefix(prefix.as_bytes()))?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(end);
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    let is_whole = rest.is_empty() || rest.starts_with(b"/");
    let rest = rest.iter().position(|byte| *byte != b'/').map_or(&b""[..], |at| &rest[at..]);
    is_whole.then_some((number, Path::new(OsStr::from_bytes(rest))))
}

/// Whether it is the root of this process, in the same mount (Linux 5.8; before that nobody can tell).
fn is_our_root(root: &OwnedFd) -> bool {
    let wanted = StatxFlags::MNT_ID | StatxFlags::INO;
    let theirs = statx(root, "", AtFlags::EMPTY_PATH, wanted);
    let ours = statx(CWD, "/", AtFlags::empty(), wanted);
    let (Ok(theirs), Ok(ours)) = (theirs, ours) else { return false };
    let tells = |mask: u32| StatxFlags::from_bits_retain(mask).contains(wanted);
    tells(theirs.stx_mask) && tells(ours.stx_mask) && theirs.stx_mnt_id == ours.stx_mnt_id && theirs.stx_ino == ours.stx_ino
}

#[cfg(test)]
mod tests;
