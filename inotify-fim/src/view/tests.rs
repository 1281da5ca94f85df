use proptest::prelude::*;

use super::*;
use crate::arbitrary;
use crate::fingerprint::{Device, Flags, LeadsTo, Stamp};

fn file(content: u8, inode: u64) -> Fingerprint {
    Fingerprint {
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 1,
        mtime: Stamp { seconds: i64::from(content), nanos: 0 },
        flags: Flags::default(),
        target: None,
        xattrs: Box::default(),
        hash: HashState::Done([content; 32]),
        inode: Some(Inode {
            device: Device { major: 8, minor: 1 },
            number: inode,
            links: 1,
            born: Some(Stamp::default()),
            changed: None,
        }),
        extends: None,
        last: None,
        leads_to: None,
    }
}

fn view<const N: usize>(entries: [(&str, Fingerprint); N]) -> View {
    View { entries: entries.into_iter().map(|(path, print)| (path.as_bytes().into(), Arc::new(print))).collect() }
}

fn changes(old: &View, new: &View) -> Vec<(String, Change)> {
    compare(old, new).into_iter().map(|found| (String::from_utf8(found.path.to_vec()).unwrap(), found.change)).collect()
}

fn one(old: Fingerprint, new: Fingerprint) -> Option<(Change, Vec<Attribute>)> {
    let mut found = compare(&view([("/f", old)]), &view([("/f", new)]));
    found.pop().map(|found| (found.change.clone(), found.attributes()))
}

#[test]
fn created_and_deleted_are_told_in_the_order_of_paths() {
    let (old, new) = (view([("/a", file(1, 1)), ("/c", file(1, 3))]), view([("/b", file(1, 2)), ("/c", file(1, 3))]));
    assert_eq!(changes(&old, &new), [("/a".into(), Change::Deleted), ("/b".into(), Change::Created)]);
    assert_eq!(changes(&new, &new), []);
}

#[test]
fn times_in_what_was_written_for_other_machines_count_where_nothing_better_tells_and_to_the_second() {
    let was = file(1, 1).portable();
    let at = |seconds, nanos| Fingerprint { mtime: Stamp { seconds, nanos }, ..file(1, 1) };
    assert_eq!(one(was.clone(), at(77, 0)), None, "the hash tells");
    let unread = |print: Fingerprint| Fingerprint { hash: HashState::NotRead, ..print };
    assert_eq!(one(was.clone(), unread(at(1, 5))), None, "a layer of an image keeps whole seconds");
    let changed = Some((Change::Modified, vec![Attribute::Mtime]));
    assert_eq!(one(was.clone(), unread(at(2, 0))), changed);
    assert_eq!(one(file(1, 1), unread(at(1, 5))), changed, "on one machine every nanosecond counts");
    let pipe = |print: Fingerprint| Fingerprint { kind: Kind::Fifo, hash: HashState::NotRegular, size: 0, ..print };
    assert_eq!(one(pipe(was), pipe(at(77, 0))), None);
}

#[test]
fn content_attributes_and_type_are_told_apart() {
    let was = file(1, 1);
    let chmod = Fingerprint { mode: 0o4755, ..was.clone() };
    assert_eq!(one(was.clone(), chmod), Some((Change::Attributes, vec![Attribute::Mode])));
    let touched = Fingerprint { mtime: Stamp::default(), ..was.clone() };
    assert_eq!(one(was.clone(), touched), Some((Change::Attributes, vec![Attribute::Mtime])));
    // The old time and size put back: only the hash tells.
    let rewritten = Fingerprint { hash: HashState::Done([9; 32]), ..was.clone() };
    assert_eq!(one(was.clone(), rewritten), Some((Change::Modified, vec![Attribute::Hash])));
    let hidden = Fingerprint { hash: HashState::Unreadable(13), ..was.clone() };
    assert_eq!(one(was.clone(), hidden), Some((Change::Attributes, vec![Attribute::HashState])));
    let link = Fingerprint { kind: Kind::Symlink, hash: HashState::NotRegular, target: Some(b"/x"[..].into()), ..was.clone() };
    assert_eq!(one(was.clone(), link.clone()).unwrap().0, Change::Type);
    let turned = Fingerprint { target: Some(b"/y"[..].into()), ..link.clone() };
    assert_eq!(one(link, turned), Some((Change::Modified, vec![Attribute::Target])));
    let linked = Fingerprint { inode: was.inode.map(|inode| Inode { links: 2, ..inode }), ..was.clone() };
    assert_eq!(one(was, linked), Some((Change::Attributes, vec![Attribute::Links])));
}

#[test]
fn another_inode_with_all_else_the_same_is_no_change() {
    assert_eq!(one(file(1, 1), file(1, 2)), None);
    assert_eq!(one(file(1, 1).portable(), file(1, 2)), None);
}

#[test]
fn where_there_is_no_hash_size_and_time_tell() {
    let large = Fingerprint { hash: HashState::TooLarge, ..file(1, 1) };
    let grown = Fingerprint { size: 2, ..large.clone() };
    assert_eq!(one(large.clone(), large.clone()), None);
    assert_eq!(one(large, grown), Some((Change::Modified, vec![Attribute::Size])));
}

#[test]
fn the_same_inode_elsewhere_is_a_move_and_may_have_changed_too() {
    let (old, new) = (view([("/old", file(1, 1))]), view([("/new", file(2, 1))]));
    let found = compare(&old, &new);
    assert_eq!(found[0].change, Change::Moved { from: b"/old"[..].into() });
    assert_eq!((found.len(), found[0].attributes()), (1, vec![Attribute::Mtime, Attribute::Hash]));
}

