//! From events to what changed. An event only says where to look: what is there is compared with what was there before, so
//! that an event that was merged, late or misleading does no harm. No thread and no waiting is here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use super::armed::Armed;
use super::links;
use super::reader::Note;
use super::{Cause, Event, Source};
use crate::beneath;
use crate::fingerprint::{Device, Fingerprint, Kind};
use crate::raw::mask;
use crate::roots::{Roots, ancestors};
use crate::scan::{self, Place, Scan, Uncovered};
use crate::view::{Path, View, below};

pub(super) struct Reconciler {
    roots: Roots,
    options: scan::Options,
    armed: Armed,
    /// What was there when it was last looked.
    pub(super) view: View,
    uncovered: BTreeMap<Vec<u8>, Uncovered>,
    dirty: BTreeMap<Vec<u8>, Mark>,
    /// Directories that came and could not be watched.
    failed: Vec<(Vec<u8>, Uncovered)>,
    /// Where an entry went from, by the cookie of its move, until its other half is read.
    halves: HashMap<u32, Vec<u8>>,
    gap: Option<(Cause, SystemTime)>,
    source: Source,
    last_note: SystemTime,
}

/// Why a path must be looked at.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// With all below it.
    whole: bool,
    /// Its directories may not be watched yet.
    arm: bool,
    /// Something was made there.
    came: bool,
    /// It went to another name that is watched, which is where it is told.
    went: bool,
}

impl Reconciler {
    /// Nothing is watched before the first [`Self::compare_all`] and [`Self::reconcile`].
    pub(super) fn new(roots: Roots, baseline: View, options: scan::Options, inotify: Arc<OwnedFd>) -> Self {
        Self {
            roots,
            options,
            armed: Armed::new(inotify),
            view: baseline,
            uncovered: BTreeMap::new(),
            dirty: BTreeMap::new(),
            failed: Vec::new(),
            halves: HashMap::new(),
            gap: None,
            source: Source::Event,
            last_note: SystemTime::now(),
        }
    }

    /// Whether anything is to be looked at.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes one record from the kernel. Directories that came are watched at once.
    pub(super) fn take(&mut self, note: &Note, tell: &mut dyn FnMut(Event)) {
        if note.mask & mask::Q_OVERFLOW != 0 {
            return self.lost(Cause::Kernel, tell);
        }
        self.last_note = SystemTime::now();
        let paths = self.armed.paths(note.watch);
        if note.mask & (mask::IGNORED | mask::UNMOUNT) != 0 {
            self.armed.ended(note.watch);
        }
        for path in paths {
            match &note.name {
                Some(name) => self.take_name(beneath::join(&path, name), note),
                None => self.mark(path, Mark { whole: note.mask != mask::ATTRIB | mask::ISDIR, arm: true, ..Mark::default() }),
            }
        }
    }

    fn take_name(&mut self, path: Vec<u8>, note: &Note) {
        if self.roots.of(&path).is_none() {
            return;
        }
        let has = |bits| note.mask & bits != 0;
        let (made, entered) = (has(mask::CREATE), has(mask::MOVED_TO));
        // What could not be seen may be seen now; a root may be of another type.
        let arm = self.roots.begins_at(&path) || self.uncovered.contains_key(&path);
        let whole = arm || (has(mask::ISDIR) && (made || entered || has(mask::MOVED_FROM)));
        let mut mark = Mark { whole, arm, came: made, went: false };
        if has(mask::ISDIR) && (made || entered) {
            let failed = self.armed.arm(&self.roots, &path);
            self.failed.extend(failed);
        }
        if has(mask::MOVED_FROM) {
            self.halves.insert(note.cookie, path.clone());
        } else if entered {
            mark.came = self.moved_from(note.cookie);
        }
        self.mark(path, mark);
    }

    /// Joins the second half of a move to its first. Whether what was moved is new: it came from where nothing is watched,
    /// or had only just come there.
    fn moved_from(&mut self, cookie: u32) -> bool {
        let first = self.halves.remove(&cookie).and_then(|from| self.dirty.get_mut(&from));
        first.is_none_or(|mark| {
            mark.went = true;
            mark.came
        })
    }

