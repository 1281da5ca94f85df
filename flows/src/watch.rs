//! The watch: a thread for each protocol does nothing but empty the kernel's queue of ends into ours; another lists sockets on
//! schedule, folds both into the table, and tells what that means. Nobody who is watched waits for any of them.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::diag::{Family, Protocol, Socket, Which};
use crate::holders::{Holders, Unseen};
use crate::known::{End, Flow, Known, Totals};
use crate::netlink::{Ends, Heard, Netlink, Refused};

const KINDS: [(Family, Protocol); 4] =
    [(Family::V4, Protocol::Tcp), (Family::V6, Protocol::Tcp), (Family::V4, Protocol::Udp), (Family::V6, Protocol::Udp)];

/// Ends are left to gather for so long, where fewer than so many came: a wake for each would cost more than it tells. The
/// kernel's queue holds a few hundred.
const BREATH: Duration = Duration::from_millis(1);
const FEW: usize = 32;

/// Flows that are told before others may look at the table.
const AT_ONCE: usize = 256;

/// Sockets whose holders are looked for at once.
const LOOKED_FOR: usize = 4_096;

/// Listings take one part in so many of a processor at most, however many sockets there are,
const LISTINGS: u32 = 50;
/// and come this often at least.
const LATEST: Duration = Duration::from_secs(30);

/// Glances between two listings take one part in so many of a processor,
const GLANCES: u32 = 100;
/// have this between them at least,
const SOONEST: Duration = Duration::from_millis(20);
/// and are had for so long after a flow that nobody met: whoever makes brief flows makes more of them, at a beat of its own.
const HURRY: Duration = Duration::from_secs(2);

/// How a watch watches.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often sockets are listed, unless that would take more than a fiftieth of a processor; between that, where flows end
    /// that no listing met, there are glances as far as they cost little.
    pub every: Duration,
    /// How often a flow is told again while it lives.
    pub again: Duration,
    /// Ends that wait to be folded in at most.
    pub queue: usize,
    /// Sockets that are known at most. One takes less than 300 octets.
    pub sockets: usize,
    /// Nobody hurries to find out who holds these.
    pub ours: Ours,
}

/// Sockets that whoever watches made itself, by their cookies.
#[derive(Clone)]
pub struct Ours(Arc<dyn Fn(u64) -> bool + Send + Sync>);

impl Ours {
    /// Those for which this is true.
    pub fn new(is_ours: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_ours))
    }
}

impl Default for Ours {
    fn default() -> Self {
        Self::new(|_| false)
    }
}

impl fmt::Debug for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ours")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(1),
            again: Duration::from_secs(60),
            queue: 65_536,
            sockets: 65_536,
            ours: Ours::default(),
        }
    }
}

/// What the watch tells.
#[derive(Debug)]
pub enum Event {
    /// A flow began, and who holds it was looked for.
    Began(Flow),
    /// A flow goes on.
    Goes(Flow),
    /// A flow ended.
    Ended(Flow, End),
    /// Ends were lost: by the kernel's queue or ours. All is listed anew, and what is gone has ended.
    Lost(Lost),
    /// Everything was listed: the local ports that listen, and whether the listing is whole.
    Listed(Listed),
    /// Something can't be done any more, or never could.
    Refused(Part, String),
}

/// Where ends were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// They came faster than they were read.
    Kernel,
    /// They were read faster than they were folded in.
    Queue,
}

/// What a watch is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Without it nothing is known.
    Listings,
    /// Without it, flows that end between two listings are not seen, and last counts are those of the last listing.
    Ends,
}

/// One listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Sockets that are known.
    pub sockets: usize,
    /// Sockets beyond the table.
    pub beyond: usize,
    /// How long it took.
    pub took: Duration,
    /// Everything that was ever counted.
    pub totals: Totals,
    /// Local ports that listen for TCP.
    pub listening: Vec<u16>,
}

