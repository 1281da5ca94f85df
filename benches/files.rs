//! The file watch of the whole program beside AIDE, sha256sum and inotifywait, on generated trees, interleaved.
//!
//! `cargo bench --bench files -- [ROUNDS] [hash] [verify] [watch] [memory] [latency] [burst]`, with Debian's `aide
//! inotify-tools`; the trees take 2.5 GiB below the folder of temporary files (`TMPDIR`). A peer that is not installed is
//! said to be missing.
//!
//! On a shared 2-core machine, Linux 6.18, 2026-11, page cache warm, medians of 3 to 9 interleaved rounds; verifying and
//! watching with `chrt -f 20`, so that nothing else runs meanwhile:
//!
//! | | egret | peers |
//! |---|---|---|
//! | baseline of 100,000 files of 4 KiB | 0.94 s | sha256sum, 2 processes 1.64 s; aide --init 5.21 s; reading alone 1.28 s |
//! | baseline of 2 GiB in 20 files | 0.77 s | sha256sum, 2 processes 4.17 s; aide --init 6.74 s |
//! | verify the 100,000, content read | 0.85 s | |
//! | verify the 100,000 by stat alone | 0.43 s | find that prints every attribute 0.22 s |
//! | start to one empty directory watched | 4 ms | |
//! | start to 1,000 directories watched and compared | 11.9 ms | bare inotify calls 9.8 ms; inotifywait 13.0 ms |
//! | start to 20,000 directories watched and compared | 180 ms | bare inotify calls 175 ms; inotifywait 248 ms |
//! | resident for each of 100,000 files | 393 octets | |
//! | end of a write to the line in the journal, idle, `settle: 0ms` | 1.8 ms, 99th percentile 13 ms | |
//! | a burst of 100,000 new files, made in 6.8 s | each told once, no gap | |
//!
//! All three begin with a program's start, which takes egret some 4 ms longer than the others; egret compares every directory as
//! well, on both cores: 1.2 times the bare calls for 1,000. Beside other work it takes up to 1.5 times, and longer than inotifywait.
//!
//! By stat alone it takes 0.1 s more where the kernel is older than Linux 6.13 or a filter refuses listxattrat(2).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::Value;

/// What can be measured alone; the first four need trees.
const PARTS: [&str; 6] = ["hash", "verify", "watch", "memory", "latency", "burst"];
/// The argument of this program that has it do nothing but watch a tree.
const BARE: &str = "bare";
/// Files that are made at once.
const BURST: usize = 100_000;
/// Files that are written one after the other, each waited for.
const WAITED_FOR: usize = 200;

fn main() {
    if let [_, bare, tree] = &std::env::args().collect::<Vec<_>>()[..]
        && bare == BARE
    {
        return watch_barely(Path::new(tree));
    }
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(5);
    let folder = tempfile::tempdir().expect("a folder");
    let named: Vec<String> = std::env::args().skip(1).filter(|word| PARTS.contains(&word.as_str())).collect();
    let wants = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    if PARTS[..4].iter().any(|part| wants(part)) {
        let trees = Trees::make(folder.path());
        let part = |name: &str, run: fn(&Trees, usize)| {
            if wants(name) {
                run(&trees, rounds);
            }
        };
        part("hash", hashing);
        part("verify", comparing);
        part("watch", watching);
        part("memory", |trees, _| memory(trees));
    }
    if wants("latency") {
        latency(folder.path());
    }
    if wants("burst") {
        burst(folder.path());
    }
}

/// What is hashed and watched.
struct Trees {
    folder: PathBuf,
    /// 100,000 files of 4 KiB in 1,000 directories.
    small: PathBuf,
    /// 2 GiB in 20 files.
    big: PathBuf,
    /// 1,000 and 20,000 directories.
    directories: [(usize, PathBuf); 2],
}

impl Trees {
    fn make(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name);
        let mut content = Content(0x9e37_79b9_7f4a_7c15);
        let mut block = vec![0_u8; 107_374_182];
        for directory in 0..1_000 {
            let directory = at("small").join(format!("d{directory}"));
            fs::create_dir_all(&directory).expect("a directory");
            for file in 0..100 {
                content.fill(&mut block[..4_096]);
                fs::write(directory.join(format!("f{file}")), &block[..4_096]).expect("a file");
            }
        }
        fs::create_dir(at("big")).expect("a directory");
        for file in 0..20 {
            content.fill(&mut block);
            fs::write(at("big").join(format!("f{file}")), &block).expect("a file");
        }
        let directories = [1_000, 20_000].map(|count| {
            let top = at(&format!("dirs{count}"));
            for parent in 0..count / 100 {
                (0..99).for_each(|child| fs::create_dir_all(top.join(format!("p{parent}/c{child}"))).expect("directories"));
            }
            (count, top)
        });
        Self { folder: folder.to_owned(), small: at("small"), big: at("big"), directories }
    }
}

/// Bytes that differ from file to file (xorshift).
struct Content(u64);

