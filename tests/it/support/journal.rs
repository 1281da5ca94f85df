//! Journals written by hand, line by line as docs/reference.md has them, for tests of what reads journals. Nothing here
//! was seen by an egret.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::egret::egret_program;
use super::programs::Output;

/// One event, to be changed field by field.
#[derive(Clone, Debug)]
pub(crate) struct Line(Value);

/// A tunnel that audit let through: TLS with the server name that was asked for, at a global address.
pub(crate) fn tls(host: &str, port: u16) -> Line {
    Line(json!({
        "v": 1, "time": "2026-03-31T12:00:00.000Z", "event": "connection", "id": "", "decision": "would_deny",
        "reason": "no_rule", "rule": null, "role": "default", "via": "connect", "client": "127.0.0.1:40000",
        "host": host, "port": port, "sni": host, "ech": false, "address": format!("93.184.216.34:{port}"),
        "class": "global", "bytes_up": 700, "bytes_down": 9000, "requests": 0, "duration_ms": 12, "stage": "relay",
        "close": "client", "detail": "", "policy": "8ba386738ff2",
    }))
}

/// The same in which the client showed no name.
pub(crate) fn opaque(host: &str, port: u16) -> Line {
    tls(host, port).with("sni", Value::Null)
}

/// A forwarded request in the clear that audit let through.
pub(crate) fn http(host: &str, port: u16) -> Line {
    Line(json!({
        "v": 1, "time": "2026-03-31T12:00:00.000Z", "event": "request", "id": "", "decision": "would_deny",
        "reason": "no_rule", "rule": null, "role": "default", "method": "GET", "host": host, "port": port,
        "status": 200, "fault": null, "address": format!("93.184.216.34:{port}"), "class": "global", "bytes_up": 300,
        "bytes_down": 4000, "detail": "", "policy": "8ba386738ff2",
    }))
}

impl Line {
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0[field] = value.into();
        self
    }

    /// Let through by a rule.
    pub(crate) fn allowed(self) -> Self {
        self.with("decision", "allow").with("reason", Value::Null).with("rule", "0123456789ab")
    }

    /// Refused before anything was dialled.
    pub(crate) fn denied(self, reason: &str) -> Self {
        let line =
            self.with("decision", "deny").with("reason", reason).unreached().with("stage", "admit").with("close", "denied");
        if line.0["event"] == "request" { line.with("status", 403) } else { line.with("sni", Value::Null) }
    }

    /// Refused because its answer lies in space of this class.
    pub(crate) fn denied_at(self, class: &str) -> Self {
        self.denied("address_class").with("class", class).with("refused", "10.20.0.9").with("stage", "vet")
    }

    /// Let through, and never connected.
    pub(crate) fn failed(self) -> Self {
        let line = self.unreached().with("stage", "resolve").with("close", "dns_nxdomain");
        if line.0["event"] == "request" { line.with("fault", "dns_nxdomain") } else { line.with("sni", Value::Null) }
    }

    /// Another address than the global one.
    pub(crate) fn at(self, address: &str, class: &str) -> Self {
        self.with("address", address).with("class", class)
    }

    pub(crate) fn by(self, role: &str) -> Self {
        self.with("role", role)
    }

    fn unreached(self) -> Self {
        self.with("address", Value::Null).with("class", Value::Null).with("bytes_up", 0).with("bytes_down", 0)
    }
}

impl From<Line> for Value {
    fn from(line: Line) -> Self {
        line.0
    }
}

/// These lines as text, each with an id of its own.
pub(crate) fn journal(lines: &[Line]) -> String {
    static IDS: AtomicU32 = AtomicU32::new(0);
    let text = |line: &Line| {
        let id = format!("eb5d8093-{:x}", IDS.fetch_add(1, Ordering::Relaxed));
        format!("{}\n", line.clone().with("id", id).0)
    };
    lines.iter().map(text).collect()
}

/// Writes `text` as this file of `dir`.
pub(crate) fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let file = dir.join(name);
    fs::write(&file, text).expect("the test's directory is writable");
    file
}

/// `egret learn -` with more arguments.
pub(crate) fn learn(journal: &str, args: &[&str]) -> Output {
    egret_program().args(["learn", "-"]).args(args).stdin(journal.as_bytes()).run()
}

/// The policy that is learnt, which the test wants.
pub(crate) fn learnt(journal: &str, args: &[&str]) -> String {
    let output = learn(journal, args);
    assert_eq!(output.code, 0, "{args:?}: {output:#?}");
    output.stdout
}

/// `egret learn - --output json` with more arguments.
pub(crate) fn learnt_json(journal: &str, args: &[&str]) -> Value {
    let text = learnt(journal, &[&["--output", "json"], args].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"))
}

/// `egret check --replay -` of this policy with more arguments.
pub(crate) fn replay(policy: &str, journal: &str, args: &[&str]) -> Output {
    let program = egret_program().env("EGRET_POLICY", policy).args(["check", "--replay", "-"]);
    program.args(args).stdin(journal.as_bytes()).run()
}

/// Whether this policy, enforced, lets a role ask for this target.
pub(crate) fn admits(policy: &str, role: &str, target: &str) -> bool {
    let program = egret_program().env("EGRET_POLICY", policy).args(["explain", target, "--role", role, "--mode", "enforce"]);
    let output = program.run();
    assert!([0, 1].contains(&output.code), "{target} for {role}: {output:#?}\n{policy}");
    output.code == 0
}
