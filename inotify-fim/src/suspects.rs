//! Who may have written a file: the processes that have it open for writing, by `/proc` (proc_pid_fd(5)). Nothing is
//! claimed that was not seen, and what could not be seen is counted.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::Errno;

use crate::fingerprint::Device;

/// A process that had a file open for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its number.
    pub pid: u32,
    /// What it runs, as its own mount namespace calls it; `None` if that cannot be read.
    pub exe: Option<PathBuf>,
    /// The user it acts as.
    pub uid: u32,
    /// How sure it is that it was this one.
    pub certainty: Certainty,
}

/// How sure it is that a process wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// All processes of this PID namespace were looked into, and it alone had the file open for writing.
    Sole,
    /// It alone of those that could be looked into.
    SoleVisible,
    /// Others had it open for writing too.
    OneOfSeveral,
}

/// A file, whatever it is called.
pub(crate) type File = (Device, u64);

/// So many threads of a process are looked into, beside its first one.
const THREADS: usize = 64;

/// Octets of a list of processes or descriptors that are read at once.
const LISTING: usize = 16 * 1024;

/// What one walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Who has which file open for writing. Their certainty is not decided yet.
    pub(crate) writers: HashMap<File, Vec<Suspect>>,
    /// How many processes could not be looked into.
    pub(crate) hidden: usize,
}

/// Looks into every process but this one. It ends after `longest`; those that are left count as not looked into.
pub(crate) fn walk(files: &HashSet<File>, longest: Duration) -> Walk {
    let start = Instant::now();
    let mut walk = Walk::default();
    let Ok(proc) = open(rustix::fs::CWD, "/proc".as_ref()) else {
        walk.hidden = 1;
        return walk;
    };
    let (processes, mut open_to_us) = (numbers(&proc), Vec::new());
    for (at, pid) in processes.iter().enumerate().filter(|(_, pid)| **pid != std::process::id()) {
        if start.elapsed() > longest {
            walk.hidden += processes.len() - at;
            break;
        }
        match process(&proc, (*pid, *pid), files, &mut walk.writers) {
            // It has ended: whatever it had open is closed.
            Ok(()) => open_to_us.push(*pid),
            Err(Errno::NOENT | Errno::SRCH) => {}
            Err(_) => walk.hidden += 1,
        }
    }
    // A thread may have a table of descriptors of its own (unshare(2) with CLONE_FILES).
    for (at, pid) in open_to_us.iter().enumerate() {
        if start.elapsed() > longest {
            walk.hidden += open_to_us.len() - at;
            break;
        }
        if threads(&proc, *pid, files, &mut walk.writers).is_err_and(|error| !matches!(error, Errno::NOENT | Errno::SRCH)) {
            walk.hidden += 1;
        }
    }
    walk
}

/// Adds what the threads of a process have open beside its first one.
fn threads(proc: &OwnedFd, pid: u32, files: &HashSet<File>, found: &mut HashMap<File, Vec<Suspect>>) -> Result<(), Errno> {
    let tasks = open(proc, format!("{pid}/task").as_ref())?;
    let others = numbers(&tasks).into_iter().filter(|task| *task != pid);
    others.take(THREADS + 1).enumerate().try_for_each(|(at, task)| {
        // What is left is not looked into, and said to be so.
        if at == THREADS { Err(Errno::TOOBIG) } else { process(&tasks, (pid, task), files, found) }
    })
}

/// Adds what one process has open, or one thread of it, which has the second number.
fn process(
    list: &OwnedFd,
    (pid, task): (u32, u32),
    files: &HashSet<File>,
    found: &mut HashMap<File, Vec<Suspect>>,
) -> Result<(), Errno> {
    // All that follows is of the process that has this number now, or fails.
    let process = open(list, task.to_string().as_ref())?;
    let descriptors = open(&process, "fd".as_ref())?;
    let writes = |number: &u32| {
        let file = stat(&descriptors, &number.to_string())?;
        (files.contains(&file) && is_for_writing(&process, *number)).then_some(file)
    };
    let open: HashSet<File> = numbers(&descriptors).iter().filter_map(writes).collect();
    if open.is_empty() {
        return Ok(());
    }
    let exe = rustix::fs::readlinkat(&process, "exe", Vec::new()).ok();
    let exe = exe.map(|exe| PathBuf::from(OsStr::from_bytes(exe.as_bytes())));
    let uid = read(&process, "status").and_then(|status| acting_user(&status)).ok_or(Errno::SRCH)?;
    for file in open {
        let suspect = Suspect { pid, exe: exe.clone(), uid, certainty: Certainty::SoleVisible };
        let suspects = found.entry(file).or_default();
        if suspects.iter().all(|other| other.pid != pid) {
            suspects.push(suspect);
        }
    }
    Ok(())
}

fn open(at: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The names in a directory that are numbers.
fn numbers(directory: &OwnedFd) -> Vec<u32> {
    let (mut buffer, mut found) = ([MaybeUninit::uninit(); LISTING], Vec::new());
    let mut list = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = list.next() {
        found.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    found
}

/// Which file a descriptor is of. What is no regular file is none that is looked for.
fn stat(descriptors: &OwnedFd, name: &str) -> Option<File> {
    let stat = rustix::fs::statx(descriptors, name, AtFlags::NO_AUTOMOUNT, StatxFlags::INO).ok()?;
    Some((Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }, stat.stx_ino))
}

/// `flags:` of fdinfo, octal, has the access mode in its two lowest bits: 1 is writing, 2 both.
fn is_for_writing(process: &OwnedFd, number: u32) -> bool {
    let mode = |text: String| {
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u64::from_str_radix(flags.trim(), 8).ok().map(|flags| flags & 3)
    };
    read(process, &format!("fdinfo/{number}")).and_then(mode).is_some_and(|mode| mode == 1 || mode == 2)
}

/// The effective user: the second number.
fn acting_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// The beginning of a file of a process, which is small and plain.
fn read(process: &OwnedFd, name: &str) -> Option<String> {
    let file = rustix::fs::openat(process, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0; 4096];
    let length = rustix::io::read(&file, &mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[cfg(test)]
pub(crate) mod tests;
