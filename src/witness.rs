//! Hears what the proxy reports, and tells the journal, the metrics and the discovery table.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use egret_proxy::{ConnectFault, DnsFault, NameRecord, Observer, Record, RequestRecord, Via};

use crate::confinement::lately::Lately;
use crate::discovery::{Discovery, Sighting};
use crate::events::Event;
use crate::flows::ways::OwnSockets;
use crate::journal::Journal;
use crate::metrics::{self, Connections};
use crate::readiness::Readiness;

/// What was seen, and who is told.
pub(crate) struct Witness {
    journal: Journal,
    discovery: Mutex<Discovery>,
    /// Whether it has been said that an executable could not be told.
    unattributed: AtomicBool,
    refused_names: Lately,
    readiness: Arc<Readiness>,
    own: Arc<OwnSockets>,
    metrics: Connections,
}

impl Witness {
    /// `own` is told egret's own sockets.
    pub(crate) fn new(journal: &Journal, readiness: &Arc<Readiness>, own: Arc<OwnSockets>) -> Self {
        Self {
            journal: journal.clone(),
            discovery: Mutex::default(),
            unattributed: AtomicBool::default(),
            refused_names: Lately::default(),
            readiness: Arc::clone(readiness),
            own,
            metrics: Connections::new(),
        }
    }

    /// The table as it is now.
    pub(crate) fn discovery(&self) -> Discovery {
        self.discovery.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, sighting: Option<Sighting>) {
        let Some(sighting) = sighting else { return };
        let mut discovery = self.discovery.lock().unwrap_or_else(PoisonError::into_inner);
        discovery.see(sighting);
        self.metrics.destinations(discovery.len());
    }
}

impl Observer for Witness {
    fn began(&self, via: Via) {
        self.metrics.began(via);
    }

    fn decided(&self, record: &Record) {
        self.metrics.decided(record);
    }

    fn closed(&self, record: Box<Record>) {
        self.metrics.closed(&record);
        self.see(Sighting::of_record(&record));
        self.journal.write(Event::Connection(record));
    }

    fn answered(&self, request: &RequestRecord) {
        self.metrics.answered(request);
    }

    fn requested(&self, request: RequestRecord) {
        self.see(Sighting::of_request(&request));
        self.journal.write(Event::Request(Box::new(request)));
    }

    fn name_refused(&self, name: NameRecord) {
        self.metrics.name_refused(&name);
        self.see(Some(Sighting::of_name(&name)));
        if self.refused_names.is_news(&name.name) {
            self.journal.write(Event::Name(Box::new(name)));
        }
    }

    fn resolved(&self, outcome: Result<(), DnsFault>, took: Duration) {
        self.metrics.resolved(outcome, took);
    }

    fn opened(&self, socket: u64) {
        self.own.add(socket);
    }

    fn dialled(&self, outcome: Result<(), ConnectFault>, took: Duration) {
        self.metrics.dialled(outcome, took);
    }

    fn unattributed(&self, why: &str) {
        metrics::unattributed();
        if !self.unattributed.swap(true, Ordering::Relaxed) {
            tracing::warn!(why, "roles by executable: a client's executable cannot be told; this is said once");
            self.journal.write(Event::Coverage { section: "roles", why: format!("an executable cannot be told: {why}") });
        }
    }

    fn accept_failed(&self, error: &std::io::Error) {
        metrics::accept_failed();
        if self.readiness.starved(error) {
            tracing::warn!(%error, "clients cannot be accepted; they wait until that has passed");
        }
    }
}
