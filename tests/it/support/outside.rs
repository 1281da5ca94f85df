//! A network of its own for one test of a confined app: an inside, where egret and its app live, and an outside with servers
//! and nameservers at public addresses, which tells of everything that arrived, and by a tap of everything that left. The
//! script beside this file is both.
//!
//! Needs root, or user namespaces for everybody; a machine without either is told so loudly, and fails where
//! `EGRET_TEST_ALL=1` says that nothing may be left out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::egret::{EgretBuilder, follow};
use super::programs::{Program, require};
use super::seen::Seen;
use super::{Ca, DEADLINE, Egret};

/// The nameserver that apps are told of; nothing may be asked there.
pub(crate) const APPS_NAMESERVER: &str = "44.0.0.53";
/// The nameserver that egret is told of.
pub(crate) const NAMESERVER: &str = "44.0.0.54";
/// What hosts(5) of the inside lists beside loopback.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n44.0.0.20 listed.test\n45.0.0.20 unlisted.test\n";
/// No capability, for setpriv(1).
const UNPRIVILEGED: [&str; 3] = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];
/// The names on the certificate of every TLS server outside.
const CERTIFIED: [&str; 6] = ["good.test", "other.test", "third.test", "evil.test", "private.test", "six.test"];

/// A running outside.
pub(crate) struct Outside {
    child: Child,
    orders: Mutex<(ChildStdin, usize)>,
    told: Arc<Seen<String>>,
    inside: u64,
    home: TempDir,
}

