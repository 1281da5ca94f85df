//! Starts a command so that it is confined from its first instruction.
//!
//! One thread of this process restricts itself, starts the command, and does nothing else: what restricts a thread is
//! inherited by its children, and the listener of its filter is a descriptor that all threads of this process share. So no
//! descriptor is handed over, little of ours runs in the child, and the threads that answer are not restricted.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use rustix::io::Errno;
use rustix::net::AddressFamily;
use rustix::process::DumpableBehavior;

use crate::bpf;
use crate::domain;
use crate::egress::Egress;
use crate::exec::{self, ExecError, ExecList, Execution, Listed};
use crate::limits;
use crate::names::Names;
use crate::privileges;
use crate::probe::Probe;
use crate::rules::{self, Guarded, Setting};
use crate::status::Status;
use crate::supervisor::execution::Watch;
use crate::supervisor::{self, Abilities, Shared};
use crate::sys::{self, Listening, Seclusion};

/// What is wanted beyond the confinement itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The app can't make new namespaces. It costs some programs their own sandboxes.
    pub no_namespaces: bool,
    /// What may be executed; without a list, everything, and nothing of it is told.
    pub exec: Option<ExecList>,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum LaunchError {
    /// This kernel, or the container's profile, does not allow it; the status says what and why.
    CannotConfine(Status),
    /// A standard stream is a socket that leads out, and the command would inherit it.
    OpenDoor {
        /// Its number.
        stream: i32,
    },
    /// A thread could not restrict itself.
    Restrict {
        /// By what.
        step: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// Landlock said yes when it was asked and no when it was used.
    Landlock(landlock::RulesetError),
    /// The list of what may be executed can't be used, or does not have the command.
    Exec(ExecError),
    /// No thread could be started.
    Thread(io::Error),
    /// The command itself could not be started.
    Command(io::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::CannotConfine(status) => {
                let missing = status.layers.iter().take(2).find(|layer| layer.level == crate::Level::None);
                write!(f, "the app can't be confined here: {}", missing.map_or("", |layer| layer.why.as_str()))
            }
            LaunchError::OpenDoor { stream } => {
                write!(f, "descriptor {stream} is a network socket, which the app would inherit: redirect it")
            }
            LaunchError::Restrict { step, errno } => write!(f, "the app can't be confined: {step}: {errno}"),
            LaunchError::Landlock(error) => write!(f, "the app can't be confined: Landlock: {error}"),
            LaunchError::Exec(error) => write!(f, "the app can't be started: {error}"),
            LaunchError::Thread(error) => write!(f, "no thread to confine the app: {error}"),
            LaunchError::Command(error) => write!(f, "the app can't be started: {error}"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LaunchError::Landlock(error) => Some(error),
            LaunchError::Exec(error) => Some(error),
            LaunchError::Thread(error) | LaunchError::Command(error) => Some(error),
            _ => None,
        }
    }
}

/// A confined command. Dropping it ends nobody; processes that outlive it can't connect any more.
#[derive(Debug)]
pub struct Confined {
    /// The command, to be waited for.
    pub child: Child,
    shared: Arc<Shared>,
    /// Has the launcher say goodbye this many times, and end.
    goodbyes: Sender<usize>,
}

/// What was done so far, and is held now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Calls that were asked about.
    pub asked: u64,
    /// Those that were answered with an error.
    pub refused: u64,
    /// Sockets that had to be replaced, as they were not held any more.
    pub replaced: u64,
    /// Bugs of ours that were answered with a refusal.
    pub panics: u64,
    /// Sockets that are held now.
    pub held: usize,
    /// Connects that wait for a decision now.
    pub pending: usize,
}

