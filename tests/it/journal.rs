//! One record for each connection, one answer to why: the journal can be parsed line by line whatever the network
//! says, its fields are those of the documentation, and the client, `egret explain` and the journal tell the same.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::client::{connect, forward_get, raw, read_to_close};
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Hello, Upstream, eventually, http_connect, run_egret};

const CONNECTION: [&str; 28] = [
    "v",
    "time",
    "event",
    "id",
    "decision",
    "reason",
    "rule",
    "role",
    "via",
    "client",
    "pid",
    "exe",
    "uid",
    "host",
    "port",
    "sni",
    "ech",
    "address",
    "refused",
    "class",
    "bytes_up",
    "bytes_down",
    "requests",
    "duration_ms",
    "stage",
    "close",
    "detail",
    "policy",
];
const REQUEST: [&str; 20] = [
    "v",
    "time",
    "event",
    "id",
    "decision",
    "reason",
    "rule",
    "role",
    "method",
    "host",
    "port",
    "status",
    "fault",
    "address",
    "refused",
    "class",
    "bytes_up",
    "bytes_down",
    "detail",
    "policy",
];

/// What text from the network has been made of to forge lines, steer terminals or break parsers.
const HOSTILE: [&[u8]; 12] = [
    b"a\r\n{\"v\":1,\"event\":\"connection\",\"decision\":\"allow\"}\r\n",
    b"a\n{\"v\":1,\"event\":\"lifecycle\",\"phase\":\"started\"}\n",
    b"\"}\n{\"event\":\"forged\",\"x\":\"",
    b"\",\"decision\":\"allow\",\"x\":\"",
    b"\\\",\\u000a\\",
    b"\x1b[2J\x1b]0;title\x07\x9b31m",
    "line\u{2028}line\u{2029}line\u{85}line".as_bytes(),
    "\u{202e}txe.\u{feff}moc\u{2066}".as_bytes(),
    b"\xff\xfe\xc3\x28\xed\xa0\x80\xf0\x9f",
    b"\0\x01\x02\x7f",
    b"\r",
    b"{}",
];

fn upstream_at(dns: &DnsServer, rule: &str) -> (Upstream, Egret) {
    let upstream = Upstream::http("hello\n");
    dns.answers("allowed.test", &LOCALHOST);
    let egret = Egret::with_policy(&policy(dns, &[local("allowed.test", upstream.port(), rule)])).start();
    (upstream, egret)
}

