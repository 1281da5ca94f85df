//! One look at all that is marked: watch, scan, compare, tell.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Looked, Reconciler};
use crate::beneath;
use crate::fingerprint::{self, Device, Fingerprint, Kind};
use crate::scan::{self, Place, Read, Scan};
use crate::view::{Difference, Path, View};
use crate::watch::event::{Event, Source};
use crate::watch::marks::{Mark, Marks};

impl Reconciler {
    /// Looks at all that is marked, tells what changed, and takes that for what is there now. Gives what it was for.
    pub(crate) fn reconcile(&mut self, tell: &mut dyn FnMut(Event)) -> Looked {
        let (start, began) = (Instant::now(), SystemTime::now());
        self.dirty.add_roots_inside(&self.roots);
        self.let_rest(start);
        let dirty = std::mem::take(&mut self.dirty);
        let source = std::mem::replace(&mut self.source, Source::Event);
        let gap = self.gap;
        self.halves.clear();
        let places = dirty.places(&self.roots);
        let (mut old, mut scan) = self.scan(&places, &dirty, source);
        self.learn(&mut old, &mut scan, tell);
        self.tell_transient(&dirty, &old, &scan.view, tell);
        let found = self.tell_changed(&dirty, &old, &scan.view, source, tell);
        let fresh = self.take_over(&old, scan.view, &scan.slow);
        for place in &places {
            self.keep(&place.path);
            self.coverage.cover(place, &scan.uncovered, tell);
        }
        self.watch_files(fresh);
        let mut last = Vec::new();
        if source != Source::Event {
            self.after(source, began, scan.excluded);
            let (entries, watched) = (self.view.entries.len(), self.armed.len());
            last.push(Event::Compared { source, entries, watched, found, took: start.elapsed() });
        }
        if let Some((cause, start)) = gap {
            self.gap = None;
            last.push(Event::GapClosed { cause, start, end: SystemTime::now(), found });
        }
        if std::mem::take(&mut self.proves) {
            self.proofs.begin(&self.roots, &self.armed, Instant::now(), tell);
        }
        Looked { source, last }
    }

    /// Leaves marks of files that rest for later, as long as there is a file.
    fn let_rest(&mut self, now: Instant) {
        if self.hot.is_empty() {
            return;
        }
        let (hot, roots) = (&self.hot, &self.roots);
        let is_file = |path: &[u8]| {
            let stat = roots.of(path).and_then(|(root, _)| fingerprint::stat(beneath::point_at(root, path).ok()?.as_fd()).ok());
            stat.is_some_and(|stat| fingerprint::kind(&stat) == Kind::File)
        };
        let resting = self.dirty.take(|path, mark| !mark.whole && hot.rests(path, now) && is_file(path));
        self.hot.resting.append(resting);
    }

    /// What was at these places, out of the view, and what is there now; both with all that changed along with it.
    fn scan(&mut self, places: &[Place], dirty: &Marks, source: Source) -> (View, Scan) {
        let read = if source == Source::Full { Read::All } else { self.options.read };
        let options = scan::Options { read, ..self.options };
        let mut scan = self.arm_and_scan(places, dirty, &options);
        for (path, why) in self.failed.drain(..) {
            scan.uncovered.entry(path).or_insert(why);
        }
        let mut old = View::default();
        for place in places {
            old.entries.extend(self.take_old(place, &scan.view));
        }
        self.same_inodes(&mut old, &mut scan);
        let links = self.links.concerned(&old, &scan.view).into_iter();
        let links: Vec<Path> = links.filter(|path| self.view.entries.contains_key(path)).collect();
        self.also(&links, &mut old, &mut scan);
        scan.carry(&old);
        (old, scan)
    }

