//! Good, bad, slow and vanishing clients side by side for a while; then egret is as before, and its journal, its metrics
//! and what the clients counted say the same.
//!
//! `EGRET_SOAK_SECONDS=600` (debug build, 2 shared cores, 2026-11): 500,767 connections, each with its record; 19 descriptors
//! before and 21 after, as a pipe is kept for the next bulk; 4 threads; 31.3 MB resident before and 35.8 MB after.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::client::{connect, forward_get, http_connect, read_to_close};
use crate::support::http1::Response;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Host, Upstream, eventually, free_port, socks4a, socks5};

/// How long, where `EGRET_SOAK_SECONDS` does not say.
const SECONDS: u64 = 3;
/// A slow client sends a byte each so often; how fast does not matter.
const SLOW: Duration = Duration::from_millis(3);
/// Between two clients of a kind.
const PAUSE: Duration = Duration::from_millis(10);
const ACTIVE: &str = "egret_egress_connections_active";
/// What egret may hold more than before: buffers of its allocator.
const SPARE_KIB: u64 = 12 * 1024;

/// What the clients talk to.
struct Scene {
    proxy: SocketAddr,
    echo: String,
    web: String,
    opened: AtomicU64,
}

/// One client's life, by its number.
type Life = fn(&Scene, u64);

