//! The end of life. The first SIGTERM or SIGINT begins the drain: readiness goes false, and new connections are still
//! served, because the app is draining too and still talks. The second ends at once.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the program.
pub(crate) struct Ending {
    term: Signal,
    int: Signal,
}

impl Ending {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for one.
    pub(crate) async fn requested(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {} }
    }

    /// Waits for the drain to be over: its time, or another signal.
    pub(crate) async fn drained(&mut self, drain: Duration) {
        tokio::select! { () = self.requested() => {}, () = tokio::time::sleep(drain) => {} }
    }
}
