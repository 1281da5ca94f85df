//! What an attacker, or an unlucky moment, makes of files.

use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::{IFlags, OFlags, XattrFlags, inotify};

use super::*;
use crate::fingerprint::{Fingerprint, Xattr};
use crate::view::{Attribute, Change, Difference};

/// One file that is looked at before and after something is done to it.
fn after(act: impl Fn(&Path)) -> Vec<Difference> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, "content").unwrap();
    thread::sleep(Duration::from_millis(50));
    let before = look(folder.path(), &Options::default()).view;
    act(&path);
    let now = scan(&only(folder.path()), &before, &Options::default()).view;
    compare(&before, &now)
}

fn only_one(found: &[Difference]) -> (Change, Vec<Attribute>) {
    assert_eq!(found.len(), 1, "{found:?}");
    (found[0].change.clone(), found[0].attributes())
}

/// Runs a test again as a user that permissions hold for; whether this is not yet that run.
fn runs_as_nobody(name: &str) -> bool {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return false;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("scan::tests::hostile::{name}"), "--nocapture"]).uid(65_534).gid(65_534);
    match command.stdin(Stdio::null()).output() {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("1 passed") => {}
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("1 failed") => panic!("{output:?}"),
        other => eprintln!("NOT TESTED: permissions do not hold for root, and no other user can run this: {other:?}"),
    }
    true
}

#[test]
fn c10_flags_that_cause_no_event_are_told() {
    let is_possible = std::cell::Cell::new(true);
    let found = after(|path| {
        let file = fs::File::open(path).unwrap();
        is_possible.set(rustix::fs::ioctl_setflags(&file, IFlags::APPEND | IFlags::IMMUTABLE).is_ok());
    });
    if !is_possible.get() {
        return eprintln!("NOT TESTED: only root can set flags, and not every file system has them");
    }
    // The folder could not be removed while the flags are set.
    let path = &found[0].path;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    rustix::fs::ioctl_setflags(fs::File::open(path).unwrap(), IFlags::empty()).unwrap();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(only_one(&found), (Change::Attributes, vec![Attribute::Flags]));
    let flags = found[0].new.as_ref().unwrap().flags;
    assert!(flags.append && flags.immutable);
}

#[test]
fn c11_a_capability_of_a_file_is_told() {
    // Version 2, effective; cap_net_raw permitted (linux/capability.h, struct vfs_cap_data).
    let value = [0x0200_0001_u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    let is_possible = std::cell::Cell::new(true);
    let found = after(|path| {
        is_possible.set(rustix::fs::setxattr(path, "security.capability", &value, XattrFlags::empty()).is_ok());
    });
    if !is_possible.get() {
        return eprintln!("NOT TESTED: only root can give capabilities to a file");
    }
    assert_eq!(only_one(&found), (Change::Attributes, vec![Attribute::Xattrs]));
    assert_eq!(*found[0].new.as_ref().unwrap().xattrs, [(Xattr::Capability, value.into())]);
}

#[test]
fn c11_an_attribute_is_told_by_a_look_that_reads_no_content() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let path = folder.path().join("f");
    fs::write(&path, "").unwrap();
    let image = look(folder.path(), &Options::default()).view.portable();
    // Owner rw, user 4711 rwx, group r, mask rwx, others none (acl(5), include/linux/posix_acl_xattr.h).
    let entry = |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let entries = [entry(1, 6, !0), entry(2, 7, 4711), entry(4, 4, !0), entry(16, 7, !0), entry(32, 0, !0)].concat();
    let acl = [&2_u32.to_le_bytes()[..], &entries].concat();
    if let Err(error) = rustix::fs::setxattr(&path, "system.posix_acl_access", &acl, XattrFlags::empty()) {
        return eprintln!("NOT TESTED: no ACLs on the file system of {}: {error}", path.display());
    }
    for read in [Read::Changed, Read::Nothing] {
        let now = scan(&only(folder.path()), &image, &Options { read, ..Options::default() }).view;
        let found = compare(&image, &now);
        // The mask of the list is shown as the group's permissions.
        assert_eq!(only_one(&found), (Change::Attributes, vec![Attribute::Mode, Attribute::Xattrs]));
    }
}

