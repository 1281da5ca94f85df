//! The content of a regular file as a SHA-256, or why there is none. Attributes are not its business.

use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// Octets read at once.
const READ: u64 = 128 * 1024;

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
    /// Nobody asked for its content.
    NotRead,
    /// Only regular files have content.
    NotRegular,
}

/// Reads the regular file that `through` leads to, a path into `/proc/self/fd`. `size` is what it should have: if there is
/// more, reading ends.
pub(super) fn hash(through: &str, size: u64, largest: u64) -> HashState {
    if size > largest {
        return HashState::TooLarge;
    }
    match read(through, size) {
        Ok(Some(hash)) => HashState::Done(hash),
        Ok(None) => HashState::Unstable,
        Err(error) => HashState::Unreadable(error.raw_os_error()),
    }
}

/// `None` if the length is not `size`.
fn read(through: &str, size: u64) -> Result<Option<[u8; 32]>, Errno> {
    // Not blocking: whoever holds a lease on the file (fcntl(2)) could make an open wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(through, flags, Mode::empty())?;
    let mut buffer = vec![0; usize::try_from(size.saturating_add(1).min(READ)).unwrap_or(4096)];
    let (mut hasher, mut length) = (Sha256::new(), 0_u64);
    while length <= size {
        match rustix::io::read(&file, buffer.as_mut_slice()) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((length == size).then(|| hasher.finalize().into()))
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
}
