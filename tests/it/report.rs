//! The discovery report: the same from a journal and from the running egret, in every form, with every name marked for
//! what it is worth.

use serde_json::{Value, json};

use crate::support::{Ca, DnsServer, Egret, Upstream, client, http_connect, run_egret};

/// An egret that has seen one of each kind: verified, unverified, failed, denied. Gives the upstream's port too.
fn traffic() -> (Egret, u16) {
    let (dns, ca) = (DnsServer::new(), Ca::new());
    let upstream = Upstream::tls(&ca.issue(&["allowed.test"]), "hello");
    let port = upstream.port();
    dns.answers("allowed.test", &[upstream.addr().ip()]).answers("opaque.test", &[upstream.addr().ip()]);
    let egret = Egret::with_policy(&format!(
        "version: 1\negress:\n  allow:\n    - {{ to: \"allowed.test:{port}\", as: tls, within: [127.0.0.0/8] }}\n    \
         - {{ to: \"opaque.test:{port}\", as: tcp, within: [127.0.0.0/8] }}\n    - gone.test\ndns: {{ upstream: \"{}\" }}\n",
        dns.addr()
    ))
    .start();
    let verified = http_connect(egret.proxy(), &format!("allowed.test:{port}")).stream;
    assert_eq!(client::https_get(verified, "allowed.test", "/", ca.client_config()).text(), "hello");
    drop(http_connect(egret.proxy(), &format!("opaque.test:{port}")));
    drop(http_connect(egret.proxy(), "gone.test:443"));
    drop(http_connect(egret.proxy(), "denied.test:443"));
    egret.wait_records(4);
    (egret, port)
}

fn from_journal(egret: &Egret, output: &str) -> String {
    let report = run_egret(["report", "-", "--output", output], &egret.stdout_lines().join("\n"));
    assert_eq!(report.code, 0, "{}", report.stderr);
    report.stdout
}

#[test]
fn the_text_begins_with_a_count_and_rows_and_marks_what_is_no_plain_allow() {
    let (egret, port) = traffic();
    let text = from_journal(&egret, "text");
    let rows: Vec<&str> = text.lines().take(5).collect();
    assert_eq!(
        rows,
        [
            "4 destinations",
            &format!("allowed.test,tcp,{port}"),
            "denied.test,tcp,443,denied",
            "gone.test,tcp,443,failed",
            &format!("opaque.test,tcp,{port},unverified"),
        ]
    );
    assert!(text.contains("VERDICT") && text.contains("no_rule"), "{text}");
}

#[test]
fn json_from_the_journal_and_from_the_running_egret_are_one() {
    let (egret, _) = traffic();
    let journal: Value = serde_json::from_str(&from_journal(&egret, "json")).expect("JSON");
    let running = run_egret(["report", "--output", "json", "--admin", &egret.admin().to_string()], "");
    let running: Value = serde_json::from_str(&running.stdout).expect("JSON");
    assert_eq!(journal["destinations"], running["destinations"]);
    assert_eq!(journal["v"], 1);
    let allowed = &journal["destinations"][0];
    assert_eq!((allowed["connections"].as_u64(), allowed["verdict"].as_str()), (Some(1), Some("allow")));
    assert!(allowed["bytes_down"].as_u64() > Some(100), "{allowed}");
    assert_eq!(allowed["classes"], json!(["loopback"]));
}

#[test]
fn csv_has_a_header_and_a_row_each() {
    let (egret, _) = traffic();
    let csv = from_journal(&egret, "csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("host,protocol,port,verdict,marks"), "{csv}");
    assert_eq!(lines.len(), 5);
    assert!(lines[2].starts_with("denied.test,tcp,443,deny,denied,no_rule"), "{csv}");
}

/// What went around follows, in the same columns and some of its own; what a program chose is no formula.
#[test]
fn csv_has_what_went_around_with_its_owner() {
    let line = json!({
        "v": 1, "time": "2026-11-21T20:00:00.000Z", "event": "around", "state": "ended", "way": "around", "protocol": "tcp",
        "address": "198.18.0.7", "port": 443, "names": ["a.test", "b.test"], "exe": "=cmd()", "uid": 1000, "bytes_up": 10,
        "bytes_down": 20, "connections": 3, "new": true,
    });
    let datagrams = json!({
        "v": 1, "time": "2026-11-21T20:00:00.000Z", "event": "around", "state": "ended", "way": "around", "protocol": "udp",
        "address": "198.18.0.9", "port": 9, "unknown": "it ended before anybody could look", "connections": 1,
    });
    let csv = run_egret(["report", "-", "--output", "csv"], &format!("{line}\n{datagrams}\n")).stdout;
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].ends_with(",first_seen,last_seen,names,exe,uid,container,unknown,advice"), "{csv}");
    let times = "2026-11-21T20:00:00.000Z,2026-11-21T20:00:00.000Z";
    let first = format!("198.18.0.7,tcp,443,around,around new,,,,,3,,,,10,20,{times},a.test b.test,'=cmd(),1000,,,");
    assert!(lines[1].starts_with(&first) && lines[1].len() > first.len(), "{csv}");
    let other = format!("198.18.0.9,udp,9,around,around,,,,,1,,,,,,{times},,,,,it ended before anybody could look,");
    assert_eq!(lines[2..], [other]);
    let columns = |line: &str| line.split(',').count();
    assert_eq!(columns(lines[0]), columns(lines[2]));
}

#[test]
fn would_be_denied_names_are_marked() {
    let dns = DnsServer::new();
    let egret = Egret::with_policy(&format!("version: 1\nmode: audit\ndns: {{ upstream: \"{}\" }}\n", dns.addr())).start();
    drop(http_connect(egret.proxy(), "gone.test:443"));
    egret.wait_records(1);
    let text = from_journal(&egret, "text");
    assert!(text.contains("gone.test,tcp,443,would_deny,failed"), "{text}");
}

#[test]
fn forwarded_requests_are_seen_with_their_bytes() {
    let upstream = Upstream::http("hello");
    let dns = DnsServer::new();
    dns.answers("allowed.test", &[upstream.addr().ip()]);
    let egret = Egret::with_policy(&format!(
        "version: 1\negress: {{ allow: [{{ to: \"allowed.test:{}\", as: http, within: [127.0.0.0/8] }}] }}\ndns: {{ upstream: \"{}\" }}\n",
        upstream.port(),
        dns.addr()
    ))
    .start();
    let response = client::forward_get(egret.proxy(), &format!("http://allowed.test:{}/", upstream.port()));
    assert_eq!(response.status, 200);
    egret.event("request", |_| true);
    let report: Value = serde_json::from_str(&from_journal(&egret, "json")).expect("JSON");
    let row = &report["destinations"][0];
    assert_eq!(row["known_by"], json!(["host"]));
    assert!(row["bytes_down"].as_u64() > Some(5) && row["bytes_up"].as_u64() > Some(5), "{row}");
}

#[test]
fn broken_and_foreign_lines_are_counted_and_a_missing_journal_is_named() {
    let report = run_egret(["report", "-"], "the app says hello\n{\"event\":\"conn");
    assert!(report.stdout.contains("2 lines were no events"), "{}", report.stdout);
    let missing = run_egret(["report", "/nonexistent/journal"], "");
    assert_eq!(missing.code, 3);
    assert!(missing.stderr.contains("/nonexistent/journal"), "{}", missing.stderr);
    let nobody = run_egret(["report", "--admin", "127.0.0.1:1"], "");
    assert_eq!(nobody.code, 3);
    assert!(nobody.stderr.contains("127.0.0.1:1"), "{}", nobody.stderr);
}
