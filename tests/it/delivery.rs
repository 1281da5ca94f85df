//! How settings and policies come to egret: every place in its order for every command, and what `--print-config` says
//! of them. Wherever `/etc` counts, it is one of the test's own, in a mount namespace.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::egret_program;
use crate::support::journal::write;
use crate::support::programs::{Output, require};
use crate::support::{Ca, Egret, Program, Upstream, eventually, http_connect};

const EGRET: &str = env!("CARGO_BIN_EXE_egret");

/// The places, the first of which wins.
const PLACES: [&str; 4] = ["a file that is named", "EGRET_POLICY", "EGRET_ALLOW", "/etc/egret/policy.yaml"];

/// An empty `/etc` with this policy in it, if it is one. No name is ever looked up there.
const OWN_ETC: &str = r#"
set -e
mount -t tmpfs none /etc
echo 'nameserver 127.0.0.1' >/etc/resolv.conf
if [ -n "$1" ]; then
    mkdir /etc/egret
    printf %s "$1" >/etc/egret/policy.yaml
fi
shift
exec "$@"
"#;

/// The words before a command that is to run with an `/etc` of its own. It becomes the command itself.
fn with_etc(policy: &str) -> Vec<String> {
    let unshare = require("unshare").display().to_string();
    [&unshare, "-r", "-m", "/bin/sh", "-c", OWN_ETC, "sh", policy].map(str::to_owned).to_vec()
}

/// One of egret's commands with an `/etc` of its own.
fn command_with_etc(policy: &str) -> Program {
    let words = with_etc(policy);
    Program::at(Path::new(&words[0])).args(&words[1..]).arg(EGRET)
}

/// A policy that opens this port of loopback and nothing else.
fn opening(port: u16) -> String {
    format!("version: 1\negress: {{ allow: [\"127.0.0.1:{port}\"] }}\n")
}

/// A server for each place: the policy found there opens this server, and no other.
struct Site {
    servers: [Upstream; 4],
    home: TempDir,
}

impl Site {
    fn new() -> Self {
        Self { servers: PLACES.map(|_| Upstream::echo()), home: TempDir::new().expect("a temporary directory") }
    }

    fn target(&self, place: usize) -> String {
        self.servers[place].addr().to_string()
    }

    fn policy_at(&self, place: usize) -> String {
        opening(self.servers[place].port())
    }

    fn file(&self) -> PathBuf {
        write(self.home.path(), "named.yaml", self.policy_at(0))
    }

    /// The variables of the places from this one on.
    fn variables(&self, first: usize) -> Vec<(&'static str, String)> {
        let all = [(1, "EGRET_POLICY", self.policy_at(1)), (2, "EGRET_ALLOW", self.target(2))];
        all.into_iter().filter(|(place, ..)| *place >= first).map(|(_, name, value)| (name, value)).collect()
    }

    /// One of egret's commands, where every place from this one on has a policy; `named` says how a file is named.
    fn command(&self, first: usize, words: &[&str], named: &[&str]) -> Output {
        let mut program = command_with_etc(&self.policy_at(3)).args(words);
        if first == 0 {
            program = program.args(named).arg(self.file());
        }
        for (name, value) in self.variables(first) {
            program = program.env(name, value);
        }
        program.run()
    }

    fn start(&self, first: usize) -> Egret {
        let mut builder = Egret::without_policy().under(with_etc(&self.policy_at(3)));
        if first == 0 {
            builder = builder.arg("--policy").arg(self.file());
        }
        for (name, value) in self.variables(first) {
            builder = builder.env(name, value);
        }
        builder.start()
    }
}

#[test]
fn of_several_policies_run_takes_the_first() {
    let site = Site::new();
    for (first, name) in PLACES.iter().enumerate() {
        let egret = site.start(first);
        for (place, whose) in PLACES.iter().enumerate() {
            let status = http_connect(egret.proxy(), &site.target(place)).response.status;
            let expected = if place == first { 200 } else { 403 };
            assert_eq!(status, expected, "with {name} and all after it, a rule of {whose}");
        }
    }
}

#[test]
fn of_several_policies_explain_takes_the_first() {
    let site = Site::new();
    for (first, name) in PLACES.iter().enumerate() {
        for (place, whose) in PLACES.iter().enumerate() {
            let output = site.command(first, &["explain", &site.target(place)], &["--policy"]);
            let expected = i32::from(place != first);
            assert_eq!(output.code, expected, "with {name} and all after it, a rule of {whose}: {output:#?}");
        }
    }
}