#[test]
fn c12_a_set_user_id_bit_is_told_with_the_old_mode() {
    let found = after(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap());
    assert_eq!(only_one(&found), (Change::Attributes, vec![Attribute::Mode]));
    let mode = |print: &Option<Arc<Fingerprint>>| print.as_ref().unwrap().mode;
    assert_eq!((mode(&found[0].old), mode(&found[0].new)), (0o644, 0o4755));
}

#[test]
fn c13_other_content_of_the_same_size_and_time_is_told() {
    let rewrite = |path: &Path| {
        let time = fs::metadata(path).unwrap().modified().unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_at(b"CONTENT", 0).unwrap();
        file.set_modified(time).unwrap();
    };
    assert_eq!(only_one(&after(rewrite)), (Change::Modified, vec![Attribute::Hash]));
    // The same if all that is left of before is a manifest.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), "content").unwrap();
    let image = look(folder.path(), &Options::default()).view.portable();
    rewrite(&folder.path().join("f"));
    let now = scan(&only(folder.path()), &image, &Options::default()).view;
    assert_eq!(only_one(&compare(&image, &now)), (Change::Modified, vec![Attribute::Hash]));
}

#[test]
fn d20_a_directory_that_cannot_be_listed_is_told_and_looked_at_again() {
    if runs_as_nobody("d20_a_directory_that_cannot_be_listed_is_told_and_looked_at_again") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("f"), "x").unwrap();
    let before = look(folder.path(), &Options::default()).view;
    for mode in [0o000, 0o311, 0o600] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
        let mut now = scan(&only(folder.path()), &before, &Options::default());
        let why = now.uncovered.values().copied().collect::<Vec<_>>();
        assert_eq!(why, [Uncovered::Unreadable(Errno::ACCESS.raw_os_error())], "{mode:o}");
        now.carry(&before);
        let told = only_one(&compare(&before, &now.view));
        assert_eq!(told, (Change::Attributes, vec![Attribute::Mode]), "what is in it is not gone: {mode:o}");
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    let now = scan(&only(folder.path()), &before, &Options::default());
    assert_eq!((compare(&before, &now.view), now.uncovered.len()), (Vec::new(), 0));
}

#[test]
fn d21_a_file_that_cannot_be_read_any_more_is_told_and_its_hash_kept() {
    if runs_as_nobody("d21_a_file_that_cannot_be_read_any_more_is_told_and_its_hash_kept") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, "content").unwrap();
    let views = std::cell::RefCell::new(vec![look(folder.path(), &Options::default()).view]);
    let next = || {
        let mut views = views.borrow_mut();
        let now = scan(&only(folder.path()), views.last().unwrap(), &Options::default()).view;
        let found = compare(views.last().unwrap(), &now);
        views.push(now);
        found
    };
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let found = next();
    assert_eq!(only_one(&found), (Change::Attributes, vec![Attribute::Mode, Attribute::HashState]));
    let print = found[0].new.clone().unwrap();
    assert_eq!(
        (print.hash, print.last.as_deref().copied()),
        (HashState::Unreadable(13), found[0].old.as_ref().unwrap().hash.done())
    );
    assert_eq!(next(), [], "told once");
    mode(0o644);
    assert_eq!(only_one(&next()), (Change::Attributes, vec![Attribute::Mode, Attribute::HashState]), "what it was");
    // Changed while nobody could look, with the old time and size.
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    mode(0o000);
    next();
    file.write_at(b"CONTENT", 0).unwrap();
    file.set_modified(time).unwrap();
    next();
    mode(0o644);
    let told = (Change::Modified, vec![Attribute::Mode, Attribute::Hash, Attribute::HashState]);
    assert_eq!(only_one(&next()), told);
}

