//! What is watched, under which paths. What events mean is not decided here.
//!
//! The kernel gives one watch for each inode, whatever it is called: after a move, or through another mount, one watch has
//! several paths. A path has one watch. Where the two disagree for a while, too many paths are looked at, not too few.

mod audit;
mod along;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::inotify::{self, WatchFlags};
use rustix::fs::{FileType, RawDir, StatxFlags};
use rustix::io::Errno;

use super::ways::Step;
use crate::beneath;
use crate::fingerprint::{self, Kind};
use crate::roots::Roots;
use crate::scan::{self, Uncovered};
use crate::view::below;

/// Octets of directory entries that are listed at once.
const LISTING: usize = 32 * 1024;

/// So many files with several names have a watch of their own, for what is done to them by a name elsewhere.
const FILES: usize = 1_000;

/// How much of a tree was gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    All,
    Part,
}

pub(super) struct Armed {
    inotify: Option<Arc<OwnedFd>>,
    most: usize,
    paths: HashMap<i32, BTreeSet<Vec<u8>>>,
    watches: BTreeMap<Vec<u8>, i32>,
    /// Those of [`Self::watches`] that are no directories.
    files: BTreeSet<Vec<u8>>,
}

impl Armed {
    /// `most` is the most watches.
    pub(super) fn new(inotify: Option<Arc<OwnedFd>>, most: usize) -> Self {
        Self { inotify, most, paths: HashMap::new(), watches: BTreeMap::new(), files: BTreeSet::new() }
    }

    /// There is an inotify instance now.
    pub(super) fn use_inotify(&mut self, inotify: Arc<OwnedFd>) {
        self.inotify.get_or_insert(inotify);
    }

    pub(super) fn has_inotify(&self) -> bool {
        self.inotify.is_some()
    }

    /// How many watches there are.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// The watched directories at and below a path, sorted.
    pub(super) fn directories<'a>(&'a self, top: &'a [u8]) -> impl Iterator<Item = &'a Vec<u8>> {
        self.at(top).map(|(path, _)| path).filter(|path| !self.files.contains(*path))
    }

    /// Whether a path has a watch of its own as a file.
    pub(super) fn is_file(&self, path: &[u8]) -> bool {
        self.files.contains(path)
    }

    /// The paths that a watch stands for; none if it is gone.
    pub(super) fn paths(&self, watch: i32) -> Vec<Vec<u8>> {
        self.paths.get(&watch).into_iter().flatten().cloned().collect()
    }

    /// The watch of a path.
    #[cfg(test)]
    pub(super) fn watch(&self, path: &[u8]) -> Option<i32> {
        self.watches.get(path).copied()
    }

