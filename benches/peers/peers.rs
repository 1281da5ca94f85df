//! Every program that is measured: where it is, how it is told what to allow, how it is started.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cost::family;
use crate::place::{Cores, files_limit};
use crate::tunnel::{Route, Way};
use crate::wire::{CACHED, HTTP_PORT, NAME, TLS_PORT, loopback};

/// One way of one program.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    /// Serves plain HTTP as a forward proxy, on the same port; `Some` of another port if as a gate of one site.
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
    Forward,
    Gate,
}

const EGRET: &[&str] = &[
    "run",
    "--policy",
    "@RUN@/egret.yaml",
    "--listen",
    "127.0.0.1:@PORT@",
    "--admin",
    "127.0.0.1:@HTTP@",
    "--journal",
    "@RUN@/egret.log",
    "--drain",
    "0",
];
const EGRET_FILES: &[(&str, &str)] = &[("egret.yaml", include_str!("configs/egret.yaml"))];

const fn egret(name: &'static str, program: &'static str, way: Way) -> Peer {
    Peer {
        name,
        way,
        web: if matches!(way, Way::Connect) { Web::Forward } else { Web::No },
        program,
        arguments: EGRET,
        files: EGRET_FILES,
        allow: |name| {
            let rule = |port, layer| format!("    - {{ to: {name}, ports: [{port}], as: {layer}, within: [127.0.0.0/8] }}");
            if name == NAME { [rule(TLS_PORT, "tls"), rule(HTTP_PORT, "http")].join("\n") } else { rule(TLS_PORT, "tls") }
        },
        log: "egret.log",
        version: "--version",
        cached: true,
        filters: true,
    }
}

const NONE: Peer = Peer {
    name: "direct",
    way: Way::Direct,
    web: Web::Forward,
    program: "",
    arguments: &[],
    files: &[],
    allow: str::to_owned,
    log: "",
    version: "",
    cached: false,
    filters: false,
};

/// Egret as it was built for the bench, and another one to compare it with.
pub(crate) const OURS: &str = "egret";
pub(crate) const OTHER: &str = "other";

/// Those that are measured among many idle tunnels as well.
pub(crate) const CROWD: [&str; 7] = ["direct", "egret", "egret-sni", "other", "squid", "haproxy-sni", "nginx-sni"];

