use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn no_link_below_the_root_is_followed_and_one_above_is() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path();
    fs::create_dir_all(top.join("real/a/b")).unwrap();
    symlink("real", top.join("link")).unwrap();
    symlink("/etc", top.join("real/out")).unwrap();
    symlink("a", top.join("real/in")).unwrap();
    let bytes = |name: &str| top.join(name).as_os_str().as_bytes().to_vec();
    for root in ["real", "link"] {
        assert!(open(&bytes(root), &bytes(&format!("{root}/a/b"))).is_ok());
        assert!(open(&bytes(root), &bytes(root)).is_ok());
        for name in ["out", "in", "in/b", "../real"] {
            assert!(open(&bytes(root), &bytes(&format!("{root}/{name}"))).is_err(), "{name}");
        }
    }
    assert_eq!(open(&bytes("real"), &bytes("real/none")).unwrap_err(), Errno::NOENT);
}

#[test]
fn step_by_step_gives_the_same_answers() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    symlink("a", folder.path().join("link")).unwrap();
    let top = || rustix::fs::open(folder.path(), flags(), Mode::empty()).unwrap();
    assert!(in_steps(top(), b"a/b").is_ok());
    assert_eq!(in_steps(top(), b"a/none").unwrap_err(), Errno::NOENT);
    for inside in [&b"link"[..], b"link/b"] {
        assert!(in_steps(top(), inside).is_err() && in_one(top().as_fd(), inside).is_err());
    }
}

#[test]
fn a_path_longer_than_the_kernel_takes_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let name = "d".repeat(200);
    let mut directory = rustix::fs::open(folder.path(), flags(), Mode::empty()).unwrap();
    let mut path = folder.path().as_os_str().as_bytes().to_vec();
    for _ in 0..30 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, &name, flags(), Mode::empty()).unwrap();
        path = join(&path, name.as_bytes());
    }
    assert!(path.len() > 4096 && open(folder.path().as_os_str().as_bytes(), &path).is_ok());
}

#[test]
fn paths_are_split_and_joined() {
    assert_eq!(split(b"/"), None);
    assert_eq!(split(b"/a"), Some((&b"/"[..], OsStr::new("a"))));
    assert_eq!(split(b"/a/b"), Some((&b"/a"[..], OsStr::new("b"))));
    assert_eq!((join(b"/", b"a"), join(b"/a", b"b")), (b"/a".to_vec(), b"/a/b".to_vec()));
}
