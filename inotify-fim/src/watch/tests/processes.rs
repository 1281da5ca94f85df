//! D: trees of other processes, whose numbers are given anew.

use std::fs;
use std::process::{Child, Command};

use super::namespace::{UNSHARE, is_inside};
use super::world::{World, options};
use crate::roots::Roots;
use crate::scan::Uncovered;
use crate::suspects::tests::{end, ready};
use crate::view::{Change, View};
use crate::watch::event::{Event, Source};

/// The kernel gives the next process the number after this one (pid_namespaces(7)).
const LAST: &str = "/proc/sys/kernel/ns_last_pid";

/// Another process, in a mount namespace of its own with a file of this content; until its input ends.
fn other(content: &str) -> Child {
    let script = format!("mount -t tmpfs none /mnt && echo {content} > /mnt/f && echo ready && read -r line");
    ready(Command::new("unshare").args(&UNSHARE[2..]).args(["sh", "-c", &script]))
}

#[test]
fn d19_the_number_of_a_process_given_to_another_makes_no_tree_pass_for_the_other() {
    let test = "d19_the_number_of_a_process_given_to_another_makes_no_tree_pass_for_the_other";
    // In a namespace of processes too, to say which number comes next.
    let script = "exec unshare --pid --fork --mount-proc \"$0\" --exact \"$1\" --nocapture";
    if !is_inside(module_path!(), test, script) {
        return;
    }
    let one = other("one");
    let number = one.id();
    let root = format!("/proc/{number}/root/mnt").into_bytes();
    let mut world = World::new();
    world.restart(Roots::from_iter([root.clone()]), View::default(), &options());
    world.start();
    let content = |world: &World| world.reconciler.view.entries.iter().find(|(path, _)| path.ends_with(b"/f")).unwrap().1.hash;
    let before = content(&world);
    end(one);
    fs::write(LAST, (number - 1).to_string()).unwrap();
    let two = other("two");
    assert_eq!(two.id(), number, "the same number");
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    let changed = |event: &Event, name: &str| {
        matches!(event, Event::Changed { difference, .. }
            if difference.path.ends_with(name.as_bytes()) && difference.change == Change::Modified)
    };
    assert!(world.events.iter().any(|event| changed(event, "/f")), "{:?}", world.events);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Learned { .. })));
    assert_ne!(content(&world), before);
    world.events.clear();
    fs::write(format!("/proc/{number}/root/mnt/f"), "three").unwrap();
    world.drain();
    assert!(world.events.iter().any(|event| changed(event, "/f")), "the new tree is watched: {:?}", world.events);
    end(two);
    world.events.clear();
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    let gone = Event::CoverageLost { path: root, why: Uncovered::Unreadable(2) };
    assert!(world.events.contains(&gone), "{:?}", world.events);
}
