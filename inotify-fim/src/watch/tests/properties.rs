//! B15: whatever happens, and whenever it is read, the view ends as that of a fresh scan.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags};

use super::world::World;
use crate::watch::event::{Cause, Source};
use crate::watch::reader;

/// One thing that somebody does below the root, or that the watch does meanwhile.
#[derive(Clone, Debug)]
enum Act {
    Write(String, u8),
    Directory(String),
    Remove(String),
    Rename(String, String),
    Exchange(String, String),
    Out(String, u8),
    In(u8, String),
    Link(String, String),
    HardLink(String, String),
    Mode(String, u32),
    Read,
    Reconcile,
    Lose,
}

fn act(deep: usize) -> impl Strategy<Value = Act> {
    let name = move || proptest::collection::vec(prop_oneof![Just("a"), Just("b")], 1..=deep).prop_map(|names| names.join("/"));
    prop_oneof![
        5 => (name(), any::<u8>()).prop_map(|(name, content)| Act::Write(name, content)),
        3 => name().prop_map(Act::Directory),
        2 => name().prop_map(Act::Remove),
        3 => (name(), name()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (name(), name()).prop_map(|(from, to)| Act::Exchange(from, to)),
        1 => (name(), 0_u8..3).prop_map(|(from, to)| Act::Out(from, to)),
        1 => (0_u8..3, name()).prop_map(|(from, to)| Act::In(from, to)),
        1 => (name(), name()).prop_map(|(target, name)| Act::Link(target, name)),
        3 => (name(), name()).prop_map(|(from, to)| Act::HardLink(from, to)),
        1 => (name(), 0_u32..8).prop_map(|(name, mode)| Act::Mode(name, 0o700 + mode)),
        2 => Just(Act::Read),
        2 => Just(Act::Reconcile),
        1 => Just(Act::Lose),
    ]
}

/// Does it, as far as it can be done.
fn play(world: &mut World, act: &Act) {
    match act {
        Act::Read => drop(world.read()),
        Act::Reconcile => world.reconcile(),
        Act::Lose => {
            // As if the queue had overflowed: what waits is thrown away.
            while !reader::read(&world.inotify, &mut [0; 4096]).unwrap().is_empty() {}
            world.reconciler.lost(Cause::Kernel, &mut |_| {});
        }
        act => drop(change(world, act)),
    }
}

fn change(world: &World, act: &Act) -> std::io::Result<()> {
    let at = |name: &String| world.at(name);
    match act {
        // A new file in place of a link, as its target may be outside.
        Act::Write(name, _) if at(name).is_symlink() => fs::remove_file(at(name)),
        Act::Write(name, content) => fs::write(at(name), [*content]),
        Act::Directory(name) => fs::create_dir_all(at(name)),
        Act::Remove(name) if at(name).is_dir() && !at(name).is_symlink() => fs::remove_dir_all(at(name)),
        Act::Remove(name) => fs::remove_file(at(name)),
        Act::Rename(from, to) => fs::rename(at(from), at(to)),
        Act::Exchange(from, to) => Ok(rustix::fs::renameat_with(CWD, at(from), CWD, at(to), RenameFlags::EXCHANGE)?),
        Act::Out(from, to) => fs::rename(at(from), world.outside(&to.to_string())),
        Act::In(from, to) => fs::rename(world.outside(&from.to_string()), at(to)),
        Act::Link(target, name) => symlink(target, at(name)),
        Act::HardLink(from, to) => fs::hard_link(at(from), at(to)),
        Act::Mode(name, _) if at(name).is_symlink() => Ok(()),
        Act::Mode(name, mode) => fs::set_permissions(at(name), fs::Permissions::from_mode(*mode)),
        Act::Read | Act::Reconcile | Act::Lose => Ok(()),
    }
}

/// 300 cases, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { asked } else { ProptestConfig { cases: 300, ..asked } }
}

/// Plays them, and looks until there is nothing more to see. A name of a file that leaves the tree before it was looked at
/// changes the number of the file's links without an event that names the file: the next comparison on schedule finds it.
fn play_all(acts: &[Act]) {
    let mut world = World::new();
    acts.iter().for_each(|act| play(&mut world, act));
    world.drain();
    world.poll();
    if acts.iter().any(|act| matches!(act, Act::HardLink(..))) {
        world.reconciler.compare(Source::Schedule, &mut |_| {});
    }
    world.settle();
}

proptest! {
    #![proptest_config(config())]

    /// Whatever is done, and whenever it is read, the view ends as a fresh scan.
    #[test]
    fn b15_any_sequence_ends_in_the_view_of_a_fresh_scan(acts in proptest::collection::vec(act(3), 1..40)) {
        play_all(&acts);
    }

    /// The same with two names, which are often the same file's.
    #[test]
    fn b15_any_sequence_in_one_directory_does_too(acts in proptest::collection::vec(act(1), 1..40)) {
        play_all(&acts);
    }
}
