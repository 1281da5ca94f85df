use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use globset::{Glob, GlobSetBuilder};
use rustix::fs::{CWD, FileType, Mode};

use super::*;
use crate::fingerprint::{HashState, Kind};
use crate::roots::How;
use crate::view::compare;

mod hostile;
mod links;
mod modes;

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn look(root: &Path, options: &Options) -> Scan {
    scan(&only(root), &View::default(), options)
}

fn only(root: &Path) -> Roots {
    [bytes(root)].into_iter().collect()
}

fn look_so(root: &Path, how: How) -> Scan {
    scan(&Roots::new([(bytes(root), how)]), &View::default(), &Options::default())
}

fn names(scan: &Scan, root: &Path) -> Vec<String> {
    let inside = |path: &crate::view::Path| path[bytes(root).len()..].escape_ascii().to_string();
    scan.view.entries.keys().map(inside).collect()
}

fn excluding(globs: &[String]) -> How {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(Glob::new(glob).unwrap());
    }
    let exclude = set.build().unwrap();
    How { folders: exclude.clone(), exclude, ..How::default() }
}

#[test]
fn every_entry_of_every_kind_and_name_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    for name in [&b"a/b/plain"[..], b"new\nline", b"\xff\x1b[31m", b"-rf \"'\\"] {
        fs::write(root.join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    symlink("/etc", root.join("link")).unwrap();
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let found = look(root, &Options::default());
    let all = ["", "/-rf \\\"\\'\\\\", "/a", "/a/b", "/a/b/plain", "/fifo", "/link", "/new\\nline", "/\\xff\\x1b[31m"]
        .map(String::from);
    assert_eq!(names(&found, root), all);
    assert!(found.uncovered.is_empty() && found.excluded == 0);
}

#[test]
fn the_answer_does_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    for directory in 0..20 {
        fs::create_dir(folder.path().join(directory.to_string())).unwrap();
        for file in 0..30 {
            fs::write(folder.path().join(format!("{directory}/{file}")), vec![7; file * 400]).unwrap();
        }
    }
    thread::sleep(Duration::from_millis(50));
    let [one, four] = [1, 4].map(|threads| look(folder.path(), &Options { threads, ..Options::default() }));
    assert_eq!((one.view.entries.len(), &one), (621, &four));
}

#[test]
fn only_what_changed_since_the_earlier_view_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["same", "other"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    let mut before = look(folder.path(), &Options::default()).view;
    // A mark that only a copy of the earlier view can carry.
    let mark = HashState::Done([0xee; 32]);
    before.entries.values_mut().filter(|print| print.kind == Kind::File).for_each(|print| Arc::make_mut(print).hash = mark);
    fs::write(folder.path().join("other"), "OTHER").unwrap();
    let after = scan(&only(folder.path()), &before, &Options::default()).view;
    let marked = |name: &str| after.entries[bytes(&folder.path().join(name)).as_slice()].hash == mark;
    assert_eq!((marked("same"), marked("other")), (true, false));
    let changed: Vec<Vec<u8>> = compare(&before, &after).into_iter().map(|found| found.path.to_vec()).collect();
    assert_eq!(changed, [bytes(&folder.path().join("other"))]);
}

#[test]
fn an_excluded_directory_is_an_entry_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("cache/deep")).unwrap();
    for name in ["cache/file", "kept", "some.log", "run.log"] {
        fs::write(root.join(name), "").unwrap();
    }
    fs::set_permissions(root.join("run.log"), fs::Permissions::from_mode(0o755)).unwrap();
    let found = look_so(root, excluding(&[format!("{}/cache", root.display()), "**/*.log".into()]));
    assert_eq!(names(&found, root), ["", "/cache", "/kept", "/run.log"], "what can be run is not hidden by its name");
    assert_eq!(found.excluded, 1);
    assert_eq!(found.uncovered, [(bytes(&root.join("cache")), Uncovered::Excluded)].into());
}

#[test]
fn entries_beyond_the_limit_are_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    for name in 0..20 {
        fs::write(folder.path().join(name.to_string()), "").unwrap();
    }
    let found = look(folder.path(), &Options { most: 15, ..Options::default() });
    assert_eq!(found.view.entries.len(), 16, "and the root");
    assert_eq!(found.uncovered, [(bytes(folder.path()), Uncovered::TooMany)].into());
}

