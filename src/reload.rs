//! Another policy without a restart: on SIGHUP, and when the file changes, whether written in place, replaced by a
//! rename, or behind a swapped link as Kubernetes mounts configuration. It is read whole and once; a broken one
//! leaves the old one in force, and says so everywhere.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use egret_policy::{Mode, Policy, Rule, RuleId, UnixTime};
use egret_proxy::{DnsServer, Gateway, Resolve, Resolver, now};
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::config;
use crate::config::source::{Source, Text};
use crate::confinement::exit::Direct;
use crate::confinement::reach;
use crate::events::{Difference, Event, Reload, RuleLine};
use crate::files::Monitor;
use crate::flows::Flows;
use crate::flows::ways::OwnSockets;
use crate::journal::Journal;
use crate::metrics;
use crate::run::{surroundings, tell_unserved};
use crate::stderr;

/// A file that changed is read once it has been quiet for this long, so that a writer can finish.
const SETTLE: Duration = Duration::from_millis(100);

/// The policy file is watched from so long after the start on: the kernel takes some 10 ms to let go of an inotify instance,
/// and who runs a short command should not wait for that.
const UNWATCHED: Duration = Duration::from_secs(1);

/// A folder that is never quiet is not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// A time that is waited for is looked at this often at least, as the clock may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The most rules that an event names of those added, and of those removed.
const TOLD: usize = 50;

/// Reloads the policy of a gateway.
pub(crate) struct Reloader {
    pub(crate) source: Source,
    pub(crate) mode: Option<Mode>,
    /// Where egret listens.
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) journal: Journal,
    /// The sections of the policy in force that are not served.
    pub(crate) unserved: Arc<Mutex<Vec<&'static str>>>,
    pub(crate) files: Arc<Monitor>,
    /// What is reached without the proxy.
    pub(crate) direct: Direct,
    pub(crate) flows: Arc<Flows>,
    /// egret's own sockets.
    pub(crate) own: Arc<OwnSockets>,
    /// The list of what may be executed that holds.
    pub(crate) exec: Option<Vec<String>>,
    pub(crate) resolver: NextResolver,
}

/// What a reload does about the resolver, which reads files of the system when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextResolver {
    /// Makes another.
    Made,
    /// Nothing: an app that is held could have written those files, and so have any name lead anywhere. This is whom it asks.
    Kept(DnsServer),
}

impl NextResolver {
    pub(crate) fn with(holds_an_app: bool, now: &DnsServer) -> Self {
        let is_the_apps = || ["/etc/hosts", "/etc/resolv.conf"].iter().any(|file| reach::can_change(Path::new(file)));
        if holds_an_app && is_the_apps() { Self::Kept(now.clone()) } else { Self::Made }
    }
}

/// What a reload is for. SIGHUP is listened to before egret says that it has started, so that nothing is missed after.
pub(crate) struct Reasons {
    hangup: Signal,
    /// The policy file, and from when on it is watched.
    unwatched: Option<(PathBuf, Instant)>,
    changes: Option<EventStream<[u8; 4096]>>,
}

impl Reasons {
    /// With an app that is held, a policy that it could change is not taken as soon as it changes.
    pub(crate) fn listen(source: &Source, holds_an_app: bool) -> io::Result<Self> {
        let path = source.path().filter(|path| !holds_an_app || !is_the_apps(path));
        let unwatched = path.map(|path| (path.to_owned(), Instant::now() + UNWATCHED));
        Ok(Self { hangup: signal(SignalKind::hangup())?, unwatched, changes: None })
    }

    /// Waits for one; true if it was asked for, false if the file may have changed.
    async fn next(&mut self) -> bool {
        let Self { hangup, unwatched, changes } = self;
        let file = async {
            match unwatched {
                Some(_) => begun(unwatched, changes).await,
                None => changed(changes).await,
            }
        };
        tokio::select! {
            _ = hangup.recv() => true,
            () = file => false,
        }
    }
}

fn is_the_apps(path: &Path) -> bool {
    let is_its = reach::can_change(path);
    if is_its {
        stderr::say(format_args!(
            "the policy file {} can be changed by CMD, and is read again on SIGHUP only: mount it read-only, or run as a \
             user who can write neither it nor a folder above it",
            path.display()
        ));
    }
    is_its
}

/// Begins to watch the policy file once it is time; it may have changed before.
async fn begun(unwatched: &mut Option<(PathBuf, Instant)>, changes: &mut Option<EventStream<[u8; 4096]>>) {
    let Some((path, from)) = unwatched else { return std::future::pending().await };
    tokio::time::sleep_until(*from).await;
    let stream = folder_events(path).inspect_err(|error| {
        tracing::warn!(%error, path = %path.display(), "the policy file cannot be watched; send SIGHUP after a change");
    });
    *changes = stream.ok();
    *unwatched = None;
}

impl Reloader {
    /// Reloads whenever there is a reason to, for ever. `yaml` is the text in force.
    pub(crate) async fn watch(self, mut reasons: Reasons, yaml: String) {
        let mut tried = Some(yaml);
        let mut asked = false;
        loop {
            let text = self.source.read();
            // A touched file with the same text is no reload; an asked-for one always is.
            if asked || text.as_ref().ok().map(|text| &text.yaml) != tried.as_ref() {
                tried = text.as_ref().ok().map(|text| text.yaml.clone());
                self.reload(text).await;
            }
            asked = tokio::select! {
                asked = reasons.next() => asked,
                () = audit_ended(&self.gateway) => {
                    self.gateway.judge_again();
                    self.tell("audit_ended", None, Difference::default());
                    false
                }
                () = rule_expired(&self.gateway) => {
                    self.gateway.judge_again();
                    false
                }
            };
        }
    }

