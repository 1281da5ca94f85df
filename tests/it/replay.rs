//! What a policy would have done to what was seen: `check --replay` judges every connection and request of a journal by
//! the policy as if it enforced, and says which of those that got through would not, and the other way round.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::egret::egret_program;
use crate::support::journal::{Line, http, journal, opaque, replay, tls, write};
use crate::support::run_egret;

/// A policy with these allow rules.
fn allowing(rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("    - {rule}\n")).collect();
    format!("version: 1\negress:\n  allow:\n{rules}")
}

/// The `replay` of the JSON form, and the exit code.
fn replayed(policy: &str, lines: &[Line]) -> (i32, Value) {
    let output = replay(policy, &journal(lines), &["--output", "json"]);
    let told: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {output:#?}"));
    assert_eq!(told["valid"], true, "{told:#}");
    (output.code, told["replay"].clone())
}

/// Destinations of one list, as `host:port reason` or `host:port rule`.
fn listed(replay: &Value, list: &str) -> Vec<String> {
    let items = replay[list].as_array().unwrap_or_else(|| panic!("no {list}: {replay:#}"));
    let text = |item: &Value| {
        let why = item["reason"].as_str().or(item["rule"].as_str()).unwrap_or("-");
        format!("{}:{} {why}", item["host"].as_str().unwrap_or("-"), item["port"])
    };
    let mut all: Vec<String> = items.iter().map(text).collect();
    all.sort();
    all
}

/// One event is judged so: nothing to say, or in one of the lists, or still denied.
fn assert_judged(case: &str, policy: &str, line: Line, expected: (&str, &[&str])) {
    let (code, told) = replayed(policy, &[line]);
    assert_eq!(code, i32::from(expected.0 == "would_deny"), "{case}: {told:#}");
    assert_eq!(told["still_denied"], u64::from(expected.0 == "still_denied"), "{case}: {told:#}");
    for list in ["would_deny", "newly_allowed", "by_audit_rules"] {
        let wanted = if list == expected.0 { expected.1 } else { &[] };
        assert_eq!(listed(&told, list), wanted, "{case}: {told:#}");
    }
}

#[test]
fn the_text_tells_what_would_change_and_what_to_add() {
    let home = TempDir::new().expect("a temporary directory");
    let policy = write(home.path(), "policy.yaml", allowing(&["a.test", "{ id: of-c, to: c.test }"])).display().to_string();
    let mut lines = vec![tls("a.test", 443).allowed(); 2];
    lines.extend(vec![tls("b.test", 443); 7]);
    lines.extend(vec![tls("c.test", 443).denied("no_rule"); 2]);
    lines.extend(vec![tls("d.test", 443).denied("no_rule"); 3]);
    let output = run_egret(["check", &policy, "--replay", "-"], &journal(&lines));
    assert_eq!(output.code, 1, "{output:#?}");
    let told: Vec<&str> = output.stdout.lines().collect();
    let expected = [
        "replay: 14 events, 4 destinations",
        "would deny 1 destination, 7 events:",
        "- b.test:443  7  no_rule: add `- b.test` under egress.allow",
        "newly allows 1 destination, 2 events:",
        "+ c.test:443  2  rule of-c",
        "still denied: 3 events",
        &format!("{policy}: not ok (2 rules, 0 tests, mode enforce"),
    ];
    assert_eq!(told.len(), expected.len(), "{}", output.stdout);
    assert_eq!(told[..6], expected[..6], "{}", output.stdout);
    assert!(told[6].starts_with(expected[6]), "{}", output.stdout);
}

#[test]
fn what_changes_nothing_takes_one_line() {
    let lines = [tls("a.test", 443).allowed(), tls("b.test", 443)];
    let output = replay(&allowing(&["a.test", "b.test"]), &journal(&lines), &[]);
    assert_eq!(output.code, 0, "{output:#?}");
    let told: Vec<&str> = output.stdout.lines().collect();
    assert_eq!((told.len(), told[0]), (2, "replay: 2 events, 2 destinations"), "{}", output.stdout);
    assert!(told[1].starts_with("EGRET_POLICY: ok (2 rules"), "{}", output.stdout);
}

#[test]
fn json_tells_the_same_and_is_absent_where_nothing_is_replayed() {
    let lines = [
        tls("a.test", 443),
        tls("b.test", 443).by("ghost"),
        tls("b.test", 443).by("ghost"),
        tls("c.test", 443).denied("no_rule"),
        tls("d.test", 443).denied("no_rule"),
    ];
    let policy = allowing(&["a.test", "{ id: of-c, to: c.test }"]);
    let text = journal(&lines) + "hello\n{\"v\":2,\"event\":\"connection\"}\n{\"v\":1,\"event\":\"gap\",\"lost\":7}\n";
    let output = replay(&policy, &text, &["--output", "json"]);
    assert_eq!(output.code, 1, "{output:#?}");
    let told: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(
        (&told["v"], &told["valid"], &told["rules"], &told["mode"]),
        (&json!(1), &json!(true), &json!(2), &json!("enforce"))
    );
    let replay = &told["replay"];
    for (field, value) in
        [("events", 5), ("destinations", 4), ("still_denied", 1), ("skipped_lines", 1), ("newer_lines", 1), ("lost_events", 7)]
    {
        assert_eq!(replay[field], value, "{field}: {replay:#}");
    }
    let help = "add `- b.test` under egress.allow";
    let would_deny = json!([{ "host": "b.test", "port": 443, "role": "ghost", "reason": "no_rule", "help": help, "events": 2 }]);
    assert_eq!(replay["would_deny"], would_deny);
    let newly_allowed = json!([{ "host": "c.test", "port": 443, "role": "default", "rule": "of-c", "events": 1 }]);
    assert_eq!((&replay["newly_allowed"], &replay["by_audit_rules"]), (&newly_allowed, &json!([])));

    let without = egret_program().env("EGRET_POLICY", &policy).args(["check", "--output", "json"]).run();
    let without: Value = serde_json::from_str(&without.stdout).expect("JSON");
    assert!(without.get("replay").is_none(), "{without:#}");
}

#[test]
fn only_what_was_let_through_can_be_lost_and_only_what_was_denied_can_be_won() {
    let policy = allowing(&["{ id: of-a, to: a.test }"]);
    for (case, line, expected) in [
        ("allowed and admitted", tls("a.test", 443).allowed(), ("", &[][..])),
        ("would be denied in audit, and admitted", tls("a.test", 443), ("", &[])),
        ("denied, and admitted", tls("a.test", 443).denied("no_rule"), ("newly_allowed", &["a.test:443 of-a"])),
        ("allowed, and not admitted", tls("b.test", 443).allowed(), ("would_deny", &["b.test:443 no_rule"])),
        ("audited, and not admitted", tls("b.test", 443), ("would_deny", &["b.test:443 no_rule"])),
        ("never connected, and not admitted", tls("b.test", 443).failed(), ("would_deny", &["b.test:443 no_rule"])),
        ("denied, and not admitted", tls("b.test", 443).denied("no_rule"), ("still_denied", &[])),
        ("another port", tls("a.test", 8443), ("would_deny", &["a.test:8443 port_not_listed"])),
        ("a request in the clear", http("b.test", 80), ("would_deny", &["b.test:80 no_rule"])),
        ("a denied request in the clear", http("b.test", 80).denied("no_rule"), ("still_denied", &[])),
        ("an address", opaque("93.184.216.34", 443), ("would_deny", &["93.184.216.34:443 address_not_listed"])),
    ] {
        assert_judged(case, &policy, line, expected);
    }
}

#[test]
fn what_audit_never_relaxes_stays_denied() {
    let policy = allowing(&["a.test", "{ to: b.test, within: [10.20.0.0/16] }"]);
    let lied = tls("a.test", 443).denied("sni_mismatch").with("sni", "evil.test").with("stage", "confirm");
    for (case, line) in [
        ("another server name", lied),
        ("two server names", tls("a.test", 443).denied("sni_ambiguous").with("stage", "confirm")),
        ("no DNS name", tls("a.test", 443).denied("sni_invalid").with("stage", "confirm")),
        ("another Host inside a tunnel", http("a.test", 443).denied("host_mismatch")),
        ("egret itself", tls("127.0.0.1", 3129).denied("own_listener")),
        ("a private answer", tls("a.test", 443).denied_at("private")),
    ] {
        assert_judged(case, &policy, line, ("still_denied", &[]));
    }
}

#[test]
fn answers_are_judged_where_they_lay() {
    let private = tls("db.test", 443).at("10.20.0.7:443", "private");
    let open = allowing(&["{ to: db.test, within: [10.20.0.0/16] }"]);
    let elsewhere = allowing(&["{ to: db.test, within: [10.30.0.0/16] }"]);
    let closed = allowing(&["db.test"]);
    let answers = closed.clone() + "dns: { private-answers: allow }\n";
    let net = allowing(&["db.test", "{ to: 10.20.0.0/16, as: tcp }"]);
    let denied = allowing(&["{ to: db.test, within: [10.20.0.0/16] }"]) + "  deny:\n    - 10.20.0.0/24\n";
    for (case, policy, reason) in [
        ("within", &open, None),
        ("private answers", &answers, None),
        ("an address rule", &net, None),
        ("without leave", &closed, Some("db.test:443 address_class")),
        ("outside", &elsewhere, Some("db.test:443 address_outside_within")),
        ("a denied network", &denied, Some("db.test:443 deny_rule")),
    ] {
        let expected = reason.as_ref().map_or(("", &[][..]), |reason| ("would_deny", std::slice::from_ref(reason)));
        assert_judged(case, policy, private.clone(), expected);
    }
}

#[test]
fn deny_rules_and_expired_rules_would_deny() {
    let policy = allowing(&["\"*.a.test\"", "{ to: old.test, expires: 2020-01-01 }", "{ to: new.test, expires: 2999-01-01 }"]);
    let policy = policy + "  deny:\n    - bad.a.test\n";
    assert_judged("a deny rule", &policy, tls("bad.a.test", 443), ("would_deny", &["bad.a.test:443 deny_rule"]));
    assert_judged("an expired rule", &policy, tls("old.test", 443).allowed(), ("would_deny", &["old.test:443 rule_expired"]));
    assert_judged("a rule that lives", &policy, tls("new.test", 443).allowed(), ("", &[]));
}

#[test]
fn roles_are_those_of_the_journal() {
    let roles = "roles: { worker: { proxy-user: w }, web: { port: 3130 } }\n";
    let policy = allowing(&["{ to: jobs.test, for: [worker] }"]) + roles;
    let refused = ("would_deny", &["jobs.test:443 role_not_listed"][..]);
    assert_judged("its role", &policy, tls("jobs.test", 443).by("worker"), ("", &[]));
    assert_judged("another role", &policy, tls("jobs.test", 443).by("web"), refused);
    assert_judged("the default role", &policy, tls("jobs.test", 443), refused);
    assert_judged("a role that is no more", &policy, tls("jobs.test", 443).by("ghost"), refused);
    let lines = [tls("jobs.test", 443).by("web"), tls("jobs.test", 443).by("web"), tls("jobs.test", 443)];
    let output = replay(&policy, &journal(&lines), &[]);
    let rows: Vec<Vec<&str>> =
        output.stdout.lines().filter(|l| l.starts_with("- ")).map(|l| l.split_whitespace().collect()).collect();
    assert!(rows.iter().any(|row| row[1..5] == ["jobs.test:443", "as", "web", "2"]), "{}", output.stdout);
    assert!(rows.iter().any(|row| row[1..3] == ["jobs.test:443", "1"]), "no ` as default`: {}", output.stdout);
}

#[test]
fn a_policy_in_audit_is_judged_as_if_it_enforced() {
    let audit = "mode: audit\n".to_owned() + &allowing(&["a.test"]);
    assert_judged("by its own mode", &audit, tls("b.test", 443), ("would_deny", &["b.test:443 no_rule"]));
    let section = "version: 1\negress:\n  mode: audit\n  allow: [a.test]\n";
    assert_judged("by its section's mode", section, tls("b.test", 443), ("would_deny", &["b.test:443 no_rule"]));
    let output = replay(&allowing(&["a.test"]), &journal(&[tls("b.test", 443)]), &["--mode", "audit"]);
    assert!(output.code == 1 && output.stdout.contains("mode audit"), "by --mode: {output:#?}");
}

#[test]
fn rules_in_audit_are_told_apart() {
    let policy = allowing(&["a.test", "{ id: trial, to: b.test, mode: audit }"]);
    assert_judged("a rule in audit", &policy, tls("b.test", 443), ("by_audit_rules", &["b.test:443 trial"]));
    let lines = [tls("a.test", 443), tls("b.test", 443), tls("b.test", 443)];
    let output = replay(&policy, &journal(&lines), &[]);
    assert_eq!(output.code, 0, "it is let through: {output:#?}");
    assert!(output.stdout.contains("\nlet through by rules in audit: 1 destination, 2 events"), "{}", output.stdout);
    let row = output.stdout.lines().find(|line| line.starts_with('~')).unwrap_or_else(|| panic!("no ~: {}", output.stdout));
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["~", "b.test:443", "2"]);
}

