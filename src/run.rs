//! `egret run`, in the order of its life: find the policy, bind, serve, drain, end.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use egret_policy::{Mode, Policy, Surroundings};
use egret_proxy::{Door, Gateway, Observer, Owners, Resolver, Serving, now};
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::Signal;
use tokio::net::TcpListener;

use crate::admin::{self, Admin};
use crate::cli::{Failure, Outcome, RunArgs};
use crate::config::{Config, Unserved};
use crate::confinement::exit::{Direct, Exit};
use crate::confinement::{self, Confine, Found, Hold, executables};
use crate::events::{Event, Lifecycle};
use crate::files::{self, Kind, Monitor, Outlets, Own};
use crate::flows::Flows;
use crate::flows::ways::OwnSockets;
use crate::journal::{Journal, WhenFull};
use crate::launch::{Handle, Launch, Termination, Told};
use crate::readiness::Readiness;
use crate::reload::{NextResolver, Reasons, Reloader};
use crate::settings::{DEFAULT_ADMIN, DEFAULT_LISTEN, Settings, fixed};
use crate::shutdown::Ending;
use crate::stop::Stop;
use crate::witness::Witness;
use crate::{commands, flows, journal, metrics, settings, stderr, workers};

/// Live connections get this long to write their records once they were told to close.
const CLOSING: Duration = Duration::from_secs(2);
/// For the last listing of flows, and the last comparison of watched files.
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
    // Before there are other threads.
    let found = if args.command.is_empty() { None } else { confinement::find(settings.confine) };
    stderr::begin().context("cannot start a thread").map_err(Failure::Environment)?;
    let recorder = start_recorder()?;
    let runtime = workers::runtime().context("cannot start the runtime").map_err(Failure::Environment)?;
    let (journal, writer) = open_journal(&settings.journal, settings.journal_full)?;
    let outcome = runtime.block_on(live(settings, found, recorder, journal, &args.command));
    runtime.shutdown_timeout(Duration::from_millis(100));
    writer.finish();
    outcome
}

fn open_journal(path: &str, when_full: WhenFull) -> Result<(Journal, journal::Writer), Failure> {
    Journal::open(path, when_full).with_context(|| format!("cannot open the journal {path}")).map_err(Failure::Environment)
}

/// Installing the metrics recorder calibrates a clock, for half a millisecond and more: other things are started meanwhile.
fn start_recorder() -> Result<JoinHandle<anyhow::Result<PrometheusHandle>>, Failure> {
    let recorder = std::thread::Builder::new().name("metrics".into()).spawn(metrics::install);
    recorder.context("cannot start a thread").map_err(Failure::Environment)
}

