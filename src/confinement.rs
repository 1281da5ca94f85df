//! How far the app that egret starts is held to what its policy allows: what was asked for, what this machine can do, and
//! what became of it, said in the same words on stderr, in the journal, in `/status` and by `egret doctor`.

pub(crate) mod exit;
pub(crate) mod executables;
pub(crate) mod lately;
pub(crate) mod reach;

use std::fmt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use clap::ValueEnum;
use egret_confine::{Confined, Errno, ExecError, ExecList, LaunchError, Level, Options, Probe, Status};
use serde::Serialize;

use self::exit::Exit;
use crate::cli::Failure;

/// What shells exit with where a command can't be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The layer that there is only with a list.
const EXEC: &str = "exec";
const OFF: &str = "confinement is off: programs that ignore the proxy variables are not held";

/// Whether the app is to be confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confine {
    /// Where this machine can; it is said loudly where it cannot
    #[default]
    Auto,
    /// Or nothing is started
    Require,
    /// No: programs that ignore the proxy variables are not held
    Off,
}

/// How far the app is held.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Confinement {
    /// What was asked for.
    pub(crate) confine: Confine,
    /// `full`, `partial` or `none`.
    pub(crate) state: &'static str,
    /// In a sentence, where it is not full.
    pub(crate) why: String,
    /// Layer by layer; empty where nothing was tried.
    pub(crate) layers: Vec<Layer>,
}

/// One layer of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) level: String,
    pub(crate) why: String,
}

/// The same, for whoever asks later; `None` before there is an app.
pub(crate) type Told = Arc<Mutex<Option<Confinement>>>;

/// What was found before anything was started; `None` where nothing is to be confined.
pub(crate) type Found = Option<Result<Probe, String>>;

/// How an app is to be held.
pub(crate) struct Hold {
    confine: Confine,
    found: Found,
    options: Options,
}

/// Tries what this machine can do. It wants to be done before there are other threads.
pub(crate) fn find(confine: Confine) -> Found {
    (confine != Confine::Off).then(|| egret_confine::probe().map_err(|errno| format!("no process to try it in: {errno}")))
}

impl fmt::Display for Confine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Require => "require",
            Self::Off => "off",
        })
    }
}

impl Hold {
    /// By what was asked for and found, and with a list of what may be executed.
    pub(crate) fn new(confine: Confine, found: Found, exec: Option<ExecList>) -> Self {
        Self { confine, found, options: Options { exec, ..Options::default() } }
    }

    /// What a launch would hold.
    pub(crate) fn confinement(&self) -> Confinement {
        match &self.found {
            None => Confinement::none(self.confine, OFF, Vec::new()),
            Some(Err(why)) => Confinement::none(self.confine, why, Vec::new()),
            Some(Ok(probe)) => Confinement::by(self.confine, &Status::with(probe, &self.options)),
        }
    }

    /// Whether there is a list of what may be executed which can't be enforced as it is to be.
    fn lacks_list(&self, probe: &Probe) -> bool {
        let is_missing = |layer: &egret_confine::Layer| layer.name == EXEC && layer.level == Level::None;
        Status::with(probe, &self.options).layers.iter().any(is_missing)
    }

    /// What is wanted, as far as it can be done: a list that can't be enforced is reported by.
    fn possible(&self, probe: &Probe) -> Options {
        let mut options = self.options.clone();
        if let Some(list) = &mut options.exec {
            list.enforce &= !self.lacks_list(probe);
        }
        options
    }

    /// Starts the app, confined if it is to be and can be; `exit` is its way out, which there is unless confinement is off. `make`
    /// gives the command anew each time. How far it is held is told in any case: where confinement is required and cannot be had, it
    /// is a failure of the environment; else only the command's own start can fail.
    pub(crate) fn start(
        &self,
        exit: Option<&Arc<Exit>>,
        make: impl Fn() -> Command,
    ) -> (Result<std::io::Result<App>, Failure>, Confinement) {
        let mut confinement = self.confinement();
        let is_required = self.confine == Confine::Require;
        let probe = self.found.as_ref().and_then(|found| found.as_ref().ok()).filter(|_| confinement.holds());
        let probe = probe.filter(|probe| !is_required || !self.lacks_list(probe));
        if let (Some(probe), Some(exit)) = (probe, exit) {
            match egret_confine::launch(make(), self.possible(probe), probe, Arc::clone(exit), Arc::clone(exit)) {
                Ok(confined) => return (Ok(Ok(App::Confined(confined))), confinement),
                Err(LaunchError::Command(error)) => return (Ok(Err(error)), confinement),
                Err(LaunchError::Exec(ExecError::NotFound(_))) => return (Ok(Err(Errno::NOENT.into())), confinement),
                Err(LaunchError::Exec(error)) => {
                    return (Err(Failure::Unstarted(NOT_EXECUTABLE, anyhow!("{error}"))), confinement);
                }
                Err(error) => confinement = Confinement::none(self.confine, &error.to_string(), confinement.layers),
            }
        }
        if is_required {
            let why = anyhow!("nothing is started, as confinement is required; --confine auto goes on without");
            return (Err(Failure::Environment(why)), confinement);
        }
        (Ok(make().spawn().map(App::Free)), confinement)
    }
}

impl Confinement {
    fn by(confine: Confine, status: &Status) -> Self {
        let layers: Vec<Layer> = status.layers.iter().map(Layer::from).collect();
        let missing: Vec<&str> =
            status.layers.iter().filter(|layer| layer.level != Level::Full).map(|layer| layer.why.as_str()).collect();
        match (status.confines(), missing.is_empty()) {
            (false, _) => Self::none(confine, missing.first().copied().unwrap_or_default(), layers),
            (true, true) => Self { confine, state: "full", why: String::new(), layers },
            (true, false) => Self { confine, state: "partial", why: missing.join("; "), layers },
        }
    }

    fn none(confine: Confine, why: &str, layers: Vec<Layer>) -> Self {
        Self { confine, state: "none", why: why.to_owned(), layers }
    }

    /// Whether nothing of the app's can leave but through egret.
    pub(crate) fn holds(&self) -> bool {
        self.state != "none"
    }

    /// In one line what is missing, or layer by layer why nothing holds.
    pub(crate) fn summary(&self) -> String {
        if self.holds() { format!("confinement is {}: {}\n", self.state, self.why) } else { self.text() }
    }

    /// For people, layer by layer.
    pub(crate) fn text(&self) -> String {
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        let head = format!("confinement is {}{}\n", self.state, if self.layers.is_empty() { why } else { String::new() });
        let width = self.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0);
        let rows = self.layers.iter().map(|layer| format!("  {:width$}  {:7}  {}\n", layer.name, layer.level, layer.why));
        rows.fold(head, |text, row| text + &row)
    }
}

impl From<&egret_confine::Layer> for Layer {
    fn from(layer: &egret_confine::Layer) -> Self {
        Self { name: layer.name, level: layer.level.to_string(), why: layer.why.clone() }
    }
}

/// The app, which runs.
pub(crate) enum App {
    Confined(Confined),
    Free(Child),
}

impl App {
    pub(crate) fn child(&self) -> &Child {
        match self {
            Self::Confined(confined) => &confined.child,
            Self::Free(child) => child,
        }
    }
}

/// Tells whoever asks later.
pub(crate) fn tell(told: &Told, confinement: &Confinement) {
    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(confinement.clone());
}
