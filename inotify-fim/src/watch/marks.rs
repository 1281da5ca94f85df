//! Which paths must be looked at, and why. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::roots::{Roots, ancestors};
use crate::scan::Place;
use crate::view::below;

/// Why a path must be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// With all below it.
    pub(super) whole: bool,
    /// Its directories may not be watched yet.
    pub(super) arm: bool,
    /// All below it was watched since the last look.
    pub(super) armed: bool,
    /// What stands there came since the last look.
    pub(super) came: bool,
    /// What came there is gone again, or was replaced: no name that it went to will tell of it.
    pub(super) vanished: bool,
    /// An event named it, or something in it.
    pub(super) seen: bool,
    /// It was written, or closed after it could be written: its content is read, whatever its times say.
    pub(super) written: bool,
    /// Events named a file here, no directory.
    pub(super) file: bool,
    /// It could be executed when its events were read.
    pub(super) runs: bool,
    /// What came here is an empty directory with the name of another agent's proof, and is watched.
    pub(super) proof: bool,
    /// What came here was no directory, and it went again or was replaced. It may have been one more name of another file.
    pub(super) passed: bool,
    /// All content was read anew, and this is another one than is known.
    pub(super) reread: bool,
}

impl Mark {
    /// All is looked at, and watched where it is not.
    pub(super) const ALL: Self = Self {
        whole: true,
        arm: true,
        armed: false,
        came: false,
        vanished: false,
        seen: false,
        written: false,
        file: false,
        runs: false,
        proof: false,
        passed: false,
        reread: false,
    };

    /// Something was made, or moved to here from where nothing is watched, or had only just come where it was.
    pub(super) fn comes(&mut self, is_new: bool) {
        self.goes();
        self.came = is_new;
    }

    /// What came here is gone for good.
    pub(super) fn goes(&mut self) {
        if std::mem::take(&mut self.came) {
            self.vanished = true;
            self.passed |= self.file;
        }
    }
}

/// Octets that a mark takes beside its path.
const EACH: usize = 100;

