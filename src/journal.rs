//! The journal: one writer thread, one bounded queue. Connections never wait for it; when the writer cannot keep up,
//! events are dropped, counted, and the next line that can be written says how many; or egret ends, if that is asked for.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
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
use crate::stream::{Patient, Unwritten, own, write_in_background, write_lines};
use clap::ValueEnum;

/// Events that wait for the writer; at some 1 KiB each, about 4 MiB.
const QUEUE: usize = 4096;
/// How long the last events may take to be written when egret ends.
const FINISH: Duration = Duration::from_secs(2);
/// How long the writer lets events gather after a batch, so that a busy gateway does not wake it for each of them.
const GATHER: Duration = Duration::from_millis(2);
/// How long a line that tells of losses waits for an event to go with.
const TICK: Duration = Duration::from_millis(50);
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
        let sink: OwnedFd = match path {
            "-" => own(io::stdout())?,
            path => OpenOptions::new().create(true).append(true).open(path)?.into(),
        };
        let (queue, events) = sync_channel(QUEUE);
        let losses = Arc::new(Losses { when_full, ..Losses::default() });
        let end = Arc::new(AtomicBool::new(false));
        let (mut lines, ending) = (Lines::new(Patient(sink), &losses), Arc::clone(&end));
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

    /// Whether it came to that.
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
}

impl<W: Write> Lines<W> {
    fn new(sink: W, losses: &Arc<Losses>) -> Self {
        let losses = Arc::clone(losses);
        Self { sink, losses, text: String::new(), events: 0, missed: 0, is_torn: false, is_failing: false }
    }

    /// Writes until nobody has more to tell. A bug in one line costs what was in hand, and not the journal.
    fn write_all(&mut self, events: &Receiver<Option<Event>>, end: &AtomicBool) {
        while catch_unwind(AssertUnwindSafe(|| self.write_on(events, end))).is_err() {
            // With the one that it was about.
            self.events += 1;
            self.lose("a bug, which is told on stderr");
        }
    }

    fn write_on(&mut self, events: &Receiver<Option<Event>>, end: &AtomicBool) {
        loop {
            let is_behind = self.losses.untold.load(Ordering::Relaxed) > 0;
            let first = if is_behind { events.recv_timeout(TICK) } else { events.recv().map_err(RecvTimeoutError::from) };
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
        if self.is_torn && self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&event.line());
        self.text.push('\n');
    }

    fn flush(&mut self) {
        if self.text.is_empty() {
            return;
        }
        match write_lines(&mut self.sink, self.text.as_bytes()) {
            Ok(()) => {
                (self.is_torn, self.is_failing, self.missed, self.events) = (false, false, 0, 0);
                self.text.clear();
            }
            Err(Unwritten { written, error }) => {
                let last = self.text.as_bytes()[..written].last();
                self.is_torn = last.map_or(self.is_torn, |last| *last != b'\n');
                self.lose(&error.to_string());
            }
        }
    }

