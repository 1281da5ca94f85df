//! The file watch against a manifest: what changed while nobody watched, who is believed, what was approved, and what is
//! not started when files are not what they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::egret::EgretBuilder;
use crate::support::programs::Output;
use crate::support::{Egret, Program, eventually, run_egret};

/// A tree, and beside it keys and manifests.
struct Site {
    folder: TempDir,
}

impl Site {
    /// Two files, and a key that has no password.
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(site.at("app")).expect("a directory");
        fs::write(site.at("app/one"), "one").and_then(|()| fs::write(site.at("app/two"), "two")).expect("files");
        site.key("release");
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    fn key(&self, name: &str) {
        let (public, secret) = (self.text(&format!("{name}.pub")), self.text(&format!("{name}.key")));
        let made = Program::new("minisign").args(["-G", "-W", "-p", &public, "-s", &secret]).run();
        assert_eq!(made.code, 0, "{made:?}");
    }

    fn baseline(&self, name: &str) -> Output {
        let made =
            run_egret(["files", "baseline", &self.text("app"), "-o", &self.text(name), "--sign", &self.text("release.key")], "");
        assert_eq!(made.code, 0, "{made:?}");
        made
    }

    /// A policy for the tree with these keys of `files:` and of the watched path.
    fn policy(&self, files: &str, keys: &str) -> String {
        let files = files.replace('@', &format!("{}/", self.folder.path().display()));
        format!("version: 1\nfiles:\n  settle: 20ms\n{files}  watch: [{{ path: {}, {keys} }}]\n", self.text("app"))
    }

    fn signed(&self) -> String {
        self.policy("  baseline: @m\n  key: @release.pub\n", "")
    }
}

fn without_drain(builder: EgretBuilder) -> EgretBuilder {
    builder.arg("--drain").arg("0")
}

fn compared(egret: &Egret) -> Value {
    egret.event("coverage", |event| event["state"] == "compared" && event["source"] == "start")
}

/// Change, name, and who says what it should be, of all events of the tree.
fn told(egret: &Egret, site: &Site) -> Vec<(String, String, String)> {
    let word = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let app = format!("{}/", site.text("app"));
    let inside = |event: Value| {
        let name = word(&event, "path").strip_prefix(&app)?.to_owned();
        Some((word(&event, "change"), name, word(&event, "baseline")))
    };
    egret.events("file").into_iter().filter_map(inside).collect()
}

#[test]
fn g01_what_changed_while_nobody_watched_is_told_at_the_start() {
    let site = Site::new();
    site.baseline("m");
    let times = fs::metadata(site.at("app/one")).and_then(|file| file.modified()).expect("a time");
    fs::write(site.at("app/one"), "ONE").expect("a change");
    fs::File::options()
        .write(true)
        .open(site.at("app/one"))
        .and_then(|file| file.set_modified(times))
        .expect("the time of before");
    fs::remove_file(site.at("app/two")).and_then(|()| fs::write(site.at("app/three"), "")).expect("changes");
    let egret = without_drain(Egret::with_policy(&site.signed())).spawn();
    assert_eq!(compared(&egret)["found"], 3);
    assert!(egret.events("file").iter().all(|event| event["source"] == "start"));
    let expected = [("modified", "one"), ("created", "three"), ("deleted", "two")];
    assert_eq!(told(&egret, &site), expected.map(|(change, name)| (change.into(), name.into(), "signed".into())));
    fs::write(site.at("app/four"), "").expect("a file");
    egret.event("file", |event| event["source"] == "event" && event["baseline"] == "signed");
}

#[test]
fn g02_an_unchanged_image_is_silent() {
    let site = Site::new();
    site.baseline("m");
    // As it is in a fresh container: other inodes, of another age.
    fs::rename(site.at("app"), site.at("before")).expect("another name");
    fs::create_dir(site.at("app")).expect("a directory");
    for entry in fs::read_dir(site.at("before")).expect("a directory") {
        let from = entry.expect("an entry").path();
        fs::copy(&from, site.at("app").join(from.file_name().expect("a name"))).expect("a copy");
    }
    // What a layer of an image does to times.
    let file = fs::File::options().write(true).open(site.at("app/one")).expect("a file");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("another time");
    let egret = without_drain(Egret::with_policy(&site.signed())).spawn();
    assert_eq!(compared(&egret)["found"], 0);
    assert!(egret.events("file").is_empty());
}

