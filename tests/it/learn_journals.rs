//! What may be fed to `learn`: several journals, journals in which somebody else writes too, journals of other versions,
//! and journals that were made to harm. The same events give the same bytes.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::journal::{Line, http, journal, learn, learnt, learnt_json, opaque, replay, tls, write};
use crate::support::run_egret;

fn home() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// The names of the rules in the JSON form.
fn names(learnt: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = learnt["rules"].as_array().expect("rules").iter().filter_map(|rule| rule["to"].as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn several_journals_and_stdin_are_one() {
    let home = home();
    let first = write(home.path(), "one.ndjson", journal(&[tls("a.example.com", 443), tls("late.example.com", 443).failed()]));
    let second = write(home.path(), "two.ndjson", journal(&[tls("b.example.com", 443), tls("a.example.com", 443)]));
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let piped = journal(&[tls("late.example.com", 443), tls("c.example.com", 443)]);
    let output = run_egret(["learn", &first, "-", &second, "--output", "json"], &piped);
    assert_eq!(output.code, 0, "{output:#?}");
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(names(&found), ["a.example.com", "b.example.com", "c.example.com", "late.example.com"], "{found:#}");
    assert_eq!((&found["events"], &found["rules"][0]["events"], &found["left_out"]), (&json!(6), &json!(2), &json!([])));
}

#[test]
fn the_same_events_in_another_order_give_the_same_bytes() {
    let mut lines: Vec<Line> = ["b", "a", "d", "c"].iter().map(|name| tls(&format!("{name}.example.com"), 443)).collect();
    lines.extend([
        tls("db.internal.example", 5432).at("10.20.0.8:5432", "private"),
        tls("db.internal.example", 5432).at("10.20.0.7:5432", "private"),
        tls("a.example.com", 8443),
        http("a.example.com", 80),
        tls("x.example.org", 443).failed(),
        opaque("w.example.org", 443),
        tls("w.example.org", 443).denied("no_rule").by("worker"),
        tls("v.example.org", 443).denied("no_rule"),
    ]);
    let text = journal(&lines);
    let in_order: Vec<&str> = text.lines().collect();
    for args in [&[][..], &["--output", "json"], &["--wildcard-after", "3"]] {
        let expected = learn(&text, args);
        for turn in 0..in_order.len() {
            let mut other = in_order.clone();
            other.rotate_left(turn);
            other.reverse();
            let got = learn(&other.join("\n"), args);
            assert_eq!((got.code, &got.stdout, &got.stderr), (0, &expected.stdout, &expected.stderr), "{args:?}, turn {turn}");
        }
    }
}

#[test]
fn lines_of_others_are_counted_and_the_first_three_named() {
    let home = home();
    let seen = journal(&[tls("a.example.com", 443)]);
    let broken = "the app says hello\n\n{\"event\":\"conn\n{\"level\":\"info\"}\n[1]\n\"text\"\n";
    let file = write(home.path(), "mixed.ndjson", format!("{seen}{broken}{seen}")).display().to_string();
    let output = run_egret(["learn", &file], "");
    assert_eq!(output.code, 0, "{output:#?}");
    for line in [2, 4, 5] {
        assert!(output.stderr.contains(&format!("egret: {file}:{line}: no event of egret's")), "{line}: {}", output.stderr);
    }
    for line in [3, 6, 7] {
        assert!(!output.stderr.contains(&format!("{file}:{line}:")), "{line}: {}", output.stderr);
    }
    let json = run_egret(["learn", &file, "--output", "json"], "");
    let found: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&found["skipped_lines"], &found["events"], &found["newer_lines"]), (&json!(5), &json!(2), &json!(0)));
}

#[test]
fn lines_of_a_newer_egret_are_skipped_counted_and_named() {
    let home = home();
    let newer = journal(&[tls("new.example.com", 443).with("v", 2)]);
    let text = journal(&[tls("a.example.com", 443)]) + &newer;
    let file = write(home.path(), "newer.ndjson", &text).display().to_string();
    let output = run_egret(["learn", &file], "");
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(output.stderr.contains(&format!("egret: {file}:2: written by a newer egret (v2)")), "{}", output.stderr);
    assert!(!output.stdout.contains("new.example.com"), "{}", output.stdout);
    let found = learnt_json(&text, &[]);
    assert_eq!((&found["newer_lines"], &found["skipped_lines"], &found["events"]), (&json!(1), &json!(0), &json!(1)));
}

#[test]
fn lines_that_a_log_driver_has_wrapped_are_unwrapped() {
    let lines = journal(&[tls("a.example.com", 443), tls("b.example.com", 443)]);
    let wrapped: Vec<String> = lines
        .lines()
        .zip(["log", "message"])
        .map(|(line, key)| json!({ key: format!("{line}\n"), "stream": "stdout", "container_name": "egret" }).to_string())
        .collect();
    let found = learnt_json(&wrapped.join("\n"), &[]);
    assert_eq!((names(&found), &found["skipped_lines"]), (vec!["a.example.com", "b.example.com"], &json!(0)), "{found:#}");
}

#[test]
fn a_wrapped_line_of_the_app_is_no_event() {
    let text = journal(&[tls("a.example.com", 443)]) + "{\"log\":\"GET / 200\\n\"}\n{\"message\":{\"event\":\"connection\"}}\n";
    let found = learnt_json(&text, &[]);
    assert_eq!((&found["skipped_lines"], &found["events"]), (&json!(2), &json!(1)), "{found:#}");
}

