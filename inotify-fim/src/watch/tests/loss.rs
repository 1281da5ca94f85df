//! A: events that are lost, and limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::namespace::is_inside;
use super::world::{World, bytes, options, told};
use crate::ledger::Ledger;
use crate::roots::{How, Roots};
use crate::scan::Uncovered;
use crate::view::{Change, View};
use crate::watch::event::{Cause, Event, Source};
use crate::watch::{Options, Watch};

#[test]
fn a01_a02_a16_a_full_queue_is_a_gap_that_ends_with_a_full_comparison() {
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    if limit > 20_000 {
        return eprintln!("NOT TESTED: this kernel's queue holds {limit} events");
    }
    let mut world = World::new();
    // Two events each; nobody reads.
    for n in 0..limit / 2 + 500 {
        fs::write(world.at(&n.to_string()), "").unwrap();
    }
    fs::create_dir(world.at("fresh")).unwrap();
    fs::write(world.at("fresh/file"), "").unwrap();
    let events = world.settle();
    let created = |event: &&Event| matches!(event, Event::Changed { difference, .. } if difference.change == Change::Created);
    assert_eq!(events.iter().filter(created).count(), limit / 2 + 502, "each exactly once");
    assert!(matches!(events[0], Event::GapOpened { cause: Cause::Kernel, .. }));
    assert!(matches!(events.last(), Some(Event::GapClosed { cause: Cause::Kernel, start, end, .. }) if start <= end));
    fs::write(world.at("fresh/later"), "").unwrap();
    assert_eq!(world.told(), told([("created", "fresh/later")]));
}

#[test]
fn a07_directories_beyond_the_limit_of_watches_are_compared_and_said_to_be() {
    let script = "echo 15 > /proc/sys/user/max_inotify_watches";
    if !is_inside(module_path!(), "a07_directories_beyond_the_limit_of_watches_are_compared_and_said_to_be", script) {
        return;
    }
    let mut world = World::new();
    // Those above are watched, and the root.
    let lost = 20 - (15 - world.above() - 1);
    for n in 0..20 {
        fs::create_dir(world.at(&n.to_string())).unwrap();
        fs::write(world.at(&format!("{n}/file")), "").unwrap();
    }
    world.drain();
    let unwatched = |event: &&Event| matches!(event, Event::CoverageLost { why: Uncovered::NoWatch, .. });
    assert_eq!(world.events.iter().filter(unwatched).count(), lost);
    let changed = |event: &&Event| matches!(event, Event::Changed { .. });
    assert_eq!(world.events.iter().filter(changed).count(), 40);
    world.events.clear();
    (0..20).for_each(|n| fs::write(world.at(&format!("{n}/file")), "later").unwrap());
    world.reconciler.compare(Source::Poll, &mut |_| {});
    world.reconcile();
    assert_eq!(world.events.iter().filter(changed).count(), lost, "those without a watch");
    world.drain();
    assert_eq!(world.events.iter().filter(changed).count(), 20);
    assert_eq!(world.events.iter().filter(unwatched).count(), 0, "each is told once");
    is_watched_again(world);
}

/// Once there is room, a change of an unwatched directory's own entry is enough.
fn is_watched_again(mut world: World) {
    let watched = |world: &World, n: &u32| {
        let path = bytes(&world.at(&n.to_string()));
        world.reconciler.armed.directories(&path).any(|armed| *armed == path)
    };
    let with = (0..20).find(|n| watched(&world, n)).unwrap();
    let without = (0..20).find(|n| !watched(&world, n)).unwrap();
    fs::remove_dir_all(world.at(&with.to_string())).unwrap();
    world.read();
    world.reconcile();
    world.events.clear();
    fs::set_permissions(world.at(&without.to_string()), fs::Permissions::from_mode(0o700)).unwrap();
    world.read();
    world.reconcile();
    let path = bytes(&world.at(&without.to_string()));
    assert!(world.events.contains(&Event::CoverageGained { path }), "{:?}", world.events);
    assert!(watched(&world, &without));
}

#[test]
fn a04_the_comparison_causes_no_events() {
    let mut world = World::with(|root| fs::write(root.join("f"), "").unwrap());
    world.reconciler.lost(Cause::Queue, &mut |_| {});
    world.reconcile();
    assert!(!world.read());
}

