//! Emptying the kernel's queue: reading records and handing them on. It looks at no file and never waits for whoever
//! does, as the kernel drops events once its own queue is full (`/proc/sys/fs/inotify/max_queued_events`).

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::raw;

/// Octets read at once: some hundreds to thousands of records. The kernel needs room for one with the longest name, 272.
const BUFFER: usize = 64 * 1024;

/// How long to wait after an error that reading should never give.
const PAUSE: Duration = Duration::from_secs(1);

/// Records that may wait for the comparison: some 10 MB, 40 with the longest names.
pub(super) const QUEUE: usize = 131_072;

/// What both threads know of the queue between them.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// How many records wait in it.
    pub(super) waiting: AtomicUsize,
    /// Records did not fit, or could not be read.
    pub(super) lost: AtomicBool,
}

/// One record, of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) watch: i32,
    pub(super) mask: u32,
    pub(super) cookie: u32,
    pub(super) name: Option<Box<[u8]>>,
}

/// Reads until `stop` can be read, and then what is left. What does not fit among `limit` records is lost, and said to be.
pub(super) fn run(inotify: &OwnedFd, stop: &OwnedFd, notes: &Sender<Vec<Note>>, backlog: &Backlog, limit: usize) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut waits = [PollFd::new(inotify, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        // An error here is an interruption; reading tells of all else.
        let _ = rustix::event::poll(&mut waits, None);
        let ends = !waits[1].revents().is_empty();
        if drain(inotify, &mut buffer, notes, backlog, limit).is_err() {
            backlog.lost.store(true, Ordering::Release);
            thread::sleep(PAUSE);
        }
        if ends {
            return;
        }
    }
}

/// Hands on all that waits.
fn drain(inotify: &OwnedFd, buffer: &mut [u8], notes: &Sender<Vec<Note>>, backlog: &Backlog, limit: usize) -> Result<(), Errno> {
    loop {
        let batch = read(inotify, buffer)?;
        let count = batch.len();
        if count == 0 {
            return Ok(());
        }
        if backlog.waiting.load(Ordering::Acquire) + count > limit {
            backlog.lost.store(true, Ordering::Release);
            continue;
        }
        backlog.waiting.fetch_add(count, Ordering::AcqRel);
        // Whoever took them is gone; so will this thread be.
        let _ = notes.send(batch);
    }
}

/// Records that wait; none if there are none.
pub(super) fn read(inotify: &OwnedFd, buffer: &mut [u8]) -> Result<Vec<Note>, Errno> {
    let length = match rustix::io::retry_on_intr(|| rustix::io::read(inotify, &mut *buffer)) {
        Err(Errno::AGAIN) => 0,
        read => read?,
    };
    let own = |record: raw::Record<'_>| Note {
        watch: record.watch,
        mask: record.mask,
        cookie: record.cookie,
        name: record.name.map(Into::into),
    };
    raw::records(&buffer[..length]).map(|record| record.map(own).map_err(|raw::Torn| Errno::IO)).collect()
}
