//! From events to what changed. An event only says where to look: what is there is compared with what was there before, so
//! that an event that was merged, late or misleading does no harm. No thread and no waiting is here.

mod look;
mod take;
mod held;
mod slices;
mod tell;
mod account;
mod repair;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Options;
use super::armed::Armed;
use super::coverage::Coverage;
use super::event::{Cause, Event, Source};
use super::hot::Hot;
use super::later::Later;
use super::links::Links;
use super::marks::{Mark, Marks};
use super::names::Names;
use super::proofs::Proofs;
use super::reader::Note;
use super::tally::Tally;
use super::ways::Ways;
use super::witness::Witness;
use crate::beneath;
use crate::fingerprint::Deadline;
use crate::raw::mask;
use crate::roots::{Roots, ancestors};
use crate::scan::{self, Uncovered};
use crate::view::View;
use slices::Slices;
use take::Half;

/// A watch that the kernel does not list may have ended a moment ago, and its last event still waits. It counts as lost if
/// that is not so after this time.
const DOUBT: Duration = Duration::from_secs(1);

/// So many directories that came are watched at once between two looks; the look watches the others.
pub(super) const EAGER: usize = 8_192;

/// So many octets of marked paths wait for the next look, with 100 more for each; beyond that whole roots are marked.
const MARKS: usize = 32 << 20;

/// So many moves wait for their other half. Without it, what was moved is told to be new.
const HALVES: usize = 10_000;

/// What a look was.
#[must_use]
pub(super) struct Looked {
    /// What for.
    pub(super) source: Source,
    /// The deadline kept nothing from being looked at.
    pub(super) complete: bool,
    /// What is to be told of it once the ledger says so too.
    pub(super) last: Vec<Event>,
}

pub(super) struct Reconciler {
    pub(super) roots: Roots,
    pub(super) options: scan::Options,
    pub(super) armed: Armed,
    /// What was there when it was last looked.
    pub(super) view: View,
    pub(super) tally: Tally,
    coverage: Coverage,
    proofs: Proofs,
    links: Links,
    names: Names,
    hot: Hot,
    later: Later,
    slices: Slices,
    /// Octets that a look may read for which events are the reason.
    pub(super) budget: u64,
    /// When all must be done.
    pub(super) deadline: Deadline,
    witness: Witness,
    dirty: Marks,
    /// Directories that came and could not be watched.
    failed: Vec<(Vec<u8>, Uncovered)>,
    /// Where an entry went from, by the cookie of its move, until its other half is read.
    halves: HashMap<u32, Half>,
    /// So many directories are watched at once when they come, before the next look.
    pub(super) eager: usize,
    gap: Option<(Cause, SystemTime)>,
    /// Events were lost since all was last marked.
    repair: bool,
    /// What the next look is for.
    source: Source,
    last_note: SystemTime,
    /// How each root is reached.
    ways: Ways,
    /// Since when everything, what is polled, and content alone may have changed without an event.
    compared: Option<SystemTime>,
    polled: Option<SystemTime>,
    read: Option<SystemTime>,
    /// Roots that the baseline says nothing of.
    learning: BTreeSet<Vec<u8>>,
    /// Watches that the kernel did not list and has not said to have ended, and when they count as lost.
    doubted: Option<(HashSet<i32>, Instant)>,
    /// A file may have been written by a name that is gone: all is to be compared before long.
    owed: bool,
    /// After the next look it is to be proven that events arrive.
    proves: bool,
    /// Something was marked since [`Self::is_noted`] was last asked.
    noted: bool,
}

