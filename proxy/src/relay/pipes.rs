//! Pipes of the kernel, through which bytes go from socket to socket without a copy (splice(2), pipe(7)). Few are shared by
//! all bulky directions: one is lent while bytes come without a pause, and taken back empty.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use rustix::process::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{MAX_PIPES, PIPE_SIZE};

/// Pipes, of two descriptors each, take no more than this part of the descriptors that the process may have.
const PART: u64 = 16;

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// The pipes of a gateway.
#[derive(Debug)]
pub(crate) struct Pipes {
    spare: Mutex<Vec<Pipe>>,
    places: Arc<Semaphore>,
}

/// A pipe. One that is dropped before it is empty is closed, with what it held.
#[derive(Debug)]
pub(super) struct Pipe {
    reading: OwnedFd,
    writing: OwnedFd,
    held: usize,
    _place: OwnedSemaphorePermit,
}

/// What one splice from a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many octets are in the pipe.
    Octets(usize),
    /// Nothing is there now.
    Dry,
    /// Nothing will be there.
    End,
    /// Sockets cannot be spliced here.
    Unsupported,
}

impl Default for Pipes {
    fn default() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / PART;
        let most = usize::try_from(descriptors / 2).unwrap_or(usize::MAX).min(MAX_PIPES);
        Self { spare: Mutex::default(), places: Arc::new(Semaphore::new(most)) }
    }
}

impl Pipes {
    /// A pipe, unless all are in use or the system has none.
    pub(super) fn lend(&self) -> Option<Pipe> {
        let spare = self.spare().pop();
        spare.or_else(|| Pipe::new(Arc::clone(&self.places).try_acquire_owned().ok()?).ok())
    }

    /// Takes back a pipe, if it is empty.
    pub(super) fn take_back(&self, pipe: Pipe) {
        if pipe.held == 0 && !self.places.is_closed() {
            self.spare().push(pipe);
        }
    }

    /// From now on there are none.
    pub(super) fn give_up(&self) {
        self.places.close();
        self.spare().clear();
    }

    /// How many are lent.
    #[cfg(test)]
    pub(super) fn lent(&self) -> usize {
        MAX_PIPES - self.places.available_permits() - self.spare().len()
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Pipe>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipe {
    fn new(place: OwnedSemaphorePermit) -> io::Result<Self> {
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user has only so many pages in pipes (pipe(7), pipe-user-pages-soft); a smaller pipe serves too.
        let _ = fcntl_setpipe_size(&writing, PIPE_SIZE);
        Ok(Self { reading, writing, held: 0, _place: place })
    }

    /// Takes what is there now into the pipe, which must be empty.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<Filled> {
        let spliced = from.try_io(Interest::READABLE, || Ok(splice(from, None, &self.writing, None, PIPE_SIZE, FLAGS)?));
        match spliced {
            Ok(0) => Ok(Filled::End),
            Ok(count) => {
                self.held = count;
                Ok(Filled::Octets(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Dry),
            Err(error) if is_unsupported(&error) => Ok(Filled::Unsupported),
            Err(error) => Err(error),
        }
    }

    /// Writes all that is in the pipe.
    pub(super) fn poll_empty(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while self.held > 0 {
            match to.try_io(Interest::WRITABLE, || Ok(splice(&self.reading, None, to, None, self.held, FLAGS)?)) {
                Ok(count) => {
                    moved(count);
                    self.held -= count.min(self.held);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(to.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Some kernels have no splice(2) for sockets, and some profiles refuse it.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::ACCESS))
}

#[cfg(test)]
mod tests;