#[test]
fn of_several_policies_check_takes_the_first() {
    let site = Site::new();
    for (first, name) in PLACES.iter().enumerate() {
        let output = site.command(first, &["check"], &[]);
        let origin = if first == 0 { site.file().display().to_string() } else { (*name).to_owned() };
        assert_eq!((output.code, output.stdout), (0, format!("{origin}: ok (1 rule, 0 tests, mode enforce)\n")), "{name}");
    }
}

#[test]
fn where_nothing_is_found_every_command_names_all_places() {
    for command in [&["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"][..], &["check"], &["explain", "a.test"]] {
        let none = command_with_etc("").args(command).run();
        assert_eq!((none.code, none.stdout.as_str()), (2, ""), "{command:?}: {none:#?}");
        for place in ["none is named", "FILE", "EGRET_POLICY", "EGRET_ALLOW", "/etc/egret/policy.yaml", "--mode audit"] {
            assert!(none.stderr.contains(place), "{command:?}, {place}: {none:#?}");
        }
    }
    let observing = Egret::without_policy().under(with_etc("")).arg("--mode").arg("audit").start();
    assert_eq!(observing.started()["mode"], "audit");
}

#[test]
fn the_policy_in_etc_is_watched_too() {
    let server = Upstream::echo();
    let egret = Egret::without_policy().under(with_etc("version: 1\n")).start();
    let status = || http_connect(egret.proxy(), &server.addr().to_string()).response.status;
    assert_eq!(status(), 403);
    let seen_from_here = format!("/proc/{}/root/etc/egret/policy.yaml", egret.pid());
    fs::write(&seen_from_here, opening(server.port())).unwrap_or_else(|e| panic!("{seen_from_here}: {e}"));
    egret.event("policy", |event| event["result"] == "loaded");
    assert_eq!(status(), 200);
}

/// Linux passes no longer string to a program (execve(2), MAX_ARG_STRLEN).
const LONGEST_VARIABLE: usize = 128 * 1024;

#[test]
fn a_packed_policy_can_be_longer_than_a_variable() {
    let server = Upstream::echo();
    let rules: String = (0..6_000).map(|at| format!("    - host-{at}.example.com\n")).collect();
    let policy = format!("version: 1\negress:\n  allow:\n    - 127.0.0.1:{}\n{rules}", server.port());
    // As people do it; base64 breaks its lines.
    let packed = Program::at(Path::new("/bin/sh")).args(["-c", "gzip -9 | base64"]).stdin(policy.as_bytes()).run();
    let packed = format!("gz:{}", packed.stdout);
    assert!(policy.len() > LONGEST_VARIABLE && packed.len() < LONGEST_VARIABLE, "{} {}", policy.len(), packed.len());

    let checked = egret_program().env("EGRET_POLICY", &packed).arg("check").run();
    assert_eq!(checked.stdout, "EGRET_POLICY: ok (6001 rules, 0 tests, mode enforce)\n", "{}", checked.stderr);
    let explained = egret_program().env("EGRET_POLICY", &packed).args(["explain", "host-5999.example.com"]).run();
    assert!(explained.code == 0 && explained.stdout.contains("EGRET_POLICY:6004"), "{explained:#?}");
    let egret = Egret::without_policy().env("EGRET_POLICY", &packed).start();
    assert_eq!(http_connect(egret.proxy(), &server.addr().to_string()).response.status, 200);
    assert_eq!(http_connect(egret.proxy(), "host-6000.example.com:443").response.status, 403);
}

fn packed(bytes: &[u8]) -> String {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).expect("memory takes bytes");
    STANDARD.encode(gzip.finish().expect("memory takes bytes"))
}