impl Confined {
    /// What was done so far.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let counts = &self.shared.counts;
        Activity {
            asked: counts.asked.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            replaced: counts.replaced.load(Ordering::Relaxed),
            panics: counts.panics.load(Ordering::Relaxed),
            held: self.shared.sockets.count() + self.shared.unix.count(),
            pending: self.shared.pending.load(Ordering::Relaxed),
        }
    }

    /// Has the threads of this confinement end. Those that hang stay; whoever ends the process need not wait for any. Processes
    /// that are left over find every call that is asked about failing with NOSYS once the last thread has ended.
    pub fn finish(self) {
        finish(&self.shared, &self.goodbyes);
    }
}

fn finish(shared: &Shared, goodbyes: &Sender<usize>) {
    shared.stop();
    let _ = goodbyes.send(shared.handlers.load(Ordering::Relaxed));
}

/// Starts `command` confined. Until it is waited for, somebody must keep the returned value.
///
/// Unless the command has a process group of its own already (`Command::process_group`), it gets one: signals to the group of
/// this process are not the app's to send.
///
/// From here on this process does not show its memory and descriptors to others (`PR_SET_DUMPABLE` of prctl(2)).
///
/// # Errors
/// Nothing was started: see [`LaunchError`].
pub fn launch(
    mut command: Command,
    options: Options,
    probe: &Probe,
    egress: impl Egress,
    names: impl Names,
) -> Result<Confined, LaunchError> {
    let status = Status::of(probe);
    if !status.confines() {
        return Err(LaunchError::CannotConfine(status));
    }
    refuse_open_doors()?;
    let watch = options.exec.as_ref().map(|list| watch(list, &command, probe)).transpose().map_err(LaunchError::Exec)?;
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    hidden.map_err(|errno| LaunchError::Restrict { step: "hiding the supervisor's memory", errno })?;
    let limits = limits::raise();
    let landlock = probe.landlock.unwrap_or(0);
    let domain = prepare_domain(landlock, watch.as_ref())?;
    // Landlock scopes keep signals away whatever the group; a terminal wants the app to stay in its own.
    let (quiet, own_group) = (landlock >= domain::QUIET, landlock < domain::SCOPES);
    sys::seclude(&mut command, Seclusion { domain, quiet, own_group, limits });

    let restriction = Restriction::new(&options, probe);
    let program = PathBuf::from(command.get_program());
    let resolved = exec::find(&command).and_then(|found| std::fs::canonicalize(found).ok());
    let (listening, listener) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let (started, child) = mpsc::channel();
    let (goodbyes, number_of_goodbyes) = mpsc::channel();
    let launcher = move || {
        let restricted = restriction.apply();
        let is_restricted = restricted.is_ok();
        if listening.send(restricted).is_err() || !is_restricted || begun.recv().is_err() {
            return;
        }
        let _ = started.send(command.spawn());
        // The thread stays as long as its child: what is bound to the end of a parent is bound to the end of this thread.
        for _ in 0..number_of_goodbyes.recv().unwrap_or(0) {
            sys::listen_on_nothing();
        }
    };
    thread::Builder::new().name("confine-launch".into()).spawn(launcher).map_err(LaunchError::Thread)?;
    let nothing = || LaunchError::Restrict { step: "its thread", errno: Errno::CANCELED };
    let (listener, abilities, tid) = listener.recv().unwrap_or_else(|_| Err(nothing()))?;
    let shared = Shared::new(listener, Box::new(egress), Box::new(names), watch, abilities);
    let shared = Arc::new(shared.map_err(|errno| LaunchError::Restrict { step: "its sockets", errno })?);
    supervisor::start(&shared).map_err(LaunchError::Thread)?;
    shared.stop_at_calls_of(tid);
    let _ = begin.send(());
    match child.recv().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
        Ok(child) => {
            tell_of_the_command(&shared, child.id(), program, resolved);
            Ok(Confined { child, shared, goodbyes })
        }
        Err(error) => {
            finish(&shared, &goodbyes);
            Err(LaunchError::Command(error))
        }
    }
}

