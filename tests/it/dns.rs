//! How names become addresses: where egret asks, how often, and what a client hears when no answer comes. Answers that
//! may not be dialled are elsewhere.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::client::forward_get;
use crate::support::dns::Transport;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{Ca, DnsServer, Egret, Host, Upstream, http_connect, socks4a, socks5};

/// A policy for allowed.test at this upstream, with more keys under `dns`.
fn asking(dns: &str, upstream: &Upstream) -> String {
    format!("version: 1\negress: {{ allow: [{}] }}\ndns: {{ {dns} }}\n", local("allowed.test", upstream.port(), "as: tcp"))
}

fn target(upstream: &Upstream) -> String {
    format!("allowed.test:{}", upstream.port())
}

fn plain(dns: &DnsServer, upstream: &Upstream) -> Egret {
    Egret::with_policy(&policy(dns, &[local("allowed.test", upstream.port(), "as: tcp")])).start()
}

fn status(egret: &Egret, upstream: &Upstream) -> u16 {
    http_connect(egret.proxy(), &target(upstream)).response.status
}

/// How often each kind of record was asked for.
fn asked(dns: &DnsServer) -> (usize, usize) {
    let queries = dns.queries_for("allowed.test");
    let count = |kind| queries.iter().filter(|query| query.kind == kind).count();
    (count("A"), count("AAAA"))
}

#[test]
fn a_server_with_a_port_is_asked_once_for_each_connection() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    dns.ttl(0).answers("allowed.test", &LOCALHOST);
    let egret = plain(&dns, &upstream);
    for turn in 1..=2 {
        assert_eq!(status(&egret, &upstream), 200);
        assert_eq!(asked(&dns), (turn, turn), "connection {turn}: one resolution");
    }
    assert_eq!(dns.total(), 4, "nothing else is asked for: {:#?}", dns.queries());
    assert!(dns.queries().iter().all(|query| query.transport == Transport::Udp));
    egret.metric_becomes("egret_dns_queries_total", &[("result", "ok")], 2.0);
}

#[test]
fn answers_are_kept_for_their_time_to_live() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    dns.ttl(300).answers("allowed.test", &LOCALHOST);
    let egret = plain(&dns, &upstream);
    for _ in 0..3 {
        assert_eq!(status(&egret, &upstream), 200);
    }
    assert_eq!(asked(&dns), (1, 1));
}

#[test]
fn a_truncated_answer_is_fetched_over_tcp() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    dns.truncated("allowed.test", &LOCALHOST);
    let egret = Egret::with_policy(&asking(&format!("upstream: \"127.0.0.1:{}\"", dns.port()), &upstream)).start();
    assert_eq!(status(&egret, &upstream), 200);
    let queries = dns.queries_for("allowed.test");
    assert!(queries.iter().any(|query| query.transport == Transport::Tcp && query.kind == "A"), "{queries:#?}");
}

/// An egret that asks over TLS and trusts the test's root.
fn over_tls(server_name: &str) -> (u16, DnsServer, Egret) {
    let (ca, home) = (Ca::new(), TempDir::new().expect("a temporary directory"));
    let (dns, upstream) = (DnsServer::with_tls(&ca.issue(&[server_name])), Upstream::echo());
    dns.answers("allowed.test", &LOCALHOST);
    let (port, ca) = (dns.tls_port(), ca.write_pem(home.path()));
    let keys = format!("upstream: \"tls://127.0.0.1:{port}#dns.test\", ca: {}", ca.display());
    let egret = Egret::with_policy(&asking(&keys, &upstream)).start();
    (status(&egret, &upstream), dns, egret)
}

#[test]
fn over_tls_the_server_shows_its_name() {
    let (status, dns, _egret) = over_tls("dns.test");
    assert_eq!(status, 200);
    let queries = dns.queries();
    assert!(!queries.is_empty() && queries.iter().all(|query| query.transport == Transport::Tls), "{queries:#?}");
}

#[test]
fn over_tls_another_name_is_no_server() {
    let (status, dns, egret) = over_tls("other.test");
    assert_eq!((status, dns.total()), (502, 0), "nothing is asked of a server that cannot show its name, nor in the clear");
    let record = egret.only_record();
    assert_eq!((&record["close"], &record["stage"], &record["address"]), (&"dns_failed".into(), &"resolve".into(), &().into()));
}

#[test]
fn over_tls_an_unknown_root_is_no_server() {
    let ca = Ca::new();
    let (dns, upstream) = (DnsServer::with_tls(&ca.issue(&["dns.test"])), Upstream::echo());
    let keys = format!("upstream: \"tls://127.0.0.1:{}#dns.test\"", dns.tls_port());
    let egret = Egret::with_policy(&asking(&keys, &upstream)).start();
    assert_eq!((status(&egret, &upstream), dns.total()), (502, 0));
}