/// Where coverage was lost for a reason, below the root.
fn names(world: &World, why: Uncovered) -> Vec<String> {
    let root = world.at("");
    let lost = world.events.iter().filter_map(|event| match event {
        Event::CoverageLost { path, why: found } if *found == why => {
            Some(String::from_utf8_lossy(&path[root.as_os_str().len().min(path.len())..]).into_owned())
        }
        _ => None,
    });
    lost.collect()
}

/// A tree of ten directories with ten in each, all of which hold a file.
fn tree(root: &std::path::Path) {
    for outer in 0..10 {
        for inner in 0..10 {
            let directory = root.join(format!("{outer}/{inner}"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("file"), "").unwrap();
        }
    }
}

#[test]
fn a06_a08_a_budget_goes_to_the_top_of_each_tree_and_is_never_exceeded() {
    let mut world = World::with(tree);
    let roots = world.reconciler.roots.clone();
    // Those above, the root, its ten directories, and three of the hundred.
    let budget = world.above() + 14;
    world.restart(roots, View::default(), &Options { watches: budget, ..options() });
    world.first();
    world.drain();
    assert_eq!(world.reconciler.armed.len(), budget);
    assert_eq!(names(&world, Uncovered::NoWatch).len(), 97);
    world.events.clear();
    for outer in 0..10 {
        fs::write(world.at(&format!("{outer}/new")), "").unwrap();
        fs::write(world.at(&format!("{outer}/9/file")), "changed").unwrap();
    }
    assert_eq!(world.told_so_far().len(), 10, "what is made in the watched directories");
    world.reconciler.compare(Source::Poll, &mut |_| {});
    world.reconcile();
    let found = world.events.iter().filter_map(|event| match event {
        Event::Changed { source, .. } => Some(*source),
        _ => None,
    });
    assert_eq!(found.collect::<Vec<_>>(), [Source::Poll; 10]);
    assert_eq!(world.reconciler.armed.len(), budget);
    let mut ledger = Ledger::default();
    world.reconciler.write(&mut ledger);
    assert_eq!((ledger.watched, ledger.budget, ledger.polled), (budget, budget, 97));
    assert_eq!(ledger.reasons.get("no-watch"), Some(&97));
}

#[test]
fn a06_a_tree_of_high_priority_is_watched_before_others() {
    let mut world = World::with(|root| ["a", "z"].iter().for_each(|name| tree(&root.join(name))));
    let roots =
        Roots::new([(bytes(&world.at("a")), How::default()), (bytes(&world.at("z")), How { priority: 1, ..How::default() })]);
    world.restart(roots, View::default(), &Options { watches: world.above() + 119, ..options() });
    world.first();
    let lost = names(&world, Uncovered::NoWatch);
    assert!(!lost.is_empty() && lost.iter().all(|name| name.starts_with("a")), "{lost:?}");
    // A whole tree without a watch is told once.
    let roots = world.reconciler.roots.clone();
    world.restart(roots, View::default(), &Options { watches: world.above() + 4, ..options() });
    world.events.clear();
    world.first();
    assert_eq!(names(&world, Uncovered::NoWatch).iter().filter(|name| name.starts_with('a')).count(), 1);
}

#[test]
fn a09_without_an_inotify_instance_everything_is_polled_until_there_is_one() {
    let script = "echo 0 > /proc/sys/user/max_inotify_instances";
    if !is_inside(module_path!(), "a09_without_an_inotify_instance_everything_is_polled_until_there_is_one", script) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (send, told) = mpsc::channel();
    let often = Options { poll: Duration::from_millis(100), every: Duration::from_secs(3600), ..options() };
    let roots = Roots::from_iter([bytes(folder.path())]);
    let watch = Watch::start(roots, View::default(), often, move |event| drop(send.send(event))).unwrap();
    let until = |wanted: &dyn Fn(&Event) -> bool| {
        while !wanted(&told.recv_timeout(Duration::from_secs(20)).unwrap()) {}
    };
    until(&|event| matches!(event, Event::CoverageLost { why: Uncovered::NoWatch, .. }));
    until(&|event| matches!(event, Event::Compared { source: Source::Start, .. }));
    fs::write(folder.path().join("f"), "").unwrap();
    until(&|event| matches!(event, Event::Changed { source: Source::Poll, .. }));
    assert!(!watch.ledger().inotify && watch.ledger().polled > 0);
    fs::write("/proc/sys/user/max_inotify_instances", "10").unwrap();
    until(&|event| matches!(event, Event::CoverageGained { .. }));
    fs::write(folder.path().join("g"), "").unwrap();
    until(&|event| matches!(event, Event::Changed { source: Source::Event, .. }));
    assert!(watch.ledger().inotify);
}

#[test]
fn a10_an_excluded_tree_costs_no_watch_and_its_replacement_is_seen() {
    let mut world = World::with(|root| tree(&root.join("node_modules")));
    let exclude = globset::GlobSet::builder().add(globset::Glob::new("**/node_modules").unwrap()).build().unwrap();
    let root = bytes(&world.folder.path().join("root"));
    world.restart(Roots::new([(root, How { folders: exclude.clone(), exclude, ..How::default() })]), View::default(), &options());
    world.start();
    assert_eq!(world.reconciler.armed.len(), world.above() + 1, "the root and those above");
    fs::write(world.at("node_modules/1/1/file"), "changed").unwrap();
    fs::rename(world.at("node_modules"), world.outside("gone")).unwrap();
    fs::write(world.at("node_modules"), "").unwrap();
    // What cannot be run would be left out.
    fs::set_permissions(world.at("node_modules"), fs::Permissions::from_mode(0o755)).unwrap();
    world.drain();
    let types = |event: &&Event| matches!(event, Event::Changed { difference, .. } if difference.change == Change::Type);
    assert_eq!(world.events.iter().filter(types).count(), 1, "{:?}", world.events);
}

#[test]
fn a03_events_lost_again_and_again_end_in_one_view_and_one_gap_each() {
    let mut world = World::new();
    for n in 0..5 {
        fs::write(world.at(&n.to_string()), "").unwrap();
        world.reconciler.lost(Cause::Kernel, &mut |event| world.events.push(event));
        world.reconciler.lost(Cause::Queue, &mut |event| world.events.push(event));
    }
    let events = world.settle();
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Event::GapOpened { .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::GapClosed { found: 5, .. })), 1);
    assert_eq!(count(|event| matches!(event, Event::Changed { source: Source::Repair, .. })), 5);
}

