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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fingerprint::{Flags, HashState, LeadsTo, Stamp};

    fn print(kind: Kind, number: u64, end: Option<u64>) -> Fingerprint {
        let inode = |number| Inode { device: Device { major: 8, minor: 1 }, number, links: 1, born: None, changed: None };
        let hash = HashState::NotRegular;
        let end = end.map(|end| LeadsTo { inode: Some(inode(end)), size: 0, mtime: Stamp::default(), hash });
        Fingerprint {
            kind,
            mode: 0o777,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Stamp::default(),
            flags: Flags::default(),
            target: None,
            xattrs: Box::default(),
            hash,
            inode: Some(inode(number)),
            extends: None,
            last: None,
            leads_to: end.map(Box::new),
        }
    }

    fn view<const N: usize>(entries: [(&str, Fingerprint); N]) -> View {
        View { entries: entries.into_iter().map(|(path, print)| (path.as_bytes().into(), Arc::new(print))).collect() }
    }

    #[test]
    fn d14_links_are_looked_at_again_where_something_may_have_changed_on_their_way() {
        let all = view([
            ("/file", print(Kind::File, 9, None)),
            ("/to-1", print(Kind::Symlink, 7, Some(1))),
            ("/to-2", print(Kind::Symlink, 8, Some(2))),
        ]);
        let names = |old: &View, new: &View| affected(&all, old, new).iter().map(|path| path.to_vec()).collect::<Vec<_>>();
        let file = |number| view([("/f", print(Kind::File, number, None))]);
        let (one, both) = (vec![b"/to-1".to_vec()], vec![b"/to-1".to_vec(), b"/to-2".to_vec()]);
        assert_eq!(names(&file(1), &file(1)), one, "its content may be another");
        assert!(names(&file(3), &file(3)).is_empty() && names(&View::default(), &View::default()).is_empty());
        assert_eq!(names(&file(1), &file(3)), both, "another file stands there");
        assert_eq!((names(&View::default(), &file(3)), names(&file(3), &View::default())), (both.clone(), both.clone()));
        let link =
            |text: &str| view([("/l", Fingerprint { target: Some(text.as_bytes().into()), ..print(Kind::Symlink, 3, None) })]);
        assert_eq!((names(&link("a"), &link("b")), names(&link("a"), &link("a"))), (both, Vec::new()));
    }
}
