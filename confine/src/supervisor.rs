//! Answers the calls that are asked about: a few threads that receive, look, and answer or hand on.
//!
//! [`birth`] makes sockets, [`bind`] gives them addresses, [`connect`] connects them, [`datagram`] stands in for those that can't
//! send, [`relay`] passes their datagrams on where they may go, [`unix`] makes and connects unix sockets where that may not be left
//! to the app, and [`aimed`] keeps this process out of reach. Whatever goes wrong on the way, and whatever is not understood, is a
//! refusal.

mod aimed;
mod bind;
pub(crate) mod birth;
pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod execution;
mod dial;
mod earnest;
mod ports;
mod readers;
mod relay;
pub(crate) mod unix;
mod watched;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::caller::Caller;
use crate::egress::Egress;
use crate::names::Names;
use crate::sockets::Sockets;
use crate::sys::{self, Notification};
use datagram::Pairs;
use execution::Watch;
use readers::Readers;
use unix::held::HeldUnix;
use watched::Watched;

/// What the kernel can do for the supervisor; what it can't is done in more steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// A descriptor may be the answer (Linux 5.14).
    pub(crate) answer_with_descriptor: bool,
    /// Landlock keeps the app's own TCP sockets from connecting (Linux 6.7), so that a connect which is not to the internet may
    /// go on by itself, whatever its memory says by then.
    pub(crate) own_connects_fail: bool,
    /// Datagram sockets can be made that only receive.
    pub(crate) receive_only: bool,
    /// Only fatal signals interrupt a call that was received (Linux 5.19).
    pub(crate) waits_until_killed: bool,
}

/// What all handlers know.
pub(crate) struct Shared {
    pub(crate) listener: OwnedFd,
    pub(crate) sockets: Sockets,
    /// Unix sockets, where they are made here.
    pub(crate) unix: HeldUnix,
    pub(crate) pairs: Pairs,
    pub(crate) egress: Box<dyn Egress>,
    pub(crate) names: Box<dyn Names>,
    /// If there is a list of what may be executed.
    pub(crate) watch: Option<Watch>,
    pub(crate) abilities: Abilities,
    /// Attempts without an answer.
    pub(crate) pending: AtomicUsize,
    /// Threads that wait for a connection.
    pub(crate) slow: AtomicUsize,
    pub(crate) watched: Watched,
    pub(crate) readers: Readers,
    pub(crate) counts: Counts,
    /// Threads that answer, and those of them that do just now.
    pub(crate) handlers: AtomicUsize,
    busy: AtomicUsize,
    /// The thread whose calls say goodbye, once it is set.
    goodbye: AtomicU32,
    stopping: AtomicBool,
}

