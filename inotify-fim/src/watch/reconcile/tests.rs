use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::inotify::{self, CreateFlags};
use rustix::fs::{CWD, RenameFlags};
use tempfile::TempDir;

use super::*;
use crate::view::{Change, Difference, compare};
use crate::watch::reader;

/// A watched root, a folder beside it, and a reader that reads when it is told.
struct World {
    folder: TempDir,
    inotify: Arc<OwnedFd>,
    reconciler: Reconciler,
    events: Vec<Event>,
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// With what `prepare` makes in the root before it is watched.
    fn with(prepare: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("root")).unwrap();
        fs::create_dir_all(folder.path().join("outside")).unwrap();
        prepare(&folder.path().join("root"));
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap());
        let roots = Roots::from_iter([bytes(&folder.path().join("root"))]);
        let options = scan::Options { threads: 1, ..scan::Options::default() };
        let reconciler = Reconciler::new(roots, View::default(), options, Arc::clone(&inotify));
        let mut world = Self { folder, inotify, reconciler, events: Vec::new() };
        world.reconciler.compare_all(Source::Start);
        world.reconcile();
        world.events.clear();
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join("outside").join(name)
    }

    /// Reads what waits; whether there was any.
    fn read(&mut self) -> bool {
        let mut any = false;
        let mut buffer = vec![0; 4096];
        loop {
            let batch = reader::read(&self.inotify, &mut buffer).unwrap();
            if batch.is_empty() {
                return any;
            }
            any = true;
            batch.iter().for_each(|note| self.reconciler.take(note, &mut |event| self.events.push(event)));
        }
    }

    fn reconcile(&mut self) {
        self.reconciler.reconcile(&mut |event| self.events.push(event));
    }

    /// Reads and compares until nothing is left; gives what was told.
    fn settle(&mut self) -> Vec<Event> {
        while self.read() || self.reconciler.is_dirty() {
            self.reconcile();
        }
        self.assert_true();
        std::mem::take(&mut self.events)
    }

    /// The view is that of a fresh scan, and each of its directories is watched.
    fn assert_true(&self) {
        let fresh = scan::scan(&self.reconciler.roots, &View::default(), &self.reconciler.options);
        assert_eq!(compare(&self.reconciler.view, &fresh.view), []);
        let is_directory =
            |(path, print): (&crate::view::Path, &Arc<Fingerprint>)| (print.kind == Kind::Directory).then(|| path.to_vec());
        let directories: BTreeSet<Vec<u8>> = fresh.view.entries.iter().filter_map(is_directory).collect();
        let root = self.reconciler.roots.iter().next().unwrap().0;
        let watched: BTreeSet<Vec<u8>> = self.reconciler.armed.all().filter(|path| path.starts_with(root)).cloned().collect();
        assert_eq!(watched, directories);
    }

    /// What was told since, as change and name.
    fn told(&mut self) -> Vec<(String, String)> {
        let root = self.at("");
        let name = |path: &[u8]| String::from_utf8_lossy(&path[root.as_os_str().len()..]).into_owned();
        let told = self.settle().into_iter().map(|event| match event {
            Event::Changed { difference, .. } => {
                let Difference { path, change, .. } = *difference;
                let change = match change {
                    Change::Moved { from } => format!("moved from {}", name(&from)),
                    other => format!("{other:?}").to_lowercase(),
                };
                (change, name(&path))
            }
            Event::Transient { path } => ("transient".into(), name(&path)),
            other => (format!("{other:?}"), String::new()),
        });
        told.collect()
    }
}

fn told<const N: usize>(events: [(&str, &str); N]) -> Vec<(String, String)> {
    events.map(|(change, name)| (change.into(), name.into())).to_vec()
}