    fn at<'a>(&'a self, top: &'a [u8]) -> impl Iterator<Item = (&'a Vec<u8>, &'a i32)> {
        let prefix = below(top);
        let inside = self.watches.range(prefix.clone()..).take_while(move |(path, _)| path.starts_with(&prefix));
        self.watches.get_key_value(top).into_iter().chain(inside.filter(move |(path, _)| *path != top))
    }

    /// Watches the directories on the way to a root, for what comes and goes there, and if `is_file` the last for writes too.
    ///
    /// # Errors
    ///
    /// The first of them that cannot be watched; the others are watched all the same.
    pub(super) fn arm_way(&mut self, way: &[Step], is_file: bool) -> Result<(), Errno> {
        let mut all = Ok(());
        for (number, Step { directory, .. }) in way.iter().enumerate() {
            let is_last = number + 1 == way.len();
            let of_self = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            // The directory may be watched for more, as it may be below a root.
            let more = if is_last && is_file { mask() } else { coming_and_going() | of_self };
            let watched = beneath::open(directory, directory)
                .and_then(|open| self.add(directory, &open, more | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD));
            all = all.and(watched.map(drop));
        }
        all
    }

    /// Whether the kernel holds events that nobody has read yet.
    pub(super) fn has_waiting(&self) -> bool {
        self.inotify.as_ref().is_some_and(|inotify| rustix::io::ioctl_fionread(&**inotify).is_ok_and(|octets| octets > 0))
    }

    /// Watches the directory at `top`, and if that is to be `deep` all below it, breadth first: each is opened, watched through its descriptor, and
    /// only then listed, so that what is made in it meanwhile is either listed or told. Gives those that should be watched
    /// and are not; once there are no more watches, what is below such a one is not tried.
    pub(super) fn arm(&mut self, roots: &Roots, top: &[u8], deep: bool) -> Vec<(Vec<u8>, Uncovered)> {
        self.arm_some(roots, top, deep, &mut usize::MAX.clone()).1
    }

    /// The same, while `left` directories are left to be looked at.
    pub(super) fn arm_some(
        &mut self,
        roots: &Roots,
        top: &[u8],
        deep: bool,
        left: &mut usize,
    ) -> (Walked, Vec<(Vec<u8>, Uncovered)>) {
        let Some((root, how)) = roots.of(top) else { return (Walked::All, Vec::new()) };
        // What cannot be opened or is barred is told by the scan that follows.
        let Ok(opened) = beneath::open(root, root) else { return (Walked::All, Vec::new()) };
        let device = scan::device_of(&opened);
        let (mut queue, mut failed) = (VecDeque::from([top.to_vec()]), Vec::new());
        let mut passed = None;
        while let Some(path) = queue.pop_front() {
            if *left == 0 {
                return (Walked::Part, failed);
            }
            *left -= 1;
            if how.excludes_folder(&path) || (roots.begins_at(&path) && path != root) {
                continue;
            }
            let Ok(directory) = beneath::open_in(&opened, &path[root.len()..]) else { continue };
            let here = scan::device_of(&directory);
            if here.is_none() || here != passed {
                if !matches!(scan::barred(&directory, device, how.cross), Ok(None)) {
                    continue;
                }
                passed = here;
            }
            match self.add(&path, &directory, mask() | WatchFlags::ONLYDIR) {
                Ok(_) if !deep => {}
                Ok(_) => push_directories(&directory, &path, &mut queue),
                Err(error) => {
                    failed.push((path.clone(), Uncovered::NoWatch));
                    if deep && !matches!(error, Errno::NOSPC | Errno::MFILE) {
                        push_directories(&directory, &path, &mut queue);
                    }
                }
            }
        }
        (Walked::All, failed)
    }

    /// Whether the directory at a path is watched, and nothing was done in it or to it since it was made, as far as its file
    /// system keeps when that was.
    pub(super) fn is_unused(&self, roots: &Roots, path: &[u8]) -> bool {
        let open = || beneath::open(roots.of(path)?.0, path).ok();
        let stat = open().filter(|_| self.watches.contains_key(path)).and_then(|open| fingerprint::stat(open.as_fd()).ok());
        let time = |stamp: rustix::fs::StatxTimestamp| (stamp.tv_sec, stamp.tv_nsec);
        stat.is_some_and(|stat| {
            let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
            has_birth && time(stat.stx_btime) == time(stat.stx_mtime) && time(stat.stx_btime) == time(stat.stx_ctime)
        })
    }

    /// Watches the directory at a path alone, before its own entry is looked at: the watch of the one above may not tell of
    /// that. What fails is tried again with the rest. Whether the watch is a new one.
    pub(super) fn arm_top(&mut self, roots: &Roots, path: &[u8]) -> bool {
        let Some((root, how)) = roots.of(path).filter(|(_, how)| !how.excludes_folder(path)) else { return false };
        let Ok(directory) = beneath::open(root, path) else { return false };
        let device = beneath::open(root, root).ok().and_then(|root| scan::device_of(&root));
        matches!(scan::barred(&directory, device, how.cross), Ok(None))
            && self.add(path, &directory, mask() | WatchFlags::ONLYDIR) == Ok(true)
    }

    /// Ends the watch of a path.
    pub(super) fn end(&mut self, path: &[u8]) {
        if let Some(watch) = self.watches.remove(path) {
            self.files.remove(path);
            self.part(watch, path);
        }
    }

    /// Watches what is no directory, as its writes may come by another name. Whether the watch is a new one. `limited` are
    /// those that only a certain number may have.
    pub(super) fn arm_file(&mut self, root: &[u8], path: &[u8], limited: bool) -> Result<bool, Errno> {
        if limited && self.files.len() >= FILES && !self.files.contains(path) {
            return Err(Errno::NOSPC);
        }
        let file = beneath::point_at(root, path)?;
        if fingerprint::stat(file.as_fd()).is_ok_and(|stat| fingerprint::kind(&stat) == Kind::Directory) {
            return Err(Errno::ISDIR);
        }
        let fresh = self.add(path, &file, mask())?;
        self.files.insert(path.to_vec());
        Ok(fresh)
    }

    /// Whether the watch is a new one for this path.
    fn add(&mut self, path: &[u8], open: &OwnedFd, mask: WatchFlags) -> Result<bool, Errno> {
        let inotify = self.inotify.as_ref().ok_or(Errno::MFILE)?;
        let before = self.watches.get(path).copied();
        if before.is_none() && self.paths.len() >= self.most {
            return Err(Errno::NOSPC);
        }
        let watch = watch(inotify, open, mask)?;
        Ok(self.is_watched_by(path, watch))
    }

    /// The kernel gave this watch for a path; whether it had another or none before.
    fn is_watched_by(&mut self, path: &[u8], watch: i32) -> bool {
        let before = self.watches.get(path).copied();
        if before == Some(watch) {
            return false;
        }
        self.watches.insert(path.to_vec(), watch);
        self.files.remove(path);
        if let Some(before) = before {
            self.part(before, path);
        }
        self.paths.entry(watch).or_default().insert(path.to_vec());
        true
    }

    /// The kernel has ended this watch.
    pub(super) fn ended(&mut self, watch: i32) {
        for path in self.paths.remove(&watch).into_iter().flatten() {
            if self.watches.get(&path) == Some(&watch) {
                self.watches.remove(&path);
                self.files.remove(&path);
            }
        }
    }

    /// Ends the watches at `top` and below it that stand for nothing to be watched any more.
    pub(super) fn keep(&mut self, top: &[u8], is_directory: impl Fn(&[u8]) -> bool, is_file: impl Fn(&[u8]) -> bool) {
        let stays = |path: &[u8]| if self.files.contains(path) { is_file(path) } else { is_directory(path) };
        let stale: Vec<(Vec<u8>, i32)> =
            self.at(top).filter(|(path, _)| !stays(path)).map(|(path, watch)| (path.clone(), *watch)).collect();
        for (path, watch) in stale {
            self.watches.remove(&path);
            self.files.remove(&path);
            self.part(watch, &path);
        }
    }

    /// Parts a watch from one of its paths, and ends it with the last.
    fn part(&mut self, watch: i32, path: &[u8]) {
        let Some(paths) = self.paths.get_mut(&watch) else { return };
        paths.remove(path);
        if paths.is_empty() {
            self.paths.remove(&watch);
            self.remove(watch);
        }
    }

    fn remove(&self, watch: i32) {
        if let Some(inotify) = &self.inotify {
            // It fails if the directory is gone, and the watch with it.
            let _ = inotify::remove_watch(&**inotify, watch);
        }
    }

    /// Watches that we believe in and the kernel does not have. Those that it has and we do not know are ended.
    pub(super) fn audit(&self) -> HashSet<i32> {
        let Some(kernel) = self.inotify.as_ref().and_then(|inotify| audit::watches(inotify)) else { return HashSet::new() };
        kernel.iter().filter(|watch| !self.paths.contains_key(watch)).for_each(|watch| self.remove(*watch));
        self.paths.keys().filter(|watch| !kernel.contains(watch)).copied().collect()
    }
}

/// Watches what is open, whatever its path leads to by now.
fn watch(inotify: &OwnedFd, open: &OwnedFd, mask: WatchFlags) -> Result<i32, Errno> {
    inotify::add_watch(inotify, format!("/proc/self/fd/{}", open.as_raw_fd()), mask)
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
    WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE
}

/// An error ends the list: the scan that follows tells it.
fn push_directories(directory: &OwnedFd, path: &[u8], queue: &mut VecDeque<Vec<u8>>) {
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
        // The scan tells what is too deep.
        let fits = path.len() + 1 + name.len() <= scan::LONGEST;
        if is_directory && fits && !matches!(name, b"." | b"..") {
            queue.push_back(beneath::join(path, name));
        }
    }
}
