//! Views of any kind, for property tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::option;
use proptest::prelude::*;

use crate::fingerprint::{Device, Fingerprint, Flags, HashState, Inode, Kind, LeadsTo, Stamp, Xattr};
use crate::view::View;

pub(crate) fn view() -> impl Strategy<Value = View> {
    proptest::collection::btree_map(path(), fingerprint(), 0..6).prop_map(|found: BTreeMap<Vec<u8>, Fingerprint>| View {
        entries: found.into_iter().map(|(path, print)| (path.into(), Arc::new(print))).collect(),
    })
}

/// Absolute, of names that may hold anything.
pub(crate) fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 1..5)
        .prop_filter("a name", |name| !matches!(&name[..], b"." | b"..") && !name.contains(&0) && !name.contains(&b'/'));
    proptest::collection::vec(name, 0..3).prop_map(|names| [b"/".as_slice(), &names.join(&b'/')].concat())
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    let numbers = (0_u16..=0o7777, any::<u32>(), any::<u32>(), any::<u64>(), stamp());
    let value = || option::of(proptest::collection::vec(any::<u8>(), 0..4));
    let xattrs = [value(), value(), value()];
    let text = proptest::collection::vec(any::<u8>(), 0..8);
    (kind(), numbers, any::<(bool, bool)>(), text, xattrs, hash(), option::of(inode()), option::of(leads_to())).prop_map(
        |(kind, (mode, uid, gid, size, mtime), (immutable, append), text, xattrs, hash, inode, end)| Fingerprint {
            kind,
            mode,
            uid,
            gid,
            size: if kind == Kind::File { size } else { 0 },
            mtime,
            flags: Flags { immutable, append },
            target: (kind == Kind::Symlink).then(|| text.into()),
            xattrs: Xattr::ALL.into_iter().zip(xattrs).filter_map(|(which, value)| Some((which, value?.into()))).collect(),
            hash: if kind == Kind::File { hash } else { HashState::NotRegular },
            inode,
            extends: None,
            last: None,
            leads_to: end.filter(|_| kind == Kind::Symlink).map(Box::new),
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::File),
        1 => Just(Kind::Directory),
        1 => Just(Kind::Symlink),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
        1 => device().prop_map(Kind::Character),
        1 => device().prop_map(Kind::Block),
    ]
}

fn hash() -> impl Strategy<Value = HashState> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(HashState::Done),
        Just(HashState::TooLarge),
        Just(HashState::Unstable),
        Just(HashState::NotRead),
        any::<i32>().prop_map(HashState::Unreadable),
    ]
}

fn leads_to() -> impl Strategy<Value = LeadsTo> {
    let here = option::of((inode(), any::<u64>(), stamp()));
    (here, hash()).prop_map(|(here, hash)| match here {
        Some((inode, size, mtime)) => LeadsTo { inode: Some(inode), size, mtime, hash },
        None => LeadsTo { inode: None, size: 0, mtime: Stamp::default(), hash },
    })
}

fn inode() -> impl Strategy<Value = Inode> {
    (device(), any::<u64>(), any::<u32>(), option::of(stamp()), option::of(stamp()))
        .prop_map(|(device, number, links, born, changed)| Inode { device, number, links, born, changed })
}

fn device() -> impl Strategy<Value = Device> {
    any::<(u32, u32)>().prop_map(|(major, minor)| Device { major, minor })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (any::<i64>(), 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| Stamp { seconds, nanos })
}
