//! What somebody can make grow, and how far.

use std::fs;

use rustix::fs::{CWD, Mode, OFlags};

use super::world::{World, told};
use crate::scan::{LONGEST, Uncovered};
use crate::watch::event::{Cause, Event};

#[test]
fn a01_while_a_repair_waits_for_its_time_events_are_told_at_once() {
    let mut world = World::new();
    world.reconciler.lost(Cause::Kernel, &mut |_| {});
    assert!(world.reconciler.needs_repair());
    fs::write(world.at("f"), "x").unwrap();
    world.read();
    // Nobody has begun the repair yet.
    let looked = world.reconciler.reconcile(&mut |event| world.events.push(event));
    world.events.extend(looked.last);
    let events = std::mem::take(&mut world.events);
    assert!(!events.iter().any(|event| matches!(event, Event::GapClosed { .. })), "{events:?}");
    assert_eq!(world.names(events), told([("created", "f")]));
    let events = world.settle();
    assert!(events.iter().any(|event| matches!(event, Event::GapClosed { .. })), "{events:?}");
    assert!(!world.reconciler.needs_repair());
}

#[test]
fn b20_a_path_without_end_is_followed_to_a_limit() {
    let mut world = World::new();
    let name = "n".repeat(250);
    let mut at = rustix::fs::openat(CWD, world.at(""), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..LONGEST / 250 + 50 {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let events = world.settle();
    let lost = |event: &Event| matches!(event, Event::CoverageLost { why: Uncovered::TooMany, .. });
    assert!(events.iter().any(lost));
    assert!(world.reconciler.view.entries.keys().all(|path| path.len() <= LONGEST));
    assert!(world.reconciler.view.entries.len() > LONGEST / 300);
}
