//! Sockets as the kernel lists them, and who owns them. Two questions are answered: [`Watch`], which flows are there in this
//! network namespace, from their beginning to their end? And [`owner`], which executable holds the socket at the other end of
//! an accepted connection?
//!
//! The kernel lists the sockets of this network namespace to anybody who asks `sock_diag` (sock_diag(7)), whosever they are;
//! `/proc/net/tcp` and `/proc/net/tcp6` have some of it where netlink is refused. `/proc/PID/fd` names the inodes that a process
//! holds, and `/proc/PID/exe` what it runs. Nothing is decided here, and nothing can be: these are eyes.
//!
//! # What the answer of [`owner`] cannot tell
//!
//! It tells apart programs that mean well. It is no wall between processes of one user:
//!
//! - It is observed after the fact. A process may run another program after it connected, keeping the socket, or hand the
//!   socket to another process and let go of its own; what the connection carried until then stays with it.
//! - Whoever may run an executable may make it do much: through its arguments, `LD_PRELOAD`, a debugger. For a script the
//!   executable is the interpreter: all programs in `/usr/bin/python3` are the same here, and all applets of busybox.
//! - A process of another user is not visible without `CAP_SYS_PTRACE`, nor is one with more capabilities than this one,
//!   nor any in another process namespace: containers must share theirs. If such a process holds the socket beside a
//!   visible one, the visible one is the answer.
//! - The path is the one in the process's own mount namespace: in another container it names a file of that container's
//!   image. Processes in another user namespace are not believed at all, as they may mount what they like at any path.
//! - Of each process the main thread's descriptors are seen. Threads share them, but for those that unshare(2) theirs or
//!   outlive the main thread; and a socket on its way through a unix socket belongs to nobody.

#![forbid(unsafe_code)]

pub mod diag;
pub mod known;
pub mod netlink;
pub mod traffic;
pub mod watch;
mod holders;
mod processes;
mod table;

pub use holders::{Process, Unseen};
pub use known::{End, Flow, Known, Octets, Totals};
pub use watch::{Event, Options, Ours, Watch};

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const PROC: &str = "/proc";

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process, as numbered here; the smallest number if several processes with this executable hold it.
    pub pid: u32,
    /// What it runs: an absolute path in its own mount namespace.
    pub exe: PathBuf,
}

/// Why it is not known who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The kernel lists no such socket in this network namespace, or nobody holds it any more.
    NoSocket,
    /// No process that may be looked at holds it, or the executable of one that does cannot be read.
    NotVisible,
    /// A process in another user namespace holds it, where paths of executables can be forged.
    UserNamespace,
    /// Processes with different executables hold it; the first two that were found. A child that runs another program
    /// is enough, if the socket was not opened close-on-exec.
    Several(PathBuf, PathBuf),
    /// The executable was deleted or replaced since it was started, or never had a name.
    Deleted(PathBuf),
    /// `/proc` could not be read: what, and why.
    Procfs(String),
}

impl Unknown {
    /// A short text for records. It stays the same.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSocket => "no_socket",
            Self::NotVisible => "not_visible",
            Self::UserNamespace => "user_namespace",
            Self::Several(..) => "several",
            Self::Deleted(_) => "deleted",
            Self::Procfs(_) => "procfs",
        }
    }

    fn procfs(path: &Path, error: &io::Error) -> Self {
        Self::Procfs(format!("{}: {error}", path.display()))
    }
}

/// A sentence for people. Paths are escaped, as a process chooses the name of what it runs.
impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSocket => {
                f.write_str("this network namespace lists no socket of the client: it has closed it, or is in another namespace")
            }
            Self::NotVisible => f.write_str(
                "no process that egret may look at holds the client's socket: \
                 run egret as the app's user in a shared process namespace, or give it SYS_PTRACE",
            ),
            Self::UserNamespace => f.write_str("the client runs in another user namespace, where executables can be forged"),
            Self::Several(one, other) => write!(f, "both {one:?} and {other:?} hold the client's socket"),
            Self::Deleted(exe) => write!(f, "the client's executable {exe:?} was deleted or replaced since it was started"),
            Self::Procfs(error) => write!(f, "cannot find the client's executable: {error}"),
        }
    }
}

impl Error for Unknown {}

/// Finds who holds the socket whose own address is `client` and whose peer is `server`: the peer and local addresses of
/// the accepted socket. Every holder must run one and the same executable.
///
/// It blocks while the kernel lists its sockets and the descriptors of every process: some milliseconds at least, some
/// sixty where both are ten thousand.
///
/// # Errors
///
/// [`Unknown`] in every other case, a client that was redirected here (it knows its peer by another address) among them.
pub fn owner(client: SocketAddr, server: SocketAddr) -> Result<Owner, Unknown> {
    owner_in(Path::new(PROC), client, server)
}

/// Whether some process other than this one can be looked at here, which says nothing of the client's.
#[must_use]
pub fn others_visible() -> bool {
    processes::others_visible_in(Path::new(PROC))
}

fn owner_in(proc: &Path, client: SocketAddr, server: SocketAddr) -> Result<Owner, Unknown> {
    match look(proc, client, server) {
        // A process amid fork, exec or exit can hold what it is about to let go. A second look tells that from what lasts.
        Err(Unknown::NotVisible | Unknown::Several(..)) => look(proc, client, server),
        found => found,
    }
}

fn look(proc: &Path, client: SocketAddr, server: SocketAddr) -> Result<Owner, Unknown> {
    let inodes = match socket_of(client, server) {
        Some(inode) => vec![inode],
        None => table::sockets_in(proc, client, server)?,
    };
    if inodes.is_empty() { Err(Unknown::NoSocket) } else { processes::holder_in(proc, &inodes) }
}

/// The inode of the one socket, by a question for just that. Where the kernel does not answer, or has no answer, its tables
/// are read: it says "no such entry" also where it has no such service.
fn socket_of(own: SocketAddr, peer: SocketAddr) -> Option<u64> {
    let found = netlink::Netlink::open().and_then(|mut netlink| netlink.find(own, peer)).ok()??;
    Some(u64::from(found.inode)).filter(|inode| *inode != 0)
}

#[cfg(test)]
mod tests;