/// What was done so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) asked: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) replaced: AtomicU64,
    pub(crate) panics: AtomicU64,
    done: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("abilities", &self.abilities).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        listener: OwnedFd,
        egress: Box<dyn Egress>,
        names: Box<dyn Names>,
        watch: Option<Watch>,
        abilities: Abilities,
    ) -> Result<Self, Errno> {
        Ok(Shared {
            listener,
            sockets: Sockets::default(),
            unix: HeldUnix::default(),
            pairs: Pairs::new()?,
            egress,
            names,
            watch,
            abilities,
            pending: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
            watched: Watched::default(),
            readers: Readers::default(),
            counts: Counts::default(),
            handlers: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            goodbye: AtomicU32::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// From now on a call of this thread ends the handler that receives it.
    pub(crate) fn stop_at_calls_of(&self, tid: u32) {
        self.goodbye.store(tid, Ordering::Release);
    }

    /// Ends the threads that answer to nobody's call.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.pairs.wake();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Answers; false if nobody waits for it any more.
    pub(crate) fn answer(&self, id: u64, answer: Result<i64, Errno>) -> bool {
        if answer.is_err() {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        sys::answer(self.listener.as_fd(), id, answer).is_ok()
    }

    pub(crate) fn waits(&self, id: u64) -> bool {
        sys::waits(self.listener.as_fd(), id)
    }

    fn let_through(&self, id: u64) {
        // An error says that nobody waits for it.
        let _ = sys::let_through(self.listener.as_fd(), id);
    }
}

/// How many threads answer: all that wait are woken by each call, so that more of them are slower.
const HANDLERS: usize = 2;

/// How many there are at most, when others hang: in somebody's memory that does not arrive, or in a question that is not
/// answered.
const MOST_HANDLERS: usize = 16;

/// How long all of them must hang before there is one more.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often is looked for sockets that the app has closed, and how old they must be.
const SWEEP: Duration = Duration::from_secs(3);

/// Starts the handlers, the thread that reads queries, and the one that looks after them.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    // Without a signal to spare, whoever hangs stays.
    watched::prepare_to_interrupt();
    for _ in 0..HANDLERS {
        start_handler(shared)?;
    }
    readers::start(shared)?;
    let attending = Arc::clone(shared);
    thread::Builder::new().name("confine-attend".into()).spawn(move || attend(&attending)).map(drop)
}

fn start_handler(shared: &Arc<Shared>) -> io::Result<()> {
    let number = shared.handlers.fetch_add(1, Ordering::Relaxed);
    let serving = Arc::clone(shared);
    let started = thread::Builder::new().name(format!("confine-{number}")).spawn(move || serve(&serving));
    if started.is_err() {
        shared.handlers.fetch_sub(1, Ordering::Relaxed);
    }
    started.map(drop)
}

/// Interrupts who hangs, starts another handler or reader when all hang, and lets go of what the app has closed. Nothing that the
/// app has set up makes this thread wait.
fn attend(shared: &Arc<Shared>) {
    let (mut swept, mut answered) = (Instant::now(), 0);
    while !shared.is_stopping() {
        thread::park_timeout(PATIENCE);
        shared.watched.interrupt();
        readers::look_after(shared);
        if swept.elapsed() >= SWEEP {
            sweep(shared);
            swept = Instant::now();
        }
        shared.unix.let_go_of_old(Instant::now());
        let handlers = shared.handlers.load(Ordering::Relaxed);
        let all_hang = shared.busy.load(Ordering::Relaxed) >= handlers && answered == shared.counts.done.load(Ordering::Relaxed);
        if all_hang && handlers < MOST_HANDLERS {
            // Without a thread it is tried again.
            let _ = start_handler(shared);
        }
        answered = shared.counts.done.load(Ordering::Relaxed);
    }
}

/// A copy keeps open what the app has closed, and epoll tells of that: so those go that are not found where they were made.
fn sweep(shared: &Shared) {
    let mut seen: HashMap<Caller, Option<HashSet<u64>>> = HashMap::new();
    let mut has = |caller: Caller, inode: u64| {
        let sockets = seen.entry(caller).or_insert_with(|| caller.sockets());
        sockets.as_ref().is_some_and(|sockets| sockets.contains(&inode))
    };
    shared.pairs.let_go(SWEEP, &mut has);
    let abandoned = shared.sockets.take_abandoned(SWEEP, &mut has);
    shared.watched.run(|| drop(abandoned));
}

fn serve(shared: &Arc<Shared>) {
    loop {
        match sys::receive(shared.listener.as_fd()) {
            Ok(call) if is_goodbye(shared, &call) => {
                shared.answer(call.id, Err(Errno::BADF));
                return;
            }
            Ok(call) => {
                shared.counts.asked.fetch_add(1, Ordering::Relaxed);
                shared.busy.fetch_add(1, Ordering::Relaxed);
                if catch_unwind(AssertUnwindSafe(|| handle(shared, &call))).is_err() {
                    shared.counts.panics.fetch_add(1, Ordering::Relaxed);
                    shared.answer(call.id, Err(Errno::ACCESS));
                }
                shared.busy.fetch_sub(1, Ordering::Relaxed);
                shared.counts.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) if nobody_left(shared) => return,
            // The caller was killed before it was received, or a signal came.
            Err(_) => {}
        }
    }
}

fn is_goodbye(shared: &Shared, call: &Notification) -> bool {
    call.tid != 0 && call.tid == shared.goodbye.load(Ordering::Acquire)
}

/// Whether no thread is left that could call (Linux 5.9).
fn nobody_left(shared: &Shared) -> bool {
    let mut listener = [PollFd::new(&shared.listener, PollFlags::empty())];
    let polled = rustix::event::poll(&mut listener, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok() && listener[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

fn handle(shared: &Arc<Shared>, call: &Notification) {
    if matches!(i64::from(call.call), libc::SYS_execve | libc::SYS_execveat) {
        return execution::tell(shared, call);
    }
    // A thread without a number here can't be looked at.
    if call.tid == 0 {
        shared.answer(call.id, Err(Errno::ACCESS));
        return;
    }
    match i64::from(call.call) {
        libc::SYS_connect => connect::handle(shared, call),
        libc::SYS_socket => birth::handle(shared, call),
        libc::SYS_bind => bind::handle(shared, call),
        libc::SYS_listen => let_go(shared, call),
        libc::SYS_memfd_create => execution::make_memory(shared, call),
        libc::SYS_sendto => datagram::send(shared, call),
        libc::SYS_recvfrom | libc::SYS_getsockname | libc::SYS_getpeername => datagram::look_like_internet(shared, call),
        _ if aimed::is_about_a_process(call) => aimed::handle(shared, call),
        _ => {
            shared.answer(call.id, Err(Errno::NOSYS));
        }
    }
}

/// listen(2): it leads nowhere outside, whatever the descriptor means by the time the kernel looks.
fn let_go(shared: &Shared, call: &Notification) {
    match (Caller { tid: call.tid }).socket(descriptor(call)) {
        Ok(inode) => {
            unix::let_go(shared, call, inode);
            shared.sockets.let_go(inode);
        }
        // The kernel says so itself.
        Err(Errno::BADF | Errno::NOTSOCK) => {}
        Err(errno) => {
            shared.answer(call.id, Err(errno));
            return;
        }
    }
    shared.let_through(call.id);
}

/// The descriptor that a call is about: the kernel takes it as an int.
fn descriptor(call: &Notification) -> i32 {
    ((call.arguments[0] & 0xffff_ffff) as u32).cast_signed()
}
