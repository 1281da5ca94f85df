//! The journal: one writer thread, one bounded queue. Connections never wait for it; when the writer cannot keep up,
//! events are dropped, counted, and the next line that can be written says how many; or egret ends, if that is asked for.

mod place;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, thread};

use crate::events::Event;
use crate::stderr;
use crate::stop::Stop;
use crate::stream::{Unwritten, own, write_in_background, write_lines};
use clap::ValueEnum;
use place::{Found, Sink, Target};

/// Events that wait for the writer; at some 1 KiB each, about 4 MiB.
const QUEUE: usize = 4096;
/// How long the last events may take to be written when egret ends.
const FINISH: Duration = Duration::from_secs(2);
/// How long the writer lets events gather after a batch, so that a busy gateway does not wake it for each of them.
const GATHER: Duration = Duration::from_millis(2);
/// How long a line that tells of losses waits for an event to go with.
const TICK: Duration = Duration::from_millis(50);
/// How often the place of a file is looked at when nothing is written to it.
const LOOK: Duration = Duration::from_secs(1);
/// What is gathered before it is written, in octets.
const BATCH: usize = 8192;

/// What is done when a line cannot be queued or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// It is dropped, counted and told; decisions go on
    #[default]
    Drop,
    /// Nothing goes out any more, and egret ends
    Stop,
}

impl fmt::Display for WhenFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Stop => "stop",
        })
    }
}

/// The way into the journal. Clones write to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    /// `None` wakes the writer.
    queue: SyncSender<Option<Event>>,
    losses: Arc<Losses>,
}

/// What could not be written, and what follows from that.
#[derive(Debug, Default)]
struct Losses {
    /// Events that no line has told of yet.
    untold: AtomicU64,
    total: AtomicU64,
    when_full: WhenFull,
    /// Why egret is to end.
    end: Stop,
    /// What became of the file, if it was taken away.
    taken: Stop,
}

impl Losses {
    fn add(&self, count: u64, why: impl FnOnce() -> String) {
        self.untold.fetch_add(count, Ordering::Relaxed);
        self.total.fetch_add(count, Ordering::Relaxed);
        metrics::counter!(crate::metrics::EVENTS_DROPPED, "sink" => "journal").increment(count);
        if self.when_full == WhenFull::Stop {
            self.end.say(why);
        }
    }
}

/// The writer, to be waited for at the end.
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    queue: SyncSender<Option<Event>>,
    end: Arc<AtomicBool>,
    losses: Arc<Losses>,
}

impl Journal {
    /// Opens a journal: `-` is stdout, anything else a file that is appended to.
    pub(crate) fn open(path: &str, when_full: WhenFull) -> io::Result<(Self, Writer)> {
        let sink = if path == "-" { Target::open(own(io::stdout())?) } else { Target::at(path)? };
        let (queue, events) = sync_channel(QUEUE);
        let losses = Arc::new(Losses { when_full, ..Losses::default() });
        let end = Arc::new(AtomicBool::new(false));
        let (mut lines, ending) = (Lines::new(sink, &losses), Arc::clone(&end));
        let thread = thread::Builder::new().name("journal".into()).spawn(move || {
            write_in_background();
            lines.write_all(&events, &ending);
        })?;
        let writer = Writer { thread, queue: queue.clone(), end, losses: Arc::clone(&losses) };
        Ok((Self { queue, losses }, writer))
    }

    /// Writes an event, or counts it as lost.
    pub(crate) fn write(&self, event: Event) {
        if self.queue.try_send(Some(event)).is_err() {
            self.losses.add(1, || format!("the journal is full: {QUEUE} events wait, and nobody reads them"));
            // The writer may have emptied the queue in between, and sleep.
            let _ = self.queue.try_send(None);
        }
    }

    /// Waits until egret must end for want of a journal, and says why. Where lines are dropped, for ever.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + use<> {
        self.losses.end.said()
    }

    /// Waits until the journal's file is removed or replaced, and says so.
    pub(crate) fn taken(&self) -> impl Future<Output = String> + use<> {
        self.losses.taken.said()
    }

    /// Whether it came to that egret must end.
    pub(crate) fn has_failed(&self) -> bool {
        self.losses.end.why().is_some()
    }
}

impl Writer {
    /// Waits until what is queued has been written, or gives up on a reader that does not read, and says what is lacking.
    pub(crate) fn finish(self) {
        self.end.store(true, Ordering::Release);
        // Where the queue is full, it is awake.
        let _ = self.queue.try_send(None);
        self.thread.thread().unpark();
        let deadline = std::time::Instant::now() + FINISH;
        while !self.thread.is_finished() && std::time::Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let lost = self.losses.total.load(Ordering::Relaxed);
        if !self.thread.is_finished() {
            stderr::say(format_args!("nobody reads the journal: {lost} events are lost, and what waited at the end"));
        } else if lost > 0 {
            stderr::say(format_args!("{lost} events could not be written to the journal"));
        }
    }
}

