//! Learning onto a policy that is there: the answer is a diff that `patch` applies, that only adds, and that leaves every
//! line, comment and habit of the file as it was, however the file is written.
//!
//! Needs Debian's patch.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Program;
use crate::support::egret::egret_program;
use crate::support::journal::{Line, admits, http, journal, replay, tls, write};
use crate::support::programs::Output;
use crate::support::run_egret;

/// How the base is written, which decides what can be kept of it.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// A list of lines: each line of the base is still a line.
    Block,
    /// A list in brackets: each character of the base still stands, in its order.
    Flow,
}

/// Three destinations that no base here admits.
fn seen() -> Vec<Line> {
    vec![
        tls("new.example.com", 443),
        tls("db.internal.example", 8443).at("10.20.0.7:8443", "private"),
        http("web.example.org", 8080),
    ]
}

/// A base in a directory of its own, and what was learnt onto it.
struct Learnt {
    home: TempDir,
    output: Output,
}

impl Learnt {
    fn onto(base: &str, journal: &str, args: &[&str]) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        write(home.path(), "policy.yaml", base);
        let program = egret_program().dir(home.path()).args(["learn", "-", "--base", "policy.yaml"]).args(args);
        let output = program.stdin(journal.as_bytes()).run();
        Self { home, output }
    }

    /// What `patch` makes of the base, without looking for another place than the one that the diff names.
    fn patched(&self) -> String {
        assert_eq!(self.output.code, 0, "{:#?}", self.output);
        let diff = self.output.stdout.as_bytes();
        let patch = Program::new("patch").dir(self.home.path()).args(["--fuzz=0", "policy.yaml"]).stdin(diff).run();
        assert_eq!((patch.code, patch.stdout.trim()), (0, "patching file policy.yaml"), "{patch:#?}\n{}", self.output.stdout);
        std::fs::read_to_string(self.home.path().join("policy.yaml")).expect("the patched policy is text")
    }
}

/// How many rules `check` counts; the policy must be valid.
fn count(policy: &str) -> u64 {
    let checked = egret_program().env("EGRET_POLICY", policy).args(["check", "--output", "json"]).run();
    assert_eq!(checked.code, 0, "{checked:#?}\n{policy}");
    let told: Value = serde_json::from_str(&checked.stdout).expect("JSON");
    told["rules"].as_u64().unwrap_or_else(|| panic!("no count: {told:#}"))
}

/// Whether `parts` stand in `whole` in their order.
fn in_order<T: PartialEq>(parts: impl IntoIterator<Item = T>, whole: impl IntoIterator<Item = T>) -> bool {
    let mut whole = whole.into_iter();
    parts.into_iter().all(|part| whole.any(|item| item == part))
}

/// From its `#` to its end; `None` for a line without a comment.
fn comment(line: &str) -> Option<&str> {
    let at = if line.starts_with('#') { 0 } else { line.find(" #")? + 1 };
    Some(&line[at..])
}

fn assert_kept(case: &str, style: Style, base: &str, patched: &str, diff: &str) {
    let shown = || format!("{case}:\n{diff}\n--- patched\n{patched}");
    match style {
        Style::Block => assert!(in_order(base.lines(), patched.lines()), "a line is gone; {}", shown()),
        Style::Flow => assert!(in_order(base.trim_end().chars(), patched.chars()), "a character is gone; {}", shown()),
    }
    let comments = |text: &'_ str| -> Vec<String> { text.lines().filter_map(comment).map(str::to_owned).collect() };
    assert!(in_order(comments(base), comments(patched)), "a comment is gone; {}", shown());
}

/// Learns the three destinations onto this base, of so many rules, and holds the result to every promise; with lines that end
/// as those of Windows do the result is the same.
fn extends(case: &str, style: Style, base: &str, rules: u64) -> String {
    let patched = extended(case, style, base, rules);
    if base.contains('\n') && !base.contains('\r') {
        let carriages = extended(&format!("{case}, CRLF"), style, &base.replace('\n', "\r\n"), rules);
        assert_eq!(carriages, patched.replace('\n', "\r\n"), "{case}");
    }
    patched
}

