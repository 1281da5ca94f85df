//! Keeps a view of some trees true, and tells what changed. Where that is written, and what is done about it, is not
//! decided here.
//!
//! Two threads: one only empties the kernel's queue into a bounded one; the other watches directories, looks at what the
//! events name and compares it with what was there (the files of this folder, in that order). inotify(7) is taken for a
//! hint. It is the comparison that tells, and where events were lost everything is compared and the gap is told.
//!
//! # What is not seen, or late
//!
//! - Changes without an event are found by the next comparison on schedule: through a hard link outside the roots when
//!   there are more such files than file watches, from another machine or through another mount namespace's mounts; flags of
//!   chattr(1).
//! - A write through a memory mapping causes no event until the mapping ends; then the file is read. Until then the first
//!   such write is found on schedule; a later one to the same page need not change the file's times, and only
//!   [`Options::full`] finds it.
//! - The source of a bind mount of one file may be replaced on its own side: the mount keeps the old file, and so does
//!   whoever reads it here. Nothing changed, and nothing is told.
//! - What is written by one more name of a file, in the same tree, that is gone before anybody looks: no event names the file.
//!   All is compared by statx(2) at the next poll.
//! - What came and went between two looks is told without its content ([`Event::Transient`]), and not at all if it was in
//!   a directory that came with it and was gone before it could be watched, as may be where more directories come at once
//!   than are watched before the next look. Where what cannot be executed is left out, it is told only if it was seen to be
//!   executable meanwhile, and counted else ([`Ledger::excluded_transients`]).
//! - While a large file is read others wait at most some tenths of a second, as it is read in slices: what one look reads is
//!   64 MiB, and eight times that in a comparison. The first reads besides whatever its baseline has the hash and the size of,
//!   as nothing else can tell. A full one reads everything in slices, small files first. A change of what does not fit is told
//!   once it was read, or after five seconds without its hash (a log: after a minute), which is told when it is known
//!   as [`Change::Modified`](crate::view::Change::Modified). A file that is slow to read and written all the time is looked
//!   at once a minute at least; another in its place is looked at at once.
//! - Several changes within [`Options::settle`] are one. A file changed and changed back has not changed, but for its time.
//! - inotify tells nothing of who did it. Who has the file open for writing a moment later is looked for; who closed it
//!   before that, or wrote through a mapping, is not seen.

mod event;
mod shared;
mod reader;
mod schedule;
mod marks;
mod ways;
mod armed;
mod links;
mod names;
mod hot;
mod later;
mod round;
mod witness;
mod proofs;
mod coverage;
mod tally;
mod reconcile;
mod planner;

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
pub use crate::mounts::MountChange;
use crate::roots::Roots;
use crate::scan;
pub use crate::suspects::{Certainty, Suspect};
use crate::view::View;
pub use event::{Cause, Event, Source};
use planner::Planner;
use shared::{Message, Shared};

/// No wait is longer, as a time that far away cannot be reckoned with.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Watches for those whose limits cannot be read: half of the least that the kernel gives a user.
const FEWEST: usize = 4096;

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
    /// How often all content is read anew. Events are told meanwhile ([`Ledger::reading`]), so it may take long; the next is
    /// due so long after its end.
    pub full: Duration,
    /// How often that is compared which has no watch, or whose watches do not tell everything; and roots that cannot be seen.
    pub poll: Duration,
    /// The most watches. What has none is polled, breadth first within a root ([`crate::roots::How::priority`]).
    pub watches: usize,
    /// Look for who has a changed file open for writing: one walk over `/proc` for each batch of events, at most each 20 ms.
    pub suspects: bool,
}

/// 100 ms of quiet, at most one second; everything each ten minutes, and once a day all content; what is not watched each
/// 30 seconds. Half of the watches that the kernel allows this user, as the app may need some.
impl Default for Options {
    fn default() -> Self {
        Self {
            scan: scan::Options::default(),
            settle: Duration::from_millis(100),
            patience: Duration::from_secs(1),
            every: Duration::from_secs(600),
            full: Duration::from_secs(24 * 3600),
            poll: Duration::from_secs(30),
            watches: most_watches().map_or(FEWEST, |most| most / 2),
            suspects: true,
        }
    }
}

