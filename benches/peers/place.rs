//! Where everything happens: a network and mounts of the bench's own, with names that lead to it, and one processor for the
//! proxy and another for both ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::origin::READY;
use crate::wire::{FOREIGN, NAME};

/// Set where the bench runs in its own network.
const INSIDE: &str = "EGRET_BENCH_NETWORK";

/// Begins again as root of a network of its own; returns within it.
pub(crate) fn enter() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let mut unshare = Command::new("unshare");
    // Root stays root, so that peers can change to users of theirs; others become root of what they enter.
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    // Whatever runs when the bench is killed ends with it.
    unshare
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1));
    Err(unshare.env(INSIDE, "1").exec()).context("no network of its own: unshare, of util-linux")
}

/// Makes the network usable: loopback, many ports, few connections that linger, names.
pub(crate) fn furnish(folder: &Path) -> anyhow::Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    for (setting, value) in [
        ("ip_local_port_range", "10000 65535"),
        // Closed connections of one peer must not slow the next one's search for a port.
        ("tcp_max_tw_buckets", "256"),
        // Nothing is lost here, so there is nothing to pace: what BBR would add is no proxy's cost.
        ("tcp_congestion_control", "reno"),
    ] {
        fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).with_context(|| setting.to_owned())?;
    }
    let hosts = format!("127.0.0.1 localhost\n127.0.0.1 {NAME} {FOREIGN}\n");
    replace(folder, "/etc/hosts", &hosts)?;
    replace(folder, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
}

/// Puts a file over another, for those within only.
fn replace(folder: &Path, path: &str, text: &str) -> anyhow::Result<()> {
    let ours = folder.join(path.rsplit('/').next().unwrap_or(path));
    fs::write(&ours, text)?;
    // Through a link, as of a resolver's own file, to what it leads to.
    let path = fs::canonicalize(path)?;
    run("mount", &["--bind", &ours.display().to_string(), &path.display().to_string()])
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| program.to_owned())?;
    ensure!(status.success(), "{program} {}: {status}", arguments.join(" "));
    Ok(())
}

/// How many descriptors a process may have: the hard limit, which the bench takes for itself and its children.
pub(crate) fn files_limit() -> usize {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20).min(1 << 20);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: Some(hard) });
    usize::try_from(hard).unwrap_or(1 << 20)
}

/// The processors that the bench may use.
pub(crate) struct Cores {
    all: CpuSet,
    /// One for the proxy, another for both ends; none if there is only one.
    apart: Option<(CpuSet, CpuSet)>,
}

impl Cores {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut each = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).map(|cpu| {
            let mut set = CpuSet::new();
            set.set(cpu);
            set
        });
        let ends = each.next();
        let apart = each.next().zip(ends);
        Ok(Self { all, apart })
    }

    /// Whether the proxy can have a processor to itself.
    pub(crate) fn can_pin(&self) -> bool {
        self.apart.is_some()
    }

    /// Puts this thread, and so what it starts, where the ends are.
    pub(crate) fn ends(&self, pinned: bool) -> anyhow::Result<()> {
        let set = self.apart.as_ref().filter(|_| pinned).map_or(&self.all, |(_, ends)| ends);
        Ok(sched_setaffinity(None, set)?)
    }

    /// Starts something where the proxy is.
    pub(crate) fn proxy<T>(&self, pinned: bool, start: impl FnOnce() -> T) -> anyhow::Result<T> {
        let before = sched_getaffinity(None)?;
        sched_setaffinity(None, self.apart.as_ref().filter(|_| pinned).map_or(&self.all, |(proxy, _)| proxy))?;
        let started = start();
        sched_setaffinity(None, &before)?;
        Ok(started)
    }
}

/// The origin's process; it ends with its standard input.
pub(crate) struct OriginProcess(Child);

impl OriginProcess {
    /// Starts it where this thread is, and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("origin").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        ensure!(line.trim() == READY, "the origin does not start");
        Ok(Self(child))
    }
}

impl Drop for OriginProcess {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
