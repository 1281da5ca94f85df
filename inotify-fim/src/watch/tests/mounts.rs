//! D: mounts. Each test has a mount namespace of its own.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::fuse::Served;
use super::namespace::{UNSHARE, has_namespaces, is_inside, not_tested, run};
use super::world::{World, bytes, options, told};
use crate::ledger::{Ledger, Polled, Proof, Unverified};
use crate::roots::Roots;
use crate::scan::Uncovered;
use crate::view::{Change, View};
use crate::watch::MountChange;
use crate::watch::event::{Event, Source};

/// Mounts something in the namespace of the test.
fn mount(arguments: &[&str], at: &Path) -> bool {
    let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    all.push(at.as_os_str());
    run("mount", &all)
}

fn unmount(at: &Path) {
    assert!(run("umount", &[at.as_os_str()]));
}

impl World {
    /// As the reader would: some mount changed.
    fn mounts_changed(&mut self) {
        self.reconciler.mounts_changed(&mut |event| self.events.push(event));
    }

    fn mount_events(&mut self) -> Vec<MountChange> {
        self.mounts_changed();
        self.drain();
        let change = |event| if let Event::MountChanged { change, .. } = event { Some(change) } else { None };
        std::mem::take(&mut self.events).into_iter().filter_map(change).collect()
    }

    fn proof(&mut self, name: &str) -> Option<Proof> {
        let mut ledger = Ledger::default();
        self.reconciler.write_lists(&mut ledger);
        let path = bytes(&self.at(name));
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        ledger.mounts.iter().find(|mount| mount.path == path).map(|mount| mount.proof)
    }
}

#[test]
fn d09_d10_a_mount_that_comes_and_goes_is_told_and_what_it_holds_is_watched() {
    if !is_inside(module_path!(), "d09_d10_a_mount_that_comes_and_goes_is_told_and_what_it_holds_is_watched", "true") {
        return;
    }
    let mut world = World::with(|root| {
        fs::create_dir_all(root.join("m/hidden")).unwrap();
        fs::write(root.join("m/old"), "").unwrap();
    });
    if !mount(&["-t", "tmpfs", "label"], &world.at("m")) {
        return;
    }
    fs::write(world.at("m/new"), "").unwrap();
    let mounted = MountChange::Mounted { fs_type: "tmpfs".into(), source: Some(b"label".to_vec()), read_only: false };
    world.mounts_changed();
    world.drain();
    assert!(world.events.contains(&Event::MountChanged { path: bytes(&world.at("m")), change: mounted }));
    let changes = world.told().into_iter().filter(|(_, name)| !name.is_empty()).collect::<Vec<_>>();
    assert!(changes.contains(&("deleted".into(), "m/hidden".into())), "{changes:?}");
    assert!(changes.contains(&("created".into(), "m/new".into())), "{changes:?}");
    fs::write(world.at("m/later"), "").unwrap();
    assert_eq!(world.told(), told([("created", "m/later")]), "watched");
    assert_eq!(world.proof("m"), Some(Proof::Proven));
    unmount(&world.at("m"));
    world.mounts_changed();
    let changes = world.told();
    assert!(changes.contains(&("created".into(), "m/hidden".into())), "{changes:?}");
    fs::write(world.at("m/hidden/f"), "").unwrap();
    assert_eq!(world.told(), told([("created", "m/hidden/f")]), "watched again");
    assert_eq!(world.proof("m"), None);
}

#[test]
fn d09_a_file_system_unmounted_without_a_word_is_noticed_by_its_watches() {
    if !is_inside(module_path!(), "d09_a_file_system_unmounted_without_a_word_is_noticed_by_its_watches", "true") {
        return;
    }
    let mut world = World::with(|root| fs::create_dir(root.join("m")).unwrap());
    if !mount(&["-t", "tmpfs", "none"], &world.at("m")) {
        return;
    }
    fs::write(world.at("m/f"), "").unwrap();
    world.mounts_changed();
    world.settle();
    unmount(&world.at("m"));
    assert!(world.told().contains(&("deleted".into(), "m/f".into())), "by UNMOUNT alone");
}

