//! The document that users follow is true: each of its commands is run as it stands there, in its order, and prints what
//! the document shows.
//!
//! It runs in namespaces of its own, where 93.184.0.0/16 is this machine: addresses that are global to egret, without a
//! packet to anywhere. Needs Debian's curl, iproute2, nginx-light and util-linux.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::journal::write;
use crate::support::programs::require;
use crate::support::{Ca, Program};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/walkthrough.md");

/// The names of the document that exist, and where.
const HOSTS: [(&str, &str); 2] = [("93.184.216.34", "api.example.com"), ("93.184.216.35", "cdn.example.com")];

/// The commands of the document that are meant to fail, and how.
const FAILING: [(&str, i32); 2] = [("curl -sS https://paste.example.net/", 56), ("egret explain paste.example.net", 1)];

/// What a command is meant to write is shown in the fence that follows it, in one of these languages.
const SHOWN: [&str; 2] = ["text", "yaml"];

/// One fence of the document.
struct Fence {
    language: String,
    text: String,
    line: usize,
    /// Nothing but empty lines between the fence before and this one.
    follows: bool,
}

/// Commands that run together, and what they are said to print.
struct Step {
    commands: String,
    shown: Option<String>,
    line: usize,
}

fn fences(document: &str) -> Vec<Fence> {
    let (mut fences, mut open, mut follows): (Vec<Fence>, Option<Fence>, bool) = (Vec::new(), None, false);
    for (at, line) in document.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(language), None) => {
                let language = language.trim().to_owned();
                open = Some(Fence { language, text: String::new(), line: at + 1, follows });
            }
            (Some(_), Some(fence)) => {
                fences.push(fence);
                follows = true;
            }
            (None, Some(mut fence)) => {
                fence.text += line;
                fence.text.push('\n');
                open = Some(fence);
            }
            (None, None) => follows &= line.trim().is_empty(),
        }
    }
    assert!(open.is_none(), "a fence is never closed");
    fences
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut after_step = false;
    for fence in fences(document) {
        let is_step = fence.language == "sh";
        if is_step {
            steps.push(Step { commands: fence.text, shown: None, line: fence.line });
        } else if let (true, Some(step)) = (after_step && fence.follows && SHOWN.contains(&&*fence.language), steps.last_mut()) {
            step.shown = Some(fence.text);
        }
        after_step = is_step;
    }
    steps
}

/// Whether `text` is `pattern`, in which `…` stands for anything.
fn fits(text: &str, pattern: &str) -> bool {
    let Some((start, pattern)) = pattern.split_once('…') else { return text == pattern };
    let Some(rest) = text.strip_prefix(start) else { return false };
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| fits(&rest[at..], pattern))
}

/// Every shown line stands in the output, in its order; a line that is `…` stands for any lines. Without one, nothing else
/// may stand there.
fn assert_shown(step: &Step, output: &str) {
    let Some(shown) = &step.shown else { return };
    let mut lines = output.lines().filter(|line| !line.trim().is_empty());
    let mut skipping = false;
    for wanted in shown.lines().filter(|line| !line.trim().is_empty()) {
        if wanted == "…" {
            skipping = true;
            continue;
        }
        let found =
            if skipping { lines.any(|line| fits(line, wanted)) } else { lines.next().is_some_and(|line| fits(line, wanted)) };
        assert!(found, "docs/walkthrough.md:{}: {}prints no such line: {wanted}\nit prints:\n{output}", step.line, step.commands);
        skipping = false;
    }
    let more: Vec<&str> = lines.collect();
    assert!(skipping || more.is_empty(), "docs/walkthrough.md:{}: {}prints more: {more:#?}", step.line, step.commands);
}

/// What the shell of the document stands in: names, addresses and a server for them, in namespaces that end with it.
fn stage(home: &Path) -> String {
    let ca = Ca::new();
    ca.write_pem(home);
    ca.issue(&HOSTS.map(|(_, name)| name)).write_pem(home);
    let hosts: String = HOSTS.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
    write(home, "hosts", format!("127.0.0.1 localhost\n{hosts}"));
    // Nobody listens there: what is not in the hosts file does not exist.
    write(home, "resolv.conf", "nameserver 127.0.0.1\n");
    let listen: String = HOSTS.iter().map(|(address, _)| format!("listen {address}:443 ssl; ")).collect();
    let answer = "location / { return 200 \"hello from $host\\n\"; }";
    let server = format!("server {{ {listen}ssl_certificate server.pem; ssl_certificate_key server.key; {answer} }}");
    let folders = "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; \
                   scgi_temp_path scgi;";
    let http = format!("http {{ access_log off; default_type text/plain; {folders} {server} }}");
    // root, as the namespace knows no other user; it listens before its first process ends.
    write(home, "nginx.conf", format!("user root root; master_process off; pid nginx.pid;\nevents {{}}\n{http}\n"));
    let nginx = require("nginx");
    format!(
        "set -e\nexec 2>&1\nip link set lo up\nip route add local 93.184.0.0/16 dev lo\nmount --bind hosts /etc/hosts\n\
         mount --bind resolv.conf /etc/resolv.conf\n{} -e error.log -p \"$PWD/\" -c \"$PWD/nginx.conf\"\nset +e\nmkdir work\ncd work\n",
        nginx.display()
    )
}

