//! `egret run`, in the order of its life: find the policy, bind, serve, drain, end.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use egret_policy::{Policy, Surroundings};
use egret_proxy::{ConnectFault, DnsFault, Gateway, Observer, Owners, Record, RequestRecord, Resolver, Serving, Via, now};
use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::{self, Admin};
use crate::cli::{Failure, Outcome, RunArgs};
use crate::config::{Config, Unserved};
use crate::discovery::{Discovery, Sighting};
use crate::events::{Event, Lifecycle};
use crate::files::{self, Monitor, Outlets, Own, Stop};
use crate::journal::Journal;
use crate::launch::{Handle, Launch, Termination, Told};
use crate::readiness::Readiness;
use crate::reload::{Reasons, Reloader};
use crate::settings::{DEFAULT_ADMIN, DEFAULT_LISTEN, Settings, fixed};
use crate::shutdown::Ending;
use crate::{commands, journal, metrics, settings};

/// More threads than this gain nothing for a sidecar, and each costs memory.
const MAX_THREADS: usize = 4;
/// Live connections get this long to write their records once they were told to close.
const CLOSING: Duration = Duration::from_secs(2);
/// For the last comparison of watched files.
const FINAL_LOOK: Duration = Duration::from_secs(2);
/// The exporter must be asked to fold its histograms now and then.
const UPKEEP: Duration = Duration::from_secs(5);