#[test]
fn a_mount_over_a_directory_that_a_root_is_in_hides_the_root() {
    if !is_inside(module_path!(), "a_mount_over_a_directory_that_a_root_is_in_hides_the_root", "true") {
        return;
    }
    let mut world = World::with(|root| fs::write(root.join("f"), "").unwrap());
    let above = world.folder.path().to_path_buf();
    if !mount(&["-t", "tmpfs", "none"], &above) {
        return;
    }
    assert!(matches!(world.mount_events()[..], [MountChange::Mounted { .. }]));
    assert!(world.reconciler.view.entries.is_empty());
    unmount(&above);
    assert!(matches!(world.mount_events()[..], [MountChange::Unmounted]));
    assert_eq!(world.reconciler.view.entries.len(), 2);
    fs::write(world.at("g"), "").unwrap();
    assert_eq!(world.told(), told([("created", "g")]));
}

#[test]
fn d13_a_read_only_mount_is_unverified_until_it_can_be_written() {
    if !is_inside(module_path!(), "d13_a_read_only_mount_is_unverified_until_it_can_be_written", "true") {
        return;
    }
    let mut world = World::with(|root| fs::create_dir(root.join("m")).unwrap());
    if !mount(&["-t", "tmpfs", "-o", "ro", "none"], &world.at("m")) {
        return;
    }
    assert!(matches!(world.mount_events()[..], [MountChange::Mounted { read_only: true, .. }]));
    assert_eq!(world.proof("m"), Some(Proof::Unverified(Unverified::ReadOnly)));
    assert!(mount(&["-o", "remount,rw"], &world.at("m")));
    assert_eq!(world.mount_events(), [MountChange::Remounted { read_only: false }]);
    assert_eq!(world.proof("m"), Some(Proof::Proven));
}

#[test]
fn d05_b20_a_directory_bound_elsewhere_in_the_tree_is_told_under_both_names() {
    if !is_inside(module_path!(), "d05_b20_a_directory_bound_elsewhere_in_the_tree_is_told_under_both_names", "true") {
        return;
    }
    let mut world = World::with(|root| ["a", "b"].iter().for_each(|name| fs::create_dir(root.join(name)).unwrap()));
    if !mount(&["--bind", world.at("a").to_str().unwrap()], &world.at("b")) {
        return;
    }
    world.mount_events();
    fs::write(world.at("a/f"), "").unwrap();
    assert_eq!(world.told(), told([("created", "a/f"), ("created", "b/f")]));
    unmount(&world.at("b"));
    world.mounts_changed();
    world.settle();
    fs::write(world.at("a/f"), "x").unwrap();
    assert_eq!(world.told(), told([("modified", "a/f")]), "removing one name keeps the other");
}

#[test]
fn d07_the_mount_of_a_single_file_is_watched_itself() {
    if !is_inside(module_path!(), "d07_the_mount_of_a_single_file_is_watched_itself", "true") {
        return;
    }
    let mut world = World::with(|root| fs::write(root.join("config"), "").unwrap());
    fs::write(world.outside("source"), "one").unwrap();
    if !mount(&["--bind", world.outside("source").to_str().unwrap()], &world.at("config")) {
        return;
    }
    world.mount_events();
    assert_eq!(world.proof("config"), Some(Proof::Unverified(Unverified::SingleFile)));
    fs::write(world.outside("source"), "two").unwrap();
    assert_eq!(world.told(), told([("modified", "config")]), "written by another name");
    fs::write(world.at("config"), "three").unwrap();
    assert_eq!(world.told(), told([("modified", "config")]));
    // The mount keeps the old file: whoever reads it here reads that.
    fs::write(world.outside("other"), "four").unwrap();
    fs::rename(world.outside("other"), world.outside("source")).unwrap();
    assert!(world.told().iter().all(|(change, _)| change != "modified"));
    assert_eq!(fs::read_to_string(world.at("config")).unwrap(), "three");
    // As a root of its own.
    let file = bytes(&world.at("config"));
    world.restart(Roots::from_iter([file]), View::default(), &options());
    world.start();
    let mut file = fs::File::options().write(true).open(world.at("config")).unwrap();
    std::io::Write::write_all(&mut file, b"4").unwrap();
    world.drain();
    assert_eq!(world.events.iter().filter(|event| matches!(event, Event::Changed { .. })).count(), 1);
}

