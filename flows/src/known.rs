//! The table of known flows: what listings and ends say, folded into flows that begin, go on and end, each counted once. Pure:
//! time is an argument.
//!
//! A listing and the ends of sockets come by different ways, so the same flow can be told twice and in either order. What
//! keeps each counted once: a socket is known by its cookie; an end that is heard while a listing is under way is remembered to
//! its end, as the listing may have met the socket before; and what is missing from a listing has ended only if ends cannot be
//! heard, or were lost. An end that comes late all the same corrects the counts and is no flow of its own.

mod entry;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use self::entry::{Entry, NO_USER, seconds};
use crate::diag::{Direction, Protocol, Socket, State};
use crate::holders::{Process, Unseen};

/// Listings for which it is remembered that a flow is thought to have ended; its notification is long read by then.
const REMEMBERED: u32 = 16;

/// Listings that a socket is missing from before a crowded table takes it for ended.
const MISSED: u32 = 3;

/// One flow: a connection, or a UDP socket.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The socket's number. It may have several flows, one after the other.
    pub cookie: u64,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// This end.
    pub local: SocketAddr,
    /// The other end. Port 0 is one that its program wiped; the address alone is left then. `None`: a UDP socket that is not
    /// connected may send anywhere.
    pub peer: Option<SocketAddr>,
    /// As last seen.
    pub state: State,
    /// Who began it, if that is certain.
    pub direction: Option<Direction>,
    /// The socket's user, if it was ever listed.
    pub uid: Option<u32>,
    /// Who held the socket when it was looked at.
    pub holder: Result<Arc<Process>, Unseen>,
    /// Octets out and in, as far as they are known; none of UDP.
    pub octets: Octets,
    /// Of these, what was not told before.
    pub new: Octets,
    /// When it was first seen, since the watch began.
    pub began: Duration,
    /// Nothing was told of it before.
    pub is_news: bool,
}

/// Octets of a flow's payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Octets {
    /// To the other end.
    pub sent: u64,
    /// From there.
    pub received: u64,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The kernel said so: the counts are final.
    Told,
    /// It is gone: the counts are those last seen.
    Gone,
    /// Its program connected the socket elsewhere, or nowhere: the counts are those last seen.
    Reused,
    /// Its program wiped the address and the counts before it closed the socket, by a connect to `AF_UNSPEC`.
    Wiped,
}

/// Everything that was ever counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Flows.
    pub flows: u64,
    /// Of these, connections of TCP.
    pub connections: u64,
    /// Octets.
    pub octets: Octets,
}

/// The table.
#[derive(Debug)]
pub struct Known {
    /// A tree grows without a second copy of itself.
    entries: BTreeMap<u64, Entry>,
    /// Flows that ended since the listing under way began, or are only thought to have; with what was counted of them.
    ended: HashMap<u64, (u32, Octets)>,
    /// Sockets that began and were not told yet.
    fresh: Vec<u64>,
    most: usize,
    turn: u32,
    hears_ends: bool,
    /// The listing under way or done last when ends were lost: only one that begins after it shows what is gone.
    lost: Option<u32>,
    /// Sockets beyond the table in the latest listing.
    beyond: usize,
    done: Totals,
}

