//! Files that are too large to be read while others wait: what is told of them, and when.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::Reconciler;
use crate::fingerprint::{Fingerprint, HashState, Inode, Kind};
use crate::scan::Scan;
use crate::view::{Change, Difference, Path, View, identity};
use crate::watch::event::{Event, Source};
use crate::watch::later::Waiting;
use crate::watch::marks::{Mark, Marks};

impl Reconciler {
    /// Has what could not be read now read later. What an event named is kept back for so long, as if nobody had looked yet;
    /// all else is told now, without a hash. A file that was moved is told to be the one that it was, until more is known.
    pub(super) fn hold(
        &mut self,
        dirty: &Marks,
        waited: &BTreeMap<Path, Waiting>,
        old: &mut View,
        scan: &mut Scan,
        source: Source,
    ) {
        let unread = std::mem::take(&mut scan.unread);
        if unread.is_empty() || source == Source::End {
            return;
        }
        let (now, moved) = (Instant::now(), moved(old, &scan.view));
        for path in unread {
            let Some(print) = scan.view.entries.get(&path).cloned() else { continue };
            let how = self.roots.of(&path).map(|(_, how)| how);
            let before = old.entries.get(&path);
            let is_learnt = before.is_some_and(|before| Arc::ptr_eq(before, &print));
            let mut waiting = waited.get(&path).cloned().unwrap_or_else(|| Waiting::new(how, !is_learnt, now));
            waiting.size = print.leads_to.as_ref().map_or(print.size, |end| end.size);
            let mark = dirty.get(&path).copied().unwrap_or(Mark { seen: true, ..Mark::default() });
            waiting.mark = Mark { whole: false, arm: false, ..mark };
            let came_from = identity(&print).and_then(|identity| moved.get(&identity)).filter(|(from, _)| *from != path);
            let is_held = source == Source::Event
                && came_from.is_none()
                && before.is_none_or(|before| before.kind == print.kind)
                && waiting.told_by.is_some_and(|by| now < by);
            match (is_held, before, came_from) {
                (true, Some(before), _) => drop(scan.view.entries.insert(Arc::clone(&path), Arc::clone(before))),
                (true, None, _) => drop(scan.view.entries.remove(&path)),
                (false, _, Some((_, last))) => {
                    let print = Fingerprint { last: last.map(Box::new), ..print.as_ref().clone() };
                    scan.view.entries.insert(Arc::clone(&path), Arc::new(print));
                }
                (false, ..) => {}
            }
            if !is_held {
                waiting.told_by = None;
            }
            self.later.put(path, waiting);
        }
    }

    /// Tells the hashes of files that were told without one.
    pub(super) fn tell_hashes(&self, waited: &BTreeMap<Path, Waiting>, old: &View, new: &View, tell: &mut dyn FnMut(Event)) {
        for path in waited.iter().filter(|(_, waiting)| waiting.is_news).map(|(path, _)| path) {
            let Some((was, is)) = old.entries.get(path).zip(new.entries.get(path)) else { continue };
            // What differs in any other way was told with it.
            if !crate::view::is_alike(was, is) {
                continue;
            }
            let (before, after) = (content(was), content(is));
            let is_news = before == HashState::NotRead && was.last.as_deref().copied() != after.done();
            let change = if is.kind == Kind::Symlink { Change::Effective } else { Change::Modified };
            if is_news && after.done().is_some() {
                let difference = Difference { path: Arc::clone(path), change, old: Some(was.clone()), new: Some(is.clone()) };
                let suspects = self.suspects(&difference);
                tell(Event::Changed { difference: Box::new(difference), source: Source::Event, suspects, since: None });
            }
        }
    }
}

/// Where a file stood, and its last hash.
type Stood = (Path, Option<[u8; 32]>);

/// The files that stand no more where they stood, and their last hash.
fn moved(old: &View, new: &View) -> HashMap<(Inode, Kind), Stood> {
    let which = |print: &Fingerprint| identity(print).filter(|(_, kind)| *kind == Kind::File);
    let gone = old.entries.iter().filter(|(path, print)| new.entries.get(*path).is_none_or(|now| which(now) != which(print)));
    let last = |print: &Fingerprint| print.hash.done().or_else(|| print.last.as_deref().copied());
    gone.filter_map(|(path, print)| Some((which(print)?, (Arc::clone(path), last(print))))).collect()
}

fn content(print: &Fingerprint) -> HashState {
    print.leads_to.as_ref().map_or(print.hash, |end| end.hash)
}
