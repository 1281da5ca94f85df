//! What the kernel says that it watches: `/proc/self/fdinfo`, one line for each watch (proc_pid_fdinfo(5)).

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

/// The kernel's list of the watches of an inotify instance; `None` if it cannot be read.
pub(super) fn watches(inotify: &OwnedFd) -> Option<HashSet<i32>> {
    let text = fs::read(format!("/proc/self/fdinfo/{}", inotify.as_raw_fd())).ok()?;
    Some(parse(&text))
}

/// `inotify wd:2 ino:1 sdev:fe00000 mask:…`: the number is hexadecimal.
fn parse(text: &[u8]) -> HashSet<i32> {
    let number = |line: &[u8]| {
        let rest = line.strip_prefix(b"inotify wd:")?;
        let digits = rest.split(|byte| *byte == b' ').next()?;
        i32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    text.split(|byte| *byte == b'\n').filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};

    use super::*;

    #[test]
    fn g09_the_kernel_lists_what_it_watches() {
        let folder = tempfile::tempdir().unwrap();
        let inotify = init(CreateFlags::CLOEXEC).unwrap();
        assert_eq!(watches(&inotify), Some(HashSet::new()));
        let mut all = HashSet::new();
        for n in 0..40 {
            let path = folder.path().join(n.to_string());
            fs::create_dir(&path).unwrap();
            all.insert(add_watch(&inotify, path, WatchFlags::CREATE).unwrap());
        }
        assert_eq!(watches(&inotify), Some(all.clone()));
        let first = *all.iter().next().unwrap();
        remove_watch(&inotify, first).unwrap();
        all.remove(&first);
        assert_eq!(watches(&inotify), Some(all));
        assert_eq!(parse(b"pos:\t0\ninotify wd: ino\ninotify wd:zz x\ninotify wd:ffffffffff x\n"), HashSet::new());
    }
}
