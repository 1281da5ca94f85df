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

/// Where the kernel cannot resolve a link alone, the answer is the same; what leads back in is found besides.
#[test]
fn d15_links_followed_step_by_step_lead_where_the_kernel_leads() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "").unwrap();
    fs::write(folder.path().join("outside"), "").unwrap();
    let links = [
        ("a/b/up", "../file"),
        ("top", "a//./b/up"),
        ("round", "round"),
        ("far", "a/b/../../../root/a/file"),
        ("out", "../outside"),
        ("etc", "/etc/passwd"),
        ("dir", "a/b"),
        ("through", "dir/../file"),
        ("none", "a/none"),
        ("below", "a/file/x"),
        ("self", "."),
        ("over", "self/self/a/file"),
    ];
    for (name, target) in links {
        symlink(target, root.join(name)).unwrap();
    }
    let bytes = root.as_os_str().as_bytes();
    let top = rustix::fs::open(&root, flags(), Mode::empty()).unwrap();
    let number = |found: Result<OwnedFd, Errno>| fingerprint::stat(found.ok()?.as_fd()).ok().map(|stat| stat.stx_ino);
    let file = number(follow(bytes, &top, b"/a/file", false));
    for (name, _) in links {
        let kernel = resolved(top.as_fd(), name.as_bytes(), OFlags::PATH, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
        let steps = number(follow_in_steps(bytes, &top, name.as_bytes(), true));
        assert_eq!(number(kernel).filter(|_| name != "self"), steps, "{name}");
    }
    for (name, target) in [("back", root.join("a/b/up")), ("again", root.join("back"))] {
        symlink(target, root.join(name)).unwrap();
        assert_eq!(number(follow(bytes, &top, name.as_bytes(), false)), file, "{name}");
    }
    for target in [folder.path().join("outside"), folder.path().join("root-not"), root.join("../outside"), root.join("out")] {
        let _ = fs::remove_file(root.join("x"));
        symlink(&target, root.join("x")).unwrap();
        assert!(follow(bytes, &top, b"x", false).is_err(), "{}", target.display());
    }
    // Where nothing is outside, every link leads in.
    let slash = rustix::fs::open("/", flags(), Mode::empty()).unwrap();
    let whole = root.join("again");
    assert_eq!(number(follow(b"/", &slash, whole.as_os_str().as_bytes(), false)), file);
}

#[test]
fn a_long_path_is_cut_into_pieces_at_its_slashes() {
    let path = [b"a".repeat(3000), b"b".repeat(3000), b"c".to_vec()].join(&b'/');
    let (first, rest) = piece(&path);
    assert_eq!((first, piece(rest)), (&path[..3000], (&path[3001..], &b""[..])));
    assert_eq!(piece(&b"a".repeat(5000)).1, b"", "a name too long for the kernel is for the kernel to refuse");
}

#[test]
fn paths_are_split_and_joined() {
    assert_eq!(split(b"/"), None);
    assert_eq!(split(b"/a"), Some((&b"/"[..], OsStr::new("a"))));
    assert_eq!(split(b"/a/b"), Some((&b"/a"[..], OsStr::new("b"))));
    assert_eq!((join(b"/", b"a"), join(b"/a", b"b")), (b"/a".to_vec(), b"/a/b".to_vec()));
}
