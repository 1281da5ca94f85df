//! One look at all that is marked: watch, scan, compare, tell.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::fs::Statx;
use rustix::io::Errno;

use super::{EAGER, Looked, Reconciler};
use crate::beneath;
use crate::fingerprint::{self, ATTEMPTS, Budget, Device, Fingerprint, Kind, Means};
use crate::scan::{self, Place, Scan, Uncovered};
use crate::view::{Path, View};
use crate::watch::event::{Event, Source};
use crate::watch::marks::{Mark, Marks};
use crate::watch::names::linked;
use crate::watch::ways;

/// Octets that one look reads for which events are the reason. Larger files are read later.
pub(super) const BUDGET: u64 = 64 << 20;

/// So many times as much, what a comparison reads.
const COMPARISON: u64 = 8;

impl Reconciler {
    /// Looks at all that is marked, tells what changed, and takes that for what is there now. Gives what it was for.
    pub(crate) fn reconcile(&mut self, tell: &mut dyn FnMut(Event)) -> Looked {
        let (start, began) = (Instant::now(), SystemTime::now());
        self.forget_halves();
        self.eager = EAGER;
        self.dirty.add_roots_inside(&self.roots);
        self.let_rest(start);
        let mut dirty = std::mem::take(&mut self.dirty);
        let waited = self.later.take(&mut dirty);
        let source = std::mem::replace(&mut self.source, Source::Event);
        self.owed |= dirty.is_doubtful() && matches!(source, Source::Event | Source::Poll);
        let gap = self.gap;
        self.doubt_written(&dirty);
        let mut places = dirty.places(&self.roots);
        let (mut old, mut scan) = self.scan(&mut places, &dirty, source);
        self.learn(&mut old, &mut scan, tell);
        self.hold(&dirty, &waited, &mut old, &mut scan, source);
        self.tell_transient(&dirty, &old, &scan.view, tell);
        let found = self.tell_changed(&dirty, &old, &scan.view, source, tell);
        self.tell_hashes(&waited, &old, &scan.view, tell);
        let fresh = self.take_over(&old, scan.view, &scan.slow);
        for place in &places {
            self.keep(&place.path);
            if !scan.cut {
                self.coverage.cover(place, &scan.uncovered, tell);
            }
        }
        self.watch_files(fresh);
        let (complete, mut last) = (!scan.cut, Vec::new());
        if source != Source::Event {
            self.after(source, began, scan.excluded);
            let reads_on = complete && source != Source::Poll && self.begin_round(start, began, found);
            if source != Source::Full || !reads_on {
                self.tally.compared(source);
                let (entries, watched) = (self.view.entries.len(), self.armed.len());
                last.push(Event::Compared { source, entries, watched, found, took: start.elapsed(), complete });
            }
        }
        if let Some((cause, start)) = gap.filter(|_| complete && self.repairs(source)) {
            self.gap = None;
            last.push(Event::GapClosed { cause, start, end: SystemTime::now(), found });
        }
        if std::mem::take(&mut self.proves) {
            self.proofs.begin(&self.roots, &self.armed, Instant::now(), tell);
        }
        Looked { source, complete, last }
    }

