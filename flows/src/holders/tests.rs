use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A made-up `/proc`.
struct Proc(TempDir);

impl Proc {
    fn new() -> Self {
        let proc = Self(tempfile::tempdir().unwrap());
        proc.add(50, "/egret", "mnt:[1]", &[]);
        symlink("50", proc.0.path().join("self")).unwrap();
        proc
    }

    fn add(&self, pid: u32, exe: &str, mounts: &str, sockets: &[u32]) {
        let process = self.0.path().join(pid.to_string());
        for folder in ["fd", "ns"] {
            fs::create_dir_all(process.join(folder)).unwrap();
        }
        symlink(mounts, process.join("ns/mnt")).unwrap();
        symlink(exe, process.join("exe")).unwrap();
        symlink("/dev/null", process.join("fd/0")).unwrap();
        self.write(pid, "cgroup", "0::/ecs/app\n");
        self.write(pid, "stat", format!("{pid} (a) b) S 1{} 777 0\n", " 0".repeat(17)));
        for inode in sockets {
            symlink(format!("socket:[{inode}]"), process.join(format!("fd/{}", 3 + inode))).unwrap();
        }
    }

    fn write(&self, pid: u32, file: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(pid.to_string()).join(file), text).unwrap();
    }

    fn holders(&self) -> Holders {
        Holders::new(self.0.path())
    }
}

#[test]
fn holders_are_found_with_what_they_run_and_where() {
    let proc = Proc::new();
    proc.add(7, "/bin/a", "mnt:[1]", &[70, 71]);
    proc.add(8, "/bin/b", "mnt:[2]", &[80]);
    let found = proc.holders().look([70, 71, 80, 90]);
    let of = |inode: u32| found.get(&inode).map(|process| (process.pid, process.exe.clone().unwrap(), process.container.clone()));
    assert_eq!(of(70), Some((7, "/bin/a".into(), None)), "the container is our own");
    assert_eq!(of(71), of(70));
    assert_eq!(of(80), Some((8, "/bin/b".into(), Some("/ecs/app".into()))));
    assert_eq!(of(90), None);
}

#[test]
fn a_process_whose_name_is_no_text_is_found_all_the_same() {
    let proc = Proc::new();
    proc.add(7, "/bin/a", "mnt:[2]", &[70]);
    proc.write(7, "stat", [b"7 (\xff) ) S 1", " 0".repeat(17).as_bytes(), b" 777 0\n"].concat());
    proc.write(7, "cgroup", b"0::/\xff\n");
    let found = proc.holders().look([70]);
    assert_eq!((found[&70].pid, found[&70].container.as_deref()), (7, Some("/\u{fffd}")));
}

#[test]
fn a_control_group_that_is_the_root_names_nothing() {
    let proc = Proc::new();
    proc.add(8, "/bin/b", "mnt:[2]", &[80]);
    proc.write(8, "cgroup", "0::/\n");
    assert_eq!(proc.holders().look([80])[&80].container.as_deref(), Some("mnt:[2]"));
}

#[test]
fn of_several_holders_one_that_is_known_counts() {
    let proc = Proc::new();
    proc.add(7, "/bin/a", "mnt:[1]", &[70]);
    proc.add(8, "/bin/b", "mnt:[1]", &[80, 70]);
    let mut holders = proc.holders();
    assert_eq!(holders.look([70])[&70].pid, 7, "the smallest number");
    let mut holders = Holders { known: HashMap::new(), ..proc.holders() };
    holders.look([80]);
    assert_eq!(holders.look([70])[&70].pid, 8);
}

#[test]
fn a_number_that_was_given_again_is_another_process() {
    let proc = Proc::new();
    proc.add(7, "/bin/a", "mnt:[1]", &[70]);
    let mut holders = proc.holders();
    let before = holders.look([70]).remove(&70).unwrap();
    assert!(Arc::ptr_eq(&before, &holders.look([70])[&70]), "it is kept while the process lives");
    proc.write(7, "stat", format!("7 (a) S 1{} 778 0\n", " 0".repeat(17)));
    assert!(!Arc::ptr_eq(&before, &holders.look([70])[&70]));
}

#[test]
fn a_look_is_not_had_again_before_a_hundred_times_as_long() {
    let proc = Proc::new();
    let mut holders = proc.holders();
    let before = Instant::now();
    assert!(holders.may_look(before));
    holders.look([1]);
    let next = holders.next.expect("a time");
    assert!(!holders.may_look(next - std::time::Duration::from_nanos(1)) && holders.may_look(next) && next > before);
}

#[test]
fn a_glance_sees_who_held_a_socket_before_and_nobody_else_and_has_its_own_pause() {
    let proc = Proc::new();
    proc.add(7, "/bin/a", "mnt:[1]", &[70, 71]);
    proc.add(8, "/bin/b", "mnt:[1]", &[80]);
    let mut holders = proc.holders();
    assert!(holders.glance([70]).is_empty(), "nobody is known");
    holders.look([70]);
    let before = holders.next;
    let found = holders.glance([71, 80]);
    assert_eq!((found.len(), found[&71].pid), (1, 7));
    assert_eq!(holders.next, before);
    let next = holders.next_glance.expect("a time");
    assert!(!holders.may_glance(next - Duration::from_nanos(1)) && holders.may_glance(next));
    fs::remove_dir_all(proc.0.path().join("7")).unwrap();
    assert!(holders.glance([71]).is_empty(), "it is gone");
}

#[test]
fn whoever_hides_or_is_gone_is_passed_over() {
    let proc = Proc::new();
    proc.add(7, "/bin/a", "mnt:[1]", &[70]);
    fs::remove_dir_all(proc.0.path().join("7/fd")).unwrap();
    proc.add(8, "/bin/b", "mnt:[1]", &[80]);
    fs::remove_file(proc.0.path().join("8/stat")).unwrap();
    assert!(proc.holders().look([70, 80]).is_empty());
}
