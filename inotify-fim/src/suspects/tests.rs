use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// A machine may be busy.
const LONG: Duration = Duration::from_secs(60);

/// A process that has a file open, until its input ends.
fn holds(file: &Path, how: &str) -> Child {
    let script = format!("exec 3{how}\"$0\"; echo ready; read line");
    ready(Command::new("sh").arg("-c").arg(script).arg(file))
}

/// A process that has said that it is ready, and lives until its input ends.
pub(crate) fn ready(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

pub(crate) fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn identity(path: &Path) -> File {
    let file = fs::File::open(path).unwrap();
    let descriptors = open(rustix::fs::CWD, "/proc/self/fd".as_ref()).unwrap();
    stat(&descriptors, &std::os::fd::AsRawFd::as_raw_fd(&file).to_string()).unwrap()
}

#[test]
fn who_has_a_file_open_for_writing_is_seen_and_a_reader_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    fs::write(&one, "").unwrap();
    fs::write(&other, "").unwrap();
    let _ours = fs::File::options().write(true).open(&other).unwrap();
    let (writer, reader) = (holds(&one, ">"), holds(&other, "<"));
    let files = HashSet::from([identity(&one), identity(&other)]);
    let found = walk(&files, LONG);
    let suspects = &found.writers[&identity(&one)];
    assert_eq!(suspects.len(), 1);
    assert_eq!(suspects[0].pid, writer.id());
    assert_eq!(suspects[0].uid, fs::metadata(folder.path()).unwrap().uid());
    assert!(suspects[0].exe.as_ref().is_some_and(|exe| exe.is_absolute()));
    assert!(!found.writers.contains_key(&identity(&other)), "a reader, and this process");
    end(writer);
    end(reader);
    assert!(walk(&files, LONG).writers.is_empty());
}

#[test]
fn a_thread_with_descriptors_of_its_own_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let script = "import ctypes, sys, threading
def work():
    # CLONE_FILES
    assert ctypes.CDLL(None).unshare(0x400) == 0
    with open(sys.argv[1], 'w'):
        print('ready', flush=True)
        sys.stdin.read()
thread = threading.Thread(target=work)
thread.start()
thread.join()";
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return eprintln!("NOT TESTED: no python3 to start a thread") };
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    // One walk may run out of time on a busy machine.
    let seen = (0..1_000)
        .find_map(|_| walk(&HashSet::from([identity(&file)]), Duration::from_secs(10)).writers.remove(&identity(&file)));
    assert_eq!(seen.unwrap().iter().map(|suspect| suspect.pid).collect::<Vec<_>>(), [child.id()]);
    end(child);
}

#[test]
fn all_who_have_it_open_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let writers = [holds(&file, ">>"), holds(&file, "<>")];
    let found = walk(&HashSet::from([identity(&file)]), LONG);
    let pids: HashSet<u32> = found.writers[&identity(&file)].iter().map(|suspect| suspect.pid).collect();
    assert_eq!(pids, writers.iter().map(Child::id).collect());
    writers.into_iter().for_each(end);
}

#[test]
fn the_user_is_the_one_that_counts() {
    assert_eq!(acting_user("Name:\tx\nUid:\t1\t2\t3\t4\n"), Some(2));
    assert_eq!(acting_user("Name:\tx\n"), None);
}
