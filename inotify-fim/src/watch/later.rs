//! Files that are too large to be read while others wait: they are read in slices, the smallest first, between looks.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::marks::{Mark, Marks};
use crate::beneath;
use crate::fingerprint::{self, Device, Known, Partial, Slice};
use crate::roots::{Content, How, Roots};
use crate::view::{Path, View};

/// How long a change of such a file is kept back, to be told with its hash.
const HOLD: Duration = Duration::from_secs(5);

/// The same for a file that may only grow: without the hash it is not known whether it did no more than that.
const HOLD_LOG: Duration = Duration::from_secs(60);

/// So long is read at once, and no longer than that does an event wait for it.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// A file that changed while it was read is not begun again before so many times what that took have passed, and this.
const REST: u32 = 20;
const LEAST_REST: Duration = Duration::from_millis(25);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// So many of the smallest are looked for at once.
const BATCH: usize = 256;

/// A file that waits to be read.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) size: u64,
    /// Why it was looked at.
    pub(super) mark: Mark,
    /// When its change is told without a hash; `None` if it was.
    pub(super) told_by: Option<Instant>,
    /// Not to be read before.
    pub(super) from: Instant,
    /// Its hash is told once it is known: it is not that of a file that was met when all was learnt.
    pub(super) is_news: bool,
    /// It was read, and is to be looked at.
    done: bool,
}

#[derive(Default)]
pub(super) struct Later {
    waiting: BTreeMap<Path, Waiting>,
    reading: Option<Reading>,
    known: Known,
}

struct Reading {
    path: Path,
    partial: Partial,
    spent: Duration,
}

impl Waiting {
    /// Of a file that is met for the first time.
    pub(super) fn new(how: Option<&Arc<How>>, is_news: bool, now: Instant) -> Self {
        let is_log = how.is_some_and(|how| how.content == Content::Append);
        let told_by = Some(now + if is_log { HOLD_LOG } else { HOLD });
        Self { size: 0, mark: Mark::default(), told_by, from: now, is_news, done: false }
    }
}

impl Later {
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.waiting.contains_key(path)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Files that are known by now, for the next look.
    pub(super) fn take_known(&mut self) -> Known {
        std::mem::take(&mut self.known)
    }

    /// One more of those.
    pub(super) fn add_known(&mut self, content: fingerprint::Content) {
        self.known.add(content);
    }

    pub(super) fn put(&mut self, path: Path, waiting: Waiting) {
        self.waiting.insert(path, Waiting { done: false, ..waiting });
    }

    /// What is looked at now need not wait: takes it out, and adds its marks.
    pub(super) fn take(&mut self, marks: &mut Marks) -> BTreeMap<Path, Waiting> {
        let mut taken = BTreeMap::new();
        if self.waiting.is_empty() {
            return taken;
        }
        let found: Vec<Path> = self.waiting.keys().filter(|path| marks.reaches(path)).cloned().collect();
        for path in found {
            if let Some(waiting) = self.waiting.remove(&path) {
                marks.add(path.to_vec(), waiting.mark);
                taken.insert(path, waiting);
            }
        }
        taken
    }

