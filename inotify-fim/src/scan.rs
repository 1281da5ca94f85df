//! The view of whole trees as it is now, and a record of what could not be looked at.
//!
//! Several threads take directories from one stack: open without following a link, list, look at each entry. Entries that
//! stand unchanged in an earlier view are taken from there (one statx(2) each); the others are read. The answer does not
//! depend on the number of threads. While files change, it is no picture of one moment.

mod entry;
mod root;
mod walk;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

#[cfg(doc)]
use crate::fingerprint::HashState;
use crate::fingerprint::Means;
use crate::roots::Roots;
use crate::view::{Path, View};
use root::Root;
pub(crate) use root::{barred, device_of};
pub(crate) use walk::LONGEST;
use walk::{Job, Walk};

/// So many single paths are looked at by one thread.
const FEW: usize = 16;

/// How much of the machine a scan may take.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many threads read at once, if the system gives so many; at least 1.
    pub threads: usize,
    /// How many entries are looked at in one scan; those beyond are told as [`Uncovered::TooMany`]. One with a long path
    /// counts for several, one more for each 256 octets.
    pub most: usize,
    /// Percent of one processor that all threads together may take; no less than 1, and no limit from 100 on.
    pub share: u8,
    /// What is read of files whose content counts.
    pub read: Read,
}

/// What is read of files whose content counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// All but what statx(2) proves to be unchanged since the earlier view.
    #[default]
    Changed,
    /// All: this alone finds what changed without the kernel's knowledge.
    All,
    /// Nothing: a file that is not known from the earlier view is [`HashState::NotRead`].
    Nothing,
}

/// One million entries, as many threads as there are processors but at most 4, no limit of their share, what changed.
impl Default for Options {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
        Self { threads, most: 1_000_000, share: 100, read: Read::Changed }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// What stands at each path. A root is in it too.
    pub view: View,
    /// What could not be looked at, or is left out as a whole, and why.
    pub uncovered: BTreeMap<Vec<u8>, Uncovered>,
    /// How many files were left out one by one, by [`crate::roots::How::exclude`].
    pub excluded: u64,
    /// Files of 1 MiB and more that took over 10 ms to read, and how long.
    pub slow: BTreeMap<Path, Duration>,
    /// Files and links to files that were too large for what might be read: their content is to be read later.
    pub(crate) unread: Vec<Path>,
    /// The deadline came before all was looked at.
    pub(crate) cut: bool,
}

impl Scan {
    /// Adds what an earlier view has at and below each path that this scan could not look at: that a file could not be
    /// seen is no proof that it is gone. Only of what does not exist nothing is added.
    pub fn carry(&mut self, before: &View) {
        let gone = Uncovered::Unreadable(Errno::NOENT.raw_os_error());
        for (path, _) in self.uncovered.iter().filter(|(_, why)| **why != gone && **why != Uncovered::NoWatch) {
            for (path, print) in before.tree(path) {
                self.view.entries.entry(Arc::clone(path)).or_insert_with(|| Arc::clone(print));
            }
        }
    }
}

/// Why a path, and all below it, is not in the view; of a directory only its own entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncovered {
    /// It cannot be opened or listed: the number of the error (errno(3)). Of a root, most often that it is not there.
    Unreadable(i32),
    /// Another file system is mounted there.
    OtherFileSystem,
    /// What is there is no files but the kernel's own state.
    Kernel,
    /// It is excluded.
    Excluded,
    /// The scan has as many entries as it may have, or a path below has more than 64 KiB.
    TooMany,
    /// The kernel's limit of watches is reached (`/proc/sys/fs/inotify/max_user_watches`): found by comparison only.
    NoWatch,
    /// A proof failed: something was made there and no event came. Found by comparison only.
    NoEvents,
    /// Other machines can change it, which causes no event here: a network file system, or FUSE.
    Remote,
}

/// Looks at every root and all below it, at those of the highest priority first ([`Options::most`]). What has not changed since `previous` is taken from there; with an empty view
/// all content is read. Paths in the view are the roots as they are given, with what stands below them.
///
/// One thread takes about 12 µs for a small file that is read, 2 µs for one that is known. Each has two or three descriptors
/// open.
#[must_use]
pub fn scan(roots: &Roots, previous: &View, options: &Options) -> Scan {
    run(roots, roots.iter().map(|(path, _)| Place { path: path.to_vec(), whole: true }), previous, options)
}

