//! What `egret check` says, in its three forms, of good policies, of doubtful ones and of whatever else is put before
//! it; and every policy of `tests/policies`, word for word. `EGRET_BLESS=1` writes those words anew, to be read.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::egret_program;
use crate::support::journal::write;
use crate::support::programs::Output;
use crate::support::{Egret, Program};

/// No input keeps egret busy for longer, on a busy machine and unoptimised.
const PROMPTLY: Duration = Duration::from_secs(10);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The policies of this folder of `tests/policies`, as they are named on the command line at the root.
fn policies(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new("tests/policies").join(folder);
    let entries = fs::read_dir(root().join(&folder)).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let names = entries.map(|entry| entry.expect("a folder entry").file_name());
    let mut files: Vec<PathBuf> = names.map(|name| folder.join(name)).filter(|file| has_ending(file, "yaml")).collect();
    files.sort();
    assert!(!files.is_empty(), "no policies in {}", folder.display());
    files
}

fn has_ending(file: &Path, ending: &str) -> bool {
    file.extension().is_some_and(|found| found == ending)
}

fn check_at_root(file: &Path, more: &[&str]) -> Output {
    egret_program().dir(root()).arg("check").arg(file).args(more).run()
}

/// Every policy of the folder gets the words that are written beside it.
#[track_caller]
fn assert_words(folder: &str) {
    let (mut wrong, bless) = (Vec::new(), env::var_os("EGRET_BLESS").is_some_and(|value| value == "1"));
    for file in policies(folder) {
        let Output { code, stdout, stderr } = check_at_root(&file, &[]);
        let said = format!("exit {code}\n{stderr}{stdout}");
        let beside = root().join(file.with_extension("txt"));
        if bless {
            fs::write(&beside, said).unwrap_or_else(|e| panic!("{}: {e}", beside.display()));
            continue;
        }
        match fs::read_to_string(&beside) {
            Ok(expected) if expected == said => {}
            Ok(expected) => wrong.push(format!("{}: expected\n{expected}\nand it says\n{said}", file.display())),
            Err(_) => wrong.push(format!("{}: no .txt beside it; it says\n{said}", file.display())),
        }
    }
    assert!(!bless, "the .txt files of tests/policies/{folder} were written; read them, and run again without EGRET_BLESS");
    assert!(wrong.is_empty(), "{}\nif this is meant, run with EGRET_BLESS=1 and read the difference", wrong.join("\n---\n"));
}

#[test]
fn c02_c03_every_bad_policy_gets_its_words() {
    assert_words("bad");
}

#[test]
fn every_doubtful_policy_gets_its_words() {
    assert_words("lint");
}

#[test]
fn no_words_are_left_without_their_policy() {
    for folder in ["bad", "lint"] {
        let folder = root().join("tests/policies").join(folder);
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for path in entries.map(|entry| entry.expect("a folder entry").path()).filter(|path| has_ending(path, "txt")) {
            assert!(path.with_extension("yaml").is_file(), "{} belongs to nothing", path.display());
        }
    }
}

/// Good policies whose very subject is worth a warning, with the warnings that they may have.
const WARNED: [(&str, &[&str]); 5] = [
    ("addresses.yaml", &["shadowed-rule"]),
    ("block.yaml", &["shadowed-rule"]),
    ("empty-sections.yaml", &["no-rules"]),
    ("flow.yaml", &["shadowed-rule", "unused-role"]),
    ("minimal.yaml", &["no-rules"]),
];

