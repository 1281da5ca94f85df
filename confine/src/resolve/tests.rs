use super::*;

fn this() -> Caller {
    Caller { tid: rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs() }
}

fn name(path: &str) -> Result<PathBuf, Errno> {
    Place::of(this(), path.as_bytes())?.open().and_then(|opened| name_of(&opened))
}

#[test]
fn paths_lead_where_they_lead_the_caller() {
    let here = std::env::current_dir().unwrap();
    assert_eq!(name("/usr/../usr/./bin/"), Ok(std::fs::canonicalize("/usr/bin").unwrap()));
    assert_eq!(name("src/lib.rs"), Ok(here.join("src/lib.rs")));
    assert_eq!(name("/nowhere/at/all"), Err(Errno::NOENT));
    assert_eq!(name(""), Err(Errno::NOENT));
}

#[test]
fn no_link_of_procfs_leads_to_the_supervisor() {
    for path in ["/proc/self/root/etc", "/proc/self/cwd", "/proc/thread-self/root", "/proc/self/exe"] {
        assert_eq!(name(path), Err(Errno::LOOP), "{path}");
    }
}

#[test]
fn own_descriptors_are_the_callers() {
    use std::os::fd::AsRawFd;
    let directory = std::fs::File::open("src").unwrap();
    let number = directory.as_raw_fd();
    let src = std::env::current_dir().unwrap().join("src");
    assert_eq!(name(&format!("/proc/self/fd/{number}//lib.rs")), Ok(src.join("lib.rs")));
    assert_eq!(name(&format!("/dev/fd/{number}")), Ok(src));
    assert_eq!(name("/proc/self/fd/99999"), Err(Errno::NOENT));
    assert_eq!(own_descriptor(Path::new("/proc/self/fd/7x")), None);
    assert_eq!(own_descriptor(Path::new("/proc/self/fd/x")), None);
}
