//! `egret run -- CMD…`: egret as the entrypoint of a container. The command is egret's child: it finds the proxy in its
//! environment and gets the signals that egret gets; what it orphans is reaped; when it ends, egret ends with its status.
//! How it is held to the policy stands in `confinement.rs`.
//!
//! The duties are those of process 1 of a container (pid_namespaces(7), wait(2), prctl(2) PR_SET_CHILD_SUBREAPER).
//! The command gets the signal mask, and the ignored signals, that egret was started with; std sets SIGPIPE back to
//! its default, and signals that egret catches begin at theirs (execve(2)).

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use ipnet::IpNet;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cli::{Failure, Outcome};
use crate::commands::env;
use crate::confinement::exit::Exit;
use crate::confinement::{self, App, Confinement, Hold};
use crate::events::{Child, Event, shortened};
use crate::journal::Journal;
use crate::stderr;

mod signals;

use signals::Signals;

/// Orders that wait for the command's keeper; who gives more waits.
const ORDERS: usize = 16;
/// Orphans that are reaped before the keeper looks at anything else, as a process may make them without end.
const BURST: usize = 256;
/// The longest name of a command, and the longest reason, in an event, in characters.
const MAX_TEXT: usize = 200;

/// A command that is to be started, with the signals that are caught for it from now on.
pub(crate) struct Launch {
    command: Vec<OsString>,
    signals: Signals,
    /// For whatever may have to end the command. What is ordered before the start happens right after it.
    pub(crate) handle: Handle,
    orders: mpsc::Receiver<Order>,
    journal: Journal,
    told: Told,
    hold: Hold,
    /// Who is told how far the command is held.
    held: confinement::Told,
}

/// The command as `/status` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Standing {
    pid: u32,
    command: String,
    pub(crate) state: Life,
}

/// Where a command is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Life {
    Running,
    Terminating,
    Ended,
}

/// The same, for the admin port; `None` if there is no command, or not yet.
pub(crate) type Told = Arc<Mutex<Option<Standing>>>;

/// Why and how the command is to end.
#[derive(Debug)]
pub(crate) struct Termination {
    /// What asks it to.
    pub(crate) signal: Signal,
    /// For the journal.
    pub(crate) why: String,
    /// After this, SIGKILL.
    pub(crate) grace: Duration,
    /// What egret exits with; else it is the command's own status.
    pub(crate) exit: Option<u8>,
}

enum Order {
    Pass(Signal),
    Terminate(Termination),
}

/// Reaches the command from any part of egret, for as long as it runs; afterwards nothing happens.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::Sender<Order>);

impl Handle {
    /// Passes a signal on.
    async fn pass(&self, signal: Signal) {
        let _ = self.0.send(Order::Pass(signal)).await;
    }

    /// Ends the command, and egret with it. Of several the shortest grace counts, and the first exit code.
    pub(crate) async fn terminate(&self, termination: Termination) {
        let _ = self.0.send(Order::Terminate(termination)).await;
    }
}

impl Launch {
    /// Catches the signals, so that none is lost between now and the start; `None` if there is no command.
    ///
    /// # Errors
    /// Signals cannot be caught.
    pub(crate) fn prepare(
        command: &[OsString],
        hold: Hold,
        held: &confinement::Told,
        journal: &Journal,
        told: &Told,
    ) -> Result<Option<Self>, Failure> {
        if command.is_empty() {
            return Ok(None);
        }
        let signals = Signals::listen(has_terminal()).context("cannot listen for signals").map_err(Failure::Environment)?;
        let (sender, orders) = mpsc::channel(ORDERS);
        let (handle, command) = (Handle(sender), command.to_vec());
        Ok(Some(Self {
            command,
            signals,
            handle,
            orders,
            journal: journal.clone(),
            told: Arc::clone(told),
            hold,
            held: Arc::clone(held),
        }))
    }

    /// Starts the command behind the first of these listeners and stays with it to its end. `drain` is the grace after
    /// SIGTERM or SIGINT; `draining` is called when the end has begun.
    ///
    /// # Errors
    /// The command cannot be started, or ends other than with 0.
    pub(crate) async fn live(
        self,
        listen: &[SocketAddr],
        direct: &[IpNet],
        exit: Option<&Arc<Exit>>,
        drain: Duration,
        draining: impl Fn(),
    ) -> Outcome {
        self.start(&env::for_app(listen, direct), exit, drain)?.keep(draining).await
    }

    fn start(self, variables: &[(String, String)], exit: Option<&Arc<Exit>>, drain: Duration) -> Result<Keeper, Failure> {
        let Self { command, signals, handle, orders, journal, told, hold, held } = self;
        let name = shortened(&command[0].to_string_lossy(), MAX_TEXT);
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(%error, "orphans of the command go to process 1, not to egret");
        }
        let own_group = !signals.terminal;
        let make = || in_words(&command, variables, own_group);
        let (app, confinement) = hold.start(exit, make);
        tell_confinement(&journal, &held, confinement);
        let app = app?.map_err(|error| unstarted(&command[0], &name, &error))?;
        let pid = Pid::from_child(app.child());
        let children = signals.pass_on(&handle, drain);
        Ok(Keeper {
            pid,
            _app: app,
            name,
            own_group,
            orders,
            children,
            journal,
            told,
            terminating: false,
            deadline: None,
            exit: None,
        })
    }
}

