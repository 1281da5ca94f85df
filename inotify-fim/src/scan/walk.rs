//! One step of a scan: a place, a directory, or some files of one. Who takes which step is not its business.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, mem};

use rustix::fs::{RawDir, Statx};
use rustix::io::Errno;

use super::{Options, Read, Uncovered};
use crate::beneath;
use crate::fingerprint::{self, Device, Fingerprint, Kind};
use crate::roots::{How, Roots};
use crate::view::{Path, View};

/// Octets of directory entries that are listed at once.
const LISTING: usize = 32 * 1024;

/// Octets of content, and number of files, that one thread reads before another may have the rest.
const SHARE: (u64, usize) = (4 << 20, 256);

/// File systems without files: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, mqueue, pstore,
/// configfs, efivarfs, fusectl, binfmt_misc, selinuxfs (statfs(2), linux/magic.h).
const KERNEL: [u64; 16] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1980_0202,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
    0x6573_5543,
    0x4249_4e4d,
    0xf97c_ff8c,
];

/// A root and the file system that it is on.
pub(super) struct Root {
    path: Vec<u8>,
    how: Arc<How>,
    device: Option<Device>,
}

impl Root {
    pub(super) fn new(path: Vec<u8>, how: Arc<How>) -> Self {
        let device = beneath::open(&path, &path).ok().and_then(|top| device_of(&top));
        Self { path, how, device }
    }
}

/// What is to be done.
pub(super) enum Job {
    /// Look at a path; go on below it if that is `whole`.
    Place { root: Arc<Root>, path: Vec<u8>, whole: bool },
    /// List a directory and look at its entries.
    Directory { root: Arc<Root>, path: Vec<u8> },
    /// Read these files of a directory.
    Files { root: Arc<Root>, directory: Arc<OwnedFd>, path: Path, names: Vec<OsString> },
}

/// What one thread found.
#[derive(Default)]
pub(super) struct Part {
    pub(super) entries: Vec<(Path, Arc<Fingerprint>)>,
    pub(super) uncovered: Vec<(Vec<u8>, Uncovered)>,
    pub(super) excluded: u64,
}

