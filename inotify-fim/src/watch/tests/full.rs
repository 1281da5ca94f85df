//! Full comparisons and first ones: what they read at once, and what while others are told.

use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::world::{World, bytes, options, told};
use crate::fingerprint::{self, Fingerprint, HashState, Kind};
use crate::ledger::{Ledger, Reading};
use crate::roots::{Content, How, Roots};
use crate::view::{Change, View};
use crate::watch::event::{Event, Source};
use crate::watch::{later, reader};

/// Octets that a look may read here; a comparison eight times as many.
const SMALL: u64 = 1_000;

/// Beyond that.
const LARGE: usize = 20_000;

/// The first comparison is long ago: what was looked at then is known by its times.
fn aged(prepare: impl Fn(&std::path::Path)) -> World {
    let mut world = World::with(prepare);
    let is_fresh = |world: &World| {
        // The proof that events arrive changes the directory each time.
        let files = world.reconciler.view.entries.values().filter(|print| print.kind != Kind::Directory);
        let mut inodes = files.filter_map(|print| print.inode);
        inodes.any(|inode| inode.changed.is_none())
    };
    while is_fresh(&world) {
        world.reconciler.compare(Source::Schedule, &mut |_| {});
        world.drain();
    }
    world.events.clear();
    world
}

/// As if the content had been another one, without a trace in any time.
fn forge(world: &mut World, name: &str) {
    let path = bytes(&world.at(name));
    let print = Arc::make_mut(world.reconciler.view.entries.get_mut(path.as_slice()).unwrap());
    match &mut print.leads_to {
        Some(end) => end.hash = HashState::Done([7; 32]),
        None => print.hash = HashState::Done([7; 32]),
    }
}

fn compare(world: &mut World, source: Source) {
    world.reconciler.compare(source, &mut |event| world.events.push(event));
}

/// What happened leaves no event.
fn lose_events(world: &World) {
    while !reader::read(&world.inotify, &mut [0; 4096]).unwrap().is_empty() {}
}

/// One look, and what it told.
fn look(world: &mut World) -> Vec<Event> {
    world.read();
    world.reconcile();
    std::mem::take(&mut world.events)
}

fn reading(world: &mut World) -> Reading {
    let mut ledger = Ledger::default();
    world.reconciler.write(&mut ledger);
    ledger.reading.unwrap()
}

/// What was told by reading, and what the end of the comparison says was found.
fn found_by_reading(world: &mut World) -> (Vec<(Change, String)>, usize) {
    let root = world.at("");
    let (mut changes, mut ends) = (Vec::new(), Vec::new());
    for event in world.settle() {
        match event {
            Event::Changed { difference, source: Source::Full, since, .. } => {
                assert!(since.is_some(), "it was as it should be when it was last read");
                let name = String::from_utf8_lossy(&difference.path[root.as_os_str().len()..]).into_owned();
                changes.push((difference.change, name));
            }
            Event::Compared { source: Source::Full, found, complete: true, .. } => ends.push(found),
            other => panic!("{other:?}"),
        }
    }
    let [found] = ends[..] else { panic!("{ends:?}") };
    (changes, found)
}

