//! The file watch of a running egret: what it writes, what it does, what it admits not to see. What counts as a change, and
//! how it is found, is tested in the crate that finds it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::programs::require;
use crate::support::{Egret, Program, documented, eventually, fields, run_egret};

/// A tree that an egret watches.
struct Site {
    folder: TempDir,
    egret: Egret,
}

impl Site {
    /// `keys` are those of the watched path, `files` those beside `watch:`. The first comparison is done.
    fn new(keys: &str, files: &str) -> Self {
        Self::with(keys, files, |_| {})
    }

    /// The same with what `prepare` makes in the tree beforehand.
    fn with(keys: &str, files: &str, prepare: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let app = folder.path().join("app");
        fs::create_dir(&app).expect("a directory");
        prepare(&app);
        let egret = Egret::with_policy(&policy(&app, keys, files)).arg("--drain").arg("0").spawn();
        let site = Self { folder, egret };
        site.compared("start");
        site
    }

    fn app(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.app().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.at(name), content).expect("a file");
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).expect("the mode changes");
    }

    fn compared(&self, source: &str) -> Value {
        self.egret.event("coverage", |event| event["state"] == "compared" && event["source"] == source)
    }

    /// The event of a change of this file.
    fn told(&self, change: &str, name: &str) -> Value {
        let path = self.at(name);
        self.egret.event("file", |event| event["change"] == change && event["path"].as_str() == path.to_str())
    }

    /// Change and name of all events so far.
    fn all(&self) -> Vec<(String, String)> {
        let inside = |event: &Value| {
            let path = event["path"].as_str().expect("a path");
            let name = path.strip_prefix(self.app().to_str().expect("UTF-8")).unwrap_or(path);
            (event["change"].as_str().expect("a change").to_owned(), name.trim_start_matches('/').to_owned())
        };
        self.egret.events("file").iter().map(inside).collect()
    }

    fn status(&self) -> Value {
        let status: Value = serde_json::from_str(&self.egret.get_admin("/status").1).expect("/status is JSON");
        status["files"].clone()
    }
}

fn policy(app: &Path, keys: &str, files: &str) -> String {
    format!("version: 1\nfiles:\n  settle: 20ms\n{files}  watch:\n    - {{ path: {}, {keys} }}\n", app.display())
}

/// What sha256sum says of a text.
fn sha256(content: &str) -> String {
    let output = Program::new("sha256sum").stdin(content.as_bytes()).run();
    output.stdout.split(' ').next().expect("a hash").to_owned()
}

#[test]
fn each_change_is_one_event_that_says_what_differs() {
    let site = Site::with("tags: [\"pci-dss-11.5.2\"]", "", |app| fs::write(app.join("f"), "old").expect("a file"));
    site.write("f", "newer");
    let event = site.told("modified", "f");
    assert_eq!((&event["old_hash"], &event["new_hash"]), (&json!(sha256("old")), &json!(sha256("newer"))));
    assert_eq!((&event["old_size"], &event["new_size"]), (&json!("3"), &json!("5")));
    assert_eq!(event["attributes"], json!(["size", "mtime", "hash"]));
    assert_eq!((&event["severity"], &event["action"], &event["source"]), (&json!("medium"), &json!("alert"), &json!("event")));
    assert_eq!((&event["rule"], &event["tags"]), (&json!(site.app()), &json!(["pci-dss-11.5.2"])));
    assert_eq!(
        (&event["baseline"], &event["expected"], &event["hash_state"]),
        (&json!("learned"), &json!(false), &json!("done"))
    );
    site.chmod("f", 0o4755);
    let event = site.told("attributes", "f");
    assert_eq!((&event["old_mode"], &event["new_mode"], &event["severity"]), (&json!("0644"), &json!("4755"), &json!("high")));
    fs::rename(site.at("f"), site.at("g")).expect("a rename");
    assert_eq!(site.told("moved", "g")["from"], json!(site.at("f")));
    fs::remove_file(site.at("g")).expect("it goes");
    assert_eq!(site.told("deleted", "g")["old_hash"], json!(sha256("newer")));
    symlink("nowhere", site.at("link")).expect("a link");
    assert_eq!(site.told("created", "link")["type"], "symlink");
    fs::remove_file(site.at("link")).and_then(|()| fs::create_dir(site.at("link"))).expect("a directory in its place");
    let event = site.told("type", "link");
    assert_eq!(
        (&event["old_type"], &event["type"], &event["severity"]),
        (&json!("symlink"), &json!("directory"), &json!("high"))
    );
    assert_eq!(site.all().len(), 6);
    let seq: Vec<u64> =
        ["file", "coverage"].iter().flat_map(|kind| site.egret.events(kind)).filter_map(|e| e["seq"].as_u64()).collect();
    let mut sorted = seq.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=seq.len() as u64).collect::<Vec<_>>(), "a missing line would be noticed");
    assert_eq!(site.egret.metric("egret_file_events_total", &[("kind", "modified"), ("severity", "medium")]), 1.0);
}

