//! Taking events: which paths they mark. What is there is not looked at, but what only an event in time can tell.

use std::os::fd::AsFd;
use std::time::SystemTime;

use super::{HALVES, Reconciler};
use crate::fingerprint::{self, Kind};
use crate::raw::mask;
use crate::watch::armed::Walked;
use crate::watch::event::{Cause, Event};
use crate::watch::marks::Mark;
use crate::watch::reader::Note;
use crate::{beneath, canary, scan};

/// The first half of a move.
pub(super) struct Half {
    path: Vec<u8>,
    /// What is moved had come since the last look.
    is_new: bool,
}

impl Reconciler {
    /// Takes one record from the kernel. Directories that came are watched at once.
    pub(in crate::watch) fn take(&mut self, note: &Note, tell: &mut dyn FnMut(Event)) {
        if note.mask & mask::Q_OVERFLOW != 0 {
            return self.lost(Cause::Kernel, tell);
        }
        self.last_note = SystemTime::now();
        let paths = self.armed.paths(note.watch);
        for path in paths {
            self.mark_ways(&path, note);
            match &note.name {
                Some(name) => self.take_name(beneath::join(&path, name), note, tell),
                None if self.armed.is_file(&path) => {
                    let written = note.mask & (mask::MODIFY | mask::CLOSE_WRITE) != 0;
                    self.mark(path, Mark { seen: true, written, ..Mark::default() });
                }
                None => {
                    // What could not be seen may be seen now.
                    let whole = note.mask != mask::ATTRIB | mask::ISDIR || self.coverage.has(&path);
                    self.mark(path, Mark { whole, arm: true, seen: true, ..Mark::default() });
                }
            }
        }
        if note.mask & (mask::IGNORED | mask::UNMOUNT) != 0 {
            self.armed.ended(note.watch);
            // That is why the kernel does not list it.
            if let Some((doubted, _)) = &mut self.doubted {
                doubted.remove(&note.watch);
            }
        }
    }

    /// What is looked up on the way to a root came, went or was written, or the directory that it is looked up in went.
    fn mark_ways(&mut self, directory: &[u8], note: &Note) {
        let own = mask::MOVE_SELF | mask::DELETE_SELF | mask::IGNORED | mask::UNMOUNT;
        if note.name.is_none() && note.mask & own == 0 {
            return;
        }
        let written = note.mask & (mask::MODIFY | mask::CLOSE_WRITE) != 0;
        for root in self.ways.roots(directory, note.name.as_deref()) {
            self.mark(root, Mark { seen: true, written, ..Mark::ALL });
        }
    }

    fn take_name(&mut self, path: Vec<u8>, note: &Note, tell: &mut dyn FnMut(Event)) {
        if !self.roots.reaches(&path) {
            return;
        }
        if path.len() > scan::LONGEST {
            // The directory is told to have more than is looked at.
            let parent = beneath::split(&path).map(|(parent, _)| parent.to_vec());
            return parent.into_iter().for_each(|parent| self.mark(parent, Mark { whole: true, seen: true, ..Mark::default() }));
        }
        let has = |bits| note.mask & bits != 0;
        let is_directory = has(mask::ISDIR);
        // What came and went in our own name, and in no other, is nothing to tell.
        if is_directory && self.proofs.saw(&path, note.mask, tell) {
            return self.mark(path, Mark { seen: true, ..Mark::default() });
        }
        self.noted = true;
        let comes = has(mask::CREATE | mask::MOVED_TO);
        // What could not be seen may be seen now; a root may be of another type.
        let arm = self.roots.begins_at(&path) || self.coverage.has(&path);
        let whole = arm || (is_directory && (comes || has(mask::MOVED_FROM)));
        let written = has(mask::MODIFY | mask::CLOSE_WRITE);
        let is_new = has(mask::CREATE) || (has(mask::MOVED_TO) && self.moved_from(note.cookie));
        let runs = !is_directory && has(mask::CREATE | mask::MOVED_TO | mask::ATTRIB) && self.runs(&path);
        let mark = self.dirty.at(path.clone());
        mark.proof &= has(mask::DELETE);
        (mark.whole, mark.arm, mark.seen) = (mark.whole | whole, mark.arm | arm, true);
        (mark.written, mark.file, mark.runs) = (mark.written | written, mark.file | !is_directory, mark.runs | runs);
        if comes {
            mark.comes(is_new);
        } else if has(mask::DELETE) {
            mark.goes();
        } else if has(mask::MOVED_FROM) {
            let half = Half { is_new: std::mem::take(&mut mark.came), path };
            if self.halves.len() < HALVES {
                self.halves.insert(note.cookie, half);
            }
            return;
        }
        if is_directory && comes {
            self.arm_new(path, is_new);
        }
    }

    /// Watches a directory that came at once, but once only until the next look: who moves a large tree to and fro must not
    /// keep this from looking.
    fn arm_new(&mut self, path: Vec<u8>, is_new: bool) {
        let mark = self.dirty.at(path.clone());
        if std::mem::replace(&mut mark.armed, true) || self.eager == 0 {
            mark.arm = true;
            return;
        }
        let is_first = is_new && !mark.vanished;
        let (walked, failed) = self.armed.arm_some(&self.roots, &path, true, &mut self.eager);
        self.fail(failed);
        let is_proof = is_first && canary::is_one(&path) && self.armed.is_unused(&self.roots, &path);
        let mark = self.dirty.at(path);
        mark.arm |= walked == Walked::Part;
        mark.proof = is_proof;
    }

    /// Joins the second half of a move to its first. Whether what was moved is new: it came from where nothing is watched,
    /// or had only just come there.
    fn moved_from(&mut self, cookie: u32) -> bool {
        self.halves.remove(&cookie).is_none_or(|half| half.is_new)
    }

    /// What had only just come and was moved to where nobody watches is gone.
    pub(super) fn forget_halves(&mut self) {
        for half in std::mem::take(&mut self.halves).into_values().filter(|half| half.is_new) {
            let mark = self.dirty.at(half.path);
            mark.came = true;
            mark.goes();
        }
    }

    /// Whether what stands at a path where most is left out can be executed. Elsewhere nobody needs to know.
    fn runs(&self, path: &[u8]) -> bool {
        let Some((root, how)) = self.roots.of(path) else { return false };
        if !how.leaves_out(how.excludes(path), Kind::File, 0) {
            return false;
        }
        let stat = beneath::point_at(root, path).ok().and_then(|file| fingerprint::stat(file.as_fd()).ok());
        stat.is_some_and(|stat| fingerprint::kind(&stat) == Kind::File && !how.leaves_out(true, Kind::File, stat.stx_mode))
    }
}