/// Nothing is said on stderr of what holds in full.
fn tell_confinement(journal: &Journal, told: &confinement::Told, confinement: Confinement) {
    if confinement.state != "full" {
        // In one write: the app may be writing, too.
        stderr::say(confinement.summary().trim_end());
    }
    confinement::tell(told, &confinement);
    journal.write(Event::Confinement(Box::new(confinement)));
}

/// Whether egret has a controlling terminal, which sends the signals of its keys to the whole group of processes.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// The command. With a group of its own, a signal for egret's group reaches it once, passed on. On a terminal it
/// stays in egret's, because a second group could not read from there.
fn in_words(words: &[OsString], variables: &[(String, String)], own_group: bool) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).envs(variables.iter().map(|(name, value)| (name, value)));
    if own_group {
        command.process_group(0);
    }
    command
}

/// What shells say: 127 if there is no such command, 126 if there is one that cannot be executed. That egret cannot have
/// another process is neither.
fn unstarted(command: &OsString, name: &str, error: &std::io::Error) -> Failure {
    let path = Path::new(command);
    let looked_for = !command.as_encoded_bytes().contains(&b'/');
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) if looked_for => Failure::Unstarted(127, anyhow!("there is no command `{name}` in PATH")),
        Some(Errno::NOENT) if path.exists() => {
            Failure::Unstarted(127, anyhow!("`{name}` cannot be started: its interpreter or loader does not exist"))
        }
        Some(Errno::NOENT) => Failure::Unstarted(127, anyhow!("there is no command `{name}`")),
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
            Failure::Environment(anyhow!("`{name}` cannot be started: {error}"))
        }
        _ => Failure::Unstarted(126, anyhow!("`{name}` cannot be executed: {error}")),
    }
}

/// Keeps the command from its start to its end. It alone reaps and signals, so that a process that is signalled has not
/// been reaped, and its number is still its own.
struct Keeper {
    pid: Pid,
    /// Waited for by the keeper itself, as every other child.
    _app: App,
    name: String,
    own_group: bool,
    orders: mpsc::Receiver<Order>,
    children: tokio::signal::unix::Signal,
    journal: Journal,
    told: Told,
    terminating: bool,
    /// When the grace is over.
    deadline: Option<Instant>,
    exit: Option<u8>,
}

/// What a look at the children found.
enum Reaped {
    /// The command ended.
    Ended(WaitStatus),
    /// Nobody else has ended.
    Nobody,
    /// There may be more of them.
    Burst,
}

impl Keeper {
    async fn keep(mut self, draining: impl Fn()) -> Outcome {
        self.stand(Life::Running);
        self.tell(Child { phase: "child_started", ..self.child() });
        let status = loop {
            let reaped = self.reap();
            if let Reaped::Ended(status) = reaped {
                break status;
            }
            tokio::select! {
                Some(()) = self.children.recv() => {}
                () = tokio::task::yield_now(), if matches!(reaped, Reaped::Burst) => {}
                Some(order) = self.orders.recv() => self.obey(order, &draining),
                () = reached(self.deadline) => self.kill(),
            }
        };
        self.stand(Life::Ended);
        self.tell(Child {
            phase: "child_exited",
            status: status.exit_status(),
            signal: status.terminating_signal(),
            ..self.child()
        });
        match self.exit.unwrap_or_else(|| exit_code(status)) {
            0 => Ok(()),
            code => Err(Failure::Passed(code)),
        }
    }

    /// Reaps whoever has ended; the command's own status is kept.
    fn reap(&self) -> Reaped {
        for _ in 0..BURST {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => return Reaped::Ended(status),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Reaped::Nobody,
            }
        }
        Reaped::Burst
    }

    fn obey(&mut self, order: Order, draining: &impl Fn()) {
        match order {
            Order::Pass(signal) => self.signal(signal),
            Order::Terminate(termination) => self.terminate(termination, draining),
        }
    }

    fn terminate(&mut self, termination: Termination, draining: &impl Fn()) {
        let Termination { signal, why, grace, exit } = termination;
        if !std::mem::replace(&mut self.terminating, true) {
            self.stand(Life::Terminating);
            draining();
        }
        self.deadline = self.deadline.into_iter().chain(Instant::now().checked_add(grace)).min();
        self.exit = self.exit.or(exit);
        self.tell(Child {
            phase: "child_terminating",
            why: Some(shortened(&why, MAX_TEXT)),
            grace_ms: Some(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
            ..self.child()
        });
        self.signal(signal);
        // A stopped process would not notice before the grace is over.
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::kill_process(self.pid, signal) {
            tracing::warn!(%error, ?signal, "the command cannot be signalled");
        }
    }

    /// The grace is over, for the command and what it has in its group.
    fn kill(&mut self) {
        self.deadline = None;
        self.tell(Child { phase: "child_killed", ..self.child() });
        if self.own_group {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
        self.signal(Signal::KILL);
    }

    fn child(&self) -> Child {
        Child { pid: self.pid.as_raw_pid().unsigned_abs(), command: self.name.clone(), ..Child::default() }
    }

    fn tell(&self, child: Child) {
        self.journal.write(Event::Child(Box::new(child)));
    }

    fn stand(&self, state: Life) {
        let Child { pid, command, .. } = self.child();
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Standing { pid, command, state });
    }
}

/// Waits for this moment; for ever without one.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The status as shells tell it: a signal is 128 and its number.
fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