impl Reconciler {
    /// Nothing is watched before [`Self::start`].
    pub(super) fn new(roots: Roots, mut baseline: View, options: &Options, inotify: Option<Arc<OwnedFd>>) -> Self {
        let is_said = |root: &[u8]| {
            ancestors(root).any(|above| baseline.entries.contains_key(above)) || baseline.tree(root).next().is_some()
        };
        let learning: BTreeSet<_> = roots.iter().map(|(root, _)| root.to_vec()).filter(|root| !is_said(root)).collect();
        baseline.entries.retain(|path, _| roots.of(path).is_some());
        let mut links = Links::default();
        baseline.entries.iter().for_each(|(path, print)| links.replace(path, None, Some(print)));
        Self {
            armed: Armed::new(inotify, options.watches),
            tally: Tally::new(&roots, &baseline, learning.clone()),
            view: baseline,
            options: options.scan,
            coverage: Coverage::default(),
            proofs: Proofs::default(),
            links,
            names: Names::default(),
            hot: Hot::default(),
            later: Later::default(),
            slices: Slices::default(),
            budget: look::BUDGET,
            deadline: Deadline::default(),
            witness: Witness::default(),
            dirty: Marks::default(),
            failed: Vec::new(),
            halves: HashMap::new(),
            eager: EAGER,
            gap: None,
            repair: false,
            source: Source::Event,
            last_note: SystemTime::now(),
            ways: Ways::default(),
            compared: None,
            polled: None,
            read: None,
            learning,
            doubted: None,
            owed: false,
            proves: false,
            noted: false,
            roots,
        }
    }

    /// The first comparison.
    pub(super) fn start(&mut self, tell: &mut dyn FnMut(Event)) -> Looked {
        self.look_at_mounts(tell);
        self.mark_all(Source::Start);
        self.proves = true;
        self.reconcile(tell)
    }

    /// Whether anything is to be looked at.
    pub(super) fn is_dirty(&self) -> bool {
        self.proves || self.repair || !self.dirty.is_empty()
    }

    /// Whether anything was marked since this was last asked: what happens beside the way to a root is no reason to wait.
    pub(super) fn is_noted(&mut self) -> bool {
        std::mem::take(&mut self.noted)
    }

    /// Whether anything must be compared often.
    pub(super) fn polls(&self) -> bool {
        self.owed || self.polled_trees().next().is_some()
    }

    /// Trees that are compared often: without a watch, or without events; and roots that cannot be seen now, as nobody may
    /// tell when they can.
    fn polled_trees(&self) -> impl Iterator<Item = &[u8]> {
        let unwatched = self.coverage.unwatched().chain(self.proofs.polled().map(|(path, _)| path)).map(Vec::as_slice);
        let is_missing = |root: &&[u8]| matches!(self.coverage.why(root), Some(Uncovered::Unreadable(_)));
        unwatched.chain(self.roots.iter().map(|(root, _)| root).filter(is_missing))
    }

    /// There is an inotify instance, perhaps since a moment ago.
    pub(super) fn use_inotify(&mut self, inotify: &Arc<OwnedFd>) {
        self.armed.use_inotify(Arc::clone(inotify));
    }

    /// Who has the files open for writing that these events name.
    pub(super) fn look_for_writers(&mut self, batch: &[Note]) {
        let writes = mask::MODIFY | mask::CREATE | mask::CLOSE_WRITE | mask::MOVED_TO;
        let mut paths = BTreeSet::new();
        for note in batch.iter().filter(|note| note.mask & writes != 0 && note.mask & mask::ISDIR == 0) {
            for path in self.armed.paths(note.watch) {
                let path = note.name.as_ref().map_or_else(|| path.clone(), |name| beneath::join(&path, name));
                if self.roots.of(&path).is_some() {
                    paths.insert(path);
                }
            }
        }
        self.witness.look(&self.roots, &paths.into_iter().collect::<Vec<_>>(), Instant::now());
    }

    /// Events were lost: all is compared anew.
    pub(super) fn lost(&mut self, cause: Cause, tell: &mut dyn FnMut(Event)) {
        if self.gap.is_none() {
            self.gap = Some((cause, self.last_note));
            self.tally.gap(cause);
            tell(Event::GapOpened { cause, start: self.last_note });
        }
        self.proofs.lost();
        self.doubted = None;
        self.halves.clear();
        self.repair = true;
    }

    /// Some mount changed: what it concerns is looked at again.
    pub(super) fn mounts_changed(&mut self, tell: &mut dyn FnMut(Event)) {
        for (places, path, change) in self.look_at_mounts(tell) {
            let files_changed = !matches!(change, super::MountChange::Remounted { .. });
            match places.as_slice() {
                [place] => tell(Event::MountChanged { path: place.clone(), change }),
                _ => tell(Event::MountChanged { path, change }),
            }
            for place in places.into_iter().filter(|_| files_changed) {
                self.mark(place, Mark { seen: true, ..Mark::ALL });
            }
        }
        // Where something is mounted now, nothing is watched before it was looked at.
        self.proves = true;
    }