    /// Events were lost: all is compared anew.
    pub(super) fn lost(&mut self, cause: Cause, tell: &mut dyn FnMut(Event)) {
        if self.gap.is_none() {
            self.gap = Some((cause, self.last_note));
            tell(Event::GapOpened { cause, start: self.last_note });
        }
        self.compare_all(Source::Repair);
    }

    /// Has everything looked at by the next [`Self::reconcile`].
    pub(super) fn compare_all(&mut self, source: Source) {
        self.source = source;
        self.halves.clear();
        for (root, _) in self.roots.clone().iter() {
            self.mark(root.to_vec(), Mark { whole: true, arm: true, ..Mark::default() });
        }
    }

    fn mark(&mut self, path: Vec<u8>, mark: Mark) {
        if self.roots.of(&path).is_none() {
            return;
        }
        let known = self.dirty.entry(path).or_default();
        known.whole |= mark.whole;
        known.arm |= mark.arm;
        known.came |= mark.came;
        known.went |= mark.went;
    }

    /// Looks at all that is marked, tells what changed, and takes that for what is there now.
    pub(super) fn reconcile(&mut self, tell: &mut dyn FnMut(Event)) {
        self.mark_roots_inside();
        let dirty = std::mem::take(&mut self.dirty);
        let source = std::mem::replace(&mut self.source, Source::Event);
        let gap = self.gap.take();
        self.halves.clear();
        let places = self.places(&dirty);
        self.arm(&places, &dirty);
        let mut scan = scan::run(&self.roots, places.iter().cloned(), &self.view, &self.options);
        scan.uncovered.extend(self.failed.drain(..));
        let mut old = View::default();
        for place in &places {
            old.entries.append(&mut self.take_old(place, &scan.view));
        }
        self.same_inodes(&mut old, &mut scan);
        let links = links::affected(&self.view, &old, &scan.view);
        self.also(&links, &mut old, &mut scan);
        scan.carry(&old);
        let excluded = |path: &[u8]| self.roots.of(path).is_some_and(|(_, how)| how.excludes(path));
        let came = dirty.iter().filter(|(path, mark)| mark.came && !mark.went && is_nowhere(path, &old, &scan.view));
        for (path, _) in came.filter(|(path, _)| !excluded(path)) {
            tell(Event::Transient { path: path.clone() });
        }
        let found = self.roots.differences(&old, &scan.view);
        let count = found.len();
        found.into_iter().for_each(|difference| tell(Event::Changed { difference: Box::new(difference), source }));
        self.view.entries.append(&mut scan.view.entries);
        for place in &places {
            let view = &self.view;
            let is_directory = |path: &[u8]| view.entries.get(path).is_some_and(|print| print.kind == Kind::Directory);
            self.armed.keep(&place.path, is_directory);
            self.cover(place, &scan.uncovered, tell);
        }
        if source != Source::Event {
            tell(Event::Compared { source, entries: self.view.entries.len(), watched: self.armed.len(), found: count });
        }
        if let Some((cause, start)) = gap {
            tell(Event::GapClosed { cause, start, end: SystemTime::now(), found: count });
        }
    }

    /// What is to be looked at: the marked paths but for those below another that is looked at as a whole.
    fn places(&self, dirty: &BTreeMap<Vec<u8>, Mark>) -> Vec<Place> {
        let whole: BTreeSet<&[u8]> = dirty.iter().filter(|(_, mark)| mark.whole).map(|(path, _)| path.as_slice()).collect();
        let is_inside = |path: &[u8]| {
            let root = self.roots.of(path).map_or(0, |(root, _)| root.len());
            ancestors(path).skip(1).take_while(|above| above.len() >= root).any(|above| whole.contains(above))
        };
        let outer = dirty.iter().filter(|(path, _)| !is_inside(path));
        outer.map(|(path, mark)| Place { path: path.clone(), whole: mark.whole }).collect()
    }

