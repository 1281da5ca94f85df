//! Start, drain, stop, and small machines: egret outlives the app that drains beside it, ends when it must, and needs
//! neither root nor a disk nor many descriptors.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{connect, forward_get, read_exactly, read_to_close};
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Host, Upstream, eventually, http_connect, socks4, socks5};

const TERMINATE: i32 = 15;
const INTERRUPT: i32 = 2;

/// A web server, and the policy that lets it be reached.
struct Site {
    upstream: Upstream,
    _dns: DnsServer,
    policy: String,
}

impl Site {
    fn new(upstream: Upstream, rule: &str) -> Self {
        let dns = DnsServer::new();
        dns.answers("allowed.test", &LOCALHOST);
        let policy = policy(&dns, &[local("allowed.test", upstream.port(), rule)]);
        Self { upstream, _dns: dns, policy }
    }

    fn web() -> Self {
        Self::new(Upstream::http("hello\n"), "as: http")
    }

    fn target(&self) -> String {
        format!("allowed.test:{}", self.upstream.port())
    }

    fn served(&self, egret: &Egret) {
        let response = forward_get(egret.proxy(), &format!("http://{}/", self.target()));
        assert_eq!((response.status, response.text().as_str()), (200, "hello\n"));
    }
}

fn phase(egret: &Egret, phase: &str) -> Value {
    egret.event("lifecycle", |event| event["phase"] == phase)
}

#[test]
fn started_says_what_listens_where() {
    let site = Site::web();
    let egret = Egret::with_policy(&site.policy).listen("127.0.0.1:0").listen("127.0.0.2:0").start();
    let first: Value = serde_json::from_str(&egret.stdout_lines()[0]).expect("the first line is JSON");
    assert_eq!((&first["event"], &first["phase"], &first["v"]), (&"lifecycle".into(), &"started".into(), &1.into()));
    assert_eq!((&first["pid"], &first["mode"]), (&egret.pid().into(), &"enforce".into()));
    assert!(first["version"].is_string() && first["policy"].is_string(), "{first}");
    let proxies = egret.proxies();
    assert_eq!(proxies.len(), 2);
    for proxy in proxies {
        assert_ne!(proxy.port(), 0);
        assert_eq!(forward_get(proxy, &format!("http://{}/", site.target())).text(), "hello\n", "{proxy}");
    }
    assert_eq!(egret.get_admin("/readyz").0, 200);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
    let taken = taken.local_addr().map(|addr| (taken, addr.to_string())).expect("a bound listener has an address");
    for builder in [Egret::with_policy("version: 1\n").listen(&taken.1), Egret::with_policy("version: 1\n").admin(&taken.1)] {
        let egret = builder.spawn();
        assert_eq!(egret.wait_exit().code(), Some(3));
        assert!(egret.stderr().contains(&taken.1), "{}", egret.stderr());
        assert_eq!(egret.events("lifecycle"), [Value::Null; 0], "what never started does not say so");
    }
}

#[test]
fn c11_the_drain_serves_on_and_ends() {
    let site = Site::web();
    let egret = Egret::with_policy(&site.policy).arg("--drain").arg("5").start();
    assert_eq!(egret.get_admin("/readyz").0, 200);
    egret.signal(TERMINATE);
    phase(&egret, "draining");
    assert_eq!(egret.get_admin("/readyz").0, 503);
    assert_eq!(egret.get_admin("/healthz").0, 200, "it is leaving, not ill");
    site.served(&egret);
    assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403, "and still refuses");
    assert_eq!(egret.wait_exit().code(), Some(0));
    phase(&egret, "stopped");
    egret.wait_records(2);
}

#[test]
fn without_a_drain_it_ends_at_once() {
    for signal in [TERMINATE, INTERRUPT] {
        let egret = Egret::with_policy("version: 1\n").arg("--drain").arg("0").start();
        egret.signal(signal);
        assert_eq!(egret.wait_exit().code(), Some(0));
        phase(&egret, "stopped");
    }
}

#[test]
fn c11_a_second_signal_ends_the_drain() {
    let site = Site::new(Upstream::echo(), "as: tcp");
    let egret = Egret::with_policy(&site.policy).arg("--drain").arg("600").start();
    let mut tunnel = http_connect(egret.proxy(), &site.target()).stream;
    tunnel.write_all(b"x").expect("the tunnel takes bytes");
    read_exactly(&mut tunnel, 1);
    egret.signal(TERMINATE);
    phase(&egret, "draining");
    egret.signal(TERMINATE);
    assert_eq!(egret.wait_exit().code(), Some(0));
    assert_eq!(read_to_close(&mut tunnel), b"");
    phase(&egret, "stopped");
}

#[test]
fn c11_a_tunnel_that_outlives_the_drain_is_closed_and_recorded() {
    let site = Site::new(Upstream::echo(), "as: tcp");
    let egret = Egret::with_policy(&site.policy).arg("--drain").arg("1").start();
    let mut tunnel = http_connect(egret.proxy(), &site.target()).stream;
    tunnel.write_all(b"before").expect("the tunnel takes bytes");
    read_exactly(&mut tunnel, 6);
    egret.signal(TERMINATE);
    phase(&egret, "draining");
    tunnel.write_all(b"during").expect("the tunnel takes bytes while it drains");
    assert_eq!(read_exactly(&mut tunnel, 6), b"during");
    assert_eq!(read_to_close(&mut tunnel), b"");
    assert_eq!(egret.wait_exit().code(), Some(0));
    let record = egret.only_record();
    assert_eq!((&record["close"], &record["stage"], &record["decision"]), (&"drained".into(), &"relay".into(), &"allow".into()));
    assert_eq!((&record["bytes_up"], &record["bytes_down"]), (&12.into(), &12.into()), "its bytes are counted");
    assert_eq!(egret.events("lifecycle").last().map(|event| event["phase"].clone()), Some("stopped".into()));
}