    async fn reload(&self, text: anyhow::Result<Text>) {
        let prepared = match text {
            Ok(text) => self.prepare(text).await,
            Err(error) => Err(error),
        };
        match prepared {
            Ok((policy, resolver)) => {
                let difference = difference(&self.gateway.policy(), &policy);
                self.gateway.replace(policy, resolver.map(|resolver| Box::new(resolver) as Box<dyn Resolve>));
                metrics::policy_loaded();
                metrics::reloaded("loaded");
                self.tell("loaded", None, difference);
            }
            Err(error) => {
                stderr::say(format_args!("the policy was not reloaded, the old one stays in force: {error:#}"));
                metrics::reloaded("rejected");
                self.tell("rejected", Some(Reload::error(&error)), Difference::default());
            }
        }
    }

    fn tell(&self, result: &'static str, error: Option<String>, difference: Difference) {
        let policy = self.gateway.policy();
        metrics::policy_in_force(&policy);
        self.journal.write(Event::Policy(Box::new(Reload {
            result,
            policy: policy.hash().to_string(),
            mode: policy.mode_at(now()).to_string(),
            error,
            rules: policy.rules().len(),
            difference,
        })));
    }

    /// Reading a large policy takes a while, for which no connection should wait.
    async fn prepare(&self, text: Text) -> anyhow::Result<(Arc<Policy>, Option<Resolver>)> {
        let kept = if let NextResolver::Kept(server) = &self.resolver { Some(server.clone()) } else { None };
        let (mode, surroundings, files) = (self.mode, surroundings(&self.listeners), Arc::clone(&self.files));
        let own = Arc::clone(&self.own);
        let read = move || {
            let mut config = config::load(&text, mode).map_err(|error| anyhow!("the policy is invalid\n{error}"))?;
            let policy = Arc::new(Policy::new(std::mem::take(&mut config.draft), surroundings));
            let prepared = files.prepare(config.files.as_ref())?;
            let next = || Resolver::noting(&config.dns, &config.dns_roots, own.note());
            let resolver = kept.is_none().then(next).transpose()?;
            if kept.is_some_and(|kept| kept != config.dns) {
                tracing::warn!(
                    "another `dns:` holds after a restart only, as CMD could have written /etc/hosts or /etc/resolv.conf"
                );
            }
            // Last, as it is the only step that changes something.
            files.serve(prepared)?;
            Ok::<_, anyhow::Error>((config, policy, resolver))
        };
        let (config, policy, resolver) = tokio::task::spawn_blocking(read).await??;
        let listening: Vec<u16> = self.listeners.iter().map(SocketAddr::port).collect();
        if let Some(port) = config.role_ports.iter().find(|port| !listening.contains(port)) {
            tracing::warn!(port, "a new role port is served only after a restart");
        }
        self.direct.write().unwrap_or_else(PoisonError::into_inner).clone_from(&config.direct);
        self.flows.reload(config.around.unwrap_or_default());
        *self.unserved.lock().unwrap_or_else(PoisonError::into_inner) =
            tell_unserved(&config, self.exec.as_deref(), self.flows.is_on(), &self.journal);
        Ok((policy, resolver))
    }
}

/// Waits for the end of the audit of the policy in force; for ever if it has none, or none that is still to come.
async fn audit_ended(gateway: &Gateway) {
    match gateway.policy().audit_until().filter(|end| now() < *end) {
        Some(end) => until(end).await,
        None => std::future::pending().await,
    }
}

/// Waits for the next rule of the policy in force to expire; for ever if none will.
async fn rule_expired(gateway: &Gateway) {
    let policy = gateway.policy();
    let (now, ends) = (now(), policy.rules().iter().filter_map(Rule::expires));
    match ends.filter(|end| now < *end).min() {
        Some(end) => until(end).await,
        None => std::future::pending().await,
    }
}

/// Waits for a time. The clock may be set meanwhile.
async fn until(end: UnixTime) {
    while now() < end {
        let left = u64::try_from(end.0.saturating_sub(now().0)).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(left).min(LOOK_AGAIN)).await;
    }
}

/// The rules that a policy has and the former one lacks, and the reverse. Order, notes and lines make no difference.
fn difference(former: &Policy, policy: &Policy) -> Difference {
    let (added, added_count) = beyond(policy, former);
    let (removed, removed_count) = beyond(former, policy);
    Difference { added, added_count, removed, removed_count }
}

/// The rules of the one that the other lacks: some of them, and their number.
fn beyond(one: &Policy, other: &Policy) -> (Vec<RuleLine>, usize) {
    let known: HashSet<(&RuleId, u64)> = other.rules().iter().map(|rule| (rule.id(), rule.content())).collect();
    let new: Vec<&Rule> = one.rules().iter().filter(|rule| !known.contains(&(rule.id(), rule.content()))).collect();
    (new.iter().take(TOLD).map(|rule| RuleLine::from(*rule)).collect(), new.len())
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
    let settled = async { while let Ok(Some(_)) = tokio::time::timeout(SETTLE, stream.next()).await {} };
    let _ = tokio::time::timeout(PATIENCE, settled).await;
}
