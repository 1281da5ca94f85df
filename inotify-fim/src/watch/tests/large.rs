//! A13, E06: large files are read while nobody waits for others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::world::{World, bytes, told};
use crate::fingerprint::HashState;
use crate::roots::{Content, How, Roots};
use crate::view::View;
use crate::watch::event::{Event, Source};

/// Files of more octets are large here.
const SMALL: u64 = 1_000;

fn world() -> World {
    let mut world = World::new();
    world.reconciler.budget = SMALL;
    world
}

/// A file that is all hole.
fn sparse(world: &World, name: &str, size: u64) {
    fs::File::create(world.at(name)).unwrap().set_len(size).unwrap();
}

/// One look, and what it told.
fn look(world: &mut World) -> Vec<(String, String)> {
    world.read();
    world.reconcile();
    let events = std::mem::take(&mut world.events);
    world.names(events)
}

#[test]
fn a13_e06_large_files_do_not_keep_a_small_one_from_being_told() {
    let mut world = world();
    for n in 0..10 {
        sparse(&world, &format!("s{n}"), 1 << 40);
    }
    fs::write(world.at("critical"), "evil").unwrap();
    assert_eq!(look(&mut world).len(), 11);
    assert_eq!(world.reconciler.waiting(), 0, "no file of 1 TiB is ever read");
    for n in 0..10 {
        sparse(&world, &format!("t{n}"), 1 << 29);
    }
    fs::write(world.at("critical"), "more evil").unwrap();
    assert_eq!(look(&mut world), told([("modified", "critical")]));
    assert_eq!(world.reconciler.waiting(), 10);
}

#[test]
fn a13_what_is_large_is_told_once_with_its_hash_smallest_first() {
    let mut world = world();
    sparse(&world, "large", 1 << 20);
    fs::write(world.at("less"), vec![b'x'; 5_000]).unwrap();
    fs::write(world.at("small"), "x").unwrap();
    assert_eq!(look(&mut world), told([("created", "small")]));
    let events = world.settle();
    let hashes = events.iter().filter_map(|event| match event {
        Event::Changed { difference, .. } => difference.new.as_ref().map(|new| new.hash.done().is_some()),
        _ => None,
    });
    assert!(hashes.eq([true, true]), "{events:?}");
    fs::write(world.at("large"), vec![b'y'; 1 << 20]).unwrap();
    assert_eq!(look(&mut world), told([]));
    assert_eq!(world.told(), told([("modified", "large")]));
}

#[test]
fn a13_what_is_kept_back_and_gone_again_is_transient() {
    let mut world = world();
    sparse(&world, "large", 1 << 20);
    assert_eq!(look(&mut world), told([]));
    fs::remove_file(world.at("large")).unwrap();
    assert_eq!(world.told(), told([("transient", "large")]));
    assert_eq!(world.reconciler.waiting(), 0);
}

#[test]
fn a13_what_cannot_be_read_in_time_is_told_without_its_hash_and_the_hash_later() {
    let mut world = world();
    sparse(&world, "large", 1 << 20);
    assert_eq!(look(&mut world), told([]));
    assert!(world.reconciler.next().is_some_and(|next| next <= Instant::now() + Duration::from_secs(5)));
    world.reconciler.is_overdue(Instant::now() + Duration::from_secs(5));
    assert_eq!(look(&mut world), told([("created", "large")]));
    assert_eq!(world.reconciler.view.entries[bytes(&world.at("large")).as_slice()].hash, HashState::NotRead);
    assert_eq!(world.told(), told([("modified", "large")]));
    assert!(world.reconciler.view.entries[bytes(&world.at("large")).as_slice()].hash.done().is_some());
    assert_eq!(world.told(), told([]));
}

#[test]
fn a13_a_large_file_that_was_moved_is_the_same_until_more_is_known() {
    let mut world = world();
    sparse(&world, "large", 1 << 20);
    world.settle();
    fs::rename(world.at("large"), world.at("moved")).unwrap();
    assert_eq!(look(&mut world), told([("moved from large", "moved")]));
    assert_eq!(world.told(), told([]), "the hash is the same");
    fs::rename(world.at("moved"), world.at("again")).unwrap();
    let time = fs::metadata(world.at("again")).unwrap().modified().unwrap();
    fs::write(world.at("again"), vec![b'y'; 1 << 20]).unwrap();
    fs::File::options().append(true).open(world.at("again")).unwrap().set_modified(time).unwrap();
    assert_eq!(look(&mut world), told([("moved from moved", "again")]));
    assert_eq!(world.told(), told([("modified", "again")]), "nothing but the hash tells");
}

#[test]
fn a13_a_comparison_tells_at_once_what_it_has_no_time_to_read() {
    let mut world = world();
    sparse(&world, "large", 1 << 20);
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    let found = look(&mut world);
    assert_eq!(found[0], ("created".into(), "large".into()));
    assert_eq!(world.told(), told([("modified", "large")]));
}