impl Content {
    fn fill(&mut self, block: &mut [u8]) {
        for word in block.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_ne_bytes()[..word.len()]);
        }
    }
}

/// A name, and how to run it once.
type Contender<'a> = (&'a str, Box<dyn Fn() -> Command + 'a>);

fn egret() -> Command {
    Command::new(env!("CARGO_BIN_EXE_egret"))
}

fn shell(script: String) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

/// Whether a program is there; if not, that is said.
fn has(program: &str) -> bool {
    let found = shell(format!("command -v {program}")).stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        println!("{program} is not installed: not compared");
    }
    found
}

/// A manifest of each tree, and what others take to hash the same.
fn hashing(trees: &Trees, rounds: usize) {
    let peers = [("aide", has("aide")), ("sha256sum", has("sha256sum"))];
    let there = |name| peers.contains(&(name, true));
    for (label, tree, batch) in [("100,000 files of 4 KiB", &trees.small, 256), ("2 GiB in 20 files", &trees.big, 1)] {
        let (tree, out) = (tree.display(), trees.folder.join("out"));
        let config = trees.folder.join("aide.conf");
        let database = trees.folder.join("aide.db");
        fs::write(
            &config,
            format!("database_out=file:{}\ngzip_dbout=no\nreport_url=stdout\n{tree} p+i+n+u+g+s+m+sha256\n", database.display()),
        )
        .expect("a configuration");
        let each = format!("find {tree} -type f -print0 | xargs -0 -P2 -n {batch}");
        let mut contenders: Vec<Contender<'_>> = vec![
            (
                "egret files baseline",
                Box::new(|| {
                    let mut command = egret();
                    command.args(["files", "baseline"]).arg(tree.to_string()).arg("-o").arg(&out);
                    command
                }),
            ),
            ("read only, 2 processes", Box::new(|| shell(format!("{each} cat > /dev/null")))),
        ];
        if there("sha256sum") {
            contenders.push(("sha256sum, 2 processes", Box::new(|| shell(format!("{each} sha256sum > {}", out.display())))));
        }
        if there("aide") {
            contenders.push((
                "aide --init",
                Box::new(|| {
                    let mut command = Command::new("aide");
                    command.arg("--config").arg(&config).arg("--init");
                    command
                }),
            ));
        }
        race(&format!("hash {label}"), rounds, &contenders);
    }
}

/// A comparison of the small tree by attributes.
fn comparing(trees: &Trees, rounds: usize) {
    let manifest = trees.folder.join("small.manifest");
    let made = egret().args(["files", "baseline"]).arg(&trees.small).arg("-o").arg(&manifest).status().expect("egret runs");
    assert!(made.success());
    let verify = |words: &'static [&'static str]| {
        let manifest = manifest.clone();
        Box::new(move || {
            let mut command = egret();
            command.args(["files", "verify"]).arg(&manifest).args(words);
            command
        }) as Box<dyn Fn() -> Command>
    };
    let small = trees.small.display().to_string();
    let walk = Box::new(move || shell(format!("find {small} -printf '%s %m %U %G %i %T@ %p\\n' > /dev/null")));
    let contenders: Vec<Contender<'_>> = vec![
        ("egret files verify --stat-only", verify(&["--stat-only"])),
        ("egret files verify", verify(&[])),
        ("find, all attributes", walk),
    ];
    race("verify 100,000 files", rounds, &contenders);
}

