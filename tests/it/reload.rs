//! Another policy while egret runs: what the journal tells of it, which live connections it closes where that is asked
//! for, the end of an audit, and files that are caught half-written. That a change is noticed at all is in `policy_file`.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::client::{connect, forward_get, raw, read_exactly, read_to_close};
use crate::support::egret::EgretBuilder;
use crate::support::http1::{Response, read_head};
use crate::support::rules::LOCALHOST;
use crate::support::upstream::WEBSOCKET_KEY;
use crate::support::{DnsServer, Egret, Upstream, eventually, http_connect};

const HANGUP: i32 = 1;

/// Long enough for a busy machine, and far below any limit that would close a connection by itself.
const PROMPTLY: Duration = Duration::from_secs(8);

/// A server behind the names a.test and b.test.
struct Site {
    upstream: Upstream,
    dns: DnsServer,
}

impl Site {
    fn new(upstream: Upstream) -> Self {
        let dns = DnsServer::new();
        dns.answers("a.test", &LOCALHOST).answers("b.test", &LOCALHOST);
        Self { upstream, dns }
    }

    /// These allow rules, one a line from line 5, and what else `egress:` has. `PORT` stands for the server's port.
    fn policy(&self, allow: &[&str], egress: &str) -> String {
        let rules: String = allow.iter().map(|rule| format!("    - {rule}\n")).collect();
        let head = "version: 1\nroles: { worker: { proxy-user: worker } }\negress:\n  allow:\n";
        let text = format!("{head}{rules}{egress}\ndns: {{ upstream: \"{}\" }}\n", self.dns.addr());
        text.replace("PORT", &self.upstream.port().to_string())
    }

    fn target(&self, name: &str) -> String {
        format!("{name}:{}", self.upstream.port())
    }

    /// A tunnel to an echo server, with a word said both ways.
    fn tunnel(&self, egret: &Egret, name: &str) -> TcpStream {
        let tunnel = http_connect(egret.proxy(), &self.target(name));
        assert_eq!(tunnel.response.status, 200, "{name}: {}", tunnel.response.head);
        let mut stream = tunnel.stream;
        assert_lives(&mut stream);
        stream
    }
}

const A: &str = r#"{ id: a, to: "a.test:PORT", as: any, within: [127.0.0.0/8] }"#;
const B: &str = r#"{ id: b, to: "b.test:PORT", as: any, within: [127.0.0.0/8] }"#;

fn assert_lives(stream: &mut TcpStream) {
    stream.write_all(b"SSH-2.0-x\r\n").expect("the tunnel takes bytes");
    assert_eq!(read_exactly(stream, 11), b"SSH-2.0-x\r\n");
}

fn closing(policy: &str) -> EgretBuilder {
    Egret::with_policy(policy).arg("--close-revoked")
}

/// Puts another policy in force, and its event.
fn reload(egret: &Egret, policy: &str) -> Value {
    egret.rewrite_policy(policy);
    egret.event("policy", |event| event["result"] == "loaded")
}

/// The connection ends now, and its record says that the reload did it.
fn assert_revoked(case: &str, egret: &Egret, stream: &mut TcpStream) -> Value {
    let begun = Instant::now();
    assert_eq!(read_to_close(stream), b"", "{case}");
    assert!(begun.elapsed() < PROMPTLY, "{case}: closed after {:?}", begun.elapsed());
    let record = egret.record(|record| record["close"] == "revoked");
    assert_eq!((&record["decision"], &record["stage"]), (&"allow".into(), &"relay".into()), "{case}: {record:#}");
    record
}

