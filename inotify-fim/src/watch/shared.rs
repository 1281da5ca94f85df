//! What the threads of a watch and whoever holds it have in common.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags};
use rustix::io::Errno;

use super::reader::Note;
use crate::fingerprint::Deadline;
use crate::ledger::Ledger;

/// What the comparison is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Records from the kernel, in order.
    Notes(Vec<Note>),
    /// Some mount changed.
    Mounts,
    /// Somebody wants a comparison.
    Compare,
    /// There is no more.
    End,
}

#[derive(Debug)]
pub(super) struct Shared {
    inotify: OnceLock<Arc<OwnedFd>>,
    /// Can be read when the reader should look up.
    pub(super) wake: OwnedFd,
    ends: AtomicBool,
    asked: AtomicBool,
    /// A message of changed mounts waits.
    pub(super) mounts: AtomicBool,
    /// How many records wait.
    pub(super) waiting: AtomicUsize,
    /// The most that ever did.
    pub(super) high_water: AtomicUsize,
    /// Records did not fit, or could not be read.
    pub(super) lost: AtomicBool,
    ledger: Mutex<Ledger>,
    /// When all must have ended.
    pub(super) deadline: Deadline,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let shared = Self {
            inotify: OnceLock::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ends: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            mounts: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            ledger: Mutex::default(),
            deadline: Deadline::default(),
        };
        let _ = shared.make_inotify();
        Ok(shared)
    }

    /// As if this were what was made.
    #[cfg(test)]
    pub(super) fn of(inotify: OwnedFd) -> Self {
        Self { inotify: OnceLock::from(Arc::new(inotify)), ..Self::new().unwrap() }
    }

    pub(super) fn inotify(&self) -> Option<&Arc<OwnedFd>> {
        self.inotify.get()
    }

    /// Makes the inotify instance, if there is none yet. The reader begins to read it.
    pub(super) fn make_inotify(&self) -> Result<&Arc<OwnedFd>, Errno> {
        if let Some(inotify) = self.inotify.get() {
            return Ok(inotify);
        }
        let made = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?);
        let inotify = self.inotify.get_or_init(|| made);
        self.wake();
        Ok(inotify)
    }

    pub(super) fn ask(&self, send: &Sender<Message>) {
        if !self.asked.swap(true, Ordering::AcqRel) {
            // Whoever would compare is gone: `is_running` says so.
            let _ = send.send(Message::Compare);
        }
    }

    /// Who asks from now on wants another comparison.
    pub(super) fn answer(&self) {
        self.asked.store(false, Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only if it can be read already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}