    fn look_at_mounts(&mut self, tell: &mut dyn FnMut(Event)) -> Vec<(Vec<Vec<u8>>, Vec<u8>, super::MountChange)> {
        let changes = self.proofs.look(&self.roots, tell);
        self.witness.is_partial = self.proofs.hides_processes();
        changes
    }

    /// Has what such a comparison is of looked at by the next [`Self::reconcile`].
    pub(super) fn compare(&mut self, source: Source, tell: &mut dyn FnMut(Event)) {
        let source = match source {
            Source::Poll if self.owed => Source::Schedule,
            // The one that is under way goes on.
            Source::Full if self.rereads() => Source::Schedule,
            source => source,
        };
        self.slices.wanted |= source == Source::Full;
        if source == Source::Poll {
            self.source = self.source.max_of(source);
            let polled: Vec<Vec<u8>> = self.polled_trees().map(<[u8]>::to_vec).collect();
            polled.into_iter().for_each(|path| self.mark(path, Mark::ALL));
            return;
        }
        self.mounts_changed(tell);
        self.mark_all(source);
        if source == Source::End {
            self.proves = false;
        } else {
            let doubted = self.armed.audit();
            self.doubted = (!doubted.is_empty()).then(|| (doubted, Instant::now() + DOUBT));
        }
    }

    fn mark_all(&mut self, source: Source) {
        self.source = self.source.max_of(source);
        self.owed = false;
        self.repair = false;
        self.forget_halves();
        // Who looks a last time watches nothing any more.
        let mark = Mark { arm: source != Source::End, ..Mark::ALL };
        for (root, _) in self.roots.clone().iter() {
            self.mark(root.to_vec(), mark);
        }
    }

    fn mark(&mut self, path: Vec<u8>, mark: Mark) {
        if !self.roots.reaches(&path) {
            return;
        }
        self.noted = true;
        self.dirty.add(path, mark);
        if self.dirty.weight() > MARKS {
            self.dirty.collapse(&self.roots);
            self.tally.collapsed += 1;
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let doubted = self.doubted.as_ref().map(|(_, due)| *due);
        let reads = self.reads_from(Instant::now());
        [self.hot.next(), reads, self.proofs.next(), doubted].into_iter().flatten().min()
    }

    /// What is due by now, while no event waits. Whether anything is to be looked at.
    pub(super) fn tick(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) -> bool {
        self.proofs.expire(now, self.armed.has_waiting(), tell);
        let rested = self.hot.rested(now);
        let mut any = !rested.is_empty();
        self.dirty.append(rested);
        any |= self.read_on(now);
        if let Some((doubted, _)) = self.doubted.take_if(|(_, due)| *due <= now) {
            any |= self.repair(&doubted, tell);
        }
        any
    }

    /// Forgets watches that ended without a word, and looks at what they stood for, unless they were made anew meanwhile.
    /// Whether anything is to be looked at.
    fn repair(&mut self, lost: &HashSet<i32>, tell: &mut dyn FnMut(Event)) -> bool {
        for watch in lost {
            for path in self.armed.paths(*watch) {
                self.mark(path, Mark::ALL);
            }
            self.armed.ended(*watch);
        }
        if !lost.is_empty() {
            self.tally.repaired += lost.len() as u64;
            tell(Event::Repaired { watches: lost.len() });
        }
        !lost.is_empty()
    }

    /// How many large files wait to be read.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.later.len()
    }

    /// Whether a full comparison is under way.
    #[cfg(test)]
    pub(super) fn is_rereading(&self) -> bool {
        self.rereads()
    }

    /// As if it were so late, to what is kept back.
    #[cfg(test)]
    pub(super) fn is_overdue(&mut self, now: Instant) {
        self.dirty.append(self.later.overdue(now));
    }

    /// As if reading a file had taken so long.
    #[cfg(test)]
    pub(super) fn is_slow(&mut self, path: &crate::view::Path, took: Duration, now: Instant) {
        let inode = self.view.entries.get(path).and_then(|print| print.inode);
        self.hot.read(path, inode.map(|inode| (inode.device, inode.number)), took, now);
    }

    /// What rests is to be looked at all the same.
    pub(super) fn wake_all(&mut self) {
        self.hot.wake(&mut self.dirty);
    }
}