#[test]
fn the_event_tells_which_rules_came_and_which_went() {
    let site = Site::new(Upstream::echo());
    let before = site.policy(&[A, B, "{ id: same, to: same.test }", "unnamed.test"], "");
    let b_tls = B.replace("as: any", "as: tls");
    let after = site.policy(
        &["{ id: new, to: \"*.new.test:8443\", note: why }", "{ id: same, to: same.test, note: a word }", "unnamed.test", &b_tls],
        "  deny: [{ id: never, to: bad.new.test }]\n",
    );
    let egret = Egret::with_policy(&before).start();
    let event = reload(&egret, &after);
    let told = |list: &str| -> Vec<Value> {
        let rules = event[list].as_array().unwrap_or_else(|| panic!("`{list}` is no list: {event:#}"));
        rules.iter().map(|rule| json!([rule["id"], rule["effect"], rule["line"]])).collect()
    };
    let added = [json!(["new", "allow", 5]), json!(["b", "allow", 8]), json!(["never", "deny", 9])];
    assert_eq!(told("added"), added, "a changed rule is another rule: {event:#}");
    assert_eq!(told("removed"), [json!(["a", "allow", 5]), json!(["b", "allow", 6])], "{event:#}");
    assert_eq!((&event["added_count"], &event["removed_count"], &event["rules"]), (&3.into(), &2.into(), &5.into()), "{event:#}");
    let text = event["added"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains("*.new.test") && text.contains("8443"), "{event:#}");
    assert_eq!((&event["mode"], &event["error"]), (&"enforce".into(), &Value::Null), "{event:#}");
    assert_ne!(event["policy"], egret.started()["policy"], "{event:#}");
}

#[test]
fn notes_comments_and_order_are_no_difference() {
    let site = Site::new(Upstream::echo());
    let egret = Egret::with_policy(&site.policy(&[A, "unnamed.test"], "")).start();
    let noted = A.replace(" }", ", note: \"for the ledger\" }");
    let event = reload(&egret, &format!("# A comment.\n{}", site.policy(&["unnamed.test # since spring", &noted], "")));
    let (none, zero) = (Value::from(Vec::<Value>::new()), Value::from(0));
    assert_eq!((&event["added"], &event["removed"]), (&none, &none), "{event:#}");
    assert_eq!((&event["added_count"], &event["removed_count"]), (&zero, &zero), "{event:#}");
}

#[test]
fn a_long_difference_is_cut_at_fifty_and_counted_whole() {
    let site = Site::new(Upstream::echo());
    let policy = |word: &str, count: usize| {
        let rules: Vec<String> = (0..count).map(|at| format!("{word}-{at}.example.com")).collect();
        site.policy(&rules.iter().map(String::as_str).collect::<Vec<_>>(), "")
    };
    let egret = Egret::with_policy(&policy("old", 200)).start();
    let event = reload(&egret, &policy("new", 150));
    let length = |list: &str| event[list].as_array().map(Vec::len);
    assert_eq!((length("added"), length("removed")), (Some(50), Some(50)), "{event:#}");
    assert_eq!((&event["added_count"], &event["removed_count"]), (&150.into(), &200.into()), "{event:#}");
    assert_eq!(event["rules"], 150, "{event:#}");
}

#[test]
fn a_rejected_change_tells_no_difference() {
    let site = Site::new(Upstream::echo());
    let egret = Egret::with_policy(&site.policy(&[A], "")).start();
    egret.rewrite_policy(&site.policy(&[B, "https://c.test/"], ""));
    let event = egret.event("policy", |_| true);
    assert_eq!((&event["result"], &event["policy"]), (&"rejected".into(), &egret.started()["policy"]), "{event:#}");
    assert_eq!((&event["added_count"], &event["removed_count"], &event["rules"]), (&0.into(), &0.into(), &1.into()), "{event:#}");
    assert!(event["error"].as_str().is_some_and(|error| error.contains("policy.yaml:6")), "{event:#}");
}

#[test]
fn every_record_after_a_reload_names_the_policy_that_the_event_named() {
    let site = Site::new(Upstream::http("hello"));
    let egret = Egret::with_policy(&site.policy(&[A], "")).start();
    let hash = reload(&egret, &site.policy(&[B], ""))["policy"].clone();
    let get = format!("http://{}/", site.target("b.test"));
    assert_eq!(forward_get(egret.proxy(), &get).status, 200);
    assert_eq!(http_connect(egret.proxy(), &site.target("a.test")).response.status, 403);
    assert_eq!(raw(egret.proxy(), b"\x80"), b"");
    let records = [egret.wait_records(3), vec![egret.event("request", |_| true)]].concat();
    assert!(records.iter().all(|record| record["policy"] == hash), "{hash}: {records:#?}");
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("/status is JSON");
    assert_eq!((&status["policy"]["hash"], &status["policy"]["rules"]), (&hash, &1.into()), "{status:#}");
}