#[test]
fn a_path_that_the_manifest_does_not_name_is_learned_and_said_to_be() {
    let site = Site::new();
    site.baseline("m");
    fs::create_dir(site.at("more")).expect("a directory");
    let policy = site.signed().replace("watch: [", &format!("watch: [{{ path: {} }}, ", site.text("more")));
    let egret = without_drain(Egret::with_policy(&policy)).spawn();
    compared(&egret);
    let learned = egret.event("coverage", |event| event["state"] == "learned");
    assert_eq!(learned["path"], json!(site.text("more")));
    fs::write(site.at("more/f"), "").expect("a file");
    assert_eq!(egret.event("file", |event| event["path"] == json!(site.text("more/f")))["baseline"], "learned");
    assert_eq!(
        egret.events("coverage").iter().filter(|event| event["state"] == "learned").count(),
        1,
        "not of what is egret's own"
    );
}

#[test]
fn f04_a_baseline_that_is_not_what_was_signed_ends_the_start() {
    let site = Site::new();
    site.baseline("m");
    site.key("other");
    let manifest = fs::read_to_string(site.at("m")).expect("a manifest");
    type Break = fn(&Site, &str);
    let breaks: [(&str, Break); 4] = [
        ("the signature is not of this text", |site, text| {
            fs::write(site.at("m"), text.replace("two", "twx")).expect("a forgery")
        }),
        ("another key", |site, _| fs::copy(site.at("other.pub"), site.at("release.pub")).map(drop).expect("another key")),
        ("is not signed", |site, _| fs::remove_file(site.at("m.minisig")).expect("no signature")),
        ("cannot read", |site, _| fs::remove_file(site.at("m")).expect("no manifest")),
    ];
    let key = fs::read(site.at("release.pub")).expect("a key");
    for (why, act) in breaks {
        fs::write(site.at("m"), &manifest).and_then(|()| fs::write(site.at("release.pub"), &key)).expect("all as it was");
        act(&site, &manifest);
        let egret = without_drain(Egret::with_policy(&site.signed())).spawn();
        assert_eq!(egret.wait_exit().code(), Some(2), "{why}");
        assert!(egret.stderr().contains(why), "no {why:?} in {}", egret.stderr());
        let event = egret.event("coverage", |event| event["section"] == "files");
        assert_eq!(event["served"], false, "it is told in the journal too: {event}");
    }
}

#[test]
fn a_reload_with_a_refused_baseline_leaves_all_as_it_was() {
    let site = Site::new();
    site.baseline("m");
    let egret = without_drain(Egret::with_policy(&site.signed())).spawn();
    compared(&egret);
    egret.rewrite_policy(&site.policy("  baseline: @none\n  key: @release.pub\n", ""));
    assert_eq!(egret.event("policy", |_| true)["result"], "rejected");
    fs::write(site.at("app/one"), "ONE").expect("a change");
    egret.event("file", |event| event["change"] == "modified" && event["path"] == json!(site.text("app/one")));
    assert_eq!(told(&egret, &site).len(), 1);
}