#[test]
fn events_that_the_journal_has_lost_are_told() {
    let text = journal(&[tls("a.example.com", 443)]) + "{\"v\":1,\"event\":\"gap\",\"cause\":\"full\",\"lost\":7}\n";
    assert_eq!(learnt_json(&text, &[])["lost_events"], 7);
}

#[test]
fn without_a_connection_or_request_there_is_nothing_to_learn() {
    let lifecycle = "{\"v\":1,\"time\":\"2026-03-31T12:00:00.000Z\",\"event\":\"lifecycle\",\"phase\":\"started\"}\n";
    for text in ["", "\n\n", lifecycle, "the app says hello\n"] {
        let output = learn(text, &[]);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{text:?}: {output:#?}");
        assert!(output.stderr.contains("egret: nothing to learn: "), "{text:?}: {}", output.stderr);
    }
}

#[test]
fn a_journal_that_cannot_be_read_is_named() {
    let missing = run_egret(["learn", "/nonexistent/journal"], "");
    assert_eq!((missing.code, missing.stdout.as_str()), (3, ""), "{missing:#?}");
    assert!(missing.stderr.contains("/nonexistent/journal"), "{}", missing.stderr);
}

/// Text that would be something else than a name, were it written into a policy as it is.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "evilmark.test\n  - open.test",
        "evilmark.test\nmode: enforce\n",
        "evilmark.test\r- open.test",
        "\", open.test, \"evilmark",
        "' , open.test, 'evilmark",
        "evilmark: open.test",
        "evilmark.test # open.test",
        "# evilmark",
        "*",
        "*.evilmark.test",
        "*.evilmark",
        "${evilmark}",
        "$evilmark",
        "&evilmark",
        "!evilmark x",
        "| evilmark",
        "[evilmark]",
        "{ to: evilmark }",
        "evilmark.test:443",
        "https://evilmark.test/",
        "evil mark.test",
        "evilmark..test",
        "evilmark.test\u{1b}[2J",
        "evilmark.test\u{2028}- open.test",
        "evilmark.test\u{202e}",
        "",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push(format!("evilmark{}", "a".repeat(10_000)));
    texts
}

/// The rules of a policy, line by line.
fn rules(policy: &str) -> Vec<&str> {
    policy.lines().map(str::trim).filter(|line| line.starts_with('-')).collect()
}

/// What was made of a journal with one good name in it: that name, and not a trace of anything else.
fn assert_clean(case: &str, text: &str, args: &[&str]) {
    let output = learn(text, args);
    assert_eq!(output.code, 0, "{case:?}: {output:#?}");
    let rules = rules(&output.stdout);
    assert!(rules.len() == 1 && rules[0].contains("good.example.com"), "{case:?}: {}", output.stdout);
    for trace in ["evil", "open.test", "mode: enforce", "\u{1b}", "\u{2028}", "\u{202e}"] {
        assert!(!output.stdout.contains(trace), "{case:?} left {trace:?}: {}", output.stdout);
    }
    let steers = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{2028}' | '\u{202e}');
    assert!(!output.stderr.contains(steers), "{case:?}: {:?}", output.stderr);
    let replayed = replay(&output.stdout, &journal(&[tls("good.example.com", 443)]), &[]);
    assert_eq!(replayed.code, 0, "{case:?}: {replayed:#?}");
}

#[test]
fn o52_text_that_is_no_host_never_reaches_the_policy() {
    let everything = ["--include", "asked,failed,unverified,address-class", "--wildcard-after", "2"];
    let mut all = journal(&[tls("good.example.com", 443)]);
    for text in hostile() {
        let lines = [tls(&text, 443), http(&text, 80), tls(&text, 443).failed(), tls(&text, 443).denied("no_rule")];
        let bad = journal(&lines);
        assert_clean(&text, &(journal(&[tls("good.example.com", 443)]) + &bad), &[]);
        let _ = write!(all, "{bad}");
    }
    assert_clean("all of them", &all, &[]);
    assert_clean("all of them, taken in", &all, &everything);
}

#[test]
fn o52_hostile_text_in_other_fields_never_reaches_the_policy_either() {
    for field in ["role", "reason", "rule", "class", "detail", "address", "close", "policy", "time", "via", "id", "method"] {
        for text in ["evilmark\n  - open.test\n", "evilmark]\n- open.test # ", "evil\u{1b}[2Jmark"] {
            let good = tls("good.example.com", 443);
            let lines = [good.clone(), good.with(field, text), tls("left.example.org", 443).failed().with(field, text)];
            assert_clean(&format!("{field}: {text:?}"), &journal(&lines), &[]);
        }
    }
}

#[test]
fn o53_fields_of_the_wrong_type_are_no_events_and_no_panic() {
    for (field, value) in [
        ("host", json!(7)),
        ("host", json!(["a.example.com"])),
        ("port", json!("443")),
        ("port", json!(0)),
        ("port", json!(65_536)),
        ("port", json!(-1)),
        ("port", json!(443.5)),
        ("decision", json!("maybe")),
        ("decision", Value::Null),
        ("event", json!(1)),
        ("v", json!("one")),
        ("time", json!(5)),
        ("role", json!({})),
    ] {
        let text = journal(&[tls("good.example.com", 443), tls("odd.example.com", 443).with(field, value.clone())]);
        let policy = learnt(&text, &[]);
        assert!(rules(&policy).contains(&"- good.example.com"), "{field}: {value}: {policy}");
        if !["time", "role", "v"].contains(&field) {
            assert_eq!(rules(&policy), ["- good.example.com"], "{field}: {value}");
        }
    }
}
