//! What is covered and how, and what is not: the numbers of a [`crate::watch::Watch`] at one moment.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::scan::Uncovered;
use crate::watch::Source;

/// So many uncovered paths are listed; more are counted.
pub(crate) const LISTED: usize = 1_000;

/// How the trees are covered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Each root, sorted.
    pub roots: Vec<Root>,
    /// How many paths are in the view.
    pub entries: usize,
    /// Whether there is an inotify instance. Without one everything is polled.
    pub inotify: bool,
    /// How many directories and files are watched.
    pub watched: usize,
    /// How many may be.
    pub budget: usize,
    /// How many trees are compared often as they have no watch, or their watches no events.
    pub polled: usize,
    /// How many files were left out one by one in the last comparison of everything.
    pub excluded: u64,
    /// How many files came and went between two looks where what cannot be executed is left out, and were not seen to be
    /// executable while they were there.
    pub excluded_transients: u64,
    /// What is not covered, or not watched, and why: 1,000 at most, those that mean
    /// the most first: what is not seen at all, then what is only compared, last what the policy excludes; each by path.
    pub uncovered: Vec<(Vec<u8>, Uncovered)>,
    /// How many there are of each reason ([`reason`]).
    pub reasons: BTreeMap<&'static str, usize>,
    /// The mounts that the roots are in, and those below them.
    pub mounts: Vec<Mount>,
    /// When the last comparison of each kind ended.
    pub compared: BTreeMap<Source, SystemTime>,
    /// Since when events are lost, if a gap is open.
    pub gap_since: Option<SystemTime>,
    /// How many gaps there were, with the one that is open.
    pub gaps: u64,
    /// How many of them because the kernel's queue was full.
    pub overflows: u64,
    /// How often the wall clock jumped.
    pub clock_jumps: u64,
    /// How many watches were made anew as the kernel had others than it should.
    pub repaired: u64,
    /// How often so many paths waited to be looked at that whole roots were instead: what came and went is not told then.
    pub collapsed: u64,
    /// The most events that ever waited for the comparison.
    pub high_water: usize,
    /// How many files wait as reading them takes long.
    pub hot: usize,
    /// How many large files wait to be read, a part at a time between looks.
    pub unread: usize,
    /// All content is being read, for a full comparison. Meanwhile everything else goes on.
    pub reading: Option<Reading>,
    /// Since when it has been looking, if it is: meanwhile nothing else is noticed.
    pub looking_since: Option<SystemTime>,
    /// How many processes could not be looked into when somebody last looked for who writes; `None` if nobody has yet.
    pub hidden_processes: Option<usize>,
}

/// How far a reading of all content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Since when.
    pub since: SystemTime,
    /// Octets that were read.
    pub octets: u64,
    /// Octets that there were to read when it began.
    pub of: u64,
}

/// A root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its path.
    pub path: Vec<u8>,
    /// What was there at the start was taken for good.
    pub learned: bool,
    /// It is there.
    pub present: bool,
    /// How many paths it has.
    pub entries: usize,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The root, or the mount point below one.
    pub path: Vec<u8>,
    /// The type of its file system, as the kernel names it; empty if it is not known.
    pub fs: String,
    /// Whether events arrive from it.
    pub proof: Proof,
}

/// Whether events arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A directory was made and removed there, and both events came.
    Proven,
    /// Nothing was proven.
    Unverified(Unverified),
    /// It is compared often, as events do not tell everything.
    Polled(Polled),
}

/// Why it is not proven that events arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// The proof was not tried yet, or is under way.
    Pending,
    /// It is mounted read-only.
    ReadOnly,
    /// This user can make no directory in the directories that were tried.
    NotWritable,
    /// It is the mount of a single file.
    SingleFile,
    /// It is not there, or no directory of it is watched.
    Unwatched,
}

/// Why a mount is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// A directory was made there, and no event came.
    NoEvents,
    /// Other machines or processes may change it without an event: a network file system, or FUSE.
    Remote,
}

/// The words of all reasons.
pub const REASONS: &[&str] =
    &["unreadable", "other-file-system", "kernel", "excluded", "too-many", "no-watch", "no-events", "remote"];

/// One word for each reason.
#[must_use]
pub fn reason(why: Uncovered) -> &'static str {
    match why {
        Uncovered::Unreadable(_) => "unreadable",
        Uncovered::OtherFileSystem => "other-file-system",
        Uncovered::Kernel => "kernel",
        Uncovered::Excluded => "excluded",
        Uncovered::TooMany => "too-many",
        Uncovered::NoWatch => "no-watch",
        Uncovered::NoEvents => "no-events",
        Uncovered::Remote => "remote",
    }
}

/// The weights that reasons have.
pub(crate) const WEIGHTS: u8 = 4;

/// How much a reason says: 0 for what somebody should see first.
pub(crate) fn weight(why: Uncovered) -> u8 {
    match why {
        Uncovered::Unreadable(_) | Uncovered::TooMany => 0,
        Uncovered::NoWatch | Uncovered::NoEvents | Uncovered::Remote => 1,
        Uncovered::OtherFileSystem | Uncovered::Kernel => 2,
        Uncovered::Excluded => WEIGHTS - 1,
    }
}