    /// Watches what may not be watched yet, and looks. Where everything is looked at and there were watches enough so far,
    /// both at once; if that does not do, the watches go to what stands highest, and all is looked at again.
    fn arm_and_scan(&mut self, places: &[Place], dirty: &Marks, options: &scan::Options) -> Scan {
        let arms = |place: &&Place| dirty.get(&place.path).is_some_and(|mark| mark.arm);
        places.iter().filter(arms).for_each(|place| self.arm_parent(&place.path));
        let is_all = places.iter().all(|place| place.whole && arms(&place));
        if is_all && self.coverage.unwatched().next().is_none() && self.failed.is_empty() {
            let tops: Vec<&Place> = places.iter().filter(|place| self.armed.arm_top(&self.roots, &place.path)).collect();
            let along = self.armed.along();
            let enter = |path: &[u8], directory: &OwnedFd| along.enter(path, directory);
            let scan = scan::run_and(&self.roots, places.iter().cloned(), &self.view, options, &enter);
            let made = along.end();
            let failed = made.failed;
            self.armed.take_over(made);
            if !failed {
                return scan;
            }
            tops.iter().for_each(|top| self.armed.end(&top.path));
        }
        for place in places.iter().filter(arms) {
            let failed = self.armed.arm(&self.roots, &place.path);
            self.failed.extend(failed);
        }
        scan::run(&self.roots, places.iter().cloned(), &self.view, options)
    }