    /// Leaves marks of files that rest for later, as long as there is a file. What all content was read for was read already.
    fn let_rest(&mut self, now: Instant) {
        if self.hot.is_empty() {
            return;
        }
        let (hot, roots) = (&self.hot, &self.roots);
        let rests = |path: &[u8]| {
            let stat = roots.of(path).and_then(|(root, _)| fingerprint::stat(beneath::point_at(root, path).ok()?.as_fd()).ok());
            let file = stat.filter(|stat| fingerprint::kind(stat) == Kind::File);
            let which = |stat: Statx| (Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }, stat.stx_ino);
            file.is_some_and(|stat| hot.rests(path, Some(which(stat)), now))
        };
        let resting = self.dirty.take(|path, mark| !mark.whole && !mark.reread && hot.has(path) && rests(path));
        self.hot.resting.append(resting);
    }

    /// What was at these places, out of the view, and what is there now; both with all that changed along with it.
    /// The places of those are added.
    fn scan(&mut self, places: &mut Vec<Place>, dirty: &Marks, source: Source) -> (View, Scan) {
        let options = self.options;
        let unwatched = self.arm_ways(places, dirty);
        let means = self.means(source);
        let mut scan = self.arm_and_scan(places, dirty, &options, &means);
        self.fail(unwatched);
        for (path, why) in self.failed.drain(..) {
            scan.uncovered.entry(path).or_insert(why);
        }
        let mut old = View::default();
        for place in &*places {
            old.entries.extend(self.take_old(place, &scan.view));
        }
        let written = written(dirty, &old, &scan.view);
        let mut more = self.same_inodes(&written, &mut old, &mut scan, &means);
        let links = self.links.concerned(&old, &scan.view).into_iter();
        let links: Vec<Path> = links.filter(|path| self.view.entries.contains_key(path)).collect();
        self.also(&links, &written, &mut old, &mut scan, &means);
        scan.carry(&old);
        // What a root needs to be watched was not looked at.
        more.extend(links);
        let more = more.into_iter().filter(|path| !self.roots.begins_at(path));
        places.extend(more.map(|path| Place { path: path.to_vec(), whole: false }));
        (old, scan)
    }

    /// What one look may read.
    fn means(&mut self, source: Source) -> Means {
        let octets = if source == Source::Event { self.budget } else { self.budget.saturating_mul(COMPARISON) };
        let budget = Budget::new(octets, self.deadline.clone());
        Means { budget, known: self.later.take_known(), vouched: source == Source::Start, ..Means::default() }
    }

    /// Watches what may not be watched yet, and looks. Where everything is looked at and there were watches enough so far,
    /// both at once; if that does not do, the watches go to what stands highest, and all is looked at again.
    fn arm_and_scan(&mut self, places: &[Place], dirty: &Marks, options: &scan::Options, means: &Means) -> Scan {
        let arms = |place: &&Place| dirty.get(&place.path).is_some_and(|mark| mark.arm);
        let is_all = places.iter().all(|place| place.whole && arms(&place));
        if is_all && self.coverage.unwatched().next().is_none() && self.failed.is_empty() {
            let tops: Vec<&Place> = places.iter().filter(|place| self.armed.arm_top(&self.roots, &place.path)).collect();
            let along = self.armed.along();
            let enter = |path: &[u8], directory: &OwnedFd| along.enter(path, directory);
            let scan = scan::run_and(&self.roots, places.iter().cloned(), &self.view, options, means, &enter);
            let made = along.end();
            let failed = made.failed;
            self.armed.take_over(made);
            if !failed {
                return scan;
            }
            tops.iter().for_each(|top| self.armed.end(&top.path));
        }
        for place in places.iter().filter(arms) {
            let failed = self.armed.arm(&self.roots, &place.path, place.whole);
            self.fail(failed);
        }
        scan::run_and(&self.roots, places.iter().cloned(), &self.view, options, means, &|_, _| ())
    }

    /// Watches the ways to the roots among these places. Gives those that are one file, which nothing else would watch, where
    /// that cannot be done.
    fn arm_ways(&mut self, places: &[Place], dirty: &Marks) -> Vec<(Vec<u8>, Uncovered)> {
        let arms = |place: &&Place| dirty.get(&place.path).is_some_and(|mark| mark.arm || mark.seen);
        let roots: Vec<&[u8]> =
            places.iter().filter(arms).map(|place| &*place.path).filter(|path| self.roots.begins_at(path)).collect();
        roots.into_iter().filter(|root| !self.arm_way(root)).map(|root| (root.to_vec(), Uncovered::NoWatch)).collect()
    }

    /// Watches the way to a root, so that its swap is told. Whether that is all that a root that is no directory needs.
    fn arm_way(&mut self, root: &[u8]) -> bool {
        let is_file = beneath::open(root, root).is_err_and(|error| error == Errno::NOTDIR);
        let mut way = ways::follow(root);
        for _ in 0..ATTEMPTS {
            let armed = self.armed.arm_way(&way, is_file);
            for directory in self.ways.set(root, &way) {
                let is_needed = self.view.entries.get(directory.as_slice()).is_some_and(|print| print.kind == Kind::Directory);
                if !is_needed {
                    self.armed.end(&directory);
                }
            }
            // What was swapped before it was watched is told by nobody.
            let now = ways::follow(root);
            if now == way {
                return armed.is_ok() || !is_file;
            }
            way = now;
        }
        !is_file
    }

    /// What was there, out of the view. If it is no directory now, all that was below it is gone too.
    fn take_old(&mut self, place: &Place, now: &View) -> BTreeMap<Path, Arc<Fingerprint>> {
        let is_directory = now.entries.get(place.path.as_slice()).is_some_and(|print| print.kind == Kind::Directory);
        if place.whole || !is_directory {
            return self.view.take_tree(&place.path).entries;
        }
        self.view.entries.remove_entry(place.path.as_slice()).into_iter().collect()
    }

    /// An event names one of a file's names. The others changed with it; gives them.
    fn same_inodes(&mut self, written: &HashSet<(Device, u64)>, old: &mut View, scan: &mut Scan, means: &Means) -> Vec<Path> {
        let others = self.names.others(&self.view, old, &scan.view);
        self.also(&others, written, old, scan, means);
        others
    }

    /// Looks at more paths that no event named; those of files that were written are read.
    fn also(&mut self, others: &[Path], written: &HashSet<(Device, u64)>, old: &mut View, scan: &mut Scan, means: &Means) {
        if others.is_empty() {
            return;
        }
        for path in others {
            if let Some(print) = self.view.entries.get_mut(path).filter(|print| is_of(print, written)) {
                doubt(print);
            }
        }
        let places = others.iter().map(|path| Place { path: path.to_vec(), whole: false });
        let mut more = scan::run_and(&self.roots, places, &self.view, &self.options, means, &|_, _| ());
        old.entries.extend(others.iter().filter_map(|path| self.view.entries.remove_entry(path)));
        scan.view.entries.extend(more.view.entries);
        scan.uncovered.append(&mut more.uncovered);
        scan.slow.append(&mut more.slow);
        scan.unread.append(&mut more.unread);
        scan.cut |= more.cut;
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

    /// What was written is read again, whatever its times say: a write through a mapping that is kept need not change them,
    /// nor on some file systems the second within two seconds.
    fn doubt_written(&mut self, dirty: &Marks) {
        for (path, _) in dirty.iter().filter(|(_, mark)| mark.written) {
            if let Some(print) = self.view.entries.get_mut(path.as_slice()) {
                doubt(print);
            }
        }
    }

    fn after(&mut self, source: Source, began: SystemTime, excluded: u64) {
        if source == Source::Poll {
            self.polled = Some(began);
        } else {
            self.compared = Some(began);
            self.read.get_or_insert(began);
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
        for (path, took) in slow {
            let inode = new.entries.get(path).and_then(|print| print.inode);
            self.hot.read(path, inode.map(|inode| (inode.device, inode.number)), *took, now);
        }
        for (path, print) in &old.entries {
            self.links.replace(path, Some(print), None);
            self.names.replace(path, Some(print), None);
        }
        for (path, print) in &new.entries {
            self.links.replace(path, None, Some(print));
            self.names.replace(path, None, Some(print));
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
        let ways = &self.ways;
        let is_directory = |path: &[u8]| print(path).is_some_and(|print| print.kind == Kind::Directory) || ways.has(path);
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

/// The times of a file, and of what it leads to, are no proof any more that nothing changed.
fn doubt(print: &mut Arc<Fingerprint>) {
    let print = Arc::make_mut(print);
    let inodes = [print.inode.as_mut(), print.leads_to.as_mut().and_then(|end| end.inode.as_mut())];
    inodes.into_iter().flatten().for_each(|inode| inode.changed = None);
}

/// The files that events say were written.
fn written(dirty: &Marks, old: &View, new: &View) -> HashSet<(Device, u64)> {
    let prints = |path: &Vec<u8>| [old, new].into_iter().filter_map(|view| view.entries.get(path.as_slice())?.inode).collect();
    let written = dirty.iter().filter(|(_, mark)| mark.written).flat_map(|(path, _)| -> Vec<_> { prints(path) });
    written.map(|inode| (inode.device, inode.number)).collect()
}

/// Whether it is one of these files, or leads to one.
fn is_of(print: &Fingerprint, files: &HashSet<(Device, u64)>) -> bool {
    let inodes = [print.inode, print.leads_to.as_ref().and_then(|end| end.inode)];
    inodes.into_iter().flatten().any(|inode| files.contains(&(inode.device, inode.number)))
}
