//! Symbolic links and what they lead to: an event names the file that was written or swapped, not the links that lead
//! there. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::fingerprint::{Device, Fingerprint};
use crate::view::{Path, View};

/// The links of a view.
#[derive(Default)]
pub(super) struct Links {
    /// What each of them leads to, as far as that is known.
    ends: BTreeMap<Path, Option<(Device, u64)>>,
    /// How often each name is on the way of a link.
    names: HashMap<Box<[u8]>, usize>,
}

impl Links {
    /// Something stands at a path now, or nothing.
    pub(super) fn replace(&mut self, path: &Path, old: Option<&Fingerprint>, new: Option<&Fingerprint>) {
        if let Some(target) = old.and_then(|old| old.target.as_ref()).filter(|_| self.ends.remove(path).is_some()) {
            for name in names(target) {
                if let Some(count) = self.names.get_mut(name) {
                    *count -= 1;
                    if *count == 0 {
                        self.names.remove(name);
                    }
                }
            }
        }
        let Some((new, target)) = new.and_then(|new| Some((new, new.target.as_ref()?))) else { return };
        let end = new.leads_to.as_ref().and_then(|end| end.inode).map(|inode| (inode.device, inode.number));
        self.ends.insert(Arc::clone(path), end);
        names(target).for_each(|name| *self.names.entry(name.into()).or_default() += 1);
    }

    /// The links that may lead elsewhere now, after what differs between these two views.
    pub(super) fn concerned(&self, old: &View, new: &View) -> Vec<Path> {
        if self.ends.is_empty() {
            return Vec::new();
        }
        let paths: BTreeSet<&Path> = old.entries.keys().chain(new.entries.keys()).collect();
        let mut files = HashSet::new();
        let mut is_way = false;
        for path in paths {
            let (was, is) = (old.entries.get(path), new.entries.get(path));
            if was == is {
                continue;
            }
            files.extend([was, is].into_iter().flatten().filter_map(|print| identity(print)));
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let is_same = was.zip(is).is_some_and(|(was, is)| identity(was) == identity(is) && was.target == is.target);
            is_way |= !is_same && self.names.contains_key(name);
        }
        let leads = |end: &Option<(Device, u64)>| is_way || end.is_some_and(|end| files.contains(&end));
        self.ends.iter().filter(|(_, end)| leads(end)).map(|(path, _)| Arc::clone(path)).collect()
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
        let both = vec![Arc::clone(&to_one), Arc::clone(&to_two)];
        assert_eq!(links.concerned(&file("/f", 1, 1), &file("/f", 1, 2)), [Arc::clone(&to_one)], "the file that it leads to");
        assert!(links.concerned(&file("/f", 3, 1), &file("/f", 3, 2)).is_empty());
        assert!(links.concerned(&file("/f", 1, 1), &file("/f", 1, 1)).is_empty(), "nothing changed");
        assert!(links.concerned(&none, &file("/new", 3, 1)).is_empty(), "no link goes by that name");
        assert_eq!(links.concerned(&none, &file("/a/..data", 3, 1)), both, "one may");
        assert_eq!(links.concerned(&file("/two", 3, 1), &file("/two", 4, 1)), both, "another stands there");
        assert!(links.concerned(&file("/two", 3, 1), &file("/two", 3, 2)).is_empty(), "the same stands there");
        links.replace(&to_two, Some(&two), None);
        assert!(links.concerned(&file("/two", 3, 1), &file("/two", 4, 1)).is_empty(), "it is gone, and its way with it");
    }
}