#[test]
fn c05_a_revoked_tunnel_is_closed_whether_flag_variable_or_file_asks_for_it() {
    let site = Site::new(Upstream::echo());
    let (before, after) = (site.policy(&[A, B], ""), site.policy(&[B], ""));
    let key = "run: { close-revoked: true }\n";
    let ways = [
        ("flag", Egret::with_policy(&before).arg("--close-revoked")),
        ("variable", Egret::with_policy(&before).env("EGRET_CLOSE_REVOKED", "true")),
        ("file", Egret::with_policy(&format!("{before}{key}"))),
    ];
    for (way, builder) in ways {
        let egret = builder.start();
        let (mut gone, mut stays) = (site.tunnel(&egret, "a.test"), site.tunnel(&egret, "b.test"));
        reload(&egret, &format!("{after}{}", if way == "file" { key } else { "" }));
        let record = assert_revoked(way, &egret, &mut gone);
        assert_eq!((&record["host"], &record["rule"]), (&"a.test".into(), &"a".into()), "{way}: {record:#}");
        assert_eq!((&record["bytes_up"], &record["bytes_down"]), (&11.into(), &11.into()), "{way}: {record:#}");
        assert_lives(&mut stays);
        drop(stays);
        let records = egret.wait_records(2);
        assert_eq!(records[1]["close"], "client", "{way}: {records:#?}");
    }
}

#[test]
fn c05_a_tunnel_does_not_outlive_its_rule_where_that_is_asked_for() {
    let site = Site::new(Upstream::echo());
    let (end, text) = soon();
    let policy = site.policy(&[&A.replace(" }", &format!(", expires: {text} }}")), B], "");
    let egret = Egret::with_policy(&policy).arg("--close-revoked").start();
    let (mut gone, mut stays) = (site.tunnel(&egret, "a.test"), site.tunnel(&egret, "b.test"));
    assert_in_time(end);
    let record = egret.record(|record| record["host"] == "a.test");
    assert_revoked("expired", &egret, &mut gone);
    assert!(SystemTime::now() >= end, "it ended too early: {record:#}");
    assert_lives(&mut stays);
}

#[test]
fn c05_without_being_asked_nothing_is_closed() {
    let site = Site::new(Upstream::echo());
    let ways = [
        Egret::with_policy(&site.policy(&[A], "")),
        Egret::with_policy(&site.policy(&[A], "")).env("EGRET_CLOSE_REVOKED", "false"),
    ];
    for builder in ways {
        let egret = builder.start();
        let mut tunnel = site.tunnel(&egret, "a.test");
        reload(&egret, &site.policy(&[B], ""));
        // Whatever the reload does, it has done before a connection that came later has its answer.
        assert_eq!(http_connect(egret.proxy(), &site.target("a.test")).response.status, 403);
        assert_lives(&mut tunnel);
        drop(tunnel);
        egret.record(|record| record["close"] == "client" && record["decision"] == "allow");
    }
}

#[test]
fn closed_connections_are_counted() {
    let site = Site::new(Upstream::echo());
    let egret = closing(&site.policy(&[A, B], "")).start();
    let mut gone = [(); 3].map(|()| site.tunnel(&egret, "a.test"));
    let _stays = site.tunnel(&egret, "b.test");
    reload(&egret, &site.policy(&[B], ""));
    for stream in &mut gone {
        assert_revoked("one of three", &egret, stream);
    }
    egret.metric_becomes("egret_connections_revoked_total", &[], 3.0);
}

#[test]
fn whatever_would_refuse_a_connection_now_closes_it() {
    let site = Site::new(Upstream::echo());
    let a = |from: &str, to: &str| {
        let changed = A.replace(from, to);
        assert_ne!(changed, A);
        changed
    };
    let cases = [
        ("another protocol", a("as: any", "as: tls"), ""),
        ("other answers", a("127.0.0.0/8", "10.0.0.0/8"), ""),
        ("another role", a("as: any", "as: any, for: [worker]"), ""),
        ("another port", a("PORT", "1"), ""),
        ("another name", a("a.test", "aa.test"), ""),
        ("an end", a("as: any", "as: any, expires: 2020-01-31"), ""),
        ("a denied name", A.to_owned(), "  deny: [a.test]\n"),
        ("a denied network", A.to_owned(), "  deny: [127.0.0.0/8]\n"),
    ];
    for (case, rule, egress) in cases {
        let egret = closing(&site.policy(&[A], "")).start();
        let mut tunnel = site.tunnel(&egret, "a.test");
        reload(&egret, &site.policy(&[&rule], egress));
        assert_revoked(case, &egret, &mut tunnel);
    }
}