fn extended(case: &str, style: Style, base: &str, rules: u64) -> String {
    let text = journal(&seen());
    let learnt = Learnt::onto(base, &text, &[]);
    let diff = learnt.output.stdout.clone();
    let patched = learnt.patched();
    assert_kept(case, style, base, &patched, &diff);
    assert_eq!(count(&patched), rules + 3, "{case}:\n{diff}");
    let replayed = replay(&patched, &text, &[]);
    assert_eq!(replayed.code, 0, "{case}: {replayed:#?}\n{patched}");
    let again = Learnt::onto(&patched, &text, &[]).output;
    assert_eq!((again.code, again.stdout.as_str()), (0, ""), "{case}: a second time there is nothing to add: {again:#?}");
    patched
}

#[test]
fn a_list_of_lines_grows_at_its_end() {
    let base = "# who: shop-team\nversion: 1\nmode: audit   # until April\n\negress:\n  allow:\n    # payments\n    \
                - a.test   # the first\n\n    # images\n    - b.test\n    # the end of the list\n  deny:\n    - bad.test\n\n\
                # resolvers\ndns: { upstream: system }\n# the end\n";
    let patched = extends("block", Style::Block, base, 3);
    let place = |text: &str| patched.find(text).unwrap_or_else(|| panic!("no {text}: {patched}"));
    for name in ["new.example.com", "db.internal.example", "web.example.org"] {
        assert!(place("- b.test") < place(name) && place(name) < place("deny:"), "{name} stands at the end of allow: {patched}");
    }
}

#[test]
fn every_width_of_indentation_is_kept() {
    for (case, base) in [
        ("four", "version: 1\negress:\n    allow:\n        - a.test\n        - b.test\n    deny:\n        - bad.test\n"),
        ("none", "version: 1\negress:\n  allow:\n  - a.test\n  - b.test\n  deny:\n  - bad.test\n"),
        ("one", "version: 1\negress:\n allow:\n - a.test\n - b.test\n deny:\n - bad.test\n"),
        ("wide dashes", "version: 1\negress:\n  allow:\n    -   a.test\n    -   b.test\n  deny:\n    - bad.test\n"),
    ] {
        extends(case, Style::Block, base, 3);
    }
}

#[test]
fn the_last_item_may_be_of_any_form() {
    for (case, last) in [
        ("mapping", "    - to: a.test\n      ports: [443]\n      note: the note\n"),
        ("mapping below its dash", "    -\n      to: a.test\n      note: the note\n"),
        ("flow mapping", "    - { to: a.test, note: \"a, b # no comment\" }   # a comment\n"),
        ("flow mapping of several lines", "    - { to: a.test,\n        note: the note }\n"),
        (
            "block scalar",
            "    - to: a.test\n      note: |\n        several lines\n        # and no comment\n\n        to the end\n",
        ),
        ("folded scalar", "    - to: a.test\n      note: >-\n        several\n        lines\n"),
        ("list", "    - to: a.test\n      ports:\n        - 443\n        - 8443\n"),
        ("list without indentation", "    - to: a.test\n      ports:\n      - 443\n"),
        ("bucket", "    - s3:\n        buckets: [a-bucket]\n        regions: [eu-west-1]\n"),
        ("quoted over two lines", "    - to: a.test\n      note: \"one\n        two\"\n"),
    ] {
        for rest in
            ["", "\n", "# the end\n", "    # the end of the list\n", "dns: { upstream: system }\n", "  deny: [bad.test]\n"]
        {
            let base = format!("version: 1\negress:\n  allow:\n{last}{rest}");
            let rules = if rest.contains("deny") { 2 } else { 1 };
            let learn = if rest.is_empty() { extends } else { extended };
            learn(&format!("{case} before {rest:?}"), Style::Block, &base, rules);
        }
    }
}

#[test]
fn a_file_may_end_without_a_line_end() {
    for (case, base, rules) in [
        ("in the list", "version: 1\negress:\n  allow:\n    - a.test", 1),
        ("in a comment", "version: 1\negress:\n  allow:\n    - a.test\n# the end", 1),
        ("after the list", "version: 1\negress:\n  allow:\n    - a.test\ndns: { upstream: system }", 1),
        ("without a list", "version: 1\negress:\n  allow:", 0),
        ("without a section", "version: 1", 0),
    ] {
        extends(case, Style::Block, base, rules);
    }
    extends("in brackets", Style::Flow, "version: 1\negress: { allow: [a.test] }", 1);
}

