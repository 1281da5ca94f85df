//! The signals that egret passes on to its command. SIGTERM and SIGINT end the command as well; SIGHUP reloads the policy
//! as well (`reload.rs` hears it too); the others mean nothing to egret itself.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use super::{Handle, Termination};

/// What is passed on. SIGCHLD, SIGPIPE and the like are about the process that gets them.
const PASSED: [(Signal, &str); 9] = [
    (Signal::TERM, "SIGTERM"),
    (Signal::INT, "SIGINT"),
    (Signal::HUP, "SIGHUP"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::USR1, "SIGUSR1"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::WINCH, "SIGWINCH"),
    (Signal::CONT, "SIGCONT"),
    (Signal::TSTP, "SIGTSTP"),
];

/// Of these, what begins the end.
const ENDING: [Signal; 2] = [Signal::TERM, Signal::INT];

/// What a terminal sends to the command too, as it is in egret's group there. egret lets the command answer: a shell
/// stays at Ctrl-C.
const KEYS: [Signal; 2] = [Signal::INT, Signal::QUIT];

/// Signals that are caught from now on.
pub(super) struct Signals {
    /// Whether a terminal sends some of them.
    pub(super) terminal: bool,
    passed: Vec<(Signal, &'static str, unix::Signal)>,
    children: unix::Signal,
}

impl Signals {
    /// On a terminal SIGTSTP keeps its meaning, so that Ctrl-Z stops egret and its command together.
    pub(super) fn listen(terminal: bool) -> io::Result<Self> {
        let caught = PASSED.into_iter().filter(|(number, _)| !terminal || *number != Signal::TSTP);
        let passed = caught.map(|(number, name)| Ok((number, name, signal(SignalKind::from_raw(number.as_raw()))?)));
        Ok(Self { terminal, passed: passed.collect::<io::Result<_>>()?, children: signal(SignalKind::child())? })
    }

    /// Passes on whatever has come and will come; gives back SIGCHLD, which is the keeper's.
    pub(super) fn pass_on(self, handle: &Handle, drain: Duration) -> unix::Signal {
        for (number, name, mut caught) in self.passed {
            let (handle, key) = (handle.clone(), self.terminal && KEYS.contains(&number));
            tokio::spawn(async move {
                while caught.recv().await.is_some() {
                    match number {
                        _ if key => {}
                        _ if ENDING.contains(&number) => handle.terminate(asked(number, name, drain)).await,
                        _ => handle.pass(number).await,
                    }
                }
            });
        }
        self.children
    }
}

/// Somebody asks for the end; the exit code stays the command's.
fn asked(signal: Signal, name: &str, grace: Duration) -> Termination {
    Termination { signal, why: name.to_owned(), grace, exit: None }
}
