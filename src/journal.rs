//! The journal: one writer thread, one bounded queue. Connections never wait for it; when the writer cannot keep up,
//! events are dropped, counted, and the next line that can be written says how many; or egret ends, if that is asked for.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, thread};

use clap::ValueEnum;
use tokio::sync::watch;

use crate::events::Event;

/// Events that wait for the writer; at some 1 KiB each, about 4 MiB.
const QUEUE: usize = 4096;
/// How long the last events may take to be written when egret ends.
const FINISH: Duration = Duration::from_secs(2);
/// How often the writer looks whether losses are to be told.
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
    end: watch::Sender<Option<String>>,
}

impl Losses {
    fn add(&self, count: u64, why: impl FnOnce() -> String) {
        self.untold.fetch_add(count, Ordering::Relaxed);
        self.total.fetch_add(count, Ordering::Relaxed);
        metrics::counter!(crate::metrics::EVENTS_DROPPED, "sink" => "journal").increment(count);
        if self.when_full == WhenFull::Stop {
            self.end.send_if_modified(|end| {
                let first = end.is_none();
                end.get_or_insert_with(why);
                first
            });
        }
    }
}

/// The writer, to be waited for at the end.
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    queue: SyncSender<Option<Event>>,
    end: Arc<AtomicU64>,
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
        let end = Arc::new(AtomicU64::new(0));
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
        }
    }

    /// Waits until egret must end for want of a journal, and says why. Where lines are dropped, for ever.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + use<> {
        let mut end = self.losses.end.subscribe();
        async move {
            let why = end.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
            // Without one, nobody is left who could tell it.
            if let Some(why) = why { why } else { std::future::pending().await }
        }
    }

    /// Whether it came to that.
    pub(crate) fn has_failed(&self) -> bool {
        self.losses.end.borrow().is_some()
    }
}

impl Writer {
    /// Waits until what is queued has been written, or gives up on a reader that does not read, and says what is lacking.
    pub(crate) fn finish(self) {
        self.end.store(1, Ordering::Release);
        // Where the queue is full, it is awake.
        let _ = self.queue.try_send(None);
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

fn write_all(events: &Receiver<Option<Event>>, mut sink: BufWriter<Box<dyn Write + Send>>, losses: &Losses, end: &AtomicU64) {
    loop {
        match events.recv_timeout(TICK) {
            Ok(first) => write_batch(first, events, &mut sink, losses),
            Err(RecvTimeoutError::Timeout) if end.load(Ordering::Acquire) == 0 => {
                // Told at once, as there may be no next line for a long time.
                if losses.untold.load(Ordering::Relaxed) > 0 {
                    write_batch(None, events, &mut sink, losses);
                }
            }
            Err(_) => return,
        }
        if end.load(Ordering::Acquire) > 0 {
            return;
        }
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
