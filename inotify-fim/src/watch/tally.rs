//! Numbers that are kept while it watches, for the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::event::{Cause, Source};
use crate::ledger::{Ledger, Root};
use crate::roots::Roots;
use crate::view::View;

#[derive(Default)]
pub(super) struct Tally {
    /// How many paths each root has.
    entries: BTreeMap<Vec<u8>, usize>,
    /// Roots that were learned.
    learned: BTreeSet<Vec<u8>>,
    pub(super) excluded: u64,
    pub(super) excluded_transients: u64,
    compared: BTreeMap<Source, SystemTime>,
    gaps: u64,
    overflows: u64,
    pub(super) clock_jumps: u64,
    pub(super) repaired: u64,
    pub(super) collapsed: u64,
}

impl Tally {
    /// Counts a view from the start.
    pub(super) fn new(roots: &Roots, view: &View, learned: BTreeSet<Vec<u8>>) -> Self {
        let entries = roots.iter().map(|(root, _)| (root.to_vec(), 0)).collect();
        let mut tally = Self { entries, learned, ..Self::default() };
        tally.add(roots, view);
        tally
    }

    pub(super) fn add(&mut self, roots: &Roots, came: &View) {
        for root in came.entries.keys().filter_map(|path| roots.of(path)) {
            if let Some(count) = self.entries.get_mut(root.0) {
                *count += 1;
            }
        }
    }

    pub(super) fn subtract(&mut self, roots: &Roots, went: &View) {
        for root in went.entries.keys().filter_map(|path| roots.of(path)) {
            if let Some(count) = self.entries.get_mut(root.0) {
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(super) fn gap(&mut self, cause: Cause) {
        self.gaps += 1;
        self.overflows += u64::from(cause == Cause::Kernel);
    }

    pub(super) fn compared(&mut self, source: Source) {
        self.compared.insert(source, SystemTime::now());
    }

    pub(super) fn write(&self, view: &View, ledger: &mut Ledger) {
        let root = |(path, entries): (&Vec<u8>, &usize)| Root {
            path: path.clone(),
            learned: self.learned.contains(path),
            present: view.entries.contains_key(path.as_slice()),
            entries: *entries,
        };
        ledger.roots = self.entries.iter().map(root).collect();
        ledger.entries = view.entries.len();
        (ledger.excluded, ledger.excluded_transients) = (self.excluded, self.excluded_transients);
        ledger.compared.clone_from(&self.compared);
        (ledger.gaps, ledger.overflows) = (self.gaps, self.overflows);
        ledger.collapsed = self.collapsed;
        (ledger.clock_jumps, ledger.repaired) = (self.clock_jumps, self.repaired);
    }
}