/// Runs the gateway until it is told to end.
pub(crate) fn run(args: &RunArgs) -> Outcome {
    settings::init_diagnostics();
    let settings = Settings::gather(args)?;
    if let Some(output) = args.print_config {
        return commands::print(&settings.tell(output));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let mut builder =
        if threads == 1 { tokio::runtime::Builder::new_current_thread() } else { tokio::runtime::Builder::new_multi_thread() };
    let runtime =
        builder.worker_threads(threads).enable_all().build().context("cannot start the runtime").map_err(Failure::Environment)?;
    let (journal, writer) = open_journal(&settings.journal)?;
    let outcome = runtime.block_on(live(settings, journal, &args.command));
    runtime.shutdown_timeout(Duration::from_millis(100));
    writer.finish();
    outcome
}

fn open_journal(path: &str) -> Result<(Journal, journal::Writer), Failure> {
    Journal::open(path).with_context(|| format!("cannot open the journal {path}")).map_err(Failure::Environment)
}

async fn live(settings: Settings, journal: Journal, command: &[OsString]) -> Outcome {
    let mut ending = Ending::listen().context("cannot listen for signals").map_err(Failure::Environment)?;
    let child = Told::default();
    let launch = Launch::prepare(command, &journal, &child)?;
    let prometheus = metrics::install().map_err(Failure::Environment)?;
    let listeners = Listeners::bind(&settings).await?;
    let surroundings = listeners.surroundings();
    let witness =
        Arc::new(Witness { journal: journal.clone(), discovery: Mutex::default(), unattributed: AtomicBool::default() });
    let gateway = gateway(&settings, &surroundings, &witness)?;
    let readiness = Arc::new(Readiness::default());
    let stop = Stop::default();
    let files = watch_files(&settings, &journal, &readiness, &stop)?;
    let phase = Phase { journal: journal.clone(), listen: listeners.addresses.clone(), admin: listeners.admin_address, gateway };
    let serving = Serving::default();

    let reasons = Reasons::listen(&settings.source).context("cannot listen for SIGHUP").map_err(Failure::Environment)?;
    let unserved = tell_unserved(&settings.config.unserved, &journal);
    let Settings { source, mode, yaml, drain, config, .. } = settings;
    let unserved = Arc::new(Mutex::new(unserved));
    let gateway = Arc::clone(&phase.gateway);
    let reloader =
        Reloader { source, mode, surroundings, gateway, journal, unserved: Arc::clone(&unserved), files: Arc::clone(&files) };
    tokio::spawn(reloader.watch(reasons, yaml));
    tokio::spawn(upkeep(prometheus.clone()));
    tokio::spawn(files::tell_in_time(Arc::clone(&files)));
    let gateway = Arc::clone(&phase.gateway);
    let listen = phase.listen.clone();
    let (readiness_told, files_told) = (Arc::clone(&readiness), Arc::clone(&files));
    let admin = Admin { prometheus, gateway, witness, readiness: readiness_told, listen, unserved, child, files: files_told };
    tokio::spawn(admin::serve(listeners.admin, admin));
    for listener in listeners.proxies {
        tokio::spawn(Arc::clone(&phase.gateway).serve(listener, serving.clone()));
    }
    phase.tell("started");

    let draining = || {
        readiness.drain("draining");
        phase.tell("draining");
    };
    let outcome = match launch {
        Some(launch) => match ending.before(files.allows_start()).await {
            Some(Ok(())) => {
                tokio::spawn(end_when_told(stop.subscribe(), launch.handle.clone(), drain));
                let outcome = launch.live(&phase.listen, &config.direct, drain, draining).await;
                readiness.drain("the command has ended");
                outcome
            }
            Some(Err(why)) => {
                eprintln!("egret: nothing is started: {why}");
                Err(Failure::Negative)
            }
            None => Ok(()),
        },
        None => {
            ending.live(drain, told(stop.subscribe()), draining).await;
            Ok(())
        }
    };
    close(&serving).await;
    files::finish(&files, FINAL_LOOK).await;
    phase.tell("stopped");
    match stop.borrow().as_ref() {
        Some(why) if outcome.is_ok() => {
            eprintln!("egret: {why}");
            Err(Failure::Negative)
        }
        _ => outcome,
    }
}

/// Waits for a reason to stop.
async fn told(mut stop: watch::Receiver<Option<String>>) -> String {
    let why = stop.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    // Without one, nobody is left who could tell it.
    if let Some(why) = why { why } else { std::future::pending().await }
}

/// Ends the command when the file watch says so.
async fn end_when_told(stop: watch::Receiver<Option<String>>, handle: Handle, grace: Duration) {
    let why = told(stop).await;
    eprintln!("egret: {why}");
    handle.terminate(Termination { signal: Signal::TERM, why, grace, exit: Some(1) }).await;
}

/// Starts the file watch, if the policy has one. What it says may stop the program.
fn watch_files(settings: &Settings, journal: &Journal, readiness: &Arc<Readiness>, stop: &Stop) -> Result<Arc<Monitor>, Failure> {
    let still = [std::env::current_exe().ok(), settings.source.path().map(Path::to_owned)];
    let still = still.into_iter().flatten().map(|path| Own { path, grows: false });
    let journal_file = Path::new(&settings.journal);
    let grows = journal_file.is_file().then(|| Own { path: journal_file.to_owned(), grows: true });
    let outlets = Outlets { journal: journal.clone(), readiness: Arc::clone(readiness), stop: stop.clone() };
    let files = Arc::new(Monitor::new(outlets, still.chain(grows).collect()));
    if settings.config.files.is_some() {
        readiness.comparing();
    }
    let prepared = files.prepare(settings.config.files.as_ref()).map_err(Failure::Usage)?;
    files.serve(prepared).map_err(Failure::Environment)?;
    Ok(files)
}

fn gateway(settings: &Settings, surroundings: &Surroundings, witness: &Arc<Witness>) -> Result<Arc<Gateway>, Failure> {
    let resolver = Resolver::new(&settings.config.dns, &settings.config.dns_roots)
        .map_err(|error| Failure::Environment(anyhow!("cannot resolve names: {error}; set dns.upstream in the policy")))?;
    let policy = Arc::new(Policy::new(settings.config.draft.clone(), surroundings.clone()));
    metrics::policy_in_force(&policy);
    metrics::policy_loaded();
    let observer = Arc::clone(witness) as Arc<dyn Observer>;
    let gateway = Gateway::new(instance(), policy, Box::new(resolver), settings.limits.clone(), observer);
    Ok(Arc::new(gateway.with_owners(Arc::new(ProcessTable)).closing_revoked(settings.close_revoked)))
}

/// Says of every section that is written and not served that it is not.
pub(crate) fn tell_unserved(unserved: &[Unserved], journal: &Journal) -> Vec<&'static str> {
    for Unserved { section, why } in unserved {
        eprintln!("egret: `{section}:` of the policy is not served: {why}");
        journal.write(Event::Coverage { section, why: (*why).to_owned() });
    }
    unserved.iter().map(|unserved| unserved.section).collect()
}

/// The executable that holds a socket, as the process table shows it.
struct ProcessTable;

impl Owners for ProcessTable {
    fn executable(&self, client: SocketAddr, server: SocketAddr) -> Result<String, String> {
        let owner = egret_flows::owner(client, server).map_err(|unknown| unknown.to_string())?;
        owner.exe.into_os_string().into_string().map_err(|path| format!("the path {} is not UTF-8", path.display()))
    }
}

/// Ends accepting and what is alive; each connection still leaves its record.
async fn close(serving: &Serving) {
    serving.stop_accepting.cancel();
    serving.close.cancel();
    serving.tasks.close();
    let _ = tokio::time::timeout(CLOSING, serving.tasks.wait()).await;
}

async fn upkeep(prometheus: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP);
    loop {
        tick.tick().await;
        prometheus.run_upkeep();
    }
}

