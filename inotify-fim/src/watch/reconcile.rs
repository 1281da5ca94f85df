//! From events to what changed. An event only says where to look: what is there is compared with what was there before, so
//! that an event that was merged, late or misleading does no harm. No thread and no waiting is here.

mod look;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Options;
use super::armed::Armed;
use super::coverage::Coverage;
use super::event::{Cause, Event, Source};
use super::hot::Hot;
use super::links::Links;
use super::marks::{Mark, Marks};
use super::proofs::Proofs;
use super::reader::Note;
use super::tally::Tally;
use super::witness::Witness;
use crate::ledger::{LISTED, Ledger, reason};
use crate::raw::mask;
use crate::roots::{Roots, ancestors};
use crate::scan::{self, Uncovered};
use crate::view::View;
use crate::{beneath, canary};

/// A watch that the kernel does not list may have ended a moment ago, and its last event still waits. It counts as lost if
/// that is not so after this time.
const DOUBT: Duration = Duration::from_secs(1);

/// What a look was.
#[must_use]
pub(super) struct Looked {
    /// What for.
    pub(super) source: Source,
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
    hot: Hot,
    witness: Witness,
    dirty: Marks,
    /// Directories that came and could not be watched.
    failed: Vec<(Vec<u8>, Uncovered)>,
    /// Where an entry went from, by the cookie of its move, until its other half is read.
    halves: HashMap<u32, Vec<u8>>,
    gap: Option<(Cause, SystemTime)>,
    /// What the next look is for.
    source: Source,
    last_note: SystemTime,
    /// Since when everything, and what is polled, may have changed without an event.
    compared: Option<SystemTime>,
    polled: Option<SystemTime>,
    /// Roots that the baseline says nothing of.
    learning: BTreeSet<Vec<u8>>,
    /// Watches that the kernel did not list and has not said to have ended, and when they count as lost.
    doubted: Option<(HashSet<i32>, Instant)>,
    /// After the next look it is to be proven that events arrive.
    proves: bool,
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
            hot: Hot::default(),
            witness: Witness::default(),
            dirty: Marks::default(),
            failed: Vec::new(),
            halves: HashMap::new(),
            gap: None,
            source: Source::Event,
            last_note: SystemTime::now(),
            compared: None,
            polled: None,
            learning,
            doubted: None,
            proves: false,
            roots,
        }
    }

    /// The first comparison.
    pub(super) fn start(&mut self, tell: &mut dyn FnMut(Event)) -> Looked {
        self.look_at_mounts();
        self.mark_all(Source::Start);
        self.proves = true;
        self.reconcile(tell)
    }

    /// Whether anything is to be looked at.
    pub(super) fn is_dirty(&self) -> bool {
        self.proves || !self.dirty.is_empty()
    }

    /// Whether events were lost, and what they would have told is not known yet.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Whether anything must be compared often.
    pub(super) fn polls(&self) -> bool {
        self.coverage.unwatched().next().is_some() || self.proofs.polled().next().is_some()
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

    /// Takes one record from the kernel. Directories that came are watched at once.
    pub(super) fn take(&mut self, note: &Note, tell: &mut dyn FnMut(Event)) {
        if note.mask & mask::Q_OVERFLOW != 0 {
            return self.lost(Cause::Kernel, tell);
        }
        self.last_note = SystemTime::now();
        let paths = self.armed.paths(note.watch);
        for path in paths {
            match &note.name {
                Some(name) => self.take_name(beneath::join(&path, name), note, tell),
                None if self.armed.is_file(&path) => self.mark(path, Mark { seen: true, ..Mark::default() }),
                None => {
                    let whole = note.mask != mask::ATTRIB | mask::ISDIR;
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

    fn take_name(&mut self, path: Vec<u8>, note: &Note, tell: &mut dyn FnMut(Event)) {
        if self.roots.of(&path).is_none() {
            return;
        }
        let has = |bits| note.mask & bits != 0;
        let is_directory = has(mask::ISDIR);
        let is_ours = canary::is_one(&path) && is_directory && self.proofs.saw(&path, note.mask, tell);
        let (made, entered) = (has(mask::CREATE), has(mask::MOVED_TO));
        // What could not be seen may be seen now; a root may be of another type.
        let arm = self.roots.begins_at(&path) || self.coverage.has(&path);
        let whole = arm || (is_directory && (made || entered || has(mask::MOVED_FROM)));
        let touched = !is_directory || !has(mask::CREATE | mask::DELETE);
        let mut mark = Mark { whole, arm, came: made, went: false, seen: true, touched };
        if is_directory && (made || entered) && !is_ours {
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
            self.tally.gap(cause);
            tell(Event::GapOpened { cause, start: self.last_note });
        }
        self.proofs.lost();
        self.doubted = None;
        self.mark_all(Source::Repair);
    }

    /// Some mount changed: what it concerns is looked at again.
    pub(super) fn mounts_changed(&mut self, tell: &mut dyn FnMut(Event)) {
        for (places, path, change) in self.look_at_mounts() {
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

    fn look_at_mounts(&mut self) -> Vec<(Vec<Vec<u8>>, Vec<u8>, super::MountChange)> {
        let changes = self.proofs.look(&self.roots);
        self.witness.is_partial = self.proofs.hides_processes();
        changes
    }

    /// Has what such a comparison is of looked at by the next [`Self::reconcile`].
    pub(super) fn compare(&mut self, source: Source, tell: &mut dyn FnMut(Event)) {
        if source == Source::Poll {
            self.source = self.source.max_of(source);
            let polled = self.coverage.unwatched().chain(self.proofs.polled().map(|(path, _)| path));
            let polled: Vec<Vec<u8>> = polled.cloned().collect();
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
        self.halves.clear();
        // Who looks a last time watches nothing any more.
        let mark = Mark { arm: source != Source::End, ..Mark::ALL };
        for (root, _) in self.roots.clone().iter() {
            self.mark(root.to_vec(), mark);
        }
    }

    fn mark(&mut self, path: Vec<u8>, mark: Mark) {
        if self.roots.of(&path).is_some() {
            self.dirty.add(path, mark);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let doubted = self.doubted.as_ref().map(|(_, due)| *due);
        [self.hot.next(), self.proofs.next(), doubted].into_iter().flatten().min()
    }

    /// What is due by now, while no event waits. Whether anything is to be looked at.
    pub(super) fn tick(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) -> bool {
        self.proofs.expire(now, tell);
        let rested = self.hot.rested(now);
        let mut any = !rested.is_empty();
        self.dirty.append(rested);
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

    /// As if reading a file had taken so long.
    #[cfg(test)]
    pub(super) fn is_slow(&mut self, path: &crate::view::Path, took: Duration, now: Instant) {
        self.hot.read(path, took, now);
    }

    /// What rests is to be looked at all the same.
    pub(super) fn wake_all(&mut self) {
        self.hot.wake(&mut self.dirty);
    }

    /// What the ledger says of all this.
    pub(super) fn write(&mut self, ledger: &mut Ledger) {
        self.tally.write(&self.view, ledger);
        ledger.inotify = self.armed.has_inotify();
        (ledger.watched, ledger.budget) = (self.armed.len(), self.armed.most());
        ledger.gap_since = self.gap.map(|(_, start)| start);
        ledger.hot = self.hot.resting.len();
        ledger.hidden_processes = self.witness.hidden;
        let (covered, proven) = (self.coverage.is_fresh(), self.proofs.is_fresh());
        if covered || proven {
            self.write_lists(ledger);
        }
    }

    /// What takes longer to write, and changes less often.
    pub(super) fn write_lists(&self, ledger: &mut Ledger) {
        ledger.mounts = self.proofs.list();
        ledger.polled = self.coverage.unwatched().count() + self.proofs.polled().count();
        let all = || self.coverage.iter().chain(self.proofs.polled());
        ledger.uncovered = all().take(LISTED).map(|(path, why)| (path.clone(), why)).collect();
        ledger.reasons.clear();
        all().for_each(|(_, why)| *ledger.reasons.entry(reason(why)).or_default() += 1);
    }
}

impl Source {
    /// Of two reasons for one look the one that says more.
    fn max_of(self, other: Self) -> Self {
        let weight = |source| match source {
            Self::Event => 0,
            Self::Poll => 1,
            Self::Schedule => 2,
            Self::Full => 3,
            Self::End => 4,
            Self::Repair => 5,
            Self::Start => 6,
        };
        if weight(other) >= weight(self) { other } else { self }
    }
}
