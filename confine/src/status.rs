//! How much of the confinement holds, layer by layer, and why not more.

use std::fmt;

use rustix::io::Errno;

use crate::exec::ExecList;
use crate::launch::Options;
use crate::probe::Probe;

/// How much of a layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing of it.
    None,
    /// Some of it; the layer says what is missing.
    Partial,
    /// All of it.
    Full,
}

/// One layer of the confinement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name, in one word.
    pub name: &'static str,
    /// How much of it holds.
    pub level: Level,
    /// What it does; or what is missing and why.
    pub why: String,
}

/// All layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In the order of their weight; the first two are what confinement needs.
    pub layers: Vec<Layer>,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::None => "none",
            Level::Partial => "partial",
            Level::Full => "full",
        })
    }
}

impl Status {
    /// What a launch would hold by what was found.
    #[must_use]
    pub fn of(probe: &Probe) -> Self {
        Status {
            layers: vec![
                connections(probe),
                sight(probe),
                datagrams(probe),
                second_wall(probe),
                scopes(probe),
                memory_pressure(probe),
                interrupts(probe),
                speed(probe),
            ],
        }
    }

    /// The same, with what is wanted beyond the confinement itself.
    #[must_use]
    pub fn with(probe: &Probe, options: &Options) -> Self {
        let mut status = Self::of(probe);
        status.layers.extend(options.exec.as_ref().map(|list| executions(probe, list)));
        status
    }

    /// Whether nothing can leave but through the egress.
    #[must_use]
    pub fn confines(&self) -> bool {
        self.layers.iter().take(2).all(|layer| layer.level != Level::None)
    }
}

fn layer(name: &'static str, level: Level, why: impl Into<String>) -> Layer {
    Layer { name, level, why: why.into() }
}

fn connections(probe: &Probe) -> Layer {
    let name = "connections";
    let refusal = probe.listener.err().or(probe.give.err());
    match (refusal, probe.killed) {
        (None, _) => layer(name, Level::Full, "every connection is made by the supervisor (seccomp user notification)"),
        (Some(_), Some(signal)) => {
            layer(name, Level::None, format!("a profile ends processes that try (signal {signal}): allow seccomp(2) in it"))
        }
        (Some(Errno::BUSY), _) => layer(name, Level::None, "the container runtime listens already; only one listener may"),
        (Some(Errno::INVAL), _) => layer(name, Level::None, "the kernel is older than 5.9, or a sandbox such as gVisor"),
        (Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS), _) => {
            layer(name, Level::None, "the container's seccomp profile refuses seccomp(2) with a listener")
        }
        (Some(errno), _) => layer(name, Level::None, format!("seccomp user notification fails: {errno}")),
    }
}

fn sight(probe: &Probe) -> Layer {
    match probe.descriptors.and(probe.memory) {
        Ok(()) => layer("sight", Level::Full, "addresses and descriptors of the app can be read"),
        Err(errno) => layer(
            "sight",
            Level::None,
            format!(
                "the app's memory or descriptors can't be read ({errno}): is /proc mounted, and Yama's ptrace_scope below 2?"
            ),
        ),
    }
}

fn datagrams(probe: &Probe) -> Layer {
    match probe.receive_only {
        Ok(()) => layer("datagrams", Level::Full, "UDP sockets of the app can't send"),
        Err(errno) => layer("datagrams", Level::Partial, format!("the app gets no UDP sockets at all ({errno})")),
    }
}

/// What differs without it.
const UNIX_IS_BORN: &str = "unix sockets, too, are connected by the supervisor, whose pid their peers see; unix \
    sockets can't be connected by paths of procfs, nor netlink sockets to anybody but the kernel";

fn second_wall(probe: &Probe) -> Layer {
    let name = "landlock-connect";
    match probe.landlock {
        Ok(4..) => layer(name, Level::Full, "a second wall: Landlock refuses binds and connects of TCP sockets by the app"),
        Ok(version) => {
            layer(name, Level::None, format!("Landlock {version} knows no connect right (Linux 6.7 does): {UNIX_IS_BORN}"))
        }
        Err(errno) => layer(name, Level::None, format!("no Landlock that works ({errno}): {UNIX_IS_BORN}")),
    }
}

fn scopes(probe: &Probe) -> Layer {
    let name = "landlock-scopes";
    match probe.landlock {
        Ok(6..) => layer(name, Level::Full, "the app can't signal the supervisor, nor reach abstract sockets of others"),
        Ok(_) | Err(_) => {
            let why = "signals to the supervisor are refused by the number of its process, group and threads, as long as no thread \
                takes the number of one that the app had (Linux 6.12 knows scopes); abstract unix sockets of others are reached";
            layer(name, Level::Partial, why)
        }
    }
}

/// A file of procfs belongs to the user of the process; root's own, and what hides itself, to root.
fn memory_pressure(probe: &Probe) -> Layer {
    let name = "memory-pressure";
    if probe.is_root {
        let why = "as root the app may have the supervisor ended first when memory runs out (oom_score_adj), and then nothing \
            connects any more: give the app a user of its own";
        return layer(name, Level::Partial, why);
    }
    layer(name, Level::Full, "the app has no say in who is ended when memory runs out")
}

fn interrupts(probe: &Probe) -> Layer {
    match probe.until_killed {
        Ok(()) => layer("interrupts", Level::Full, "only fatal signals interrupt a call that is looked at"),
        Err(_) => {
            layer("interrupts", Level::Partial, "signals interrupt calls, which are then answered from memory (Linux 5.19 waits)")
        }
    }
}

fn speed(probe: &Probe) -> Layer {
    match (probe.wake_in_step, probe.answer_with_descriptor) {
        (Ok(()), Ok(())) => layer("speed", Level::Full, "caller and supervisor take turns on one CPU"),
        _ => layer("speed", Level::Partial, "each connect takes a few tens of microseconds more (Linux 6.6 is faster)"),
    }
}

fn executions(probe: &Probe, list: &ExecList) -> Layer {
    const ENFORCED: &str = "Landlock refuses what is not on the list; loaders and interpreters that are run what they are told";
    let name = "exec";
    match (list.enforce, probe.landlock, probe.sealed_memory) {
        (false, _, _) => layer(name, Level::Partial, "executions are told and not refused; a race can fool who tells"),
        (true, Err(errno), _) => layer(name, Level::None, format!("no Landlock ({errno}): executions can only be told")),
        (true, Ok(1), _) => {
            layer(name, Level::Partial, format!("{ENFORCED}; files can't be moved between directories (Linux 5.19)"))
        }
        (true, Ok(_), Err(_)) => layer(name, Level::Partial, format!("{ENFORCED}; the app gets no files in memory (Linux 6.3)")),
        (true, Ok(_), Ok(())) => layer(name, Level::Full, ENFORCED),
    }
}

#[cfg(test)]
mod tests;