/// How many threads serve beside the first; their names are set a moment after they began.
fn becomes_served_by(egret: &Egret, count: usize) {
    let name = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    eventually(&format!("{count} further threads serve"), || {
        let tasks = fs::read_dir(format!("/proc/{}/task", egret.pid())).expect("a live process").flatten();
        (tasks.filter(|task| name(task).starts_with("serve-")).count() == count).then_some(())
    });
}

#[test]
fn as_many_threads_serve_as_there_are_processors_and_four_at_most() {
    let processors = thread::available_parallelism().expect("a number").get();
    becomes_served_by(&Egret::with_policy("version: 1\n").start(), processors.min(4) - 1);
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let first = field(&status, "Cpus_allowed_list").split([',', '-']).next().expect("a processor");
    let egret = Egret::with_policy("version: 1\n").under(["taskset", "-c", first]).start();
    becomes_served_by(&egret, 0);
    assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403);
}

#[test]
fn an_idle_client_does_not_hold_up_the_end() {
    let egret = Egret::with_policy("version: 1\n").arg("--drain").arg("0").start();
    let mut idle = connect(egret.proxy());
    idle.write_all(b"CONNECT evil.te").expect("the proxy takes half a request");
    // Accepted before this one, which has its answer.
    assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403);
    assert_eq!(egret.stop().code(), Some(0));
    assert_eq!(read_to_close(&mut idle), b"");
    let records = egret.wait_records(2);
    assert!(records.iter().any(|record| record["close"] == "drained"), "{records:#?}");
}

/// Takes root, capabilities and the disk away: from root with another uid and an empty bounding set, and always with
/// no way to let any file grow, which is harder than a root that is mounted read-only: /tmp and /dev/shm count too.
/// The program is run from a descriptor, since the other uid may not be let into the folder of a build.
const WITH_NOTHING: &str = r#"
exec 9<"$1"; shift
if [ "$(id -u)" = 0 ]; then
    set -- setpriv --reuid=12345 --regid=12345 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
        prlimit --fsize=0 --core=0 /proc/self/fd/9 "$@"
else
    set -- prlimit --fsize=0 --core=0 /proc/self/fd/9 "$@"
fi
exec "$@"
"#;

#[test]
fn c14_it_needs_no_root_no_capability_no_disk_and_little_memory() {
    let site = Site::web();
    // The test's directory is its owner's alone, so that the policy travels as text.
    let egret = Egret::without_policy().env("EGRET_POLICY", &site.policy).under(["/bin/sh", "-c", WITH_NOTHING, "sh"]).start();
    for _ in 0..50 {
        site.served(&egret);
        assert_eq!(http_connect(egret.proxy(), "evil.test:443").response.status, 403);
    }
    let status = fs::read_to_string(format!("/proc/{}/status", egret.pid())).expect("a live process has a status");
    assert_ne!(field(&status, "Uid"), "0", "{status}");
    assert_eq!(field(&status, "CapEff").trim_start_matches('0'), "", "{status}");
    let peak: u64 = field(&status, "VmHWM").parse().expect("a number of KiB");
    assert!(peak < 64 * 1024, "{peak} KiB resident at the peak");
    assert_eq!(egret.stop().code(), Some(0));
}

/// The first word of a line of /proc/PID/status.
fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or_else(|| panic!("no {name} in {status}"))
}

#[test]
fn a_client_that_goes_away_leaves_a_record() {
    let egret = Egret::with_policy("version: 1\n").start();
    drop(connect(egret.proxy()));
    let record = egret.only_record();
    assert_eq!((&record["close"], &record["via"]), (&"client_gone".into(), &Value::Null));
    assert_ne!(record["decision"], "allow");
    assert!(record["duration_ms"].as_u64().is_some_and(|ms| u128::from(ms) < Duration::from_secs(10).as_millis()), "{record}");
}

#[test]
fn r06_a_client_beyond_the_limit_is_told_so_in_its_protocol_and_recorded() {
    let site = Site::new(Upstream::echo(), "as: tcp");
    let egret = Egret::with_policy(&site.policy).arg("--connections").arg("1").start();
    let half = connect(egret.proxy());
    let held = http_connect(egret.proxy(), &site.target());
    assert_eq!(held.response.status, 200, "a client that has not asked holds no place");
    let answer = http_connect(egret.proxy(), &site.target()).response;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.header("x-egret-reason"), Some("connection_limit"));
    assert_eq!(forward_get(egret.proxy(), "http://denied.test/").status, 503);
    assert_eq!(socks5(egret.proxy(), Host::Name("allowed.test"), 443, None).0, 1);
    assert_eq!(socks4(egret.proxy(), Ipv4Addr::LOCALHOST, 443, "").0, 91);
    for via in ["connect", "forward", "socks5", "socks4"] {
        egret.record(|record| record["reason"] == "connection_limit" && record["via"] == via);
    }
    drop((half, held));
    eventually("its place is free again", || (http_connect(egret.proxy(), &site.target()).response.status == 200).then_some(()));
}
