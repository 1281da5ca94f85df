//! What somebody inside would try against the file watch, and what an operator could do to it by mistake.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::programs::require;
use crate::support::{Egret, eventually, run_egret};

/// Folders that a policy may name; `@` stands for the path before theirs.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder") };
        ["app", "tmp"].iter().for_each(|name| fs::create_dir(site.at(name)).expect("a directory"));
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.at(name), content).expect("a file");
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).expect("the mode changes");
    }

    fn policy(&self, files: &str) -> String {
        format!("version: 1\nfiles:\n  settle: 20ms\n{}", files.replace('@', &format!("{}/", self.folder.path().display())))
    }

    /// An egret whose first comparison is done.
    fn watched(&self, files: &str) -> Egret {
        let egret = Egret::with_policy(&self.policy(files)).arg("--drain").arg("0").spawn();
        egret.event("coverage", |event| event["state"] == "compared" && event["source"] == "start");
        egret
    }

    fn told(&self, egret: &Egret, change: &str, name: &str) -> Value {
        let path = json!(self.at(name));
        egret.event("file", |event| event["change"] == change && event["path"] == path)
    }
}

#[test]
fn a_writer_whose_name_is_no_text_hides_nothing() {
    let site = Site::new();
    let egret = site.watched("  watch: [{ path: @app }]\n");
    let odd = site.at("tmp").join(std::ffi::OsStr::from_bytes(b"\xff\n"));
    fs::copy(require("dd"), &odd).expect("a copy");
    let out = format!("of={}", site.at("app/f").display());
    let mut writer = Command::new(&odd).args(["if=/dev/zero", "count=1", &out]).arg("conv=notrunc").spawn().expect("it runs");
    let event = site.told(&egret, "created", "app/f");
    assert!(event["seq"].is_u64() && event["severity"].is_string(), "{event}");
    writer.wait().expect("it ends");
    assert!(egret.events("gap").is_empty());
}

#[test]
fn what_leaves_a_guarded_path_for_another_is_told_where_it_left() {
    let site = Site::new();
    site.write("app/server", "x");
    let egret = site.watched("  watch: [{ path: @app, action: stop }, { path: @tmp, action: count }]\n");
    fs::rename(site.at("app/server"), site.at("tmp/s")).expect("a move");
    assert_eq!(egret.wait_exit().code(), Some(1));
    site.told(&egret, "deleted", "app/server");
}

#[test]
fn growth_hides_no_other_change_of_a_log() {
    let site = Site::new();
    site.write("app/log", "one\n");
    let egret = site.watched("  watch: [{ path: @app, as: log }]\n");
    site.chmod("app/log", 0o4777);
    File::options().append(true).open(site.at("app/log")).and_then(|mut log| log.write_all(b"two\n")).expect("a line");
    let event = egret.event("file", |event| event["new_mode"] == "4777");
    assert_eq!(event["severity"], "high");
}

#[test]
fn a_copy_in_the_place_of_the_journal_is_told_and_ends_what_must_not_lose_a_line() {
    let site = Site::new();
    let journal = site.at("app/journal");
    let policy = "version: 1\nrun: { journal-full: stop }\n";
    let egret = Egret::with_policy(policy).arg("--journal").arg(&journal).arg("--drain").arg("0").spawn();
    eventually("it has started", || fs::read_to_string(&journal).ok().filter(|text| text.contains("started")));
    fs::copy(&journal, site.at("app/copy")).and_then(|_| fs::rename(site.at("app/copy"), &journal)).expect("a copy");
    assert_eq!(egret.wait_end().code(), Some(3));
    assert!(egret.stderr().contains("was removed"), "{}", egret.stderr());
}

#[test]
fn a_copy_in_the_place_of_a_log_acts_as_a_change() {
    let site = Site::new();
    site.write("app/log", "one\n");
    let egret = site.watched("  watch: [{ path: @app, as: log, action: stop }]\n");
    fs::copy(site.at("app/log"), site.at("tmp/copy"))
        .and_then(|_| fs::rename(site.at("tmp/copy"), site.at("app/log")))
        .expect("a copy");
    site.told(&egret, "modified", "app/log");
    assert_eq!(egret.wait_exit().code(), Some(1));
}

#[test]
fn where_only_programs_count_other_files_may_come_and_go() {
    let site = Site::new();
    let egret = site.watched("  watch: [{ path: @tmp, as: executables, action: unhealthy }]\n");
    (0..20).for_each(|n| site.write(&format!("tmp/{n}"), "x"));
    fs::remove_file(site.at("tmp/0")).expect("it goes");
    site.write("tmp/run", "#!/bin/sh\n");
    site.chmod("tmp/run", 0o755);
    assert_eq!(site.told(&egret, "created", "tmp/run")["severity"], "high");
    assert_eq!(egret.events("file").len(), 1);
}

