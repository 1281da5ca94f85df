//! Which directories are watched, under which paths. What their events mean is not decided here.
//!
//! The kernel gives one watch for each directory, whatever it is called: after a move, or through another mount, one watch
//! has several paths. A path has one watch. Where the two disagree for a while, too many paths are looked at, not too few.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::inotify::{self, WatchFlags};
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::beneath;
use crate::fingerprint::{self, Kind};
use crate::roots::Roots;
use crate::scan::{self, Uncovered};
use crate::view::below;

/// Octets of directory entries that are listed at once.
const LISTING: usize = 32 * 1024;

pub(super) struct Armed {
    inotify: Arc<OwnedFd>,
    paths: HashMap<i32, BTreeSet<Vec<u8>>>,
    watches: BTreeMap<Vec<u8>, i32>,
}

impl Armed {
    pub(super) fn new(inotify: Arc<OwnedFd>) -> Self {
        Self { inotify, paths: HashMap::new(), watches: BTreeMap::new() }
    }

    /// How many directories are watched.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// All paths that are watched.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.watches.keys()
    }

    /// The paths that a watch stands for; none if it is gone.
    pub(super) fn paths(&self, watch: i32) -> Vec<Vec<u8>> {
        self.paths.get(&watch).into_iter().flatten().cloned().collect()
    }

    /// Watches the directory that a root stands in, for its coming and going; if the root is a single file, for its
    /// writes too.
    pub(super) fn arm_parent(&mut self, parent: &[u8], root: &[u8]) -> Result<(), Errno> {
        let directory = beneath::open(parent, parent)?;
        let is_file = beneath::open(root, root).is_err_and(|error| error == Errno::NOTDIR);
        // The directory may be watched for more, as it may be below another root.
        let mask = if is_file { mask() } else { coming_and_going() } | WatchFlags::MASK_ADD;
        self.add(parent, &directory, mask)
    }

    /// Watches the directory at `top` and all below it: each is opened, watched through its descriptor, and only then
    /// listed, so that what is made in it meanwhile is either listed or told. Gives those that should be watched and are not.
    pub(super) fn arm(&mut self, roots: &Roots, top: &[u8]) -> Vec<(Vec<u8>, Uncovered)> {
        let Some((root, how)) = roots.of(top) else { return Vec::new() };
        let device = beneath::open(root, root).ok().and_then(|root| scan::device_of(&root));
        let (mut stack, mut failed) = (vec![top.to_vec()], Vec::new());
        while let Some(path) = stack.pop() {
            if how.excludes(&path) || (roots.begins_at(&path) && path != root) {
                continue;
            }
            // What cannot be opened or is barred is told by the scan that follows.
            let Ok(directory) = beneath::open(root, &path) else { continue };
            if !matches!(scan::barred(&directory, device, how.cross), Ok(None)) {
                continue;
            }
            if self.add(&path, &directory, mask()).is_err() {
                failed.push((path.clone(), Uncovered::NoWatch));
            }
            push_directories(&directory, &path, &mut stack);
        }
        failed
    }

    fn add(&mut self, path: &[u8], directory: &OwnedFd, mask: WatchFlags) -> Result<(), Errno> {
        let through = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let watch = inotify::add_watch(&*self.inotify, through, mask)?;
        if let Some(before) = self.watches.insert(path.to_vec(), watch).filter(|before| *before != watch) {
            self.part(before, path);
        }
        self.paths.entry(watch).or_default().insert(path.to_vec());
        Ok(())
    }

    /// The kernel has ended this watch.
    pub(super) fn ended(&mut self, watch: i32) {
        for path in self.paths.remove(&watch).into_iter().flatten() {
            if self.watches.get(&path) == Some(&watch) {
                self.watches.remove(&path);
            }
        }
    }

    /// Ends the watches at `top` and below it that stand for no directory any more.
    pub(super) fn keep(&mut self, top: &[u8], is_directory: impl Fn(&[u8]) -> bool) {
        let prefix = below(top);
        let inside = self.watches.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let all = self.watches.get_key_value(top).into_iter().chain(inside);
        let stale: Vec<(Vec<u8>, i32)> =
            all.filter(|(path, _)| !is_directory(path)).map(|(path, watch)| (path.clone(), *watch)).collect();
        for (path, watch) in stale {
            self.watches.remove(&path);
            self.part(watch, &path);
        }
    }

    /// Parts a watch from one of its paths, and ends it with the last.
    fn part(&mut self, watch: i32, path: &[u8]) {
        let Some(paths) = self.paths.get_mut(&watch) else { return };
        paths.remove(path);
        if paths.is_empty() {
            self.paths.remove(&watch);
            // It fails if the directory is gone, and the watch with it.
            let _ = inotify::remove_watch(&*self.inotify, watch);
        }
    }
}

/// What can change what is seen. Not reading and opening: looking at files must cause no events. `EXCL_UNLINK` would hide
/// writes to files that were deleted and are linked again.
fn mask() -> WatchFlags {
    coming_and_going()
        | WatchFlags::MODIFY
        | WatchFlags::ATTRIB
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
}

fn coming_and_going() -> WatchFlags {
    WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR
}

/// An error ends the list: the scan that follows tells it.
fn push_directories(directory: &OwnedFd, path: &[u8], stack: &mut Vec<Vec<u8>>) {
    let mut buffer = [MaybeUninit::uninit(); LISTING];
    let mut list = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = list.next() {
        let name = entry.file_name().to_bytes();
        let is_directory = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => fingerprint::glance(directory.as_fd(), OsStr::from_bytes(name))
                .is_ok_and(|stat| fingerprint::kind(&stat) == Kind::Directory),
            _ => false,
        };
        if is_directory && !matches!(name, b"." | b"..") {
            stack.push(beneath::join(path, name));
        }
    }
}
