//! Keeps a view of some trees true, and tells what changed. Where that is written, and what is done about it, is not
//! decided here.
//!
//! Two threads: one only empties the kernel's queue into a bounded one; the other watches directories, looks at what the
//! events name and compares it with what was there (the files of this folder, in that order). inotify(7) is taken for a
//! hint. It is the comparison that tells, and where events were lost everything is compared and the gap is told.
//!
//! # What is not seen, or late
//!
//! - Changes without an event are found by the next comparison on schedule: writes through a memory mapping that is kept,
//!   through a hard link outside the roots, from another machine or mount, to a file behind a bind mount of one file;
//!   flags of chattr(1).
//! - What came and went between two looks is told without its content ([`Event::Transient`]), and not at all if it was in
//!   a directory that came with it and was gone before it could be watched.
//! - Several changes within [`Options::settle`] are one. A file changed and changed back has not changed, but for its time.
//! - inotify tells nothing of who did it.

mod reader;
mod armed;
mod links;
mod reconcile;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags};

use crate::roots::Roots;
use crate::scan::{self, Uncovered};
use crate::view::{Difference, View};
use reader::{Backlog, Note};
use reconcile::Reconciler;

/// No wait is longer, as a time that far away cannot be reckoned with.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How to watch. No time is taken for longer than a year.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to look at.
    pub scan: scan::Options,
    /// How long there must be no event before what they named is looked at, so that a save in several steps is one change.
    pub settle: Duration,
    /// After how long it is looked at though events go on.
    pub patience: Duration,
    /// How often everything is compared, reading only what statx(2) says is changed.
    pub every: Duration,
}

/// 100 ms of quiet, at most one second; everything each ten minutes.
impl Default for Options {
    fn default() -> Self {
        Self {
            scan: scan::Options::default(),
            settle: Duration::from_millis(100),
            patience: Duration::from_secs(1),
            every: Duration::from_secs(600),
        }
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something differs from what was there before.
    Changed {
        /// What.
        difference: Box<Difference>,
        /// What it was found by, which says how exactly its time is known.
        source: Source,
    },
    /// Something was made and is gone again; what it held is not known.
    Transient {
        /// Where.
        path: Vec<u8>,
    },
    /// Events were lost. Until the gap is closed, changes are not seen or not in order.
    GapOpened {
        /// Why.
        cause: Cause,
        /// When the last event before it was read.
        start: SystemTime,
    },
    /// Everything was compared: what the gap had hidden was told just before.
    GapClosed {
        /// Why there was a gap.
        cause: Cause,
        /// When the last event before it was read.
        start: SystemTime,
        /// When the comparison was done.
        end: SystemTime,
        /// How many differences it found.
        found: usize,
    },
    /// This path and what is below it is not seen any more; with [`Uncovered::NoWatch`] only by comparison.
    CoverageLost {
        /// Where.
        path: Vec<u8>,
        /// Why.
        why: Uncovered,
    },
    /// It is seen again, or is gone.
    CoverageGained {
        /// Where.
        path: Vec<u8>,
    },
    /// Everything was compared.
    Compared {
        /// Why.
        source: Source,
        /// How many paths there are.
        entries: usize,
        /// How many directories are watched.
        watched: usize,
        /// How many differences were found.
        found: usize,
    },
}

/// What a difference was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An event, a moment ago.
    Event,
    /// The first comparison: it happened since the baseline was made.
    Start,
    /// The comparison that closes a gap: it happened since the gap began.
    Repair,
    /// A comparison on schedule: it happened since the one before, without an event.
    Schedule,
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel's queue was full, or it had no memory for an event.
    Kernel,
    /// The queue between the two threads was full, or the kernel's could not be read.
    Queue,
}

/// Trees that are watched until [`Watch::stop`], or until this is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Arc<OwnedFd>>,
    planner: Option<JoinHandle<View>>,
}