/// Runs each contender in turn, so many times; prints medians.
fn race(what: &str, rounds: usize, contenders: &[Contender<'_>]) {
    let mut took = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for (times, (name, command)) in took.iter_mut().zip(contenders) {
            let began = Instant::now();
            let output = command().stdin(Stdio::null()).output().expect("it runs");
            times.push(began.elapsed());
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    for ((name, _), mut times) in contenders.iter().zip(took) {
        println!("{what}: {name}: median of {rounds}: {:.2} s", median(&mut times).as_secs_f64());
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// From the start of a program to all directories being watched.
fn watching(trees: &Trees, rounds: usize) {
    let peer = has("inotifywait");
    let empty = trees.folder.join("nothing");
    fs::create_dir(&empty).expect("a directory");
    let mut alone: Vec<Duration> = (0..rounds).map(|_| Watching::of(&empty, "").took).collect();
    println!("watch one empty directory: egret run: median of {rounds}: {:.1} ms", median(&mut alone).as_secs_f64() * 1e3);
    for (count, tree) in &trees.directories {
        let mut took = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..rounds {
            took[0].push(bare(tree));
            took[1].push(Watching::of(tree, "").took);
            if peer {
                took[2].push(inotifywait(tree));
            }
        }
        for (name, times) in ["bare inotify calls", "egret run, compared as well", "inotifywait -r"].iter().zip(&mut took) {
            if !times.is_empty() {
                println!("watch {count} directories: {name}: median of {rounds}: {:.1} ms", median(times).as_secs_f64() * 1e3);
            }
        }
    }
}

/// The floor: list and watch, nothing else, until somebody ends it.
fn watch_barely(tree: &Path) {
    let inotify = inotify::init(CreateFlags::CLOEXEC).expect("inotify");
    let mut stack = vec![tree.to_owned()];
    while let Some(path) = stack.pop() {
        inotify::add_watch(&inotify, &path, WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::ONLYDIR).expect("a watch");
        let entries = fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry"));
        stack.extend(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    eprintln!("{WATCHED}");
    // It is killed.
    std::thread::park();
}

/// What inotifywait says once it watches everything.
const WATCHED: &str = "Watches established";

fn bare(tree: &Path) -> Duration {
    until_watched(Command::new(std::env::current_exe().expect("a name")).arg(BARE).arg(tree))
}

fn inotifywait(tree: &Path) -> Duration {
    until_watched(Command::new("inotifywait").args(["-r", "-m"]).arg(tree))
}

/// From its start until it says so.
fn until_watched(program: &mut Command) -> Duration {
    let began = Instant::now();
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains(WATCHED));
    let took = began.elapsed();
    assert!(ready);
    child.kill().expect("it ends");
    child.wait().expect("and is gone");
    took
}

/// An egret that watches a tree.
struct Watching {
    child: Child,
    journal: Lines<BufReader<ChildStdout>>,
    took: Duration,
    _policy: tempfile::NamedTempFile,
}

impl Watching {
    /// Starts it and waits for the first comparison.
    fn of(tree: &Path, more: &str) -> Self {
        let mut policy = tempfile::NamedTempFile::new().expect("a file");
        write!(policy, "version: 1\nfiles:\n  hashing: 100\n  watches: 90\n{more}\n  watch: [{{ path: {} }}]\n", tree.display())
            .expect("a policy");
        let began = Instant::now();
        let mut child = egret()
            .args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy"])
            .arg(policy.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("egret starts");
        let mut journal = BufReader::new(child.stdout.take().expect("a journal")).lines();
        wait(&mut journal, |event| event["event"] == "coverage" && event["state"] == "compared");
        Self { child, journal, took: began.elapsed(), _policy: policy }
    }

    fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.child.kill().expect("egret ends");
        self.child.wait().expect("and is gone");
    }
}

fn wait(journal: &mut Lines<BufReader<ChildStdout>>, wanted: impl Fn(&Value) -> bool) -> Value {
    let events = journal.map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"));
    events.into_iter().find(wanted).expect("the event")
}

/// Octets for each known file, above a program that watches nothing much.
fn memory(trees: &Trees) {
    let empty = trees.folder.join("empty");
    fs::create_dir(&empty).expect("a directory");
    let (nothing, all) = (Watching::of(&empty, "").resident_kib(), Watching::of(&trees.small, "").resident_kib());
    println!("memory: {} octets resident for each of 100,000 files", (all - nothing) * 1024 / 100_000);
}

/// From the end of a write to the line in the journal.
fn latency(folder: &Path) {
    let tree = folder.join("latency");
    fs::create_dir(&tree).expect("a directory");
    let mut watching = Watching::of(&tree, "  settle: 0ms\n  lines: 2000");
    let mut took: Vec<Duration> = (0..WAITED_FOR)
        .map(|number| {
            std::thread::sleep(Duration::from_millis(20));
            let path = tree.join(number.to_string());
            let began = Instant::now();
            fs::write(&path, "changed").expect("a file");
            wait(&mut watching.journal, |event| {
                event["event"] == "file" && event["path"].as_str().map(Path::new) == Some(&*path)
            });
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("event to journal line: median {:.2} ms, 99th percentile {:.2} ms", at(50), at(99));
}

/// A burst of new files, each of which must be told once.
fn burst(folder: &Path) {
    let tree = folder.join("burst");
    fs::create_dir(&tree).expect("a directory");
    let mut watching = Watching::of(&tree, "");
    let began = Instant::now();
    (0..BURST).for_each(|number| drop(File::create(tree.join(number.to_string())).expect("a file")));
    let made = began.elapsed();
    let (mut told, mut gaps) = (vec![0_u8; BURST], 0);
    let mut tell = |name: &str| told[name.parse::<usize>().expect("a number")] += 1;
    let mut left = BURST;
    while left > 0 {
        let event = wait(&mut watching.journal, |event| {
            event["section"] == "files" || event["event"] == "file" || event["event"] == "files"
        });
        if event["event"] == "file" {
            tell(Path::new(event["path"].as_str().expect("a path")).file_name().and_then(|name| name.to_str()).expect("a name"));
            left -= 1;
        }
        for name in event["names"]["created"].as_array().into_iter().flatten() {
            tell(name.as_str().expect("a name"));
            left -= 1;
        }
        gaps += usize::from(event["event"] == "gap" && event["state"] == "opened");
    }
    let once = told.iter().filter(|count| **count == 1).count();
    println!(
        "burst: {BURST} files made in {:.2} s, {once} told exactly once, {gaps} gaps, all told {:.2} s after the first was made",
        made.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
}
