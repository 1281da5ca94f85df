use std::os::unix::fs::symlink;

use super::*;

/// A directory of its own, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("confine-exec-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(fs::canonicalize(path).unwrap())
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn listed(paths: &[&Path]) -> Listed {
    Listed::new(&ExecList { enforce: true, paths: paths.iter().map(|path| path.to_path_buf()).collect() }).unwrap()
}

/// As much of a program as has a loader.
fn program(loader: &str) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01".to_vec();
    file.resize(64, 0);
    file[32] = 64;
    (file[54], file[56]) = (56, 2);
    file.resize(64 + 2 * 56, 0);
    let second = 64 + 56;
    file[second] = 3;
    file[second + 8] = 64 + 112;
    file[second + 32] = u8::try_from(loader.len() + 1).unwrap();
    file.extend(loader.as_bytes());
    file.push(0);
    file
}

#[test]
fn the_list_has_what_is_below_its_directories_and_links_lead_to() {
    let folder = Folder::new("list");
    let file = folder.write("file", b"");
    symlink(&file, folder.0.join("link")).unwrap();
    let listed = listed(&[&folder.0.join("link"), Path::new("/usr/../usr/bin"), Path::new("/nowhere"), &file.join("below")]);
    assert_eq!(listed.paths, [file.clone(), fs::canonicalize("/usr/bin").unwrap()]);
    assert!(listed.has(&file) && listed.has(Path::new("/usr/bin/x/y")));
    assert!(!listed.has(&folder.0) && !listed.has(Path::new("/usr/binary")) && !listed.has(&folder.0.join("files")));
}

#[test]
fn loaders_of_files_and_directories_are_found() {
    let folder = Folder::new("loaders");
    let [one, other] = ["one", "other"].map(|name| folder.write(name, b""));
    fs::create_dir(folder.0.join("deep")).unwrap();
    let alone = folder.write("program", &program(one.to_str().unwrap()));
    folder.write("deep/program", &program(other.to_str().unwrap()));
    folder.write("deep/lost", &program("/nowhere/loader"));
    symlink("/", folder.0.join("deep/everything")).unwrap();
    assert_eq!(loaders_of(std::slice::from_ref(&alone)), BTreeSet::from([one.clone()]));
    assert_eq!(loaders_of(&[folder.0.join("deep"), alone.clone()]), BTreeSet::from([one, other]));
    fs::set_permissions(&alone, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(loaders_of(&[alone]), BTreeSet::new());
}

#[test]
fn this_program_has_the_loader_that_the_kernel_mapped() {
    let this = std::env::current_exe().unwrap();
    let Some(loader) = loader_of(&this) else { return eprintln!("SKIPPED: it is static") };
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps.contains(loader.to_str().unwrap()), "{loader:?}");
}

#[test]
fn broken_programs_have_none() {
    let folder = Folder::new("broken");
    let whole = program("/usr/bin/env");
    assert!(loader_of(&folder.write("whole", &whole)).is_some());
    for length in 0..whole.len() {
        assert_eq!(loader_of(&folder.write("cut", &whole[..length])), None, "{length}");
    }
    for (at, value) in [(4, 1), (5, 2), (54, 55), (64 + 56 + 39, 255), (64 + 56 + 15, 255), (39, 255)] {
        let mut broken = whole.clone();
        broken[at] = value;
        assert_eq!(loader_of(&folder.write("wrong", &broken)), None, "{at}");
    }
}

#[test]
fn interpreters_are_the_first_word() {
    let folder = Folder::new("scripts");
    let interpreter = |line: &[u8]| interpreter_of(&folder.write("script", line));
    assert_eq!(interpreter(b"#!/bin/sh -e\n/x"), Some("/bin/sh".into()));
    assert_eq!(interpreter(b"#! \t/bin/sh"), Some("/bin/sh".into()));
    for none in [&b"#!"[..], b"#! \n/x", b"# /bin/sh", b""] {
        assert_eq!(interpreter(none), None);
    }
}

#[test]
fn commands_are_looked_for_as_they_will_be_started() {
    let folder = Folder::new("find");
    let file = folder.write("tool", b"");
    let mut command = Command::new("tool");
    assert_eq!(find(&command), None);
    command.env("PATH", format!("/nowhere:{}", folder.0.display()));
    assert_eq!(find(&command), Some(file.clone()));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(find(&command), None);
    assert_eq!(find(Command::new("./tool").current_dir(&folder.0)), Some(folder.0.join("./tool")));
    assert!(matches!(listed(&[]).check(Command::new("./tool").current_dir(&folder.0)), Err(ExecError::NotListed { .. })));
    assert!(matches!(listed(&[]).check(&Command::new("/nowhere/tool")), Err(ExecError::NotFound(_))));
}
