//! The sockets that the supervisor made and still holds: a second descriptor of each, found by its inode.
//!
//! A socket is held from its birth until it is connected or listened on. What the app closes before that stays open
//! here: so old ones are let go, and there is a limit. A connect on one that was let go works, at the cost of its options.
//!
//! Inode numbers of sockets are unique until 2³² of them were used. Should two sockets have one number, the wrong one of the
//! app's own is connected, to where it was allowed to go.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::address::Family;
use crate::caller::Caller;

/// How many sockets are held at most: a few times what a busy program has between socket and connect at any moment.
pub(crate) const MOST_HELD: usize = 512;

/// How long a socket is held: longer than any program waits between making and connecting it.
pub(crate) const LONGEST_HELD: Duration = Duration::from_secs(30);

/// How long is waited for a thread that uses a socket which is let go.
const LONGEST_USE: Duration = Duration::from_millis(250);

/// How many calls wait for the outcome of one connect at most.
const MOST_JOINED: usize = 16;

/// How many outcomes of recent connects are remembered.
const MOST_RECENT: usize = 4096;

/// A socket that the app has, too.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) inode: u64,
    pub(crate) family: Family,
    pub(crate) kind: Kind,
    /// The port that it was bound to here.
    port: Option<u16>,
    /// Who made it.
    caller: Option<Caller>,
    born: Instant,
}

/// Stream or datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
}

/// What became of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) destination: SocketAddr,
    /// As the first caller was or would have been told.
    pub(crate) answer: Result<(), Errno>,
    /// Whether somebody was told; if not, who calls again is.
    pub(crate) told: bool,
    /// The family of the socket, if it is connected to somebody who stands for the destination.
    pub(crate) stands_in: Option<Family>,
}

/// What is known of a socket that was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recalled {
    /// The caller was told just now.
    Told,
    /// Somebody was told before, or it went elsewhere.
    Past(Outcome),
}

/// A connect under way.
#[derive(Debug)]
struct Underway {
    destination: SocketAddr,
    /// Calls that want to hear of it: of threads that were interrupted and call again, or of others.
    joined: Vec<u64>,
}

/// All sockets of one confinement.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    held: HashMap<u64, Held>,
    /// Inodes in the order of birth; some may not be held any more.
    births: VecDeque<(Instant, u64)>,
    underway: HashMap<u64, Underway>,
    recent: HashMap<u64, Outcome>,
    recent_order: VecDeque<u64>,
}

impl Held {
    pub(crate) fn new(socket: OwnedFd, family: Family, kind: Kind) -> Result<Self, Errno> {
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        Ok(Held { socket: Arc::new(socket), inode, family, kind, port: None, caller: None, born: Instant::now() })
    }

    /// It was made for this thread.
    pub(crate) fn of(self, caller: Caller) -> Self {
        Held { caller: Some(caller), ..self }
    }

