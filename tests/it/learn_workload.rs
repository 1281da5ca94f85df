//! From audit to a tight policy with real clients: what is learnt from a workload lets the very same workload through
//! when it is enforced, and nothing else; one line less is one name less.
//!
//! Needs Debian's curl, openssl and python3-requests, and Node 24.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::journal::{learn, replay};
use crate::support::programs::{Output, node};
use crate::support::rules::LOCALHOST;
use crate::support::{Ca, DnsServer, Egret, Program, Upstream};

/// What the task talks to: which client, which name.
const TASKS: [(&str, &str); 6] = [
    ("curl over TLS", "api.shop.test"),
    ("Python requests", "pypi.shop.test"),
    ("Node fetch", "npm.shop.test"),
    ("openssl s_client", "db.other.test"),
    ("curl in the clear", "web.other.test"),
    ("Node fetch in the clear", "feed.other.test"),
];

const REQUESTS: &str = "import sys, requests; print(requests.get(sys.argv[1], timeout=20).text)";
const FETCH: &str = "fetch(process.argv[1]).then(async r => console.log(await r.text()))";

/// The servers that the task talks to, and the resolver that knows them.
struct Site {
    dns: DnsServer,
    tls: Upstream,
    packages: Upstream,
    web: Upstream,
    ca: PathBuf,
    home: TempDir,
}

impl Site {
    fn new() -> Self {
        let (ca, dns, home) = (Ca::new(), DnsServer::new(), TempDir::new().expect("a temporary directory"));
        let names = TASKS.map(|(_, name)| name);
        for name in names {
            dns.answers(name, &LOCALHOST);
        }
        let (tls, packages) = (Upstream::tls(&ca.issue(&names), "hello\n"), Upstream::tls(&ca.issue(&names), "hello\n"));
        let (web, ca) = (Upstream::http("hello\n"), ca.write_pem(home.path()));
        Self { dns, tls, packages, web, ca, home }
    }

    /// Audit, in which names on loopback may be reached although nobody has listed them.
    fn audit(&self) -> String {
        let allow = "egress: { allow: [{ to: 127.0.0.0/8, ports: [1-65535], as: tcp }] }";
        format!("version: 1\nmode: audit\n{allow}\n{}", self.dns_section())
    }

    fn dns_section(&self) -> String {
        format!("dns: {{ upstream: \"{}\" }}\n", self.dns.addr())
    }

    /// One client's visit to one name.
    fn visit(&self, client: &str, name: &str, proxy: &str) -> Output {
        let url = |scheme: &str, upstream: &Upstream| format!("{scheme}://{name}:{}/", upstream.port());
        let program = match client {
            "curl over TLS" => self.curl().arg(url("https", &self.tls)),
            "curl in the clear" => self.curl().arg(url("http", &self.web)),
            "Python requests" => self.python().args(["-c", REQUESTS, &url("https", &self.packages)]),
            "Node fetch" => self.node().arg(url("https", &self.packages)),
            "Node fetch in the clear" => self.node().arg(url("http", &self.web)),
            "openssl s_client" => self.openssl(name, proxy),
            other => panic!("no such client: {other}"),
        };
        let proxy = format!("http://{proxy}");
        ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"].iter().fold(program, |p, name| p.env(name, &proxy)).run()
    }

    fn curl(&self) -> Program {
        Program::new("curl").args(["-sS", "--max-time", "20", "--cacert"]).arg(&self.ca)
    }

    fn python(&self) -> Program {
        Program::at(Path::new("/usr/bin/python3")).env("REQUESTS_CA_BUNDLE", &self.ca)
    }

    fn node(&self) -> Program {
        let program = Program::at(&node()).args(["-e", FETCH]).env("HOME", self.home.path());
        program.env("NODE_USE_ENV_PROXY", "1").env("NODE_EXTRA_CA_CERTS", &self.ca)
    }

    fn openssl(&self, name: &str, proxy: &str) -> Program {
        let target = format!("{name}:{}", self.tls.port());
        let program = Program::new("openssl").args(["s_client", "-proxy", proxy, "-connect", &target, "-servername", name]);
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        program.args(["-quiet", "-verify_return_error", "-CAfile"]).arg(&self.ca).stdin(request.as_bytes())
    }