#[test]
fn c16_c17_a_save_by_rename_is_one_modification_and_what_came_and_went_is_told() {
    let site = Site::with("", "", |app| fs::write(app.join("config"), "old").expect("a file"));
    fs::write(site.at(".config.swp"), "new")
        .and_then(|()| fs::rename(site.at(".config.swp"), site.at("config")))
        .expect("a save");
    assert_eq!(site.told("modified", "config")["new_hash"], json!(sha256("new")));
    fs::write(site.at("gone"), "x").and_then(|()| fs::remove_file(site.at("gone"))).expect("it came and went");
    site.told("transient", "gone");
    assert_eq!(site.all(), [("modified", "config"), ("transient", "gone")].map(|(change, name)| (change.into(), name.into())));
}

#[test]
fn f01_names_of_any_bytes_stay_in_their_line_and_can_be_read_back() {
    let site = Site::new("", "");
    let names: [&[u8]; 5] =
        [b"a\n{\"event\":\"file\"}", b"\xff\xfe", b"-rf \"quoted\" \\x0a", "\u{202e}txt\u{1b}[2J".as_bytes(), &[b'n'; 255]];
    for name in names {
        let path = site.at("").join(OsStr::from_bytes(name));
        fs::write(&path, "").expect("a file");
        let is_it = |event: &Value| {
            let raw = event["path_raw"].as_str().map(|raw| STANDARD.decode(raw).expect("base64"));
            raw.unwrap_or_else(|| event["path"].as_str().expect("a path").into()) == path.as_os_str().as_bytes()
        };
        let event = site.egret.event("file", is_it);
        assert_eq!(event["path_raw"].is_string(), str::from_utf8(name).is_err(), "{event}");
    }
    assert_eq!(site.all().len(), names.len());
    for line in site.egret.stdout_lines() {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

#[test]
fn beyond_its_lines_a_path_is_told_by_folder_with_every_name_once() {
    let site = Site::new("", "  lines: 10\n");
    let names: BTreeSet<String> = (0..500).map(|n| format!("{n:04}")).collect();
    names.iter().for_each(|name| site.write(name, ""));
    let mut told = BTreeSet::new();
    eventually("all names", || {
        let alone = site.all().into_iter().map(|(_, name)| name);
        let folded = site.egret.events("files");
        let folded = folded.iter().flat_map(|event| event["names"]["created"].as_array().expect("names"));
        let all: Vec<String> = alone.chain(folded.map(|name| name.as_str().expect("a name").to_owned())).collect();
        told = all.iter().cloned().collect();
        assert_eq!(told.len(), all.len(), "none twice");
        (told.len() == names.len()).then_some(())
    });
    assert_eq!(told, names);
    assert!(site.all().len() <= 20, "ten in each window, of which a slow machine may see two");
    assert_eq!(site.egret.metric("egret_file_events_total", &[("kind", "created")]), 500.0);
}

#[test]
fn a_log_may_grow_and_nothing_else() {
    let site = Site::with("as: log", "", |app| fs::write(app.join("log"), "one\n").expect("a file"));
    File::options().append(true).open(site.at("log")).and_then(|mut log| log.write_all(b"two\n")).expect("a line");
    site.egret.metric_becomes("egret_file_events_total", &[("kind", "appended")], 1.0);
    site.write("log", "ONE\ntwo\n");
    assert_eq!(site.told("modified", "log")["new_hash"], json!(sha256("ONE\ntwo\n")));
    fs::rename(site.at("log"), site.at("log.1")).and_then(|()| fs::write(site.at("log"), "")).expect("a rotation");
    site.told("moved", "log.1");
    site.told("created", "log");
    assert_eq!(site.all().len(), 3);
}

#[test]
fn what_is_only_counted_writes_no_line() {
    let site = Site::new("action: count", "");
    site.write("f", "");
    site.egret.metric_becomes("egret_file_events_total", &[("kind", "created")], 1.0);
    assert!(site.egret.events("file").is_empty());
}

#[test]
fn unhealthy_turns_readiness_off_for_good_but_not_for_a_mere_touch() {
    let site = Site::with("action: unhealthy", "", |app| fs::write(app.join("f"), "x").expect("a file"));
    File::options().write(true).open(site.at("f")).and_then(|f| f.set_modified(SystemTime::UNIX_EPOCH)).expect("a touch");
    assert_eq!(site.told("attributes", "f")["severity"], "low");
    assert_eq!(site.egret.get_admin("/readyz").0, 200);
    site.write("f", "y");
    site.told("modified", "f");
    let (code, why) = eventually("not ready", || Some(site.egret.get_admin("/readyz")).filter(|(code, _)| *code == 503));
    assert!(code == 503 && why.contains(site.at("f").to_str().expect("UTF-8")), "{why}");
    site.write("f", "x");
    site.egret.event("file", |event| event["new_hash"] == json!(sha256("x")));
    assert_eq!(site.egret.get_admin("/readyz").0, 503, "what happened, happened");
    assert_eq!(site.egret.get_admin("/healthz").0, 200);
}

#[test]
fn stop_ends_the_program_and_says_why() {
    let site = Site::new("action: stop", "");
    site.write("f", "");
    let status = site.egret.wait_exit();
    assert_eq!(status.code(), Some(1));
    assert!(site.egret.stderr().contains(&format!("the watched file {} changed: created", site.at("f").display())));
    site.told("created", "f");
    site.egret.event("coverage", |event| event["state"] == "ended" && event["complete"] == true);
    let changed = site.at("f").display().to_string();
    for phase in ["draining", "stopped"] {
        let event = site.egret.event("lifecycle", |event| event["phase"] == phase);
        assert!(event["why"].as_str().is_some_and(|why| why.contains(&changed)), "{event}");
    }
}

#[test]
fn g08_the_last_changes_are_told_when_it_ends() {
    let site = Site::new("", "");
    site.write("f", "");
    site.egret.stop();
    site.told("created", "f");
    site.compared("end");
    let ended = site.egret.event("coverage", |event| event["state"] == "ended");
    assert_eq!((&ended["complete"], &ended["changes"]), (&json!(true), &json!({ "created": 1 })));
}

#[test]
fn a01_a16_what_happens_while_it_is_frozen_is_a_gap_that_is_closed_and_nothing_is_lost() {
    const STOP: i32 = 19;
    const CONTINUE: i32 = 18;
    let queue: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("inotify").trim().parse().expect("a number");
    let site = Site::new("", "  unseen: unhealthy\n");
    eventually("it is ready", || (site.egret.get_admin("/readyz").0 == 200).then_some(()));
    site.egret.signal(STOP);
    let count = queue / 2 + 2_000;
    (0..count).for_each(|n| site.write(&n.to_string(), "x"));
    site.egret.signal(CONTINUE);
    let opened = site.egret.event("gap", |event| event["state"] == "opened");
    let closed = site.egret.event("gap", |event| event["state"] == "closed");
    let (code, why) = site.egret.get_admin("/readyz");
    assert!(code == 503 && why.contains("lost") && opened["action"] == "unhealthy", "{why} {opened}");
    assert_eq!((&closed["cause"], &closed["start"]), (&json!("kernel_queue"), &opened["start"]));
    assert!(closed["end"].as_str() > closed["start"].as_str(), "{closed}");
    site.egret.metric_becomes("egret_file_events_total", &[("kind", "created")], count as f64);
    assert!(site.egret.metric("egret_inotify_overflows_total", &[]) >= 1.0);
    site.egret.metric_becomes("egret_files_gap_open", &[], 0.0);
    assert_eq!(site.status()["state"], "watching");
    site.egret.stop();
    let mut told = BTreeSet::new();
    let folded = site.egret.events("files");
    let folded = folded.iter().flat_map(|event| event["names"]["created"].as_array().expect("names").clone());
    for name in folded.map(|name| name.as_str().expect("a name").to_owned()).chain(site.all().into_iter().map(|(_, name)| name)) {
        assert!(told.insert(name.clone()), "{name} is told twice");
    }
    assert_eq!(told.len(), count);
}

#[test]
fn d14_a_swapped_configuration_tells_which_files_read_otherwise() {
    let site = Site::with("", "", |app| {
        for (folder, content) in [("..one", "old"), ("..two", "new")] {
            fs::create_dir(app.join(folder)).expect("a directory");
            fs::write(app.join(folder).join("changed"), content).expect("a file");
            fs::write(app.join(folder).join("same"), "same").expect("a file");
        }
        symlink("..one", app.join("..data")).expect("a link");
        ["changed", "same"].iter().for_each(|name| symlink(format!("..data/{name}"), app.join(name)).expect("a link"));
    });
    symlink("..two", site.at("..tmp")).and_then(|()| fs::rename(site.at("..tmp"), site.at("..data"))).expect("a swap");
    let event = site.told("effective", "changed");
    assert_eq!((&event["old_hash"], &event["new_hash"]), (&json!(sha256("old")), &json!(sha256("new"))));
    site.told("modified", "..data");
    assert_eq!(site.all().len(), 2);
}

#[test]
fn who_has_it_open_for_writing_is_named_and_nobody_else() {
    let site = Site::new("", "");
    let mut writer = Command::new(require("python3")).args(["-c", WRITER]).arg(site.at("held")).spawn().expect("it runs");
    // On a busy machine a look at all processes may end early, and name nobody.
    let is_named = |event: &Value| event["path"].as_str() == site.at("held").to_str() && !event["suspect"].is_null();
    let event = site.egret.event("file", is_named);
    assert_eq!(event["suspect"][0]["pid"], json!(writer.id()));
    let exe = event["suspect"][0]["exe"].as_str().expect("a path");
    assert!(exe.contains("python3"), "{event}");
    assert!(
        ["sole_writer", "sole_visible_writer"].contains(&event["suspect"][0]["certainty"].as_str().expect("a word")),
        "{event}"
    );
    writer.kill().and_then(|()| writer.wait()).expect("it ends");
    fs::create_dir(site.at("directory")).expect("a directory");
    assert!(site.told("created", "directory")["suspect"].is_null(), "nobody writes a directory");
}

/// Holds a file open, and writes to it now and then, until it is killed.
const WRITER: &str = "
import sys, time
with open(sys.argv[1], 'w') as file:
    while True:
        file.write('x')
        file.flush()
        time.sleep(0.2)
";

#[test]
fn g06_egret_watches_its_own_policy() {
    let site = Site::new("", "");
    let text = fs::read_to_string(site.egret.policy_path()).expect("a policy");
    site.egret.rewrite_policy(&format!("{text}# changed\n"));
    let event = site.egret.event("file", |event| event["path"].as_str() == site.egret.policy_path().to_str());
    assert_eq!((&event["severity"], &event["change"]), (&json!("critical"), &json!("modified")));
}

#[test]
fn status_has_the_fields_that_the_reference_names() {
    let site = Site::new("", "");
    let status = site.status();
    assert_eq!(fields(&status), documented(include_str!("../../docs/reference.md"), "### Files in /status"));
}

#[test]
fn what_is_covered_is_told_to_people_and_machines() {
    let site = Site::with("ignore: [cache/]", "", |app| fs::create_dir_all(app.join("cache/deep")).expect("directories"));
    let status = eventually("the proof of events", || {
        let status = site.status();
        status["mounts"].as_array().expect("mounts").iter().any(|mount| mount["proof"] == "proven").then_some(status)
    });
    assert_eq!(
        (&status["state"], &status["baseline"], &status["inotify"]),
        (&json!("watching"), &json!("learned"), &json!(true))
    );
    let root = status["roots"].as_array().expect("roots").iter().find(|root| root["path"] == json!(site.app())).cloned();
    let root = root.expect("the root");
    assert_eq!((&root["baseline"], &root["present"], &root["entries"]), (&json!("learned"), &json!(true), &json!(2)));
    assert_eq!((&root["policy"]["action"], &root["policy"]["ignore"]), (&json!("alert"), &json!(["cache/"])));
    assert_eq!(site.egret.event("coverage", |event| event["state"] == "watching" && event["path"] == root["path"])["as"], "all");
    assert_eq!(status["uncovered"], json!([{ "path": site.at("cache"), "path_raw": null, "why": "excluded" }]));
    assert!(status["watched"].as_u64() < Some(40) && status["budget"].as_u64() > status["watched"].as_u64(), "{status}");
    let text = run_egret(["files", "status", "--admin", &site.egret.admin().to_string()], "");
    assert_eq!(text.code, 0, "{text:?}");
    for words in ["watching", "learned", "excluded", "proven", site.app().to_str().expect("UTF-8")] {
        assert!(text.stdout.contains(words), "no {words:?} in\n{}", text.stdout);
    }
}

#[test]
fn g05_a_reload_neither_loses_nor_doubles_changes_of_paths_that_stay() {
    let site = Site::with("", "", |app| fs::write(app.join("f"), "one").expect("a file"));
    let more = site.folder.path().join("more");
    fs::create_dir(&more).expect("a directory");
    site.write("f", "two");
    site.egret.rewrite_policy(&format!("{}    - {{ path: {} }}\n", policy(&site.app(), "", ""), more.display()));
    site.write("f", "three");
    site.egret.event("policy", |event| event["result"] == "loaded");
    let starts = |event: &&Value| event["state"] == "compared" && event["source"] == "start";
    eventually("the new path is learned", || (site.egret.events("coverage").iter().filter(starts).count() == 2).then_some(()));
    fs::write(more.join("g"), "").expect("a file");
    let g = more.join("g");
    site.egret.event("file", |event| event["path"].as_str() == g.to_str());
    site.egret.rewrite_policy("version: 1\n");
    eventually("nothing is watched", || site.status().is_null().then_some(()));
    site.write("h", "");
    site.egret.stop();
    let of_f: Vec<Value> = site.egret.events("file").into_iter().filter(|event| event["path"] == json!(site.at("f"))).collect();
    let hashes = |key: &str| of_f.iter().map(|event| event[key].clone()).collect::<Vec<_>>();
    assert_eq!(hashes("old_hash")[0], json!(sha256("one")));
    assert_eq!(hashes("new_hash").last(), Some(&json!(sha256("three"))));
    assert_eq!(hashes("old_hash")[1..], hashes("new_hash")[..of_f.len() - 1], "each change begins where the former ended");
    assert!(site.egret.events("file").iter().all(|event| event["path"] != json!(site.at("h"))));
}

#[test]
fn a06_directories_beyond_the_limit_of_watches_are_said_to_be_and_polled() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = folder.path().join("app");
    (0..40).for_each(|n| fs::create_dir_all(app.join(n.to_string())).expect("a directory"));
    let limited = ["unshare", "-r", "sh", "-c", "echo 40 > /proc/sys/user/max_inotify_watches && exec \"$@\"", "sh"];
    let egret = Egret::with_policy(&policy(&app, "", "  poll: 1s\n  watches: 50\n")).under(limited).spawn();
    let lost = egret.event("coverage", |event| event["state"] == "lost");
    assert!(lost["why"].as_str().is_some_and(|why| why.starts_with("no-watch")), "{lost}");
    egret.event("coverage", |event| event["state"] == "compared");
    egret.metric_becomes("egret_files_watch_budget", &[], 20.0);
    (0..40).for_each(|n| fs::write(app.join(n.to_string()).join("f"), "").expect("a file"));
    let told = || egret.events("file").iter().filter(|event| event["change"] == "created").count();
    eventually("all are told", || (told() == 40).then_some(()));
    assert!(egret.events("file").iter().any(|event| event["source"] == "poll" && event["since"].is_string()));
}