pub(super) struct Walk<'a> {
    roots: &'a Roots,
    previous: &'a View,
    options: &'a Options,
    looked: AtomicUsize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(roots: &'a Roots, previous: &'a View, options: &'a Options) -> Self {
        Self { roots, previous, options, looked: AtomicUsize::new(0) }
    }

    pub(super) fn step(&self, job: Job, part: &mut Part, mut push: impl FnMut(Job)) {
        let (path, done) = match job {
            Job::Place { root, path, whole } => {
                let done = self.place(&root, &path, whole, part, &mut push);
                if done.is_err() && path == root.path {
                    // That there is no such root is worth telling.
                    part.uncovered.extend(done.err().map(|error| (path, unreadable(error))));
                    return;
                }
                (path, done)
            }
            Job::Directory { root, path } => {
                let done = self.directory(&root, &path, part, &mut push);
                (path, done)
            }
            Job::Files { root, directory, path, names } => return self.files(&root, &directory, &path, &names, part),
        };
        if let Err(error) = done {
            uncover(part, path, error);
        }
    }

    fn place(
        &self,
        root: &Arc<Root>,
        path: &[u8],
        whole: bool,
        part: &mut Part,
        push: &mut impl FnMut(Job),
    ) -> Result<(), Errno> {
        let top = if path == root.path { beneath::open(path, path) } else { Err(Errno::NOTDIR) };
        let (directory, name) = match (top, beneath::split(path)) {
            (Ok(top), _) => (top, OsStr::new(".")),
            // A root that is a file is looked at where it stands.
            (Err(Errno::NOTDIR), Some((parent, name))) if path == root.path => (beneath::open(parent, parent)?, name),
            (Err(Errno::NOTDIR), Some((parent, name))) => (beneath::open(&root.path, parent).map_err(no_directory)?, name),
            (Err(error), _) => return Err(error),
        };
        let stat = glance(&directory, name)?;
        let excluded = root.how.excludes(path);
        if excluded && can_be_left_out(&stat) {
            part.excluded += 1;
            return Ok(());
        }
        self.one(root, &directory, name, path.to_vec(), Some(&stat), part);
        if whole && fingerprint::kind(&stat) == Kind::Directory {
            self.enter(root, path.to_vec(), excluded, part, push);
        }
        Ok(())
    }

    /// Goes on below a directory, if that is not left out.
    fn enter(&self, root: &Arc<Root>, path: Vec<u8>, excluded: bool, part: &mut Part, push: &mut impl FnMut(Job)) {
        if excluded {
            part.uncovered.push((path, Uncovered::Excluded));
        } else {
            push(Job::Directory { root: Arc::clone(root), path });
        }
    }

    fn directory(&self, root: &Arc<Root>, path: &[u8], part: &mut Part, push: &mut impl FnMut(Job)) -> Result<(), Errno> {
        let directory = Arc::new(beneath::open(&root.path, path)?);
        if let Some(why) = barred(&directory, root.device, root.how.cross)? {
            part.uncovered.push((path.to_vec(), why));
            return Ok(());
        }
        let (shared, mut files, mut octets): (Path, _, _) = (path.into(), Vec::new(), 0);
        let take =
            |names| Job::Files { root: Arc::clone(root), directory: Arc::clone(&directory), path: Arc::clone(&shared), names };
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let mut list = RawDir::new(&*directory, &mut buffer);
        while let Some(entry) = list.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            if self.looked.fetch_add(1, Ordering::Relaxed) >= self.options.most {
                part.uncovered.push((path.to_vec(), Uncovered::TooMany));
                break;
            }
            let Some(size) = self.entry(root, &directory, beneath::join(path, name.as_bytes()), name, part, push) else {
                continue;
            };
            files.push(name.to_os_string());
            octets = size.saturating_add(octets);
            if octets >= SHARE.0 || files.len() >= SHARE.1 {
                push(take(mem::take(&mut files)));
                octets = 0;
            }
        }
        self.files(root, &directory, path, &files, part);
        Ok(())
    }

    /// One glance at an entry; the size of its content if it must be read.
    fn entry(
        &self,
        root: &Arc<Root>,
        directory: &OwnedFd,
        path: Vec<u8>,
        name: &OsStr,
        part: &mut Part,
        push: &mut impl FnMut(Job),
    ) -> Option<u64> {
        if self.roots.begins_at(&path) {
            return None;
        }
        let stat = match glance(directory, name) {
            Ok(stat) => stat,
            Err(error) => {
                uncover(part, path, error);
                return None;
            }
        };
        let excluded = root.how.excludes(&path);
        if excluded && can_be_left_out(&stat) {
            part.excluded += 1;
            return None;
        }
        if fingerprint::kind(&stat) == Kind::Directory {
            self.enter(root, path.clone(), excluded, part, push);
        }
        match self.known(root, &path, &stat) {
            Some(known) => part.entries.push(known),
            None => return Some(stat.stx_size),
        }
        None
    }

    fn files(&self, root: &Root, directory: &OwnedFd, path: &[u8], names: &[OsString], part: &mut Part) {
        for name in names {
            self.one(root, directory, name, beneath::join(path, name.as_bytes()), None, part);
        }
    }

    /// The fingerprint of one file, as it is known or as it is read.
    fn one(&self, root: &Root, directory: &OwnedFd, name: &OsStr, path: Vec<u8>, stat: Option<&Statx>, part: &mut Part) {
        if let Some(known) = stat.and_then(|stat| self.known(root, &path, stat)) {
            part.entries.push(known);
            return;
        }
        match Fingerprint::read(directory, name, root.how.largest) {
            Ok(print) => part.entries.push((path.into(), Arc::new(print))),
            Err(error) => uncover(part, path, errno(&error)),
        }
    }

    fn known(&self, root: &Root, path: &[u8], stat: &Statx) -> Option<(Path, Arc<Fingerprint>)> {
        if self.options.read == Read::All {
            return None;
        }
        let (path, print) = self.previous.entries.get_key_value(path)?;
        print.still(stat, root.how.largest).then(|| (Arc::clone(path), Arc::clone(print)))
    }
}

/// Why a directory that is open is not gone into.
pub(crate) fn barred(directory: &OwnedFd, root: Option<Device>, cross: bool) -> Result<Option<Uncovered>, Errno> {
    if device_of(directory) != root && !cross {
        return Ok(Some(Uncovered::OtherFileSystem));
    }
    // Its width and sign differ between machines; the numbers all fit in 32 bits.
    let kind = rustix::fs::fstatfs(directory)?.f_type as u64 & 0xffff_ffff;
    Ok(KERNEL.contains(&kind).then_some(Uncovered::Kernel))
}

/// The device of the file system that a directory is on.
pub(crate) fn device_of(directory: &OwnedFd) -> Option<Device> {
    let stat = fingerprint::stat(directory.as_fd()).ok()?;
    Some(Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor })
}

/// A name must not hide what can be run.
fn can_be_left_out(stat: &Statx) -> bool {
    match fingerprint::kind(stat) {
        Kind::Directory => false,
        Kind::File => stat.stx_mode & 0o6111 == 0,
        _ => true,
    }
}

fn glance(directory: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
    fingerprint::glance(directory.as_fd(), name).map_err(|error| errno(&error))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Below a file or a link there is nothing.
fn no_directory(error: Errno) -> Errno {
    if matches!(error, Errno::NOTDIR | Errno::LOOP) { Errno::NOENT } else { error }
}

/// What is gone is no gap in what is seen.
fn uncover(part: &mut Part, path: Vec<u8>, error: Errno) {
    if error != Errno::NOENT {
        part.uncovered.push((path, unreadable(error)));
    }
}

fn unreadable(error: Errno) -> Uncovered {
    Uncovered::Unreadable(error.raw_os_error())
}
