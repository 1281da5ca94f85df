//! What is not seen, or not watched, and telling it once. Pure.

use std::collections::BTreeMap;

use super::event::Event;
use crate::scan::{Place, Uncovered};
use crate::view::below;

#[derive(Default)]
pub(super) struct Coverage {
    known: BTreeMap<Vec<u8>, Uncovered>,
    /// Something changed since [`Self::is_fresh`] was last asked.
    fresh: bool,
}

impl Coverage {
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.known.contains_key(path)
    }

    /// Why a path is not covered.
    pub(super) fn why(&self, path: &[u8]) -> Option<Uncovered> {
        self.known.get(path).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, Uncovered)> {
        self.known.iter().map(|(path, why)| (path, *why))
    }

    /// Trees that are compared often as they have no watch.
    pub(super) fn unwatched(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.known.iter().filter(|(_, why)| **why == Uncovered::NoWatch).map(|(path, _)| path)
    }

    /// Whether anything changed since this was last asked.
    pub(super) fn is_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    /// A place was looked at, and this is all that is not covered there and elsewhere: tells what is no longer, or again.
    pub(super) fn cover(&mut self, place: &Place, now: &BTreeMap<Vec<u8>, Uncovered>, tell: &mut dyn FnMut(Event)) {
        let before = at(&self.known, place);
        let found = at(now, place);
        for (path, why) in &found {
            if before.get(path) != Some(why) {
                tell(Event::CoverageLost { path: path.clone(), why: *why });
                self.known.insert(path.clone(), *why);
                self.fresh = true;
            }
        }
        for path in before.into_keys().filter(|path| !found.contains_key(path)) {
            self.known.remove(&path);
            self.fresh = true;
            tell(Event::CoverageGained { path });
        }
    }
}

/// What lies at a place.
fn at(all: &BTreeMap<Vec<u8>, Uncovered>, place: &Place) -> BTreeMap<Vec<u8>, Uncovered> {
    let mut found: BTreeMap<_, _> = all.get_key_value(&place.path).map(|(path, why)| (path.clone(), *why)).into_iter().collect();
    if place.whole {
        let prefix = below(&place.path);
        let inside = all.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        found.extend(inside.map(|(path, why)| (path.clone(), *why)));
    }
    found
}
