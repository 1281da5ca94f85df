//! What egret tells people, on stderr. An app that it has started writes there too, and may fill it, make it non-blocking or
//! bring its reader to a halt, so nothing that matters may wait for it or fail with it: in `egret run` a thread writes what others
//! only put down, and what does not fit is counted and told. A command that prints and ends writes by itself.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::events::shortened;
use crate::stream::{Patient, own, write_in_background, write_lines};

/// What waits to be written, in octets; a single message may be longer.
const MOST: usize = 64 * 1024;
/// How long the last of it may take when egret ends.
const FINISH: Duration = Duration::from_secs(1);
/// The longest message of a panic, in characters.
const MAX_PANIC: usize = 1_000;

static STDERR: Queue = Queue::new();

/// Tells a line, with who tells it before it. It fails nowhere; in `egret run` it waits for nobody.
pub(crate) fn say(what: impl Display) {
    print(&format!("egret: {what}\n"));
}

/// The same with lines that are whole already.
pub(crate) fn print(lines: &str) {
    if !STDERR.take(lines) {
        // Nobody is left who could be told.
        let _ = write_lines(&mut Patient(io::stderr()), lines.as_bytes());
    }
}

/// What `tracing` writes to; each line comes whole.
pub(crate) struct Tracing;

impl Write for Tracing {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        print(&String::from_utf8_lossy(octets));
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on a thread writes, and panics are told by way of it.
///
/// # Errors
/// There are no threads or descriptors left.
pub(crate) fn begin() -> io::Result<()> {
    let stderr = own(io::stderr())?;
    thread::Builder::new().name("stderr".into()).spawn(|| {
        write_in_background();
        STDERR.write_to(Patient(stderr));
    })?;
    STDERR.lock().has_writer = true;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// Waits until all is written, or nobody reads it.
pub(crate) fn finish() {
    STDERR.finish(FINISH);
}

/// In one line, as the text may come from anywhere.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = shortened(text.unwrap_or_default(), MAX_PANIC);
    let current = thread::current();
    say(format_args!("a bug: thread {} panicked at {place}: {text:?}", current.name().unwrap_or_default()));
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        print(&trace.to_string());
    }
}

/// What waits for the thread that writes.
struct Queue {
    held: Mutex<Held>,
    changed: Condvar,
}

struct Held {
    has_writer: bool,
    lines: Vec<u8>,
    /// Messages that had no room after these lines.
    lost: u64,
    /// Whether some were taken and not written yet.
    is_writing: bool,
}

impl Queue {
    const fn new() -> Self {
        let held = Held { has_writer: false, lines: Vec::new(), lost: 0, is_writing: false };
        Self { held: Mutex::new(held), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts lines down, or counts them as lost; false if nobody would write them.
    fn take(&self, lines: &str) -> bool {
        let mut held = self.lock();
        if !held.has_writer {
            return false;
        }
        let fits = held.lines.is_empty() || held.lines.len() + lines.len() <= MOST;
        // Once one is lost, so is what follows, until that has been told.
        if held.lost > 0 || !fits {
            held.lost += 1;
        } else {
            held.lines.extend_from_slice(lines.as_bytes());
        }
        drop(held);
        self.changed.notify_all();
        true
    }

    /// Waits for lines.
    fn next(&self) -> Vec<u8> {
        let mut held = self.lock();
        held.is_writing = false;
        self.changed.notify_all();
        let is_idle = |held: &mut Held| held.lines.is_empty() && held.lost == 0;
        let mut held = self.changed.wait_while(held, is_idle).unwrap_or_else(PoisonError::into_inner);
        held.is_writing = true;
        let (mut lines, lost) = (std::mem::take(&mut held.lines), std::mem::take(&mut held.lost));
        if lost > 0 {
            lines.extend_from_slice(format!("egret: {lost} messages are lost: nobody read stderr\n").as_bytes());
        }
        lines
    }

    fn write_to(&self, mut sink: impl Write) {
        loop {
            // Nobody is left who could be told of a failure.
            let _ = write_lines(&mut sink, &self.next());
        }
    }

    fn finish(&self, most: Duration) {
        let is_busy = |held: &mut Held| held.has_writer && (held.is_writing || !held.lines.is_empty() || held.lost > 0);
        let _ = self.changed.wait_timeout_while(self.lock(), most, is_busy);
    }
}

#[cfg(test)]
mod tests;
