//! One step of a scan: a place, a directory, or some files of one. Who takes which step is not its business.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use std::{io, mem};

use rustix::fs::{FileType, RawDir, Statx};
use rustix::io::Errno;

use super::entry::Shared;
use super::root::Root;
use super::{Enter, Options, Uncovered};
use crate::beneath;
use crate::fingerprint::{self, Fingerprint, Kind, Means, Reader};
use crate::roots::{Content, Roots};
use crate::view::{Path, View};

/// Octets of directory entries that are listed at once.
const LISTING: usize = 32 * 1024;

/// Number of files that one thread reads before another may have the next.
const BATCH: usize = 256;

/// Octets of a path below the last directory that is held open for what is deep below it, from which on another one is.
const ANCHORED: usize = 2048;

/// Octets of a path that cost as much as an entry: whoever makes long paths gets no more memory than others.
const WEIGHT: usize = 256;

/// No path is looked at that has more octets: sixteen times what the kernel takes at once (`PATH_MAX`). Each directory on the
/// way to it has a path of its own in every list.
pub(crate) const LONGEST: usize = 64 * 1024;

/// The time for the scan was over before this could be looked at.
const OVER: Uncovered = Uncovered::Unreadable(Errno::CANCELED.raw_os_error());

/// What is to be done.
pub(super) enum Job {
    /// Look at a path; go on below it if that is `whole`.
    Place { root: Arc<Root>, path: Vec<u8>, whole: bool },
    /// List a directory and look at its entries; if `is_new`, at its own first.
    Directory { root: Arc<Root>, path: Vec<u8>, anchor: Option<Anchor>, is_new: bool },
    /// Look at these files of a directory.
    Files(Files),
}

impl Job {
    fn path(self) -> Vec<u8> {
        match self {
            Self::Place { path, .. } | Self::Directory { path, .. } => path,
            Self::Files(files) => files.path.to_vec(),
        }
    }
}

/// A directory above, held open, and the length of its path: what is deep below is opened from there, not from the root.
#[derive(Clone)]
pub(super) struct Anchor(Arc<OwnedFd>, usize);

impl Anchor {
    /// That of what is in a directory: its own if that of the directory is far above.
    fn below(directory: &Arc<OwnedFd>, path: &[u8], root: &Root, above: Option<Self>) -> Option<Self> {
        let length = above.as_ref().map_or(root.path.len(), |Self(_, length)| *length);
        if path.len() - length < ANCHORED { above } else { Some(Self(Arc::clone(directory), path.len())) }
    }
}

/// Files of one directory that are not known. Several threads may have it and take from it.
#[derive(Clone)]
pub(super) struct Files {
    root: Arc<Root>,
    directory: Arc<OwnedFd>,
    path: Path,
    names: Arc<[OsString]>,
    taken: Arc<AtomicUsize>,
}

impl Files {
    fn left(&self) -> usize {
        self.names.len().saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    fn next(&self) -> Option<&OsStr> {
        self.names.get(self.taken.fetch_add(1, Ordering::Relaxed)).map(OsString::as_os_str)
    }
}

/// What one thread found.
#[derive(Default)]
pub(super) struct Part {
    pub(super) entries: Vec<(Path, Arc<Fingerprint>)>,
    pub(super) uncovered: Vec<(Vec<u8>, Uncovered)>,
    pub(super) excluded: u64,
    pub(super) slow: Vec<(Path, Duration)>,
    pub(super) unread: Vec<Path>,
}

pub(super) struct Walk<'a> {
    roots: &'a Roots,
    most: usize,
    shared: Shared<'a>,
    looked: AtomicUsize,
    enter: &'a Enter<'a>,
}

/// One thread of a walk.
pub(super) struct Worker<'a> {
    walk: &'a Walk<'a>,
    reader: Reader<'a>,
    pub(super) part: Part,
}

impl<'a> Walk<'a> {
    pub(super) fn new(roots: &'a Roots, previous: &'a View, options: &Options, means: &'a Means, enter: &'a Enter<'a>) -> Self {
        let shared = Shared::new(roots, previous, options, means);
        Self { roots, most: options.most, shared, looked: AtomicUsize::new(0), enter }
    }

