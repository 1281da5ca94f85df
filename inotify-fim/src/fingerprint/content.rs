//! The content of a regular file as a SHA-256, or why there is none. Attributes are not its business.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::means::Means;
use crate::pace::Pace;

/// Octets read at once.
pub(super) const READ: usize = 128 * 1024;

/// The hash of a file's content, or why there is none. Never the hash of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashState {
    /// SHA-256 (FIPS 180-4) of the whole content.
    Done([u8; 32]),
    /// The file is larger than the limit; nothing of it was read.
    TooLarge,
    /// It changed each time while it was read.
    Unstable,
    /// It could not be opened or read: the number of the error (errno(3)).
    Unreadable(i32),
    /// Nobody asked for its content, or it is large and is still to be read.
    NotRead,
    /// Only regular files have content.
    NotRegular,
}

impl HashState {
    /// The error behind [`HashState::Unreadable`], with its text.
    #[must_use]
    pub fn error(&self) -> Option<io::Error> {
        match self {
            Self::Unreadable(number) => Some(io::Error::from_raw_os_error(*number)),
            _ => None,
        }
    }

    /// The hash, if there is one.
    #[must_use]
    pub fn done(&self) -> Option<[u8; 32]> {
        match self {
            Self::Done(hash) => Some(*hash),
            _ => None,
        }
    }
}

/// What one thread reads with.
pub(crate) struct Reader<'a> {
    /// Made with the first file that is read.
    buffer: Vec<u8>,
    pub(crate) pace: Pace<'a>,
    pub(super) means: &'a Means,
}

/// What was read of one file.
pub(super) struct Content {
    /// The hash of all.
    pub(super) hash: [u8; 32],
    /// The hash of the beginning that was asked for.
    pub(super) beginning: Option<[u8; 32]>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(pace: Pace<'a>, means: &'a Means) -> Self {
        Self { buffer: Vec::new(), pace, means }
    }

    /// Reads a regular file that was just opened. `size` is what it should have: `None` if it has more or less. The hash of
    /// its first octets is taken on the way.
    ///
    /// [`Errno::CANCELED`] if the time for it is over.
    ///
    /// A read that ends exactly there, though there was room for more, is taken for the end: that the file did not grow
    /// meanwhile is for the caller to see.
    pub(super) fn content(&mut self, file: &OwnedFd, size: u64, beginning: Option<u64>) -> Result<Option<Content>, Errno> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; READ];
        }
        let (mut hasher, mut first, mut length) = (Sha256::new(), None, 0_u64);
        while length <= size {
            let until = match beginning {
                Some(end) if first.is_none() && length < end => end - length,
                _ => READ as u64,
            };
            if beginning == Some(length) && first.is_none() {
                first = Some(hasher.clone().finalize().into());
            }
            let room = usize::try_from(until).unwrap_or(READ).min(READ);
            let read = match rustix::io::read(file, &mut self.buffer[..room]) {
                Err(Errno::INTR) => continue,
                read => read?,
            };
            hasher.update(&self.buffer[..read]);
            length += read as u64;
            if read == 0 || (length == size && read < room) {
                break;
            }
            if read == READ {
                self.pace.rest();
                if self.means.budget.is_over() {
                    return Err(Errno::CANCELED);
                }
            }
        }
        let whole = || Content { hash: hasher.finalize().into(), beginning: first };
        Ok((length == size).then(whole))
    }
}