#[test]
fn a_list_in_brackets_grows_inside_them() {
    for (case, base, rules) in [
        ("one line", "version: 1\negress: { allow: [a.test] }   # the rules\n# the end\n", 1),
        ("brackets in a block", "version: 1\negress:\n  allow: [a.test, \"*.b.test\"]   # two\n  deny: [bad.test]\n", 3),
        ("several lines", "version: 1\negress:\n  allow: [\n    a.test,   # one\n    b.test    # two\n  ]\n# the end\n", 2),
        ("a last comma", "version: 1\negress:\n  allow: [\n    a.test,   # one\n    b.test,   # two\n  ]\n", 2),
        ("tight", "version: 1\negress: {allow: [a.test],deny: [bad.test]}\n", 2),
        ("mappings", "version: 1\negress: { allow: [{ to: a.test, ports: [443] }, { to: \"b.test\" , note: \"] }\" }] }\n", 2),
    ] {
        extends(case, Style::Flow, base, rules);
    }
}

#[test]
fn json_stays_json() {
    for (case, base, rules) in [
        ("one line", r#"{"version":1,"egress":{"allow":["a.test"]}}"#, 1),
        ("one line with an end", "{\"version\":1,\"egress\":{\"allow\":[\"a.test\"],\"deny\":[\"bad.test\"]}}\n", 2),
        (
            "pretty",
            "{\n  \"version\": 1,\n  \"egress\": {\n    \"allow\": [\n      \"a.test\",\n      { \"to\": \"b.test\" }\n    ]\n  \
             }\n}\n",
            2,
        ),
        ("an empty list", "{ \"version\": 1, \"egress\": { \"allow\": [] } }\n", 0),
        ("an empty section", "{ \"version\": 1, \"egress\": {} }\n", 0),
        ("no section", "{\n  \"version\": 1\n}\n", 0),
        ("no section, one line", r#"{"version":1,"mode":"audit"}"#, 0),
    ] {
        let patched = extends(case, Style::Flow, base, rules);
        serde_json::from_str::<Value>(&patched).unwrap_or_else(|e| panic!("{case}: no JSON any more ({e}): {patched}"));
    }
}

#[test]
fn a_missing_or_empty_list_is_made() {
    for (case, base, rules) in [
        ("no section", "version: 1\nmode: audit   # for now\n# the end\n", 0),
        ("no section but others", "version: 1\n\ndns:\n  upstream: system   # ours\n", 0),
        ("an empty section", "version: 1\negress:   # nothing yet\ndns: { upstream: system }\n", 0),
        ("an empty list", "version: 1\negress:\n  allow:   # nothing yet\n  deny:\n    - bad.test\n", 1),
        ("an empty list at the end", "version: 1\negress:\n  allow:\n", 0),
        ("a deny list alone", "version: 1\negress:\n  deny:\n    - bad.test   # never\n", 1),
        ("a mode alone", "version: 1\negress:\n  mode: audit\n", 0),
    ] {
        extends(case, Style::Block, base, rules);
    }
    for (case, base) in [
        ("empty brackets", "version: 1\negress:\n  allow: []   # nothing yet\n  deny: []\n"),
        ("empty brackets in braces", "version: 1\negress: { allow: [] }   # nothing yet\n"),
        ("empty braces", "version: 1\negress: {}   # nothing yet\n"),
    ] {
        extends(case, Style::Flow, base, 0);
    }
}

#[test]
fn carriage_returns_and_a_byte_order_mark_stay() {
    let base = "version: 1\r\negress:\r\n  allow:\r\n    - a.test   # one\r\n# the end\r\n";
    let patched = extends("CRLF", Style::Block, base, 1);
    assert!(patched.lines().count() == patched.matches("\r\n").count(), "every line ends as the others do: {patched:?}");
    // A return alone ends a line to YAML, and none to patch.
    for text in ["    - a.test\n    # one\r    # two\n", "    - a.test\r\n    # one\r\r\n    - b.test\r\n"] {
        let base = format!("version: 1\negress:\n  allow:\n{text}");
        let rules = text.matches("- ").count() as u64;
        extends("a return alone", Style::Block, &base, rules);
    }
    let marked = extends("BOM", Style::Block, "\u{feff}version: 1\negress:\n  allow:\n    - a.test\n", 1);
    assert!(marked.starts_with("\u{feff}version"), "{marked:?}");
}

#[test]
fn the_word_allow_elsewhere_is_not_the_list() {
    let base = "version: 1   # egress: allow: here?\nsets:\n  allow: [x.test]\n  egress: [y.test]\negress:\n  deny:\n    \
                - { to: bad.test, note: \"allow: nothing\" }\n  allow:\n    - $allow\n    - $egress\ntests:\n  \
                - { connect: \"x.test:443\", expect: allow }\n";
    extends("decoys", Style::Block, base, 3);
}

#[test]
fn nothing_is_added_that_the_base_admits() {
    let base = "version: 1\nsets: { shop: [shop.test] }\negress:\n  allow:\n    - \"*.example.com\"\n    - $shop\n    \
                - { to: 93.184.216.0/24, ports: [8080] }\n";
    let admitted = [tls("a.example.com", 443), tls("b.c.example.com", 443), tls("shop.test", 443), http("93.184.216.34", 8080)];
    let nothing = Learnt::onto(base, &journal(&admitted), &[]).output;
    assert_eq!((nothing.code, nothing.stdout.as_str()), (0, ""), "{nothing:#?}");
    assert!(nothing.stderr.contains("egret: the base admits everything that was seen"), "{}", nothing.stderr);
    let more = journal(&[&admitted[..], &[tls("example.com", 443), tls("a.example.com", 8443)]].concat());
    let learnt = Learnt::onto(base, &more, &[]);
    assert_eq!(count(&learnt.patched()), 3 + 2, "the apex and the other port: {}", learnt.output.stdout);
}

#[test]
fn a_base_in_audit_is_judged_as_if_it_enforced() {
    let base = "version: 1\nmode: audit\negress:\n  allow:\n    - a.test\n";
    let learnt = Learnt::onto(base, &journal(&[tls("a.test", 443), tls("b.test", 443)]), &[]);
    assert_eq!(count(&learnt.patched()), 2, "{}", learnt.output.stdout);
}

#[test]
fn roles_that_the_base_knows_stay_and_get_what_they_were_seen_with() {
    let base = "version: 1\nroles: { worker: { proxy-user: worker } }\negress:\n  allow:\n    - a.test\n";
    let text = journal(&[
        tls("jobs.example.com", 443).by("worker"),
        tls("api.example.com", 443),
        tls("both.example.com", 443),
        tls("both.example.com", 443).by("worker"),
        tls("gone.example.com", 443).by("ghost"),
    ]);
    let learnt = Learnt::onto(base, &text, &[]);
    assert!(learnt.output.stderr.contains("left out gone.example.com:443 as ghost: unknown-role"), "{:#?}", learnt.output);
    let patched = learnt.patched();
    for (role, name, verdict) in [
        ("worker", "jobs", true),
        ("default", "jobs", false),
        ("worker", "both", true),
        ("default", "both", true),
        ("default", "api", true),
        ("worker", "api", false),
        ("default", "gone", false),
    ] {
        let target = format!("{name}.example.com");
        assert_eq!(admits(&patched, role, &target), verdict, "{target} for {role}: {patched}");
    }
    assert!(!patched.contains("ghost"), "a role that the base does not know: {patched}");
}

#[test]
fn what_was_left_out_stays_out_of_the_base_too_and_can_be_taken_in() {
    let base = "version: 1\negress:\n  allow:\n    - a.test\n";
    let text = journal(&[tls("a.test", 443), tls("typo.example.com", 443).failed()]);
    let without = Learnt::onto(base, &text, &[]).output;
    assert_eq!((without.code, without.stdout.as_str()), (0, ""), "{without:#?}");
    let with = Learnt::onto(base, &text, &["--include", "failed"]).patched();
    assert!(admits(&with, "default", "typo.example.com"), "{with}");
}

#[test]
fn a_base_that_is_no_policy_is_refused_with_line_and_caret() {
    let bad = Learnt::onto("version: 1\nmod: audit\n", &journal(&seen()), &[]).output;
    assert_eq!((bad.code, bad.stdout.as_str()), (2, ""), "{bad:#?}");
    assert!(bad.stderr.contains("policy.yaml:2:1") && bad.stderr.contains("^^^"), "{}", bad.stderr);
    let missing = run_egret(["learn", "-", "--base", "/nonexistent/policy.yaml"], &journal(&seen()));
    assert_eq!((missing.code, missing.stdout.as_str()), (2, ""), "{missing:#?}");
    assert!(missing.stderr.contains("/nonexistent/policy.yaml"), "{}", missing.stderr);
}