/// What executions are held against.
fn watch(list: &ExecList, command: &Command, probe: &Probe) -> Result<Watch, ExecError> {
    let listed = Listed::new(list)?;
    if list.enforce {
        let version = probe.landlock.map_err(ExecError::NoLandlock)?;
        if version < domain::EXECUTE {
            return Err(ExecError::NoLandlock(Errno::NOSYS));
        }
        listed.check(command)?;
    }
    Ok(Watch { listed, enforce: list.enforce, seals: probe.sealed_memory.is_ok(), started: AtomicBool::new(false) })
}

fn prepare_domain(landlock: u32, watch: Option<&Watch>) -> Result<Option<OwnedFd>, LaunchError> {
    let executable = watch.filter(|watch| watch.enforce).map(|watch| watch.listed.executables()).transpose();
    domain::prepare(landlock, executable.map_err(LaunchError::Exec)?.as_deref()).map_err(LaunchError::Landlock)
}

/// The first execution is that of a copy of this process, which can't be looked at; so what is known of it is told here.
fn tell_of_the_command(shared: &Shared, pid: u32, program: PathBuf, resolved: Option<PathBuf>) {
    let Some(watch) = &shared.watch else { return };
    watch.started.store(true, Ordering::Release);
    let listed = resolved.as_deref().is_some_and(|resolved| watch.listed.has(resolved));
    if !watch.enforce {
        shared.egress.executes(Execution { pid, path: Some(program), resolved, listed });
    }
}

/// What restricts the launching thread.
struct Restriction {
    setting: Setting,
    listening: Listening,
    abilities: Abilities,
    wakes_in_step: bool,
}

/// The listener, what the supervisor can do, and the number of the thread that is restricted.
type Restricted = (OwnedFd, Abilities, u32);

impl Restriction {
    fn new(options: &Options, probe: &Probe) -> Self {
        let landlock = probe.landlock.unwrap_or(0);
        let has_scopes = landlock >= domain::SCOPES;
        Restriction {
            setting: Setting {
                guarded: (!has_scopes).then(guarded),
                no_namespaces: options.no_namespaces,
                unix_is_born: landlock < domain::CONNECT,
                executions_are_told: options.exec.is_some(),
                memory_is_sealed: options.exec.as_ref().is_some_and(|list| list.enforce),
            },
            wakes_in_step: probe.wake_in_step.is_ok(),
            listening: if probe.until_killed.is_ok() { Listening::UntilKilled } else { Listening::Yes },
            abilities: Abilities {
                answer_with_descriptor: probe.answer_with_descriptor.is_ok(),
                own_connects_fail: landlock >= domain::CONNECT,
                receive_only: probe.receive_only.is_ok(),
                waits_until_killed: probe.until_killed.is_ok(),
            },
        }
    }

    fn apply(self) -> Result<Restricted, LaunchError> {
        let failed = |step| move |errno| LaunchError::Restrict { step, errno };
        privileges::drop_dangerous().map_err(failed("dropping capabilities"))?;
        rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
        let program = bpf::compile(&rules::rules(&self.setting));
        let listener = sys::install(&program, self.listening).map_err(failed("the seccomp filter"))?;
        let listener = listener.ok_or(LaunchError::Restrict { step: "the seccomp filter", errno: Errno::BADF })?;
        if self.wakes_in_step {
            // Without it, it is only slower.
            let _ = sys::wake_in_step(listener.as_fd());
        }
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        Ok((listener, self.abilities, tid))
    }
}

fn guarded() -> Guarded {
    let pid = std::process::id();
    // A group of another namespace can't be named here.
    let group = Some(sys::process_group().unsigned_abs()).filter(|group| *group != 0).unwrap_or(pid);
    Guarded { pid, group }
}

/// The command inherits the standard streams. Pipes, terminals, files and unix sockets are what they are for.
fn refuse_open_doors() -> Result<(), LaunchError> {
    for stream in 0..3 {
        let Some(descriptor) = sys::standard_stream(stream) else { continue };
        let family = rustix::net::sockopt::socket_domain(descriptor);
        if family.is_ok_and(|family| family != AddressFamily::UNIX) {
            return Err(LaunchError::OpenDoor { stream });
        }
    }
    Ok(())
}