fn keys(event: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = event.as_object().expect("an event is an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn sorted<const N: usize>(mut names: [&'static str; N]) -> [&'static str; N] {
    names.sort_unstable();
    names
}

#[test]
fn events_have_the_documented_fields() {
    let dns = DnsServer::new();
    let (upstream, egret) = upstream_at(&dns, "as: http, id: web");
    let target = format!("allowed.test:{}", upstream.port());
    assert_eq!(forward_get(egret.proxy(), &format!("http://{target}/")).status, 200);
    assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403);
    read_to_close(&mut connect_and_say(egret.proxy(), b"\x80"));
    let records = egret.wait_records(3);
    for record in &records {
        assert_eq!(keys(record), sorted(CONNECTION), "{record:#}");
    }
    let request = egret.event("request", |_| true);
    assert_eq!(keys(&request), sorted(REQUEST), "{request:#}");

    let by = |field: &str, value: &str| records.iter().find(|r| r[field] == value).unwrap_or_else(|| panic!("no {value}"));
    let allowed = by("decision", "allow");
    assert_eq!((&allowed["v"], &allowed["decision"], &allowed["reason"]), (&1.into(), &"allow".into(), &Value::Null));
    assert_eq!((&allowed["role"], &allowed["rule"], &allowed["stage"]), (&"default".into(), &"web".into(), &"relay".into()));
    assert_eq!((&allowed["address"], &allowed["class"]), (&upstream.addr().to_string().into(), &"loopback".into()));
    assert!(allowed["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{allowed}");
    let denied = by("reason", "no_rule");
    assert_eq!((&denied["host"], &denied["port"], &denied["close"]), (&"evil.test".into(), &443.into(), &"denied".into()));
    assert_eq!((&denied["rule"], &denied["address"], &denied["class"]), (&Value::Null, &Value::Null, &Value::Null));
    let odd = by("reason", "unknown_protocol");
    assert_eq!((&odd["via"], &odd["host"]), (&Value::Null, &Value::Null));
}

#[test]
fn ids_differ_and_times_are_utc() {
    let dns = DnsServer::new();
    let (_upstream, egret) = upstream_at(&dns, "as: http");
    for _ in 0..5 {
        assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403);
    }
    let records = egret.wait_records(5);
    let mut ids: Vec<&str> = records.iter().filter_map(|record| record["id"].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{records:#?}");
    for record in &records {
        let time = record["time"].as_str().unwrap_or_default();
        // RFC 3339 to the millisecond, in UTC.
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }
}

#[test]
fn every_record_names_the_policy_that_judged_it() {
    let dns = DnsServer::new();
    let (upstream, egret) = upstream_at(&dns, "as: http");
    let hash = egret.started()["policy"].clone();
    assert!(hash.as_str().is_some_and(|hash| hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit())), "{hash}");
    forward_get(egret.proxy(), &format!("http://allowed.test:{}/", upstream.port()));
    http_connect(egret.proxy(), "evil.test:443");
    read_to_close(&mut connect_and_say(egret.proxy(), b"\x80"));
    let mut events = egret.wait_records(3);
    events.extend(egret.events("request"));
    assert!(events.len() == 4 && events.iter().all(|event| event["policy"] == hash), "{events:#?}");
}

/// An egret whose journal is a file.
struct ToFile {
    egret: Egret,
    journal: PathBuf,
}

impl ToFile {
    fn start(policy: &str) -> Self {
        let builder = Egret::with_policy(policy);
        let journal = builder.home().join("journal.ndjson");
        let egret = builder.arg("--journal").arg(&journal).spawn();
        Self { egret, journal }
    }

    /// The lines so far, strictly UTF-8; waits until there is one that is of this event (and phase, if any), `count`
    /// times.
    fn lines_with(&self, event: &str, count: usize) -> Vec<String> {
        eventually(&format!("the journal has {count} {event} events"), || {
            let bytes = fs::read(&self.journal).ok()?;
            let whole = &bytes[..=bytes.iter().rposition(|byte| *byte == b'\n')?];
            let text = std::str::from_utf8(whole).expect("the journal is UTF-8");
            // On LF alone, as programs read it; str::lines would forgive a CR.
            let lines: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
            (lines.iter().filter(|line| parse(line)["event"] == event).count() >= count).then_some(lines)
        })
    }

    fn proxy(&self) -> SocketAddr {
        let lines = self.lines_with("lifecycle", 1);
        parse(&lines[0])["listen"][0].as_str().and_then(|addr| addr.parse().ok()).expect("the first line says where")
    }
}

fn parse(line: &str) -> Value {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line:?}"));
    assert!(event.is_object(), "not an object: {line:?}");
    event
}

#[test]
fn the_journal_can_be_a_file() {
    let dns = DnsServer::new();
    let to_file = ToFile::start(&policy(&dns, &[local("allowed.test", 443, "as: tls")]));
    assert_eq!(http_connect(to_file.proxy(), "evil.test:443").response.status, 403);
    let lines = to_file.lines_with("connection", 1);
    assert_eq!(parse(&lines[1])["host"], "evil.test");
    assert!(to_file.egret.stop().success());
    let phases: Vec<Value> = to_file.lines_with("lifecycle", 3).iter().map(|line| parse(line)["phase"].clone()).collect();
    assert_eq!(phases, [Value::from("started"), Value::Null, "draining".into(), "stopped".into()]);
    assert_eq!(to_file.egret.stdout_lines(), [""; 0], "nothing of it is on stdout");
}

#[test]
fn a_journal_that_cannot_be_written_is_an_error_of_the_environment() {
    let builder = Egret::with_policy("version: 1\n").arg("--journal").arg("/nonexistent/journal");
    let egret = builder.spawn();
    assert_eq!(egret.wait_exit().code(), Some(3));
    assert!(egret.stderr().contains("/nonexistent/journal"), "{}", egret.stderr());
}

#[test]
fn o01_text_from_the_network_cannot_forge_a_line() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    dns.answers("allowed.test", &LOCALHOST);
    let to_file = ToFile::start(&policy(&dns, &[local("allowed.test", upstream.port(), "as: tls")]));
    let proxy = to_file.proxy();
    let mut count = 0;
    for text in HOSTILE {
        for bytes in [
            socks5_name(text),
            socks4a_name(text),
            connect_target(text),
            http_host(text),
            http_method(text),
            Hello::new().sni_bytes(&[text]).build(),
        ] {
            raw(proxy, &bytes);
            count += 1;
        }
        let mut tunnel = http_connect(proxy, &format!("allowed.test:{}", upstream.port()));
        tunnel.stream.write_all(&Hello::new().sni_bytes(&[text]).build()).expect("the tunnel takes bytes");
        read_to_close(&mut tunnel.stream);
        count += 1;
    }
    // One more, so that a forged record could not hide before the last true one.
    http_connect(proxy, "last.test:443");
    let lines = to_file.lines_with("connection", count + 1);
    let of = |kind: &str| lines.iter().filter(|line| parse(line)["event"] == kind).count();
    assert_eq!((of("connection"), of("lifecycle")), (count + 1, 1), "a line too many or too few");
    assert_eq!(of("connection") + of("lifecycle") + of("request"), lines.len(), "an event of no known kind");
    assert!(lines.iter().all(|line| parse(line)["decision"] != "allow"), "a verdict was forged: {lines:#?}");
    for line in &lines {
        assert!(!line.chars().any(steers), "{}", line.escape_debug());
    }
    assert_eq!(upstream.final_bytes(), 0);
}

