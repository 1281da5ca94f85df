//! Reading one large file in slices, with other work in between.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::Statx;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::content::READ;
use super::look::{Through, same, stat, xattrs};
use super::means::Content;
use super::{Device, Fingerprint, Inode, Kind, Xattrs, kind};

/// A file that is read in slices.
#[derive(Debug)]
pub(crate) struct Partial {
    /// Opened with `O_PATH`, and for reading.
    file: OwnedFd,
    open: OwnedFd,
    before: Statx,
    inode: Inode,
    hasher: Sha256,
    read: u64,
    /// The length of the beginning whose hash is wanted, and the hash.
    beginning: Option<(u64, Option<[u8; 32]>)>,
}

/// What came of a slice.
#[derive(Debug)]
pub(crate) enum Slice {
    /// There is more.
    More,
    /// That was all.
    Done(Box<Content>),
    /// It changed meanwhile, or a moment before.
    Changed,
}

impl Partial {
    /// Begins with what was opened with `O_PATH`; `None` if that is no regular file, or was changed so short a time ago that
    /// a change from now on might not be seen.
    pub(crate) fn new(file: OwnedFd, beginning: Option<u64>) -> io::Result<Option<Self>> {
        let before = stat(file.as_fd())?;
        let inode = Fingerprint::of_stat(&before, SystemTime::now()).inode.filter(|inode| inode.changed.is_some());
        let Some(inode) = inode.filter(|_| kind(&before) == Kind::File) else { return Ok(None) };
        let open = Through::new(&file).open()?;
        let beginning = beginning.filter(|length| *length < before.stx_size).map(|length| (length, None));
        Ok(Some(Self { file, open, before, inode, hasher: Sha256::new(), read: 0, beginning }))
    }

    /// How many octets are still to be read.
    pub(crate) fn left(&self) -> u64 {
        self.before.stx_size.saturating_sub(self.read)
    }

    /// Which inode it is.
    pub(crate) fn which(&self) -> (Device, u64) {
        (self.inode.device, self.inode.number)
    }

    /// Reads on for about so long.
    pub(crate) fn read(&mut self, slice: Duration) -> Result<Slice, Errno> {
        let (start, mut buffer) = (Instant::now(), vec![0; READ]);
        loop {
            let ended = self.step(&mut buffer)?;
            if !ended && start.elapsed() < slice {
                continue;
            }
            let is_same = stat(self.file.as_fd()).is_ok_and(|now| same(&self.before, &now));
            return Ok(match (is_same, ended) {
                (false, _) => Slice::Changed,
                (true, false) => Slice::More,
                (true, true) if self.read != self.before.stx_size => Slice::Changed,
                (true, true) => Slice::Done(Box::new(self.content())),
            });
        }
    }

    /// Those extended attributes that grant something.
    pub(crate) fn xattrs(&self) -> io::Result<Xattrs> {
        xattrs(&self.open)
    }

    /// Whether that was the end.
    fn step(&mut self, buffer: &mut [u8]) -> Result<bool, Errno> {
        let mut room = buffer.len() as u64;
        if let Some((length, hash @ None)) = &mut self.beginning {
            if *length == self.read {
                *hash = Some(self.hasher.clone().finalize().into());
            } else {
                room = room.min(*length - self.read);
            }
        }
        let room = usize::try_from(room).unwrap_or(buffer.len());
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.open, &mut buffer[..room]))?;
        self.hasher.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read == 0 || self.read > self.before.stx_size)
    }

    fn content(&self) -> Content {
        let beginning = self.beginning.and_then(|(length, hash)| Some((length, hash?)));
        Content { inode: self.inode, size: self.read, hash: self.hasher.clone().finalize().into(), beginning }
    }
}