    pub(super) fn worker(&'a self) -> Worker<'a> {
        Worker { walk: self, reader: self.shared.reader(), part: Part::default() }
    }

    /// Whether there is room for one more path.
    fn has_room(&self, path: &[u8]) -> bool {
        let weight = 1 + path.len() / WEIGHT;
        path.len() <= LONGEST && self.looked.fetch_add(weight, Ordering::Relaxed).saturating_add(weight) <= self.most
    }
}

impl Worker<'_> {
    /// Does one job, after a time of waiting for it.
    pub(super) fn step(&mut self, job: Job, mut push: impl FnMut(Job)) {
        self.reader.pace.resume();
        if self.is_over() {
            return self.part.uncovered.push((job.path(), OVER));
        }
        let (path, done) = match job {
            Job::Place { root, path, whole } => {
                let done = self.place(&root, &path, whole, &mut push);
                if done.is_err() && path == root.path {
                    // That there is no such root is worth telling.
                    self.part.uncovered.extend(done.err().map(|error| (path, unreadable(error))));
                    return;
                }
                (path, done)
            }
            Job::Directory { root, path, anchor, is_new } => {
                let done = self.directory(&root, &path, (anchor, is_new), &mut push);
                (path, done)
            }
            Job::Files(files) => return self.files(files, &mut push),
        };
        if let Err(error) = done {
            uncover(&mut self.part, path, error);
        }
        self.reader.pace.rest();
    }

    fn place(&mut self, root: &Arc<Root>, path: &[u8], whole: bool, push: &mut impl FnMut(Job)) -> Result<(), Errno> {
        let top = if path == root.path { root.open(path) } else { Err(Errno::NOTDIR) };
        let (directory, name) = match (top, beneath::split(path)) {
            (Ok(top), _) => (top, OsStr::new(".")),
            // A root that is a file is looked at where it stands.
            (Err(Errno::NOTDIR), Some((parent, name))) if path == root.path => (beneath::open(parent, parent)?, name),
            (Err(Errno::NOTDIR), Some((parent, name))) => (root.open(parent).map_err(no_directory)?, name),
            (Err(error), _) => return Err(error),
        };
        let stat = glance(&directory, name)?;
        let excluded = root.how.excludes(path);
        if leaves_out(root, excluded, &stat) {
            self.part.excluded += 1;
            return Ok(());
        }
        match self.walk.shared.known(root, &directory, name, path, &stat, &mut self.reader) {
            Some(known) => self.part.entries.push(known),
            None => self.look(root, &directory, name, path.to_vec()),
        }
        if whole && fingerprint::kind(&stat) == Kind::Directory {
            self.enter(root, path.to_vec(), (None, false), push);
        }
        Ok(())
    }

    /// Goes on below a directory, if that is not left out; whether it is not.
    fn enter(
        &mut self,
        root: &Arc<Root>,
        path: Vec<u8>,
        (anchor, is_new): (Option<Anchor>, bool),
        push: &mut impl FnMut(Job),
    ) -> bool {
        let is_left_out = root.how.excludes_folder(&path);
        if is_left_out {
            self.part.uncovered.push((path, Uncovered::Excluded));
        } else {
            push(Job::Directory { root: Arc::clone(root), path, anchor, is_new });
        }
        !is_left_out
    }