async fn live(
    settings: Settings,
    found: Found,
    recorder: JoinHandle<anyhow::Result<PrometheusHandle>>,
    journal: Journal,
    command: &[OsString],
) -> Outcome {
    let mut ending = Ending::listen().context("cannot listen for signals").map_err(Failure::Environment)?;
    let hold = hold(&settings, found)?;
    let holds = hold.confinement().holds();
    // Before anything is told, as whoever hears of it may ask for a reload.
    let reasons = Reasons::listen(&settings.source, holds).context("cannot listen for SIGHUP").map_err(Failure::Environment)?;
    let child = Told::default();
    let confinement = confinement::Told::default();
    let exec = settings.config.exec.clone().filter(|_| holds);
    let launch = Launch::prepare(command, hold, &confinement, &journal, &child)?;
    let listeners = Listeners::bind(&settings).await?;
    let prometheus = recorder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(Failure::Environment)?;
    metrics::count_panics();
    let readiness = Arc::new(Readiness::default());
    let stop = Stop::default();
    // It has its own threads: the sooner they begin, the better.
    let files = watch_files(&settings, &journal, &readiness, &stop)?;
    let own = Arc::new(OwnSockets::default());
    let witness = Arc::new(Witness::new(&journal, &readiness, Arc::clone(&own)));
    let gateway = gateway(&settings, surroundings(&listeners.all()), &witness, &own)?;
    let (listen, admin) = (listeners.addresses.clone(), listeners.admin_address);
    let phase = Phase { journal: journal.clone(), listen, admin, gateway, stop: stop.clone() };
    let serving = Serving::default();

    let direct = Direct::new(RwLock::new(settings.config.direct.clone()));
    let outlets = Outlets { journal: journal.clone(), readiness: Arc::clone(&readiness), stop: stop.clone() };
    let flows = Flows::start(&settings, outlets, &phase.gateway, &own, &direct);
    let unserved = tell_unserved(&settings.config, exec.as_deref(), flows.is_on(), &journal);
    let Settings { source, mode, yaml, drain, config, confine, .. } = settings;
    let unserved = Arc::new(Mutex::new(unserved));
    let exit = match &launch {
        Some(_) if confine != Confine::Off => Some(exit(&phase.gateway, &serving, Arc::clone(&direct), &journal)?),
        _ => None,
    };
    let gateway = Arc::clone(&phase.gateway);
    let reloader = Reloader {
        source,
        mode,
        listeners: listeners.all(),
        gateway,
        journal,
        unserved: Arc::clone(&unserved),
        files: Arc::clone(&files),
        direct,
        flows: Arc::clone(&flows),
        own,
        exec,
        resolver: NextResolver::with(holds, &config.dns),
    };
    tokio::spawn(reloader.watch(reasons, yaml));
    tokio::spawn(upkeep(prometheus.clone()));
    tokio::spawn(files::tell_in_time(Arc::clone(&files)));
    let gateway = Arc::clone(&phase.gateway);
    let listen = phase.listen.clone();
    let stage = Stage { phase, serving, readiness, files, flows, stop, drain };
    let (readiness, files, flows) = (Arc::clone(&stage.readiness), Arc::clone(&stage.files), Arc::clone(&stage.flows));
    let admin = Admin { prometheus, gateway, witness, readiness, listen, unserved, child, confinement, files, flows };
    tokio::spawn(admin::serve(listeners.admin, admin));
    workers::serve(&stage.phase.gateway, &listeners.proxies, &stage.serving)
        .context("cannot start a thread")
        .map_err(Failure::Environment)?;
    for listener in listeners.proxies {
        tokio::spawn(Arc::clone(&stage.phase.gateway).serve(listener, stage.serving.clone()));
    }
    tokio::spawn(unready_without_journal(stage.phase.journal.taken(), Arc::clone(&stage.readiness)));
    tokio::spawn(stop_without_journal(stage.phase.journal.failed(), stage.serving.clone(), stage.stop.clone()));
    stage.phase.tell("started");

    let outcome = match launch {
        Some(launch) => stage.command(launch, &config.direct, exit.as_ref(), &mut ending).await,
        None => {
            tokio::select! {
                () = ending.live(drain, stage.stop.said(), || stage.draining()) => {}
                // For want of a journal: nothing is served any more.
                () = stage.serving.close.cancelled() => {}
            }
            Ok(())
        }
    };
    stage.end(outcome).await
}

/// What egret's end has to do with, and its command's.
struct Stage {
    phase: Phase,
    serving: Serving,
    readiness: Arc<Readiness>,
    files: Arc<Monitor>,
    flows: Arc<Flows>,
    stop: Stop,
    drain: Duration,
}

impl Stage {
    fn draining(&self) {
        self.readiness.drain("draining");
        self.phase.tell("draining");
    }

    /// Starts the command, once its files may be trusted, and stays with it to its end.
    async fn command(&self, launch: Launch, direct: &[IpNet], exit: Option<&Arc<Exit>>, ending: &mut Ending) -> Outcome {
        match ending.before(self.files.allows_start()).await {
            Some(Ok(())) => {
                tokio::spawn(end_when_told(self.stop.said(), launch.handle.clone(), self.drain));
                let outcome = launch.live(&self.phase.listen, direct, exit, self.drain, || self.draining()).await;
                self.readiness.drain("the command has ended");
                outcome
            }
            Some(Err(why)) => {
                stderr::say(format_args!("nothing is started: {why}"));
                Err(Failure::Negative)
            }
            None => Ok(()),
        }
    }

    async fn end(self, outcome: Outcome) -> Outcome {
        close(&self.serving).await;
        flows::finish(&self.flows, FINAL_LOOK).await;
        files::finish(&self.files, FINAL_LOOK).await;
        self.phase.tell("stopped");
        match self.stop.why() {
            Some(why) if outcome.is_ok() && self.phase.journal.has_failed() => Err(Failure::Environment(anyhow!("{why}"))),
            Some(why) if outcome.is_ok() => {
                stderr::say(&why);
                Err(Failure::Negative)
            }
            _ => outcome,
        }
    }
}

/// The way out of a confined command. Must be called in the runtime.
fn exit(gateway: &Arc<Gateway>, serving: &Serving, direct: Direct, journal: &Journal) -> Result<Arc<Exit>, Failure> {
    let door = Door::open(gateway, serving).context("no port on loopback").map_err(Failure::Environment)?;
    Ok(Exit::new(Arc::clone(gateway), Arc::new(door), direct, journal.clone(), serving))
}