pub(crate) const ALL: &[Peer] = &[
    NONE,
    egret("egret", OURS, Way::Connect),
    egret("egret-socks", OURS, Way::Socks5),
    egret("egret-sni", OURS, Way::Sni),
    egret("other", OTHER, Way::Connect),
    egret("other-socks", OTHER, Way::Socks5),
    egret("other-sni", OTHER, Way::Sni),
    Peer {
        name: "squid",
        way: Way::Connect,
        program: "squid",
        arguments: &["-N", "-f", "@RUN@/squid.conf"],
        files: &[("squid.conf", include_str!("configs/squid.conf")), ("squid.names", "@ALLOW@\n")],
        log: "squid.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "squid-peek",
        way: Way::Connect,
        web: Web::No,
        program: "squid",
        arguments: &["-N", "-f", "@RUN@/squid-peek.conf"],
        files: &[("squid-peek.conf", include_str!("configs/squid-peek.conf")), ("squid.names", "@ALLOW@\n")],
        log: "squid-peek.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "tinyproxy",
        way: Way::Connect,
        program: "tinyproxy",
        arguments: &["-d", "-c", "@RUN@/tinyproxy.conf"],
        files: &[("tinyproxy.conf", include_str!("configs/tinyproxy.conf")), ("tinyproxy.names", "@ALLOW@\n")],
        allow: |name| format!("^{}$", name.replace('.', "\\.")),
        log: "tinyproxy.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "privoxy",
        way: Way::Connect,
        program: "privoxy",
        arguments: &["--no-daemon", "@RUN@/privoxy.conf"],
        files: &[
            ("privoxy.conf", include_str!("configs/privoxy.conf")),
            ("privoxy.action", include_str!("configs/privoxy.action")),
        ],
        // What it would write to its log file goes to standard error, as it is no daemon.
        log: "privoxy.out",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "3proxy",
        way: Way::Connect,
        program: "3proxy",
        arguments: &["@RUN@/3proxy.cfg"],
        files: &[("3proxy.cfg", include_str!("configs/3proxy.cfg"))],
        allow: |name| format!("allow * * {name} 443 HTTP_CONNECT,CONNECT\nallow * * {name} 80 HTTP"),
        log: "3proxy.log",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "smokescreen",
        way: Way::Connect,
        program: "smokescreen",
        arguments: &["--config-file", "@RUN@/smokescreen.yaml"],
        files: &[
            ("smokescreen.yaml", include_str!("configs/smokescreen.yaml")),
            ("smokescreen.acl.yaml", include_str!("configs/smokescreen.acl.yaml")),
        ],
        allow: |name| format!("    - {name}"),
        log: "smokescreen.out",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "envoy",
        way: Way::Connect,
        program: "envoy",
        arguments: &["-c", "@RUN@/envoy.yaml", "--concurrency", "@THREADS@", "--use-dynamic-base-id", "--disable-hot-restart"],
        files: &[("envoy.yaml", include_str!("configs/envoy.yaml"))],
        log: "envoy.log",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "g3proxy",
        way: Way::Connect,
        program: "g3proxy",
        arguments: &["-c", "@RUN@/g3proxy.yaml", "-G", "peers", "--control-dir", "@RUN@"],
        files: &[("g3proxy.yaml", include_str!("configs/g3proxy.yaml"))],
        log: "g3proxy.out",
        version: "--version",
        filters: true,
        ..NONE
    },
    Peer {
        name: "dante",
        way: Way::Socks5,
        web: Web::No,
        program: "danted",
        arguments: &["-f", "@RUN@/dante.conf"],
        files: &[("dante.conf", include_str!("configs/dante.conf"))],
        allow: |name| {
            format!(
                "socks pass {{ from: 127.0.0.0/8 to: {name} port = 443\n  protocol: tcp\n  command: connect\n  log: connect disconnect }}"
            )
        },
        log: "dante.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "microsocks",
        way: Way::Socks5,
        web: Web::No,
        program: "microsocks",
        arguments: &["-i", "127.0.0.1", "-p", "@PORT@"],
        log: "microsocks.out",
        ..NONE
    },
    Peer {
        name: "haproxy-sni",
        way: Way::Sni,
        web: Web::Gate,
        program: "haproxy",
        arguments: &["-db", "-f", "@RUN@/haproxy.cfg"],
        files: &[("haproxy.cfg", include_str!("configs/haproxy.cfg")), ("haproxy.names", "@ALLOW@\n")],
        log: "haproxy-sni.out",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "nginx-sni",
        way: Way::Sni,
        web: Web::Gate,
        program: "nginx",
        arguments: &["-c", "@RUN@/nginx.conf"],
        files: &[("nginx.conf", include_str!("configs/nginx.conf"))],
        allow: |name| format!("    {name} 127.0.0.1:443;"),
        log: "nginx.log",
        version: "-v",
        filters: true,
        ..NONE
    },
    Peer {
        name: "sniproxy",
        way: Way::Sni,
        web: Web::No,
        program: "sniproxy",
        arguments: &["-f", "-c", "@RUN@/sniproxy.conf"],
        files: &[("sniproxy.conf", include_str!("configs/sniproxy.conf"))],
        allow: |name| format!("  ^{}$ 127.0.0.1:443", name.replace('.', "\\.")),
        log: "sniproxy.log",
        version: "-V",
        filters: true,
        ..NONE
    },
];

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
        let output = Command::new(path).arg(self.version).stdin(Stdio::null()).output();
        let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        said.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).unwrap_or_default().trim().to_owned()
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

/// A proxy at work, or the lack of one; ended when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    log: PathBuf,
}

const STARTING: Duration = Duration::from_secs(10);
const ENDING: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_micros(50);

impl Running {
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until a connection is taken.
    pub(crate) fn wait(&mut self, port: u16) -> anyhow::Result<()> {
        let end = Instant::now() + STARTING;
        while std::net::TcpStream::connect(loopback(port)).is_err() {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()) {
                bail!("it ended: {}", status?);
            }
            if Instant::now() > end {
                bail!("nothing listens on {port} after {STARTING:?}");
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Ends it, and says how many lines its log has then.
    pub(crate) fn end(mut self) -> usize {
        self.stop();
        fs::read(&self.log).map_or(0, |log| log.iter().filter(|byte| **byte == b'\n').count())
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(&[child.id()], Signal::TERM);
        let end = Instant::now() + ENDING;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        if matches!(child.try_wait(), Ok(None)) {
            signal(&family(child.id()), Signal::KILL);
        }
        let _ = child.wait();
    }
}

/// To the bench's own children, which nobody else has waited for, and theirs.
fn signal(pids: &[u32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
