//! Threads that read what is sent through pairs, queries and datagrams to be passed on: one, and another when it hangs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::net::RecvFlags;

use super::Shared;
use super::datagram::{Asker, LONGEST_QUERY, Pair};
use super::relay::OUTSIDE;
use crate::names::{Answer, Query};

/// How many there are at most.
const MOST_READERS: usize = 4;

/// How long one waits for a query before it looks whether it is over.
const PATIENCE: Duration = Duration::from_millis(900);

/// A header (RFC 1035 section 4.1.1): what is shorter asks for nothing.
const SHORTEST_QUERY: usize = 12;

/// How long it may take to read one query.
const LONGEST_READING: Duration = Duration::from_millis(800);

/// How many there are, and what they do.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    all: AtomicUsize,
    busy: AtomicUsize,
    done: AtomicU64,
    /// What was done when somebody last looked.
    seen: AtomicU64,
}

impl Readers {
    /// Does what may hang.
    pub(super) fn work(&self, work: impl FnOnce()) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        work();
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all hang, and did so when this was last asked.
    fn hang(&self) -> bool {
        let done = self.done.load(Ordering::Relaxed);
        self.seen.swap(done, Ordering::Relaxed) == done && self.busy.load(Ordering::Relaxed) >= self.all.load(Ordering::Relaxed)
    }
}

pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let reading = Arc::clone(shared);
    let read = move || {
        while !reading.is_stopping() {
            serve_queries(&reading, PATIENCE);
        }
    };
    thread::Builder::new().name("confine-read".into()).spawn(read)?;
    shared.readers.all.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Starts another reader when all hang.
pub(super) fn look_after(shared: &Arc<Shared>) {
    if shared.readers.hang() && shared.readers.all.load(Ordering::Relaxed) < MOST_READERS {
        // Without a thread it is tried again.
        let _ = start(shared);
    }
}

/// Reads what is sent through pairs; at most this long, if nothing is.
fn serve_queries(shared: &Shared, patience: Duration) {
    let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 16];
    let patience = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
    let Ok((ready, _)) = epoll::wait(&shared.pairs.readable, &mut events, Some(&patience)) else { return };
    for event in ready {
        let token = event.data.u64();
        let inode = token & !OUTSIDE;
        let Some(pair) = shared.pairs.get(inode) else { continue };
        let began = Instant::now();
        shared.readers.work(|| match &pair.relay {
            Some(relay) => shared.watched.run(|| relay.pass(&pair.here, token & OUTSIDE != 0)),
            None => read_query(shared, &pair),
        });
        if began.elapsed() > LONGEST_READING {
            shared.pairs.remove(inode);
        }
    }
}

/// A message may carry sockets, which end here, and one that lingers makes whoever ends it wait.
fn read_query(shared: &Shared, pair: &Pair) {
    let mut message = vec![0; LONGEST_QUERY];
    let read = || rustix::net::recv(&pair.here, &mut message[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC);
    let Ok((length, whole)) = shared.watched.run(read) else { return };
    if whole > LONGEST_QUERY {
        return;
    }
    message.truncate(length);
    let query = Query { nameserver: pair.peer, message, process: pair.process.clone() };
    ask(shared, query, Asker::Pair(Arc::clone(&pair.here)));
}

/// Asks for a name, unless it can't be a question. Bugs of whoever is asked end here: nobody waits for the answer.
pub(super) fn ask(shared: &Shared, query: Query, asker: Asker) {
    if query.message.len() < SHORTEST_QUERY {
        return;
    }
    let asked = catch_unwind(AssertUnwindSafe(|| shared.names.query(query, Answer::new(asker))));
    if asked.is_err() {
        shared.counts.panics.fetch_add(1, Ordering::Relaxed);
    }
}