/// Two inodes stand at one name in turn. A hash is always that of the inode it is told with.
#[test]
fn e01_a_file_replaced_while_it_is_read_has_its_own_hash() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("root")).unwrap();
    for (name, octet) in [("one", 1), ("two", 2)] {
        fs::write(at(name), vec![octet; 1 << 20]).unwrap();
    }
    let [one, two] = ["one", "two"].map(|name| {
        let print = look(&at(name), &Options::default()).view.entries.values().next().unwrap().clone();
        (print.inode.unwrap().number, print.hash)
    });
    fs::rename(at("one"), at("root/f")).unwrap();
    let (end, path) = (AtomicBool::new(false), bytes(&at("root/f")));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, at("root/f"), CWD, at("two"), rustix::fs::RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..30 {
            let view = look(&at("root"), &Options { threads: 1, ..Options::default() }).view;
            let print = &view.entries[path.as_slice()];
            let expected = if print.inode.unwrap().number == one.0 { one } else { two };
            let state = if print.hash == HashState::Unstable { expected.1 } else { print.hash };
            assert_eq!((print.inode.unwrap().number, state), expected);
        }
        end.store(true, Ordering::Relaxed);
    });
}

#[test]
fn e02_a_file_written_without_end_is_unstable_and_keeps_its_last_hash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, vec![0; 4 << 20]).unwrap();
    let before = look(folder.path(), &Options::default()).view;
    let known = before.entries[bytes(&path).as_slice()].hash.done();
    let end = AtomicBool::new(false);
    let unstable = thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&path).unwrap();
            while !end.load(Ordering::Relaxed) {
                file.write_at(b"x", 7).unwrap();
            }
        });
        let mut looks = (0..200).map(|_| scan(&only(folder.path()), &before, &Options::default()).view);
        let found = looks.find_map(|view| view.entries[bytes(&path).as_slice()].last.clone());
        end.store(true, Ordering::Relaxed);
        found
    });
    assert_eq!(unstable.as_deref().copied(), known);
}

/// A watch that tells when somebody opens this file; looking at it with `O_PATH` is no opening.
fn opens(path: &Path) -> std::os::fd::OwnedFd {
    let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&inotify, path, inotify::WatchFlags::OPEN).unwrap();
    inotify
}

fn was_opened(inotify: &std::os::fd::OwnedFd) -> bool {
    rustix::io::read(inotify, &mut [0_u8; 4096]).is_ok()
}

#[test]
fn e04_what_is_no_file_is_told_and_never_opened() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    symlink("fifo", folder.path().join("link")).unwrap();
    let watch = opens(&fifo);
    let roots = Roots::new([(bytes(folder.path()), How { follow: true, ..How::default() })]);
    let mut view = View::default();
    for read in [Read::Changed, Read::All, Read::Nothing] {
        let found = scan(&roots, &view, &Options { read, ..Options::default() });
        assert_eq!(names(&found, folder.path()), ["", "/fifo", "/link", "/socket"], "{read:?}");
        view = found.view;
    }
    assert_eq!(view.entries[bytes(&fifo).as_slice()].kind, Kind::Fifo);
    assert!(!was_opened(&watch));
    drop(fs::File::options().read(true).write(true).open(&fifo).unwrap());
    assert!(was_opened(&watch), "as it would have been told");
}

/// The name is a regular file when it is listed, and a FIFO a moment later.
#[test]
fn e04_a_file_swapped_for_a_fifo_is_not_opened_either() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("root")).unwrap();
    fs::write(at("root/f"), "x").unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let watch = opens(&at("fifo"));
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, at("root/f"), CWD, at("fifo"), rustix::fs::RenameFlags::EXCHANGE).unwrap();
            }
        });
        (0..1000).for_each(|_| drop(look(&at("root"), &Options { threads: 1, ..Options::default() })));
        end.store(true, Ordering::Relaxed);
    });
    assert!(!was_opened(&watch));
}