/// Controls, line ends of Unicode, and what turns the direction of text.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn socks5_name(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("at most 255 bytes");
    [&[5, 1, 0, 5, 1, 0, 3, length], text, &443_u16.to_be_bytes()].concat()
}

fn socks4a_name(text: &[u8]) -> Vec<u8> {
    [&[4, 1, 1, 187, 0, 0, 0, 1], text, b"\0", text, b"\0"].concat()
}

fn connect_target(text: &[u8]) -> Vec<u8> {
    [b"CONNECT ", text, b":443 HTTP/1.1\r\nHost: ", text, b"\r\n\r\n"].concat()
}

fn http_host(text: &[u8]) -> Vec<u8> {
    [b"GET http://", text, b"/ HTTP/1.1\r\nHost: ", text, b"\r\nConnection: close\r\n\r\n"].concat()
}

fn http_method(text: &[u8]) -> Vec<u8> {
    [b"X", text, b" http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n"].concat()
}

fn connect_and_say(proxy: SocketAddr, bytes: &[u8]) -> std::net::TcpStream {
    let mut stream = connect(proxy);
    stream.write_all(bytes).expect("the proxy takes a byte");
    stream
}

const DENIALS: &str = "
version: 1
roles: { web: { proxy-user: web } }
egress:
  allow:
    - { to: one.test, id: one }
    - { to: web.test, for: [web], id: web }
    - { to: old.test, expires: 2020-01-31, id: old }
    - { to: '*.wide.test', id: wide }
    - { to: 10.0.0.0/8, ports: [5432], id: net }
    - s3: { buckets: [acme-reports], regions: [eu-west-1] }
      id: reports
  deny:
    - { to: bad.wide.test, id: bad }
";

#[test]
fn the_answer_explain_and_the_journal_agree() {
    let egret = Egret::with_policy(DENIALS).start();
    let cases = [
        ("evil.test:443", "no_rule", None),
        ("wide.test:443", "no_rule", None),
        ("one.test:8443", "port_not_listed", Some("one")),
        ("web.test:443", "role_not_listed", Some("web")),
        ("old.test:443", "rule_expired", Some("old")),
        ("bad.wide.test:443", "deny_rule", Some("bad")),
        ("10.1.2.3:5433", "port_not_listed", Some("net")),
        ("192.0.2.1:25", "address_not_listed", None),
        ("s3.eu-west-1.amazonaws.com:443", "s3_path_style", None),
    ];
    let policy = egret.policy_path();
    for (target, reason, rule) in cases {
        let response = http_connect(egret.proxy(), target).response;
        assert_eq!(response.status, 403, "{target}");
        assert_eq!((response.header("x-egret-reason"), response.header("x-egret-rule")), (Some(reason), rule), "{target}");

        let id = response.header("x-egret-id").expect("a refusal has an id");
        let record = egret.record(|record| record["id"] == id);
        assert_eq!((record["reason"].as_str(), record["rule"].as_str()), (Some(reason), rule), "{target}: {record}");

        let explain = ["explain", target, "--output", "json", "--policy"].map(Into::into);
        let output = run_egret(explain.into_iter().chain([policy.clone().into_os_string()]), "");
        assert_eq!(output.code, 1, "{target}: {output:#?}");
        let explained: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{target}: {e}: {output:#?}"));
        assert_eq!((explained["reason"].as_str(), explained["rule"].as_str()), (Some(reason), rule), "{target}: {explained}");
        assert_eq!((&explained["decision"], &explained["detail"]), (&"deny".into(), &record["detail"]), "{target}");

        let body = response.text();
        let help = explained["help"].as_str().expect("explain has a way out");
        assert!(body.contains(reason) && body.trim_end().ends_with(help), "{target}: {body}");
        assert!(record["detail"].as_str().is_some_and(|detail| body.contains(detail)), "{target}: {body}");
    }
    assert_eq!(egret.records().len(), cases.len(), "one record each");
}
