//! Promises about the source itself: the policy crate stays pure, unsafe code stays in `sys.rs`, every shipped policy
//! is a good one, every metric and every reason is used and documented.

use std::fs;
use std::path::{Path, PathBuf};

use egret::config::diagnose::Code;
use egret::config::presets;

use crate::support::run_egret;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files with this ending below a folder; at least one, so that a test over none cannot pass.
fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a folder entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} file in {folder}");
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_policy_crate_does_no_io() {
    for (path, text) in files("policy/src", "rs") {
        for word in
            ["std::fs", "std::io", "std::time", "std::thread", "TcpStream", "UdpSocket", "std::env", "tokio", "async ", "serde"]
        {
            assert!(!text.contains(word), "{} mentions {word}", path.display());
        }
    }
}

/// Whether the word stands there as code: before a block, an item or in an attribute, not in a comment or a lint's name.
fn is_unsafe(text: &str) -> bool {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    code.match_indices("unsafe").any(|(at, word)| {
        let alone = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let next = code[at + word.len()..].trim_start();
        let is_code = ["{", "(", "fn ", "impl ", "impl<", "trait ", "extern "].iter().any(|follows| next.starts_with(follows));
        alone && is_code
    })
}

#[test]
fn unsafe_code_stands_in_sys_rs_only() {
    for code in ["unsafe { x }", "unsafe fn x() {}", "pub unsafe impl Send for X {}", "#[unsafe(no_mangle)]", "unsafe\n{ x }"] {
        assert!(is_unsafe(code), "this test would not see {code:?}");
    }
    assert!(!is_unsafe("// unsafe { x }\n#![forbid(unsafe_code)]"));
    let members =
        ["src", "policy", "proxy", "inotify-fim", "flows", "confine", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"];
    let all: Vec<(PathBuf, String)> = members.into_iter().flat_map(|folder| files(folder, "rs")).collect();
    let (sys, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(path, _)| path.ends_with("sys.rs"));
    assert!(sys.iter().any(|(_, text)| is_unsafe(text)), "files named sys.rs are looked at");
    for (path, text) in rest {
        assert!(path.ends_with("tidy.rs") || !is_unsafe(&text), "{}", path.display());
    }
}

#[test]
fn no_member_knows_another_but_proxy_the_policy() {
    for (member, others) in [
        ("policy", &["egret_proxy", "egret_inotify", "egret_flows", "egret_confine"][..]),
        ("proxy", &["egret_inotify", "egret_flows", "egret_confine"]),
        ("inotify-fim", &["egret_policy", "egret_proxy", "egret_flows", "egret_confine"]),
        ("flows", &["egret_policy", "egret_proxy", "egret_inotify", "egret_confine"]),
        ("confine", &["egret_policy", "egret_proxy", "egret_inotify", "egret_flows"]),
    ] {
        for (path, text) in files(&format!("{member}/src"), "rs") {
            for other in others {
                assert!(!text.contains(other), "{} knows {other}", path.display());
            }
        }
    }
}

#[test]
fn every_shipped_policy_is_valid_and_tested() {
    for (path, text) in files("examples", "yaml") {
        let checked = run_egret(["check", &path.display().to_string()], "");
        assert_eq!(checked.code, 0, "{}: {}", path.display(), checked.stderr);
        assert!(text.contains("tests:"), "{} has no tests", path.display());
    }
}

#[test]
fn o10_every_reason_is_documented_and_tested() {
    let reference = read("docs/reference.md");
    let is_test = |path: &Path| path.ends_with("tests.rs") || path.starts_with(root().join("tests"));
    let all = files("tests", "rs").into_iter().chain(files("policy/src", "rs"));
    let tests: String = all.filter(|(path, _)| is_test(path) && !path.ends_with("tidy.rs")).map(|(_, text)| text).collect();
    for reason in egret_policy::Reason::ALL {
        let code = reason.code();
        assert!(reference.contains(&format!("| `{code}` |")), "docs/reference.md lacks the reason {code}");
        assert!(tests.contains(&format!("Reason::{reason:?}")) || tests.contains(&format!("\"{code}\"")), "no test for {code}");
    }
}

#[test]
fn every_diagnostic_and_preset_is_documented_and_shown_by_a_policy() {
    let reference = read("docs/policy.md");
    let shown: String =
        ["bad", "lint"].iter().flat_map(|kind| files(&format!("tests/policies/{kind}"), "txt")).map(|(_, text)| text).collect();
    // These two depend on the day and on the machine; unit tests show them.
    let elsewhere = [Code::Expiring, Code::ExeNotVisible];
    for code in Code::ALL {
        assert!(reference.contains(&format!("| `{}` |", code.as_str())), "docs/policy.md lacks {}", code.as_str());
        let seen = shown.contains(&format!("[{}]", code.as_str()));
        assert!(seen || elsewhere.contains(code), "no policy in tests/policies shows {}", code.as_str());
    }
    for preset in presets::ALL {
        assert!(reference.contains(&format!("| `{}` |", preset.name)), "docs/policy.md lacks the preset {}", preset.name);
    }
}

#[test]
fn every_metric_is_documented_and_used() {
    let (table, reference) = (read("src/metrics.rs"), read("docs/reference.md"));
    let names: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|line| line.trim_start_matches("pub(crate) ").strip_prefix("const ")?.split_once(": &str = \"egret_"))
        .map(|(constant, rest)| (constant, rest.trim_end_matches("\";")))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    let sources: String = files("src", "rs").into_iter().map(|(_, text)| text).collect();
    for (constant, name) in names {
        assert!(reference.contains(&format!("`egret_{name}")), "docs/reference.md lacks egret_{name}");
        assert!(sources.matches(constant).count() >= 3, "{constant} is declared and described, but never recorded");
    }
}

#[test]
fn files_stay_short() {
    for folder in ["src", "policy/src", "proxy/src", "inotify-fim/src", "flows/src", "confine/src", "tests"] {
        for (path, text) in files(folder, "rs") {
            let lines = text.lines().count();
            let limit = if path.ends_with("tests.rs") { 600 } else { 520 };
            assert!(lines <= limit, "{} has {lines} lines", path.display());
        }
    }
}
