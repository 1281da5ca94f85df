//! Every program that is measured: where it is, how it is told what to allow, how it is started.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::place::{Cores, files_limit};
use crate::tunnel::{Route, Way};
use crate::wire::{CACHED, HTTP_PORT, NAME, TLS_PORT};

mod catalogue;
mod running;

pub(crate) use catalogue::{ALL, CROWD};
pub(crate) use running::Running;

use catalogue::{OTHER, OURS};

/// One way of one program.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    /// Whether it serves plain HTTP.
    web: Web,
    /// In PATH, or in the place that `PEER_<NAME>` says.
    program: &'static str,
    arguments: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    /// How its list names a host.
    allow: fn(&str) -> String,
    /// Where its log goes; standard output and error go to `<name>.out`.
    log: &'static str,
    version: &'static str,
    /// Keeps answers of DNS, and is asked for a name that `/etc/hosts` does not have.
    cached: bool,
    /// Judges names: refuses what the list does not have.
    pub(crate) filters: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Web {
    No,
    /// As a forward proxy, on its only port.
    Forward,
    /// As a gate of one site, on a second port.
    Gate,
}

/// How a proxy is started.
pub(crate) struct Setting<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) cores: &'a Cores,
    /// On one processor, with one worker.
    pub(crate) pinned: bool,
    /// How many names its list has.
    pub(crate) names: usize,
    /// What egret's binary is, and another to compare it with.
    pub(crate) egret: PathBuf,
    pub(crate) other: Option<PathBuf>,
    /// Words before egret's own, as of a profiler.
    pub(crate) under: Vec<String>,
}

impl Peer {
    pub(crate) fn is_direct(&self) -> bool {
        self.way == Way::Direct
    }

    fn port(&self) -> u16 {
        3100 + ALL.iter().position(|peer| peer.name == self.name).map_or(0, |at| at as u16)
    }

    fn second_port(&self) -> u16 {
        self.port() + 100
    }

    pub(crate) fn host(&self) -> &'static str {
        if self.cached { CACHED } else { NAME }
    }

    /// Where a client goes.
    pub(crate) fn entrance(&self) -> u16 {
        if self.is_direct() { TLS_PORT } else { self.port() }
    }

    pub(crate) fn route(&self) -> Route {
        Route::new(self.way, self.entrance(), self.host())
    }

    /// The port for plain HTTP, and whether a request there names the host before its path.
    pub(crate) fn web(&self) -> Option<(u16, bool)> {
        match self.web {
            Web::No => None,
            Web::Forward if self.is_direct() => Some((HTTP_PORT, false)),
            Web::Forward => Some((self.port(), true)),
            Web::Gate => Some((self.second_port(), false)),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        [OURS, OTHER].contains(&self.program)
    }

    /// The program, if it is there.
    pub(crate) fn path(&self, setting: &Setting) -> Option<PathBuf> {
        match self.program {
            OURS => Some(setting.egret.clone()),
            OTHER => setting.other.clone(),
            program => {
                let named = std::env::var_os(format!("PEER_{}", program.to_uppercase())).map(PathBuf::from);
                let path = std::env::var_os("PATH").unwrap_or_default();
                let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
                named.into_iter().chain(folders.map(|folder| folder.join(program))).find(|path| path.is_file())
            }
        }
    }

    /// The first line of what it says of its version that has a figure in it.
    pub(crate) fn version(&self, setting: &Setting) -> String {
        let Some(path) = self.path(setting).filter(|_| !self.version.is_empty()) else { return String::new() };
        let output = Command::new(&path).arg(self.version).stdin(Stdio::null()).output();
        let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let line = said.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).unwrap_or_default();
        line.replace(&path.display().to_string(), "").trim().to_owned()
    }

    fn fill(&self, text: &str, setting: &Setting) -> String {
        let more = (1..setting.names).map(|n| format!("host{n}.bench.test"));
        let allow = [NAME.to_owned()].into_iter().chain(more).map(|name| (self.allow)(&name)).collect::<Vec<_>>();
        let threads = if setting.pinned { "1" } else { "2" };
        text.replace("@RUN@", &setting.folder.display().to_string())
            .replace("@ALLOW@", &allow.join("\n"))
            .replace("@CACHED@", CACHED)
            .replace("@THREADS@", threads)
            .replace("@TUNNELS@", &(files_limit() / 2 - 100).to_string())
            .replace("@FILES@", &files_limit().to_string())
            .replace("@PORT@", &self.port().to_string())
            .replace("@HTTP@", &self.second_port().to_string())
    }

    /// Writes its configuration.
    pub(crate) fn configure(&self, setting: &Setting) -> anyhow::Result<()> {
        for (name, template) in self.files {
            fs::write(setting.folder.join(name), self.fill(template, setting))?;
        }
        Ok(())
    }

    /// Starts it; it may not listen yet.
    pub(crate) fn spawn(&self, setting: &Setting) -> anyhow::Result<Running> {
        let path = self.path(setting).with_context(|| format!("{} is not installed", self.program))?;
        let under = if self.is_ours() { &setting.under[..] } else { &[] };
        let words = under.iter().map(Into::into).chain([path.into_os_string()]).collect::<Vec<std::ffi::OsString>>();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(self.arguments.iter().map(|argument| self.fill(argument, setting)));
        let said = fs::File::create(setting.folder.join(format!("{}.out", self.name)))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said).current_dir(setting.folder);
        let child = setting.cores.proxy(setting.pinned, || command.spawn())?.with_context(|| self.program.to_owned())?;
        Ok(Running { child: Some(child), log: setting.folder.join(self.log) })
    }

    /// Starts it with a log of its own and waits until it takes connections. `None` for the direct way.
    pub(crate) fn start(&self, setting: &Setting) -> anyhow::Result<Running> {
        if self.is_direct() {
            return Ok(Running { child: None, log: PathBuf::new() });
        }
        self.configure(setting)?;
        let _ = fs::remove_file(setting.folder.join(self.log));
        let mut running = self.spawn(setting)?;
        running.wait(self.entrance()).with_context(|| self.said(setting))?;
        Ok(running)
    }

    fn said(&self, setting: &Setting) -> String {
        let said = fs::read_to_string(setting.folder.join(format!("{}.out", self.name))).unwrap_or_default();
        let mut last = String::new();
        for line in said.lines().rev().take(2) {
            let _ = write!(last, "{line}; ");
        }
        format!("{} does not start: {last}", self.name)
    }
}
