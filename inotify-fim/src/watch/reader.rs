//! Emptying the kernel's queue: reading records and handing them on. It looks at no file and never waits for whoever
//! does, as the kernel drops events once its own queue is full (`/proc/sys/fs/inotify/max_queued_events`).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::shared::{Message, Shared};
use crate::mounts::MOUNTINFO;
use crate::raw;

/// Octets read at once: some hundreds to thousands of records. The kernel needs room for one with the longest name, 272.
const BUFFER: usize = 64 * 1024;

/// How long to wait after an error that reading should never give.
const PAUSE: Duration = Duration::from_secs(1);

/// Records that may wait for the comparison: some 10 MB, 40 with the longest names.
pub(super) const QUEUE: usize = 131_072;

/// One record, of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) watch: i32,
    pub(super) mask: u32,
    pub(super) cookie: u32,
    pub(super) name: Option<Box<[u8]>>,
}

/// Its end, whatever it comes from, is the last message.
struct Ending(Sender<Message>);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.send(Message::End);
    }
}

/// Reads until the watch is to end, and then what is left. What does not fit among `limit` records is lost, and said to be.
pub(super) fn run(shared: &Shared, send: Sender<Message>, limit: usize) {
    let send = Ending(send);
    // Without it a change of mounts is noticed by the comparisons on schedule.
    let mounts = File::open(MOUNTINFO).ok();
    let mut buffer = vec![0; BUFFER];
    loop {
        let ends = shared.is_ending();
        if let Some(inotify) = shared.inotify() {
            match drain(inotify, &mut buffer, &send.0, shared, limit) {
                Ok(()) => {}
                Err(Stopped::Alone) => return,
                Err(Stopped::Unreadable) => {
                    shared.lost.store(true, Ordering::Release);
                    // Only to be looked at, at once.
                    let _ = send.0.send(Message::Notes(Vec::new()));
                    thread::sleep(PAUSE);
                }
            }
        }
        if ends {
            return;
        }
        if wait(shared, mounts.as_ref()) && !shared.mounts.swap(true, Ordering::AcqRel) {
            let _ = send.0.send(Message::Mounts);
        }
    }
}

/// Waits for anything; whether mounts changed.
fn wait(shared: &Shared, mounts: Option<&File>) -> bool {
    let mut waits = vec![PollFd::new(&shared.wake, PollFlags::IN)];
    waits.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::PRI | PollFlags::ERR)));
    waits.extend(shared.inotify().map(|inotify| PollFd::new(inotify, PollFlags::IN)));
    // An error here is an interruption; reading tells of all else.
    let _ = rustix::event::poll(&mut waits, None);
    if !waits[0].revents().is_empty() {
        // That it was woken is all it says.
        let _ = rustix::io::read(&shared.wake, &mut [0_u8; 8]);
    }
    mounts.is_some() && waits[1].revents().intersects(PollFlags::PRI | PollFlags::ERR)
}

/// Why draining ended before its time.
enum Stopped {
    /// Nobody takes what is read.
    Alone,
    /// Reading fails.
    Unreadable,
}

/// Hands on all that waits.
fn drain(inotify: &OwnedFd, buffer: &mut [u8], send: &Sender<Message>, shared: &Shared, limit: usize) -> Result<(), Stopped> {
    loop {
        let batch = read(inotify, buffer).map_err(|_| Stopped::Unreadable)?;
        let count = batch.len();
        if count == 0 {
            return Ok(());
        }
        if shared.waiting.load(Ordering::Acquire) + count > limit {
            shared.lost.store(true, Ordering::Release);
            continue;
        }
        let before = shared.waiting.fetch_add(count, Ordering::AcqRel);
        shared.high_water.fetch_max(before + count, Ordering::AcqRel);
        send.send(Message::Notes(batch)).map_err(|_| Stopped::Alone)?;
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