impl Known {
    /// A table for so many live sockets at most. `hears_ends` says whether ends will be told.
    #[must_use]
    pub fn new(most: usize, hears_ends: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            ended: HashMap::new(),
            fresh: Vec::new(),
            most,
            turn: 0,
            hears_ends,
            lost: None,
            beyond: 0,
            done: Totals::default(),
        }
    }

    /// Ends were lost: what the next whole listing lacks has ended.
    pub fn lost(&mut self) {
        self.lost = Some(self.turn);
    }

    /// Ends are not heard any more.
    pub fn deaf(&mut self) {
        self.hears_ends = false;
    }

    /// A listing begins.
    pub fn begin(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.beyond = 0;
        let turn = self.turn;
        self.ended.retain(|_, (until, _)| *until >= turn);
    }

    /// A listing tells of a socket.
    pub fn listed(&mut self, protocol: Protocol, socket: &Socket, now: Duration) -> Option<(Flow, End)> {
        if socket.is_remnant || self.ended.contains_key(&socket.cookie) {
            return None;
        }
        let Some(entry) = self.entries.get_mut(&socket.cookie) else {
            self.open(protocol, socket, now);
            return None;
        };
        if entry.is(socket) {
            entry.see(socket, self.turn);
            return None;
        }
        let old = self.close(socket.cookie, End::Reused);
        self.open(protocol, socket, now);
        old
    }

    /// A listing has come to its end. What an incomplete one lacks says nothing.
    pub fn finish(&mut self, complete: bool) -> Vec<(Flow, End)> {
        if !complete {
            return Vec::new();
        }
        let turn = self.turn;
        let is_over = !self.hears_ends || self.lost.take_if(|lost| *lost != turn).is_some();
        let missing: Vec<u64> = self.entries.iter().filter(|(_, entry)| entry.turn != turn).map(|(cookie, _)| *cookie).collect();
        if is_over {
            return missing.into_iter().filter_map(|cookie| self.gone(cookie)).collect();
        }
        // A socket whose end nobody told may stay away for ever; where they fill the table, they have ended.
        let is_crowded = self.entries.len() >= self.most / 4 * 3;
        let is_long_gone = |entry: &Entry| turn.wrapping_sub(entry.turn) >= MISSED;
        let (gone, missing): (Vec<u64>, Vec<u64>) =
            missing.into_iter().partition(|cookie| is_crowded && self.entries.get(cookie).is_some_and(is_long_gone));
        for cookie in missing {
            // Reset by the other end, say, and its program has not closed it yet.
            self.entries.entry(cookie).and_modify(|entry| entry.state = State::Closed);
        }
        gone.into_iter().filter_map(|cookie| self.gone(cookie)).collect()
    }

    /// The kernel tells that a socket is gone.
    pub fn destroyed(&mut self, protocol: Protocol, socket: &Socket, now: Duration) -> Vec<(Flow, End)> {
        let cookie = socket.cookie;
        if let Some((_, counted)) = self.ended.get(&cookie).copied() {
            self.correct(counted, socket);
            self.remember(cookie, 0, Octets::default());
            return Vec::new();
        }
        let mut changes = Vec::new();
        let goes_on = self.entries.get(&cookie).is_some_and(|entry| entry.is(socket));
        if goes_on {
            let turn = self.turn;
            self.entries.entry(cookie).and_modify(|entry| entry.see_end(socket, turn));
            changes.extend(self.close(cookie, End::Told));
        } else {
            let was = self.entries.get(&cookie).map(|entry| entry.state);
            let end = match was {
                _ if socket.peer.is_some() || protocol == Protocol::Udp => End::Reused,
                // A connect that fails wipes as well.
                Some(State::SynSent) => End::Told,
                _ => End::Wiped,
            };
            changes.extend(self.close(cookie, end));
            if is_flow(protocol, socket) && (was.is_none() || end == End::Reused) {
                changes.push(self.brief(protocol, socket, now));
            }
        }
        self.remember(cookie, 0, Octets::default());
        changes
    }

    /// Flows that began and were not told, as far as they are live, and it was looked who holds them and who began them; at most
    /// so many.
    pub fn fresh(&mut self, most: usize) -> Vec<Flow> {
        let entries = &mut self.entries;
        let mut told = Vec::new();
        self.fresh.retain(|cookie| {
            let Some(entry) = entries.get_mut(cookie) else { return false };
            if told.len() >= most || entry.is_unlooked() || entry.is_unsure() {
                return true;
            }
            told.push(entry.flow(*cookie));
            entry.is_news = false;
            false
        });
        told
    }

    /// Tells what goes on and was not told for so long; at most so many.
    pub fn goes(&mut self, every: Duration, now: Duration, most: usize) -> Vec<Flow> {
        let mut told = Vec::new();
        let due = |entry: &Entry| seconds(now).saturating_sub(entry.told_at) >= seconds(every);
        for (cookie, entry) in self.entries.iter_mut().filter(|(_, entry)| due(entry)).take(most) {
            told.push(entry.flow(*cookie));
            entry.is_news = false;
            (entry.told, entry.told_at) = (entry.octets, seconds(now));
        }
        told
    }

    /// The inodes of sockets whose holder was not looked for, so many at most.
    pub(crate) fn unattributed(&self, most: usize) -> Vec<u32> {
        let waits = |entry: &&Entry| entry.is_unlooked() && entry.inode != 0;
        self.entries.values().filter(waits).take(most).map(|entry| entry.inode).collect()
    }

    /// Who holds these was looked for.
    pub(crate) fn attribute(&mut self, looked: &[u32], found: &HashMap<u32, Arc<Process>>, why_not: Unseen) {
        for entry in self.entries.values_mut() {
            if entry.is_unlooked() && looked.binary_search(&entry.inode).is_ok() {
                entry.held(found.get(&entry.inode).cloned().ok_or(why_not));
            }
        }
    }

    /// Every live flow.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        self.entries.iter().map(|(cookie, entry)| entry.flow(*cookie)).collect()
    }

    /// How many sockets are known, and how many the latest listing had beyond them.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.beyond)
    }

    /// Everything so far. It never goes back, but for a flow that was reused.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let live = self.entries.values();
        live.fold(self.done, |totals, entry| totals.with(entry.protocol, entry.octets))
    }

    fn open(&mut self, protocol: Protocol, socket: &Socket, now: Duration) {
        if !is_flow(protocol, socket) {
            return;
        }
        if self.entries.len() >= self.most {
            // Its end will be told all the same.
            self.beyond += 1;
            return;
        }
        self.entries.insert(socket.cookie, Entry::new(protocol, socket, self.turn, now));
        self.fresh.push(socket.cookie);
    }

    fn close(&mut self, cookie: u64, end: End) -> Option<(Flow, End)> {
        let entry = self.entries.remove(&cookie)?;
        self.done = self.done.with(entry.protocol, entry.octets);
        Some((entry.flow(cookie), end))
    }

    fn gone(&mut self, cookie: u64) -> Option<(Flow, End)> {
        let counted = self.entries.get(&cookie)?.octets;
        if self.hears_ends {
            self.remember(cookie, REMEMBERED, counted);
        }
        self.close(cookie, End::Gone)
    }

    fn remember(&mut self, cookie: u64, listings: u32, counted: Octets) {
        self.ended.insert(cookie, (self.turn.saturating_add(listings), counted));
    }

    /// A flow that was thought to have ended has: its last octets are counted.
    fn correct(&mut self, counted: Octets, socket: &Socket) {
        self.done.octets.sent += socket.sent().saturating_sub(counted.sent);
        self.done.octets.received += socket.received().saturating_sub(counted.received);
    }

    /// A flow that no listing met.
    fn brief(&mut self, protocol: Protocol, socket: &Socket, now: Duration) -> (Flow, End) {
        let mut entry = Entry::new(protocol, socket, self.turn, now);
        entry.uid = NO_USER;
        entry.held(Err(Unseen::Ended));
        let flow = entry.flow(socket.cookie);
        self.done = self.done.with(protocol, flow.octets);
        let is_wiped = flow.peer.is_some_and(|peer| peer.port() == 0);
        (flow, if is_wiped { End::Wiped } else { End::Told })
    }
}

/// Whether this is anything at all: not a TCP socket that nobody ever connected. A UDP socket with neither port nor peer may
/// have had both: a connect to `AF_UNSPEC` wipes them.
fn is_flow(protocol: Protocol, socket: &Socket) -> bool {
    let had_answer = || socket.counted.is_some_and(|counted| counted.had_answer);
    protocol == Protocol::Udp || socket.peer.is_some() || had_answer()
}

impl Totals {
    /// One flow more.
    fn with(self, protocol: Protocol, octets: Octets) -> Self {
        let connections = self.connections + u64::from(protocol == Protocol::Tcp);
        Self { flows: self.flows + 1, connections, octets: self.octets + octets }
    }
}

impl std::ops::Add for Octets {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { sent: self.sent.saturating_add(other.sent), received: self.received.saturating_add(other.received) }
    }
}

impl std::ops::Sub for Octets {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { sent: self.sent.saturating_sub(other.sent), received: self.received.saturating_sub(other.received) }
    }
}

#[cfg(test)]
mod tests;