#[test]
fn a_root_can_be_missing_a_file_or_reached_by_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/file"), "").unwrap();
    symlink("real", at("link")).unwrap();
    assert_eq!(look(&at("none"), &Options::default()).uncovered, [(bytes(&at("none")), Uncovered::Unreadable(2))].into());
    assert_eq!(names(&look(&at("link"), &Options::default()), &at("link")), ["", "/file"]);
    let file = look(&at("real/file"), &Options::default());
    assert_eq!((names(&file, &at("real/file")), file.uncovered.len()), (vec![String::new()], 0));
}

#[test]
fn below_a_file_or_a_link_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    symlink("/etc", folder.path().join("link")).unwrap();
    for name in ["file/x", "link/passwd", "none/x"] {
        let place = Place { path: bytes(&folder.path().join(name)), whole: false };
        assert_eq!(run(&only(folder.path()), [place], &View::default(), &Options::default()), Scan::default(), "{name}");
    }
}

#[test]
fn what_the_kernel_makes_up_is_not_walked() {
    for cross in [false, true] {
        let found = look_so(Path::new("/proc/self"), How { cross, ..How::default() });
        assert_eq!((found.view.entries.len(), found.uncovered.len()), (1, 1));
        assert_eq!(found.uncovered[&b"/proc/self"[..]], Uncovered::Kernel);
    }
}

#[test]
fn another_file_system_is_entered_only_if_told() {
    if fs::metadata("/dev").unwrap().dev() == fs::metadata("/dev/shm").map_or(0, |shm| shm.dev()) {
        return eprintln!("NOT TESTED: /dev/shm is no file system of its own here");
    }
    let [stays, crosses] = [false, true].map(|cross| look_so(Path::new("/dev"), How { cross, ..How::default() }));
    assert_eq!(stays.uncovered.get(&b"/dev/shm"[..]), Some(&Uncovered::OtherFileSystem));
    assert_eq!(crosses.uncovered.get(&b"/dev/shm"[..]), None);
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_walked() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = rustix::fs::open(folder.path(), rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..2100 {
        rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, "d", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let found = look(folder.path(), &Options::default());
    assert_eq!((found.view.entries.len(), found.uncovered.len()), (2101, 0));
}

/// The walk goes by descriptors: whoever swaps a directory for a link gains nothing.
#[test]
fn e05_a_directory_swapped_for_a_link_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, content) in [("outside", "secret"), ("root/real", "public")] {
        fs::create_dir_all(at(name)).unwrap();
        fs::write(at(name).join("file"), content).unwrap();
    }
    symlink(at("outside"), at("root/link")).unwrap();
    let secret = look(&at("outside"), &Options::default()).view.entries[bytes(&at("outside/file")).as_slice()].hash;
    let end = AtomicBool::new(false);
    let (from, to) = (at("root/real"), at("root/link"));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &from, CWD, &to, exchange).unwrap();
            }
        });
        let leaks = (0..200).filter(|_| {
            let found = look(&at("root"), &Options::default());
            found.view.entries.values().any(|print| print.hash == secret)
        });
        let leaks = leaks.count();
        end.store(true, Ordering::Relaxed);
        assert_eq!(leaks, 0);
    });
}

#[test]
fn what_could_not_be_seen_is_carried_over_and_what_is_gone_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| bytes(&folder.path().join(name));
    for name in ["hidden", "gone", "unwatched"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("file"), "").unwrap();
    }
    let before = look(folder.path(), &Options::default()).view;
    let uncovered = [
        (at("hidden"), Uncovered::Unreadable(Errno::ACCESS.raw_os_error())),
        (at("gone"), Uncovered::Unreadable(Errno::NOENT.raw_os_error())),
        (at("unwatched"), Uncovered::NoWatch),
    ];
    let mut after = Scan { uncovered: uncovered.into(), ..Scan::default() };
    after.carry(&before);
    assert_eq!(after.view.entries.keys().map(|path| path.to_vec()).collect::<Vec<_>>(), [at("hidden"), at("hidden/file")]);
}