/// A path to look at, below a root or the root itself.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The path.
    pub(crate) path: Vec<u8>,
    /// With all below it.
    pub(crate) whole: bool,
}

/// Looks at those of these places that belong to a root.
pub(crate) fn run(roots: &Roots, places: impl IntoIterator<Item = Place>, previous: &View, options: &Options) -> Scan {
    run_and(roots, places, previous, options, &Means::default(), &|_, _| ())
}

/// What is told of each directory that is gone into, after it was opened and before it is listed.
pub(crate) type Enter<'a> = dyn Fn(&[u8], &OwnedFd) + Sync + 'a;

/// The same within limits, and tells of each directory.
pub(crate) fn run_and(
    roots: &Roots,
    places: impl IntoIterator<Item = Place>,
    previous: &View,
    options: &Options,
    means: &Means,
    enter: &Enter<'_>,
) -> Scan {
    let mut opened: BTreeMap<&[u8], Arc<Root>> = BTreeMap::new();
    let mut job = |place: Place| {
        let (root, how) = roots.of(&place.path)?;
        let root = opened.entry(root).or_insert_with(|| Arc::new(Root::new(root.to_vec(), Arc::clone(how))));
        Some((how.priority, Job::Place { root: Arc::clone(root), path: place.path, whole: place.whole }))
    };
    let jobs: Vec<(u8, Job)> = places.into_iter().filter_map(&mut job).collect();
    // A few places are looked at sooner than a thread is started.
    let is_little = jobs.len() <= FEW && jobs.iter().all(|(_, job)| matches!(job, Job::Place { whole: false, .. }));
    let threads = if is_little { 1 } else { options.threads };
    let stack = Stack::new(jobs);
    let walk = Walk::new(roots, previous, options, means, enter);
    let mut parts: Vec<walk::Part> = thread::scope(|scope| {
        // Where no more threads can be had, fewer do it all.
        let start = || thread::Builder::new().spawn_scoped(scope, || work(&stack, &walk));
        let others: Vec<_> = (1..threads).map_while(|_| start().ok()).collect();
        let mut parts = vec![work(&stack, &walk)];
        // A panic in a thread is one here too: a part of a view must not pass for the whole.
        parts.extend(others.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
        parts
    });
    Scan {
        view: View { entries: parts.iter_mut().flat_map(|part| std::mem::take(&mut part.entries)).collect() },
        uncovered: parts.iter_mut().flat_map(|part| std::mem::take(&mut part.uncovered)).collect(),
        excluded: parts.iter().map(|part| part.excluded).sum(),
        slow: parts.iter_mut().flat_map(|part| std::mem::take(&mut part.slow)).collect(),
        unread: parts.iter_mut().flat_map(|part| std::mem::take(&mut part.unread)).collect(),
        cut: means.budget.was_cut(),
    }
}

fn work(stack: &Stack, walk: &Walk<'_>) -> walk::Part {
    let mut worker = walk.worker();
    while let Some(job) = stack.take() {
        let _busy = Busy(stack);
        worker.step(job, |more| stack.push(more));
    }
    // Each thread its own: what is left for one to do is to merge.
    worker.part.entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    worker.part
}

/// What is still to be done. The last in is the first out, so that few directories are held open.
struct Stack {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    jobs: Vec<Job>,
    /// What is of lower priority, the next last.
    later: Vec<Vec<Job>>,
    busy: usize,
    /// Threads that wait: nobody is woken where nobody does, as that is a system call.
    waiting: usize,
}

impl Stack {
    /// What is of a higher priority is done before anything else, so that it has its part of what may be looked at.
    fn new(jobs: Vec<(u8, Job)>) -> Self {
        let mut by_priority: BTreeMap<u8, Vec<Job>> = BTreeMap::new();
        // The last in is the first out.
        jobs.into_iter().rev().for_each(|(priority, job)| by_priority.entry(priority).or_default().push(job));
        let state = State { jobs: Vec::new(), later: by_priority.into_values().collect(), busy: 0, waiting: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The next job; `None` when there is none and nobody can add one.
    fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop() {
                state.busy += 1;
                return Some(job);
            }
            if state.busy == 0 {
                state.jobs = state.later.pop()?;
                self.changed.notify_all();
                continue;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    fn push(&self, job: Job) {
        let mut state = self.lock();
        state.jobs.push(job);
        if state.waiting > 0 {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One job in the works; its end, by a panic too, is told to whoever waits.
struct Busy<'a>(&'a Stack);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.busy == 0 && state.waiting > 0 {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