    /// Runs the whole workload under this policy: the names that were not reached, and the journal.
    fn workload(&self, policy: &str) -> (Vec<&'static str>, String) {
        let egret = Egret::with_policy(policy).arg("--drain").arg("0").start();
        let proxy = egret.proxy().to_string();
        let visits = TASKS.map(|(client, name)| (client, name, self.visit(client, name, &proxy)));
        let missed = visits.iter().filter(|(client, name, output)| {
            let incomplete = output.stderr.contains("No module named 'requests'");
            assert!(!incomplete, "this test needs the Debian package python3-requests");
            let reached = output.stdout.contains("hello");
            if !reached {
                eprintln!("{client} did not reach {name}: {output:#?}");
            }
            !reached
        });
        let missed = missed.map(|(_, name, _)| *name).collect();
        egret.stop();
        assert_eq!(egret.wait_records(TASKS.len()).len(), TASKS.len());
        (missed, egret.stdout_lines().join("\n"))
    }
}

/// The names of which a connection or request was denied, or would have been.
fn objected(journal: &str) -> Vec<String> {
    let events = journal.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of a journal"));
    let objected = events.filter(|event| event["event"] == "connection" && event["decision"] != "allow");
    let mut names: Vec<String> = objected.map(|event| event["host"].as_str().unwrap_or("-").to_owned()).collect();
    names.sort();
    names
}

/// The policy with `audit` made `enforce` in the line that stderr names.
fn flipped(policy: &str, stderr: &str) -> String {
    let hint = "egret: to enforce, change `mode: audit` to `mode: enforce` in line ";
    let line = stderr.lines().find_map(|line| line.strip_prefix(hint)).unwrap_or_else(|| panic!("no line to flip: {stderr}"));
    let number: usize = line.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
    let flip = |(at, line): (usize, &str)| {
        let line = if at + 1 == number { line.replacen("mode: audit", "mode: enforce", 1) } else { line.to_owned() };
        line + "\n"
    };
    let enforced: String = policy.lines().enumerate().map(flip).collect();
    assert_ne!(enforced, policy, "line {number} is not the one: {policy}");
    enforced
}

#[test]
fn o07_what_is_learnt_from_a_workload_lets_that_workload_through_and_each_line_is_one_name() {
    let site = Site::new();
    let (missed, journal) = site.workload(&site.audit());
    assert_eq!(missed, [""; 0], "audit lets everything through");
    let mut names = TASKS.map(|(_, name)| name.to_owned());
    names.sort();
    assert_eq!(objected(&journal), names, "and has no rule for any of it");

    let learnt = learn(&journal, &[]);
    assert_eq!(learnt.code, 0, "{learnt:#?}");
    assert!(learnt.stderr.contains("egret: learnt 6 rules from 6 events"), "{}", learnt.stderr);
    assert!(learnt.stdout.contains("within"), "answers on loopback have to be leave-given: {}", learnt.stdout);
    let replayed = replay(&learnt.stdout, &journal, &[]);
    assert_eq!(replayed.code, 0, "{replayed:#?}\n{}", learnt.stdout);

    let enforced = flipped(&learnt.stdout, &learnt.stderr) + &site.dns_section();
    let (missed, journal) = site.workload(&enforced);
    assert_eq!((missed, objected(&journal)), (vec![], vec![]), "nothing is refused under\n{enforced}");

    for name in ["npm.shop.test", "web.other.test"] {
        let (missed, journal) = site.workload(&without(&enforced, name));
        assert_eq!((missed, objected(&journal)), (vec![name], vec![name.to_owned()]), "one line less than\n{enforced}");
    }
}

/// The policy without its one line for this name.
fn without(policy: &str, name: &str) -> String {
    let is_rule = |line: &str| line.trim_start().starts_with("- ") && line.contains(name);
    let (rules, rest): (Vec<&str>, Vec<&str>) = policy.lines().partition(|line| is_rule(line));
    assert_eq!(rules.len(), 1, "{name} has a line of its own: {policy}");
    rest.join("\n") + "\n"
}