#[test]
fn a_number_given_anew_is_no_move() {
    let reborn = |mut print: Fingerprint, born| {
        print.inode = print.inode.map(|inode| Inode { born, ..inode });
        print
    };
    let apart = [("/new".into(), Change::Created), ("/old".into(), Change::Deleted)];
    let later = reborn(file(1, 1), Some(Stamp { seconds: 7, nanos: 0 }));
    assert_eq!(changes(&view([("/old", file(1, 1))]), &view([("/new", later)])), apart);
    let old = view([("/old", reborn(file(1, 1), None))]);
    assert_eq!(changes(&old, &view([("/new", reborn(file(2, 1), None))])), apart);
    let moved = changes(&old, &view([("/new", reborn(file(1, 1), None))]));
    assert_eq!(moved, [("/new".into(), Change::Moved { from: b"/old"[..].into() })]);
}

#[test]
fn a_tree_is_its_top_and_all_below_and_not_its_neighbours() {
    let mut all =
        view([("/a", file(1, 1)), ("/a-b", file(1, 2)), ("/a/b", file(1, 3)), ("/a/b/c", file(1, 4)), ("/ab", file(1, 5))]);
    let keys = |view: &View| view.entries.keys().map(|path| String::from_utf8(path.to_vec()).unwrap()).collect::<Vec<_>>();
    let taken = all.take_tree(b"/a");
    assert_eq!(keys(&taken), ["/a", "/a/b", "/a/b/c"]);
    assert_eq!(keys(&all), ["/a-b", "/ab"]);
    assert_eq!(all.tree(b"/").count(), 2);
    assert_eq!(view([("/", file(1, 1)), ("/a", file(1, 2))]).tree(b"/").count(), 2);
}

#[test]
fn e08_content_that_begins_with_the_old_one_is_appended() {
    let was = file(1, 1);
    let grown = |beginning| Fingerprint { size: 2, extends: Some(Box::new([beginning; 32])), ..file(2, 1) };
    let told = vec![Attribute::Size, Attribute::Mtime, Attribute::Hash];
    assert_eq!(one(was.clone(), grown(1)), Some((Change::Appended, told.clone())));
    assert_eq!(one(was.clone(), grown(9)), Some((Change::Modified, told)), "with another one");
    assert_eq!(one(grown(1), grown(1)), None);
}

#[test]
fn e11_while_there_is_no_hash_the_last_one_stands_in() {
    let hidden = |last| Fingerprint { hash: HashState::Unreadable(13), last: Some(Box::new([last; 32])), ..file(1, 1) };
    assert_eq!(one(hidden(1), file(1, 1)), Some((Change::Attributes, vec![Attribute::HashState])));
    let told = vec![Attribute::Hash, Attribute::HashState];
    assert_eq!(one(hidden(7), file(1, 1)), Some((Change::Modified, told)), "though size and time are the same");
    assert_eq!(one(hidden(1), hidden(1)), None);
}

#[test]
fn what_was_not_asked_for_does_not_differ() {
    let stat_only = Fingerprint { hash: HashState::NotRead, ..file(1, 1) };
    assert_eq!(one(file(1, 1), stat_only.clone()), None);
    let longer = Fingerprint { size: 2, ..stat_only.clone() };
    assert_eq!(one(stat_only, longer), Some((Change::Modified, vec![Attribute::Size])));
}

#[test]
fn d14_a_link_that_leads_to_other_content_is_effective() {
    let link = |end: Option<LeadsTo>| {
        let target = Some(b"x"[..].into());
        Fingerprint {
            kind: Kind::Symlink,
            size: 0,
            hash: HashState::NotRegular,
            target,
            leads_to: end.map(Box::new),
            ..file(1, 1)
        }
    };
    let end = |number, hash| {
        let inode = file(0, number).inode;
        Some(LeadsTo { inode, size: 1, mtime: Stamp::default(), hash })
    };
    let done = |hash| HashState::Done([hash; 32]);
    let told = Some((Change::Effective, vec![Attribute::LeadsTo]));
    for (old, new, expected) in [
        (end(1, done(1)), end(2, done(2)), &told),
        (end(1, done(1)), end(2, done(1)), &None),
        (end(1, done(1)), None, &told),
        (None, end(1, done(1)), &told),
        (end(1, HashState::TooLarge), end(2, HashState::TooLarge), &told),
        (end(1, HashState::TooLarge), end(1, HashState::TooLarge), &None),
    ] {
        assert_eq!(one(link(old), link(new)), *expected, "{old:?} {new:?}");
    }
    // Of another machine only the hash is known.
    assert_eq!(one(link(end(1, HashState::TooLarge)).portable(), link(end(2, HashState::TooLarge))), None);
    assert_eq!(one(link(end(1, done(1))).portable(), link(end(2, done(2)))), told);
}

proptest! {
    /// Each difference done to the old view makes the new one, but for what is no difference.
    #[test]
    fn differences_lead_from_one_view_to_the_other(old in arbitrary::view(), new in arbitrary::view()) {
        let mut view = old.clone();
        let found = compare(&old, &new);
        for Difference { path, change, new, .. } in &found {
            if let Change::Moved { from } = change {
                view.entries.remove(from);
            }
            match new {
                Some(print) => view.entries.insert(path.clone(), print.clone()),
                None => view.entries.remove(path),
            };
        }
        prop_assert_eq!(view.entries.keys().collect::<Vec<_>>(), new.entries.keys().collect::<Vec<_>>());
        prop_assert_eq!(compare(&view, &new), []);
        prop_assert_eq!(compare(&new, &new), []);
        prop_assert!(found.is_sorted_by(|one, other| one.path < other.path));
    }
}
