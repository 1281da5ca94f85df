//! Another policy without a restart: on SIGHUP, and when the file changes, whether written in place, replaced by a
//! rename, or behind a swapped link as Kubernetes mounts configuration. It is read whole and once; a broken one
//! leaves the old one in force, and says so everywhere.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use egret_policy::{Mode, Policy, Surroundings};
use egret_proxy::{Gateway, Resolver};
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::source::{Source, Text};
use crate::config::{self};
use crate::events::{Event, Reload};
use crate::journal::Journal;
use crate::metrics;

/// A file that changed is read once it has been quiet for this long, so that a writer can finish.
const SETTLE: Duration = Duration::from_millis(100);

/// Reloads the policy of a gateway.
pub(crate) struct Reloader {
    source: Source,
    mode: Option<Mode>,
    surroundings: Surroundings,
    gateway: Arc<Gateway>,
    journal: Journal,
}

impl Reloader {
    pub(crate) fn new(
        source: &Source,
        mode: Option<Mode>,
        surroundings: Surroundings,
        gateway: Arc<Gateway>,
        journal: Journal,
    ) -> Self {
        Self { source: source.clone(), mode, surroundings, gateway, journal }
    }

    /// Reloads whenever there is a reason to, for ever.
    pub(crate) async fn watch(self) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        let mut changes = self.changes();
        let mut tried = self.source.read().ok().map(|text| text.yaml);
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = changed(&mut changes) => false,
            };
            let text = self.source.read();
            // A touched file with the same text is no reload; an asked-for one always is.
            if asked || text.as_ref().ok().map(|text| &text.yaml) != tried.as_ref() {
                tried = text.as_ref().ok().map(|text| text.yaml.clone());
                self.reload(text);
            }
        }
    }

    /// Changes in the folder of the policy file; the file itself may be a link, or be replaced.
    fn changes(&self) -> Option<EventStream<[u8; 4096]>> {
        let Source::File(path) = &self.source else { return None };
        match folder_events(path) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the policy file cannot be watched; send SIGHUP after a change");
                None
            }
        }
    }

    fn reload(&self, text: anyhow::Result<Text>) {
        let outcome = text.and_then(|text| self.prepare(&text));
        let (result, error) = match outcome {
            Ok((policy, resolver)) => {
                let former = self.gateway.policy();
                self.gateway.replace(Arc::clone(&policy), Box::new(resolver));
                metrics::policy_in_force(&policy, Some(&*former).filter(|former| former.hash() != policy.hash()));
                ("loaded", None)
            }
            Err(error) => {
                eprintln!("egret: the policy was not reloaded, the old one stays in force: {error:#}");
                ("rejected", Some(format!("{error:#}")))
            }
        };
        metrics::reloaded(result);
        self.journal.write(Event::Policy(Reload { result, policy: self.gateway.policy().hash().to_owned(), error }));
    }

    fn prepare(&self, text: &Text) -> anyhow::Result<(Arc<Policy>, Resolver)> {
        let config = config::load(text, self.mode).map_err(|error| anyhow!("the policy is invalid\n{error}"))?;
        let listening: Vec<u16> = self.surroundings.listeners.iter().map(std::net::SocketAddr::port).collect();
        if let Some(port) = config.role_ports.iter().find(|port| !listening.contains(port)) {
            tracing::warn!(port, "a new role port is served only after a restart");
        }
        let resolver = Resolver::new(&config.dns, &config.dns_roots)?;
        Ok((Arc::new(Policy::new(config.draft, self.surroundings.clone())), resolver))
    }
}

fn folder_events(path: &Path) -> io::Result<EventStream<[u8; 4096]>> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::DELETE | WatchMask::ATTRIB;
    inotify.watches().add(folder, mask)?;
    inotify.into_event_stream([0; 4096])
}

/// Waits for a change and then for quiet. Without a watch it waits for ever.
async fn changed(changes: &mut Option<EventStream<[u8; 4096]>>) {
    let Some(stream) = changes else { return std::future::pending().await };
    if stream.next().await.is_none() {
        *changes = None;
        return;
    }
    while let Ok(Some(_)) = tokio::time::timeout(SETTLE, stream.next()).await {}
}
