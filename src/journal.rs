//! The journal: one writer thread, one bounded queue. Connections never wait for it; when the writer cannot keep up,
//! events are dropped, counted, and the next line that can be written says how many.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::events::Event;

/// Events that wait for the writer; at some 1 KiB each, about 4 MiB.
const QUEUE: usize = 4096;
/// How long the last events may take to be written when egret ends.
const FINISH: Duration = Duration::from_secs(2);
/// How often the writer looks whether it was told to end.
const TICK: Duration = Duration::from_millis(50);

/// The way into the journal. Clones write to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    queue: SyncSender<Event>,
    lost: Arc<AtomicU64>,
}

/// The writer, to be waited for at the end.
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    end: Arc<AtomicU64>,
}

impl Journal {
    /// Opens a journal: `-` is stdout, anything else a file that is appended to.
    pub(crate) fn open(path: &str) -> io::Result<(Self, Writer)> {
        let sink: Box<dyn Write + Send> = match path {
            "-" => Box::new(io::stdout()),
            path => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (queue, events) = sync_channel(QUEUE);
        let (lost, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, ending) = (Arc::clone(&lost), Arc::clone(&end));
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_all(&events, BufWriter::new(sink), &counted, &ending))?;
        Ok((Self { queue, lost }, Writer { thread, end }))
    }

    /// Writes an event, or counts it as lost.
    pub(crate) fn write(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            metrics::counter!(crate::metrics::EVENTS_DROPPED, "sink" => "journal").increment(1);
        }
    }
}

impl Writer {
    /// Waits until what is queued has been written, or gives up on a reader that does not read.
    pub(crate) fn finish(self) {
        self.end.store(1, Ordering::Relaxed);
        let deadline = std::time::Instant::now() + FINISH;
        while !self.thread.is_finished() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn write_all(events: &Receiver<Event>, mut sink: BufWriter<Box<dyn Write + Send>>, lost: &AtomicU64, end: &AtomicU64) {
    loop {
        match events.recv_timeout(TICK) {
            Ok(event) => write_batch(event, events, &mut sink, lost),
            Err(RecvTimeoutError::Timeout) if end.load(Ordering::Relaxed) == 0 => {}
            Err(_) => return,
        }
    }
}

/// Writes until the queue is empty, then flushes: one system call under load, no delay without.
fn write_batch(first: Event, events: &Receiver<Event>, sink: &mut impl Write, lost: &AtomicU64) {
    let (mut written, mut count) = (Ok(()), 0);
    let missed = lost.swap(0, Ordering::Relaxed);
    let gap = (missed > 0).then_some(Event::Gap { cause: "journal_behind", lost: missed });
    for event in [first].into_iter().chain(gap).chain(events.try_iter()) {
        written = written.and_then(|()| writeln!(sink, "{}", event.line()));
        count += 1;
    }
    if let Err(error) = written.and_then(|()| sink.flush()) {
        // How much of the batch arrived cannot be known; all of it is called lost.
        lost.fetch_add(count + missed, Ordering::Relaxed);
        metrics::counter!(crate::metrics::EVENTS_DROPPED, "sink" => "journal").increment(count);
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
        let lost = Arc::new(AtomicU64::new(0));
        let journal = Journal { queue, lost: Arc::clone(&lost) };
        for n in 0..4 {
            journal.write(gap(n));
        }
        let mut sink = Vec::new();
        write_batch(events.recv().unwrap(), &events, &mut sink, &lost);
        let text = String::from_utf8(sink).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines[1].contains("\"journal_behind\",\"lost\":3"), "{text}");
        assert_eq!(lost.load(Ordering::Relaxed), 0);
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
        queue.send(gap(2)).unwrap();
        let lost = AtomicU64::new(5);
        write_batch(gap(1), &events, &mut Full, &lost);
        assert_eq!(lost.load(Ordering::Relaxed), 5 + 3, "what was missed, and the three lines of this batch");
    }
}
