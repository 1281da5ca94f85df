//! What somebody can make grow, and how far.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{CWD, Mode, OFlags};

use super::namespace::is_inside;
use super::world::{World, instance, options, told};
use crate::scan::{LONGEST, Uncovered};
use crate::view::{Change, View};
use crate::watch::event::{Cause, Event};

/// Where groups with a limit of memory are, and the file that sets it: of cgroups(7) version 1 and 2.
const GROUPS: [(&str, &str); 2] = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];

/// A group with little memory; gone in the end.
struct Group(PathBuf);

impl Group {
    fn new() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (parent, limit) in GROUPS {
            let made = Path::new(parent).join(format!("egret-test-{}", process::id()));
            let set = fs::create_dir(&made).map(|()| Self(made.clone())).and_then(|group| {
                fs::write(made.join(limit), (256 << 10).to_string())?;
                Ok(group)
            });
            match set {
                Ok(group) => return Ok(group),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Does this while in it: what is made meanwhile is charged to it for good.
    fn during<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        let parent = self.0.parent().unwrap_or(Path::new("/"));
        let own = own_group(parent)?;
        let join = |group: &Path| fs::write(group.join("cgroup.procs"), process::id().to_string());
        join(&self.0)?;
        let done = act();
        join(&own)?;
        Ok(done)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The group that this process is in.
fn own_group(hierarchy: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let controller = if hierarchy.ends_with("memory") { ":memory:/" } else { "0::/" };
    let inside = text.lines().find_map(|line| line.split_once(controller)).map(|(_, inside)| inside.to_owned());
    Ok(hierarchy.join(inside.ok_or(io::ErrorKind::NotFound)?))
}

/// An instance whose events are charged to a group that has no room for many.
fn short_of_memory() -> io::Result<(OwnedFd, Group)> {
    let group = Group::new()?;
    Ok((group.during(instance)?, group))
}

#[test]
fn a05_events_for_which_there_is_no_memory_are_a_gap() {
    if !is_inside(module_path!(), "a05_events_for_which_there_is_no_memory_are_a_gap", "true") {
        return;
    }
    let (inotify, _group) = match short_of_memory() {
        Ok(made) => made,
        Err(error) => return eprintln!("NOT TESTED: a05: no group with a limit of memory: {error}"),
    };
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let files = 4_000;
    assert!(2 * files < limit, "the queue has room for two events of each");
    let mut world = World::new();
    let roots = world.reconciler.roots.clone();
    world.restart_with(inotify, roots, View::default(), &options());
    world.start();
    // Nobody reads.
    (0..files).for_each(|n| fs::write(world.at(&n.to_string()), "").unwrap());
    let events = world.settle();
    assert!(matches!(events[0], Event::GapOpened { cause: Cause::Kernel, .. }), "{:?}", events[0]);
    let created = |event: &&Event| matches!(event, Event::Changed { difference, .. } if difference.change == Change::Created);
    assert_eq!(events.iter().filter(created).count(), files, "each exactly once");
    assert!(matches!(events.last(), Some(Event::GapClosed { cause: Cause::Kernel, .. })));
}

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