#[test]
fn f03_a_name_hides_no_program_and_a_pattern_of_files_no_folder() {
    let site = Site::new();
    fs::create_dir(site.at("app/cache")).expect("a directory");
    let egret = site.watched("  watch: [{ path: @app, ignore: [\"*.log\", \"cache/\"] }]\n");
    site.write("app/a.log", "");
    site.write("app/cache/a", "");
    fs::create_dir(site.at("app/e.log")).expect("a directory");
    site.write("app/e.log/f", "");
    site.write("app/run.log", "#!/bin/sh\n");
    site.chmod("app/run.log", 0o755);
    for name in ["app/e.log", "app/e.log/f", "app/run.log"] {
        site.told(&egret, "created", name);
    }
    assert_eq!(egret.events("file").len(), 3);
}

#[test]
fn a_low_severity_takes_no_action_away() {
    let site = Site::new();
    let egret = site.watched("  watch: [{ path: @app, action: stop, severity: low }]\n");
    site.write("app/f", "");
    assert_eq!(egret.wait_exit().code(), Some(1));
    assert_eq!(site.told(&egret, "created", "app/f")["severity"], "low");
}

#[test]
fn another_way_of_looking_is_no_change() {
    let site = Site::new();
    site.write("app/a.pyc", "x");
    site.write("app/a.py", "x");
    let policy = |ignore: &str| format!("  watch: [{{ path: @app, action: stop, ignore: [{ignore}] }}]\n");
    let egret = site.watched(&policy("\"*.pyc\""));
    egret.rewrite_policy(&site.policy(&policy("")));
    egret.event("policy", |event| event["result"] == "loaded");
    egret.event("coverage", |event| event["state"] == "learned" && event["seq"].as_u64() > Some(4));
    site.write("app/a.py", "y");
    assert_eq!(egret.wait_exit().code(), Some(1));
    let inside = |event: &&Value| event["rule"] == json!(site.at("app"));
    assert_eq!(egret.events("file").iter().filter(inside).count(), 1, "the change, and nothing else");
}

#[test]
fn a_path_that_a_reload_adds_is_compared_with_the_manifest() {
    let site = Site::new();
    site.write("tmp/f", "x");
    let [app, tmp, manifest] = ["app", "tmp", "m"].map(|name| site.at(name).display().to_string());
    assert_eq!(run_egret(["files", "baseline", &app, &tmp, "-o", &manifest], "").code, 0);
    site.write("tmp/f", "changed");
    let egret = site.watched("  baseline: @m\n  watch: [{ path: @app }]\n");
    assert!(egret.events("file").is_empty());
    egret.rewrite_policy(&site.policy("  baseline: @m\n  watch: [{ path: @app }, { path: @tmp }]\n"));
    let event = site.told(&egret, "modified", "tmp/f");
    assert_eq!((&event["source"], &event["baseline"]), (&json!("start"), &json!("manifest")));
}

#[test]
fn a_policy_without_files_ends_the_watch_and_says_so() {
    let site = Site::new();
    let egret = site.watched("  watch: [{ path: @app }]\n");
    egret.rewrite_policy("version: 1\n");
    let event = egret.event("coverage", |event| event["state"] == "ended");
    assert!(event["why"].as_str().is_some_and(|why| why.contains("policy")), "{event}");
    egret.metric_becomes("egret_files_watched", &[], 0.0);
}

#[test]
fn the_same_policy_read_again_leaves_the_watch_alone() {
    const HANGUP: i32 = 1;
    let site = Site::new();
    let egret = site.watched("  watch: [{ path: @app }]\n");
    egret.signal(HANGUP);
    egret.event("policy", |event| event["result"] == "loaded");
    site.write("app/f", "");
    site.told(&egret, "created", "app/f");
    assert_eq!(egret.events("coverage").iter().filter(|event| event["state"] == "compared").count(), 1);
}

#[test]
fn g06_egrets_own_files_are_guarded_like_the_place_they_are_in_and_through_links() {
    let site = Site::new();
    site.write("app/real.yaml", &site.policy("  watch: [{ path: @app, action: unhealthy, tags: [own] }]\n"));
    symlink(site.at("app/real.yaml"), site.at("tmp/policy.yaml")).expect("a link");
    let egret = Egret::without_policy().arg("--policy").arg(site.at("tmp/policy.yaml")).arg("--drain").arg("0").spawn();
    egret.event("coverage", |event| event["state"] == "compared");
    let text = fs::read_to_string(site.at("app/real.yaml")).expect("a policy");
    site.write("app/real.yaml", &format!("{text}# more\n"));
    let event = site.told(&egret, "modified", "app/real.yaml");
    assert_eq!((&event["severity"], &event["tags"]), (&json!("critical"), &json!(["own"])));
    eventually("not ready", || (egret.get_admin("/readyz").0 == 503).then_some(()));
}

