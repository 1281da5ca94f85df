//! C: writes that events hide or misname.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::sys::write_by_ring;
use super::world::{World, bytes, told};
use crate::watch::event::{Event, Source};

#[test]
fn a11_c12_c15_created_modified_attributes_and_deleted_are_told_once_each() {
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
fn c17_an_atomic_save_is_one_modification() {
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
fn c16_what_came_and_went_is_transient() {
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
fn c19_what_is_replaced_and_restored_is_told() {
    let mut world = World::with(|root| fs::write(root.join("run"), "good").unwrap());
    fs::rename(world.at("run"), world.at("run~")).unwrap();
    fs::write(world.at("run"), "evil").unwrap();
    fs::remove_file(world.at("run")).unwrap();
    fs::rename(world.at("run~"), world.at("run")).unwrap();
    assert_eq!(world.told(), told([("transient", "run")]));
    fs::rename(world.at("run"), world.at("run~")).unwrap();
    fs::rename(world.at("run~"), world.at("run")).unwrap();
    assert_eq!(world.told(), told([]), "nothing else stood there");
}

#[test]
fn a17_a_directory_whose_mode_changes_is_watched_anew_alone() {
    let mut world = World::with(|root| fs::create_dir_all(root.join("d/deep")).unwrap());
    let deep = bytes(&world.at("d/deep"));
    world.reconciler.armed.end(&deep);
    world.drain();
    fs::set_permissions(world.at("d"), fs::Permissions::from_mode(0o711)).unwrap();
    assert_eq!(world.told_so_far(), told([("attributes", "d")]));
    assert_eq!(world.reconciler.armed.watch(&deep), None, "nobody went there");
}

#[test]
fn c05_names_that_come_and_go_are_known() {
    let mut world = World::with(|root| fs::write(root.join("a"), "x").unwrap());
    fs::hard_link(world.at("a"), world.at("b")).unwrap();
    assert_eq!(world.told(), told([("attributes", "a"), ("created", "b")]));
    fs::hard_link(world.at("b"), world.outside("c")).unwrap();
    assert_eq!(world.told(), told([("attributes", "a"), ("attributes", "b")]));
    fs::write(world.outside("c"), "y").unwrap();
    assert_eq!(world.told(), told([("modified", "a"), ("modified", "b")]));
    fs::remove_file(world.at("a")).unwrap();
    assert_eq!(world.told(), told([("deleted", "a"), ("attributes", "b")]));
    fs::rename(world.outside("c"), world.at("d")).unwrap();
    assert_eq!(world.told(), told([("created", "d")]));
    fs::write(world.at("d"), "z").unwrap();
    assert_eq!(world.told(), told([("modified", "b"), ("modified", "d")]));
}

#[test]
fn c05_every_name_of_a_file_changes_with_it() {
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
fn c03_c04_a_name_elsewhere_and_what_is_written_by_it_are_told() {
    let mut world = World::with(|root| fs::write(root.join("f"), "one").unwrap());
    fs::hard_link(world.at("f"), world.outside("other")).unwrap();
    let told_now = world.told_so_far();
    assert!(told_now.is_empty() || told_now == told([("attributes", "f")]), "{told_now:?}");
    // At the latest a comparison sees that there are two names, and from then on the file is watched itself.
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    world.events.clear();
    fs::write(world.outside("other"), "two").unwrap();
    assert_eq!(world.told(), told([("modified", "f")]));
    fs::remove_file(world.outside("other")).unwrap();
    assert_eq!(world.told(), told([("attributes", "f")]));
    let path = bytes(&world.at("f"));
    assert!(!world.reconciler.armed.is_file(&path), "one name needs no watch of its own");
}

#[test]
fn c08_a_writer_that_had_it_open_before_it_came_is_followed() {
    let mut world = World::new();
    let mut file = fs::File::create(world.outside("f")).unwrap();
    fs::rename(world.outside("f"), world.at("f")).unwrap();
    assert_eq!(world.told(), told([("created", "f")]));
    std::io::Write::write_all(&mut file, b"late").unwrap();
    drop(file);
    assert_eq!(world.told(), told([("modified", "f")]));
}

#[test]
fn c14_however_it_is_written_it_is_told_once() {
    let mut world = World::with(|root| fs::write(root.join("f"), "one two three").unwrap());
    fs::File::options().write(true).open(world.at("f")).unwrap().set_len(3).unwrap();
    assert_eq!(world.told(), told([("modified", "f")]));
    let file = fs::File::options().write(true).open(world.at("f")).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 4096).unwrap();
    drop(file);
    assert_eq!(world.told(), told([("modified", "f")]));
    fs::write(world.outside("source"), "copied").unwrap();
    // copy_file_range(2) or sendfile(2).
    fs::copy(world.outside("source"), world.at("f")).unwrap();
    assert_eq!(world.told().iter().filter(|(change, _)| change == "modified").count(), 1);
}

#[test]
fn c18_an_unpacked_package_is_told_under_its_final_names() {
    let mut world = World::with(|root| fs::write(root.join("tool"), "old").unwrap());
    fs::write(world.at("tool.new"), "new").unwrap();
    fs::rename(world.at("tool.new"), world.at("tool")).unwrap();
    fs::write(world.at("lib.new"), "new").unwrap();
    fs::rename(world.at("lib.new"), world.at("lib")).unwrap();
    assert_eq!(world.told(), told([("created", "lib"), ("modified", "tool")]));
}

#[test]
fn c19_what_is_changed_and_changed_back_differs_in_its_time() {
    let mut world = World::with(|root| fs::write(root.join("f"), "one").unwrap());
    fs::write(world.at("f"), "two").unwrap();
    fs::write(world.at("f"), "one").unwrap();
    assert_eq!(world.told(), told([("attributes", "f")]));
}

#[test]
fn c01_c02_a_write_through_a_mapping_is_found_when_it_ends_or_by_a_comparison() {
    let mut world = World::with(|root| {
        fs::write(root.join("f"), "one").unwrap();
        fs::hard_link(root.join("f"), root.join("other")).unwrap();
        symlink("other", root.join("to")).unwrap();
    });
    let script = "import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 3)\nf.close()\nm[0] = 120\n\
                  print('written', flush=True)\nsys.stdin.readline()\nm[1] = 121\nm.close()\n";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(world.at("f"));
    let child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let Ok(mut child) = child else { return eprintln!("NOT TESTED: no python3 to map a file") };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    assert_eq!(line, "written\n");
    world.drain();
    world.events.clear();
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    let found = |event: &&Event| matches!(event, Event::Changed { source: Source::Schedule, since: Some(_), .. });
    assert_eq!(world.events.iter().filter(found).count(), 3, "without an event, by each name: {:?}", world.events);
    world.events.clear();
    // Once its time of change is old enough to be proof: the page can be written already, and a second write changes no time.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(60);
    while std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    world.drain();
    assert!(!world.events.iter().any(|event| matches!(event, Event::Changed { .. })));
    assert!(world.reconciler.view.entries.values().all(|print| print.inode.unwrap().changed.is_some()));
    world.events.clear();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(world.told(), told([("modified", "f"), ("modified", "other"), ("effective", "to")]), "the last mapping is gone");
}

#[test]
fn c11_an_extended_attribute_that_grants_something_is_told() {
    let mut world = World::with(|root| fs::write(root.join("f"), "one").unwrap());
    let acl: &[u8] = &[
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 1, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255,
        255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
    ];
    if let Err(error) = rustix::fs::setxattr(world.at("f"), "system.posix_acl_access", acl, rustix::fs::XattrFlags::empty()) {
        return eprintln!("NOT TESTED: c11: no access control list can be set: {error}");
    }
    assert_eq!(world.told(), told([("attributes", "f")]));
}

#[test]
fn d14_a_swap_of_mounted_configuration_is_told_of_each_visible_file() {
    let mut world = World::with(|root| {
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("config"), text).unwrap();
            fs::write(root.join(version).join("same"), "same").unwrap();
        }
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/config", root.join("config")).unwrap();
        symlink("..data/same", root.join("same")).unwrap();
    });
    symlink("..2", world.at("..tmp")).unwrap();
    fs::rename(world.at("..tmp"), world.at("..data")).unwrap();
    let swapped = world.told();
    assert!(swapped.contains(&("effective".into(), "config".into())), "{swapped:?}");
    assert!(
        !swapped.iter().any(|(_, name)| name == "same") || swapped.contains(&("attributes".into(), "same".into())),
        "{swapped:?}"
    );
    fs::write(world.at("..2/config"), "three").unwrap();
    assert_eq!(world.told(), told([("modified", "..2/config"), ("effective", "config")]));
}

#[test]
fn d16_links_that_lead_nowhere_or_round_are_recorded() {
    let mut world = World::new();
    symlink("nowhere", world.at("dangling")).unwrap();
    symlink("loop", world.at("loop")).unwrap();
    assert_eq!(world.told(), told([("created", "dangling"), ("created", "loop")]));
    fs::write(world.at("nowhere"), "").unwrap();
    assert!(world.told().contains(&("effective".into(), "dangling".into())));
}

#[test]
fn a13_a17_a_file_that_is_slow_to_read_rests_others_do_not_and_the_last_state_is_told() {
    let mut world = World::with(|root| fs::write(root.join("log"), "one").unwrap());
    let log: crate::view::Path = bytes(&world.at("log")).into();
    let now = std::time::Instant::now();
    world.reconciler.is_slow(&log, std::time::Duration::from_secs(10), now);
    fs::write(world.at("log"), "two").unwrap();
    fs::write(world.at("other"), "").unwrap();
    assert_eq!(world.told_so_far(), told([("created", "other")]));
    assert!(world.reconciler.next().is_some());
    fs::write(world.at("log"), "three").unwrap();
    world.drain();
    assert!(world.reconciler.tick(now + std::time::Duration::from_secs(201), &mut |_| {}));
    assert_eq!(world.told(), told([("modified", "log")]));
    world.reconciler.is_slow(&log, std::time::Duration::from_secs(10), std::time::Instant::now());
    fs::remove_file(world.at("log")).unwrap();
    assert_eq!(world.told(), told([("deleted", "log")]), "what is gone is told at once");
}

#[test]
fn c05_a_write_by_a_name_that_came_and_went_is_found_by_the_next_poll() {
    let mut world = World::with(|root| fs::write(root.join("f"), "one").unwrap());
    fs::hard_link(world.at("f"), world.at("other")).unwrap();
    fs::write(world.at("other"), "two").unwrap();
    fs::remove_file(world.at("other")).unwrap();
    assert_eq!(world.told_so_far(), told([("transient", "other")]), "no event names the file");
    assert!(world.reconciler.polls());
    world.poll();
    let found = |event: &&Event| matches!(event, Event::Changed { source: Source::Schedule, since: Some(_), .. });
    assert_eq!(world.events.iter().filter(found).count(), 1, "{:?}", world.events);
    assert!(!world.reconciler.polls());
    // A save in two steps leaves nothing in doubt.
    fs::write(world.at("f.tmp"), "three").unwrap();
    fs::rename(world.at("f.tmp"), world.at("f")).unwrap();
    world.drain();
    assert!(!world.reconciler.polls());
}

#[test]
fn c16_a_move_to_its_name_and_back_hides_nothing_that_came_and_went() {
    let mut world = World::with(|root| fs::write(root.join("k"), "known").unwrap());
    let to_and_fro = |world: &World| {
        fs::rename(world.at("k"), world.at("a")).unwrap();
        fs::rename(world.at("a"), world.at("k")).unwrap();
    };
    let drop_one = |world: &World| {
        fs::write(world.at("a"), "dropper").unwrap();
        fs::remove_file(world.at("a")).unwrap();
    };
    to_and_fro(&world);
    drop_one(&world);
    assert_eq!(world.told(), told([("transient", "a")]), "moved before");
    drop_one(&world);
    to_and_fro(&world);
    assert_eq!(world.told(), told([("transient", "a")]), "moved after");
    fs::write(world.at("a"), "dropper").unwrap();
    to_and_fro(&world);
    assert_eq!(world.told(), told([("transient", "a")]), "replaced");
    to_and_fro(&world);
    assert_eq!(world.told(), told([]), "nothing came");
}

/// A world whose root is looked at in another way.
fn world_so(how: crate::roots::How, prepare: impl Fn(&std::path::Path)) -> World {
    let mut world = World::with(prepare);
    let root = bytes(&world.folder.path().join("root"));
    world.restart(crate::roots::Roots::new([(root, how)]), crate::view::View::default(), &super::world::options());
    world.start();
    world
}

fn excluding(pattern: &str) -> crate::roots::How {
    let exclude = globset::GlobSet::builder().add(globset::Glob::new(pattern).unwrap()).build().unwrap();
    crate::roots::How { folders: exclude.clone(), exclude, ..Default::default() }
}

fn counted(world: &mut World) -> u64 {
    let mut ledger = crate::ledger::Ledger::default();
    world.reconciler.write(&mut ledger);
    ledger.excluded_transients
}

#[test]
fn f02_what_is_left_out_and_came_and_went_is_counted_and_told_if_it_could_be_executed() {
    let executables = crate::roots::How { content: crate::roots::Content::Executables, ..Default::default() };
    for how in [excluding("**/*.log"), executables] {
        let mut world = world_so(how, |_| {});
        fs::write(world.at("x.log"), "").unwrap();
        assert_eq!(world.told(), told([]), "it is there");
        fs::write(world.at("y.log"), "").unwrap();
        fs::remove_file(world.at("y.log")).unwrap();
        assert_eq!((world.told(), counted(&mut world)), (told([]), 1));
        fs::write(world.at("y.log"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(world.at("y.log"), fs::Permissions::from_mode(0o4755)).unwrap();
        world.read();
        fs::remove_file(world.at("y.log")).unwrap();
        assert_eq!((world.told(), counted(&mut world)), (told([("transient", "y.log")]), 1));
    }
}

#[test]
fn f03_what_is_in_an_excluded_directory_is_dropped_though_a_root_in_it_is_watched() {
    let mut world = World::with(|root| {
        fs::create_dir(root.join("logs")).unwrap();
        fs::write(root.join("logs/audit"), "").unwrap();
    });
    let root = bytes(&world.folder.path().join("root"));
    let audit = (bytes(&world.at("logs/audit")), crate::roots::How::default());
    let roots = crate::roots::Roots::new([(root, excluding("**/logs")), audit]);
    world.restart(roots, crate::view::View::default(), &super::world::options());
    world.start();
    let watched = world.reconciler.armed.len();
    fs::write(world.at("logs/t"), "x").unwrap();
    fs::remove_file(world.at("logs/t")).unwrap();
    fs::create_dir_all(world.at("logs/d/e")).unwrap();
    fs::write(world.at("logs/other"), "x").unwrap();
    assert_eq!((world.told_so_far(), world.reconciler.armed.len(), counted(&mut world)), (told([]), watched, 0));
    fs::write(world.at("logs/audit"), "x").unwrap();
    assert_eq!(world.told_so_far(), told([("modified", "logs/audit")]));
}

#[test]
fn c09_a_write_through_a_ring_is_told_and_at_the_latest_found() {
    let mut world = World::with(|root| fs::write(root.join("f"), "one").unwrap());
    let file = fs::File::options().write(true).open(world.at("f")).unwrap();
    if let Err(error) = write_by_ring(&file, b"two") {
        return eprintln!("NOT TESTED: c09: no io_uring: {error}");
    }
    assert_eq!(fs::read_to_string(world.at("f")).unwrap(), "two");
    world.drain();
    // Before Linux 5.18 there is no event.
    world.reconciler.compare(Source::Schedule, &mut |_| {});
    let changes: Vec<_> = world.told().into_iter().filter(|(_, name)| !name.is_empty()).collect();
    assert_eq!(changes, told([("modified", "f")]));
}
