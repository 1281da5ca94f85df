//! All content is read again, as a full comparison does: a slice at a time between looks, so that no event waits for it,
//! however much there is. Only what statx(2) says to be unchanged is read: what it tells of is found without that.

use std::collections::HashMap;
use std::ops::Bound;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;

use super::later::{self, SLICE};
use super::marks::{Mark, Marks};
use crate::fingerprint::{self, Content, Device, Fingerprint, Inode, Partial, Slice};
use crate::roots::Roots;
use crate::view::{Path, View};

/// Files of up to so many octets are read before any larger one: whoever makes large files keeps no small one waiting.
const SIZES: [u64; 3] = [1 << 20, 64 << 20, u64::MAX];

/// One reading of all content.
pub(super) struct Round {
    /// When it began.
    pub(super) start: Instant,
    pub(super) began: SystemTime,
    /// How many differences were found.
    pub(super) found: usize,
    /// Octets of the files that were begun, of about so many.
    octets: u64,
    pub(super) of: u64,
    /// Which of [`SIZES`] is read, and the last path of it.
    size: usize,
    after: Option<Path>,
    reading: Option<(Path, Partial)>,
    /// What was read that has more than one name, or a link to it.
    shared: HashMap<(Device, u64), [u8; 32]>,
}

/// What is known of a content: of which inode it is, and its size and hash.
type Known = (Inode, u64, [u8; 32]);

impl Round {
    /// After a look at everything that began then and found so much.
    pub(super) fn new(view: &View, (start, began): (Instant, SystemTime), found: usize) -> Self {
        let of = view.entries.values().filter_map(|print| known(print)).map(|(_, size, _)| size).fold(0, u64::saturating_add);
        let (size, after, reading, shared) = (0, None, None, HashMap::new());
        Self { start, began, found, octets: 0, of, size, after, reading, shared }
    }

    /// How many octets were read, or need not be.
    pub(super) fn octets(&self) -> u64 {
        let left = self.reading.as_ref().map_or(0, |(_, partial)| partial.left());
        self.octets.saturating_sub(left)
    }

    /// Whether there is nothing left to read.
    pub(super) fn has_ended(&self) -> bool {
        self.size == SIZES.len()
    }

    /// Reads on for one slice. Gives what is to be looked at; what was read of it goes to `learn`.
    pub(super) fn read(&mut self, roots: &Roots, view: &View, mut learn: impl FnMut(Content)) -> Marks {
        let (start, mut marks) = (Instant::now(), Marks::default());
        while start.elapsed() < SLICE && !self.has_ended() {
            if let Some(path) = self.step(roots, view, &mut learn) {
                marks.add(path.to_vec(), Mark { written: true, reread: true, ..Mark::default() });
            }
        }
        marks
    }

    /// Reads a part of one file. Gives its path if it is to be looked at.
    fn step(&mut self, roots: &Roots, view: &View, learn: &mut impl FnMut(Content)) -> Option<Path> {
        let Some((path, mut partial)) = self.reading.take() else { return self.begin(roots, view) };
        match partial.read(SLICE) {
            Ok(Slice::More) => {
                self.reading = Some((path, partial));
                None
            }
            Ok(Slice::Done(content)) => self.judge(path, &partial, *content, view, learn),
            // That it was written is told by an event, or found by the next comparison.
            Ok(Slice::Changed) => None,
            Err(_) => Some(path),
        }
    }

    fn judge(
        &mut self,
        path: Path,
        partial: &Partial,
        content: Content,
        view: &View,
        learn: &mut impl FnMut(Content),
    ) -> Option<Path> {
        let print = view.entries.get(&path)?;
        let (inode, size, hash) = known(print)?;
        // It was looked at meanwhile.
        if (inode, size) != (content.inode, content.size) {
            return None;
        }
        if is_shared(print) {
            self.shared.insert((inode.device, inode.number), content.hash);
        }
        let grants_else = || print.leads_to.is_none() && partial.xattrs().is_ok_and(|xattrs| xattrs != print.xattrs);
        let differs = content.hash != hash || grants_else();
        differs.then(|| {
            learn(content);
            path
        })
    }

    /// Opens the next file. Gives its path if that is enough to know that it is to be looked at.
    fn begin(&mut self, roots: &Roots, view: &View) -> Option<Path> {
        let Some((path, print, (inode, size, hash))) = self.next(view) else {
            (self.size, self.after) = (self.size + 1, None);
            return None;
        };
        self.after = Some(Arc::clone(path));
        self.octets = self.octets.saturating_add(size);
        if let Some(read) = self.shared.get(&(inode.device, inode.number)) {
            return (*read != hash).then(|| Arc::clone(path));
        }
        match later::open(roots, path).map_err(std::io::Error::from).and_then(|file| {
            let stat = fingerprint::stat(file.as_fd())?;
            if is_still(print, &stat) { Partial::new(file, None) } else { Ok(None) }
        }) {
            Ok(partial) => {
                self.reading = partial.map(|partial| (Arc::clone(path), partial));
                None
            }
            Err(error) => (Errno::from_io_error(&error) != Some(Errno::NOENT)).then(|| Arc::clone(path)),
        }
    }

    /// The next content of this size.
    fn next<'a>(&self, view: &'a View) -> Option<(&'a Path, &'a Fingerprint, Known)> {
        let least = self.size.checked_sub(1).map_or(0, |below| SIZES[below] + 1);
        let sizes = least..=*SIZES.get(self.size)?;
        let from = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = view.entries.range::<Path, _>((from, Bound::Unbounded));
        let mut known = rest.filter_map(|(path, print)| Some((path, &**print, known(print)?)));
        known.find(|(.., (_, size, _))| sizes.contains(size))
    }
}

/// The content that a path has, or leads to, as far as statx(2) can tell that it is the same.
fn known(print: &Fingerprint) -> Option<Known> {
    let (inode, size, hash) = match &print.leads_to {
        Some(end) => (end.inode, end.size, end.hash),
        None => (print.inode, print.size, print.hash),
    };
    Some((inode.filter(|inode| inode.changed.is_some())?, size, hash.done()?))
}

/// Whether other paths may have the same content.
fn is_shared(print: &Fingerprint) -> bool {
    print.leads_to.is_some() || print.inode.is_some_and(|inode| inode.links > 1)
}

fn is_still(print: &Fingerprint, stat: &rustix::fs::Statx) -> bool {
    let now = Fingerprint::long_after(stat);
    known(print).is_some_and(|(inode, size, _)| (Some(inode), size) == (now.inode, now.size))
}
