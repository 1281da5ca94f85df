//! The journal: one writer thread, one bounded queue. Connections never wait for it; when the writer cannot keep up,
//! events are dropped, counted, and the next line that can be written says how many; or egret ends, if that is asked for.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, thread};

use crate::events::Event;
use crate::stop::Stop;
use clap::ValueEnum;

/// Events that wait for the writer; at some 1 KiB each, about 4 MiB.
const QUEUE: usize = 4096;
/// How long the last events may take to be written when egret ends.
const FINISH: Duration = Duration::from_secs(2);
/// How long the writer lets events gather after a batch, so that a busy gateway does not wake it for each of them.
const GATHER: Duration = Duration::from_millis(2);
/// How long a line that tells of losses waits for an event to go with.
const TICK: Duration = Duration::from_millis(50);

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
        let sink: Box<dyn Write + Send> = match path {
            "-" => Box::new(io::stdout()),
            path => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (queue, events) = sync_channel(QUEUE);
        let losses = Arc::new(Losses { when_full, ..Losses::default() });
        let end = Arc::new(AtomicBool::new(false));
        let (counted, ending) = (Arc::clone(&losses), Arc::clone(&end));
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_all(&events, BufWriter::new(sink), &counted, &ending))?;
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
            eprintln!("egret: nobody reads the journal: {lost} events are lost, and what waited at the end");
        } else if lost > 0 {
            eprintln!("egret: {lost} events could not be written to the journal");
        }
    }
}

fn write_all(events: &Receiver<Option<Event>>, mut sink: impl Write, losses: &Losses, end: &AtomicBool) {
    loop {
        let is_behind = losses.untold.load(Ordering::Relaxed) > 0;
        let first = if is_behind { events.recv_timeout(TICK) } else { events.recv().map_err(RecvTimeoutError::from) };
        match first {
            Ok(first) => write_batch(first, events, &mut sink, losses),
            Err(RecvTimeoutError::Timeout) => write_batch(None, events, &mut sink, losses),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if end.load(Ordering::Acquire) {
            // What was queued before the end, and after the batch.
            return write_batch(None, events, &mut sink, losses);
        }
        thread::park_timeout(GATHER);
    }
}

/// Writes until the queue is empty, then flushes: one system call under load, no delay without.
fn write_batch(first: Option<Event>, events: &Receiver<Option<Event>>, sink: &mut impl Write, losses: &Losses) {
    let (mut written, mut count) = (Ok(()), 0);
    let missed = losses.untold.swap(0, Ordering::Relaxed);
    let gap = (missed > 0).then_some(Event::Gap { cause: "journal_behind", lost: missed });
    let told = gap.is_some();
    for event in first.into_iter().chain(gap).chain(events.try_iter().flatten()) {
        written = written.and_then(|()| writeln!(sink, "{}", event.line()));
        count += 1;
    }
    if let Err(error) = written.and_then(|()| sink.flush()) {
        // How much of the batch arrived cannot be known; all of it is called lost, but not the line that told of losses.
        losses.untold.fetch_add(missed, Ordering::Relaxed);
        losses.add(count - u64::from(told), || format!("the journal cannot be written: {error}"));
        tracing::error!(%error, "the journal cannot be written");
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
        let mut sink = Vec::new();
        write_batch(events.recv().ok().flatten(), &events, &mut sink, &losses);
        let text = String::from_utf8(sink).unwrap();
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
                self.0.write(octets)
            }
            fn flush(&mut self) -> io::Result<()> {
                if !self.2.swap(true, Ordering::Release) {
                    self.1.send(Some(gap(2))).unwrap();
                }
                Ok(())
            }
        }
        let (queue, events) = sync_channel(8);
        queue.send(Some(gap(1))).unwrap();
        let end = AtomicBool::new(false);
        let mut sink = Late(Vec::new(), queue, &end);
        write_all(&events, &mut sink, &Losses::default(), &end);
        let text = String::from_utf8(sink.0).unwrap();
        assert!(text.contains("\"lost\":1") && text.contains("\"lost\":2"), "{text}");
    }

    #[test]
    fn a_batch_that_cannot_be_written_is_lost_and_counted() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (queue, events) = sync_channel(8);
        queue.send(Some(gap(2))).unwrap();
        let losses = Losses { untold: AtomicU64::new(5), ..Losses::default() };
        write_batch(Some(gap(1)), &events, &mut Full, &losses);
        assert_eq!(losses.untold.load(Ordering::Relaxed), 5 + 2, "what was missed, and two of the three lines of this batch");
    }
}
