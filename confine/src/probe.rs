//! What the kernel, and the profile that a container runs under, allow: tried, not concluded from versions.
//!
//! It is tried in a throw-away child. A profile may end whoever makes a call that it does not like, and what restricts a
//! process can't be taken back.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags};
use rustix::process::DumpableBehavior;

use crate::address::Family;
use crate::bpf;
use crate::caller::Caller;
use crate::domain;
use crate::rules::{Action, Rule};
use crate::supervisor::birth;
use crate::sys::{self, Listening, Place};

/// What was found. An error is the reason why something is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// A filter with a listener.
    pub listener: Result<(), Errno>,
    /// Calls that are looked at are interrupted by fatal signals only (Linux 5.19).
    pub until_killed: Result<(), Errno>,
    /// Caller and supervisor wake one another on one CPU (Linux 6.6).
    pub wake_in_step: Result<(), Errno>,
    /// Descriptors can be given (Linux 5.9).
    pub give: Result<(), Errno>,
    /// And are an answer at the same time (Linux 5.14).
    pub answer_with_descriptor: Result<(), Errno>,
    /// Descriptors of a child can be looked at.
    pub descriptors: Result<(), Errno>,
    /// Memory of a child can be read.
    pub memory: Result<(), Errno>,
    /// The version of Landlock's interface, if a domain could be entered and held.
    pub landlock: Result<u32, Errno>,
    /// Datagram sockets that can only receive.
    pub receive_only: Result<(), Errno>,
    /// Files in memory that can't be executed (Linux 6.3).
    pub sealed_memory: Result<(), Errno>,
    /// Whether this process is root. So is the app then, at first.
    pub is_root: bool,
    /// The signal that ended the child before it was done.
    pub killed: Option<i32>,
}

/// What was not tried, since the child did not get that far.
const NOT_TRIED: Errno = Errno::CANCELED;

/// Tries everything. It takes a few milliseconds, and wants to be done before other threads are many.
///
/// # Errors
/// No child could be made.
pub fn probe() -> Result<Probe, Errno> {
    let (written, killed) = sys::in_child(|report| {
        // Without a reader there is nobody to tell.
        let _ = try_all(report);
    })?;
    Ok(read_report(&String::from_utf8_lossy(&written), killed))
}

/// Each line is a name and an errno, or a version below zero. They are written one by one: a child that is killed has said how
/// far it got.
fn try_all(report: &mut impl Write) -> std::io::Result<()> {
    let mut tell = |name: &str, found: Result<(), Errno>| {
        writeln!(report, "{name} {}", found.err().map_or(0, Errno::raw_os_error)).and_then(|()| report.flush())
    };
    // A child of a process that hides its memory would hide its own.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    tell("receive_only", try_receive_only())?;
    let (descriptors, memory) = sys::beside_a_child(|| {}, |child| (try_descriptors(child), try_memory(child)))
        .unwrap_or_else(|errno| (Err(errno), Err(errno)));
    tell("descriptors", descriptors)?;
    tell("memory", memory)?;
    try_notifications(&mut tell)?;
    match try_landlock() {
        Ok(version) => writeln!(report, "landlock -{version}")?,
        Err(errno) => writeln!(report, "landlock {}", errno.raw_os_error())?,
    }
    let sealed = rustix::fs::memfd_create("probe", MemfdFlags::NOEXEC_SEAL | MemfdFlags::CLOEXEC);
    writeln!(report, "sealed_memory {}", sealed.err().map_or(0, Errno::raw_os_error))
}

fn try_receive_only() -> Result<(), Errno> {
    let socket = birth::receive_only(Family::V4, SocketFlags::empty())?;
    let somebody = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    match rustix::net::sendto(&socket, b"", SendFlags::NOSIGNAL | SendFlags::DONTWAIT, &somebody) {
        Err(Errno::PIPE) => Ok(()),
        Err(errno) => Err(errno),
        // It sent: such sockets confine nobody.
        Ok(_) => Err(Errno::NOTSUP),
    }
}

