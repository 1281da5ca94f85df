//! What is told. What is done about it is not decided here.

use std::time::{Duration, SystemTime};

use crate::mounts::MountChange;
use crate::scan::Uncovered;
use crate::suspects::Suspect;
use crate::view::Difference;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something differs from what was there before.
    Changed {
        /// What.
        difference: Box<Difference>,
        /// What it was found by, which says how exactly its time is known.
        source: Source,
        /// Who had it open for writing when its events were read; empty if nobody was seen.
        suspects: Vec<Suspect>,
        /// When it was found by a comparison: it was not before this time, at which it was last looked at. `None` if it was
        /// found by an event, or nobody knows.
        since: Option<SystemTime>,
    },
    /// Something was made and is gone again; what it held is not known. Where it was may stand what was there before.
    Transient {
        /// Where.
        path: Vec<u8>,
        /// Who had it open for writing when its events were read.
        suspects: Vec<Suspect>,
    },
    /// The baseline says nothing of this root: what is there now was taken for good. Only what changes later is told.
    Learned {
        /// Which.
        root: Vec<u8>,
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
    /// This path and what is below it is not seen any more; with [`Uncovered::NoWatch`], [`Uncovered::NoEvents`] and
    /// [`Uncovered::Remote`] only by comparison. Told once for a tree of which nothing is watched.
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
    /// A comparison is done: of everything, or with [`Source::Poll`] of what is not watched.
    Compared {
        /// Why.
        source: Source,
        /// How many paths there are.
        entries: usize,
        /// How many directories and files are watched.
        watched: usize,
        /// How many differences were found.
        found: usize,
        /// How long it took.
        took: Duration,
        /// Whether it was done: the last one may meet a deadline. What it did not reach counts as it was before.
        complete: bool,
    },
    /// A mount came, went or was changed, at a root, below one, or at a directory that one is in.
    MountChanged {
        /// Where.
        path: Vec<u8>,
        /// How.
        change: MountChange,
    },
    /// The wall clock was set, or the machine slept. Schedules go by another clock.
    ClockJumped {
        /// Seconds, negative if it went back.
        by: i64,
    },
    /// The kernel had lost watches that should have been there, or had others. They were made anew, and what they stood
    /// for is compared.
    Repaired {
        /// How many.
        watches: usize,
    },
    /// It has ended by a fault of its own: nothing is watched any more, and nothing else will be told.
    Ended {
        /// What the fault says.
        why: String,
    },
}

/// What a difference was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An event, a moment ago.
    Event,
    /// The first comparison: it happened since the baseline was made.
    Start,
    /// The comparison that closes a gap: it happened since the gap began.
    Repair,
    /// A comparison on schedule or on demand, by statx(2): it happened since the one before, without an event.
    Schedule,
    /// A comparison on schedule that read all content.
    Full,
    /// A comparison of what is not watched.
    Poll,
    /// The last comparison, when the watch was stopped.
    End,
}

impl Source {
    /// Of two reasons for one look the one that says more.
    pub(super) fn max_of(self, other: Self) -> Self {
        let weight = |source| match source {
            Self::Event => 0,
            Self::Poll => 1,
            Self::Schedule => 2,
            Self::Full => 3,
            Self::End => 4,
            Self::Repair => 5,
            Self::Start => 6,
        };
        if weight(other) >= weight(self) { other } else { self }
    }
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel's queue was full, or it had no memory for an event.
    Kernel,
    /// The queue between the two threads was full, or the kernel's could not be read.
    Queue,
}
