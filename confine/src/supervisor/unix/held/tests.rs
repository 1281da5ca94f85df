use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::address::{Address, parse};

fn socket() -> Shareable {
    Shareable::new(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap().0)
}

fn name(path: &[u8]) -> UnixName {
    match parse(&[&[1, 0], path].concat()) {
        Ok(Address::Unix(name)) => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn there_are_never_more_than_the_limit_and_the_oldest_goes() {
    let (held, socket) = (HeldUnix::default(), socket());
    for inode in 0..=MOST_HELD as u64 {
        held.hold(inode, socket.clone());
    }
    assert_eq!(held.count(), MOST_HELD);
    assert!(held.get(0).is_none() && held.get(1).is_some());
}

#[test]
fn what_has_a_path_goes_before_the_rest() {
    let held = HeldUnix::default();
    held.hold(1, socket());
    held.hold(2, socket());
    held.let_go_soon(1);
    held.let_go_of_old(Instant::now());
    assert_eq!(held.count(), 2);
    held.let_go_of_old(Instant::now() + LONGEST_BOUND);
    assert!(held.get(1).is_none() && held.get(2).is_some());
    held.let_go_of_old(Instant::now() + LONGEST_HELD);
    assert_eq!(held.count(), 0);
}

fn is_told(held: &HeldUnix, inode: u64, path: &[u8], hears: bool) -> bool {
    matches!(held.find(inode, name(path), || hears), Found::Told)
}

fn conclude(held: &HeldUnix, inode: u64, hears: bool) {
    held.conclude(inode, name(b"/a"), socket().socket, || hears);
}

#[test]
fn whoever_did_not_hear_is_told_until_it_does_and_nobody_else_is() {
    let held = HeldUnix::default();
    held.hold(1, socket());
    conclude(&held, 1, false);
    assert!(held.get(1).is_none(), "it is let go");
    assert!(!is_told(&held, 1, b"/b", true) && !is_told(&held, 2, b"/a", true));
    assert!(is_told(&held, 1, b"/a", false) && is_told(&held, 1, b"/a", true));
    assert!(!is_told(&held, 1, b"/a", true));
    conclude(&held, 1, true);
    assert!(!is_told(&held, 1, b"/a", true));
    conclude(&held, 1, false);
    held.hold(1, socket());
    assert!(matches!(held.find(1, name(b"/a"), || true), Found::Held(_)), "a number that is used again has no past");
    for inode in 0..2 * MOST_UNHEARD as u64 {
        conclude(&held, inode, false);
    }
    assert_eq!(held.tables().unheard.len(), MOST_UNHEARD);
}