impl Watch {
    /// Watches these roots, and tells every [`Event`] to `tell`, on a thread of its own. `tell` should not wait: while it does, nothing is compared.
    ///
    /// The first comparison is with `baseline`. Without one, what is there is taken for good: only what changes later is
    /// told. [`Event::Compared`] with [`Source::Start`] says that it is done. A root may be missing, and come later.
    ///
    /// # Errors
    ///
    /// inotify_init(2) fails, most often as this user has `/proc/sys/fs/inotify/max_user_instances` of them; or eventfd(2),
    /// or a thread cannot be started.
    pub fn start(
        roots: Roots,
        baseline: Option<View>,
        options: Options,
        tell: impl FnMut(Event) + Send + 'static,
    ) -> io::Result<Self> {
        let [settle, patience, every] = [options.settle, options.patience, options.every].map(|time| time.min(LONGEST));
        let options = Options { settle, patience, every, ..options };
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (send, notes) = channel();
        let backlog = Arc::new(Backlog::default());
        let learns = baseline.is_none();
        let reconciler = Reconciler::new(roots, baseline.unwrap_or_default(), options.scan, Arc::clone(&inotify));
        let planner = Planner { notes, backlog: Arc::clone(&backlog), reconciler, options, tell };
        let handle = thread::Builder::new().name("fim-compare".into()).spawn(move || planner.run(learns))?;
        let watch = Self { stop: Some(Arc::clone(&stop)), planner: Some(handle) };
        let read = move || reader::run(&inotify, &stop, &send, &backlog, reader::QUEUE);
        thread::Builder::new().name("fim-read".into()).spawn(read)?;
        Ok(watch)
    }

    /// Whether it still watches. It ends before it is stopped only if `tell` panicked.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.planner.as_ref().is_some_and(|planner| !planner.is_finished())
    }

    /// Tells what events still wait, and stops. Gives the last view: a baseline for the next start.
    ///
    /// # Panics
    ///
    /// As `tell` did.
    #[must_use]
    pub fn stop(mut self) -> View {
        self.signal();
        let ended = self.planner.take().map(JoinHandle::join);
        ended.map_or_else(View::default, |view| view.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    fn signal(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It fails only if it was written before.
            let _ = rustix::io::write(&*stop, &1_u64.to_ne_bytes());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal();
    }
}

/// Decides when to look: the second thread.
struct Planner<F> {
    notes: Receiver<Vec<Note>>,
    backlog: Arc<Backlog>,
    reconciler: Reconciler,
    options: Options,
    tell: F,
}

impl<F: FnMut(Event)> Planner<F> {
    fn run(mut self, learns: bool) -> View {
        self.start(learns);
        let mut compared = Instant::now();
        // When the first and the last event came that were not looked at yet.
        let mut waiting: Option<(Instant, Instant)> = None;
        loop {
            let due = waiting.map(|(first, last)| (first + self.options.patience).min(last + self.options.settle));
            let next = due.unwrap_or(compared + self.options.every).min(compared + self.options.every);
            match self.notes.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(batch) => {
                    self.backlog.waiting.fetch_sub(batch.len(), Ordering::AcqRel);
                    batch.iter().for_each(|note| self.reconciler.take(note, &mut self.tell));
                    let now = Instant::now();
                    waiting = Some((waiting.map_or(now, |(first, _)| first), now));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.repair();
                    self.reconciler.reconcile(&mut self.tell);
                    return self.reconciler.view;
                }
            }
            let now = Instant::now();
            if self.repair() {
                waiting = waiting.or(Some((now, now)));
            }
            if now >= compared + self.options.every {
                self.reconciler.compare_all(Source::Schedule);
                compared = now;
                waiting = waiting.or(Some((now, now)));
            }
            if waiting.is_some_and(|(first, last)| now >= first + self.options.patience || now >= last + self.options.settle) {
                waiting = None;
                if self.reconciler.is_dirty() {
                    self.reconciler.reconcile(&mut self.tell);
                }
            }
        }
    }

    /// The first comparison. What is learned by it is no change.
    fn start(&mut self, learns: bool) {
        self.reconciler.compare_all(Source::Start);
        let tell = &mut self.tell;
        self.reconciler.reconcile(&mut |event| match event {
            Event::Changed { .. } if learns => {}
            Event::Compared { source, entries, watched, .. } if learns => {
                tell(Event::Compared { source, entries, watched, found: 0 });
            }
            event => tell(event),
        });
    }

    fn repair(&mut self) -> bool {
        let lost = self.backlog.lost.swap(false, Ordering::Acquire);
        if lost {
            self.reconciler.lost(Cause::Queue, &mut self.tell);
        }
        lost
    }
}

#[cfg(test)]
mod tests;
