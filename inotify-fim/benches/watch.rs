//! What watching costs, beside bare inotify calls over the same tree; how soon a change is told; and a burst.
//!
//! A program of its own and not criterion's: each run needs a new watch, and some take seconds. It prints the median of
//! several runs. `watched` is until the first comparison of the tree is told: it holds a scan of all directories too, eight
//! calls for each to the bare six, by both processors.
//!
//! ```text
//! cargo bench -p egret-inotify-fim --bench watch
//! ```
//!
//! On Linux 6.18, 2 processors (AMD EPYC), ext4, with `chrt -f 20`: 1,000 directories 9.2 ms bare, 8.8 ms watched; 20,000
//! directories 187 and 165 ms (0.88 times). Event to tell 180 to 410 µs, p50. 100,000 creations: all told, no gap on ext4; on
//! tmpfs, where they come faster, two gaps that were repaired.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use egret_inotify_fim::roots::Roots;
use egret_inotify_fim::view::View;
use egret_inotify_fim::watch::{Event, Options, Source, Watch};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

const RUNS: usize = 7;

fn main() {
    for count in [1_000, 20_000] {
        let folder = tempfile::tempdir().expect("a folder");
        for n in 0..count {
            fs::create_dir_all(folder.path().join(format!("{}/{n}", n % 100))).expect("a directory");
        }
        let (bare, ours) = (median(|| bare(folder.path())), median(|| watched(folder.path())));
        let ratio = ours.0.as_secs_f64() / bare.0.as_secs_f64();
        println!(
            "{count} directories: bare {:?} (processor {:?}), watched {:?} ({:?}), {ratio:.2} times",
            bare.0, bare.1, ours.0, ours.1
        );
    }
    let folder = tempfile::tempdir().expect("a folder");
    println!("event to tell, p50: {:?}", latency(folder.path()));
    burst(folder.path());
}

/// The median of several runs, and what one of them takes of the processors, its end included: the clock runs on while
/// others have them.
fn median(run: impl Fn() -> Duration) -> (Duration, Duration) {
    let before = processor();
    let mut times: Vec<Duration> = (0..RUNS).map(|_| run()).collect();
    times.sort_unstable();
    (times[RUNS / 2], (processor() - before) / RUNS as u32)
}

/// What this process has used of the processors, by the kernel's ticks of 10 ms.
fn processor() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("procfs");
    let words = stat.rsplit(") ").next().into_iter().flat_map(str::split_whitespace).skip(11).take(2);
    Duration::from_millis(words.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

/// What a program does that only watches: list, and add a watch for each path.
fn bare(root: &Path) -> Duration {
    let start = Instant::now();
    let inotify = inotify::init(CreateFlags::CLOEXEC).expect("an instance");
    let mut stack = vec![root.to_path_buf()];
    while let Some(path) = stack.pop() {
        inotify::add_watch(&inotify, &path, WatchFlags::MODIFY | WatchFlags::CREATE).expect("a watch");
        let list = fs::read_dir(&path).expect("a directory").flatten();
        stack.extend(list.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    start.elapsed()
}

fn start(root: &Path) -> (Watch, Receiver<Event>) {
    let (send, told) = channel();
    let options = Options { settle: Duration::ZERO, suspects: false, watches: usize::MAX, ..Options::default() };
    let roots = Roots::from_iter([root.as_os_str().as_bytes().to_vec()]);
    let watch = Watch::start(roots, View::default(), options, move |event| drop(send.send(event))).expect("a watch");
    while !matches!(told.recv(), Ok(Event::Compared { source: Source::Start, .. })) {}
    (watch, told)
}

fn watched(root: &Path) -> Duration {
    let begin = Instant::now();
    let (watch, _told) = start(root);
    let took = begin.elapsed();
    drop(watch.stop(Duration::from_secs(600)));
    took
}

fn changed(event: &Event) -> bool {
    matches!(event, Event::Changed { .. })
}

fn latency(root: &Path) -> Duration {
    let (watch, told) = start(root);
    let mut times: Vec<Duration> = (0..200)
        .map(|n| {
            std::thread::sleep(Duration::from_millis(2));
            let path = root.join(format!("file-{n}"));
            let begin = Instant::now();
            fs::write(path, "x").expect("a file");
            while !changed(&told.recv().expect("an event")) {}
            begin.elapsed()
        })
        .collect();
    drop(watch.stop(Duration::from_secs(600)));
    times.sort_unstable();
    times[times.len() / 2]
}

fn burst(root: &Path) {
    let root = root.join("burst");
    fs::create_dir(&root).expect("a directory");
    let (watch, told) = start(&root);
    let begin = Instant::now();
    for n in 0..100_000 {
        fs::write(root.join(n.to_string()), "").expect("a file");
    }
    let written = begin.elapsed();
    let entries = watch.stop(Duration::from_secs(600)).0.entries.len();
    let took = begin.elapsed();
    let events: Vec<Event> = told.into_iter().collect();
    let is_created = |event: &&Event| matches!(event, Event::Changed { difference, .. } if difference.change == egret_inotify_fim::view::Change::Created);
    let created = events.iter().filter(is_created).count();
    let gaps = events.iter().filter(|event| matches!(event, Event::GapOpened { .. })).count();
    println!("100,000 creations in {written:?}: {created} told, {entries} in the view, {gaps} gaps, all told after {took:?}");
}
