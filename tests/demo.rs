//! The demonstration of the README: `cargo demo`. A TLS server and a DNS server of its own, the real egret between
//! them and a real curl, all on loopback. It prints what a user would see, and fails if that is not so.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demonstration prints")]

#[allow(dead_code, unused_imports, reason = "the demo needs only some of the harness's verbs")]
#[path = "it/support/mod.rs"]
mod support;

use support::{Ca, DnsServer, Egret, Program, Upstream, run_egret};

fn main() {
    let dns = DnsServer::new();
    let ca = Ca::new();
    let server = Upstream::tls(&ca.issue(&["api.allowed.test"]), "hello from api.allowed.test\n");
    dns.answers("api.allowed.test", &[server.addr().ip()]);
    let policy = format!(
        "version: 1\negress:\n  allow:\n    - to: api.allowed.test:{}     # this name, this port, TLS with this SNI\n      \
         as: tls\n      within: [127.0.0.0/8]             # the demo's server is on loopback\n\
         dns:\n  upstream: 127.0.0.1:{}             # the demo's DNS server\n",
        server.port(),
        dns.port()
    );
    say("The policy: one name is allowed.", &policy);
    let egret = Egret::with_policy(&policy).start();
    say("$ egret run --policy policy.yaml", &egret.stdout_lines().concat());

    let home = tempfile::tempdir().expect("a folder for the certificate");
    let ca_file = ca.write_pem(home.path()).display().to_string();
    let proxy = format!("http://{}", egret.proxy());
    let allowed = curl(&proxy, &ca_file, &[&format!("https://api.allowed.test:{}/", server.port())]);
    assert!(allowed.contains("hello from api.allowed.test"), "the allowed name was not reached: {allowed}");

    let refused = curl(&proxy, &ca_file, &["https://evil.test/"]);
    assert!(refused.contains("403"), "the other name was not refused: {refused}");

    let to_server = format!("evil.test:443:api.allowed.test:{}", server.port());
    let lied = curl(&proxy, &ca_file, &["--connect-to", &to_server, "https://evil.test/"]);
    assert!(!lied.contains("hello"), "a differing SNI went through: {lied}");

    egret.wait_records(3);
    assert_eq!(dns.queries_for("evil.test").len(), 0, "a refused name was asked for");
    let journal = egret.stdout_lines().join("\n");
    say("The journal: one line each.", &journal);
    let report = run_egret(["report", "-"], &journal);
    assert_eq!(report.code, 0, "{}", report.stderr);
    say("$ egret report journal.ndjson", &report.stdout);
    println!("No DNS query was made for evil.test, and the server saw {} connections.", server.connections());
}

/// Runs curl through egret and prints what a user sees: the answer to CONNECT, the body, the error.
fn curl(proxy: &str, ca: &str, args: &[&str]) -> String {
    let output = Program::new("curl")
        .args(["--silent", "--show-error", "--dump-header", "/dev/stderr", "--max-time", "10", "--cacert", ca, "--proxy", proxy])
        .args(args)
        .run();
    let seen = format!("{}{}", output.stderr.replace('\r', ""), output.stdout);
    let shown: String = seen.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect();
    say(&format!("$ curl --proxy {proxy} {}", args.join(" ")), &shown);
    seen
}

fn say(title: &str, text: &str) {
    println!("{title}");
    for line in text.lines() {
        println!("    {line}");
    }
    println!();
}
