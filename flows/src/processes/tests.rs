//! Against a folder that looks like `/proc`, for what a test cannot bring about in the real one.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

const HERE: &str = "user:[1]";

struct Proc(TempDir);

impl Proc {
    /// With this process, number 50, and what is in `/proc` besides processes.
    fn new() -> Self {
        let proc = Self(tempfile::tempdir().unwrap());
        fs::create_dir(proc.0.path().join("net")).unwrap();
        symlink("50", proc.0.path().join("self")).unwrap();
        proc.with(50, "/egret", &["socket:[7]"])
    }

    fn with(self, pid: u32, exe: &str, descriptors: &[&str]) -> Self {
        self.within(pid, HERE, exe, descriptors)
    }

    fn within(self, pid: u32, user_namespace: &str, exe: &str, descriptors: &[&str]) -> Self {
        let process = self.0.path().join(pid.to_string());
        for folder in ["fd", "ns"] {
            fs::create_dir_all(process.join(folder)).unwrap();
        }
        symlink(user_namespace, process.join("ns/user")).unwrap();
        symlink(exe, process.join("exe")).unwrap();
        for (number, descriptor) in descriptors.iter().enumerate() {
            symlink(descriptor, process.join("fd").join(number.to_string())).unwrap();
        }
        self
    }

    fn without(self, path: &str) -> Self {
        let path = self.0.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        self
    }

    fn holder_of(&self, inode: u64) -> Result<(u32, String), Unknown> {
        holder_in(self.0.path(), &[inode]).map(|owner| (owner.pid, owner.exe.display().to_string()))
    }
}

#[test]
fn the_holder_is_the_process_with_a_descriptor_of_the_socket() {
    let proc = Proc::new().with(9, "/bin/a", &["/dev/null", "pipe:[8]", "socket:[88]"]).with(10, "/bin/b", &["socket:[8]"]);
    assert_eq!(proc.holder_of(8), Ok((10, "/bin/b".into())));
    assert_eq!(proc.holder_of(88), Ok((9, "/bin/a".into())));
    assert_eq!(proc.holder_of(7), Ok((50, "/egret".into())), "this process is one as well");
    assert_eq!(proc.holder_of(9), Err(Unknown::NotVisible));
}

#[test]
fn of_several_processes_with_one_executable_the_smallest_number_counts() {
    let socket = &["socket:[8]"];
    let proc = Proc::new().with(10, "/bin/a", socket).with(9, "/bin/a", socket).with(100, "/bin/a", socket);
    assert_eq!(proc.holder_of(8), Ok((9, "/bin/a".into())));
}

#[test]
fn different_executables_are_no_owner() {
    let proc = Proc::new().with(9, "/bin/a", &["socket:[8]"]).with(10, "/bin/b", &["socket:[8]"]);
    assert_eq!(proc.holder_of(8), Err(Unknown::Several("/bin/a".into(), "/bin/b".into())));
}

#[test]
fn sockets_that_the_table_cannot_tell_apart_must_have_one_executable() {
    let proc = Proc::new().with(9, "/bin/a", &["socket:[8]"]).with(10, "/bin/b", &["socket:[9]"]);
    assert!(matches!(holder_in(proc.0.path(), &[8, 9]), Err(Unknown::Several(..))));
}

#[test]
fn a_holder_without_a_readable_executable_spoils_the_answer() {
    let proc = Proc::new().with(9, "/bin/a", &["socket:[8]"]).with(10, "/bin/a", &["socket:[8]"]).without("10/exe");
    assert_eq!(proc.holder_of(8), Err(Unknown::NotVisible));
}

#[test]
fn an_executable_that_is_gone_is_named() {
    let proc = Proc::new().with(9, "/bin/a b (deleted)", &["socket:[8]"]);
    assert_eq!(proc.holder_of(8), Err(Unknown::Deleted("/bin/a b".into())));
}

#[test]
fn another_user_namespace_is_not_believed() {
    let proc = Proc::new().within(9, "user:[2]", "/bin/a", &["socket:[8]"]).with(10, "/bin/b", &["socket:[9]"]);
    assert_eq!(proc.holder_of(8), Err(Unknown::UserNamespace));
    let unreadable = proc.without("10/ns/user");
    assert_eq!(unreadable.holder_of(9), Err(Unknown::UserNamespace));
    let no_such_kernel = unreadable.without("50/ns");
    assert_eq!(no_such_kernel.holder_of(9), Ok((10, "/bin/b".into())));
}

#[test]
fn processes_that_are_gone_or_closed_are_passed_over() {
    let proc = Proc::new().with(9, "/bin/a", &["socket:[8]"]).with(10, "/bin/b", &["socket:[8]"]).without("9/fd");
    assert_eq!(proc.holder_of(8), Ok((10, "/bin/b".into())));
}

#[test]
fn a_look_that_fails_is_not_a_process_that_holds_nothing() {
    let proc = Proc::new().with(9, "/bin/a", &[]).with(10, "/bin/b", &["socket:[8]"]).without("9/fd");
    fs::write(proc.0.path().join("9/fd"), "no folder").unwrap();
    assert!(matches!(proc.holder_of(8), Err(Unknown::Procfs(text)) if text.contains("9/fd: ")));
    assert!(matches!(holder_in(Path::new("/nowhere"), &[8]), Err(Unknown::Procfs(text)) if text.starts_with("/nowhere: ")));
}

#[test]
fn others_are_visible_when_one_of_them_shows_both() {
    assert!(!others_visible_in(Path::new("/nowhere")));
    let proc = Proc::new();
    assert!(!others_visible_in(proc.0.path()), "this process is no other");
    let proc = proc.with(9, "/bin/a", &[]).without("9/fd").with(10, "/bin/a", &[]).without("10/exe");
    assert!(!others_visible_in(proc.0.path()));
    assert!(others_visible_in(proc.with(11, "/bin/a", &[]).0.path()));
}