const LIVES: [(&str, Life); 10] = [
    ("tunnel", |scene, _| drop(echoed(scene, &[7; 50_000]))),
    ("half-close", |scene, _| {
        let mut tunnel = echoed(scene, b"x");
        tunnel.shutdown(std::net::Shutdown::Write).expect("a socket can be closed halfway");
        read_to_close(&mut tunnel);
    }),
    ("forward", |scene, _| assert_eq!(forward_get(scene.proxy, &format!("http://{}/", scene.web)).status, 200)),
    ("denied", |scene, n| assert_eq!(http_connect(scene.proxy, &format!("n{n}.denied.test:443")).response.status, 403)),
    ("denied forward", |scene, n| assert_eq!(forward_get(scene.proxy, &format!("http://n{n}.denied.test/")).status, 403)),
    ("socks", |scene, n| {
        if n.is_multiple_of(2) {
            assert_eq!(socks5(scene.proxy, Host::Name("denied.test"), 443, None).0, 2);
        } else {
            assert_eq!(socks4a(scene.proxy, "denied.test", 443, "").0, 91);
        }
    }),
    ("garbage", |scene, n| {
        let bytes: Vec<u8> =
            (0..200).map(|at: u64| (n.wrapping_mul(2_654_435_761).rotate_left((at % 64) as u32) & 0xff) as u8).collect();
        let mut stream = connect(scene.proxy);
        drop(stream.write_all(&bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        drop(stream.read(&mut [0; 64]));
    }),
    ("slow", |scene, _| {
        let mut stream = connect(scene.proxy);
        for byte in b"CONNECT denied.test:443 HTTP/1.1\r\n\r\n" {
            // On a machine that stands still for a while its deadline passes, which is as well.
            drop(stream.write_all(&[*byte]));
            thread::sleep(SLOW);
        }
        drop(stream.read(&mut [0; 64]));
    }),
    ("vanishing", |scene, n| {
        let head = format!("CONNECT {} HTTP/1.1\r\n\r\n", scene.echo);
        let said = usize::try_from(n).unwrap_or(0) % (head.len() + 1);
        drop(connect(scene.proxy).write_all(&head.as_bytes()[..said]));
    }),
    ("reset", |scene, _| {
        let mut tunnel = http_connect(scene.proxy, &scene.echo).stream;
        drop(tunnel.write_all(&[1; 100]));
        // Closed with bytes unread, to which the kernel answers with a reset.
        drop(tunnel.peek(&mut [0]));
    }),
];

fn echoed(scene: &Scene, bytes: &[u8]) -> TcpStream {
    let mut tunnel = http_connect(scene.proxy, &scene.echo).stream;
    tunnel.write_all(bytes).expect("the tunnel takes bytes");
    let mut heard = vec![0; bytes.len()];
    tunnel.read_exact(&mut heard).expect("the echo");
    assert!(heard == bytes, "the echo differs");
    tunnel
}

/// An egret whose journal is a file: a long soak fills more of it than a test wants in memory.
struct Watched {
    egret: Egret,
    admin: SocketAddr,
    journal: NamedTempFile,
}

impl Watched {
    fn start(policy: &str) -> (Self, SocketAddr) {
        let journal = NamedTempFile::new().expect("a temporary file");
        let [proxy, admin] = [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let builder = Egret::with_policy(policy).listen(&proxy.to_string()).admin(&admin.to_string());
        let egret = builder.arg("--journal").arg(journal.path()).spawn();
        let watched = Self { egret, admin, journal };
        eventually("it listens", || watched.count(|event| event["phase"] == "started").eq(&1).then_some(()));
        (watched, proxy)
    }

    /// Each event of the journal so far, once.
    fn each(&self, mut see: impl FnMut(&Value)) {
        let journal = fs::File::open(self.journal.path()).expect("the journal opens");
        for line in BufReader::new(journal).lines() {
            let line = line.expect("the journal is text");
            // The last line may be on its way.
            if let Ok(event) = serde_json::from_str(&line) {
                see(&event);
            }
        }
    }

    fn count(&self, matches: impl Fn(&Value) -> bool) -> u64 {
        let mut count = 0;
        self.each(|event| count += u64::from(matches(event)));
        count
    }

    /// The sum of the samples of this name that have this label.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let mut stream = connect(self.admin);
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).expect("a request");
        let text = Response::read(stream).expect("the admin port answers").text();
        let samples = text.lines().filter_map(|line| line.strip_prefix(name)?.split_once(' '));
        samples.filter(|(labels, _)| labels.contains(label)).filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    }

    fn becomes(&self, name: &str, label: &str, value: f64) {
        eventually(&format!("{name} {label} is {value}"), || (self.metric(name, label) == value).then_some(()));
    }

    /// Descriptors, threads and KiB of memory in use.
    fn holds(&self) -> (usize, usize, u64) {
        let process = format!("/proc/{}", self.egret.pid());
        let count = |folder| fs::read_dir(format!("{process}/{folder}")).expect("a live process").count();
        let status = fs::read_to_string(format!("{process}/status")).expect("a live process has a status");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        (count("fd"), count("task"), memory.expect("a number"))
    }
}

#[test]
fn everything_is_as_before_and_nothing_is_unaccounted_for() {
    let seconds = std::env::var("EGRET_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let (dns, echo, web) = (DnsServer::new(), Upstream::echo(), Upstream::http("hello\n"));
    dns.answers("allowed.test", &LOCALHOST);
    let rules = [local("allowed.test", echo.port(), "as: tcp"), local("allowed.test", web.port(), "as: http")];
    let (watched, proxy) = Watched::start(&policy(&dns, &rules));
    let [echo_at, web_at] = [&echo, &web].map(|upstream| format!("allowed.test:{}", upstream.port()));
    let scene = Arc::new(Scene { proxy, echo: echo_at, web: web_at, opened: AtomicU64::new(0) });
    // Once through, so that what is made once is made.
    for (_, life) in LIVES {
        life(&scene, scene.opened.fetch_add(1, Ordering::Relaxed));
    }
    watched.becomes(ACTIVE, "", 0.0);
    let before = watched.holds();
    live(&scene, Instant::now() + Duration::from_secs(seconds));

    let opened = scene.opened.load(Ordering::Relaxed);
    watched.becomes(ACTIVE, "", 0.0);
    let after = eventually("its descriptors and threads are as before", || {
        let now = watched.holds();
        (now.0 <= before.0 + 2 && now.1 <= before.1 + 2).then_some(now)
    });
    println!("{opened} connections in {seconds} s; descriptors, threads, KiB: {before:?} before, {after:?} after");
    assert!(after.2 <= before.2 + SPARE_KIB, "memory grew: {before:?} before, {after:?} after");
    assert_eq!(http_connect(proxy, "denied.test:443").response.status, 403, "and it serves");
    agree(&watched, opened + 1);
}

/// Every kind of client at once, until then.
fn live(scene: &Arc<Scene>, end: Instant) {
    let client = |life: Life| {
        let scene = Arc::clone(scene);
        thread::spawn(move || {
            while Instant::now() < end {
                life(&scene, scene.opened.fetch_add(1, Ordering::Relaxed));
                thread::sleep(PAUSE);
            }
        })
    };
    let clients: Vec<_> = LIVES.into_iter().map(|(kind, life)| (kind, client(life))).collect();
    for (kind, client) in clients {
        assert!(client.join().is_ok(), "{kind}: not what it should have got");
    }
}

/// The journal holds each connection once, and the metrics count what it says.
fn agree(watched: &Watched, opened: u64) {
    // A client that has gone leaves its record a moment later; reading a long journal takes longer than this waits.
    watched.becomes(ACTIVE, "", 0.0);
    eventually("each connection has its record", || {
        let ended = watched.metric("egret_egress_connection_duration_seconds_count", "");
        let unknown = watched.count(|event| event["event"] == "connection" && event["via"].is_null());
        (ended + unknown as f64 >= opened as f64).then_some(())
    });
    let mut ids = HashSet::new();
    let (mut verdicts, mut vias, mut bytes) = (HashMap::new(), HashMap::new(), [0u64; 2]);
    watched.each(|event| {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let is_connection = event["event"] == "connection";
        if is_connection {
            assert!(ids.insert(text("id")), "one id for two connections: {event}");
            *vias.entry(text("via")).or_insert(0u32) += 1;
            for (sum, field) in bytes.iter_mut().zip(["bytes_up", "bytes_down"]) {
                *sum += event[field].as_u64().expect("a number");
            }
        }
        // Of a connection that carries requests, those are judged.
        if event["event"] == "request" || (is_connection && event["requests"] == 0) {
            *verdicts.entry(text("decision")).or_insert(0u32) += 1;
        }
    });
    assert_eq!(ids.len() as u64, opened, "a record for each connection");
    for (decision, count) in verdicts.iter().filter(|(decision, _)| !decision.is_empty()) {
        watched.becomes("egret_egress_decisions_total", &format!("decision=\"{decision}\""), f64::from(*count));
    }
    for (via, count) in vias.iter().filter(|(via, _)| !via.is_empty()) {
        watched.becomes("egret_egress_connection_duration_seconds_count", &format!("via=\"{via}\""), f64::from(*count));
    }
    for (direction, sum) in ["up", "down"].iter().zip(bytes) {
        watched.becomes("egret_egress_bytes_total", &format!("direction=\"{direction}\""), sum as f64);
    }
    assert_eq!((watched.metric("egret_panics_total", ""), watched.metric("egret_events_dropped_total", "")), (0.0, 0.0));
}
