//! What looking at files may cost, and what is known of them already.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rustix::io::Errno;

use super::linked::Linked;
use super::{Device, Inode};

/// What the looks of one scan have in common.
#[derive(Debug, Default)]
pub(crate) struct Means {
    pub(crate) linked: Linked,
    pub(crate) budget: Budget,
    /// Files that were read before the scan.
    pub(crate) known: Known,
    /// What the earlier view has a hash of is read whatever the budget, if it has the size that it had then: nothing else tells
    /// whether it is the same. So that is no more than what was read when the earlier view was made.
    pub(crate) vouched: bool,
}

/// When all work must end; nobody may have said so yet.
pub(crate) type Deadline = Arc<OnceLock<Instant>>;

/// How much may be read: a file that is larger than what is left is not begun, and after the deadline nothing is.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    deadline: Deadline,
    /// The deadline came before the end.
    cut: AtomicBool,
}

/// No limits.
impl Default for Budget {
    fn default() -> Self {
        Self::new(u64::MAX, Deadline::default())
    }
}

impl Budget {
    /// So many octets, until then.
    pub(crate) fn new(octets: u64, deadline: Deadline) -> Self {
        Self { left: AtomicU64::new(octets), deadline, cut: AtomicBool::new(false) }
    }

    /// Whether a file of so many octets may be read. Holes count as what they are read as.
    pub(super) fn allows(&self, octets: u64) -> bool {
        let take = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(octets) };
        !self.is_over() && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Whether the deadline has come.
    pub(crate) fn is_over(&self) -> bool {
        let is_over = self.deadline.get().is_some_and(|end| Instant::now() >= *end);
        if is_over {
            self.cut.store(true, Ordering::Relaxed);
        }
        is_over
    }

    /// Whether the deadline kept anything from being done.
    pub(crate) fn was_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// The content of one inode, read while it did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// What was read, with a time of change that is proof.
    pub(crate) inode: Inode,
    /// Its octets.
    pub(crate) size: u64,
    /// Their hash.
    pub(crate) hash: [u8; 32],
    /// The hash of so many at the beginning.
    pub(crate) beginning: Option<(u64, [u8; 32])>,
}

/// Contents by inode, and which cannot be read.
#[derive(Debug, Default)]
pub(crate) struct Known {
    read: HashMap<(Device, u64), Content>,
    failed: HashMap<(Device, u64), Errno>,
}

impl Known {
    pub(crate) fn add(&mut self, content: Content) {
        self.read.insert((content.inode.device, content.inode.number), content);
    }

    /// That an inode cannot be read is all that there is to know, however large it is.
    pub(crate) fn fail(&mut self, which: (Device, u64), error: Errno) {
        self.failed.insert(which, error);
    }

    /// Why an inode cannot be read.
    pub(super) fn error(&self, inode: Option<Inode>) -> Option<Errno> {
        let inode = inode.filter(|_| !self.failed.is_empty())?;
        self.failed.get(&(inode.device, inode.number)).copied()
    }

    /// What an inode of this size holds, if nothing changed since it was read.
    pub(super) fn get(&self, inode: Option<Inode>, size: u64) -> Option<&Content> {
        let inode = inode.filter(|inode| inode.changed.is_some())?;
        self.read.get(&(inode.device, inode.number)).filter(|known| (known.inode, known.size) == (inode, size))
    }
}
