//! Which symbolic links may lead to other content, after something else changed: no event names them. Pure.

use std::collections::HashSet;

use crate::fingerprint::{Device, Fingerprint, Inode, Kind};
use crate::view::{Path, View};

type Number = (Device, u64);

/// The links of a view to be looked at again, after what was `old` is now `new`. Where only the content of files changed,
/// those that lead to these files; where anything came, went, or is another inode, all links, as it may stand on their way.
pub(super) fn affected(view: &View, old: &View, new: &View) -> Vec<Path> {
    let same = |(path, print): (&Path, &Fingerprint)| {
        old.entries.get(path).is_some_and(|was| number(was) == number(print) && was.target == print.target)
    };
    let entries = |view: &View| view.entries.len();
    let stays = entries(old) == entries(new) && new.entries.iter().all(|(path, print)| same((path, print.as_ref())));
    let changed: HashSet<Number> = new.entries.values().filter_map(|print| number(print)).collect();
    let leads_there = |print: &Fingerprint| {
        let end = print.leads_to.as_ref().and_then(|end| end.inode);
        end.is_some_and(|inode| changed.contains(&(inode.device, inode.number)))
    };
    let links = view.entries.iter().filter(|(_, print)| print.kind == Kind::Symlink);
    links.filter(|(_, print)| !stays || leads_there(print)).map(|(path, _)| path.clone()).collect()
}

fn number(print: &Fingerprint) -> Option<Number> {
    print.inode.map(|Inode { device, number, .. }| (device, number))
}