/// How many watches the kernel allows this user, in this user namespace; `None` if it does not say.
#[must_use]
pub fn most_watches() -> Option<usize> {
    let limit = |path| fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let limits = ["/proc/sys/fs/inotify/max_user_watches", "/proc/sys/user/max_inotify_watches"].map(limit);
    limits.into_iter().flatten().min()
}

/// Trees that are watched until [`Watch::stop`], or until this is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    send: Sender<Message>,
    planner: Option<JoinHandle<(View, bool)>>,
}

impl Watch {
    /// Watches these roots, and tells every [`Event`] to `tell`, on a thread of its own. `tell` should not wait: while it
    /// does, nothing is compared.
    ///
    /// The first comparison is with `baseline`. A root of which it says nothing, neither of the root nor of a directory
    /// that it is in, is learned: what is there is taken for good, and [`Event::Learned`] is told. What the baseline says
    /// of other places is forgotten. [`Event::Compared`] with [`Source::Start`] says that the first comparison is done. A
    /// root may be missing, and come later.
    ///
    /// Without an inotify instance (most often this user has `/proc/sys/fs/inotify/max_user_instances` of them) everything
    /// is polled, [`Event::CoverageLost`] is told of each root, and each comparison tries for one again.
    ///
    /// To watch other roots, stop this and start another with the view of this as its baseline: what happens in between is
    /// told once, by the first comparison.
    ///
    /// The directories on the way to each root are watched too, links followed: who swaps one swaps the root. Where that
    /// cannot be done (this user may not read the directory, or there are no watches left) a swap is found on schedule.
    ///
    /// # Errors
    ///
    /// eventfd(2) fails, or a thread cannot be started.
    pub fn start(roots: Roots, baseline: View, options: Options, tell: impl FnMut(Event) + Send + 'static) -> io::Result<Self> {
        let [settle, patience, every, full, poll] =
            [options.settle, options.patience, options.every, options.full, options.poll].map(|time| time.min(LONGEST));
        let options = Options { settle, patience, every, full, poll, ..options };
        let shared = Arc::new(Shared::new()?);
        let (send, messages) = channel();
        let planner = Planner::new(roots, baseline, options, messages, Arc::clone(&shared), tell);
        let handle = thread::Builder::new().name("fim-compare".into()).spawn(move || planner.run())?;
        let watch = Self { shared: Arc::clone(&shared), send: send.clone(), planner: Some(handle) };
        thread::Builder::new().name("fim-read".into()).spawn(move || reader::run(&shared, send, reader::QUEUE))?;
        Ok(watch)
    }

    /// Whether it still watches. It ends before it is stopped only by a fault: if `tell` panics, or by an error in here, of
    /// which [`Event::Ended`] is told.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.planner.as_ref().is_some_and(|planner| !planner.is_finished())
    }

    /// Asks for a comparison of everything by statx(2) now. It is told with [`Source::Schedule`].
    pub fn compare(&self) {
        self.shared.ask(&self.send);
    }

    /// How the trees are covered: as it was when something was last looked at.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger().clone()
    }

    /// Tells what events still wait, compares everything a last time ([`Source::End`]), and stops. Gives the last view, a
    /// baseline for the next start, and whether all was compared with it: what could not be looked at `within` this time is
    /// in the view as it was before. It takes a little longer than that, for one call to the kernel and what `tell` takes.
    ///
    /// Of a root that is not learned yet, the view then has a part only: the next start would tell the rest as made.
    ///
    /// # Panics
    ///
    /// As `tell` did, or with what [`Event::Ended`] said.
    #[must_use]
    pub fn stop(mut self, within: Duration) -> (View, bool) {
        // Nobody else sets it.
        let _ = self.shared.deadline.set(Instant::now() + within.min(LONGEST));
        self.shared.end();
        let ended = self.planner.take().map(JoinHandle::join);
        ended.map_or_else(Default::default, |view| view.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.end();
    }
}

#[cfg(test)]
mod tests;