#[test]
fn a13_a_large_log_that_grew_has_grown() {
    let mut world = World::with(|root| fs::write(root.join("log"), vec![b'x'; 5_000]).unwrap());
    let how = How { content: Content::Append, ..How::default() };
    let roots = Roots::new([(bytes(&world.at("")).strip_suffix(b"/").unwrap().to_vec(), how)]);
    world.restart(roots, View::default(), &super::world::options());
    world.start();
    world.reconciler.budget = SMALL;
    fs::write(world.at("log"), vec![b'x'; 6_000]).unwrap();
    assert_eq!(look(&mut world), told([]));
    assert_eq!(world.told(), told([("appended", "log")]));
    fs::rename(world.at("log"), world.at("log.1")).unwrap();
    fs::write(world.at("log"), "new").unwrap();
    assert_eq!(look(&mut world), told([("created", "log"), ("moved from log", "log.1")]));
    fs::write(world.at("log.1"), vec![b'y'; 7_000]).unwrap();
    assert_eq!(world.told(), told([("modified", "log.1")]));
}

/// A root whose files are read later, with one file that the baseline says something of or not.
fn later(baseline: impl Fn(&World) -> View) -> World {
    let mut world = World::with(|root| fs::write(root.join("program"), vec![b'x'; 5_000]).unwrap());
    let root = bytes(&world.at("")).strip_suffix(b"/").unwrap().to_vec();
    let roots = Roots::new([(root, How { later: true, ..How::default() })]);
    let baseline = baseline(&world);
    world.restart(roots, baseline, &super::world::options());
    world.first();
    world
}

#[test]
fn a_start_does_not_wait_for_what_it_learns_and_may_read_later() {
    let mut world = later(|_| View::default());
    let program = bytes(&world.at("program"));
    assert_eq!(world.reconciler.view.entries[program.as_slice()].hash, HashState::NotRead);
    assert!(matches!(world.events[..], [Event::Learned { .. }, Event::Compared { source: Source::Start, found: 0, .. }]));
    world.events.clear();
    assert_eq!(world.told(), told([]), "what was learnt is no news");
    assert!(world.reconciler.view.entries[program.as_slice()].hash.done().is_some());
    fs::write(world.at("program"), vec![b'y'; 5_000]).unwrap();
    let events = world.settle();
    let [Event::Changed { difference, .. }] = &events[..] else { panic!("{events:?}") };
    let both = [&difference.old, &difference.new].map(|print| print.as_ref().is_some_and(|print| print.hash.done().is_some()));
    assert_eq!(both, [true, true]);
}

#[test]
fn a_start_reads_whatever_its_baseline_names() {
    let world = later(|world| {
        let before = world.reconciler.view.clone();
        fs::write(world.at("program"), vec![b'y'; 5_000]).unwrap();
        before
    });
    let [Event::Changed { difference, .. }, ..] = &world.events[..] else { panic!("{:?}", world.events) };
    assert!(difference.new.as_ref().is_some_and(|new| new.hash.done().is_some()));
}

#[test]
fn d14_a_root_that_is_a_link_to_a_large_file_is_read_and_told_once() {
    let mut world = World::with(|root| fs::write(root.join("file"), vec![b'x'; 5_000]).unwrap());
    std::os::unix::fs::symlink("root/file", world.folder.path().join("link")).unwrap();
    let link = bytes(&world.folder.path().join("link"));
    world.restart(Roots::from_iter([link.clone()]), View::default(), &super::world::options());
    world.start();
    world.reconciler.budget = SMALL;
    fs::write(world.at("file"), vec![b'y'; 5_000]).unwrap();
    let start = Instant::now();
    while world.read() || world.reconciler.is_dirty() || world.reconciler.waiting() > 0 {
        world.reconcile();
        world.reconciler.read_on(Instant::now());
        assert!(start.elapsed() < Duration::from_secs(20), "it is read for ever");
    }
    let [Event::Changed { difference, .. }] = &world.events[..] else { panic!("{:?}", world.events) };
    assert!(difference.new.as_ref().is_some_and(|new| new.leads_to.as_ref().is_some_and(|end| end.hash.done().is_some())));
    assert_eq!(world.reconciler.waiting(), 0);
}

#[test]
fn d21_a_large_file_that_cannot_be_read_is_told_to_be_so_and_tried_no_more() {
    let mut world = world();
    fs::write(world.at("large"), vec![b'x'; 5_000]).unwrap();
    fs::set_permissions(world.at("large"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(world.at("large")).is_ok() {
        return eprintln!("NOT TESTED: d21: this user reads what nobody may read");
    }
    let start = Instant::now();
    while world.read() || world.reconciler.is_dirty() || world.reconciler.waiting() > 0 {
        world.reconcile();
        world.reconciler.read_on(Instant::now());
        assert!(start.elapsed() < Duration::from_secs(20), "it is tried for ever");
    }
    let [Event::Changed { difference, .. }] = &world.events[..] else { panic!("{:?}", world.events) };
    assert_eq!(difference.new.as_ref().map(|new| new.hash), Some(HashState::Unreadable(13)));
}
