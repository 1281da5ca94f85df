//! Which paths must be looked at, and why. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::canary;
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
    /// Something was made there.
    pub(super) came: bool,
    /// It went to another name that is watched, which is where it is told.
    pub(super) went: bool,
    /// An event named it, or something in it.
    pub(super) seen: bool,
    /// Something else happened than that a directory came or went.
    pub(super) touched: bool,
}

impl Mark {
    /// All is looked at, and watched where it is not.
    pub(super) const ALL: Self = Self { whole: true, arm: true, came: false, went: false, seen: false, touched: false };
}

#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<Vec<u8>, Mark>);

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

    pub(super) fn get_mut(&mut self, path: &[u8]) -> Option<&mut Mark> {
        self.0.get_mut(path)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Mark)> {
        self.0.iter()
    }

    pub(super) fn add(&mut self, path: Vec<u8>, mark: Mark) {
        let known = self.0.entry(path).or_default();
        known.whole |= mark.whole;
        known.arm |= mark.arm;
        known.came |= mark.came;
        known.went |= mark.went;
        known.seen |= mark.seen;
        known.touched |= mark.touched;
    }

    /// Takes out those for which `goes` is true.
    pub(super) fn take(&mut self, mut goes: impl FnMut(&[u8], &Mark) -> bool) -> Self {
        let (gone, kept) = std::mem::take(&mut self.0).into_iter().partition(|(path, mark)| goes(path, mark));
        self.0 = kept;
        Self(gone)
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

    /// Whether an event led to this path: it named the path itself, or a tree that it is in.
    pub(super) fn was_seen(&self, path: &[u8]) -> bool {
        let mut around = ancestors(path).filter_map(|at| Some((at, self.0.get(at)?)));
        around.any(|(at, mark)| mark.seen && (mark.whole || at == path))
    }

    /// Whether all that is known of this path is that an empty directory with the name of a proof came and went.
    pub(super) fn is_canary(&self, path: &[u8]) -> bool {
        let below = below(path);
        let is_untouched = self.0.get(path).is_some_and(|mark| !mark.touched);
        let is_empty = || !self.0.range(below.clone()..).next().is_some_and(|(inside, _)| inside.starts_with(&below));
        canary::is_one(path) && is_untouched && is_empty()
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
    fn g11_only_an_empty_directory_that_came_and_went_is_a_canary() {
        let name = b"/r/.egret-canary-0123456789abcdef".to_vec();
        let mut marks = Marks::default();
        marks.add(name.clone(), Mark { came: true, ..Mark::ALL });
        assert!(marks.is_canary(&name));
        marks.add([name.as_slice(), b"/x"].concat(), Mark::default());
        assert!(!marks.is_canary(&name), "something happened inside");
        let mut marks = Marks::default();
        marks.add(name.clone(), Mark { touched: true, ..Mark::ALL });
        assert!(!marks.is_canary(&name), "something else happened to it");
        marks.add(b"/r/other".to_vec(), Mark::ALL);
        assert!(!marks.is_canary(b"/r/other"));
    }
}