/// Eight random hexadecimal digits: tells this egret from others whose journals end up in the same place.
fn instance() -> String {
    format!("{:08x}", RandomState::new().build_hasher().finish() >> 32)
}

/// The sockets that egret listens on, bound before anything else happens.
struct Listeners {
    proxies: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    admin: TcpListener,
    admin_address: SocketAddr,
}

impl Listeners {
    async fn bind(settings: &Settings) -> Result<Self, Failure> {
        let host = settings.listen.first().map_or([127, 0, 0, 1].into(), SocketAddr::ip);
        let roles = settings.config.role_ports.iter().map(|port| SocketAddr::new(host, *port));
        let (mut proxies, mut addresses) = (Vec::new(), Vec::new());
        for address in settings.listen.iter().copied().chain(roles) {
            let (listener, bound) = bind(address, "the proxy").await?;
            proxies.push(listener);
            addresses.push(bound);
        }
        let (admin, admin_address) = bind(settings.admin, "the admin port").await?;
        Ok(Self { proxies, addresses, admin, admin_address })
    }

    fn surroundings(&self) -> Surroundings {
        let listeners: Vec<SocketAddr> = self.addresses.iter().copied().chain([self.admin_address]).collect();
        surroundings(&listeners)
    }
}

/// What egret knows of its host: its own listeners, and the addresses of all interfaces.
pub(crate) fn surroundings(listeners: &[SocketAddr]) -> Surroundings {
    let interfaces =
        if_addrs::get_if_addrs().map(|all| all.iter().map(if_addrs::Interface::ip).collect()).unwrap_or_else(|error| {
            tracing::warn!(%error, "this host's interfaces cannot be listed; their addresses are judged like any others");
            Vec::new()
        });
    Surroundings { listeners: listeners.to_vec(), interfaces }
}

/// Where a policy says that egret listens, flags and variables left out.
pub(crate) fn configured_listeners(config: &Config) -> Vec<SocketAddr> {
    let mut listeners = config.run.listen.as_ref().map_or_else(|| vec![fixed(DEFAULT_LISTEN)], |listen| listen.value.clone());
    let host = listeners.first().map_or([127, 0, 0, 1].into(), SocketAddr::ip);
    listeners.extend(config.role_ports.iter().map(|port| SocketAddr::new(host, *port)));
    listeners.push(config.run.admin.as_ref().map_or_else(|| fixed(DEFAULT_ADMIN), |admin| admin.value));
    listeners
}

async fn bind(address: SocketAddr, what: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, local))
    };
    bound.await.with_context(|| format!("{what} cannot listen on {address}")).map_err(Failure::Environment)
}

/// What a lifecycle event says.
struct Phase {
    journal: Journal,
    listen: Vec<SocketAddr>,
    admin: SocketAddr,
    gateway: Arc<Gateway>,
}

impl Phase {
    fn tell(&self, phase: &'static str) {
        let policy = self.gateway.policy();
        self.journal.write(Event::Lifecycle(Box::new(Lifecycle {
            phase,
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            listen: self.listen.clone(),
            admin: self.admin,
            mode: policy.mode_at(now()).to_string(),
            policy: policy.hash().to_owned(),
        })));
    }
}

/// Hears what the proxy reports, and tells the journal, the metrics and the discovery table.
pub(crate) struct Witness {
    journal: Journal,
    discovery: Mutex<Discovery>,
    /// Whether it has been said that an executable could not be told.
    unattributed: AtomicBool,
}

impl Witness {
    /// The table as it is now.
    pub(crate) fn discovery(&self) -> Discovery {
        self.discovery.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, sighting: Option<Sighting>) {
        let Some(sighting) = sighting else { return };
        let mut discovery = self.discovery.lock().unwrap_or_else(PoisonError::into_inner);
        discovery.see(sighting);
        metrics::destinations(discovery.len());
    }
}

impl Observer for Witness {
    fn began(&self, via: Via) {
        metrics::began(via);
    }

    fn decided(&self, record: &Record) {
        metrics::decided(record);
    }

    fn closed(&self, record: Record) {
        metrics::closed(&record);
        self.see(Sighting::of_record(&record));
        self.journal.write(Event::Connection(Box::new(record)));
    }

    fn answered(&self, request: &RequestRecord) {
        metrics::answered(request);
    }

    fn requested(&self, request: RequestRecord) {
        self.see(Sighting::of_request(&request));
        self.journal.write(Event::Request(Box::new(request)));
    }

    fn resolved(&self, outcome: Result<(), DnsFault>, took: Duration) {
        metrics::resolved(outcome, took);
    }

    fn dialled(&self, outcome: Result<(), ConnectFault>, took: Duration) {
        metrics::dialled(outcome, took);
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
        tracing::warn!(%error, "a client cannot be accepted; trying again");
    }
}