#[test]
fn a12_writes_to_two_files_in_turn_are_one_change_of_each() {
    let mut world = World::with(|root| ["a", "b"].iter().for_each(|name| fs::write(root.join(name), "").unwrap()));
    for n in 0..10 {
        fs::write(world.at("a"), format!("{n}")).unwrap();
        fs::write(world.at("b"), format!("{n}")).unwrap();
    }
    assert_eq!(world.told(), told([("modified", "a"), ("modified", "b")]));
}

#[test]
fn a14_the_longest_name_fits() {
    let mut world = World::new();
    let name = "n".repeat(255);
    fs::write(world.at(&name), "").unwrap();
    assert_eq!(world.told(), told([("created", &name)]));
}

#[test]
fn a17_attributes_that_change_and_change_back_are_no_change() {
    let mut world = World::with(|root| fs::write(root.join("f"), "").unwrap());
    let mode = fs::metadata(world.at("f")).unwrap().permissions();
    for n in 0..100 {
        fs::set_permissions(world.at("f"), fs::Permissions::from_mode(0o600 + n % 8)).unwrap();
    }
    fs::set_permissions(world.at("f"), mode).unwrap();
    assert_eq!(world.told(), told([]));
}

#[test]
fn a15_whoever_is_told_may_wait_and_everything_is_told_later() {
    let folder = tempfile::tempdir().unwrap();
    let (send, told) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let mut waits = true;
    let tell = move |event| {
        if waits && matches!(event, Event::Changed { .. }) {
            let _ = gate.recv();
            waits = false;
        }
        drop(send.send(event));
    };
    let quick = Options { settle: Duration::ZERO, patience: Duration::ZERO, ..options() };
    let watch = Watch::start(Roots::from_iter([bytes(folder.path())]), View::default(), quick, tell).unwrap();
    while !matches!(told.recv().unwrap(), Event::Compared { .. }) {}
    // More events than fit among those that wait.
    for n in 0..1_000_u32 {
        fs::write(folder.path().join(n.to_string()), "x").unwrap();
    }
    for round in 0..150_000_u32 {
        let path = folder.path().join((round % 7).to_string());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600 + round % 2)).unwrap();
    }
    drop(open);
    let view = watch.stop(Duration::from_secs(600)).0;
    assert_eq!(view.entries.len(), 1_001);
    let events: Vec<Event> = told.into_iter().collect();
    let created = |event: &&Event| matches!(event, Event::Changed { difference, .. } if difference.change == Change::Created);
    assert_eq!(events.iter().filter(created).count(), 1_000);
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Event::GapOpened { .. })), count(|event| matches!(event, Event::GapClosed { .. })));
    assert!(count(|event| matches!(event, Event::GapOpened { .. })) > 0);
}

