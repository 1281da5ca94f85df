//! Who holds sockets, many at a time: `/proc` is gone through once for all inodes that are asked for, and what it said of a
//! process is kept while that process lives. A look has its price, and is not paid again before a hundred times as long, or
//! two seconds; between looks, processes that held sockets before are glanced at by the same rule.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::processes;

/// A look takes one part in so many of the time,
const SHARE: u32 = 100;
/// unless somebody would have to wait longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The most descriptors that are read of one process; limits of descriptors are mostly below.
const MOST_DESCRIPTORS: usize = 262_144;
/// The longest name of a container, in octets.
const LONGEST_NAME: usize = 200;

/// A process, as it was when it was looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// As numbered here.
    pub pid: u32,
    /// What it runs, in its own mount namespace; `None` if that may not be read. The kernel marks what is gone: ` (deleted)`.
    pub exe: Option<PathBuf>,
    /// Its effective user.
    pub uid: u32,
    /// Which container it is in, if not in ours: its control group, or its mount namespace.
    pub container: Option<String>,
    /// When it started, in ticks: numbers are given again.
    started: u64,
}

/// Why it is not known who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// It ended before anybody could look.
    Ended,
    /// No process holds it: its program has closed it, and the kernel brings it to its end, or none has accepted it yet.
    Unheld,
    /// No process that may be looked at holds it.
    NotVisible,
    /// Nobody has looked yet: looks are rare where they are dear.
    NotLooked,
}

impl Unseen {
    /// The stable text.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Unheld => "unheld",
            Self::NotVisible => "not_visible",
            Self::NotLooked => "not_looked",
        }
    }

    /// A sentence's end: "unknown, because …".
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Ended => "it ended before anybody could look",
            Self::Unheld => "no process holds it: it was closed, or is not accepted yet",
            Self::NotVisible => {
                "no process that egret may look at holds it (same user and a shared process namespace, or SYS_PTRACE)"
            }
            Self::NotLooked => "nobody has looked yet",
        }
    }
}

/// What is known of processes.
#[derive(Debug)]
pub(crate) struct Holders {
    proc: PathBuf,
    known: HashMap<u32, Arc<Process>>,
    mounts: Option<PathBuf>,
    next: Option<Instant>,
    next_glance: Option<Instant>,
}

impl Holders {
    pub(crate) fn new(proc: &Path) -> Self {
        let mounts = fs::read_link(proc.join("self/ns/mnt")).ok();
        Self { proc: proc.to_owned(), known: HashMap::new(), mounts, next: None, next_glance: None }
    }

    /// Whether another look may be had.
    pub(crate) fn may_look(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Whether another glance may be had.
    pub(crate) fn may_glance(&self, now: Instant) -> bool {
        self.next_glance.is_none_or(|next| now >= next)
    }

    /// Looks for the holders of these inodes; of several the one that held another before, else the smallest number.
    pub(crate) fn look(&mut self, inodes: impl IntoIterator<Item = u32>) -> HashMap<u32, Arc<Process>> {
        let began = Instant::now();
        let pids = processes::pids(&self.proc).unwrap_or_default();
        let (mut likely, others): (Vec<u32>, Vec<u32>) = pids.iter().partition(|pid| self.known.contains_key(pid));
        likely.extend(others);
        let found = self.search(likely, inodes);
        self.known.retain(|pid, _| pids.binary_search(pid).is_ok());
        self.next = Some(after(began));
        found
    }

    /// Looks for them among processes that held sockets before.
    pub(crate) fn glance(&mut self, inodes: impl IntoIterator<Item = u32>) -> HashMap<u32, Arc<Process>> {
        let began = Instant::now();
        let mut likely: Vec<u32> = self.known.keys().copied().collect();
        likely.sort_unstable();
        let found = self.search(likely, inodes);
        self.next_glance = Some(after(began));
        found
    }

    fn search(&mut self, pids: Vec<u32>, inodes: impl IntoIterator<Item = u32>) -> HashMap<u32, Arc<Process>> {
        let mut wanted: HashSet<u32> = inodes.into_iter().collect();
        let mut found = HashMap::new();
        for pid in pids {
            if wanted.is_empty() {
                break;
            }
            let held = self.held(pid, &wanted);
            let Some(process) = (!held.is_empty()).then(|| self.process(pid)).flatten() else { continue };
            for inode in held {
                wanted.remove(&inode);
                found.insert(inode, Arc::clone(&process));
            }
        }
        found
    }

    /// Those of the wanted sockets that this process holds.
    fn held(&self, pid: u32, wanted: &HashSet<u32>) -> Vec<u32> {
        let Ok(descriptors) = fs::read_dir(self.proc.join(pid.to_string()).join("fd")) else { return Vec::new() };
        let links = descriptors.take(MOST_DESCRIPTORS).flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let inode = |link: PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
        links.filter_map(inode).filter(|inode| wanted.contains(inode)).collect()
    }

    fn process(&mut self, pid: u32) -> Option<Arc<Process>> {
        let folder = self.proc.join(pid.to_string());
        let started = started(&folder)?;
        let exe = fs::read_link(folder.join("exe")).ok();
        if let Some(known) = self.known.get(&pid).filter(|known| known.started == started && known.exe == exe) {
            return Some(Arc::clone(known));
        }
        let uid = fs::metadata(&folder).ok()?.uid();
        let process = Arc::new(Process { pid, exe, uid, container: self.container(&folder), started });
        self.known.insert(pid, Arc::clone(&process));
        Some(process)
    }

    /// `None` for a process with our own mounts.
    fn container(&self, process: &Path) -> Option<String> {
        let mounts = fs::read_link(process.join("ns/mnt")).ok()?;
        if Some(&mounts) == self.mounts.as_ref() {
            return None;
        }
        let groups = fs::read(process.join("cgroup")).unwrap_or_default();
        let groups = String::from_utf8_lossy(&groups);
        let group = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find(|group| group.len() > 1);
        let name = group.map_or_else(|| mounts.display().to_string(), str::to_owned);
        Some(name.chars().take(LONGEST_NAME).collect())
    }
}

/// When what began then, and ended now, may be done again.
fn after(began: Instant) -> Instant {
    let now = Instant::now();
    now + ((now - began) * SHARE).min(LONGEST_PAUSE)
}

/// The twenty-second field of stat (proc_pid_stat(5)); the name before it may hold anything.
fn started(process: &Path) -> Option<u64> {
    let stat = fs::read(process.join("stat")).ok()?;
    String::from_utf8_lossy(&stat).rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests;
