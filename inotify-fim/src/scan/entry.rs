//! One entry of a scan: known from the earlier view, or looked at.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::root::{Root, is_kernel};
use super::walk::{Part, errno, uncover};
use super::{Options, Read};
use crate::beneath;
use crate::fingerprint::{self, ATTEMPTS, Device, Fingerprint, HashState, Kind, LeadsTo, Means, Reader, Wanted, When};
use crate::pace::{Pace, Share};
use crate::roots::{Content, Roots};
use crate::view::{Path, View};

/// A file that takes longer to read than this is slow, if it has so many octets: with less, something else was.
const SLOW: (Duration, u64) = (Duration::from_millis(10), 1 << 20);

/// What the threads of one scan have in common.
pub(super) struct Shared<'a> {
    roots: &'a Roots,
    previous: &'a View,
    read: Read,
    share: Share,
    pub(super) means: &'a Means,
    /// What links lead to: many may lead to one file.
    ends: Mutex<HashMap<(Device, u64), LeadsTo>>,
    /// Earlier files by inode, for those that stand elsewhere now. Made when the first is looked for.
    inodes: OnceLock<HashMap<(Device, u64), Arc<Fingerprint>>>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(roots: &'a Roots, previous: &'a View, options: &Options, means: &'a Means) -> Self {
        Self {
            roots,
            previous,
            read: options.read,
            share: Share::new(options.share),
            means,
            ends: Mutex::default(),
            inodes: OnceLock::new(),
        }
    }

    /// For one thread.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader::new(Pace::new(&self.share), self.means)
    }

    /// Whether one glance at this path may be enough.
    pub(super) fn may_know(&self, path: &[u8]) -> bool {
        let before = || self.previous.entries.get(path)?.inode?.changed;
        self.read != Read::All && before().is_some()
    }

    /// Looks at a name in a directory.
    pub(super) fn look(
        &self,
        root: &Root,
        directory: &OwnedFd,
        name: &OsStr,
        path: Vec<u8>,
        (part, reader): (&mut Part, &mut Reader<'_>),
    ) {
        reader.pace.lap();
        let before = self.previous.entries.get_key_value(path.as_slice());
        let wanted = self.wanted(root, before.is_none());
        let ask = self.with_beginning(wanted, root, directory, name, before.map(|(_, print)| print));
        let ask = self.vouched(ask, before.map(|(_, print)| print.as_ref()));
        let path = before.map_or_else(|| path.into(), |(path, _)| Arc::clone(path));
        match fingerprint::look(directory.as_fd(), name, ask, reader) {
            Ok(mut print) => {
                if print.kind == Kind::Symlink {
                    print.leads_to = self.end(root, directory, name, &path, None, reader).map(Box::new);
                }
                // It did not fit into what may be read now.
                let is_left = |hash| hash == HashState::NotRead && matches!(wanted, Wanted::Whole { .. });
                if is_left(print.leads_to.as_ref().map_or(print.hash, |end| end.hash)) {
                    part.unread.push(Arc::clone(&path));
                }
                print.last = before.and_then(|(_, before)| last(before, &print, is_left(print.hash)));
                let size = print.leads_to.as_ref().map_or(print.size, |end| end.size);
                part.entries.push((Arc::clone(&path), Arc::new(print)));
                let took = reader.pace.lap();
                if took > SLOW.0 && size >= SLOW.1 {
                    part.slow.push((path, took));
                }
            }
            Err(error) => uncover(part, path.to_vec(), errno(&error)),
        }
    }

    /// The earlier fingerprint of a path, if it must still be true.
    pub(super) fn known(
        &self,
        root: &Root,
        directory: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        stat: &Statx,
        reader: &mut Reader<'_>,
    ) -> Option<(Path, Arc<Fingerprint>)> {
        let (path, print) = self.previous.entries.get_key_value(path)?;
        let is_known = self.read != Read::All && print.still(stat, self.wanted(root, false));
        if !is_known || print.kind != Kind::Symlink {
            return is_known.then(|| (Arc::clone(path), Arc::clone(print)));
        }
        let end = self.end(root, directory, name, path, print.leads_to.as_deref(), reader);
        if end.as_ref() == print.leads_to.as_deref() {
            return Some((Arc::clone(path), Arc::clone(print)));
        }
        Some((Arc::clone(path), Arc::new(Fingerprint { leads_to: end.map(Box::new), ..print.as_ref().clone() })))
    }

    fn wanted(&self, root: &Root, is_new: bool) -> Wanted {
        match (root.how.content, self.read) {
            (Content::Attributes, _) => Wanted::Attributes,
            (_, Read::Nothing) => Wanted::Stat,
            _ => {
                let when = if root.how.later && is_new { When::Later } else { When::Allowed };
                Wanted::Whole { largest: root.how.largest, beginning: None, when }
            }
        }
    }

    /// At the first look, what only its content tells of is read, however much was read already.
    fn vouched(&self, ask: Wanted, before: Option<&Fingerprint>) -> Wanted {
        let before = before.filter(|before| self.means.vouched && before.hash.done().is_some());
        match (ask, before) {
            (Wanted::Whole { largest, beginning, when: When::Allowed }, Some(before)) => {
                // Of a log that grew, too, nothing else tells whether it did no more than that.
                let when = if beginning.is_some() { When::Now } else { When::OfSize(before.size) };
                Wanted::Whole { largest, beginning, when }
            }
            _ => ask,
        }
    }

    /// With the older, shorter content of a file that may only grow: that of the same path, or of the same inode.
    fn with_beginning(
        &self,
        wanted: Wanted,
        root: &Root,
        directory: &OwnedFd,
        name: &OsStr,
        before: Option<&Arc<Fingerprint>>,
    ) -> Wanted {
        let Wanted::Whole { largest, when, .. } = wanted else { return wanted };
        if root.how.content != Content::Append {
            return wanted;
        }
        let moved = || {
            let stat = fingerprint::glance(directory.as_fd(), name).ok()?;
            let inode = (Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }, stat.stx_ino);
            self.inodes.get_or_init(|| by_inode(self.previous)).get(&inode).cloned()
        };
        // A rotated log stands where another one stood: its own past is what it must begin with.
        let past = moved().or_else(|| before.cloned());
        let beginning = past.and_then(|past| Some((past.size, past.hash.done()?)));
        // Of a log that was renamed the past is known only now.
        let when = if before.is_none() && beginning.is_some() { When::Now } else { when };
        Wanted::Whole { largest, beginning, when }
    }

    /// What a link leads to: a regular file inside the same root, or anywhere if links are followed out of it. Links whose
    /// own content does not count have no end either.
    fn end(
        &self,
        root: &Root,
        directory: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        before: Option<&LeadsTo>,
        reader: &mut Reader<'_>,
    ) -> Option<LeadsTo> {
        let goes_out = root.how.follow || path == root.path;
        let wanted = match self.wanted(root, false) {
            Wanted::Attributes => return None,
            _ if root.how.content != Content::Whole => return None,
            // What is inside the root is vouched for where it stands.
            Wanted::Whole { largest, .. } if goes_out && self.is_vouched_end(path) => {
                Wanted::Whole { largest, beginning: None, when: When::Now }
            }
            wanted => wanted,
        };
        let find = || {
            let file = root
                .follow(path)
                // The root's own path is the operator's, as those of its links that are on the way to it.
                .or_else(|error| if goes_out { beneath::follow_out(directory, name) } else { Err(error) });
            file.ok().filter(|file| matches!(is_kernel(file), Ok(false)))
        };
        let file = find()?;
        let stat = fingerprint::stat(file.as_fd()).ok()?;
        if !self.is_whole(root, &file, &stat) {
            return None;
        }
        let inode = (Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }, stat.stx_ino);
        let shared = self.ends().get(&inode).copied();
        let known = [before.copied().filter(|_| self.read != Read::All), shared];
        if let Some(known) = known.into_iter().flatten().find(|known| known.still(&stat, wanted)) {
            return Some(known);
        }
        let end = read_end(file, find, wanted, reader)?;
        self.ends().insert(inode, end);
        Some(end)
    }

    /// Whether this is the first look at a link of which it is known what it led to.
    fn is_vouched_end(&self, path: &[u8]) -> bool {
        let end = || self.previous.entries.get(path)?.leads_to.as_ref()?.hash.done();
        self.means.vouched && end().is_some()
    }

    /// Whether all of a file's content counts where it stands. A link into a folder of logs must not make what is written
    /// there a change of its own.
    fn is_whole(&self, root: &Root, file: &OwnedFd, stat: &Statx) -> bool {
        let path = |file: &OwnedFd| rustix::fs::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new()).ok();
        let Some(path_now) = path(file).map(CString::into_bytes) else { return true };
        // As the kernel calls the root: the operator's path may have links in it.
        let top = root.top.as_ref().ok().and_then(path).map(CString::into_bytes);
        let inside = top.and_then(|top| Some(path_now.strip_prefix(&*top)?.to_vec()));
        let path = inside.map_or(path_now, |inside| beneath::join(&root.path, inside.strip_prefix(b"/").unwrap_or(&inside)));
        let is_whole = self.roots.of(&path).is_none_or(|(_, how)| how.content == Content::Whole);
        is_whole && self.roots.counts(&path, fingerprint::kind(stat), stat.stx_mode)
    }

    fn ends(&self) -> std::sync::MutexGuard<'_, HashMap<(Device, u64), LeadsTo>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what a link leads to, until it stays the same meanwhile.