#[test]
fn c02_content_that_changed_without_a_trace_is_found_by_reading_all() {
    let mut world = aged(|root| {
        for name in ["one", "other", "same"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(root.join("large"), vec![b'x'; 2 << 20]).unwrap();
        fs::hard_link(root.join("same"), root.join("second")).unwrap();
        std::os::unix::fs::symlink("same", root.join("link")).unwrap();
    });
    world.reconciler.budget = SMALL;
    compare(&mut world, Source::Full);
    assert_eq!(found_by_reading(&mut world), (Vec::new(), 0));
    for name in ["one", "large", "second", "link"] {
        forge(&mut world, name);
    }
    compare(&mut world, Source::Full);
    let changes = [
        (Change::Modified, "large".to_owned()),
        (Change::Effective, "link".to_owned()),
        (Change::Modified, "one".to_owned()),
        (Change::Modified, "second".to_owned()),
    ];
    let (mut found, count) = found_by_reading(&mut world);
    found.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!((found, count), (changes.to_vec(), 4));
    compare(&mut world, Source::Full);
    assert_eq!(found_by_reading(&mut world), (Vec::new(), 0), "and told once");
}

#[test]
fn a13_what_a_full_comparison_read_is_looked_at_though_reading_it_is_slow() {
    let mut world = aged(|root| fs::write(root.join("f"), "x").unwrap());
    let path: crate::view::Path = bytes(&world.at("f")).into();
    world.reconciler.is_slow(&path, Duration::from_secs(3600), Instant::now());
    forge(&mut world, "f");
    compare(&mut world, Source::Full);
    assert_eq!(found_by_reading(&mut world), (vec![(Change::Modified, "f".to_owned())], 1));
}

#[test]
fn what_a_full_comparison_finds_without_reading_is_told_at_once_and_counted_with_the_rest() {
    let mut world = aged(|root| fs::write(root.join("f"), "x").unwrap());
    fs::write(world.at("f"), "y").unwrap();
    lose_events(&world);
    compare(&mut world, Source::Full);
    world.reconcile();
    let [Event::Changed { source: Source::Schedule, .. }] = world.events[..] else { panic!("{:?}", world.events) };
    world.events.clear();
    assert_eq!(found_by_reading(&mut world), (Vec::new(), 1));
}

#[test]
fn e06_e13_a_full_comparison_of_sparse_files_lets_events_be_told_and_stays_within_its_share() {
    let mut world = World::new();
    for n in 0..8 {
        let file = fs::File::create(world.at(&format!("s{n}"))).unwrap();
        file.set_len(1 << 30).unwrap();
        let print =
            Fingerprint { hash: HashState::Done([7; 32]), ..Fingerprint::long_after(&fingerprint::stat(file.as_fd()).unwrap()) };
        world.reconciler.view.entries.insert(bytes(&world.at(&format!("s{n}"))).into(), Arc::new(print));
    }
    lose_events(&world);
    let is_settled = |world: &World| {
        let last = later::open(&world.reconciler.roots, &bytes(&world.at("s7"))).unwrap();
        fingerprint::Partial::new(last, None).unwrap().is_some()
    };
    while !is_settled(&world) {}
    world.reconciler.options.share = 50;
    compare(&mut world, Source::Full);
    assert_eq!(look(&mut world), []);
    let start = Instant::now();
    world.reconciler.read_on(start);
    let reading = reading(&mut world);
    assert_eq!(reading.of, 8 << 30);
    assert!(reading.octets > 0 && reading.octets < 1 << 30 && world.reconciler.is_rereading(), "{reading:?}");
    let next = world.reconciler.next().unwrap();
    assert!(next >= start + Duration::from_millis(200), "a slice of 100 ms is half of that");
    assert!(!world.reconciler.read_on(next - Duration::from_millis(1)), "it rests");
    fs::write(world.at("critical"), "evil").unwrap();
    let events = look(&mut world);
    assert_eq!(world.names(events), told([("created", "critical")]));
    compare(&mut world, Source::Full);
    let events = look(&mut world);
    assert!(matches!(events[..], [Event::Compared { source: Source::Schedule, .. }]), "the other goes on: {events:?}");
    assert_eq!(self::reading(&mut world).since, reading.since);
}

#[test]
fn a13_what_is_written_all_the_time_does_not_keep_a_full_comparison_from_its_end() {
    let mut world = aged(|root| fs::write(root.join("f"), "x").unwrap());
    world.reconciler.budget = 0;
    forge(&mut world, "f");
    compare(&mut world, Source::Full);
    look(&mut world);
    let mut told = Vec::new();
    for n in 0_usize.. {
        fs::write(world.at("large"), vec![b'x'; LARGE + n]).unwrap();
        told.extend(look(&mut world));
        world.reconciler.read_on(Instant::now() + Duration::from_secs(3600));
        if let Some(looked) = world.reconciler.end_round() {
            told.extend(looked.last);
            break;
        }
        assert!(n < 100, "each has its turn");
    }
    let is_found = |event: &Event| matches!(event, Event::Changed { source: Source::Full, .. });
    assert!(told.iter().any(is_found), "{told:?}");
    assert!(matches!(told.last(), Some(Event::Compared { source: Source::Full, found: 1, .. })), "{told:?}");
}

/// A start with what `before` gives as its baseline, and little that may be read beside it.
fn start(world: &mut World, how: How, before: View) {
    let root = bytes(&world.at("")).strip_suffix(b"/").unwrap().to_vec();
    world.restart(Roots::new([(root, how)]), before, &options());
    world.reconciler.budget = SMALL;
    world.events.clear();
    world.first();
}

/// What the first comparison told: change, name, and whether there is a hash.
fn first(world: &World) -> Vec<(Change, String, bool)> {
    let root = world.at("");
    let change = |event: &Event| match event {
        Event::Changed { difference, source: Source::Start, .. } => {
            let name = String::from_utf8_lossy(&difference.path[root.as_os_str().len()..]).into_owned();
            let is_hashed = difference.new.as_ref().is_some_and(|new| new.hash.done().is_some());
            Some((difference.change.clone(), name, is_hashed))
        }
        _ => None,
    };
    world.events.iter().filter_map(change).collect()
}

#[test]
fn a_start_reads_what_only_reading_can_tell_however_much_that_is_and_nothing_else_beyond_its_budget() {
    let mut world = World::with(|root| {
        for name in ["same", "changed", "shorter"] {
            fs::write(root.join(name), vec![b'x'; LARGE]).unwrap();
        }
    });
    let baseline = world.reconciler.view.clone().portable();
    fs::write(world.at("changed"), vec![b'y'; LARGE]).unwrap();
    fs::write(world.at("shorter"), vec![b'y'; LARGE - 1]).unwrap();
    fs::File::create(world.at("unknown")).unwrap().set_len(1 << 30).unwrap();
    start(&mut world, How::default(), baseline);
    let told = [
        (Change::Modified, "changed".to_owned(), true),
        (Change::Modified, "shorter".to_owned(), false),
        (Change::Created, "unknown".to_owned(), false),
    ];
    assert_eq!(first(&world), told);
    assert!(matches!(world.events.last(), Some(Event::Compared { source: Source::Start, found: 3, complete: true, .. })));
    assert_eq!(world.reconciler.waiting(), 2);
    fs::remove_file(world.at("unknown")).unwrap();
    world.events.clear();
    assert_eq!(world.told(), self::told([("deleted", "unknown"), ("modified", "shorter")]), "now with its hash");
}

#[test]
fn d14_d15_a_start_reads_what_links_lead_to_where_nothing_else_tells_of_it() {
    let mut world = World::with(|root| {
        fs::write(root.join("file"), vec![b'x'; LARGE]).unwrap();
        std::os::unix::fs::symlink("file", root.join("inside")).unwrap();
        std::os::unix::fs::symlink("../outside/file", root.join("out")).unwrap();
    });
    fs::write(world.outside("file"), vec![b'x'; LARGE]).unwrap();
    let (root, link) = (bytes(&world.at("")).strip_suffix(b"/").unwrap().to_vec(), bytes(&world.folder.path().join("link")));
    std::os::unix::fs::symlink("outside/file", world.folder.path().join("link")).unwrap();
    let roots = || Roots::new([(root.clone(), How { follow: true, ..How::default() }), (link.clone(), How::default())]);
    world.restart(roots(), View::default(), &options());
    world.start();
    let baseline = world.reconciler.view.clone().portable();
    fs::write(world.at("file"), vec![b'y'; LARGE]).unwrap();
    fs::write(world.outside("file"), vec![b'y'; LARGE]).unwrap();
    world.restart(roots(), baseline, &options());
    world.reconciler.budget = 0;
    world.first();
    let ends = world.events.iter().filter_map(|event| match event {
        Event::Changed { difference, source: Source::Start, .. } => Some((difference.change.clone(), difference.path.to_vec())),
        _ => None,
    });
    let at = |name| bytes(&world.at(name));
    let all = [(Change::Effective, link.clone()), (Change::Modified, at("file"))];
    let links = [(Change::Effective, at("inside")), (Change::Effective, at("out"))];
    assert_eq!(ends.collect::<Vec<_>>(), all.into_iter().chain(links).collect::<Vec<_>>());
    assert_eq!(world.reconciler.waiting(), 0);
}

#[test]
fn e08_a_start_reads_logs_that_grew_as_nothing_else_tells_what_they_began_with() {
    let log = |before: &[u8], now: &[u8]| {
        let mut world = World::with(|root| fs::write(root.join("log"), before).unwrap());
        let baseline = world.reconciler.view.clone().portable();
        fs::write(world.at("log"), now).unwrap();
        start(&mut world, How { content: Content::Append, ..How::default() }, baseline);
        first(&world)
    };
    let grown = vec![b'x'; LARGE + 9];
    assert_eq!(log(&vec![b'x'; LARGE], &grown), [(Change::Appended, "log".to_owned(), true)]);
    assert_eq!(log(&vec![b'y'; LARGE], &grown), [(Change::Modified, "log".to_owned(), true)]);
}

#[test]
fn what_a_start_learns_is_read_later_where_it_is_much() {
    let mut world = World::with(|root| fs::write(root.join("large"), vec![b'x'; LARGE]).unwrap());
    start(&mut world, How::default(), View::default());
    assert_eq!(first(&world), []);
    let path = bytes(&world.at("large"));
    assert_eq!(world.reconciler.view.entries[path.as_slice()].hash, HashState::NotRead);
    world.events.clear();
    assert_eq!(world.told(), told([]), "what was learnt is no news");
    assert!(world.reconciler.view.entries[path.as_slice()].hash.done().is_some());
}

#[test]
fn g08_the_last_comparison_tells_all_changes_before_it_reads_the_largest() {
    let mut world = aged(|root| fs::write(root.join("f"), "x").unwrap());
    world.reconciler.budget = SMALL;
    fs::File::create(world.at("a")).unwrap().set_len(1 << 30).unwrap();
    fs::write(world.at("f"), "y").unwrap();
    lose_events(&world);
    compare(&mut world, Source::End);
    let events = look(&mut world);
    assert!(matches!(events.last(), Some(Event::Compared { source: Source::End, complete: true, .. })));
    let told_of = world.names(events[..events.len() - 1].to_vec());
    assert_eq!(told_of, told([("created", "a"), ("modified", "f")]));
    let path = bytes(&world.at("a"));
    assert_eq!(world.reconciler.view.entries[path.as_slice()].hash, HashState::NotRead);
}