#[test]
fn several_journals_and_stdin_are_one_and_broken_lines_never_decide() {
    let home = TempDir::new().expect("a temporary directory");
    let policy = write(home.path(), "policy.yaml", allowing(&["a.test"])).display().to_string();
    let broken = "hello\n{\"event\":\"conn\n[]\n7\n";
    let one = write(home.path(), "one", journal(&[tls("a.test", 443)]) + broken).display().to_string();
    let two = write(home.path(), "two", journal(&[tls("a.test", 443), tls("a.test", 443).with("v", 3)])).display().to_string();
    let args = ["check", &policy, "--replay", &one, "--replay", "-", "--replay", &two];
    let output = run_egret(args, &journal(&[tls("a.test", 443)]));
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(output.stdout.starts_with("replay: 3 events, "), "{}", output.stdout);
    for line in [2, 3, 4] {
        assert!(output.stderr.contains(&format!("egret: {one}:{line}: no event of egret's")), "{line}: {}", output.stderr);
    }
    assert!(!output.stderr.contains(&format!("{one}:5:")), "three are named: {}", output.stderr);
    assert!(output.stderr.contains(&format!("egret: {two}:2: written by a newer egret (v3)")), "{}", output.stderr);
    let denied = run_egret(args, &journal(&[tls("b.test", 443)]));
    assert_eq!(denied.code, 1, "{denied:#?}");
}