fn read_end(first: OwnedFd, again: impl Fn() -> Option<OwnedFd>, wanted: Wanted, reader: &mut Reader<'_>) -> Option<LeadsTo> {
    let mut file = first;
    for _ in 1..ATTEMPTS {
        match attempt(&file, wanted, reader).ok()? {
            (end, true) => return end,
            (_, false) => file = again()?,
        }
    }
    let (end, steady) = attempt(&file, wanted, reader).ok()?;
    end.map(|end| LeadsTo { hash: if steady { end.hash } else { HashState::Unstable }, ..end })
}

/// Only a regular file is opened.
fn attempt(file: &OwnedFd, wanted: Wanted, reader: &mut Reader<'_>) -> io::Result<(Option<LeadsTo>, bool)> {
    if fingerprint::kind(&fingerprint::stat(file.as_fd())?) != Kind::File {
        return Ok((None, true));
    }
    let (found, steady) = fingerprint::look_at(file, wanted, reader)?;
    Ok((LeadsTo::new(&found), steady))
}

fn by_inode(view: &View) -> HashMap<(Device, u64), Arc<Fingerprint>> {
    let inode = |print: &Fingerprint| print.inode.map(|inode| (inode.device, inode.number));
    let files = view.entries.values().filter(|print| print.kind == Kind::File);
    files.filter_map(|print| Some((inode(print)?, Arc::clone(print)))).collect()
}

/// The last hash that was known, if there was one and now is none: a file that could not be read for a while must still be
/// what it was.
fn last(before: &Fingerprint, now: &Fingerprint, is_left: bool) -> Option<Box<[u8; 32]>> {
    let is_lost = is_left || matches!(now.hash, HashState::TooLarge | HashState::Unstable | HashState::Unreadable(_));
    if !is_lost {
        return None;
    }
    before.hash.done().map(Box::new).or_else(|| before.last.clone())
}

impl Root {
    /// What stands at the end of a link inside it.
    fn follow(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let top = self.top.as_ref().map_err(|error| *error)?;
        beneath::follow(&self.path, top, &path[self.path.len()..], !self.how.cross)
    }
}