#[test]
fn good_policies_are_accepted_and_not_warned_of() {
    for file in policies("good") {
        let output = check_at_root(&file, &["--output", "json"]);
        let told = json(&output);
        assert_eq!((output.code, &told["valid"]), (0, &true.into()), "{}: {told:#}", file.display());
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let expected = WARNED.iter().find(|(warned, _)| *warned == name).map_or(&[][..], |(_, codes)| codes);
        for one in diagnostics(&told).iter().filter(|one| one["severity"] != "note") {
            let known = one["severity"] == "warning" && one["code"].as_str().is_some_and(|code| expected.contains(&code));
            assert!(known, "{}: {one:#}", file.display());
        }
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {output:#?}"))
}

fn diagnostics(told: &Value) -> &[Value] {
    told["diagnostics"].as_array().unwrap_or_else(|| panic!("no `diagnostics`: {told:#}"))
}

/// A directory with one policy in it.
struct Desk {
    home: TempDir,
}

impl Desk {
    fn with(policy: impl AsRef<[u8]>) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        write(home.path(), "policy.yaml", policy);
        Self { home }
    }

    fn check(&self, more: &[&str]) -> Output {
        let begun = Instant::now();
        let output = egret_program().dir(self.home.path()).args(["check", "policy.yaml"]).args(more).run();
        assert!(begun.elapsed() < PROMPTLY, "it took {:?}: {output:#?}", begun.elapsed());
        output
    }

    /// Line and code of each diagnostic, as JSON has them.
    fn found(&self) -> Vec<(u64, String)> {
        let told = json(&self.check(&["--output", "json"]));
        let one = |one: &Value| (one["line"].as_u64().unwrap_or(0), one["code"].as_str().unwrap_or_default().to_owned());
        diagnostics(&told).iter().map(one).collect()
    }

    /// It is refused with a place and these words.
    #[track_caller]
    fn refuses(&self, case: &str, words: &[&str]) {
        let output = self.check(&[]);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{case}: {output:#?}");
        for word in [&["error[", "--> policy.yaml:"], words].concat() {
            assert!(output.stderr.contains(word), "{case}: no {word:?}: {output:#?}");
        }
    }
}

const ALL_AT_ONCE: &str = r#"version: 1
mod: enforce
roles: [web]
sets: { a: [https://a.test/] }
egress:
  allow:
    - { to: $b, port: 80 }
    - { to: "*.com" }
    - { ports: [0] }
    - { to: c.test, for: [], as: ssh }
    - { to: d.test, id: x }
    - { to: e.test, id: x }
  deny: everything
dns: { upstream: nowhere }
run: { drain: soon }
tests:
  - { connect: "c.test:443", expect: maybe }
  - { role: nobody, connect: "c.test:443", expect: allow }
"#;
const MISTAKES: [(u64, &str); 16] = [
    (2, "unknown-key"),
    (3, "wrong-type"),
    (4, "bad-value"),
    (7, "unknown-name"),
    (7, "unknown-key"),
    (8, "shared-suffix"),
    (9, "missing-key"),
    (9, "bad-value"),
    (10, "empty-list"),
    (10, "bad-value"),
    (12, "conflict"),
    (13, "wrong-type"),
    (14, "bad-value"),
    (15, "bad-value"),
    (17, "bad-value"),
    (18, "unknown-name"),
];

#[test]
fn all_mistakes_are_told_in_one_pass_and_in_the_order_of_the_file() {
    let desk = Desk::with(ALL_AT_ONCE);
    let found = desk.found();
    for (line, code) in MISTAKES {
        assert!(found.contains(&(line, code.to_owned())), "line {line}: no {code} in {found:#?}");
    }
    assert_eq!(found.len(), MISTAKES.len(), "{found:#?}");
    assert!(found.is_sorted_by_key(|(line, _)| line), "{found:#?}");
    let text = desk.check(&[]);
    assert_eq!((text.code, text.stdout.as_str()), (2, ""), "{text:#?}");
    assert_eq!(text.stderr.matches("error[").count(), found.len(), "{}", text.stderr);
    assert_eq!(text.stderr.matches("--> policy.yaml:").count(), found.len(), "{}", text.stderr);
}

const DOUBTFUL: &str = r#"version: 1
egress:
  allow:
    - a.test
    - { to: a.test }
    - "*.example.com"
tests:
  - { connect: "a.test:443", expect: allow }
"#;

#[test]
fn json_has_the_documented_fields() {
    let valid = json(&Desk::with(DOUBTFUL).check(&["--output", "json"]));
    let keys =
        |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<BTreeSet<_>>()).unwrap_or_default();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(keys(&valid), set(&["v", "valid", "rules", "tests", "mode", "diagnostics"]), "{valid:#}");
    let counts = [&valid["v"], &valid["rules"], &valid["tests"]].map(Value::as_u64);
    assert_eq!(counts, [Some(1), Some(3), Some(1)], "{valid:#}");
    assert_eq!((&valid["valid"], &valid["mode"]), (&true.into(), &"enforce".into()), "{valid:#}");
    let severities: Vec<_> = diagnostics(&valid).iter().map(|one| (one["severity"].as_str(), one["code"].as_str())).collect();
    assert_eq!(severities, [(Some("warning"), Some("duplicate-rule")), (Some("note"), Some("apex-missing"))], "{valid:#}");

    let invalid = json(&Desk::with(ALL_AT_ONCE).check(&["--output", "json"]));
    assert_eq!(keys(&invalid), set(&["v", "valid", "diagnostics"]), "{invalid:#}");
    assert_eq!((&invalid["v"], &invalid["valid"]), (&1.into(), &false.into()), "{invalid:#}");
    for one in diagnostics(&valid).iter().chain(diagnostics(&invalid)) {
        assert_eq!(keys(one), set(&["severity", "code", "message", "help", "line", "column"]), "{one:#}");
        assert!(one["help"].is_null() || one["help"].as_str().is_some_and(|help| !help.is_empty()), "{one:#}");
        assert!(one["line"].as_u64() > Some(0) && one["column"].as_u64() > Some(0), "{one:#}");
    }
}

/// SARIF 2.1.0 of a policy: what every log has, and its results.
#[track_caller]
fn sarif(desk: &Desk, code: i32) -> Vec<Value> {
    let output = desk.check(&["--output", "sarif"]);
    assert_eq!(output.code, code, "{output:#?}");
    let log = json(&output);
    assert_eq!(log["version"], "2.1.0", "{log:#}");
    let schema = log["$schema"].as_str().unwrap_or_default();
    assert!(schema.starts_with("https://") && schema.ends_with("sarif-schema-2.1.0.json"), "{log:#}");
    let runs = log["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [run] = runs else { panic!("one run: {log:#}") };
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "egret", "{log:#}");
    assert!(driver["version"].is_string(), "{log:#}");
    let rules = driver["rules"].as_array().unwrap_or_else(|| panic!("no rules: {log:#}"));
    let ids: Vec<&str> = rules.iter().filter_map(|rule| rule["id"].as_str()).collect();
    assert!(ids.iter().collect::<BTreeSet<_>>().len() == rules.len(), "ids are there and differ: {log:#}");
    assert!(rules.iter().all(|rule| rule["shortDescription"]["text"].is_string()), "{log:#}");
    let results = run["results"].as_array().unwrap_or_else(|| panic!("no results: {log:#}"));
    for result in results {
        assert!(result["ruleId"].as_str().is_some_and(|id| ids.contains(&id)), "{result:#}");
        assert!(result["message"]["text"].as_str().is_some_and(|text| !text.is_empty()), "{result:#}");
    }
    results.clone()
}

/// Where a result stands: first line and column, and what stands there.
fn marked<'t>(result: &Value, text: &'t str) -> (u64, u64, &'t str) {
    let locations = result["locations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [location] = locations else { panic!("one location: {result:#}") };
    let place = &location["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "policy.yaml", "{result:#}");
    let number = |field: &str| place["region"][field].as_u64().unwrap_or_else(|| panic!("no {field}: {result:#}"));
    let (line, from, to) = (number("startLine"), number("startColumn"), number("endColumn"));
    assert_eq!(number("endLine"), line, "{result:#}");
    let index = |number: u64| usize::try_from(number).expect("a small number") - 1;
    let whole = text.lines().nth(index(line)).unwrap_or_else(|| panic!("no such line: {result:#}"));
    let part = whole.get(index(from)..index(to)).unwrap_or_else(|| panic!("no such columns in {whole:?}: {result:#}"));
    (line, from, part)
}

#[test]
fn sarif_tells_what_json_tells_and_where_it_stands() {
    for (text, code) in [(ALL_AT_ONCE, 2), (DOUBTFUL, 0)] {
        let desk = Desk::with(text);
        let told = json(&desk.check(&["--output", "json"]));
        let results = sarif(&desk, code);
        assert_eq!(results.len(), diagnostics(&told).len(), "{results:#?}");
        for (result, one) in results.iter().zip(diagnostics(&told)) {
            assert_eq!((&result["ruleId"], &result["level"]), (&one["code"], &one["severity"]), "{result:#}");
            let message = one["message"].as_str().expect("a message");
            assert!(result["message"]["text"].as_str().is_some_and(|text| text.contains(message)), "{result:#}\n{one:#}");
            let (line, column, part) = marked(result, text);
            assert_eq!((Some(line), Some(column)), (one["line"].as_u64(), one["column"].as_u64()), "{result:#}");
            assert!(!part.trim().is_empty(), "nothing is marked: {result:#}");
        }
    }
    let second = sarif(&Desk::with(DOUBTFUL), 0).remove(0);
    assert_eq!(marked(&second, DOUBTFUL), (5, 7, "{ to: a.test }"));
    assert!(sarif(&Desk::with("version: 1\negress: { allow: [a.test] }\n"), 0).is_empty(), "nothing to say is an empty list");
}

#[test]
fn strict_makes_findings_of_warnings_and_never_of_notes() {
    let line = "policy.yaml: ok (1 rule, 0 tests, mode enforce)\n";
    let clean = "version: 1\negress: { allow: [a.test] }\n";
    let noted = "version: 1\negress: { allow: [\"*.a.example\"] }\n";
    let warned = "version: 1\nsets: { idle: [b.test] }\negress: { allow: [a.test] }\n";
    let failing = format!("{clean}tests: [{{ connect: \"a.test:443\", expect: deny }}]\n");
    let one_warning = "policy.yaml: ok (1 rule, 0 tests, mode enforce, 1 warning)\n";
    let cases = [
        ("clean", clean, 0, 0, "", line),
        ("noted", noted, 0, 0, "note[apex-missing]: ", line),
        ("warned", warned, 0, 1, "warning[unused-set]: ", one_warning),
        ("failing", &failing, 1, 1, "error[failed-test]: ", ""),
        ("invalid", "version: 2\n", 2, 2, "error[bad-value]: ", ""),
    ];
    for (case, policy, code, strict, told, printed) in cases {
        let desk = Desk::with(policy);
        for (more, expected) in [(&[][..], code), (&["--strict"], strict)] {
            let output = desk.check(more);
            let printed = if expected == 0 { printed.to_owned() } else { printed.replace(": ok", ": not ok") };
            assert_eq!((output.code, &output.stdout), (expected, &printed), "{case} {more:?}: {output:#?}");
            assert!(output.stderr.contains(told), "{case} {more:?}: {output:#?}");
        }
        for form in ["json", "sarif"] {
            assert_eq!(desk.check(&["--output", form, "--strict"]).code, strict, "{case} as {form}");
        }
    }
}

#[test]
fn c02_a_text_made_to_wear_out_its_reader_is_refused_at_once() {
    let bomb: String = (1..30).map(|at| format!("  l{at}: &l{at} [{}]\n", vec![format!("*l{}", at - 1); 9].join(", "))).collect();
    let deeper: String = (0..2_000).map(|at| format!("{}a:\n", " ".repeat(at))).collect();
    let cases = [
        ("an alias bomb", format!("version: 1\nsets:\n  l0: &l0 [a.test]\n{bomb}")),
        ("lists in lists", format!("version: 1\nsets: {}", "[".repeat(10_000))),
        ("closed ones", format!("version: 1\nsets: {}{}\n", "[".repeat(10_000), "]".repeat(10_000))),
        ("mappings in mappings", format!("version: 1\nsets: {}", "{a: ".repeat(10_000))),
        ("lists of a line", format!("version: 1\nsets:\n  {}a", "- ".repeat(10_000))),
        ("deeper and deeper", format!("version: 1\n{deeper}")),
    ];
    for (case, policy) in cases {
        Desk::with(policy).refuses(case, &["error[yaml-"]);
    }
}

#[test]
fn what_yaml_readers_disagree_on_is_refused_with_what_to_write() {
    let (list, star) = ("version: 1\negress:\n  allow:\n", ["error[unquoted-star]: ", "\"*.x.test\""]);
    let cases = [
        ("a tab", "version: 1\negress:\n\tallow: [a.test]\n", &["error[yaml-syntax]: ", "policy.yaml:3:", "spaces"][..]),
        ("a key twice", "version: 1\nmode: audit\nmode: enforce\n", &["error[duplicate-key]: ", "policy.yaml:3:1"]),
        ("in a rule", "version: 1\negress: { allow: [{ to: a.test, to: b.test }] }\n", &["error[duplicate-key]: "]),
        ("a star in a list", &format!("{list}    - *.x.test\n"), &star),
        ("in braces", &format!("{list}    - {{ to: *.x.test }}\n"), &star),
        ("in brackets", "version: 1\negress: { allow: [*.x.test, a.test] }\n", &star),
        ("NUL", "version: 1\nmode: \"aud\0it\"\n", &["policy.yaml:2:"]),
    ];
    for (case, policy, words) in cases {
        Desk::with(policy).refuses(case, words);
    }
}

#[test]
fn a_byte_order_mark_at_the_start_is_accepted_and_moves_no_column() {
    let marked = Desk::with("\u{feff}version: 1\negress: { allow: [a.test] }\n").check(&["--strict"]);
    assert_eq!((marked.code, marked.stderr.as_str()), (0, ""), "{marked:#?}");
    Desk::with("\u{feff}version: 1\nmod: audit\n").refuses("a mistake after it", &["error[unknown-key]: ", "policy.yaml:2:1"]);
}

const NO_DATES: [&str; 12] = [
    "2027-02-29",
    "2027-04-31",
    "2027-13-01",
    "2027-00-10",
    "2027-02-30T00:00:00Z",
    "2027-03-31T25:00:00Z",
    "2027-03-31T12:00:00",
    "2027-3-1",
    "27-03-31",
    "31.03.2027",
    "1803945600",
    "tomorrow",
];

#[test]
fn dates_that_do_not_exist_are_refused() {
    let rules: String = NO_DATES.iter().map(|date| format!("    - {{ to: a.test, expires: {date} }}\n")).collect();
    let desk = Desk::with(format!("version: 1\negress:\n  allow:\n{rules}"));
    let expected: Vec<(u64, String)> = (4..).zip(NO_DATES).map(|(line, _)| (line, "bad-value".to_owned())).collect();
    assert_eq!(desk.found(), expected);
    for date in NO_DATES {
        let audit = format!("version: 1\nmode: audit\naudit-until: {date}\n");
        Desk::with(audit).refuses(date, &["error[bad-value]: ", "policy.yaml:3:14", date, "2027-03-31"]);
    }
    let leap = Desk::with("version: 1\nmode: audit\naudit-until: 2096-02-29\n").check(&[]);
    assert_eq!(leap.code, 0, "{leap:#?}");
}

/// What is no text of a policy is refused by every command, at once, and named.
#[track_caller]
fn refused_by_all(file: &Path, words: &[&str]) {
    let path = file.to_str().expect("the test's directory has a name in UTF-8");
    for command in [&["check", path][..], &["explain", "a.test", "--policy", path], &["run", "--policy", path]] {
        let begun = Instant::now();
        // A port that cannot be had, so that a `run` that goes on ends too.
        let output = egret_program().env("EGRET_LISTEN", "192.0.2.1:1").args(command).run();
        assert!(begun.elapsed() < PROMPTLY, "{command:?} took {:?}", begun.elapsed());
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{command:?}: {output:#?}");
        assert!(output.stderr.contains(path), "{command:?}: which file? {output:#?}");
        for word in words {
            assert!(output.stderr.contains(word), "{command:?}: no {word:?}: {output:#?}");
        }
    }
}

#[test]
fn a_file_of_100_megabytes_is_refused_unread() {
    let home = TempDir::new().expect("a temporary directory");
    let sparse = home.path().join("sparse.yaml");
    File::create(&sparse).and_then(|file| file.set_len(100 << 20)).expect("a file with a hole");
    refused_by_all(&sparse, &["longer than 16 MiB"]);
    let full = write(home.path(), "full.yaml", "# comment\n".repeat((16 << 20) / 10 + 1));
    refused_by_all(&full, &["longer than 16 MiB"]);
}

#[test]
fn what_is_no_file_of_text_is_refused() {
    let home = TempDir::new().expect("a temporary directory");
    refused_by_all(home.path(), &[]);
    refused_by_all(&home.path().join("nowhere.yaml"), &[]);
    refused_by_all(&write(home.path(), "latin.yaml", b"version: 1\n# caf\xe9\n"), &["UTF-8"]);
    refused_by_all(&write(home.path(), "utf16.yaml", b"\xff\xfev\0e\0r\0s\0i\0o\0n\0:\0 \0\x001\0"), &["UTF-8"]);
    refused_by_all(Path::new("/dev/zero"), &[]);
}

fn make_pipe(file: &Path) {
    let made = Program::new("mkfifo").arg(file).run();
    assert_eq!(made.code, 0, "{made:#?}");
}

#[test]
fn a_pipe_as_a_policy_is_refused_and_never_waited_for() {
    let home = TempDir::new().expect("a temporary directory");
    let pipe = home.path().join("pipe.yaml");
    make_pipe(&pipe);
    refused_by_all(&pipe, &[]);
}

#[test]
fn a_pipe_in_the_place_of_the_policy_does_not_stop_a_running_egret() {
    let egret = Egret::with_policy("version: 1\n").start();
    let (policy, next) = (egret.policy_path(), egret.policy_path().with_extension("next"));
    make_pipe(&next);
    fs::rename(&next, &policy).expect("the test's directory is writable");
    let event = egret.event("policy", |_| true);
    assert_eq!((&event["result"], &event["policy"]), (&"rejected".into(), &egret.started()["policy"]), "{event:#}");
    fs::write(&next, "version: 1\nmode: audit\n").and_then(|()| fs::rename(&next, &policy)).expect("it is still writable");
    egret.event("policy", |event| event["result"] == "loaded");
}