/// What the thread writes with.
struct Lines<W> {
    sink: W,
    losses: Arc<Losses>,
    /// What waits to be written.
    text: String,
    /// How many events these are, without one that tells of losses.
    events: u64,
    /// How many losses a line among them tells of.
    missed: u64,
    /// Whether the last that was written is half a line.
    is_torn: bool,
    /// Whether it has been said that nothing can be written.
    is_failing: bool,
    /// Why a new file is begun, until that is told in it.
    begins: Option<&'static str>,
}

impl<W: Sink> Lines<W> {
    fn new(sink: W, losses: &Arc<Losses>) -> Self {
        let losses = Arc::clone(losses);
        Self { sink, losses, text: String::new(), events: 0, missed: 0, is_torn: false, is_failing: false, begins: None }
    }

    /// Writes until nobody has more to tell. A bug in one line costs what was in hand, and not the journal.
    fn write_all(&mut self, events: &Receiver<Option<Event>>, end: &AtomicBool) {
        while catch_unwind(AssertUnwindSafe(|| self.write_on(events, end))).is_err() {
            // With the one that it was about.
            self.events += 1;
            self.lose("the journal cannot be written: a bug, which is told on stderr");
        }
    }

    fn write_on(&mut self, events: &Receiver<Option<Event>>, end: &AtomicBool) {
        loop {
            let is_behind = self.losses.untold.load(Ordering::Relaxed) > 0;
            let first = match (is_behind, self.sink.has_place()) {
                (true, _) => events.recv_timeout(TICK),
                (false, true) => events.recv_timeout(LOOK),
                (false, false) => events.recv().map_err(RecvTimeoutError::from),
            };
            match first {
                Ok(first) => self.write_batch(first, events),
                Err(RecvTimeoutError::Timeout) => self.write_batch(None, events),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if end.load(Ordering::Acquire) {
                // What was queued before the end, and after the batch.
                return self.write_batch(None, events);
            }
            thread::park_timeout(GATHER);
        }
    }

    /// Writes until the queue is empty: few system calls under load, no delay without.
    fn write_batch(&mut self, first: Option<Event>, events: &Receiver<Option<Event>>) {
        first.iter().for_each(|event| self.push(event));
        let missed = self.losses.untold.swap(0, Ordering::Relaxed);
        if missed > 0 {
            self.missed += missed;
            self.line(&Event::Gap { cause: "journal_behind", lost: missed });
        }
        events.try_iter().flatten().for_each(|event| self.push(&event));
        self.flush();
    }

    fn push(&mut self, event: &Event) {
        self.line(event);
        self.events += 1;
        if self.text.len() >= BATCH {
            self.flush();
        }
    }

    fn line(&mut self, event: &Event) {
        if let Some(cause) = self.begins.take() {
            self.line(&Event::Gap { cause, lost: 0 });
        }
        if self.is_torn && self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&event.line());
        self.text.push('\n');
    }

    fn flush(&mut self) {
        let outcome = write_lines(&mut self.sink, self.text.as_bytes());
        if let Err(Unwritten { written, error }) = outcome {
            let last = self.text.as_bytes()[..written].last();
            self.is_torn = last.map_or(self.is_torn, |last| *last != b'\n');
            return self.lose(&format!("the journal cannot be written: {error}"));
        }
        self.is_torn &= self.text.is_empty();
        let has_written = !self.text.is_empty();
        match self.sink.look() {
            Found::Kept => self.is_failing &= !has_written,
            Found::Rotated => {
                (self.is_failing, self.begins) = (false, Some("journal_renamed"));
                stderr::say("the journal was renamed: what comes goes to a new file in its place");
            }
            Found::Lost { why, is_removed, goes_on } => {
                self.begins = goes_on.then_some("journal_replaced");
                self.losses.taken.say(|| why.clone());
                if !is_removed {
                    self.written();
                }
                return self.lose(&why);
            }
        }
        self.written();
    }

    fn written(&mut self) {
        (self.missed, self.events) = (0, 0);
        self.text.clear();
    }

    /// How much of what is in hand arrived need not be known: all of it is called lost, but not the line that told of losses.
    fn lose(&mut self, why: &str) {
        self.losses.untold.fetch_add(std::mem::take(&mut self.missed), Ordering::Relaxed);
        self.losses.add(std::mem::take(&mut self.events), || why.to_owned());
        self.text.clear();
        if !std::mem::replace(&mut self.is_failing, true) {
            stderr::say(why);
        }
    }
}

#[cfg(test)]
mod tests;