    /// A root below something that is looked at may be another one now.
    fn mark_roots_inside(&mut self) {
        let inside: Vec<Vec<u8>> = self.dirty.keys().flat_map(|path| self.roots.inside(path)).map(<[u8]>::to_vec).collect();
        for root in inside {
            self.mark(root, Mark { whole: true, arm: true, ..Mark::default() });
        }
    }

    /// Watches what may not be watched yet; of a root its parent too, where its own coming and going is told.
    fn arm(&mut self, places: &[Place], dirty: &BTreeMap<Vec<u8>, Mark>) {
        for Place { path, .. } in places.iter().filter(|place| dirty.get(&place.path).is_some_and(|mark| mark.arm)) {
            if let Some((parent, _)) = beneath::split(path).filter(|_| self.roots.begins_at(path)) {
                // A root whose parent cannot be watched is still compared on schedule.
                let _ = self.armed.arm_parent(parent, path);
            }
            let failed = self.armed.arm(&self.roots, path);
            self.failed.extend(failed);
        }
    }

    /// What was there, out of the view. If it is no directory now, all that was below it is gone too.
    fn take_old(&mut self, place: &Place, now: &View) -> BTreeMap<Path, Arc<Fingerprint>> {
        let is_directory = now.entries.get(place.path.as_slice()).is_some_and(|print| print.kind == Kind::Directory);
        if place.whole || !is_directory {
            return self.view.take_tree(&place.path).entries;
        }
        self.view.entries.remove_entry(place.path.as_slice()).into_iter().collect()
    }

    /// An event names one of a file's names. The others changed with it.
    fn same_inodes(&mut self, old: &mut View, scan: &mut Scan) {
        let several = |view: &View| view.entries.values().filter_map(|print| linked(print)).collect::<HashSet<_>>();
        let inodes: HashSet<_> = several(old).union(&several(&scan.view)).copied().collect();
        if inodes.is_empty() {
            return;
        }
        let is_other = |print: &Fingerprint| print.inode.is_some_and(|inode| inodes.contains(&(inode.device, inode.number)));
        let others: Vec<Path> =
            self.view.entries.iter().filter(|(_, print)| is_other(print)).map(|(path, _)| path.clone()).collect();
        self.also(&others, old, scan);
    }

    /// Looks at more paths that no event named.
    fn also(&mut self, others: &[Path], old: &mut View, scan: &mut Scan) {
        if others.is_empty() {
            return;
        }
        let mut more = scan::run(
            &self.roots,
            others.iter().map(|path| Place { path: path.to_vec(), whole: false }),
            &self.view,
            &self.options,
        );
        old.entries.extend(others.iter().filter_map(|path| self.view.entries.remove_entry(path)));
        scan.view.entries.append(&mut more.view.entries);
        scan.uncovered.append(&mut more.uncovered);
    }

    /// Tells what is covered no longer, or again.
    fn cover(&mut self, place: &Place, now: &BTreeMap<Vec<u8>, Uncovered>, tell: &mut dyn FnMut(Event)) {
        let prefix = below(&place.path);
        let is_here = |path: &Vec<u8>| *path == place.path || (place.whole && path.starts_with(&prefix));
        let known = std::mem::take(&mut self.uncovered);
        let (before, elsewhere): (BTreeMap<_, _>, _) = known.into_iter().partition(|(path, _)| is_here(path));
        self.uncovered = elsewhere;
        for (path, why) in now.iter().filter(|(path, _)| is_here(path)) {
            if before.get(path) != Some(why) {
                tell(Event::CoverageLost { path: path.clone(), why: *why });
            }
            self.uncovered.insert(path.clone(), *why);
        }
        for path in before.into_keys().filter(|path| !now.contains_key(path)) {
            tell(Event::CoverageGained { path });
        }
    }
}

fn linked(print: &Fingerprint) -> Option<(Device, u64)> {
    print.inode.filter(|inode| inode.links > 1).map(|inode| (inode.device, inode.number))
}

fn is_nowhere(path: &[u8], old: &View, new: &View) -> bool {
    !old.entries.contains_key(path) && !new.entries.contains_key(path)
}

#[cfg(test)]
mod tests;
