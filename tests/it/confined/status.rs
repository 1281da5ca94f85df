//! How far the app is held is said alike on stderr, in the journal, in /status and by `egret doctor`; what cannot be held is
//! not started where that is required.

use std::path::PathBuf;

use serde_json::Value;

use super::{POLICY, app, app_of, python_words};
use crate::support::programs::require;
use crate::support::{Egret, Outside, eventually};

const EGRET: &str = env!("CARGO_BIN_EXE_egret");
const UNPRIVILEGED: [&str; 3] = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];

/// What puts the command that follows under a profile in which nothing can be confined.
fn profile(outside: &Outside) -> Vec<String> {
    UNPRIVILEGED.map(str::to_owned).into_iter().chain(outside.profile("listener")).collect()
}

fn under_the_profile(outside: &Outside, confine: &str) -> crate::support::egret::EgretBuilder {
    let words = profile(outside);
    outside.egret_with(&words.iter().map(String::as_str).collect::<Vec<_>>(), POLICY).arg("--confine").arg(confine)
}

/// What `egret doctor` says by these arguments of setpriv(1), and its exit code.
fn doctor(outside: &Outside, privileges: &[String], output: &str) -> (i32, String) {
    let output = outside.program("setpriv").args(privileges).args([EGRET, "doctor", "--output", output]).run();
    (output.code, output.stdout)
}

fn status(egret: &Egret) -> Value {
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    status["confinement"].clone()
}

/// Of an event, what it tells.
fn told(mut event: Value) -> Value {
    for field in ["v", "time", "event"] {
        event.as_object_mut().expect("an object").remove(field);
    }
    event
}

#[test]
fn what_is_held_is_said_alike_everywhere() {
    let Some(outside) = Outside::new() else { return };
    let egret = app(&outside, outside.egret(POLICY), &python_words("print('ready'); wait()")).start();
    eventually("the app is ready", || egret.stderr().contains("ready").then_some(()));
    let event = told(egret.event("confinement", |_| true));
    assert_eq!((&event["confine"], event["layers"].as_array().map(Vec::len)), (&"require".into(), Some(8)), "{event:#}");
    assert_eq!(status(&egret), event);
    assert!(!egret.stderr().contains("confinement") || event["state"] == "partial", "{}", egret.stderr());

    let (code, json) = doctor(&outside, &UNPRIVILEGED.map(str::to_owned), "json");
    let found: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &found["confinement"]["state"]), (0, &event["state"]), "{json}");
    assert_eq!(found["confinement"]["layers"], event["layers"]);
    let (_, text) = doctor(&outside, &UNPRIVILEGED.map(str::to_owned), "text");
    for layer in event["layers"].as_array().expect("a list") {
        let rest = text.lines().find_map(|line| line.trim_start().strip_prefix(layer["name"].as_str()?));
        assert!(rest.is_some_and(|rest| rest.contains(layer["why"].as_str().expect("text"))), "{layer} in {text}");
    }
}

#[test]
fn what_is_required_and_cannot_be_held_is_not_started() {
    let Some(outside) = Outside::new() else { return };
    let mark = outside.home().join("started");
    let words = [require("touch"), mark.clone()];
    let egret = app_of(&outside, under_the_profile(&outside, "require"), &words).spawn();
    assert_eq!(egret.wait_exit().code(), Some(3), "{}", egret.stderr());
    let said = egret.stderr();
    assert!(said.contains("confinement is none") && said.contains("nothing is started"), "{said}");
    assert!(said.lines().any(|line| line.trim_start().starts_with("connections ") && line.contains("none")), "{said}");
    let event = told(egret.event("confinement", |_| true));
    assert_eq!((event["confine"].as_str(), event["state"].as_str()), (Some("require"), Some("none")), "{event:#}");
    assert_eq!(said.matches("confinement is none").count(), 1, "{said}");
    assert!(!mark.exists(), "it was started");
    assert_eq!(egret.events("lifecycle").iter().filter(|event| event["phase"] == "child_started").count(), 0);
}

#[test]
fn auto_goes_on_and_says_so() {
    let Some(outside) = Outside::new() else { return };
    let script = "print(outcome(connected, EVIL, 5432)); print('ready'); wait()";
    let egret = app_of(&outside, under_the_profile(&outside, "auto"), &python_words(script)).start();
    eventually("the app is ready", || egret.stderr().contains("\nok\nready").then_some(()));
    let event = told(egret.event("confinement", |_| true));
    assert_eq!((event["confine"].as_str(), event["state"].as_str()), (Some("auto"), Some("none")), "{event:#}");
    assert!(event["why"].as_str().is_some_and(|why| !why.is_empty()), "{event:#}");
    assert_eq!(status(&egret), event);
    assert!(egret.stderr().contains("confinement is none"), "{}", egret.stderr());
    assert_eq!(outside.left(), ["connect 45.0.0.66:5432"], "it is not held");
    let (code, json) = doctor(&outside, &profile(&outside), "json");
    let found: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &found["confinement"]), (1, &event), "{json}");
}

#[test]
fn off_is_said_too() {
    let Some(outside) = Outside::new() else { return };
    let egret = app_of(&outside, outside.egret(POLICY).env("EGRET_CONFINE", "off"), &[PathBuf::from("true")]).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let event = told(egret.event("confinement", |_| true));
    assert_eq!((event["confine"].as_str(), event["state"].as_str()), (Some("off"), Some("none")), "{event:#}");
    assert_eq!(event["layers"].as_array().map(Vec::len), Some(0));
    assert!(egret.stderr().contains("confinement is off"), "{}", egret.stderr());
}