/// Whether this machine can be tested on; says so loudly if not.
fn is_possible() -> bool {
    let output = unshare(&["true"]).output().expect("unshare runs");
    output.status.success() || untested(&format!("no namespaces: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Says past the test harness, which would keep it to itself, what is left out: always `false`.
pub(crate) fn untested(why: &str) -> bool {
    assert!(std::env::var_os("EGRET_TEST_ALL").is_none(), "{why}");
    drop(writeln!(std::io::stderr(), "\n*** NOT TESTED: {why} ***\n"));
    false
}

/// A policy as egret reads it.
pub(crate) fn whole(policy: &str) -> String {
    asking(policy, NAMESERVER)
}

fn asking(policy: &str, nameserver: &str) -> String {
    format!("version: 1\n{policy}\ndns: {{ upstream: \"{nameserver}\" }}\n")
}

/// What every outside begins with: names, and by kind of record its answers, one after the other.
pub(crate) fn names() -> Value {
    json!({
        "good.test": { "A": [["44.0.0.7"]], "TXT": [["words"]], "SRV": [["other.test"]], "HTTPS": [["other.test"]] },
        "other.test": { "A": [["44.0.0.7"]] },
        "third.test": { "A": [["44.0.0.7"]] },
        "six.test": { "AAAA": [["2a00:900d::7"]] },
        "db.test": { "A": [["44.0.0.8"]] },
        "private.test": { "A": [["10.20.0.9"]] },
        "evil.test": { "A": [["45.0.0.66"]] },
    })
}

impl Outside {
    /// `None`, said loudly, where no such thing can be made.
    pub(crate) fn new() -> Option<Self> {
        Self::with_resolver_options("")
    }

    /// The same with these options of resolv.conf(5) in the inside.
    pub(crate) fn with_resolver_options(options: &str) -> Option<Self> {
        is_possible().then(|| Self::make(options))
    }

    fn make(options: &str) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let ca = Ca::new();
        ca.issue(&CERTIFIED).write_pem(home.path());
        ca.write_pem(home.path());
        let resolver = format!("nameserver {APPS_NAMESERVER}\noptions timeout:20 attempts:1 {options}\n");
        let names = names().to_string();
        for (name, text) in
            [("outside.py", include_str!("outside.py")), ("resolv.conf", &resolver), ("hosts", HOSTS), ("zone.json", &names)]
        {
            fs::write(home.path().join(name), text).expect("the test's directory is writable");
        }
        let script = home.path().join("outside.py");
        let mut outside = unshare(&["/usr/bin/python3", &script.display().to_string(), &home.path().display().to_string()]);
        let mut child = outside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare starts");
        let (orders, told) = (child.stdin.take().expect("stdin is piped"), follow(child.stdout.take()));
        let inside = told.wait_for(|lines| events(lines).find_map(|event| event["inside"].as_u64()));
        let inside = inside.expect("the outside says who holds the inside");
        Self { child, orders: Mutex::new((orders, 0)), told, inside, home }
    }

    /// Files of the outside: `ca.pem`, and whatever the test puts there.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// What runs the command that follows in the inside.
    pub(crate) fn enter(&self) -> Vec<OsString> {
        let target = self.inside.to_string();
        let mut words = vec![require("nsenter").into_os_string(), "--target".into(), target.into()];
        if !is_root() {
            words.extend(["--user".into(), "--preserve-credentials".into()]);
        }
        words.extend(["--net", "--mount", "--"].map(OsString::from));
        words
    }

    /// Runs a program in the inside that is nobody's app.
    pub(crate) fn program(&self, program: &str) -> Program {
        let words = self.enter();
        Program::at(Path::new(&words[0])).args(&words[1..]).arg(require(program))
    }

    /// An egret in the inside without any capability. The policy lacks `version:` and `dns:`.
    pub(crate) fn egret(&self, policy: &str) -> EgretBuilder {
        self.egret_with(&UNPRIVILEGED, policy)
    }

    /// The same that asks another nameserver.
    pub(crate) fn egret_asking(&self, nameserver: &str, policy: &str) -> EgretBuilder {
        self.egret_by(&UNPRIVILEGED, &asking(policy, nameserver))
    }

    /// The same with other arguments of setpriv(1).
    pub(crate) fn egret_with(&self, privileges: &[&str], policy: &str) -> EgretBuilder {
        self.egret_by(privileges, &whole(policy))
    }

    fn egret_by(&self, privileges: &[&str], whole: &str) -> EgretBuilder {
        let setpriv = [require("setpriv").into_os_string()].into_iter().chain(privileges.iter().map(OsString::from));
        Egret::with_policy(whole).inside(self.enter()).under(self.enter().into_iter().chain(setpriv))
    }

    /// What puts the command that follows under a container's profile that refuses this: a `listener` of seccomp(2), `netlink`.
    pub(crate) fn profile(&self, refused: &str) -> [String; 3] {
        let file = self.home().join("profile.py");
        fs::write(&file, include_str!("profile.py")).expect("the test's directory is writable");
        ["/usr/bin/python3".to_owned(), file.display().to_string(), refused.to_owned()]
    }

    /// What DNS knows from now on.
    pub(crate) fn set_names(&self, names: &Value) {
        self.order(&json!({ "zone": names }));
    }

    /// What a server of the inside answers to somebody outside.
    pub(crate) fn fetch(&self, port: u16, say: &str) -> String {
        let answer = self.order(&json!({ "fetch": { "port": port, "say": say } }));
        answer.as_str().expect("text").to_owned()
    }

    /// All that has left the inside: each connection, and every packet that is of none.
    pub(crate) fn left(&self) -> Vec<String> {
        let answer = self.order(&json!({ "left": 1 }));
        answer.as_array().expect("a list").iter().map(|line| line.as_str().expect("text").to_owned()).collect()
    }

    /// Exactly these connections have left, and besides nothing but egret's own queries for exactly these names.
    #[track_caller]
    pub(crate) fn only(&self, connections: &[&str], names: &[&str]) {
        let left = self.left();
        let (queries, mut others): (Vec<&str>, Vec<&str>) =
            left.iter().map(String::as_str).partition(|line| line.starts_with("query "));
        let asked: BTreeSet<&str> = queries.iter().map(|query| name_asked(query, &left)).collect();
        assert_eq!(asked, names.iter().copied().collect(), "{left:#?}");
        let mut expected: Vec<String> = connections.iter().map(|to| format!("connect {to}")).collect();
        expected.sort();
        others.sort_unstable();
        assert_eq!(others, expected, "{left:#?}");
    }

    /// What the outside was told so far under this key: `arrived`, `ended`, `query`.
    pub(crate) fn events(&self, key: &str) -> Vec<Value> {
        events(&self.told.all()).filter(|event| !event[key].is_null()).collect()
    }

    /// Waits for such an event.
    pub(crate) fn event(&self, key: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let find = |lines: &[String]| events(lines).find(|event| !event[key].is_null() && matches(event));
        self.told.wait_for(find).unwrap_or_else(|| panic!("no such `{key}` within {DEADLINE:?}: {:#?}", self.told.all()))
    }

    /// One at a time, so that answers come in the order of orders.
    fn order(&self, order: &Value) -> Value {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(orders.0, "{order}").expect("the outside takes orders");
        orders.1 += 1;
        let turn = orders.1;
        let find = |lines: &[String]| {
            let mut answers = events(lines).filter(|event| !event["answer"].is_null());
            answers.nth(turn - 1).map(|mut event| event["answer"].take())
        };
        self.told.wait_for(find).unwrap_or_else(|| panic!("no answer to {order}"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // Either fails only if it is gone already; the inside goes with it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[track_caller]
fn name_asked<'q>(query: &'q str, left: &[String]) -> &'q str {
    let own = query.strip_prefix("query ").and_then(|rest| rest.strip_prefix(NAMESERVER));
    let name = own.and_then(|rest| rest.trim_start().split(' ').next());
    name.unwrap_or_else(|| panic!("a query that is not egret's: {query}\n{left:#?}"))
}

fn events(lines: &[String]) -> impl Iterator<Item = Value> + '_ {
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}")))
}

/// A command in a network and a mount namespace of its own, as its root.
fn unshare(command: &[&str]) -> Command {
    let mut unshare = Command::new(require("unshare"));
    unshare.args(if is_root() { &[][..] } else { &["--map-root-user"] }).args(["--net", "--mount", "--"]).args(command);
    unshare.env("PATH", search_path());
    unshare
}

/// Whether namespaces need no user namespace around them.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// ip(8) may stand where users don't look.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(all).expect("a PATH")
}
