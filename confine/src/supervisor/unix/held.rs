//! The unix sockets that the supervisor made and still holds, by their inodes; and the connects that nobody heard of.
//!
//! A socket is not taken out to be connected, but those who want to take turns: whoever comes second may be the first one again,
//! who was interrupted (before Linux 5.19), and must learn what became of it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::address::UnixName;
use crate::sockets::{LONGEST_HELD, MOST_HELD};

/// How long a socket is held that has a path: clients that bind do so just before they connect, and a server that ended must
/// not seem to be there for long.
const LONGEST_BOUND: Duration = Duration::from_secs(2);

/// How many connects are remembered whose callers were interrupted.
const MOST_UNHEARD: usize = 64;

/// A socket that is shared with the app.
#[derive(Clone, Debug)]
pub(super) struct Shareable {
    pub(super) socket: Arc<OwnedFd>,
    /// Whose turn it is to connect it, and to tell of it.
    pub(super) turn: Arc<Mutex<()>>,
}

impl Shareable {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Shareable { socket: Arc::new(socket), turn: Arc::default() }
    }
}

/// What is known of a socket.
#[derive(Debug)]
pub(super) enum Found {
    Held(Shareable),
    /// Its caller was told.
    Told,
    Nothing,
}

#[derive(Debug, Default)]
pub(crate) struct HeldUnix {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    held: HashMap<u64, (Shareable, Instant)>,
    unheard: VecDeque<(u64, UnixName)>,
}

impl HeldUnix {
    /// Holds a socket; if there are too many, the one that has the least time left goes.
    pub(super) fn hold(&self, inode: u64, socket: Shareable) {
        let mut tables = self.tables();
        tables.unheard.retain(|(other, _)| *other != inode);
        let replaced = tables.held.insert(inode, (socket, Instant::now() + LONGEST_HELD));
        let oldest = tables.held.iter().min_by_key(|(_, (_, until))| *until).map(|(inode, _)| *inode);
        let gone = oldest.filter(|_| tables.held.len() > MOST_HELD).and_then(|oldest| tables.held.remove(&oldest));
        drop((tables, replaced, gone));
    }

    pub(super) fn get(&self, inode: u64) -> Option<Shareable> {
        self.tables().held.get(&inode).map(|(socket, _)| socket.clone())
    }

    pub(super) fn let_go(&self, inode: u64) {
        let gone = self.tables().held.remove(&inode);
        drop(gone);
    }

    /// A socket got a path.
    pub(super) fn let_go_soon(&self, inode: u64) {
        if let Some((_, until)) = self.tables().held.get_mut(&inode) {
            *until = Instant::now() + LONGEST_BOUND;
        }
    }

    /// Lets go of those whose time is over.
    pub(crate) fn let_go_of_old(&self, now: Instant) {
        let mut tables = self.tables();
        let gone: Vec<_> = tables.held.extract_if(|_, (_, until)| *until <= now).collect();
        drop((tables, gone));
    }

    /// What this connect is about: a socket that is held; or one that was connected so before, for a caller that did not hear of
    /// it and calls again, whom `tell` tells. It says whether it was heard.
    pub(super) fn find(&self, inode: u64, name: UnixName, tell: impl FnOnce() -> bool) -> Found {
        let mut tables = self.tables();
        if let Some(at) = tables.unheard.iter().position(|unheard| *unheard == (inode, name)) {
            if tell() {
                tables.unheard.remove(at);
            }
            return Found::Told;
        }
        tables.held.get(&inode).map_or(Found::Nothing, |(socket, _)| Found::Held(socket.clone()))
    }

    /// A connect succeeded, which `tell` tells. The socket is let go before, so that what the app closes is closed; and nobody
    /// comes in between.
    pub(super) fn conclude(&self, inode: u64, name: UnixName, socket: Arc<OwnedFd>, tell: impl FnOnce() -> bool) {
        let mut tables = self.tables();
        drop((tables.held.remove(&inode), socket));
        if tell() {
            return;
        }
        tables.unheard.push_back((inode, name));
        if tables.unheard.len() > MOST_UNHEARD {
            tables.unheard.pop_front();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.tables().held.len()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change leaves the tables whole, whoever panics afterwards.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