#[test]
fn g09_watches_that_ended_without_a_word_are_made_anew_and_told() {
    let mut world = World::with(|root| fs::create_dir(root.join("d")).unwrap());
    let path = bytes(&world.at("d"));
    let watch = world.reconciler.armed.watch(&path).unwrap();
    rustix::fs::inotify::remove_watch(&world.inotify, watch).unwrap();
    // The word of it is lost.
    while !crate::watch::reader::read(&world.inotify, &mut [0; 4096]).unwrap().is_empty() {}
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    world.events.clear();
    world.reconciler.tick(Instant::now() + Duration::from_secs(2), &mut |event| world.events.push(event));
    assert!(world.events.contains(&Event::Repaired { watches: 1 }), "{:?}", world.events);
    world.settle();
    fs::write(world.at("d/f"), "").unwrap();
    assert_eq!(world.told(), told([("created", "d/f")]));
    // A directory that is gone took its watch with it, and the kernel says so.
    fs::remove_dir_all(world.at("d")).unwrap();
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    world.events.clear();
    world.reconciler.tick(Instant::now() + Duration::from_secs(2), &mut |event| world.events.push(event));
    assert_eq!(world.events, []);
}

#[test]
fn a08_a_root_that_is_one_file_and_has_no_watch_is_said_and_polled() {
    let mut world = World::with(|root| fs::write(root.join("f"), "one").unwrap());
    let path = bytes(&world.at("f"));
    world.restart(Roots::from_iter([path.clone()]), View::default(), &Options { watches: 0, ..options() });
    world.first();
    assert!(world.events.contains(&Event::CoverageLost { path: path.clone(), why: Uncovered::NoWatch }), "{:?}", world.events);
    world.events.clear();
    fs::write(world.at("f"), "two").unwrap();
    world.poll();
    let found = |event: &&Event| matches!(event, Event::Changed { source: Source::Poll, .. });
    assert_eq!(world.events.iter().filter(found).count(), 1);
    assert!(!world.events.iter().any(|event| matches!(event, Event::CoverageLost { .. } | Event::CoverageGained { .. })));
    let mut ledger = Ledger::default();
    world.reconciler.write(&mut ledger);
    assert_eq!((ledger.polled, ledger.uncovered), (1, vec![(path, Uncovered::NoWatch)]));
}

#[test]
fn what_is_not_seen_at_all_is_listed_before_what_is_excluded() {
    let mut world = World::with(|root| (0..1_200).for_each(|n| fs::create_dir(root.join(format!("{n}.old"))).unwrap()));
    let exclude = globset::GlobSet::builder().add(globset::Glob::new("**/*.old").unwrap()).build().unwrap();
    let root = bytes(&world.folder.path().join("root"));
    let missing = bytes(&world.at("zzz"));
    let roots =
        Roots::new([(root, How { folders: exclude.clone(), exclude, ..How::default() }), (missing.clone(), How::default())]);
    world.restart(roots, View::default(), &options());
    world.start();
    let mut ledger = Ledger::default();
    world.reconciler.write_lists(&mut ledger);
    assert_eq!(ledger.uncovered[0], (missing, Uncovered::Unreadable(2)));
    assert_eq!((ledger.uncovered.len(), ledger.reasons["excluded"], ledger.polled), (1_000, 1_200, 1));
}
