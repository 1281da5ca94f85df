use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::look::{Named, TICK, Through, settled, xattrs};
use super::*;

const LARGEST: u64 = 1 << 20;

fn read(folder: &Path, name: &str) -> Fingerprint {
    Fingerprint::read(File::open(folder).unwrap(), OsStr::new(name), LARGEST).unwrap()
}

fn hex(hash: HashState) -> String {
    let HashState::Done(bytes) = hash else { panic!("{hash:?}") };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_regular_file_is_its_attributes_and_the_hash_of_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abc");
    fs::write(&path, "abc").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(&path, folder.path().join("other")).unwrap();
    let found = read(folder.path(), "abc");
    assert_eq!((found.kind, found.mode, found.size), (Kind::File, 0o4751, 3));
    // The example of FIPS 180-4.
    assert_eq!(hex(found.hash), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let inode = found.inode.unwrap();
    assert_eq!((inode.links, found.target.is_none()), (2, true));
    assert_eq!(inode.number, read(folder.path(), "other").inode.unwrap().number);
}

#[test]
fn content_around_the_buffer_is_hashed_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    for length in [0, 1, 4096, 128 * 1024 - 1, 128 * 1024, 128 * 1024 + 1, 300_000] {
        let content = vec![7_u8; length];
        fs::write(folder.path().join("f"), &content).unwrap();
        let HashState::Done(hash) = read(folder.path(), "f").hash else { panic!("{length}") };
        assert_eq!(hash, <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&content)), "{length}");
    }
}

#[test]
fn a_file_above_the_limit_is_not_read_however_large_it_claims_to_be() {
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(read(folder.path(), "sparse").hash, HashState::TooLarge);
    File::create(folder.path().join("limit")).unwrap().set_len(LARGEST).unwrap();
    assert!(matches!(read(folder.path(), "limit").hash, HashState::Done(_)));
}

#[test]
fn fifos_sockets_devices_and_directories_are_told_and_never_read() {
    let folder = tempfile::tempdir().unwrap();
    rustix::fs::mknodat(CWD, folder.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
    fs::create_dir(folder.path().join("directory")).unwrap();
    for (name, kind) in [("fifo", Kind::Fifo), ("socket", Kind::Socket), ("directory", Kind::Directory)] {
        let found = read(folder.path(), name);
        assert_eq!((found.kind, found.hash, found.size), (kind, HashState::NotRegular, 0));
    }
    let null = read(Path::new("/dev"), "null");
    assert_eq!((null.kind, null.hash), (Kind::Character(Device { major: 1, minor: 3 }), HashState::NotRegular));
}

#[test]
fn a_link_is_its_text_even_when_it_dangles_loops_or_leads_outside() {
    let folder = tempfile::tempdir().unwrap();
    let odd = OsStr::from_bytes(b"/nowhere/\xff\n");
    for (name, target) in [("dangling", odd), ("loop", OsStr::new("loop")), ("outside", OsStr::new("/etc/passwd"))] {
        symlink(target, folder.path().join(name)).unwrap();
        let found = read(folder.path(), name);
        assert_eq!((found.kind, found.hash), (Kind::Symlink, HashState::NotRegular));
        assert_eq!(found.target.as_deref(), Some(target.as_bytes()));
    }
}

#[test]
fn content_that_cannot_be_read_is_a_state_with_its_error() {
    // A regular file by its type; nothing is mapped at its first octet.
    let found = read(Path::new("/proc/self"), "mem");
    assert_eq!((found.kind, found.hash), (Kind::File, HashState::Unreadable(5)));
    assert!(found.hash.error().unwrap().to_string().contains("Input/output error"));
}

#[test]
fn a_file_with_more_content_than_it_says_has_no_hash() {
    assert_eq!(read(Path::new("/proc/self"), "status").hash, HashState::Unstable);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_unstable_or_one_of_its_states() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("busy");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).unwrap();
            while !end.load(Ordering::Relaxed) {
                file.write_at(b"x", 7).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(20);
        let is_unstable = || read(folder.path(), "busy").hash == HashState::Unstable;
        let seen = std::iter::repeat_with(is_unstable).take_while(|_| Instant::now() < until).any(|unstable| unstable);
        end.store(true, Ordering::Relaxed);
        assert!(seen, "a file that is always written is unstable some time");
    });
    assert!(matches!(read(folder.path(), "busy").hash, HashState::Done(_)));
}

