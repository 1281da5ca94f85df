//! Watching directories along with a scan that goes through them, so that each is opened and listed once. In which order
//! that is, several threads and the scan decide: it is of use where there are watches enough for all.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::inotify::WatchFlags;

use super::{Armed, mask, watch};

/// Watches that were made along with a scan.
pub(in crate::watch) struct Along<'a> {
    armed: &'a Armed,
    left: AtomicUsize,
    made: Mutex<Vec<(Vec<u8>, i32)>>,
    failed: AtomicBool,
}

/// What came of it.
pub(in crate::watch) struct Made {
    watches: Vec<(Vec<u8>, i32)>,
    /// Some directory could not be watched.
    pub(in crate::watch) failed: bool,
}

impl Armed {
    /// For one scan.
    pub(in crate::watch) fn along(&self) -> Along<'_> {
        let left = AtomicUsize::new(self.most.saturating_sub(self.paths.len()));
        Along { armed: self, left, made: Mutex::default(), failed: AtomicBool::new(false) }
    }

    /// Takes over what was made. If that was not all, what is new of it is ended again, so that others may have it.
    pub(in crate::watch) fn take_over(&mut self, made: Made) {
        for (path, watch) in made.watches {
            let was_there = self.watches.contains_key(&path);
            self.is_watched_by(&path, watch);
            if made.failed && !was_there {
                self.end(&path);
            }
        }
    }
}

impl Along<'_> {
    /// Watches a directory that is about to be listed.
    pub(in crate::watch) fn enter(&self, path: &[u8], directory: &OwnedFd) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let is_new = !self.armed.watches.contains_key(path);
        let has_room = |left: usize| left.checked_sub(1);
        let fits = !is_new || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_ok();
        let inotify = self.armed.inotify.as_ref().filter(|_| fits);
        match inotify.map(|inotify| watch(inotify, directory, mask() | WatchFlags::ONLYDIR)) {
            Some(Ok(watch)) => self.made.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_vec(), watch)),
            _ => self.failed.store(true, Ordering::Relaxed),
        }
    }

    pub(in crate::watch) fn end(self) -> Made {
        Made { watches: self.made.into_inner().unwrap_or_else(PoisonError::into_inner), failed: self.failed.into_inner() }
    }
}