#[test]
fn g10_approved_changes_are_expected_and_others_are_not() {
    let site = Site::new();
    site.baseline("m");
    let egret = without_drain(Egret::with_policy(
        &site.policy("  baseline: @m\n  key: @release.pub\n  expected: @e\n", "action: unhealthy"),
    ));
    let egret = egret.spawn();
    compared(&egret);
    // The next release, in another place.
    let next = Site::new();
    fs::write(next.at("app/one"), "ONE").and_then(|()| fs::remove_file(next.at("app/two"))).expect("another release");
    next.baseline("m");
    let moved = fs::read_to_string(next.at("m")).expect("a manifest").replace(&next.text("app"), &site.text("app"));
    fs::write(site.at("n"), moved).expect("its manifest, for here");
    let words =
        ["files", "expect", &site.text("m"), &site.text("n"), "--until", "2099-01-01", "--sign", &site.text("release.key")];
    let made = run_egret(words.into_iter().chain(["-o", &site.text("e")]), "");
    assert_eq!(made.code, 0, "{made:?}");
    egret.event("coverage", |event| event["state"] == "approved" && event["entries"] == 2);
    fs::write(site.at("app/one"), "ONE").and_then(|()| fs::remove_file(site.at("app/two"))).expect("the release");
    for name in ["one", "two"] {
        let event = egret.event("file", |event| event["path"] == json!(site.text(&format!("app/{name}"))));
        assert_eq!((&event["expected"], &event["severity"]), (&json!(true), &json!("low")), "{event}");
    }
    assert_eq!(egret.get_admin("/readyz").0, 200);
    fs::write(site.at("e"), "egret-expected 1\n").expect("a forgery");
    egret.event("coverage", |event| event["state"] == "approval_refused");
    fs::write(site.at("app/one"), "one").expect("a change back");
    let event = egret.event("file", |event| event["path"] == json!(site.text("app/one")) && event["expected"] == false);
    assert_eq!(event["severity"], "medium");
    eventually("not ready", || (egret.get_admin("/readyz").0 == 503).then_some(()));
}

/// A command that leaves a mark when it is started, and when it is asked to end.
fn command(site: &Site) -> [String; 3] {
    let script = format!(
        "echo begun > {0}/mark; trap 'echo asked > {0}/mark; exit 0' TERM; while :; do sleep 0.05; done",
        site.folder.path().display()
    );
    ["sh".into(), "-c".into(), script]
}

fn mark(site: &Site) -> Option<String> {
    fs::read_to_string(site.at("mark")).ok().map(|mark| mark.trim().to_owned())
}

fn with_command(site: &Site, policy: &str) -> Egret {
    command(site).iter().fold(Egret::with_policy(policy).arg("--"), EgretBuilder::arg).spawn()
}

#[test]
fn stop_ends_the_command_that_egret_started() {
    let site = Site::new();
    site.baseline("m");
    let egret = with_command(&site, &site.policy("  baseline: @m\n  key: @release.pub\n", "action: stop"));
    eventually("the command runs", || (mark(&site).as_deref() == Some("begun")).then_some(()));
    fs::set_permissions(site.at("app/one"), fs::Permissions::from_mode(0o4755)).expect("a change");
    assert_eq!(egret.wait_exit().code(), Some(1));
    assert_eq!(mark(&site).as_deref(), Some("asked"));
    let event = egret.event("lifecycle", |event| event["phase"] == "child_terminating");
    assert!(event["why"].as_str().is_some_and(|why| why.contains("app/one")), "{event}");
}

#[test]
fn nothing_is_started_on_files_that_are_not_what_they_should_be() {
    let site = Site::new();
    site.baseline("m");
    fs::write(site.at("app/one"), "ONE").expect("a change");
    let egret = with_command(&site, &site.policy("  baseline: @m\n  key: @release.pub\n", "action: stop"));
    assert_eq!(egret.wait_exit().code(), Some(1));
    assert!(egret.stderr().contains("nothing is started"), "{}", egret.stderr());
    assert_eq!(mark(&site), None);
}

#[test]
fn verify_takes_from_the_policy_what_a_running_egret_would() {
    let site = Site::new();
    site.baseline("m");
    fs::write(site.at("policy.yaml"), site.signed()).expect("a policy");
    let verify = || run_egret(["files", "verify", "--policy", &site.text("policy.yaml")], "");
    assert_eq!(verify().code, 0);
    fs::write(site.at("app/one"), "ONE").expect("a change");
    let found = verify();
    assert!(found.code == 1 && found.stdout.contains("signed"), "{found:?}");
    fs::remove_file(site.at("m.minisig")).expect("no signature");
    assert_eq!(verify().code, 2, "the policy asks for a signature");
}