/// Who puts another file in the journal's place takes evidence away, and no time heals that.
async fn unready_without_journal(taken: impl Future<Output = String>, readiness: Arc<Readiness>) {
    let why = taken.await;
    readiness.unhealthy(|| why);
}

/// Lets nothing out any more once the journal has failed, and ends egret.
async fn stop_without_journal(failed: impl Future<Output = String>, serving: Serving, stop: Stop) {
    let why = failed.await;
    // Why, before that is acted upon.
    stop.say(|| why);
    serving.stop_accepting.cancel();
    serving.close.cancel();
}

/// Ends the command when the file watch, or the journal, says so.
async fn end_when_told(stop: impl Future<Output = String>, handle: Handle, grace: Duration) {
    let why = stop.await;
    let told = why.clone();
    handle.terminate(Termination { signal: Signal::TERM, why, grace, exit: Some(1) }).await;
    stderr::say(told);
}

/// Starts the file watch, if the policy has one. What it says may stop the program.
fn watch_files(settings: &Settings, journal: &Journal, readiness: &Arc<Readiness>, stop: &Stop) -> Result<Arc<Monitor>, Failure> {
    let journal_file = Some(Path::new(&settings.journal)).filter(|path| path.is_file());
    let own = [
        (std::env::current_exe().ok(), Kind::Program),
        (settings.source.path().map(Path::to_owned), Kind::Input),
        (journal_file.map(Path::to_owned), Kind::Journal),
    ];
    let own = own.into_iter().filter_map(|(path, kind)| Some(Own { path: path?, kind })).collect();
    let outlets = Outlets { journal: journal.clone(), readiness: Arc::clone(readiness), stop: stop.clone() };
    let files = Arc::new(Monitor::new(outlets, own));
    if settings.config.files.is_some() {
        readiness.comparing();
    }
    let prepared = files.prepare(settings.config.files.as_ref()).map_err(Failure::Usage)?;
    files.serve(prepared).map_err(Failure::Environment)?;
    Ok(files)
}

fn gateway(
    settings: &Settings,
    surroundings: Surroundings,
    witness: &Arc<Witness>,
    own: &Arc<OwnSockets>,
) -> Result<Arc<Gateway>, Failure> {
    let resolver = Resolver::noting(&settings.config.dns, &settings.config.dns_roots, own.note())
        .map_err(|error| Failure::Environment(anyhow!("cannot resolve names: {error}; set dns.upstream in the policy")))?;
    let policy = Arc::new(Policy::new(settings.config.draft.clone(), surroundings));
    metrics::policy_in_force(&policy);
    metrics::policy_loaded();
    let observer = Arc::clone(witness) as Arc<dyn Observer>;
    let gateway = Gateway::new(instance(), policy, Box::new(resolver), settings.limits.clone(), observer);
    Ok(Arc::new(gateway.with_owners(Arc::new(ProcessTable)).closing_revoked(settings.close_revoked)))
}

/// How a command is to be held.
fn hold(settings: &Settings, found: Found) -> Result<Hold, Failure> {
    let enforce = settings.config.draft.mode_at(now()) == Mode::Enforce;
    let exec = settings.config.exec.as_deref().filter(|_| found.is_some());
    let list = exec.map(|patterns| executables::list(patterns, enforce)).transpose().map_err(Failure::Usage)?;
    Ok(Hold::new(settings.confine, found, list))
}

/// Says of every section that is written and not served that it is not; `exec` is the list that holds, `sees_flows` whether
/// flows are watched.
pub(crate) fn tell_unserved(config: &Config, exec: Option<&[String]>, sees_flows: bool, journal: &Journal) -> Vec<&'static str> {
    let mut unserved = Vec::new();
    if config.around.is_some() && !sees_flows {
        unserved.push(Unserved { section: "around", why: "flows are not watched" });
    }
    let is_bound = config.exec.is_some() || exec.is_some();
    let why = match exec {
        _ if !is_bound || config.exec.as_deref() == exec => None,
        Some(_) => Some("what may be executed is bound at the start: the former list holds until a restart"),
        None => Some("no program that could be held to it was started"),
    };
    unserved.extend(why.map(|why| Unserved { section: "exec", why }));
    for Unserved { section, why } in &unserved {
        stderr::say(format_args!("`{section}:` of the policy is not served: {why}"));
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

    fn all(&self) -> Vec<SocketAddr> {
        self.addresses.iter().copied().chain([self.admin_address]).collect()
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
    stop: Stop,
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
            policy: policy.hash().to_string(),
            why: self.stop.why(),
        })));
    }
}