#[test]
fn created_modified_attributes_and_deleted_are_told_once_each() {
    let mut world = World::new();
    fs::write(world.at("f"), "one").unwrap();
    assert_eq!(world.told(), told([("created", "f")]));
    for _ in 0..100 {
        fs::write(world.at("f"), "two").unwrap();
    }
    assert_eq!(world.told(), told([("modified", "f")]));
    fs::set_permissions(world.at("f"), fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(world.told(), told([("attributes", "f")]));
    fs::File::options().append(true).open(world.at("f")).unwrap();
    assert_eq!(world.told(), told([]), "opened for writing, nothing written");
    fs::remove_file(world.at("f")).unwrap();
    assert_eq!(world.told(), told([("deleted", "f")]));
}

#[test]
fn an_atomic_save_is_one_modification() {
    let mut world = World::with(|root| fs::write(root.join("config"), "old").unwrap());
    fs::write(world.at("config.tmp"), "new").unwrap();
    fs::rename(world.at("config.tmp"), world.at("config")).unwrap();
    assert_eq!(world.told(), told([("modified", "config")]));
    // The way of editors that keep a backup.
    fs::rename(world.at("config"), world.at("config~")).unwrap();
    fs::write(world.at("config"), "newer").unwrap();
    fs::remove_file(world.at("config~")).unwrap();
    assert_eq!(world.told(), told([("modified", "config")]));
}

#[test]
fn what_came_and_went_is_transient() {
    let mut world = World::new();
    fs::write(world.at("dropper"), "x").unwrap();
    fs::remove_file(world.at("dropper")).unwrap();
    fs::write(world.at("other"), "x").unwrap();
    fs::rename(world.at("other"), world.outside("other")).unwrap();
    assert_eq!(world.told(), told([("transient", "dropper"), ("transient", "other")]));
    fs::write(world.at("one"), "x").unwrap();
    fs::rename(world.at("one"), world.at("two")).unwrap();
    fs::remove_file(world.at("two")).unwrap();
    assert_eq!(world.told(), told([("transient", "two")]), "under its last name");
}

#[test]
fn moves_are_told_as_moves_and_trees_keep_being_watched() {
    let mut world = World::with(|root| {
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/f"), "x").unwrap();
    });
    fs::rename(world.at("a"), world.at("z")).unwrap();
    let moves = [("moved from a", "z"), ("moved from a/b", "z/b"), ("moved from a/b/f", "z/b/f")];
    assert_eq!(world.told(), told(moves));
    fs::write(world.at("z/b/f"), "y").unwrap();
    assert_eq!(world.told(), told([("modified", "z/b/f")]), "under the new name");
    fs::rename(world.at("z"), world.outside("z")).unwrap();
    assert_eq!(world.told(), told([("deleted", "z"), ("deleted", "z/b"), ("deleted", "z/b/f")]));
    fs::write(world.outside("z/b/f"), "outside").unwrap();
    assert_eq!(world.told(), told([]), "no watch is left on what went");
    fs::rename(world.outside("z"), world.at("back")).unwrap();
    assert_eq!(world.told(), told([("created", "back"), ("created", "back/b"), ("created", "back/b/f")]));
    fs::write(world.at("back/b/g"), "").unwrap();
    assert_eq!(world.told(), told([("created", "back/b/g")]));
}

#[test]
fn files_in_fresh_directories_are_never_missed() {
    let mut world = World::new();
    for n in 0..200 {
        let inner = world.at(&format!("{n}/inner"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
    }
    assert_eq!(world.told().len(), 600);
}

#[test]
fn a_directory_made_anew_or_swapped_for_a_link_is_seen_as_it_is() {
    let mut world = World::with(|root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/old"), "").unwrap();
    });
    fs::remove_dir_all(world.at("d")).unwrap();
    fs::create_dir(world.at("d")).unwrap();
    fs::write(world.at("d/new"), "").unwrap();
    assert_eq!(world.told(), told([("created", "d/new"), ("deleted", "d/old")]));
    fs::rename(world.at("d"), world.outside("d")).unwrap();
    symlink(world.outside("d"), world.at("d")).unwrap();
    assert_eq!(world.told(), told([("type", "d"), ("deleted", "d/new")]));
}

#[test]
fn every_name_of_a_file_changes_with_it() {
    let mut world = World::with(|root| {
        fs::write(root.join("one"), "x").unwrap();
        fs::hard_link(root.join("one"), root.join("two")).unwrap();
    });
    fs::write(world.at("one"), "y").unwrap();
    assert_eq!(world.told(), told([("modified", "one"), ("modified", "two")]));
    fs::remove_file(world.at("two")).unwrap();
    assert_eq!(world.told(), told([("attributes", "one"), ("deleted", "two")]));
}

#[test]
fn a_root_may_go_and_come_back() {
    let mut world = World::with(|root| fs::write(root.join("f"), "").unwrap());
    fs::rename(world.at(""), world.outside("root")).unwrap();
    let gone = world.settle();
    assert!(gone.iter().any(|event| matches!(event, Event::CoverageLost { why: Uncovered::Unreadable(2), .. })), "{gone:?}");
    fs::rename(world.outside("root"), world.at("")).unwrap();
    assert!(world.settle().iter().any(|event| matches!(event, Event::CoverageGained { .. })));
    fs::write(world.at("g"), "").unwrap();
    assert_eq!(world.told(), told([("created", "g")]));
}

#[test]
fn a_root_that_is_one_file_is_watched_through_replacements() {
    let mut world = World::with(|root| fs::write(root.join("f"), "").unwrap());
    world.reconciler.roots = Roots::from_iter([bytes(&world.at("f"))]);
    world.reconciler.armed.keep(&bytes(&world.at("")), |_| false);
    world.reconciler.view = View::default();
    world.reconciler.compare_all(Source::Start);
    while world.read() || world.reconciler.is_dirty() {
        world.reconcile();
    }
    let mut changes = |act: &dyn Fn(&World)| {
        world.events.clear();
        act(&world);
        while world.read() || world.reconciler.is_dirty() {
            world.reconcile();
        }
        world.events.iter().filter(|event| matches!(event, Event::Changed { .. })).count()
    };
    assert_eq!(changes(&|world| fs::write(world.at("f"), "one").unwrap()), 1);
    assert_eq!(changes(&|world| fs::write(world.at("other"), "").unwrap()), 0);
    assert_eq!(changes(&|world| fs::rename(world.at("other"), world.at("f")).unwrap()), 1);
    assert_eq!(changes(&|world| fs::write(world.at("f"), "two").unwrap()), 1);
    assert_eq!(changes(&|world| fs::remove_file(world.at("f")).unwrap()), 1);
    assert_eq!(changes(&|world| fs::write(world.at("f"), "three").unwrap()), 1);
}

#[test]
fn a_full_queue_is_a_gap_that_ends_with_a_full_comparison() {
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

/// Runs itself again in a user namespace of its own, whose limit it can set.
#[test]
fn directories_beyond_the_limit_of_watches_are_compared_and_said_to_be() {
    const LIMITED: &str = "EGRET_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_none() {
        let script = "echo 5 > /proc/sys/user/max_inotify_watches || exit 9; exec \"$0\" --exact \"$1\" --nocapture";
        let name = "watch::reconcile::tests::directories_beyond_the_limit_of_watches_are_compared_and_said_to_be";
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(name);
        return match command.env(LIMITED, "1").output() {
            Ok(output) if output.status.success() => {
                assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
            }
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("1 failed") => panic!("{output:?}"),
            other => eprintln!("NOT TESTED: no user namespace with limits of its own: {other:?}"),
        };
    }
    let mut world = World::new();
    for n in 0..20 {
        fs::create_dir(world.at(&n.to_string())).unwrap();
        fs::write(world.at(&format!("{n}/file")), "").unwrap();
    }
    while world.read() || world.reconciler.is_dirty() {
        world.reconcile();
    }
    let unwatched = |event: &&Event| matches!(event, Event::CoverageLost { why: Uncovered::NoWatch, .. });
    // One watch is the parent's, one the root's.
    assert_eq!(world.events.iter().filter(unwatched).count(), 17);
    let changed = |event: &&Event| matches!(event, Event::Changed { .. });
    assert_eq!(world.events.iter().filter(changed).count(), 40);
    world.events.clear();
    (0..20).for_each(|n| fs::write(world.at(&format!("{n}/file")), "later").unwrap());
    world.reconciler.compare_all(Source::Schedule);
    world.reconcile();
    assert_eq!(world.events.iter().filter(changed).count(), 20);
    assert_eq!(world.events.iter().filter(unwatched).count(), 0, "each is told once");
    is_watched_again(world);
}

/// Once there is room, a change of an unwatched directory's own entry is enough.
fn is_watched_again(mut world: World) {
    let watched = |world: &World, n: &u32| {
        let path = bytes(&world.at(&n.to_string()));
        world.reconciler.armed.all().any(|armed| *armed == path)
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
fn the_comparison_causes_no_events() {
    let mut world = World::with(|root| fs::write(root.join("f"), "").unwrap());
    world.reconciler.compare_all(Source::Schedule);
    world.reconcile();
    assert!(!world.read());
}

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is done, and whenever it is read, the view ends as a fresh scan.
    #[test]
    fn any_sequence_ends_in_the_view_of_a_fresh_scan(acts in proptest::collection::vec(act(3), 1..40)) {
        let mut world = World::new();
        acts.iter().for_each(|act| play(&mut world, act));
        world.settle();
    }

    /// The same with two names, which are often the same file's.
    #[test]
    fn any_sequence_in_one_directory_does_too(acts in proptest::collection::vec(act(1), 1..40)) {
        let mut world = World::new();
        acts.iter().for_each(|act| play(&mut world, act));
        world.settle();
    }
}

#[test]
fn a_root_inside_another_is_looked_at_in_its_own_way() {
    let mut world = World::with(|root| fs::create_dir_all(root.join("deep/logs/old")).unwrap());
    let exclude = globset::GlobSet::builder().add(globset::Glob::new("**/*.tmp").unwrap()).build().unwrap();
    let quiet = crate::roots::How { exclude, ..Default::default() };
    let whole = (bytes(&world.folder.path().join("root")), crate::roots::How::default());
    world.reconciler.roots = Roots::new([whole, (bytes(&world.at("deep/logs")), quiet)]);
    world.reconciler.compare_all(Source::Start);
    world.settle();
    fs::write(world.at("deep/logs/a.tmp"), "").unwrap();
    fs::write(world.at("deep/b.tmp"), "").unwrap();
    assert_eq!(world.told(), told([("created", "deep/b.tmp")]));
    fs::rename(world.at("deep"), world.outside("deep")).unwrap();
    let gone = world.settle().into_iter().filter(|event| matches!(event, Event::Changed { .. })).count();
    assert_eq!(gone, 4, "deep, b.tmp, logs and old");
    fs::rename(world.outside("deep"), world.at("deep")).unwrap();
    world.settle();
    fs::write(world.at("deep/logs/old/b"), "").unwrap();
    assert_eq!(world.told(), told([("created", "deep/logs/old/b")]));
}