#[test]
fn a_missing_name_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Fingerprint::read(File::open(folder.path()).unwrap(), OsStr::new("none"), LARGEST).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_acl_is_part_of_it_and_other_attributes_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, "").unwrap();
    rustix::fs::setxattr(&path, "user.comment", b"x", XattrFlags::empty()).unwrap();
    assert!(read(folder.path(), "f").xattrs.is_empty());
    // Version 2; owner rw, user 4711 rwx, group r, mask rwx, others none (acl(5), include/linux/posix_acl_xattr.h).
    let entry = |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let entries = [entry(1, 6, none), entry(2, 7, 4711), entry(4, 4, none), entry(16, 7, none), entry(32, 0, none)].concat();
    let acl = [&2_u32.to_le_bytes()[..], &entries].concat();
    match rustix::fs::setxattr(&path, "system.posix_acl_access", &acl, XattrFlags::empty()) {
        Err(Errno::NOTSUP) => eprintln!("NOT TESTED: no ACLs on the file system of {}", path.display()),
        set => {
            set.unwrap();
            assert_eq!(*read(folder.path(), "f").xattrs, [(Xattr::Access, acl.into())]);
            every_way_to_extended_attributes_ends_at_the_same(folder.path());
        }
    }
}

/// Of a file `f`, which has some.
fn every_way_to_extended_attributes_ends_at_the_same(folder: &Path) {
    symlink("f", folder.join("link")).unwrap();
    let opened = OwnedFd::from(File::open(folder).unwrap());
    let file = OwnedFd::from(File::open(folder.join("f")).unwrap());
    let points = rustix::fs::open(folder.join("f"), OFlags::PATH, Mode::empty()).unwrap();
    let named = |name| Named::new(opened.as_fd(), OsStr::new(name)).unwrap();
    let expected = xattrs(&file).unwrap();
    assert_eq!(xattrs(&Through::new(&points)).unwrap(), expected);
    for (name, expected) in [("f", expected), ("link", Xattrs::default())] {
        assert_eq!(xattrs(&named(name)).unwrap(), expected, "{name}");
        assert_eq!(xattrs(&named(name).by_path()).unwrap(), expected, "{name}");
    }
    for found in [xattrs(&named("gone")), xattrs(&named("gone").by_path())] {
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

#[test]
fn e12_an_equal_time_is_proof_only_if_it_is_old_enough() {
    let now = UNIX_EPOCH + Duration::new(1000, 500_000_000);
    for (seconds, nanos, proof) in [
        (1000, 400_000_000, true),
        (1000, 490_000_000, false),
        (1000, 500_000_000, false),
        (1001, 0, false),
        (-5, 0, true),
        (999, 0, false),
        (999, 1, true),
        (998, 0, true),
    ] {
        assert_eq!(settled(Stamp { seconds, nanos }, now), proof, "{seconds}.{nanos}");
    }
}

#[test]
fn a_glance_knows_an_unchanged_file_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    fs::write(&path, "one").unwrap();
    let directory = File::open(folder.path()).unwrap();
    let whole = |largest| Wanted::Whole { largest, beginning: None, when: When::Allowed };
    let all = whole(LARGEST);
    let look = || glance(directory.as_fd(), OsStr::new("f")).unwrap();
    assert!(!read(folder.path(), "f").still(&look(), all), "too young");
    thread::sleep(2 * TICK);
    let known = read(folder.path(), "f");
    assert!(known.still(&look(), all) && !known.still(&look(), whole(2)) && !known.clone().portable().still(&look(), all));
    // Same size, and the old time of change put back.
    let times = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(times).unwrap();
    assert!(!known.still(&look(), all));
}
