//! C: writes that events hide or misname.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

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
    let mut world = World::with(|root| fs::write(root.join("f"), "one").unwrap());
    let script = "import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 3)\nf.close()\nm[0] = 120\n\
                  print('written', flush=True)\nsys.stdin.readline()\nm.close()\n";
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
    assert_eq!(world.events.iter().filter(found).count(), 1, "without an event: {:?}", world.events);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(world.read(), "the last mapping is gone");
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