#[test]
fn a_journal_in_a_watched_path_does_not_feed_itself() {
    let site = Site::new();
    site.write("app/journal", "");
    let journal = site.at("app/journal");
    let policy = site.policy("  watch: [{ path: @app, action: unhealthy }]\n");
    let egret = Egret::with_policy(&policy).arg("--journal").arg(&journal).arg("--drain").arg("0").spawn();
    let lines = || fs::read_to_string(&journal).expect("a journal");
    eventually("it is compared", || lines().contains("\"compared\"").then_some(()));
    site.write("app/f", "");
    eventually("a change is told", || lines().contains("app/f").then_some(()));
    let has = |path: &Path| lines().contains(&format!("\"path\":\"{}\",\"type\"", path.display()));
    assert!(has(&site.at("app/f")) && !has(&journal), "{}", lines());
    egret.stop();
    assert!(!has(&journal), "{}", lines());
}

/// A policy whose first comparison takes a minute: only reading tells whether a large file is what its manifest says.
fn slow(site: &Site) -> String {
    const SIZE: u64 = 1 << 30;
    File::create(site.at("app/large")).and_then(|file| file.set_len(SIZE)).expect("a large file");
    let (app, hash) = (site.at("app"), "00".repeat(32));
    let large = format!("{0}/large file 0644 0:0 {SIZE} 0.000000000 sha256:{hash}", app.display());
    let manifest = format!("egret-manifest 1\n{} directory 0755 0:0 0 0.000000000 -\n{large}\nend 2\n", app.display());
    site.write("m", &manifest);
    site.policy("  baseline: @m\n  hashing: 1\n  watch: [{ path: @app }]\n")
}

#[test]
fn a_reload_before_the_first_comparison_is_done_waits_for_what_it_asks_for_only() {
    let site = Site::new();
    let egret = Egret::with_policy(&slow(&site)).arg("--drain").arg("0").spawn();
    egret.started();
    let (status, why) = egret.get_admin("/readyz");
    assert!(status == 503 && why.contains("compared"), "{why}");
    egret.rewrite_policy(&site.policy("  watch: [{ path: @tmp }]\n"));
    egret.event("coverage", |event| event["state"] == "compared" && event["complete"] == true);
    let cut = egret.events("coverage").into_iter().find(|event| event["state"] == "compared").expect("an end of the first");
    assert_eq!(cut["complete"], false, "nobody waits for what nobody asks for any more");
    eventually("ready", || (egret.get_admin("/readyz").0 == 200).then_some(()));
    site.write("tmp/f", "");
    site.told(&egret, "created", "tmp/f");
}

#[test]
fn a_first_comparison_that_a_reload_cuts_lets_nothing_start() {
    const TERM: i32 = 15;
    // The app could write the policy, so that it is read when somebody says so.
    const HANGUP: i32 = 1;
    let site = Site::new();
    let policy = slow(&site);
    let mark = site.at("mark").display().to_string();
    let egret = Egret::with_policy(&policy).arg("--drain").arg("0").arg("--").arg("touch").arg(&mark).spawn();
    egret.started();
    egret.rewrite_policy(&policy.replace("20ms", "30ms"));
    egret.signal(HANGUP);
    egret.event("policy", |event| event["result"] == "loaded");
    egret.signal(TERM);
    egret.wait_exit();
    assert!(!site.at("mark").exists());
}

#[test]
fn a_reload_without_files_before_the_first_comparison_is_done_leaves_nothing_to_wait_for() {
    let site = Site::new();
    let egret = Egret::with_policy(&slow(&site)).arg("--drain").arg("0").spawn();
    egret.started();
    assert_eq!(egret.get_admin("/readyz").0, 503);
    egret.rewrite_policy("version: 1\n");
    let event = egret.event("coverage", |event| event["state"] == "ended");
    assert_eq!(event["complete"], false);
    eventually("ready", || (egret.get_admin("/readyz").0 == 200).then_some(()));
}

#[test]
fn a_signal_ends_it_before_the_first_comparison_is_done_and_nothing_is_started() {
    const TERM: i32 = 15;
    let site = Site::new();
    let policy = slow(&site);
    let mark = site.at("mark").display().to_string();
    let egret = Egret::with_policy(&policy).arg("--").arg("touch").arg(&mark).spawn();
    egret.started();
    egret.signal(TERM);
    assert_eq!(egret.wait_exit().code(), Some(0));
    assert!(!site.at("mark").exists());
    assert_eq!(egret.event("coverage", |event| event["state"] == "ended")["complete"], false);
}

#[test]
fn large_files_that_nobody_vouched_for_do_not_keep_it_from_being_ready() {
    let site = Site::new();
    File::create(site.at("app/large")).and_then(|file| file.set_len(1 << 30)).expect("a large file");
    let egret = site.watched("  hashing: 1\n  watch: [{ path: @app }]\n");
    assert_eq!(egret.get_admin("/readyz").0, 200);
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!(status["files"]["state"], "watching");
    assert!(status["files"]["unread"].as_u64().is_some_and(|unread| unread > 0), "{status}");
    site.write("app/small", "x");
    site.told(&egret, "created", "app/small");
}