    /// How much of what is in hand arrived need not be known: all of it is called lost, but not the line that told of losses.
    fn lose(&mut self, why: &str) {
        let why = || format!("the journal cannot be written: {why}");
        self.losses.untold.fetch_add(std::mem::take(&mut self.missed), Ordering::Relaxed);
        self.losses.add(std::mem::take(&mut self.events), why);
        self.text.clear();
        if !std::mem::replace(&mut self.is_failing, true) {
            stderr::say(why());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(lost: u64) -> Event {
        Event::Gap { cause: "test", lost }
    }

    #[test]
    fn what_was_lost_is_told_by_the_next_line_that_can_be_written() {
        let (queue, events) = sync_channel(1);
        let losses = Arc::new(Losses::default());
        let journal = Journal { queue, losses: Arc::clone(&losses) };
        for n in 0..4 {
            journal.write(gap(n));
        }
        let mut writer = Lines::new(Vec::new(), &losses);
        writer.write_batch(events.recv().ok().flatten(), &events);
        let text = String::from_utf8(writer.sink).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines[1].contains("\"journal_behind\",\"lost\":3"), "{text}");
        assert_eq!((losses.untold.load(Ordering::Relaxed), journal.has_failed()), (0, false));
    }

    #[test]
    fn who_must_not_lose_a_line_is_told_with_the_first_that_is_lost() {
        let (queue, _events) = sync_channel(1);
        let losses = Arc::new(Losses { when_full: WhenFull::Stop, ..Losses::default() });
        let journal = Journal { queue, losses };
        journal.write(gap(1));
        assert!(!journal.has_failed());
        journal.write(gap(2));
        assert!(journal.has_failed());
    }

    #[test]
    fn what_is_queued_while_the_last_batch_is_written_is_written_too() {
        /// Queues one more event as soon as it has taken a batch, and ends.
        struct Late<'a>(Vec<u8>, SyncSender<Option<Event>>, &'a AtomicBool);
        impl Write for Late<'_> {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                if !self.2.swap(true, Ordering::Release) {
                    self.1.send(Some(gap(2))).unwrap();
                }
                self.0.write(octets)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (queue, events) = sync_channel(8);
        queue.send(Some(gap(1))).unwrap();
        let end = AtomicBool::new(false);
        let mut writer = Lines::new(Late(Vec::new(), queue, &end), &Arc::default());
        writer.write_all(&events, &end);
        let text = String::from_utf8(writer.sink.0).unwrap();
        assert!(text.contains("\"lost\":1") && text.contains("\"lost\":2"), "{text}");
    }

    /// Takes this text and then does this.
    struct Then(Vec<u8>, usize, fn() -> io::Result<usize>);

    impl Write for Then {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            match self.1.min(octets.len()) {
                0 => (self.2)(),
                room => {
                    self.1 -= room;
                    self.0.write(&octets[..room])
                }
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_batch_that_cannot_be_written_is_lost_and_counted() {
        let (queue, events) = sync_channel(8);
        queue.send(Some(gap(2))).unwrap();
        let losses = Arc::new(Losses { untold: AtomicU64::new(5), ..Losses::default() });
        let full = Then(Vec::new(), 0, || Err(io::ErrorKind::StorageFull.into()));
        Lines::new(full, &losses).write_batch(Some(gap(1)), &events);
        assert_eq!(losses.untold.load(Ordering::Relaxed), 5 + 2, "what was missed, and two of the three lines of this batch");
    }

    #[test]
    fn half_a_line_is_ended_before_the_next_one_that_can_be_written() {
        let (_queue, events) = sync_channel(8);
        let losses = Arc::default();
        let mut writer = Lines::new(Then(Vec::new(), 10, || Err(io::ErrorKind::StorageFull.into())), &losses);
        (0..2).for_each(|_| writer.write_batch(Some(gap(1)), &events));
        writer.sink.1 = 1000;
        writer.write_batch(Some(gap(3)), &events);
        writer.write_batch(Some(gap(4)), &events);
        let text = String::from_utf8(writer.sink.0).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 4 && lines[0].len() == 10 && lines[1..].iter().all(|line| line.ends_with('}')), "{text}");
        assert!(lines[2].contains("\"journal_behind\",\"lost\":2"), "{text}");
    }

    #[test]
    fn a_panic_costs_what_was_in_hand_and_the_journal_goes_on() {
        let (queue, events) = sync_channel(8);
        let losses = Arc::new(Losses { untold: AtomicU64::new(5), ..Losses::default() });
        let (end, once) = (AtomicBool::new(false), AtomicBool::new(false));
        struct Panics<'a>(Vec<u8>, &'a AtomicBool, &'a AtomicBool, SyncSender<Option<Event>>);
        impl Write for Panics<'_> {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                if !self.1.swap(true, Ordering::Relaxed) {
                    self.3.send(Some(gap(7))).unwrap();
                    panic!("a bug, on purpose");
                }
                self.2.store(true, Ordering::Release);
                self.0.write(octets)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        queue.send(Some(gap(1))).unwrap();
        let mut writer = Lines::new(Panics(Vec::new(), &once, &end, queue), &losses);
        writer.write_all(&events, &end);
        let text = String::from_utf8(writer.sink.0).unwrap();
        assert!(
            text.contains("\"lost\":7") && text.contains("\"journal_behind\",\"lost\":7"),
            "5, one, and one for the bug: {text}"
        );
    }
}