#[test]
fn a_journal_without_events_proves_nothing() {
    for journal in ["", "not of egret\n"] {
        let output = replay(&allowing(&["a.test"]), journal, &[]);
        assert!(output.code == 1 && output.stdout.contains("nothing to judge"), "{output:#?}");
    }
}

#[test]
fn a_policy_taken_for_a_journal_and_a_form_without_place_are_wrong_usage() {
    let swallowed = run_egret(["check", "--replay", "-", "policy.yaml"], "");
    assert!(swallowed.code == 2 && swallowed.stderr.contains("write the policy first"), "{swallowed:#?}");
    let sarif = replay(&allowing(&["a.test"]), &journal(&[tls("a.test", 443)]), &["--output", "sarif"]);
    assert!(sarif.code == 2 && sarif.stderr.contains("--output json"), "{sarif:#?}");
}

#[test]
fn a_connection_that_carried_requests_counts_by_its_requests() {
    let tunnel = tls("a.test", 8080).with("sni", Value::Null).with("requests", 2);
    let (_, told) = replayed(&allowing(&["a.test:8080"]), &[http("a.test", 8080), http("a.test", 8080), tunnel]);
    assert_eq!((&told["events"], &told["destinations"]), (&json!(2), &json!(1)), "{told:#}");
}

#[test]
fn usage_and_the_environment_have_their_own_exit_codes() {
    let invalid = replay("version: 1\nmod: audit\n", &journal(&[tls("b.test", 443)]), &[]);
    assert_eq!(invalid.code, 2, "an invalid policy judges nothing: {invalid:#?}");
    let program = egret_program().env("EGRET_POLICY", allowing(&["a.test"]));
    let missing = program.args(["check", "--replay", "/nonexistent/journal"]).run();
    assert!(missing.code == 3 && missing.stderr.contains("/nonexistent/journal"), "{missing:#?}");
}
