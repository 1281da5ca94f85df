//! Symbolic links and what they lead to: an event names the file that was written or swapped, not the links that lead
//! there. Pure.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::fingerprint::{Device, Fingerprint};
use crate::view::{Path, View};

/// The links of a view.
#[derive(Default)]
pub(super) struct Links {
    /// What each of them leads to, as far as that is known.
    ends: BTreeMap<Path, Option<(Device, u64)>>,
    /// The links that lead to a file.
    to: HashMap<(Device, u64), BTreeSet<Path>>,
    /// The links that have a name in their text.
    names: HashMap<Box<[u8]>, BTreeSet<Path>>,
}

impl Links {
    /// Something stands at a path now, or nothing.
    pub(super) fn replace(&mut self, path: &Path, old: Option<&Fingerprint>, new: Option<&Fingerprint>) {
        let end = self.ends.get(path).copied();
        if let Some((end, target)) = end.zip(old.and_then(|old| old.target.as_ref())) {
            self.ends.remove(path);
            if let Some(end) = end {
                part(&mut self.to, &end, path);
            }
            names(target).for_each(|name| part(&mut self.names, name, path));
        }
        let Some((new, target)) = new.and_then(|new| Some((new, new.target.as_ref()?))) else { return };
        let end = new.leads_to.as_ref().and_then(|end| end.inode).map(|inode| (inode.device, inode.number));
        self.ends.insert(Arc::clone(path), end);
        if let Some(end) = end {
            self.to.entry(end).or_default().insert(Arc::clone(path));
        }
        for name in names(target) {
            self.names.entry(name.into()).or_default().insert(Arc::clone(path));
        }
    }

    /// The links that may lead elsewhere now, after what differs between these two views: those that lead to a file that
    /// changed, or have a name in their text where something else stands, and those that lead over such a link.
    pub(super) fn concerned(&self, old: &View, new: &View) -> Vec<Path> {
        if self.ends.is_empty() {
            return Vec::new();
        }
        let paths: BTreeSet<&Path> = old.entries.keys().chain(new.entries.keys()).collect();
        let (mut found, mut changed) = (BTreeSet::new(), Vec::new());
        for path in paths {
            let (was, is) = (old.entries.get(path), new.entries.get(path));
            if was == is {
                continue;
            }
            let inodes = [was, is].into_iter().flatten().filter_map(|print| identity(print));
            found.extend(inodes.filter_map(|inode| self.to.get(&inode)).flatten());
            let is_same = was.zip(is).is_some_and(|(was, is)| identity(was) == identity(is) && was.target == is.target);
            if !is_same {
                changed.push(last_name(path));
            }
        }
        let mut seen = HashSet::new();
        while let Some(name) = changed.pop() {
            if !seen.insert(name) {
                continue;
            }
            for path in self.names.get(name).into_iter().flatten() {
                found.insert(path);
                changed.push(last_name(path));
            }
        }
        found.into_iter().cloned().collect()
    }
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Parts a link from what it is listed under.
fn part<K: Hash + Eq + Borrow<Q>, Q: Hash + Eq + ?Sized>(lists: &mut HashMap<K, BTreeSet<Path>>, key: &Q, path: &Path) {
    let Some(links) = lists.get_mut(key) else { return };
    links.remove(path);
    if links.is_empty() {
        lists.remove(key);
    }
}

fn identity(print: &Fingerprint) -> Option<(Device, u64)> {
    print.inode.map(|inode| (inode.device, inode.number))
}

/// The names that a link's text goes by.
fn names(target: &[u8]) -> impl Iterator<Item = &[u8]> {
    target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::{Flags, HashState, Inode, Kind, LeadsTo, Stamp};

    fn print(kind: Kind, number: u64, mode: u16) -> Fingerprint {
        let inode = Inode { device: Device { major: 8, minor: 1 }, number, links: 1, born: None, changed: None };
        Fingerprint {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Stamp::default(),
            flags: Flags::default(),
            target: None,
            xattrs: Box::default(),
            hash: HashState::NotRegular,
            inode: Some(inode),
            extends: None,
            last: None,
            leads_to: None,
        }
    }

    fn link(number: u64, text: &str, end: u64) -> Fingerprint {
        let hash = HashState::NotRegular;
        let end = LeadsTo { inode: print(Kind::File, end, 0).inode, size: 0, mtime: Stamp::default(), hash };
        let target = Some(text.as_bytes().into());
        Fingerprint { target, leads_to: Some(Box::new(end)), ..print(Kind::Symlink, number, 0o777) }
    }

    fn view(path: &str, print: Fingerprint) -> View {
        View { entries: [(path.as_bytes().into(), Arc::new(print))].into_iter().collect() }
    }

    #[test]
    fn d14_links_are_looked_at_again_where_something_may_have_changed_on_their_way() {
        let mut links = Links::default();
        let (one, two) = (link(7, "..data/one", 1), link(8, "/x/two", 2));
        let [to_one, to_two] = ["/to-1", "/to-2"].map(|path| Path::from(path.as_bytes()));
        links.replace(&to_one, None, Some(&one));
        links.replace(&to_two, None, Some(&two));
        let file = |path, number, mode| view(path, print(Kind::File, number, mode));
        let none = View::default();
        assert_eq!(links.concerned(&file("/f", 1, 1), &file("/f", 1, 2)), [Arc::clone(&to_one)], "the file that it leads to");
        assert!(links.concerned(&file("/f", 3, 1), &file("/f", 3, 2)).is_empty());
        assert!(links.concerned(&file("/f", 1, 1), &file("/f", 1, 1)).is_empty(), "nothing changed");
        assert!(links.concerned(&none, &file("/new", 3, 1)).is_empty(), "no link goes by that name");
        assert_eq!(links.concerned(&none, &file("/a/..data", 3, 1)), [Arc::clone(&to_one)], "one may");
        assert_eq!(links.concerned(&file("/two", 3, 1), &file("/two", 4, 1)), [Arc::clone(&to_two)], "another stands there");
        let (far, over) = (Path::from(b"/far".as_slice()), link(9, "to-1", 1));
        links.replace(&far, None, Some(&over));
        let found = links.concerned(&none, &file("/a/..data", 3, 1));
        assert_eq!(found, [Arc::clone(&far), Arc::clone(&to_one)], "one leads over the other");
        links.replace(&far, Some(&over), None);
        assert!(links.concerned(&file("/two", 3, 1), &file("/two", 3, 2)).is_empty(), "the same stands there");
        links.replace(&to_two, Some(&two), None);
        assert!(links.concerned(&file("/two", 3, 1), &file("/two", 4, 1)).is_empty(), "it is gone, and its way with it");
    }
}
