//! What was seen of a confined app becomes a policy under which the same app works, and another does not.

use serde_json::Value;

use super::{Scene, app, python_words, start};
use crate::support::journal::{learnt, replay};
use crate::support::{Outside, run_egret};

/// Uses names in TLS, in the clear, and on a port of neither.
const APP: &str = r#"
print(get("https://good.test/")); print(get("http://other.test/"))
s = connected("db.test", 5432); s.sendall(b"\0hello"); print(len(s.recv(6, socket.MSG_WAITALL))); s.close()
"#;

fn journal_of(scene: &Scene) -> String {
    scene.ended_well();
    scene.egret.stdout_lines().iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_policy_is_learnt_from_a_confined_app() {
    let Some(seen) = start("mode: audit\n", APP) else { return };
    let journal = journal_of(&seen);
    let policy = learnt(&journal, &["--include", "unverified"]);
    for line in ["good.test", "other.test:80", "db.test:5432"] {
        assert!(policy.contains(line), "{line} in {policy}");
    }
    let output = replay(&policy, &journal, &["--mode", "enforce"]);
    assert_eq!(output.code, 0, "{output:#?}");

    let Some(outside) = Outside::new() else { return };
    let body = policy.replacen("version: 1\n", "", 1);
    let script = format!("{APP}print(get('http://evil.test/'))");
    let egret = app(&outside, outside.egret(&body).arg("--mode").arg("enforce"), &python_words(&script)).start();
    let held = Scene { outside, egret };
    held.ended_well().said("hello from 44.0.0.7:443 as good.test").said("hello from 44.0.0.7:80 as other.test").said("6");
    let records = held.egret.wait_records(3);
    assert!(records.iter().all(|record| record["decision"] == "allow"), "{records:#?}");
    held.outside.only(&["44.0.0.7:443", "44.0.0.7:80", "44.0.0.8:5432"], &["good.test", "other.test", "db.test"]);
}

/// A report of a journal counts what was refused by name, although it never became a connection.
#[test]
fn a_report_tells_of_refused_names() {
    let script = "print(addresses('evil.test'), outcome(connected, EVIL, 25))";
    let Some(scene) = start("egress: {}\n", script) else { return };
    let journal = journal_of(&scene);
    let output = run_egret(["report", "-", "--output", "json"], &journal);
    assert_eq!(output.code, 0, "{output:#?}");
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    for seen in ["evil.test", "45.0.0.66"] {
        assert!(report.to_string().contains(seen), "{seen}: {report:#}");
    }
}
