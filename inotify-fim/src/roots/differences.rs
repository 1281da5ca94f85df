//! What differs between two views, to whoever looks at each tree in its own way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Content, Roots};
use crate::fingerprint::{Fingerprint, HashState, Inode, Kind, Stamp};
use crate::view::{Change, Difference, Path, View, changed, compare, difference, identity, is_same_file};

impl Roots {
    /// All differences that count, sorted by path, as [`compare`] tells them, but for this:
    ///
    /// - What `old` holds and a scan would leave out was not deleted: an image's manifest has all, a policy need not.
    /// - Where content does not count, neither it nor size and time differ.
    /// - A log that may only grow and was renamed is a move, even if another one stands in its place.
    /// - Another file in the place of such a log, which was not renamed, is a modification, whatever it begins with.
    #[must_use]
    pub fn differences(&self, old: &View, new: &View) -> Vec<Difference> {
        let rotated = self.rotated(old, new);
        let mut found: Vec<Difference> = compare(old, new).into_iter().filter_map(|found| self.counted(found)).collect();
        let replaced = self.replaced(old, new, &rotated);
        if !rotated.is_empty() || !replaced.is_empty() {
            found.retain(|difference| !replaced.contains_key(&difference.path) || difference.change == Change::Type);
            found.extend(replaced.into_values());
            found.retain(|difference| !rotated.contains_key(&difference.path));
            found.extend(rotated.into_values().flatten());
            found.sort_by(|one, other| one.path.cmp(&other.path));
        }
        found
    }

    /// A difference, as far as it is one to whoever looks in the way of the tree.
    fn counted(&self, found: Difference) -> Option<Difference> {
        let Difference { path, change, old, new } = found;
        let from = if let Change::Moved { from } = &change { from } else { &path };
        let old_counts = old.as_ref().is_none_or(|print| self.counts(from, print.kind, print.mode));
        let new_counts = new.as_ref().is_none_or(|print| self.counts(&path, print.kind, print.mode));
        match (old_counts, new_counts, &change) {
            (true, true, Change::Modified | Change::Attributes) if self.content(&path) == Some(Content::Attributes) => {
                let change = changed(&without_content(old.as_ref()?), &without_content(new.as_ref()?))?;
                Some(Difference { path, change, old, new })
            }
            (true, true, _) => Some(Difference { path, change, old, new }),
            (true, false, Change::Moved { from }) => Some(difference(&Arc::clone(from), Change::Deleted, old.as_ref(), None)),
            (false, true, _) if new.is_some() => Some(difference(&path, Change::Created, None, new.as_ref())),
            (true, false, _) if old.is_some() => Some(difference(&path, Change::Deleted, old.as_ref(), None)),
            _ => None,
        }
    }

    fn content(&self, path: &[u8]) -> Option<Content> {
        self.of(path).map(|(_, how)| how.content)
    }

    /// What happened at the paths of logs that another log now stands at, or that stood there before.
    fn rotated(&self, old: &View, new: &View) -> BTreeMap<Path, Vec<Difference>> {
        let mut found = BTreeMap::new();
        let came_from: HashMap<(Inode, Kind), &Path> = self.logs(old).collect();
        let stands: HashMap<(Inode, Kind), &Path> = self.logs(new).collect();
        for (which, path) in self.logs(new) {
            let print = &new.entries[path];
            let from = came_from.get(&which).filter(|from| **from != path && stands.get(&which) == Some(&path));
            let from = from.filter(|from| is_same_file(&old.entries[**from], print));
            let Some(from) = from.filter(|from| new.entries.get(**from).is_some_and(|now| identity(now) != Some(which))) else {
                continue;
            };
            let moved = Change::Moved { from: Arc::clone(from) };
            let before = old.entries.get(path).filter(|was| identity(was).is_none_or(|was| !stands.contains_key(&was)));
            let lost = before.map(|was| difference(path, Change::Deleted, Some(was), None));
            found.insert(
                Arc::clone(path),
                lost.into_iter().chain([difference(path, moved, old.entries.get(*from), Some(print))]).collect(),
            );
            // Unless that is a log that was moved there itself.
            let fresh = new.entries.get(*from).filter(|now| identity(now).is_none_or(|now| !came_from.contains_key(&now)));
            if let Some(now) = fresh {
                found.insert(Arc::clone(from), vec![difference(from, Change::Created, None, Some(now))]);
            }
        }
        found
    }

    /// The logs that were not renamed, and in whose place another file stands: whoever writes on into the old one is cut off.
    fn replaced(&self, old: &View, new: &View, rotated: &BTreeMap<Path, Vec<Difference>>) -> BTreeMap<Path, Difference> {
        let trees = self.iter().filter(|(_, how)| how.content == Content::Append).flat_map(|(root, _)| new.tree(root));
        let files = trees.filter(|(path, now)| now.kind == Kind::File && self.content(path) == Some(Content::Append));
        files
            .filter(|(path, now)| !rotated.contains_key(*path) && self.counts(path, now.kind, now.mode))
            .filter_map(|(path, now)| {
                let was = old.entries.get(path).filter(|was| was.kind == Kind::File && is_another(was, now))?;
                Some((Arc::clone(path), difference(path, Change::Modified, Some(was), Some(now))))
            })
            .collect()
    }

    /// The files that may only grow, by what stays of them while they are moved. Of several names of one inode, none: they
    /// cannot be told from a move.
    fn logs<'a>(&'a self, view: &'a View) -> impl Iterator<Item = ((Inode, Kind), &'a Path)> {
        let has_one_name = |print: &Fingerprint| print.inode.is_some_and(|inode| inode.links == 1);
        let trees = self.iter().filter(|(_, how)| how.content == Content::Append).flat_map(|(root, _)| view.tree(root));
        let files = trees.filter(move |(_, print)| print.kind == Kind::File && has_one_name(print));
        files
            .filter(|(path, _)| self.content(path) == Some(Content::Append))
            .filter_map(|(path, print)| Some((identity(print)?, path)))
    }
}

/// Whether these are two files, as far as both are known. The number of a device may be another after each mount.
fn is_another(was: &Fingerprint, now: &Fingerprint) -> bool {
    was.inode.zip(now.inode).is_some_and(|(was, now)| {
        was.number != now.number || was.born.zip(now.born).is_some_and(|(before, after)| before != after)
    })
}

fn without_content(print: &Fingerprint) -> Fingerprint {
    let hash = if print.kind == Kind::File { HashState::NotRead } else { print.hash };
    Fingerprint { size: 0, mtime: Stamp::default(), hash, extends: None, last: None, leads_to: None, ..print.clone() }
}
