//! The end of life. The first SIGTERM or SIGINT begins the drain: readiness goes false, and new connections are still
//! served, because the app is draining too and still talks. The second ends at once. Where egret has started the app,
//! the app's end is egret's (`launch.rs`).

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

    /// Waits for the first, or for a reason to `stop`, and then until the drain is over; `draining` is called in between.
    pub(crate) async fn live(&mut self, drain: Duration, stop: impl Future<Output = String>, draining: impl Fn()) {
        tokio::select! { () = self.requested() => {}, _ = stop => {} }
        draining();
        self.drained(drain).await;
    }

    /// What something gives, unless a signal comes before.
    pub(crate) async fn before<T>(&mut self, something: impl Future<Output = T>) -> Option<T> {
        tokio::select! { () = self.requested() => None, given = something => Some(given) }
    }

    /// Waits for one.
    async fn requested(&mut self) {
        tokio::select! { _ = self.term.recv() => {}, _ = self.int.recv() => {} }
    }

    /// Waits for the drain to be over: its time, or another signal.
    async fn drained(&mut self, drain: Duration) {
        tokio::select! { () = self.requested() => {}, () = tokio::time::sleep(drain) => {} }
    }
}