/// The line before what step `at` prints, and the beginning of the one after it.
fn marker(at: usize) -> String {
    format!("--- step {at} ---")
}

/// Runs the steps in one shell: what each printed, and how it ended.
fn perform(home: &Path, steps: &[Step]) -> Vec<(String, i32)> {
    let mut script = stage(home);
    for (at, step) in steps.iter().enumerate() {
        script += &format!("echo '{}'\n{}printf '\\n{} ended with %s\\n' $?\n", marker(at), step.commands, marker(at));
    }
    let egret = Path::new(env!("CARGO_BIN_EXE_egret")).parent().expect("the program lies in a folder");
    require("ip");
    let program = Program::new("unshare").args(["-r", "-n", "-m", "-p", "-f", "--kill-child", "sh"]).dir(home);
    let program = program.arg(write(home, "script", script)).env("CURL_CA_BUNDLE", home.join("ca.pem"));
    let output = program.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", egret.display())).run();
    let result = |at: usize| {
        let (begin, end) = (format!("{}\n", marker(at)), format!("\n{} ended with ", marker(at)));
        let rest = output.stdout.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
        let (printed, rest) = rest.unwrap_or_else(|| panic!("step {at} never ended: {output:#?}"));
        (printed.to_owned(), rest.lines().next().and_then(|code| code.parse().ok()).expect("an exit code"))
    };
    (0..steps.len()).map(result).collect()
}

#[test]
fn the_walkthrough_does_what_it_says_word_for_word() {
    let document = fs::read_to_string(DOCUMENT).unwrap_or_else(|e| panic!("{DOCUMENT}: {e}"));
    let steps = steps(&document);
    let home = TempDir::new().expect("a temporary directory");
    for (step, (printed, code)) in steps.iter().zip(perform(home.path(), &steps)) {
        let failing = FAILING.iter().find(|(command, _)| step.commands.starts_with(command));
        let expected = failing.map_or(0, |(_, code)| *code);
        assert_eq!(code, expected, "docs/walkthrough.md:{}: {}printed:\n{printed}", step.line, step.commands);
        assert_shown(step, &printed);
    }
    let enforced = fs::read_to_string(home.path().join("work/enforced.ndjson")).expect("the journal of the last step");
    let events = enforced.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of a journal"));
    let mut verdicts: Vec<(String, String)> = events
        .filter(|event| event["event"] == "connection")
        .map(|event| ["host", "decision"].map(|field| event[field].as_str().unwrap_or("-").to_owned()).into())
        .collect();
    // A tunnel's record is written when it ends, which may be after the next one was refused.
    verdicts.sort();
    let expected = [("api.example.com", "allow"), ("cdn.example.com", "allow"), ("paste.example.net", "deny")];
    let expected = expected.map(|(host, decision)| (host.to_owned(), decision.to_owned()));
    assert_eq!(verdicts, expected, "{enforced}");
}

#[test]
fn five_commands_is_what_the_title_promises() {
    let document = fs::read_to_string(DOCUMENT).unwrap_or_else(|e| panic!("{DOCUMENT}: {e}"));
    let steps = steps(&document);
    let commands: Vec<&str> =
        steps.iter().flat_map(|step| step.commands.lines()).filter(|line| line.starts_with("egret ")).collect();
    let verbs: Vec<&str> = commands.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(verbs[..5], ["run", "report", "learn", "check", "run"], "{commands:#?}");
    assert_eq!(verbs[5..], ["explain", "report"], "what comes after only asks: {commands:#?}");
    let numbered = document.lines().filter(|line| line.starts_with("## ") && line.as_bytes()[3].is_ascii_digit()).count();
    assert_eq!(numbered, 5);
    assert!(steps.iter().filter(|step| step.shown.is_some()).count() >= 6, "most commands show what they print");
}
