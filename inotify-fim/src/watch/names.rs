//! All names of a file that has several: an event names one, and the others changed with it. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::fingerprint::{Device, Fingerprint};
use crate::view::{Path, View};

/// The names of inodes with several, of each that was asked for: all that the view has of it.
#[derive(Default)]
pub(super) struct Names(HashMap<(Device, u64), BTreeSet<Path>>);

impl Names {
    /// Something stands at a path now, or nothing.
    pub(super) fn replace(&mut self, path: &Path, old: Option<&Fingerprint>, new: Option<&Fingerprint>) {
        if let Some(inode) = old.and_then(linked)
            && let Some(names) = self.0.get_mut(&inode)
        {
            names.remove(path);
            if names.is_empty() {
                self.0.remove(&inode);
            }
        }
        // Of an inode that is not listed it is not known which names there are beside this one.
        if let Some(names) = new.and_then(linked).and_then(|inode| self.0.get_mut(&inode)) {
            names.insert(Arc::clone(path));
        }
    }

    /// The other names in a view of what was at some paths, which are out of the view now, and is there now. The view is
    /// gone through only for inodes that it may have more names of and that were not asked for before.
    pub(super) fn others(&mut self, view: &View, old: &View, new: &View) -> Vec<Path> {
        let mut inodes: HashMap<(Device, u64), usize> = HashMap::new();
        for inode in old.entries.values().filter_map(|print| linked(print)) {
            inodes.insert(inode, usize::MAX);
        }
        for (inode, links) in new.entries.values().filter_map(|print| Some((linked(print)?, print.inode?.links))) {
            let missing = inodes.entry(inode).or_insert(links as usize);
            *missing = missing.saturating_sub(1);
        }
        inodes.retain(|_, missing| *missing > 0);
        self.find(view, inodes.keys().filter(|inode| !self.0.contains_key(inode)).copied().collect());
        let names = inodes.keys().filter_map(|inode| self.0.get(inode)).flatten();
        names.filter(|path| view.entries.contains_key(*path)).cloned().collect()
    }

    fn find(&mut self, view: &View, inodes: BTreeSet<(Device, u64)>) {
        if inodes.is_empty() {
            return;
        }
        for (path, print) in &view.entries {
            let inode = print.inode.map(|inode| (inode.device, inode.number)).filter(|inode| inodes.contains(inode));
            if let Some(inode) = inode {
                self.0.entry(inode).or_default().insert(Arc::clone(path));
            }
        }
        // That there is none is known as well, as long as one of its names is looked at.
        for inode in inodes {
            self.0.entry(inode).or_default();
        }
    }
}

/// Which inode it is, if that has several names.
pub(super) fn linked(print: &Fingerprint) -> Option<(Device, u64)> {
    print.inode.filter(|inode| inode.links > 1).map(|inode| (inode.device, inode.number))
}
