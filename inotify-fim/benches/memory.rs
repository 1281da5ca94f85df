//! Resident memory of a view of 100,000 files, whose paths have some 60 octets, and of a comparison of it that reads no
//! content. Not timed: it prints octets per file, and fails if there are more than 400.
//!
//! ```text
//! cargo bench -p egret-inotify-fim --bench memory
//! ```

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use egret_inotify_fim::roots::Roots;
use egret_inotify_fim::scan::{Options, Read, scan};
use egret_inotify_fim::view::{View, compare};

const FILES: usize = 100_000;
const MOST: usize = 400;

/// Octets that this process has in memory (proc_pid_statm(5)), with pages of 4 KiB.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("statm");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

fn files(root: &Path) {
    for package in 0..1000 {
        let directory = root.join(format!("lib/python3.11/site-packages/package{package:03}/module"));
        fs::create_dir_all(&directory).expect("a directory");
        for file in 0..FILES / 1000 {
            fs::write(directory.join(format!("file{file:02}.py")), "x").expect("a file");
        }
    }
    thread::sleep(Duration::from_millis(50));
}

fn main() {
    let folder = tempfile::Builder::new().prefix("app").rand_bytes(0).tempdir_in("/dev/shm").expect("a folder");
    files(folder.path());
    let roots: Roots = [folder.path().as_os_str().as_bytes().to_vec()].into_iter().collect();
    // What a first scan leaves behind in the allocator is no part of a view.
    drop(scan(&Roots::default(), &View::default(), &Options::default()));
    let per_file = |octets: usize| octets / FILES;
    let before = resident();
    let view = scan(&roots, &View::default(), &Options::default()).view;
    let held = per_file(resident() - before);
    let most = std::cell::Cell::new(held);
    let look = |what: &str, previous: &View, read| {
        let start = Instant::now();
        let now = scan(&roots, previous, &Options { read, ..Options::default() }).view;
        let took = start.elapsed();
        let differences = compare(previous, &now).len();
        most.set(most.get().max(per_file(resident() - before)));
        println!(
            "{what}: {differences} differences, {took:.0?}, {} octets per file with both views",
            per_file(resident() - before)
        );
    };
    println!(
        "{} paths of {} octets on average",
        view.entries.len(),
        view.entries.keys().map(|path| path.len()).sum::<usize>() / view.entries.len()
    );
    println!("a view: {held} octets per file");
    look("compared with itself", &view, Read::Changed);
    look("and again", &view, Read::Changed);
    println!("after it: {} octets per file", per_file(resident() - before));
    let image = view.clone().portable();
    println!("beside a portable one: {} octets per file", per_file(resident() - before));
    look("that compared by size and time", &image, Read::Nothing);
    assert!(held < MOST, "{held} octets per file");
}