    /// Watches the directory that a root stands in, where its own coming and going is told.
    fn arm_parent(&mut self, path: &[u8]) {
        if let Some((parent, _)) = beneath::split(path).filter(|_| self.roots.begins_at(path)) {
            // A root whose parent cannot be watched is still compared on schedule.
            let _ = self.armed.arm_parent(parent, path);
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
        let places = others.iter().map(|path| Place { path: path.to_vec(), whole: false });
        let mut more = scan::run(&self.roots, places, &self.view, &self.options);
        old.entries.extend(others.iter().filter_map(|path| self.view.entries.remove_entry(path)));
        scan.view.entries.extend(more.view.entries);
        scan.uncovered.append(&mut more.uncovered);
        scan.slow.append(&mut more.slow);
    }

    /// What is found at the first look in a root of which the baseline says nothing was there before.
    fn learn(&mut self, old: &mut View, scan: &mut Scan, tell: &mut dyn FnMut(Event)) {
        for root in std::mem::take(&mut self.learning) {
            let inside = |path: &Path| self.roots.of(path).is_some_and(|(of, _)| of == root);
            let found = scan.view.tree(&root).filter(|(path, _)| inside(path));
            old.entries.extend(found.map(|(path, print)| (Arc::clone(path), Arc::clone(print))));
            tell(Event::Learned { root });
        }
    }

    fn tell_transient(&self, dirty: &Marks, old: &View, new: &View, tell: &mut dyn FnMut(Event)) {
        let is_nowhere = |path: &[u8]| !old.entries.contains_key(path) && !new.entries.contains_key(path);
        let excluded = |path: &[u8]| self.roots.of(path).is_some_and(|(_, how)| how.excludes(path));
        let came = dirty.iter().filter(|(path, mark)| mark.came && !mark.went && is_nowhere(path));
        for (path, _) in came.filter(|(path, _)| !excluded(path) && !dirty.is_canary(path)) {
            tell(Event::Transient { path: path.clone(), suspects: self.witness.of(path, None) });
        }
    }

    /// Tells what differs; gives how much that is.
    fn tell_changed(&mut self, dirty: &Marks, old: &View, new: &View, source: Source, tell: &mut dyn FnMut(Event)) -> usize {
        let found = self.roots.differences(old, new);
        let count = found.len();
        for difference in found {
            let is_event = matches!(source, Source::Schedule | Source::Full | Source::Poll | Source::End)
                && dirty.was_seen(&difference.path);
            let source = if is_event { Source::Event } else { source };
            let (suspects, since) = (self.suspects(&difference), self.since(source));
            tell(Event::Changed { difference: Box::new(difference), source, suspects, since });
        }
        let resting = &self.hot.resting;
        self.witness.forget(|path| resting.get(path).is_some());
        count
    }

    fn suspects(&self, difference: &Difference) -> Vec<super::super::Suspect> {
        let prints = [&difference.old, &difference.new].into_iter().flatten();
        self.witness.of(&difference.path, prints.filter(|print| print.kind == Kind::File).filter_map(|print| print.inode))
    }

    /// Since when a difference may be there that such a comparison finds.
    fn since(&self, source: Source) -> Option<SystemTime> {
        match source {
            Source::Event | Source::Start => None,
            Source::Poll => self.polled.max(self.compared),
            Source::Schedule | Source::Full | Source::Repair | Source::End => self.compared,
        }
    }

    fn after(&mut self, source: Source, began: SystemTime, excluded: u64) {
        self.tally.compared(source);
        if source == Source::Poll {
            self.polled = Some(began);
        } else {
            self.compared = Some(began);
            self.tally.excluded = excluded;
        }
    }

    /// What is there now is what was there before the next look. Gives the files that need a watch of their own.
    fn take_over(
        &mut self,
        old: &View,
        mut new: View,
        slow: &BTreeMap<Path, std::time::Duration>,
    ) -> Vec<(Path, Arc<Fingerprint>)> {
        self.tally.subtract(&self.roots, old);
        self.tally.add(&self.roots, &new);
        let now = Instant::now();
        slow.iter().for_each(|(path, took)| self.hot.read(path, *took, now));
        for (path, print) in &old.entries {
            self.links.replace(path, Some(print), None);
        }
        for (path, print) in &new.entries {
            self.links.replace(path, None, Some(print));
        }
        let files = new
            .entries
            .iter()
            .filter(|(path, print)| print.kind == Kind::File && (linked(print).is_some() || self.is_mount(path)));
        let files = files.map(|(path, print)| (Arc::clone(path), Arc::clone(print))).collect();
        // Merging two maps takes as long as both are, however short one is.
        if new.entries.len() < self.view.entries.len() / 16 {
            self.view.entries.extend(new.entries);
        } else {
            self.view.entries.append(&mut new.entries);
        }
        files
    }

    fn is_mount(&self, path: &[u8]) -> bool {
        self.proofs.is_file(path)
    }

    /// Ends watches at a place that are not needed any more.
    fn keep(&mut self, place: &[u8]) {
        let print = |path: &[u8]| self.view.entries.get(path);
        let is_directory = |path: &[u8]| print(path).is_some_and(|print| print.kind == Kind::Directory);
        let proofs = &self.proofs;
        let is_file = |path: &[u8]| print(path).is_some_and(|print| linked(print).is_some() || proofs.is_file(path));
        self.armed.keep(place, is_directory, is_file);
    }

    /// Watches files that are written by names elsewhere. What changed before the watch was there is looked at again.
    fn watch_files(&mut self, files: Vec<(Path, Arc<Fingerprint>)>) {
        for (path, print) in files {
            let Some((root, _)) = self.roots.of(&path) else { continue };
            let is_fresh = self.armed.arm_file(root, &path, !self.proofs.is_file(&path)).unwrap_or(false);
            if is_fresh && !is_still(root, &path, &print) {
                self.dirty.add(path.to_vec(), Mark { seen: true, ..Mark::default() });
            }
        }
    }
}

/// Whether a file has the time of change that is known of it.
fn is_still(root: &[u8], path: &[u8], print: &Fingerprint) -> bool {
    let stat = beneath::point_at(root, path).ok().and_then(|file| fingerprint::stat(file.as_fd()).ok());
    let changed = print.inode.and_then(|inode| inode.changed);
    stat.zip(changed)
        .is_some_and(|(stat, changed)| (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec) == (changed.seconds, changed.nanos))
}

fn linked(print: &Fingerprint) -> Option<(Device, u64)> {
    print.inode.filter(|inode| inode.links > 1).map(|inode| (inode.device, inode.number))
}