    /// Lets go of it, once no other thread uses it any more: what the app closes from then on is closed. Threads use one for as
    /// long as a call or two take that wait for nobody; should one not get to run, it is let go all the same.
    pub(crate) fn let_go(self) {
        let since = Instant::now();
        while Arc::strong_count(&self.socket) > 1 && since.elapsed() < LONGEST_USE {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Sockets {
    /// Holds a socket, and lets go of those that are too old or too many.
    pub(crate) fn hold(&self, held: Held) {
        let gone = self.tables().hold(held);
        // Closing may take the kernel a while; nobody waits for it with the lock.
        drop(gone);
    }

    /// Takes a socket out, to connect it or to let it go.
    pub(crate) fn take(&self, inode: u64) -> Option<Held> {
        self.tables().held.remove(&inode)
    }

    /// Takes a socket out and lets go of it, if it is held.
    pub(crate) fn let_go(&self, inode: u64) {
        if let Some(held) = self.take(inode) {
            held.let_go();
        }
    }

    /// Takes a socket out to connect it. Others that want to connect it may [`join`](Self::join) until it is
    /// over.
    pub(crate) fn take_to_connect(&self, inode: u64, destination: SocketAddr) -> Option<Held> {
        let mut tables = self.tables();
        let held = tables.held.remove(&inode)?;
        tables.underway.insert(inode, Underway { destination, joined: Vec::new() });
        Some(held)
    }

    /// Has this call wait for the outcome of a connect to the same destination that is under way. Without one there is nothing to
    /// wait for, which is false.
    ///
    /// # Errors
    /// ALREADY: it goes elsewhere, or too many wait.
    pub(crate) fn join(&self, inode: u64, destination: SocketAddr, call: u64) -> Result<bool, Errno> {
        let mut tables = self.tables();
        let Some(underway) = tables.underway.get_mut(&inode) else { return Ok(false) };
        if underway.destination != destination || underway.joined.len() >= MOST_JOINED {
            return Err(Errno::ALREADY);
        }
        underway.joined.push(call);
        Ok(true)
    }

    /// Whether others wait for the connect of this socket. Those that `waits` says don't any more are forgotten.
    pub(crate) fn is_joined(&self, inode: u64, waits: impl Fn(u64) -> bool) -> bool {
        let mut tables = self.tables();
        let Some(underway) = tables.underway.get_mut(&inode) else { return false };
        underway.joined.retain(|call| waits(*call));
        !underway.joined.is_empty()
    }

    /// A connect is over without a connection; whoever joined is to be told.
    pub(crate) fn over(&self, inode: u64) -> Vec<u64> {
        let underway = self.tables().underway.remove(&inode);
        underway.map(|underway| underway.joined).unwrap_or_default()
    }

    /// A connect is over with this outcome, which `tell` is to tell: first the call that asked, which is none, then those that
    /// joined; it says whether it was heard. Meanwhile nobody else learns of it, so that whoever calls again knows whether it
    /// was told.
    pub(crate) fn conclude(&self, inode: u64, outcome: Outcome, mut tell: impl FnMut(Option<u64>, Outcome) -> bool) {
        let mut tables = self.tables();
        let joined = tables.underway.remove(&inode).map(|underway| underway.joined).unwrap_or_default();
        let mut told = tell(None, Outcome { told: false, ..outcome });
        for call in joined {
            told |= tell(Some(call), Outcome { told, ..outcome });
        }
        tables.remember(inode, Outcome { told, ..outcome });
    }

    /// A socket that is held, to be used for a moment: it stays open for as long as the returned value lives.
    pub(crate) fn get(&self, inode: u64) -> Option<Held> {
        self.tables().held.get(&inode).cloned()
    }

    /// Whether this socket is being connected.
    pub(crate) fn is_underway(&self, inode: u64) -> bool {
        self.tables().underway.contains_key(&inode)
    }

    /// A socket that is held was bound to this port.
    pub(crate) fn bound(&self, inode: u64, port: u16) {
        if let Some(held) = self.tables().held.get_mut(&inode) {
            held.port = Some(port);
        }
    }

    /// Takes out all others that are bound to this port.
    pub(crate) fn take_bound(&self, kind: Kind, port: u16, but: u64) -> Vec<Held> {
        let mut tables = self.tables();
        let is_meant = |held: &Held| held.kind == kind && held.port == Some(port) && held.inode != but;
        let inodes: Vec<u64> = tables.held.values().filter(|held| is_meant(held)).map(|held| held.inode).collect();
        inodes.iter().filter_map(|inode| tables.held.remove(inode)).collect()
    }

    /// Takes out those that are older than this and that `has` says nobody has any more.
    pub(crate) fn take_abandoned(&self, older: Duration, mut has: impl FnMut(Caller, u64) -> bool) -> Vec<Held> {
        let is_old = |held: &&Held| held.born.elapsed() > older;
        let old: Vec<(u64, Option<Caller>)> =
            self.tables().held.values().filter(is_old).map(|held| (held.inode, held.caller)).collect();
        let abandoned = old.into_iter().filter(|(inode, caller)| !caller.is_some_and(|caller| has(caller, *inode)));
        abandoned.filter_map(|(inode, _)| self.take(inode)).collect()
    }

    /// Looks at a socket that is held.
    pub(crate) fn look<T>(&self, inode: u64, look: impl FnOnce(&Held) -> T) -> Option<T> {
        self.tables().held.get(&inode).map(look)
    }

    /// How many are held.
    pub(crate) fn count(&self) -> usize {
        self.tables().held.len()
    }

    /// What became of the last connect of this socket. If nobody heard of it yet, and it went to the same destination, `tell` is
    /// to tell it; it says whether it was heard.
    pub(crate) fn recall(&self, inode: u64, destination: SocketAddr, tell: impl FnOnce(Outcome) -> bool) -> Option<Recalled> {
        let mut tables = self.tables();
        let outcome = tables.recent.get_mut(&inode)?;
        if outcome.told || outcome.destination != destination {
            return Some(Recalled::Past(*outcome));
        }
        outcome.told = tell(*outcome);
        Some(Recalled::Told)
    }

    /// Whom a socket that was connected to somebody else seems to be connected to.
    pub(crate) fn peer_of(&self, inode: u64) -> Option<(SocketAddr, Family)> {
        let outcome = self.tables().recent.get(&inode).copied()?;
        Some((outcome.destination, outcome.stands_in?))
    }

    /// Forgets what became of connects of this socket.
    pub(crate) fn forget(&self, inode: u64) {
        self.tables().forget(inode);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change leaves the tables whole, whoever panics afterwards.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn hold(&mut self, held: Held) -> Vec<Held> {
        let (inode, born) = (held.inode, held.born);
        self.forget(inode);
        self.births.push_back((born, inode));
        let replaced = self.held.insert(inode, held);
        let mut gone: Vec<Held> = replaced.into_iter().collect();
        while let Some(&(at, oldest)) = self.births.front() {
            let is_current = self.held.get(&oldest).is_some_and(|held| held.born == at);
            let must_go = self.held.len() > MOST_HELD || born.saturating_duration_since(at) > LONGEST_HELD;
            if is_current && !must_go {
                break;
            }
            self.births.pop_front();
            if is_current {
                gone.extend(self.held.remove(&oldest));
            }
        }
        // Behind one that is held, many may be gone already.
        if self.births.len() > 2 * MOST_HELD {
            let held = &self.held;
            self.births.retain(|(at, inode)| held.get(inode).is_some_and(|held| held.born == *at));
        }
        gone
    }

    fn remember(&mut self, inode: u64, outcome: Outcome) {
        if self.recent.insert(inode, outcome).is_none() {
            self.recent_order.push_back(inode);
        }
        while self.recent_order.len() > MOST_RECENT {
            let Some(oldest) = self.recent_order.pop_front() else { break };
            self.recent.remove(&oldest);
        }
    }

    fn forget(&mut self, inode: u64) {
        if self.recent.remove(&inode).is_some() {
            self.recent_order.retain(|other| *other != inode);
        }
    }
}

#[allow(unsafe_code, reason = "the raw calls")]
pub(crate) mod sys;

#[cfg(test)]
mod tests;