    fn directory(
        &mut self,
        root: &Arc<Root>,
        path: &[u8],
        (anchor, is_new): (Option<Anchor>, bool),
        push: &mut impl FnMut(Job),
    ) -> Result<(), Errno> {
        let shared: Path = path.into();
        let opened = match &anchor {
            Some(Anchor(above, length)) => beneath::open_in(above, &path[*length..]),
            None => root.open(path),
        };
        let now = SystemTime::now();
        let seen = opened.and_then(|directory| Ok((stat(&directory)?, directory)));
        if is_new {
            let print = seen.as_ref().ok().and_then(|(stat, directory)| fingerprint::of_open(directory, stat, now));
            self.own(root, &shared, print, push)?;
        }
        let (stat, directory) = seen?;
        let directory = Arc::new(directory);
        let anchor = Anchor::below(&directory, path, root, anchor);
        if let Some(why) = root.bars(&directory, &stat)? {
            self.part.uncovered.push((path.to_vec(), why));
            return Ok(());
        }
        (self.walk.enter)(path, &directory);
        let mut names = Vec::new();
        let files = |names: &mut Vec<OsString>| Files {
            root: Arc::clone(root),
            directory: Arc::clone(&directory),
            path: Arc::clone(&shared),
            names: mem::take(names).into(),
            taken: Arc::default(),
        };
        let mut buffer = [MaybeUninit::uninit(); LISTING];
        let (mut list, mut listed) = (RawDir::new(&*directory, &mut buffer), 0);
        while let Some(entry) = list.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let inside = beneath::join(path, name.as_bytes());
            if !self.walk.has_room(&inside) {
                self.part.uncovered.push((path.to_vec(), Uncovered::TooMany));
                break;
            }
            if self.entry(root, (&directory, anchor.as_ref()), inside, (name, entry.file_type()), push) {
                names.push(name.to_os_string());
            }
            if names.len() >= BATCH {
                push(Job::Files(files(&mut names)));
            }
            listed += 1;
            if listed % BATCH == 0 {
                self.reader.pace.rest();
                if self.is_over() {
                    self.part.uncovered.push((path.to_vec(), OVER));
                    break;
                }
            }
        }
        if !names.is_empty() {
            self.files(files(&mut names), push);
        }
        Ok(())
    }

    /// Takes what was seen of a directory through its own descriptor, or else looks at its name.
    fn own(&mut self, root: &Arc<Root>, path: &Path, seen: Option<Fingerprint>, push: &mut impl FnMut(Job)) -> Result<(), Errno> {
        let Some(print) = seen else { return self.place(root, path, false, push) };
        self.part.entries.push((Arc::clone(path), Arc::new(print)));
        Ok(())
    }

    /// One glance at an entry, if that may be enough; whether it must be looked at.
    fn entry(
        &mut self,
        root: &Arc<Root>,
        (directory, anchor): (&OwnedFd, Option<&Anchor>),
        path: Vec<u8>,
        (name, listed): (&OsStr, FileType),
        push: &mut impl FnMut(Job),
    ) -> bool {
        if self.walk.roots.begins_at(&path) {
            return false;
        }
        if listed == FileType::Directory && !self.walk.shared.may_know(&path) {
            // Its own entry is looked at through the descriptor that lists it.
            return !self.enter(root, path, (anchor.cloned(), true), push);
        }
        let excluded = root.how.excludes(&path);
        let is_plain = !excluded && root.how.content != Content::Executables;
        if listed == FileType::RegularFile && is_plain && !self.walk.shared.may_know(&path) {
            return true;
        }
        let stat = match glance(directory, name) {
            Ok(stat) => stat,
            Err(error) => {
                uncover(&mut self.part, path, error);
                return false;
            }
        };
        if leaves_out(root, excluded, &stat) {
            self.part.excluded += 1;
            return false;
        }
        let known = self.walk.shared.known(root, directory, name, &path, &stat, &mut self.reader);
        if fingerprint::kind(&stat) == Kind::Directory {
            self.enter(root, path, (anchor.cloned(), false), push);
        }
        let is_new = known.is_none();
        self.part.entries.extend(known);
        is_new
    }

    /// Looks at these files of a directory, until all are taken. Others may help: while one thread reads a large file, the
    /// rest goes on.
    fn files(&mut self, files: Files, push: &mut impl FnMut(Job)) {
        if files.left() > 1 {
            push(Job::Files(files.clone()));
        }
        while let Some(name) = files.next() {
            if self.is_over() {
                self.part.uncovered.push((files.path.to_vec(), OVER));
                return;
            }
            self.look(&files.root, &files.directory, name, beneath::join(&files.path, name.as_bytes()));
        }
    }

    fn is_over(&self) -> bool {
        self.walk.shared.means.budget.is_over()
    }

    fn look(&mut self, root: &Root, directory: &OwnedFd, name: &OsStr, path: Vec<u8>) {
        self.walk.shared.look(root, directory, name, path, (&mut self.part, &mut self.reader));
    }
}

fn leaves_out(root: &Root, excluded: bool, stat: &Statx) -> bool {
    root.how.leaves_out(excluded, fingerprint::kind(stat), stat.stx_mode)
}

fn glance(directory: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
    fingerprint::glance(directory.as_fd(), name).map_err(|error| errno(&error))
}

fn stat(directory: &OwnedFd) -> Result<Statx, Errno> {
    fingerprint::stat(directory.as_fd()).map_err(|error| errno(&error))
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Below a file or a link there is nothing.
fn no_directory(error: Errno) -> Errno {
    if matches!(error, Errno::NOTDIR | Errno::LOOP) { Errno::NOENT } else { error }
}

/// What is gone is no gap in what is seen.
pub(super) fn uncover(part: &mut Part, path: Vec<u8>, error: Errno) {
    if error != Errno::NOENT {
        part.uncovered.push((path, unreadable(error)));
    }
}

fn unreadable(error: Errno) -> Uncovered {
    Uncovered::Unreadable(error.raw_os_error())
}