#[test]
fn c51_a_packed_policy_that_is_none_is_named_and_never_in_force() {
    let whole = packed(b"version: 1\n");
    let half = &whole[..whole.len() / 8 * 4];
    let cases = [
        ("nothing", "", "EGRET_POLICY"),
        ("no base64", "!!!", "base64"),
        ("no gzip", "dmVyc2lvbjogMQo=", "gzip"),
        ("half of it", half, "gzip"),
        ("no text", &packed(b"version: \xff\xfe"), "EGRET_POLICY"),
        ("32 MiB", &packed(&vec![b' '; 32 << 20]), "16 MiB"),
    ];
    for (case, base64, told) in cases {
        // Another place that would do is not asked: whoever packed a policy meant it.
        let program = egret_program().env("EGRET_POLICY", format!("gz:{base64}")).env("EGRET_ALLOW", "a.test");
        let output = program.args(["explain", "a.test"]).run();
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{case}: {output:#?}");
        assert!(output.stderr.contains(told), "{case}: {output:#?}");
    }
}

#[test]
fn a_list_of_names_is_a_policy() {
    let names = "a.test *.b.test,c.test:5432\n127.0.0.1:8080\t10.20.0.0/16";
    let checked = egret_program().env("EGRET_ALLOW", names).arg("check").run();
    assert_eq!(checked.stdout, "EGRET_ALLOW: ok (5 rules, 0 tests, mode enforce)\n", "{}", checked.stderr);
    let explain = |target: &str, mode: &str| {
        egret_program().env("EGRET_ALLOW", names).env("EGRET_MODE", mode).args(["explain", target]).run()
    };
    for target in ["a.test", "x.b.test", "c.test:5432", "127.0.0.1:8080", "10.20.3.4"] {
        assert_eq!(explain(target, "enforce").code, 0, "{target}");
    }
    for target in ["b.test", "a.test:80", "c.test", "127.0.0.1", "evil.test"] {
        assert_eq!(explain(target, "enforce").code, 1, "{target}");
    }
    let audited = explain("evil.test", "audit");
    assert!(audited.code == 0 && audited.stdout.contains("would deny"), "{audited:#?}");
    assert_eq!(explain("a.test", "observe").code, 2, "a mode that is none");
}

#[test]
fn c50_a_list_of_names_holds_names_and_nothing_else() {
    for names in ["https://a.test/", "a.test:0", "*.com", "*", "a.test\", mode: audit #", "{to: a.test}", "$set", "a.test;b.test"]
    {
        let output = egret_program().env("EGRET_ALLOW", names).arg("check").run();
        assert_eq!(output.code, 2, "{names}: {output:#?}");
        assert!(output.stderr.contains("--> EGRET_ALLOW:"), "{names}: {output:#?}");
    }
}

/// A setting as `--print-config` tells it.
#[derive(Debug)]
struct Told {
    name: String,
    value: String,
    from: String,
}

/// What `egret run --print-config=json`, with more arguments, tells.
fn settings(program: Program, more: &[&str]) -> Vec<Told> {
    let output = program.args(["run", "--print-config=json"]).args(more).run();
    assert_eq!(output.code, 0, "{output:#?}");
    let told: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {output:#?}"));
    assert_eq!(told["v"], 1, "{told:#}");
    let text = |setting: &Value, field: &str| {
        setting[field].as_str().map(str::to_owned).unwrap_or_else(|| panic!("`{field}` is no text: {setting}"))
    };
    let one = |setting| Told { name: text(setting, "name"), value: text(setting, "value"), from: text(setting, "from") };
    told["settings"].as_array().unwrap_or_else(|| panic!("no list: {told:#}")).iter().map(one).collect()
}

/// The value and origin of a setting. Of a value with a unit behind it, only the number.
fn setting<'t>(all: &'t [Told], name: &str) -> (&'t str, &'t str) {
    let one = all.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no {name} in {all:#?}"));
    (one.value.split(' ').next().unwrap_or_default(), &one.from)
}

/// A setting in the four ways it can be set, each with the value it then has.
struct Setting {
    name: &'static str,
    flag: (&'static [&'static str], &'static str),
    variable: (&'static str, &'static str),
    key: (&'static str, &'static str),
    default: &'static str,
}

const FOUR_WAYS: [Setting; 9] = [
    Setting {
        name: "mode",
        flag: (&["--mode", "audit"], "audit"),
        variable: ("EGRET_MODE", "enforce"),
        key: ("mode: audit", "audit"),
        default: "enforce",
    },
    Setting {
        name: "listen",
        flag: (&["--listen", "127.0.0.1:1", "--listen", "127.0.0.2:1"], "127.0.0.1:1,127.0.0.2:1"),
        variable: ("EGRET_LISTEN", "127.0.0.1:2,127.0.0.2:2"),
        key: ("run: { listen: [\"127.0.0.1:3\", \"127.0.0.2:3\"] }", "127.0.0.1:3,127.0.0.2:3"),
        default: "127.0.0.1:3128",
    },
    Setting {
        name: "admin",
        flag: (&["--admin", "127.0.0.1:1"], "127.0.0.1:1"),
        variable: ("EGRET_ADMIN", "127.0.0.1:2"),
        key: ("run: { admin: \"127.0.0.1:3\" }", "127.0.0.1:3"),
        default: "127.0.0.1:3129",
    },
    Setting {
        name: "journal",
        flag: (&["--journal", "flag.ndjson"], "flag.ndjson"),
        variable: ("EGRET_JOURNAL", "variable.ndjson"),
        key: ("run: { journal: file.ndjson }", "file.ndjson"),
        default: "-",
    },
    Setting {
        name: "drain",
        flag: (&["--drain", "1"], "1"),
        variable: ("EGRET_DRAIN", "2"),
        key: ("run: { drain: 3 }", "3"),
        default: "10",
    },
    Setting {
        name: "connections",
        flag: (&["--connections", "1"], "1"),
        variable: ("EGRET_CONNECTIONS", "2"),
        key: ("run: { connections: 3 }", "3"),
        default: "16384",
    },
    Setting {
        name: "close-revoked",
        flag: (&["--close-revoked"], "true"),
        variable: ("EGRET_CLOSE_REVOKED", "false"),
        key: ("run: { close-revoked: true }", "true"),
        default: "false",
    },
    Setting {
        name: "confine",
        flag: (&["--confine", "off"], "off"),
        variable: ("EGRET_CONFINE", "require"),
        key: ("run: { confine: off }", "off"),
        default: "auto",
    },
    Setting {
        name: "flows",
        flag: (&["--flows", "60"], "60"),
        variable: ("EGRET_FLOWS", "61"),
        key: ("run: { flows: 62 }", "62"),
        default: "300",
    },
];

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default() {
    let home = TempDir::new().expect("a temporary directory");
    for one in FOUR_WAYS {
        let ways = [
            (one.flag.1, one.flag.0[0]),
            (one.variable.1, one.variable.0),
            (one.key.1, "policy.yaml:2"),
            (one.default, "default"),
        ];
        for (first, (value, from)) in ways.into_iter().enumerate() {
            let key = if first <= 2 { one.key.0 } else { "" };
            write(home.path(), "policy.yaml", format!("version: 1\n{key}\n"));
            let mut program = egret_program().dir(home.path());
            if first <= 1 {
                program = program.env(one.variable.0, one.variable.1);
            }
            let flag = if first == 0 { one.flag.0 } else { &[] };
            let all = settings(program, &[&["--policy", "policy.yaml"], flag].concat());
            assert_eq!(setting(&all, one.name), (value, from), "{}: {all:#?}", one.name);
        }
    }
}

/// Every setting of the file in a line of its own.
const EVERYTHING: &str = "\
version: 1
mode: audit
audit-until: 2999-12-31
dns:
  upstream: 127.0.0.1:5353
  ca: ca.pem
  private-answers: allow
run:
  listen: [\"127.0.0.1:1\"]
  admin: \"127.0.0.1:2\"
  journal: j
  drain: 3
  connections: 4
  close-revoked: true
  confine: require
  flows: 30
  journal-full: stop
";

#[test]
fn every_setting_is_told_with_the_line_it_comes_from() {
    let home = TempDir::new().expect("a temporary directory");
    Ca::new().write_pem(home.path());
    write(home.path(), "policy.yaml", EVERYTHING);
    let program = || egret_program().dir(home.path()).env("EGRET_LOG", "info");
    let all = settings(program(), &["--policy", "policy.yaml"]);
    let expected = [
        ("policy", "policy.yaml", "--policy"),
        ("mode", "audit", "policy.yaml:2"),
        ("audit-until", "2999-12-31T00:00:00Z", "policy.yaml:3"),
        ("listen", "127.0.0.1:1", "policy.yaml:9"),
        ("admin", "127.0.0.1:2", "policy.yaml:10"),
        ("journal", "j", "policy.yaml:11"),
        ("drain", "3", "policy.yaml:12"),
        ("connections", "4", "policy.yaml:13"),
        ("close-revoked", "true", "policy.yaml:14"),
        ("confine", "require", "policy.yaml:15"),
        ("flows", "30", "policy.yaml:16"),
        ("journal-full", "stop", "policy.yaml:17"),
        ("dns.upstream", "127.0.0.1:5353", "policy.yaml:5"),
        ("dns.ca", "1", "policy.yaml:6"),
        ("dns.private-answers", "allow", "policy.yaml:7"),
        ("log", "info", "EGRET_LOG"),
    ];
    assert_eq!(all.len(), expected.len(), "{all:#?}");
    for (name, value, from) in expected {
        assert_eq!(setting(&all, name), (value, from), "{name}: {all:#?}");
    }
    let table = program().args(["run", "--print-config", "--policy", "policy.yaml"]).run();
    assert_table(&table, &all);
}

/// A head and a row for each setting, in columns.
fn assert_table(table: &Output, all: &[Told]) {
    assert_eq!(table.code, 0, "{table:#?}");
    let (head, rows) = table.stdout.split_once('\n').expect("the table has a head");
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["SETTING", "VALUE", "FROM"], "{}", table.stdout);
    let [value, from] = ["VALUE", "FROM"].map(|word| head.find(word).expect("the head has it"));
    let cells = |row: &str| [&row[..value], &row[value..from], &row[from..]].map(|cell| cell.trim_end().to_owned());
    let found: Vec<[String; 3]> = rows.lines().map(cells).collect();
    let expected: Vec<[String; 3]> = all.iter().map(|one| [&one.name, &one.value, &one.from].map(String::clone)).collect();
    assert_eq!(found, expected, "{}", table.stdout);
}

#[test]
fn without_a_file_the_variable_and_the_defaults_are_told() {
    let all = settings(egret_program().env("EGRET_POLICY", "version: 1\n"), &[]);
    assert_eq!(setting(&all, "policy").1, "EGRET_POLICY");
    let others: Vec<&Told> = all.iter().filter(|one| one.name != "policy").collect();
    assert!(others.iter().all(|one| one.from == "default" && !one.value.is_empty()), "{others:#?}");
    assert_eq!((setting(&all, "dns.upstream").0, setting(&all, "log").0), ("system", "warn"));
    let names = settings(egret_program().env("EGRET_ALLOW", "a.test").env("EGRET_MODE", "audit"), &[]);
    assert_eq!((setting(&names, "policy").1, setting(&names, "mode")), ("EGRET_ALLOW", ("audit", "EGRET_MODE")));
}

#[test]
fn print_config_starts_nothing() {
    let home = TempDir::new().expect("a temporary directory");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
    let address = taken.local_addr().expect("a bound listener has an address").to_string();
    let journal = home.path().join("journal.ndjson");
    for form in ["--print-config", "--print-config=text", "--print-config=json"] {
        let program = egret_program().env("EGRET_POLICY", "version: 1\n").args(["run", form]);
        let program = program.args(["--listen", &address, "--admin", &address, "--journal"]).arg(&journal);
        let output = program.run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{form}: a port in use would be exit 3: {output:#?}");
        assert!(output.stdout.contains(&address) && !output.stdout.contains("lifecycle"), "{form}: {output:#?}");
    }
    assert!(!journal.exists(), "the journal was opened");
    let broken = egret_program().env("EGRET_POLICY", "version: 2\n").args(["run", "--print-config"]).run();
    assert_eq!((broken.code, broken.stdout.as_str()), (2, ""), "{broken:#?}");
    taken.set_nonblocking(true).expect("a listener takes the option");
    assert!(taken.accept().is_err(), "egret connected to a port it was told of");
}

#[test]
fn what_print_config_tells_is_what_run_does() {
    let home = TempDir::new().expect("a temporary directory");
    let journal = home.path().join("from-the-file.ndjson");
    let egret =
        Egret::with_policy(&format!("version: 1\nmode: audit\nrun: {{ journal: {:?} }}\n", journal.display().to_string()));
    let egret = egret.env("EGRET_MODE", "enforce").spawn();
    let line = eventually("the journal of the file has its first line", || {
        let text = fs::read_to_string(&journal).ok()?;
        text.split_once('\n').map(|(line, _)| line.to_owned())
    });
    let started: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!((&started["phase"], &started["mode"]), (&"started".into(), &"enforce".into()), "{started}");
    assert_eq!(egret.stdout_lines(), [""; 0]);
}