#[test]
fn e06_a_sparse_file_of_a_tebibyte_is_too_large_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("f")).unwrap().set_len(1 << 40).unwrap();
    symlink("f", folder.path().join("link")).unwrap();
    let start = Instant::now();
    let view = look(folder.path(), &Options::default()).view;
    let hash = |name: &str| &view.entries[bytes(&folder.path().join(name)).as_slice()];
    assert_eq!((hash("f").hash, hash("link").leads_to.as_ref().unwrap().hash), (HashState::TooLarge, HashState::TooLarge));
    assert!(start.elapsed() < Duration::from_secs(10), "reading it takes minutes");
}

#[test]
fn e07_a_file_over_the_limit_and_back_is_told_and_hashed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let roots = Roots::new([(bytes(folder.path()), How { largest: 1000, ..How::default() })]);
    let mut view = View::default();
    let mut next = |length: u64| {
        fs::File::options().create(true).truncate(false).write(true).open(&path).unwrap().set_len(length).unwrap();
        let now = scan(&roots, &view, &Options::default()).view;
        let found = compare(&view, &now);
        let state = now.entries[bytes(&path).as_slice()].hash;
        view = now;
        (found.into_iter().rfind(|found| *found.path == *bytes(&path)).map(|found| found.change), state)
    };
    let (_, small) = next(1000);
    assert!(small.done().is_some());
    assert_eq!(next(1001), (Some(Change::Modified), HashState::TooLarge));
    assert_eq!(next(2000), (Some(Change::Modified), HashState::TooLarge));
    assert_eq!(next(1000), (Some(Change::Attributes), small), "the content that was known");
    next(1001);
    assert_eq!(next(999).0, Some(Change::Modified));
}

#[test]
fn e11_content_that_gives_an_error_is_a_state_and_no_end() {
    // A regular file by its type; nothing is mapped at its first octet.
    let print = Fingerprint::read(fs::File::open("/proc/self").unwrap(), std::ffi::OsStr::new("mem"), 1 << 20).unwrap();
    assert_eq!(print.hash, HashState::Unreadable(Errno::IO.raw_os_error()));
    assert!(print.hash.error().is_some());
}

#[test]
fn e13_a_scan_stays_within_its_share() {
    let folder = tempfile::tempdir().unwrap();
    for name in 0..40 {
        fs::write(folder.path().join(name.to_string()), vec![7; 256 * 1024]).unwrap();
    }
    // Nanoseconds on a processor (Documentation/scheduler/sched-stats.rst).
    let Ok(stat) = fs::read_to_string("/proc/thread-self/schedstat") else {
        return eprintln!("NOT TESTED: this kernel does not count a thread's time");
    };
    let time = |stat: String| Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap());
    let (start, before) = (Instant::now(), time(stat));
    let found = look(folder.path(), &Options { threads: 1, share: 20, ..Options::default() });
    let worked = time(fs::read_to_string("/proc/thread-self/schedstat").unwrap()) - before;
    assert_eq!(found.view.entries.len(), 41);
    assert!(worked * 5 <= start.elapsed() + Duration::from_millis(50), "{worked:?} of {:?}", start.elapsed());
}

#[test]
fn e14_names_of_one_inode_have_one_hash() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("0"), "x").unwrap();
    for name in 1..50 {
        fs::hard_link(folder.path().join("0"), folder.path().join(name.to_string())).unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    let found = look(folder.path(), &Options { threads: 4, ..Options::default() }).view;
    let hashes: Vec<HashState> = found.entries.values().map(|print| print.hash).filter(|hash| hash.done().is_some()).collect();
    assert!(hashes.len() == 50 && hashes.iter().all(|hash| *hash == hashes[0]));
}

#[test]
fn f05_odd_attributes_are_ignored_however_many_and_long() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return eprintln!("NOT TESTED: no /dev/shm") };
    let path = folder.path().join("f");
    fs::write(&path, "").unwrap();
    let mut set = 0;
    for number in 0..100 {
        let value = vec![7; if number == 0 { 65_536 } else { 0 }];
        let name = format!("user.,=\n\x1b{number}{}", "x".repeat(100));
        set += usize::from(rustix::fs::setxattr(&path, name, &value, XattrFlags::empty()).is_ok());
    }
    if set < 90 {
        eprintln!("NOT TESTED in full: the file system took {set} of 100 attributes");
    }
    for read in [Read::Changed, Read::Nothing] {
        let found = look(folder.path(), &Options { read, ..Options::default() });
        assert_eq!((found.view.entries.len(), found.uncovered.len()), (2, 0));
        assert!(found.view.entries.values().all(|print| print.xattrs.is_empty()));
    }
}