fn try_descriptors(child: u32) -> Result<(), Errno> {
    // Any descriptor will do: what matters is whether one may look.
    match (Caller { tid: child }).socket(0) {
        Ok(_) | Err(Errno::NOTSOCK | Errno::BADF) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn try_memory(child: u32) -> Result<(), Errno> {
    static THERE: [u8; 8] = *b"is read.";
    let mut read = [0; 8];
    // A fork has everything where its parent has it.
    (Caller { tid: child }).read(THERE.as_ptr() as u64, &mut read)?;
    if read == THERE { Ok(()) } else { Err(Errno::FAULT) }
}

fn try_notifications(tell: &mut impl FnMut(&str, Result<(), Errno>) -> std::io::Result<()>) -> std::io::Result<()> {
    if !sys::notifications_fit().is_ok_and(|fit| fit) {
        return tell("listener", Err(Errno::OVERFLOW));
    }
    let until_killed = listen(Listening::UntilKilled);
    let how = until_killed.as_ref().map(drop).map_err(|errno| *errno);
    match until_killed.or_else(|_| listen(Listening::Yes)) {
        Ok(listener) => {
            tell("until_killed", how)?;
            tell("listener", Ok(()))?;
            tell("wake_in_step", sys::wake_in_step(listener.as_fd()))?;
            // The child inherits the filter; this process has it, too, and makes no such call.
            let served = sys::beside_a_child(sys::listen_on_nothing, |_| serve_once(&listener, tell));
            served.unwrap_or_else(|errno| tell("give", Err(errno)))
        }
        Err(errno) => tell("listener", Err(errno)),
    }
}

/// A filter that asks about one call that matters to nobody.
fn listen(listening: Listening) -> Result<OwnedFd, Errno> {
    rustix::thread::set_no_new_privs(true)?;
    let call = u32::try_from(libc::SYS_listen).map_err(|_| Errno::NOSYS)?;
    let rule = Rule { call, when: Vec::new(), then: Action::Ask, why: "to try it" };
    sys::install(&bpf::compile(&[rule]), listening)?.ok_or(Errno::BADF)
}

/// Answers the child's one call.
fn serve_once(listener: &OwnedFd, tell: &mut impl FnMut(&str, Result<(), Errno>) -> std::io::Result<()>) -> std::io::Result<()> {
    let Ok(call) = sys::receive(listener.as_fd()) else { return Ok(()) };
    let at_once = sys::give(listener.as_fd(), call.id, listener.as_fd(), Place::FreeAndAnswer, true).map(drop);
    tell("answer_with_descriptor", at_once)?;
    let given = at_once.or_else(|_| sys::give(listener.as_fd(), call.id, listener.as_fd(), Place::Free, true).map(drop));
    tell("give", given)?;
    if at_once.is_err() {
        let _ = sys::answer(listener.as_fd(), call.id, Ok(0));
    }
    Ok(())
}

/// The version, if a domain of all that it knows can be entered and does what it says.
fn try_landlock() -> Result<u32, Errno> {
    let version = sys::landlock_version()?;
    let Some(domain) = domain::prepare(version, None).map_err(|_| Errno::OPNOTSUPP)? else { return Ok(version) };
    rustix::thread::set_no_new_privs(true)?;
    let entered = sys::enter_domain(domain.as_raw_fd(), version >= domain::QUIET);
    entered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let socket = birth::tcp(Family::V4, SocketFlags::NONBLOCK)?;
    let local = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    match (rustix::net::bind(&socket, &local(0)), rustix::net::connect(&socket, &local(9))) {
        (Err(Errno::ACCESS), Err(Errno::ACCESS)) => Ok(version),
        // It keeps nobody from anything.
        _ => Err(Errno::NOTSUP),
    }
}

fn read_report(report: &str, killed: Option<i32>) -> Probe {
    let number =
        |name: &str| -> Option<i32> { report.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()) };
    let found = |name: &str| match number(name) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(NOT_TRIED),
    };
    let landlock = match number("landlock") {
        Some(version) if version < 0 => Ok(version.unsigned_abs()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(NOT_TRIED),
    };
    Probe {
        listener: found("listener"),
        until_killed: found("until_killed"),
        wake_in_step: found("wake_in_step"),
        give: found("give"),
        answer_with_descriptor: found("answer_with_descriptor"),
        descriptors: found("descriptors"),
        memory: found("memory"),
        landlock,
        receive_only: found("receive_only"),
        sealed_memory: found("sealed_memory"),
        is_root: rustix::process::geteuid().is_root(),
        killed,
    }
}

#[cfg(test)]
mod tests;