/// Each way in, against a resolver that was told what to do about allowed.test.
fn fails(tell: fn(&DnsServer) -> &DnsServer, expected: u16, code: &str) {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    tell(&dns);
    let http = local("allowed.test", 80, "as: http");
    let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", upstream.port(), "as: tcp"), http])).start();

    let started = Instant::now();
    let response = http_connect(egret.proxy(), &target(&upstream)).response;
    let took = started.elapsed();
    assert_eq!((response.status, response.header("x-egret-reason")), (expected, Some(code)));
    assert!(took < Duration::from_secs(5), "the client heard of {code} after {took:?}");
    assert!(response.text().contains(code), "{}", response.text());
    let record = egret.only_record();
    assert_eq!((&record["close"], &record["stage"], &record["address"]), (&code.into(), &"resolve".into(), &().into()));
    assert_ne!(record["decision"], "deny", "a name that cannot be resolved is not a refusal");
    assert!(record["detail"].is_string(), "{record}");

    let (proxy, port) = (egret.proxy(), upstream.port());
    // Side by side, for the sake of the resolver that makes each of them wait.
    thread::scope(|ways| {
        ways.spawn(|| assert_eq!(socks5(proxy, Host::Name("allowed.test"), port, None).0, 4));
        ways.spawn(|| assert_eq!(socks4a(proxy, "allowed.test", port, "").0, 91));
        let response = forward_get(proxy, "http://allowed.test/");
        assert_eq!((response.status, response.header("x-egret-reason")), (expected, Some(code)));
    });
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_name_that_does_not_exist() {
    fails(|dns| dns.nxdomain("allowed.test"), 502, "dns_nxdomain");
}

#[test]
fn a_name_without_addresses() {
    fails(|dns| dns.answers("allowed.test", &[]), 502, "dns_no_address");
}

#[test]
fn a_server_that_fails() {
    fails(|dns| dns.servfail("allowed.test"), 502, "dns_failed");
}

#[test]
fn a_server_that_is_silent() {
    fails(|dns| dns.silent("allowed.test"), 504, "dns_timeout");
}

#[test]
fn a_server_that_is_not_there() {
    let upstream = Upstream::echo();
    // An address of loopback at which nobody listens.
    let egret = Egret::with_policy(&asking("upstream: \"127.0.0.99:53\"", &upstream)).start();
    let response = http_connect(egret.proxy(), &target(&upstream)).response;
    assert!([502, 504].contains(&response.status), "{}", response.head);
}

#[test]
fn a_failure_is_not_remembered_beyond_its_time() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    dns.servfail("allowed.test");
    let egret = plain(&dns, &upstream);
    assert_eq!(status(&egret, &upstream), 502);
    dns.answers("allowed.test", &LOCALHOST);
    assert_eq!(status(&egret, &upstream), 200, "SERVFAIL is asked again at once");
}

#[test]
fn names_are_asked_for_as_they_are() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    let rules = ["db", "nowhere.test"].map(|name| local(name, upstream.port(), "as: tcp"));
    let egret = Egret::with_policy(&policy(&dns, &rules)).start();
    for name in ["db", "nowhere.test"] {
        assert_eq!(http_connect(egret.proxy(), &format!("{name}:{}", upstream.port())).response.status, 502);
    }
    let others: Vec<_> = dns.queries().into_iter().filter(|query| query.name != "db" && query.name != "nowhere.test").collect();
    assert!(others.is_empty(), "a search domain was applied: {others:#?}");
}

/// An egret whose /etc/hosts has allowed.test on loopback and private.test elsewhere.
fn with_hosts_file(dns: &DnsServer, upstream: &Upstream) -> Egret {
    let rules = [local("allowed.test", upstream.port(), "as: tcp"), format!("\"private.test:{}\"", upstream.port())];
    let builder = Egret::with_policy(&policy(dns, &rules));
    let hosts = builder.home().join("hosts");
    fs::write(&hosts, "127.0.0.1 allowed.test\n10.1.2.3 private.test\n").expect("the test's directory is writable");
    // In a mount namespace of its own, where it changes nobody else's; in a user namespace, so that no root is needed.
    let script = "mount --bind \"$HOSTS\" /etc/hosts && exec \"$@\"";
    builder.env("HOSTS", &hosts).under(["unshare", "-r", "-m", "sh", "-c", script, "sh"]).start()
}

#[test]
fn the_hosts_file_is_an_answer_like_any_other() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    let egret = with_hosts_file(&dns, &upstream);
    assert_eq!(status(&egret, &upstream), 200);
    let private = http_connect(egret.proxy(), &format!("private.test:{}", upstream.port())).response;
    assert_eq!((private.status, private.header("x-egret-reason")), (403, Some("address_class")));
}

#[test]
fn what_the_hosts_file_answers_is_not_asked_for() {
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    let egret = with_hosts_file(&dns, &upstream);
    assert_eq!(status(&egret, &upstream), 200);
    assert_eq!(dns.queries(), [], "a DNS server that is slow, down or hostile has no part in it");
}
