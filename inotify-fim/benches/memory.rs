//! Resident memory of a view of 100,000 files whose paths have 60 octets, and of comparisons of it. It prints
//! octets per file, and fails if a view has 400 or more.
//!
//! ```text
//! cargo bench -p egret-inotify-fim --bench memory
//! ```
//!
//! On Linux 6.18, 2 processors (AMD EPYC), tmpfs: a view 372; with a second one that finds nothing changed 414 to 438
//! (150 ms on an idle machine); a portable copy adds 300, as the two have only their paths in common; that compared by
//! size and time 350 ms.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use egret_inotify_fim::roots::Roots;
use egret_inotify_fim::scan::{Options, Read, scan};
use egret_inotify_fim::view::{View, compare};

const FILES: usize = 100_000;

/// Octets that this process has in memory (proc_pid_statm(5)), per file.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * rustix::param::page_size() / FILES
}

fn files(root: &Path) {
    for package in 0..1000 {
        let directory = root.join(format!("lib/python3.11/site-packages/p{package:03}"));
        fs::create_dir_all(&directory).expect("a directory");
        for file in 0..FILES / 1000 {
            fs::write(directory.join(format!("file{file:02}.py")), "x").expect("a file");
        }
    }
    // Files as young as this are read at every look.
    thread::sleep(Duration::from_millis(50));
}

fn main() {
    let folder = tempfile::Builder::new().prefix("app").tempdir_in("/dev/shm").expect("a folder");
    files(folder.path());
    let roots: Roots = [folder.path().as_os_str().as_bytes().to_vec()].into_iter().collect();
    let before = resident();
    let view = scan(&roots, &View::default(), &Options::default()).view;
    let held = resident() - before;
    println!("a view: {held} octets per file");
    let look = |what: &str, previous: &View, read| {
        let start = Instant::now();
        let now = scan(&roots, previous, &Options { read, ..Options::default() }).view;
        let took = start.elapsed();
        let found = compare(previous, &now).len();
        println!("{what}: {} octets per file while both are there, {took:.0?}, {found} differences", resident() - before);
    };
    look("compared with what is there", &view, Read::Changed);
    look("and again", &view, Read::Changed);
    let image = view.clone().portable();
    println!("a portable copy beside it: {} octets per file", resident() - before);
    look("that compared by size and time", &image, Read::Nothing);
    assert!(held < 400, "{held} octets per file");
}