#[test]
fn what_would_still_be_let_through_is_not_touched() {
    let site = Site::new(Upstream::echo());
    let noted = A.replace(" }", ", note: \"for the ledger\" }");
    let cases = [
        ("a note", vec![&*noted], ""),
        ("a comment and another place", vec!["other.test # the first one", A], ""),
        ("another id", vec![r#"{ id: x, to: "a.test:PORT", as: any, within: [127.0.0.0/8] }"#], ""),
        ("a wider rule", vec![r#"{ to: "a.test", ports: [1-65535], as: tcp, within: [127.0.0.0/8, 10.0.0.0/8] }"#], ""),
        ("a deny rule for others", vec![A], "  deny: [{ to: a.test, ports: [1] }, b.test, 10.0.0.0/8]\n"),
        // In audit nothing goes for want of a rule; what must go here is denied by a rule that enforces.
        ("audit", vec!["{ to: 127.0.0.0/8, ports: [PORT] }"], "  mode: audit\n  deny: [{ to: b.test, mode: enforce }]\n"),
    ];
    for (case, rules, egress) in cases {
        let egret = closing(&site.policy(&[A, B], "")).start();
        let (mut stays, mut gone) = (site.tunnel(&egret, "a.test"), site.tunnel(&egret, "b.test"));
        reload(&egret, &site.policy(&rules, egress));
        // When the one that had to go is gone, the others have been judged.
        assert_revoked(case, &egret, &mut gone);
        assert_lives(&mut stays);
        drop(stays);
        let records = egret.wait_records(2);
        assert_eq!((&records[1]["host"], &records[1]["close"]), (&"a.test".into(), &"client".into()), "{case}: {records:#?}");
    }
}

/// A request in absolute form whose connection is kept.
fn forward(site: &Site, egret: &Egret) -> TcpStream {
    let (mut stream, host) = (connect(egret.proxy()), site.target("a.test"));
    write!(stream, "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("the proxy takes a request");
    assert_eq!(Response::read(&stream).expect("the proxy answers").status, 200);
    stream
}

/// The same inside a tunnel.
fn inside_a_tunnel(site: &Site, egret: &Egret) -> TcpStream {
    let host = site.target("a.test");
    let mut stream = http_connect(egret.proxy(), &host).stream;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("the tunnel takes a request");
    assert_eq!(Response::read(&stream).expect("the upstream answers").status, 200);
    stream
}

fn websocket(site: &Site, egret: &Egret) -> TcpStream {
    let host = site.target("a.test");
    let mut stream = http_connect(egret.proxy(), &host).stream;
    let upgrade =
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}");
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n\r\n").expect("the tunnel takes a request");
    let head = read_head(&mut stream).expect("the upstream answers").unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

#[test]
fn http_in_the_clear_is_closed_too() {
    let (web, sockets) = (Site::new(Upstream::http("hello")), Site::new(Upstream::websocket()));
    type Begin = fn(&Site, &Egret) -> TcpStream;
    let cases: [(&str, &Site, Begin); 3] =
        [("forward", &web, forward), ("inside a tunnel", &web, inside_a_tunnel), ("WebSocket", &sockets, websocket)];
    for (case, site, begin) in cases {
        let egret = closing(&site.policy(&[A, B], "")).start();
        let mut stream = begin(site, &egret);
        reload(&egret, &site.policy(&[B], ""));
        let record = assert_revoked(case, &egret, &mut stream);
        assert_eq!((&record["host"], &record["requests"]), (&"a.test".into(), &1.into()), "{case}: {record:#}");
    }
}

/// This many seconds from now, as a policy writes it. Enough for a busy machine to start an egret and ask it once.
fn soon() -> (SystemTime, String) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs() + 10;
    let text = jiff::Timestamp::from_second(i64::try_from(seconds).expect("a year with four digits")).expect("the same");
    (UNIX_EPOCH + Duration::from_secs(seconds), text.to_string())
}

/// The verdict on this target. Names that were let through end in a 502 where they have no address.
fn verdict(egret: &Egret, target: &str) -> (u16, Value) {
    let response = http_connect(egret.proxy(), target).response;
    let id = response.header("x-egret-id").unwrap_or_else(|| panic!("no id: {}", response.head));
    (response.status, egret.record(|record| record["id"] == id))
}

fn assert_verdict(egret: &Egret, target: &str, status: u16, decision: &str, reason: &str) {
    let (got, record) = verdict(egret, target);
    let found = (got, record["decision"].as_str(), record["reason"].as_str());
    assert_eq!(found, (status, Some(decision), Some(reason)), "{target}: {record:#}");
}

fn assert_in_time(end: SystemTime) {
    assert!(SystemTime::now() < end, "this machine was too slow to see what is before the end");
}

#[test]
fn c09_an_audit_ends_at_its_instant_without_a_restart() {
    let dns = DnsServer::new();
    let (end, text) = soon();
    let start = |place: &str| {
        let policy = format!("version: 1\n{}\ndns: {{ upstream: \"{}\" }}\n", place.replace("END", &text), dns.addr());
        Egret::with_policy(&policy).start()
    };
    let of_file = start("mode: audit\naudit-until: END\negress: { allow: [a.test] }");
    let of_egress = start("egress: { mode: audit, audit-until: END }");
    for egret in [&of_file, &of_egress] {
        assert_eq!(egret.started()["mode"], "audit");
        assert_verdict(egret, "evil.test:443", 502, "would_deny", "no_rule");
    }
    assert_in_time(end);
    for egret in [&of_file, &of_egress] {
        let event = egret.event("policy", |event| event["result"] == "audit_ended");
        assert!(SystemTime::now() >= end, "it ended too early: {event:#}");
        assert_eq!((&event["mode"], &event["policy"]), (&"enforce".into(), &egret.started()["policy"]), "{event:#}");
        assert_verdict(egret, "evil.test:443", 403, "deny", "no_rule");
        let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("/status is JSON");
        assert_eq!(status["policy"]["mode"], "enforce", "{status:#}");
        egret.metric_becomes("egret_policy_info", &[("mode", "enforce")], 1.0);
        assert_eq!(egret.events("policy").len(), 1, "it is told once");
    }
}

#[test]
fn an_audit_that_comes_with_a_reload_ends_too_and_one_that_is_over_never_begins() {
    let dns = DnsServer::new();
    let policy = |end: &str| format!("version: 1\nmode: audit\naudit-until: {end}\ndns: {{ upstream: \"{}\" }}\n", dns.addr());
    let egret = Egret::with_policy(&policy("2020-01-31")).start();
    assert_eq!(egret.started()["mode"], "enforce");
    assert_verdict(&egret, "evil.test:443", 403, "deny", "no_rule");
    let (end, text) = soon();
    let event = reload(&egret, &policy(&text));
    assert_eq!(event["mode"], "audit", "{event:#}");
    assert_verdict(&egret, "evil.test:443", 502, "would_deny", "no_rule");
    assert_in_time(end);
    let ended = egret.event("policy", |event| event["result"] == "audit_ended");
    assert_eq!((&ended["mode"], &ended["policy"]), (&"enforce".into(), &event["policy"]), "{ended:#}");
    assert_verdict(&egret, "evil.test:443", 403, "deny", "no_rule");
}

#[test]
fn the_end_of_an_audit_closes_what_only_audit_let_through() {
    let site = Site::new(Upstream::echo());
    let (end, text) = soon();
    let audit = format!("  mode: audit\n  audit-until: {text}\n");
    let egret = closing(&site.policy(&[A, "{ to: 127.0.0.0/8, ports: [PORT] }"], &audit)).start();
    let (mut allowed, mut audited) = (site.tunnel(&egret, "a.test"), site.tunnel(&egret, "b.test"));
    assert_in_time(end);
    egret.event("policy", |event| event["result"] == "audit_ended");
    assert_eq!(read_to_close(&mut audited), b"");
    let record = egret.record(|record| record["close"] == "revoked");
    assert_eq!((&record["decision"], &record["host"]), (&"would_deny".into(), &"b.test".into()), "{record:#}");
    assert_lives(&mut allowed);
}

#[test]
fn a_rule_in_audit_that_expires_denies_from_then_on() {
    let dns = DnsServer::new();
    let (end, text) = soon();
    let rule = format!("{{ id: trial, to: a.test, mode: audit, expires: \"{text}\" }}");
    let policy = format!("version: 1\negress: {{ allow: [{rule}] }}\ndns: {{ upstream: \"{}\" }}\n", dns.addr());
    let egret = Egret::with_policy(&policy).start();
    assert_verdict(&egret, "a.test:443", 502, "would_deny", "audit_rule");
    assert_in_time(end);
    eventually("the rule expires", || (http_connect(egret.proxy(), "a.test:443").response.status == 403).then_some(()));
    assert!(SystemTime::now() >= end, "it expired too early");
    assert_verdict(&egret, "a.test:443", 403, "deny", "rule_expired");
}

/// What a writer may have written so far, when it is looked at.
fn beginnings(whole: &str) -> Vec<&str> {
    let at = |part: &str| whole.find(part).map(|at| at + part.len()).expect("the policy has the part");
    // Nothing, a word, a text where a mapping is due, and a line cut within its quotes.
    [0, at("vers"), at("egress:\n  allow"), at("to: \"b.te")].map(|end| &whole[..end]).to_vec()
}

#[test]
fn a_half_written_policy_is_never_in_force() {
    let site = Site::new(Upstream::echo());
    let whole = site.policy(&[B], "");
    for part in beginnings(&whole) {
        let egret = Egret::with_policy(&site.policy(&[A], "")).start();
        egret.rewrite_policy(part);
        let event = egret.event("policy", |_| true);
        assert_eq!((&event["result"], &event["policy"]), (&"rejected".into(), &egret.started()["policy"]), "{part:?}: {event:#}");
        drop(site.tunnel(&egret, "a.test"));
        assert_eq!(http_connect(egret.proxy(), &site.target("b.test")).response.status, 403, "{part:?}");
        reload(&egret, &whole);
        drop(site.tunnel(&egret, "b.test"));
    }
}

#[test]
fn a_policy_that_is_still_being_written_is_read_when_it_is_closed() {
    let site = Site::new(Upstream::echo());
    let whole = site.policy(&[B], "");
    for part in beginnings(&whole) {
        let egret = Egret::with_policy(&site.policy(&[A], "")).start();
        let mut file = File::create(egret.policy_path()).expect("the policy is writable");
        file.write_all(part.as_bytes()).expect("the policy takes bytes");
        // Asked to look at this very moment, egret finds what cannot be meant.
        egret.signal(HANGUP);
        let event = egret.event("policy", |_| true);
        assert_eq!(event["result"], "rejected", "{part:?}: {event:#}");
        drop(site.tunnel(&egret, "a.test"));
        file.write_all(&whole.as_bytes()[part.len()..]).expect("the policy takes bytes");
        drop(file);
        egret.event("policy", |event| event["result"] == "loaded");
        drop(site.tunnel(&egret, "b.test"));
        assert_eq!(fs::read_to_string(egret.policy_path()).expect("the policy is readable"), whole);
    }
}

const UNSERVED: &str = "\
version: 1
direct: [169.254.170.2]
around: alert
exec: { allow: [/app/**, /bin/sh] }
";

#[test]
fn sections_that_are_not_served_are_told_everywhere_and_again_after_a_reload() {
    // Without a watch over flows nobody sees what goes around.
    let egret = Egret::with_policy(UNSERVED).arg("--flows").arg("0").start();
    let unserved = || {
        let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("/status is JSON");
        let mut sections: Vec<String> = serde_json::from_value(status["unserved"].clone()).expect("a list of texts");
        sections.sort();
        sections
    };
    for section in ["around", "exec"] {
        let event = egret.event("coverage", |event| event["section"] == section);
        assert_eq!(event["served"], false, "{event:#}");
        assert!(event["why"].as_str().is_some_and(|why| !why.is_empty()), "{event:#}");
        eventually("stderr says so", || egret.stderr().lines().any(|line| line.contains(section)).then_some(()));
    }
    assert_eq!(unserved(), ["around", "exec"]);
    assert_eq!(egret.events("coverage").len(), 2, "what is served is not told");
    egret.rewrite_policy("version: 2\naround: stop\n");
    egret.event("policy", |event| event["result"] == "rejected");
    assert_eq!(unserved(), ["around", "exec"], "the old policy is in force");
    reload(&egret, "version: 1\naround: stop\n");
    assert_eq!(unserved(), ["around"]);
}