/// A watch that runs.
pub struct Watch {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

struct Shared {
    known: Mutex<Known>,
    queue: Mutex<Queue>,
    filled: Condvar,
}

/// What was heard and not folded in yet.
#[derive(Default)]
struct Queue {
    heard: VecDeque<(Protocol, Socket)>,
    lost: Vec<Lost>,
    deaf: Vec<String>,
    stopped: bool,
}

impl Watch {
    /// Starts to watch this thread's network namespace.
    ///
    /// # Errors
    /// The kernel lists nothing here, or there are no threads. Without ends it watches all the same, and says so.
    pub fn start(options: Options, tell: impl FnMut(Event) + Send + 'static) -> Result<Self, Refused> {
        let mut netlink = Netlink::open()?;
        netlink.list(Family::V4, Protocol::Tcp, Which::Listeners, |_| {})?;
        // Before the first listing, so that nothing is missed between.
        let ends = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, Ends::of(protocol)));
        let hears = ends.iter().all(|(_, ends)| ends.is_ok());
        let shared = Arc::new(Shared {
            known: Mutex::new(Known::new(options.sockets, hears)),
            queue: Mutex::default(),
            filled: Condvar::new(),
        });
        for (protocol, ends) in ends {
            match ends {
                Ok(ends) => {
                    let (shared, most) = (Arc::clone(&shared), options.queue);
                    spawn("flow-ends", move || shared.listen(protocol, ends, most))?;
                }
                Err(refused) => lock(&shared.queue).deaf.push(refused.to_string()),
            }
        }
        let kept = Arc::clone(&shared);
        let began = Instant::now();
        let mut keeper = Keeper {
            shared: kept,
            options,
            netlink,
            holders: Holders::new(Path::new("/proc")),
            began,
            spent: Duration::ZERO,
            tell,
        };
        let keeper = spawn("flows", move || keeper.keep())?;
        Ok(Self { shared, keeper: Some(keeper) })
    }

    /// Every flow that lives.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        lock(&self.shared.known).flows()
    }

    /// Folds in what was heard, lists once more, and ends; every flow that lived to the end of the watch.
    pub fn stop(mut self) -> Vec<Flow> {
        self.end();
        if let Some(keeper) = self.keeper.take() {
            // It fails if the teller panicked, which was said.
            drop(keeper.join());
        }
        self.flows()
    }

    fn end(&self) {
        lock(&self.shared.queue).stopped = true;
        self.shared.filled.notify_all();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Empties the kernel's queue into ours, to the end of the watch.
    fn listen(&self, protocol: Protocol, mut ends: Ends, most: usize) {
        loop {
            let mut batch = Vec::new();
            let heard = ends.hear(|socket| batch.push((protocol, socket)));
            let gathers = (1..FEW).contains(&batch.len());
            let mut queue = lock(&self.queue);
            if queue.stopped {
                return;
            }
            let was_empty = queue.heard.is_empty() && queue.lost.is_empty();
            let room = most.saturating_sub(queue.heard.len());
            if batch.len() > room {
                queue.lost(Lost::Queue);
                batch.truncate(room);
            }
            queue.heard.extend(batch);
            match heard {
                Heard::Lost => queue.lost(Lost::Kernel),
                Heard::Failed(error) => {
                    queue.deaf.push(error.to_string());
                    self.filled.notify_all();
                    return;
                }
                Heard::Octets(_) | Heard::Nothing => {}
            }
            let is_empty = queue.heard.is_empty() && queue.lost.is_empty();
            drop(queue);
            if was_empty && !is_empty {
                self.filled.notify_all();
            }
            if gathers {
                std::thread::sleep(BREATH);
            }
        }
    }

    /// What was heard until it is time to list.
    fn heard(&self, until: Instant) -> Queue {
        let mut queue = lock(&self.queue);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let is_empty = queue.heard.is_empty() && queue.lost.is_empty() && queue.deaf.is_empty();
            if !is_empty || queue.stopped || left.is_zero() {
                let stopped = queue.stopped;
                return Queue { stopped, ..std::mem::replace(&mut *queue, Queue { stopped, ..Queue::default() }) };
            }
            queue = self.filled.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    /// Once for each time that it is looked at.
    fn lost(&mut self, lost: Lost) {
        if !self.lost.contains(&lost) {
            self.lost.push(lost);
        }
    }
}

/// For how long, and when next, there are glances between listings.
#[derive(Clone, Copy)]
struct Hurry {
    next: Instant,
    until: Instant,
}

/// The thread that knows.
struct Keeper<F> {
    shared: Arc<Shared>,
    options: Options,
    netlink: Netlink,
    holders: Holders,
    began: Instant,
    /// What the latest listing or glance took of a processor.
    spent: Duration,
    tell: F,
}

impl<F: FnMut(Event)> Keeper<F> {
    fn keep(&mut self) {
        let mut due = Instant::now();
        let mut hurry: Option<Hurry> = None;
        loop {
            let queue = self.shared.heard(hurry.map_or(due, |hurry| due.min(hurry.next)));
            let (is_over, is_lossy) = (queue.stopped, !queue.lost.is_empty());
            let met_nobody = self.fold(queue);
            let now = Instant::now();
            if is_lossy {
                // Sooner, and yet not at the beat of whoever floods.
                due = due.min(now + self.options.every / 4);
            }
            if met_nobody {
                // The next may be met alive, and its holder be found.
                let next = hurry.map_or(now + self.pause(), |hurry| hurry.next);
                hurry = Some(Hurry { next, until: now + HURRY });
            }
            if is_over || now >= due {
                self.list();
                // Not at a fixed beat: a clock that stood still is no reason to hurry.
                due = Instant::now() + between(self.spent, self.options.every);
            } else if hurry.is_some_and(|hurry| now >= hurry.next) {
                self.glance();
                let next = Instant::now() + self.pause();
                hurry = hurry.map(|hurry| Hurry { next, ..hurry }).filter(|hurry| next < hurry.until);
            }
            if is_over {
                return;
            }
        }
    }

    /// How long nobody glances after a look.
    fn pause(&self) -> Duration {
        self.spent.saturating_mul(GLANCES).max(SOONEST)
    }

    /// Meets what began since. What it lacks says nothing, and if it breaks off, the next listing has it to tell.
    fn glance(&mut self) {
        let (before, now) = (processor_time(), self.began.elapsed());
        let mut changes = Vec::new();
        {
            let mut known = lock(&self.shared.known);
            for (family, protocol) in KINDS {
                let flow = |socket: Socket| changes.extend(known.listed(protocol, &socket, now));
                let _ = self.netlink.list(family, protocol, Which::Flows, flow);
            }
        }
        self.spent = processor_time().saturating_sub(before);
        self.attribute();
        self.tell_in_turns(|known| known.fresh(AT_ONCE), Event::Began);
        self.tell_ended(changes);
    }

    /// Folds in what was heard; true if flows of others ended before anybody could look who holds them.
    fn fold(&mut self, queue: Queue) -> bool {
        let now = self.began.elapsed();
        let mut changes = Vec::new();
        {
            let mut known = lock(&self.shared.known);
            for (protocol, socket) in &queue.heard {
                changes.extend(known.destroyed(*protocol, socket, now));
            }
            if !queue.lost.is_empty() {
                known.lost();
            }
            if !queue.deaf.is_empty() {
                known.deaf();
            }
        }
        let Ours(is_ours) = &self.options.ours;
        let is_unmet = |flow: &Flow| matches!(flow.holder, Err(Unseen::Ended | Unseen::NotLooked)) && !is_ours(flow.cookie);
        let met_nobody = changes.iter().any(|(flow, _)| is_unmet(flow));
        self.tell_ended(changes);
        queue.lost.into_iter().for_each(|lost| (self.tell)(Event::Lost(lost)));
        queue.deaf.into_iter().for_each(|why| (self.tell)(Event::Refused(Part::Ends, why)));
        met_nobody
    }

    fn list(&mut self) {
        let (began, before, now) = (Instant::now(), processor_time(), self.began.elapsed());
        let mut changes = Vec::new();
        let whole = self.fold_in(now, &mut changes);
        let ((sockets, beyond), totals) = {
            let mut known = lock(&self.shared.known);
            changes.extend(known.finish(whole.is_ok()));
            (known.size(), known.totals())
        };
        self.spent = processor_time().saturating_sub(before);
        let took = began.elapsed();
        self.attribute();
        self.tell_in_turns(|known| known.fresh(AT_ONCE), Event::Began);
        self.tell_ended(changes);
        let again = self.options.again;
        self.tell_in_turns(|known| known.goes(again, now, AT_ONCE), Event::Goes);
        match whole {
            Ok(listening) => (self.tell)(Event::Listed(Listed { sockets, beyond, took, totals, listening })),
            Err(why) => (self.tell)(Event::Refused(Part::Listings, why.to_string())),
        }
    }

    /// Folds in everything that the kernel lists, as it comes: who asks for the table meanwhile waits, and nobody else. Gives
    /// the local ports that listen, if the listing is whole.
    fn fold_in(&mut self, now: Duration, changes: &mut Vec<(Flow, End)>) -> Result<Vec<u16>, Refused> {
        let (mut listening, mut whole) = (Vec::new(), Ok(()));
        let mut known = lock(&self.shared.known);
        known.begin();
        for (family, protocol) in KINDS {
            let flow = |socket: Socket| changes.extend(known.listed(protocol, &socket, now));
            whole = whole.and(self.netlink.list(family, protocol, Which::Flows, flow));
            if protocol == Protocol::Tcp {
                let listener = |socket: Socket| listening.push(socket.local.port());
                whole = whole.and(self.netlink.list(family, protocol, Which::Listeners, listener));
            }
        }
        drop(known);
        listening.sort_unstable();
        listening.dedup();
        whole.map(|()| listening)
    }

    /// Looks for holders: among all processes, or, as that is dear, among those that held sockets before.
    fn attribute(&mut self) {
        let mut inodes = lock(&self.shared.known).unattributed(LOOKED_FOR);
        let now = Instant::now();
        if inodes.is_empty() {
            return;
        }
        let found = if self.holders.may_look(now) {
            self.holders.look(inodes.iter().copied())
        } else if self.holders.may_glance(now) {
            let found = self.holders.glance(inodes.iter().copied());
            inodes.retain(|inode| found.contains_key(inode));
            found
        } else {
            return;
        };
        inodes.sort_unstable();
        lock(&self.shared.known).attribute(&inodes, &found, Unseen::NotVisible);
    }

    fn tell_ended(&mut self, ended: Vec<(Flow, End)>) {
        ended.into_iter().for_each(|(flow, end)| (self.tell)(Event::Ended(flow, end)));
    }

    /// A few at a time, so that the table is free between, and no copy of all of it is made.
    fn tell_in_turns(&mut self, take: impl Fn(&mut Known) -> Vec<Flow>, event: fn(Flow) -> Event) {
        loop {
            let flows = take(&mut lock(&self.shared.known));
            if flows.is_empty() {
                return;
            }
            flows.into_iter().for_each(|flow| (self.tell)(event(flow)));
        }
    }
}

/// How long after a listing that took so much of a processor the next one is.
fn between(spent: Duration, every: Duration) -> Duration {
    spent.saturating_mul(LISTINGS).min(LATEST).max(every)
}

/// What this thread has taken of a processor so far.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Refused> {
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(|error| Refused::Socket(io::Error::other(error)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_take_a_share_of_a_processor_and_come_all_the_same() {
        let after = |spent| between(Duration::from_millis(spent), Duration::from_secs(1));
        assert_eq!([0, 19, 80, 60_000].map(after), [1, 1, 4, 30].map(Duration::from_secs));
        assert_eq!(
            between(Duration::from_secs(9), Duration::from_secs(60)),
            Duration::from_secs(60),
            "never more often than asked for"
        );
    }
}
