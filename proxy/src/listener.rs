//! Accepts clients and gives each a task. A place among the handshakes is taken before the accept, so that more
//! clients than that wait in the kernel's backlog; running out of descriptors is a pause, not an end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use egret_policy::{Denial, Policy, UnixTime};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::asker::{Observed, Owners};
use crate::client::Client;
use crate::confined::Known;
use crate::connect;
use crate::connection::{Connection, Slots, over_the_limit, serve};
use crate::limits::{ACCEPT_BACK_OFF, DESCRIPTORS_KEPT, Limits, OWNER_LOOKUPS};
use crate::record::{Id, Observer, Open};
use crate::relay::Pipes;
use crate::resolve::Resolve;

/// What all connections share.
pub struct Gateway {
    pub(crate) limits: Limits,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) owners: Option<Arc<dyn Owners>>,
    pub(crate) owner_lookups: Semaphore,
    pub(crate) close_revoked: bool,
    pub(crate) changes: watch::Sender<()>,
    pub(crate) known: Known,
    /// What clients of the proxy asked for by name. It answers nothing but "which names?".
    pub(crate) resolved: Known,
    pub(crate) pipes: Pipes,
    policy: ArcSwap<Policy>,
    resolver: ArcSwap<Box<dyn Resolve>>,
    instance: Arc<str>,
    accepted: AtomicU64,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// The tasks of a gateway, and the way to end them.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// Ends accepting; live connections go on.
    pub stop_accepting: CancellationToken,
    /// Ends live connections.
    pub close: CancellationToken,
    /// Counts what is still alive.
    pub tasks: TaskTracker,
}

impl Gateway {
    /// A gateway. `instance` begins the id of every record, and tells tasks apart when their journals are merged.
    #[must_use]
    pub fn new(
        instance: String,
        policy: Arc<Policy>,
        resolver: Box<dyn Resolve>,
        limits: Limits,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            limits,
            observer,
            owners: None,
            owner_lookups: Semaphore::new(OWNER_LOOKUPS),
            close_revoked: false,
            changes: watch::Sender::default(),
            known: Known::default(),
            resolved: Known::default(),
            pipes: Pipes::default(),
            policy: ArcSwap::new(policy),
            resolver: ArcSwap::from_pointee(resolver),
            instance: instance.into(),
            accepted: AtomicU64::new(0),
        }
    }

    /// With a way to find the executable of a client, for roles that are told by it.
    #[must_use]
    pub fn with_owners(self, owners: Arc<dyn Owners>) -> Self {
        Self { owners: Some(owners), ..self }
    }

    /// Whether connections that are alive are closed when another policy, or the end of an audit, would not let them
    /// through.
    #[must_use]
    pub fn closing_revoked(self, close_revoked: bool) -> Self {
        Self { close_revoked, ..self }
    }

    /// Puts another policy in force, and another resolver if there is one. Connections that are alive keep theirs, or are judged
    /// again.
    pub fn replace(&self, policy: Arc<Policy>, resolver: Option<Box<dyn Resolve>>) {
        if let Some(resolver) = resolver {
            self.resolver.store(Arc::new(resolver));
        }
        self.policy.store(policy);
        self.changes.send_replace(());
    }

    /// The policy in force says something else now, as its audit has ended.
    pub fn judge_again(&self) {
        self.changes.send_replace(());
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The one server that names are asked of, if the policy names it.
    #[must_use]
    pub fn nameserver(&self) -> Option<SocketAddr> {
        self.resolver().server()
    }

    pub(crate) fn resolver(&self) -> Arc<Box<dyn Resolve>> {
        self.resolver.load_full()
    }

    /// What places are free now.
    pub(crate) fn slots(&self) -> Slots {
        Slots { handshake: Arc::clone(&self.handshakes).try_acquire_owned().ok(), connection: self.place().ok() }
    }

    /// A place among the connections.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Denial> {
        Arc::clone(&self.connections).try_acquire_owned().map_err(|_| over_the_limit(self))
    }

    /// The record of one more connection, judged by the policy in force.
    pub(crate) fn open(&self, client: Option<SocketAddr>) -> Open {
        let id = Id::new(Arc::clone(&self.instance), self.accepted.fetch_add(1, Ordering::Relaxed));
        Open::new(id, Arc::clone(self.policy.load().hash()), client, Arc::clone(&self.observer))
    }

    /// Accepts on one listener until told to stop.
    pub fn serve(self: Arc<Self>, listener: TcpListener, serving: Serving) -> impl Future<Output = ()> + Send {
        // Whoever connects from now on inherits this.
        connect::prepare(&listener);
        self.accept_all(listener, serving)
    }

    async fn accept_all(self: Arc<Self>, listener: TcpListener, serving: Serving) {
        let accepting = async {
            let server = listener.local_addr().ok();
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            let mut latest = RawFd::MAX;
            while let Ok(handshake) = Arc::clone(&self.handshakes).acquire_owned().await {
                let accepted = self.accept(&listener, limit, latest).await;
                latest = accepted.0.as_raw_fd();
                self.begin(accepted, server, Slots { handshake: Some(handshake), connection: None }, &serving);
            }
        };
        serving.stop_accepting.run_until_cancelled(accepting).await;
    }

    async fn accept(&self, listener: &TcpListener, limit: u64, latest: RawFd) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = match has_descriptors(listener, limit, latest) {
                Ok(()) => listener.accept().await,
                Err(error) => Err(error),
            };
            match accepted {
                Ok(accepted) => return accepted,
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    self.observer.accept_failed(&error);
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    fn begin(
        self: &Arc<Self>,
        (stream, peer): (TcpStream, SocketAddr),
        server: Option<SocketAddr>,
        slots: Slots,
        serving: &Serving,
    ) {
        let record = self.open(Some(peer));
        // One that listens on all addresses was reached at one of them.
        let server = server.filter(|server| !server.ip().is_unspecified()).or_else(|| stream.local_addr().ok());
        let observed = Observed::new(server.map(|server| (peer, server)));
        let (gateway, close) = (Arc::clone(self), serving.close.clone());
        let client = Client::new(stream, observed, Instant::now() + gateway.limits.request);
        let connection = Box::new(Connection { client, gateway, record, slots });
        // In a box, as a future that is handed on takes its place twice.
        let served = Box::pin(serve(connection));
        serving.tasks.spawn(async move { close.run_until_cancelled(served).await });
    }
}

/// The time by which rules expire.
#[must_use]
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Whether there are descriptors for another client and for what serves it. The lowest free one, which the kernel gives,
/// tells how many are in use. As long as the `latest` client got one of the lowest quarter, there is no need to look.
fn has_descriptors(listener: &TcpListener, limit: u64, latest: RawFd) -> io::Result<()> {
    let is_below = |descriptor: RawFd, limit| u64::try_from(descriptor).is_ok_and(|descriptor| descriptor < limit);
    if is_below(latest, limit / 4) {
        return Ok(());
    }
    let lowest = rustix::io::fcntl_dupfd_cloexec(listener, 0)?.as_raw_fd();
    if is_below(lowest, limit - DESCRIPTORS_KEPT.min(limit / 4)) { Ok(()) } else { Err(Errno::MFILE.into()) }
}

/// Errors of the connection that was about to be accepted, not of the listener (accept(2)).
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("instance", &self.instance).finish_non_exhaustive()
    }
}