/// An overlay over `lower`, at the root's `m`.
fn overlay(world: &World) -> bool {
    for name in ["lower", "upper", "work"] {
        fs::create_dir(world.outside(name)).unwrap();
    }
    fs::write(world.outside("lower/f"), "one").unwrap();
    fs::write(world.outside("lower/same"), "one").unwrap();
    fs::create_dir(world.outside("lower/d")).unwrap();
    fs::write(world.outside("lower/d/g"), "").unwrap();
    let at = |name: &str| world.outside(name).display().to_string();
    let options = format!("userxattr,lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
    mount(&["-t", "overlay", "-o", &options, "none"], &world.at("m"))
}

#[test]
fn d01_d03_d04_in_an_overlay_the_merged_view_counts() {
    if !is_inside(module_path!(), "d01_d03_d04_in_an_overlay_the_merged_view_counts", "true") {
        return;
    }
    let mut world = World::with(|root| fs::create_dir(root.join("m")).unwrap());
    if !overlay(&world) {
        return;
    }
    world.mount_events();
    fs::File::options().append(true).open(world.at("m/same")).unwrap();
    let copied = world.told();
    assert!(
        copied.iter().all(|(change, _)| change != "modified"),
        "a copy to the upper layer alone is no other content: {copied:?}"
    );
    fs::write(world.at("m/f"), "two").unwrap();
    assert_eq!(world.told(), told([("modified", "m/f")]));
    // A rename of what is in the lower layer: the kernel may refuse it, and tools copy.
    assert!(run("mv", &[world.at("m/d").as_os_str(), world.at("m/e").as_os_str()]));
    let moved = world.told();
    assert!(moved.iter().any(|(_, name)| name == "m/e/g"), "{moved:?}");
    // Behind its back there is no event.
    fs::write(world.outside("upper/f"), "three").unwrap();
    world.drain();
    world.reconciler.compare(Source::Schedule, &mut |event| world.events.push(event));
    world.drain();
    let found = |event: &&Event| matches!(event, Event::Changed { difference, source: Source::Schedule, .. } if difference.path.ends_with(b"m/f"));
    assert_eq!(world.events.iter().filter(found).count(), 1);
}

#[test]
fn d02_watches_of_files_that_died_unseen_are_made_anew() {
    if !is_inside(module_path!(), "d02_watches_of_files_that_died_unseen_are_made_anew", "true") {
        return;
    }
    let mut world = World::with(|root| fs::create_dir(root.join("m")).unwrap());
    if !overlay(&world) {
        return;
    }
    world.mount_events();
    // Copied up, and the inode that was watched dropped with the caches.
    fs::write(world.at("m/f"), "two").unwrap();
    fs::hard_link(world.at("m/f"), world.at("m/other")).unwrap();
    world.settle();
    let _ = fs::write("/proc/sys/vm/drop_caches", "2");
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    world.events.clear();
    fs::write(world.at("m/other"), "three").unwrap();
    assert_eq!(world.told(), told([("modified", "m/f"), ("modified", "m/other")]));
}

#[test]
fn d22_what_the_kernel_makes_up_is_not_entered() {
    if !is_inside(module_path!(), "d22_what_the_kernel_makes_up_is_not_entered", "true") {
        return;
    }
    let mut world = World::with(|root| fs::create_dir(root.join("proc")).unwrap());
    if !mount(&["--rbind", "/proc"], &world.at("proc")) {
        return;
    }
    world.mounts_changed();
    world.drain();
    let told = |event: &Event| matches!(event, Event::CoverageLost { why: Uncovered::Kernel, path } if *path == bytes(&world.at("proc")));
    assert!(world.events.iter().any(told));
    assert_eq!(world.reconciler.view.entries.len(), 2);
}

#[test]
fn d17_d18_a_tree_in_another_mount_namespace_is_watched_while_that_lives() {
    let script = "mkdir /tmp/d17.$$ && mount -t tmpfs none /tmp/d17.$$ && echo /tmp/d17.$$ && read -r line; rmdir /tmp/d17.$$";
    if !has_namespaces() {
        return not_tested("d17, d18");
    }
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(["sh", "-c", script]);
    let mut other = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let root = format!("/proc/{}/root{}", other.id(), line.trim());
    assert!(!line.is_empty() && Path::new(&root).is_dir(), "{root}");
    let mut world = World::new();
    world.restart(Roots::from_iter([root.clone().into_bytes()]), View::default(), &options());
    world.start();
    fs::write(format!("{root}/f"), "").unwrap();
    world.drain();
    let changed = |event: &&Event| matches!(event, Event::Changed { .. });
    assert_eq!(world.events.iter().filter(changed).count(), 1, "{:?}", world.events);
    world.events.clear();
    drop(other.stdin.take());
    other.wait().unwrap();
    let _ = fs::remove_dir(line.trim());
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    let gone = Event::CoverageLost { path: root.into_bytes(), why: Uncovered::Unreadable(2) };
    assert!(world.events.contains(&gone), "{:?}", world.events);
}

#[test]
fn d11_d12_a_file_system_that_others_serve_is_polled_and_said_to_be() {
    if !is_inside(module_path!(), "d11_d12_a_file_system_that_others_serve_is_polled_and_said_to_be", "true") {
        return;
    }
    let mut world = World::with(|root| fs::create_dir(root.join("m")).unwrap());
    let Some(served) = Served::mount(&world.at("m"), "one") else { return };
    world.mounts_changed();
    world.drain();
    assert_eq!(world.proof("m"), Some(Proof::Polled(Polled::Remote)));
    assert!(world.events.contains(&Event::CoverageLost { path: bytes(&world.at("m")), why: Uncovered::Remote }));
    assert!(world.reconciler.polls());
    world.events.clear();
    served.write("two");
    assert_eq!(fs::read_to_string(world.at("m/f")).unwrap(), "two");
    assert!(!world.read(), "no event says so");
    world.poll();
    let found = |event: &&Event| {
        matches!(event, Event::Changed { difference, source: Source::Poll, .. }
            if difference.path.ends_with(b"m/f") && difference.change == Change::Modified)
    };
    assert_eq!(world.events.iter().filter(found).count(), 1, "{:?}", world.events);
    unmount(&world.at("m"));
}

#[test]
fn d12_where_no_event_comes_it_is_polled_and_said() {
    let mut world = World::new();
    let now = std::time::Instant::now();
    world.reconciler.compare(Source::Schedule, &mut |event| world.events.push(event));
    // As if the file system told nothing.
    while !crate::watch::reader::read(&world.inotify, &mut [0; 4096]).unwrap().is_empty() {}
    world.reconcile();
    world.events.clear();
    let tick = |world: &mut World, seconds| {
        let now = now + std::time::Duration::from_secs(seconds);
        world.reconciler.tick(now, &mut |event| world.events.push(event));
    };
    tick(&mut world, 10);
    assert_eq!(world.events, [], "it was not read yet");
    while !crate::watch::reader::read(&world.inotify, &mut [0; 4096]).unwrap().is_empty() {}
    tick(&mut world, 60);
    assert_eq!(world.events, [], "this process may have stood still");
    tick(&mut world, 120);
    let path = bytes(&world.folder.path().join("root"));
    assert_eq!(world.events, [Event::CoverageLost { path: path.clone(), why: Uncovered::NoEvents }]);
    assert_eq!(world.proof(""), Some(Proof::Polled(Polled::NoEvents)));
    assert!(world.reconciler.polls());
    fs::write(world.at("f"), "").unwrap();
    world.reconciler.compare(Source::Poll, &mut |_| {});
    world.reconcile();
    assert!(world.events.iter().any(|event| matches!(event, Event::Changed { .. })));
    // The next proof comes.
    world.events.clear();
    world.reconciler.compare(Source::Schedule, &mut |event| world.events.push(event));
    world.drain();
    assert!(world.events.contains(&Event::CoverageGained { path }), "{:?}", world.events);
    assert!(!world.reconciler.polls());
}

#[test]
fn g11_proofs_of_other_agents_are_not_told_and_what_only_looks_like_one_is() {
    let mut world = World::new();
    let canary = ".egret-canary-0123456789abcdef";
    fs::create_dir(world.at(canary)).unwrap();
    world.read();
    fs::remove_dir(world.at(canary)).unwrap();
    // Where the file system does not keep when it was made, nobody knows what was done in it before.
    let has_birth = fs::metadata(world.at("")).unwrap().created().is_ok();
    let expected = if has_birth { told([]) } else { told([("transient", canary)]) };
    assert_eq!(world.told(), expected, "it was watched while it was there");
    for _ in 0..2 {
        fs::create_dir(world.at(canary)).unwrap();
        fs::write(world.at(canary).join("payload"), "").unwrap();
        fs::remove_dir_all(world.at(canary)).unwrap();
        assert_eq!(world.told(), told([("transient", canary)]), "nobody saw what was in it");
    }
    fs::create_dir(world.at(canary)).unwrap();
    fs::write(world.at(canary).join("payload"), "").unwrap();
    fs::remove_file(world.at(canary).join("payload")).unwrap();
    fs::set_permissions(world.at(canary), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    world.read();
    fs::remove_dir(world.at(canary)).unwrap();
    assert_eq!(world.told(), told([("transient", canary)]), "it was used before it was watched");
    fs::create_dir(world.at(canary)).unwrap();
    assert_eq!(world.told(), told([("created", canary)]), "it stays");
    fs::write(world.at(canary).join("tool"), "").unwrap();
    fs::remove_file(world.at(canary).join("tool")).unwrap();
    fs::remove_dir(world.at(canary)).unwrap();
    let inside = format!("{canary}/tool");
    assert_eq!(world.told(), told([("transient", &inside), ("deleted", canary)]));
    fs::write(world.at(canary), "").unwrap();
    fs::remove_file(world.at(canary)).unwrap();
    assert_eq!(world.told(), told([("transient", canary)]), "no directory");
    fs::create_dir(world.at(canary)).unwrap();
    world.read();
    fs::write(world.at(canary).join("tool"), "").unwrap();
    fs::remove_file(world.at(canary).join("tool")).unwrap();
    fs::remove_dir(world.at(canary)).unwrap();
    assert_eq!(world.told(), told([("transient", canary), ("transient", &inside)]), "it was used");
}

#[test]
fn d19_where_proc_is_not_mounted_nothing_counts_as_gone() {
    if !is_inside(module_path!(), "d19_where_proc_is_not_mounted_nothing_counts_as_gone", "true") {
        return;
    }
    let mut world = World::with(|root| {
        fs::write(root.join("f"), "").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    });
    if !mount(&["-t", "tmpfs", "none"], Path::new("/proc")) {
        return;
    }
    for source in [Source::Full, Source::Schedule] {
        world.reconciler.compare(source, &mut |_| {});
        world.drain();
        let gone = |event: &&Event| matches!(event, Event::Changed { difference, .. } if difference.new.is_none());
        assert_eq!(world.events.iter().find(gone), None);
        let fifo = Event::CoverageLost { path: bytes(&world.at("fifo")), why: Uncovered::Unreadable(38) };
        assert!(world.events.contains(&fifo), "{:?}", world.events);
    }
    assert_eq!(world.reconciler.view.entries.len(), 3);
}