#[test]
fn f06_a_directory_of_100_000_entries_is_listed_in_pieces() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let directory = rustix::fs::open(folder.path(), OFlags::RDONLY, Mode::empty()).unwrap();
    for name in 0..100_000 {
        rustix::fs::mknodat(&directory, name.to_string(), FileType::RegularFile, Mode::RUSR, 0).unwrap();
    }
    let found = look(folder.path(), &Options { read: Read::Nothing, ..Options::default() });
    assert_eq!((found.view.entries.len(), found.uncovered.len()), (100_001, 0));
    let few = look(folder.path(), &Options { most: 1000, read: Read::Nothing, ..Options::default() });
    assert_eq!((few.view.entries.len(), few.uncovered.len()), (1001, 1), "and no more than asked for");
}

/// Deeper than any stack, and a path longer than the kernel takes.
#[test]
fn f07_b21_nesting_10_000_deep_is_walked_or_said_to_be_too_much() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap()).keep();
    let mut directory = rustix::fs::open(&folder, OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..10_000 {
        rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, "d", OFlags::RDONLY, Mode::empty()).unwrap();
    }
    rustix::fs::mknodat(&directory, "f", FileType::RegularFile, Mode::RUSR, 0).unwrap();
    let found = look(&folder, &Options::default());
    let few = look(&folder, &Options { most: 20_000, ..Options::default() });
    // From the top, as no path leads to the end of it.
    for _ in 1..10_000 {
        fs::rename(folder.join("d/d"), folder.join("next")).unwrap();
        fs::remove_dir(folder.join("d")).unwrap();
        fs::rename(folder.join("next"), folder.join("d")).unwrap();
    }
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!((found.view.entries.len(), found.uncovered.len()), (10_002, 0));
    assert!(few.view.entries.len() < 5000, "long paths take what there is for many short ones: {}", few.view.entries.len());
    assert_eq!(few.uncovered.into_values().collect::<Vec<_>>(), [Uncovered::TooMany]);
}

/// Where the system gives no more threads (a limit of processes), the one that is there does it all.
#[test]
fn without_more_threads_one_looks_at_everything() {
    const STACK: &str = "RUST_MIN_STACK";
    if std::env::var_os(STACK).is_none_or(|stack| stack != "70368744177664") {
        // No thread gets a stack of 64 TiB. The test itself runs on the first thread.
        let name = "scan::tests::hostile::without_more_threads_one_looks_at_everything";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name, "--test-threads=1"]).env(STACK, "70368744177664").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    }
    assert!(thread::Builder::new().spawn(|| ()).is_err());
    let folder = tempfile::tempdir().unwrap();
    (0..100).for_each(|n| fs::create_dir(folder.path().join(n.to_string())).unwrap());
    assert_eq!(look(folder.path(), &Options { threads: 4, ..Options::default() }).view.entries.len(), 101);
}

#[test]
fn what_is_of_high_priority_has_its_part_of_what_may_be_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, count) in [("high", 50), ("low", 200)] {
        fs::create_dir(at(name)).unwrap();
        (0..count).for_each(|n| fs::write(at(name).join(n.to_string()), "").unwrap());
    }
    let high = How { priority: 9, ..How::default() };
    for threads in [1, 4] {
        for name in ["high", "low"] {
            let other = if name == "high" { "low" } else { "high" };
            let roots = Roots::new([(bytes(&at(name)), high.clone()), (bytes(&at(other)), How::default())]);
            let found = scan(&roots, &View::default(), &Options { most: 100, threads, ..Options::default() });
            let high = found.view.tree(&bytes(&at(name))).count();
            assert_eq!(high, if name == "high" { 51 } else { 101 }, "{name} {threads}");
        }
    }
}