/// The marked paths, and their weight.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<Vec<u8>, Mark>, usize);

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<&Mark> {
        self.0.get(path)
    }

    /// The mark of a path, one that says nothing if there is none yet.
    pub(super) fn at(&mut self, path: Vec<u8>) -> &mut Mark {
        self.0.entry(path).or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Mark)> {
        self.0.iter()
    }

    pub(super) fn add(&mut self, path: Vec<u8>, mark: Mark) {
        let weight = EACH + path.len();
        let known = self.0.entry(path).or_insert_with(|| {
            self.1 += weight;
            Mark::default()
        });
        known.whole |= mark.whole;
        known.arm |= mark.arm;
        known.armed |= mark.armed;
        known.came |= mark.came;
        known.vanished |= mark.vanished;
        known.seen |= mark.seen;
        known.written |= mark.written;
        known.file |= mark.file;
        known.runs |= mark.runs;
        known.proof |= mark.proof;
        known.passed |= mark.passed;
        known.reread |= mark.reread;
    }

    /// Takes out those for which `goes` is true.
    pub(super) fn take(&mut self, mut goes: impl FnMut(&[u8], &Mark) -> bool) -> Self {
        let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.0).into_iter().partition(|(path, mark)| goes(path, mark));
        let marks = |marks: BTreeMap<Vec<u8>, Mark>| {
            let weight = marks.keys().map(|path| EACH + path.len()).sum();
            Self(marks, weight)
        };
        *self = marks(kept);
        marks(gone)
    }

    /// What they take: octets, about.
    pub(super) fn weight(&self) -> usize {
        self.1
    }

    /// Marks whole roots in place of all that is marked in them.
    pub(super) fn collapse(&mut self, roots: &Roots) {
        let marked = std::mem::take(self);
        let concerned: BTreeSet<&[u8]> = marked.0.keys().filter_map(|path| roots.of(path)).map(|(root, _)| root).collect();
        concerned.into_iter().for_each(|root| self.add(root.to_vec(), Mark { seen: true, ..Mark::ALL }));
    }

    pub(super) fn append(&mut self, others: Self) {
        others.0.into_iter().for_each(|(path, mark)| self.add(path, mark));
    }

    /// A root below something that is looked at may be another one now.
    pub(super) fn add_roots_inside(&mut self, roots: &Roots) {
        let inside: Vec<Vec<u8>> = self.0.keys().flat_map(|path| roots.inside(path)).map(<[u8]>::to_vec).collect();
        inside.into_iter().for_each(|root| self.add(root, Mark::ALL));
    }

    /// What is to be looked at: the marked paths but for those below another that is looked at as a whole. Trees of a higher
    /// priority come first.
    pub(super) fn places(&self, roots: &Roots) -> Vec<Place> {
        let whole: BTreeSet<&[u8]> = self.0.iter().filter(|(_, mark)| mark.whole).map(|(path, _)| path.as_slice()).collect();
        let is_inside = |path: &[u8]| {
            let root = roots.of(path).map_or(0, |(root, _)| root.len());
            ancestors(path).skip(1).take_while(|above| above.len() >= root).any(|above| whole.contains(above))
        };
        let outer = self.0.iter().filter(|(path, _)| whole.is_empty() || !is_inside(path));
        let mut places: Vec<Place> = outer.map(|(path, mark)| Place { path: path.clone(), whole: mark.whole }).collect();
        places.sort_by_key(|place| std::cmp::Reverse(roots.of(&place.path).map(|(_, how)| how.priority)));
        places
    }

    /// Whether this path is looked at.
    pub(super) fn reaches(&self, path: &[u8]) -> bool {
        ancestors(path).any(|at| self.0.get(at).is_some_and(|mark| mark.whole || at == path))
    }

    /// Whether an event led to this path: it named the path itself, or a tree that it is in.
    pub(super) fn was_seen(&self, path: &[u8]) -> bool {
        let mut around = ancestors(path).filter_map(|at| Some((at, self.0.get(at)?)));
        around.any(|(at, mark)| mark.seen && (mark.whole || at == path))
    }

    /// Whether only reading all content led to this path.
    pub(super) fn was_reread(&self, path: &[u8]) -> bool {
        self.0.get(path).is_some_and(|mark| mark.reread && !mark.seen)
    }

    /// Whether some name came and went by which another file may have been written: no event named that file.
    pub(super) fn is_doubtful(&self) -> bool {
        self.0.values().any(|mark| mark.passed)
    }

    /// Whether all that is known of this path is that one empty directory with the name of a proof came, was watched, and
    /// went.
    pub(super) fn is_canary(&self, path: &[u8]) -> bool {
        let below = below(path);
        let is_proof = self.0.get(path).is_some_and(|mark| mark.proof && !mark.file);
        let is_empty = || !self.0.range(below.clone()..).next().is_some_and(|(inside, _)| inside.starts_with(&below));
        is_proof && is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_outermost_and_those_of_high_priority_come_first() {
        let high = crate::roots::How { priority: 9, ..Default::default() };
        let roots = Roots::new([(b"/a".to_vec(), Default::default()), (b"/b".to_vec(), high)]);
        let mut marks = Marks::default();
        for path in ["/a/x", "/a/x/y", "/b/z", "/b"] {
            marks.add(path.into(), Mark { whole: path == "/a/x", ..Mark::default() });
        }
        let places: Vec<_> = marks.places(&roots).into_iter().map(|place| String::from_utf8(place.path).unwrap()).collect();
        assert_eq!(places, ["/b", "/b/z", "/a/x"]);
    }

    #[test]
    fn a01_marks_weigh_what_they_take_and_fall_together_into_their_roots() {
        let roots = Roots::from_iter([b"/a".to_vec(), b"/b".to_vec()]);
        let mut marks = Marks::default();
        for n in 0..1_000 {
            marks.add(format!("/a/{n}").into_bytes(), Mark { came: true, ..Mark::default() });
            marks.add(b"/a/same".to_vec(), Mark::default());
        }
        assert!((100_000..200_000).contains(&marks.weight()), "{}", marks.weight());
        let gone = marks.take(|path, _| path == b"/a/same");
        assert_eq!((gone.len(), gone.weight()), (1, EACH + 7));
        marks.collapse(&roots);
        assert_eq!((marks.len(), marks.weight()), (1, EACH + 2));
        assert!(marks.get(b"/a").is_some_and(|mark| mark.whole && mark.arm && mark.seen && !mark.came));
    }

    #[test]
    fn g11_only_an_empty_directory_that_was_watched_is_a_canary() {
        let name = b"/r/.egret-canary-0123456789abcdef".to_vec();
        let mut marks = Marks::default();
        marks.add(name.clone(), Mark { came: true, ..Mark::ALL });
        assert!(!marks.is_canary(&name), "nobody saw what was in it");
        marks.at(name.clone()).proof = true;
        assert!(marks.is_canary(&name));
        marks.add([name.as_slice(), b"/x"].concat(), Mark::default());
        assert!(!marks.is_canary(&name), "something happened inside");
    }

    #[test]
    fn c16_what_came_and_went_stays_known_whatever_moves_there_later() {
        let mut mark = Mark { file: true, ..Mark::default() };
        mark.comes(true);
        mark.goes();
        mark.comes(false);
        assert!(mark.vanished && mark.passed && !mark.came);
        let mut mark = Mark::default();
        mark.comes(false);
        mark.goes();
        assert!(!mark.vanished, "it had not come");
        mark.comes(true);
        mark.comes(true);
        assert!(mark.vanished && mark.came && !mark.passed, "one replaced the other, and both were directories");
    }
}