    /// When the first change is told without its hash.
    pub(super) fn told_by(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|waiting| waiting.told_by).min()
    }

    /// When the first file may be read.
    pub(super) fn from(&self) -> Option<Instant> {
        self.waiting.values().filter(|waiting| !waiting.done).map(|waiting| waiting.from).min()
    }

    /// What was kept back long enough.
    pub(super) fn overdue(&mut self, now: Instant) -> Marks {
        let mut marks = Marks::default();
        for (path, waiting) in &mut self.waiting {
            if waiting.told_by.take_if(|by| *by <= now).is_some() {
                marks.add(path.to_vec(), waiting.mark);
            }
        }
        marks
    }

    /// Reads on for one slice. Gives what is to be looked at again.
    pub(super) fn read(&mut self, roots: &Roots, view: &View, now: Instant) -> Marks {
        let (start, mut marks, mut next) = (Instant::now(), Marks::default(), Vec::new());
        while start.elapsed() < SLICE && self.step(roots, view, now, &mut next, &mut marks) {}
        marks
    }

    /// Whether there is more to do now.
    fn step(&mut self, roots: &Roots, view: &View, now: Instant, next: &mut Vec<Path>, marks: &mut Marks) -> bool {
        let Some(mut reading) = self.begin(roots, view, now, next, marks) else { return !self.is_idle(now) };
        let start = Instant::now();
        let slice = reading.partial.read(SLICE);
        reading.spent += start.elapsed();
        match slice {
            Ok(Slice::More) => {
                self.reading = Some(reading);
                return true;
            }
            Ok(Slice::Done(content)) => self.known.add(*content),
            Ok(Slice::Changed) => {
                self.rest(&reading.path, now + (reading.spent * REST).clamp(LEAST_REST, LONGEST_REST));
                return true;
            }
            Err(error) => self.known.fail(reading.partial.which(), error),
        }
        if let Some(waiting) = self.waiting.get_mut(&reading.path) {
            waiting.done = true;
            marks.add(reading.path.to_vec(), waiting.mark);
        }
        true
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.waiting.values().all(|waiting| waiting.done || waiting.from > now)
    }

    /// Its change is told now, as its content cannot be known soon.
    fn rest(&mut self, path: &Path, from: Instant) {
        if let Some(waiting) = self.waiting.get_mut(path) {
            waiting.from = from;
            waiting.told_by = waiting.told_by.map(|by| by.min(from));
        }
    }

    /// The file that is being read, or the smallest that waits.
    fn begin(&mut self, roots: &Roots, view: &View, now: Instant, next: &mut Vec<Path>, marks: &mut Marks) -> Option<Reading> {
        if let Some(reading) = self.reading.take_if(|reading| self.waiting.contains_key(&reading.path)) {
            return Some(reading);
        }
        self.reading = None;
        if next.is_empty() {
            *next = self.smallest(now);
        }
        let path = next.pop()?;
        let beginning = view.entries.get(&path).filter(|print| print.hash.done().is_some()).map(|print| print.size);
        match self.open(roots, &path, beginning) {
            Ok(Some(partial)) => return Some(Reading { path, partial, spent: Duration::ZERO }),
            // It was changed a moment ago.
            Ok(None) => {
                if let Some(waiting) = self.waiting.get_mut(&path) {
                    waiting.from = now + LEAST_REST;
                }
            }
            // The look that follows knows why, or finds something else there. If it does not, there is no hurry.
            Err(_) => {
                if let Some(waiting) = self.waiting.get(&path) {
                    marks.add(path.to_vec(), waiting.mark);
                }
                self.rest(&path, now + LONGEST_REST);
            }
        }
        None
    }

    fn open(&mut self, roots: &Roots, path: &[u8], beginning: Option<u64>) -> std::io::Result<Option<Partial>> {
        let file = open(roots, path)?;
        let stat = fingerprint::stat(file.as_fd())?;
        Partial::new(file, beginning).inspect_err(|error| {
            let which = (Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }, stat.stx_ino);
            self.known.fail(which, Errno::from_io_error(error).unwrap_or(Errno::IO));
        })
    }

    /// The smallest that may be read, the very smallest last. Looking for one at a time would take longer than reading it,
    /// where many wait.
    fn smallest(&self, now: Instant) -> Vec<Path> {
        let ready = self.waiting.iter().filter(|(_, waiting)| !waiting.done && waiting.from <= now);
        let mut ready: Vec<(u64, &Path)> = ready.map(|(path, waiting)| (waiting.size, path)).collect();
        if ready.len() > BATCH {
            ready.select_nth_unstable(BATCH);
            ready.truncate(BATCH);
        }
        ready.sort_unstable_by(|one, other| other.cmp(one));
        ready.into_iter().map(|(_, path)| Arc::clone(path)).collect()
    }
}

/// What stands at a path; what a link leads to, in the way that a look would follow it.
pub(super) fn open(roots: &Roots, path: &[u8]) -> Result<OwnedFd, Errno> {
    let (root, how) = roots.of(path).ok_or(Errno::NOENT)?;
    let file = beneath::point_at(root, path)?;
    if fingerprint::kind(&fingerprint::stat(file.as_fd()).map_err(|_| Errno::IO)?) != fingerprint::Kind::Symlink {
        return Ok(file);
    }
    let inside = beneath::open(root, root).and_then(|top| beneath::follow(root, &top, &path[root.len()..], !how.cross));
    match (inside, beneath::split(path)) {
        // The root's own path is the operator's, wherever it leads.
        (Err(_), Some((parent, name))) if path == root => beneath::follow_out(&beneath::open(parent, parent)?, name),
        (Err(_), Some((parent, name))) if how.follow => beneath::follow_out(&beneath::open(root, parent)?, name),
        (inside, _) => inside,
    }
}
