//! The admin port: health, readiness, metrics that Prometheus reads, status. Read-only, and for this host only.

use std::io::Write;
use std::net::TcpStream;

use crate::support::{Egret, Program, client, http_connect, run_egret};

const POLICY: &str = "version: 1\negress: { allow: [allowed.test] }\n";

fn asked(egret: &Egret, request: &str) -> String {
    let mut stream = TcpStream::connect(egret.admin()).expect("the admin port accepts");
    stream.write_all(request.as_bytes()).expect("it takes a request");
    String::from_utf8(client::read_to_close(&mut stream)).expect("text")
}

#[test]
fn health_readiness_and_status_answer() {
    let egret = Egret::with_policy(POLICY).start();
    assert_eq!(egret.get_admin("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(egret.get_admin("/readyz").0, 200);
    let (code, status) = egret.get_admin("/status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((code, status["policy"]["rules"].as_u64(), status["ready"].as_bool()), (200, Some(1), Some(true)));
    assert_eq!(status["policy"]["hash"], egret.started()["policy"]);
    assert_eq!(egret.get_admin("/nothing").0, 404);
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    let egret = Egret::with_policy(POLICY).start();
    drop(http_connect(egret.proxy(), "denied.test:443"));
    egret.only_record();
    let metrics = egret.metrics();
    let checked = Program::new("promtool").args(["check", "metrics"]).stdin(metrics.as_bytes()).run();
    assert_eq!(checked.code, 0, "{}\n{}{}", metrics, checked.stdout, checked.stderr);
    assert_eq!(checked.stderr, "", "lints");
}

#[test]
fn metrics_count_what_happened_and_never_name_a_host() {
    let egret = Egret::with_policy(POLICY).start();
    for n in 0..3 {
        drop(http_connect(egret.proxy(), &format!("host{n}.denied.test:443")));
    }
    egret.wait_records(3);
    egret.metric_becomes(
        "egret_egress_decisions_total",
        &[("decision", "deny"), ("reason", "no_rule"), ("role", "default")],
        3.0,
    );
    egret.metric_becomes("egret_egress_connections_active", &[("via", "connect")], 0.0);
    assert_eq!(egret.metric("egret_discovered_destinations", &[]), 3.0);
    assert_eq!(egret.metric("egret_build_info", &[]), 1.0);
    assert!(!egret.metrics().contains("denied.test"));
}

#[test]
fn l06_only_get_and_only_for_this_host() {
    let egret = Egret::with_policy(POLICY).start();
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", "200"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost:1\r\nConnection: close\r\n\r\n", "200"),
        ("GET /metrics HTTP/1.1\r\nHost: rebound.attacker.test\r\nConnection: close\r\n\r\n", "403"),
        ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://attacker.test\r\nConnection: close\r\n\r\n", "403"),
        ("POST /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "405"),
        ("POST /reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "404"),
        ("DELETE /report HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", "405"),
    ] {
        let answer = asked(&egret, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}

#[test]
fn c12_the_probe_tells_ready_from_not() {
    let egret = Egret::with_policy(POLICY).start();
    assert_eq!(run_egret(["health", "--admin", &egret.admin().to_string()], "").code, 0);
    let nobody = run_egret(["health", "--admin", "127.0.0.1:1"], "");
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("127.0.0.1:1"), "{}", nobody.stderr);
}
