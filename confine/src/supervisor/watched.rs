//! Threads that make a call on a socket that the app has, too, and has configured: whoever hangs in it is interrupted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[allow(unsafe_code, reason = "the raw calls")]
mod sys;

pub(super) use sys::prepare_to_interrupt;

/// How long such a call takes at most; none of them is meant to wait.
const LONGEST: Duration = Duration::from_secs(1);

/// Who is in such a call, and since when.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    threads: Mutex<HashMap<u32, Instant>>,
}

/// Ends the watch when it is dropped.
struct Watch<'a>(&'a Watched, u32);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.threads().remove(&self.1);
    }
}

impl Watched {
    /// Makes the call. If it hangs it fails with INTR, or ends early if it is one that can't fail.
    pub(crate) fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        thread_local! {
            static TID: u32 = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        }
        let tid = TID.with(|tid| *tid);
        self.threads().insert(tid, Instant::now());
        let _watch = Watch(self, tid);
        call()
    }

    /// Interrupts those that hang. A signal that comes too early or too late does nothing, and the next one follows.
    pub(crate) fn interrupt(&self) {
        // With the lock, so that none of them is anything else by then.
        for (tid, since) in self.threads().iter() {
            if since.elapsed() > LONGEST {
                sys::interrupt(*tid);
            }
        }
    }

    fn threads(&self) -> MutexGuard<'_, HashMap<u32, Instant>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
