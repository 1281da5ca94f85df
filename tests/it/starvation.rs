//! Too little of something: descriptors, memory, answers, somebody who reads the journal. egret goes on with what there is,
//! says what it lacks, and is as before once that has passed. Limits in time are tested in `proxy/tests/limits`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{connect, forward_get, read_to_close};
use crate::support::egret::follow;
use crate::support::http1::Response;
use crate::support::programs::Program;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Upstream, eventually, free_port, http_connect};

/// A server that accepts and says nothing, on one thread however many come.
fn crowd() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    thread::spawn(move || {
        let held: Vec<TcpStream> = listener.incoming().map_while(Result::ok).collect();
        drop(held);
    });
    address
}

/// An egret that lets allowed.test through on this port, as opaque bytes.
fn to(port: u16, dns: &DnsServer) -> crate::support::egret::EgretBuilder {
    dns.answers("allowed.test", &LOCALHOST);
    Egret::with_policy(&policy(dns, &[local("allowed.test", port, "as: tcp")]))
}

/// Ends both halves, where the upstream would never end its own.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("a socket takes the option");
}

fn descriptors(egret: &Egret) -> usize {
    fs::read_dir(format!("/proc/{}/fd", egret.pid())).expect("a live process").count()
}

/// A line of /proc/PID/status that is a number of KiB.
fn kibibytes(egret: &Egret, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", egret.pid())).expect("a live process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// Refused requests on one connection; each leaves an event.
struct Refused(TcpStream);

impl Refused {
    fn at(proxy: SocketAddr) -> Self {
        Self(connect(proxy))
    }

    fn ask(&mut self, name: &str) -> std::io::Result<u16> {
        write!(self.0, "GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n")?;
        Response::read(&mut self.0).map(|response| response.status)
    }
}

#[test]
fn r05_idle_tunnels_cost_little_and_leave_nothing() {
    // `EGRET_TEST_TUNNELS=9950` is what 20,000 descriptors of the test, and of egret, are enough for.
    let count: usize = std::env::var("EGRET_TEST_TUNNELS").ok().and_then(|count| count.parse().ok()).unwrap_or(400);
    let (dns, upstream) = (DnsServer::new(), crowd());
    let egret = to(upstream.port(), &dns).start();
    let target = format!("allowed.test:{}", upstream.port());
    reset(http_connect(egret.proxy(), &target).stream);
    egret.wait_records(1);
    let (before, memory) = (descriptors(&egret), kibibytes(&egret, "VmRSS"));
    let tunnels: Vec<TcpStream> = (0..count).map(|_| http_connect(egret.proxy(), &target).stream).collect();
    egret.metric_becomes("egret_egress_connections_active", &[("via", "connect")], count as f64);
    assert!(descriptors(&egret) >= 2 * count);
    let each = (kibibytes(&egret, "VmRSS").saturating_sub(memory)) as f64 / count as f64;
    println!("{count} idle tunnels: {each:.1} KiB each");
    assert!(each < 12.0, "{each} KiB for each idle tunnel");
    assert_eq!(http_connect(egret.proxy(), "denied.test:443").response.status, 403, "others are served meanwhile");
    tunnels.into_iter().for_each(reset);
    egret.metric_becomes("egret_egress_connections_active", &[("via", "connect")], 0.0);
    eventually("its descriptors are free again", || (descriptors(&egret) <= before + 4).then_some(()));
    // They end in one moment, for which the journal may have no room: what it drops, it counts.
    let lost = || egret.events("gap").iter().filter_map(|gap| gap["lost"].as_u64()).sum::<u64>();
    let told = || egret.records().len() as u64 + lost();
    eventually("every end is told or counted", || (told() >= count as u64 + 2).then_some(()));
}

#[test]
fn r07_without_descriptors_it_says_so_serves_on_and_recovers() {
    const DESCRIPTORS: usize = 64;
    let (dns, upstream) = (DnsServer::new(), Upstream::http("hello\n"));
    dns.answers("allowed.test", &LOCALHOST);
    let policy = policy(&dns, &[local("allowed.test", upstream.port(), "as: http")]);
    let script = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    let egret = Egret::with_policy(&policy).under(["/bin/sh", "-c", &script, "sh"]).start();
    let proxy = egret.proxy();
    let idle: Vec<TcpStream> = (0..100).map(|_| connect(proxy)).collect();
    let why = eventually("readiness turns bad", || {
        let (status, why) = egret.get_admin("/readyz");
        (status == 503).then_some(why)
    });
    assert!(why.contains("clients cannot be accepted"), "{why}");
    assert!(descriptors(&egret) < DESCRIPTORS, "some are left for those that are served");
    assert_eq!(egret.get_admin("/healthz").0, 200, "short of something, not ill");
    assert!(egret.metric("egret_accept_errors_total", &[]) >= 1.0);
    assert!(egret.stderr().contains("clients cannot be accepted"), "{}", egret.stderr());
    drop(idle);
    let url = format!("http://allowed.test:{}/", upstream.port());
    assert_eq!(forward_get(proxy, &url).text(), "hello\n");
    eventually("readiness turns good", || (egret.get_admin("/readyz").0 == 200).then_some(()));
    // Each of those that were accepted has its record, and none stands for two.
    egret.wait_records(101);
}

#[test]
fn r05_sixty_four_megabytes_are_enough_whatever_clients_do() {
    const LIMIT: u64 = 64 << 20;
    let (dns, upstream) = (DnsServer::new(), Upstream::echo());
    let data = format!("--data={LIMIT}");
    let egret = to(upstream.port(), &dns).under(["prlimit", &data]).start();
    let proxy = egret.proxy();
    let target = format!("allowed.test:{}", upstream.port());
    let halves: Vec<TcpStream> = [&b"CONNECT a"[..], &[5], &[0x16, 3, 1, 0x40, 0], b"GET http://a/ HTTP/1.1\r\nA: "]
        .iter()
        .cycle()
        .take(200)
        .map(|half| {
            let mut client = connect(proxy);
            client.write_all(half).expect("the proxy takes bytes");
            client
        })
        .collect();
    let mut tunnels: Vec<TcpStream> = (0..50).map(|_| http_connect(proxy, &target).stream).collect();
    let large = vec![7; 256 * 1024];
    for tunnel in &mut tunnels {
        // Nobody reads the echo: egret must not take more than its buffers hold.
        tunnel.set_write_timeout(Some(std::time::Duration::from_millis(10))).expect("not zero");
        drop(tunnel.write_all(&large));
    }
    let mut refused = Refused::at(proxy);
    for n in 0..1_000 {
        assert_eq!(refused.ask(&format!("n{n}.denied.test")).expect("an answer"), 403);
    }
    assert_eq!(http_connect(proxy, &target).response.status, 200, "it still serves");
    let peak = kibibytes(&egret, "VmHWM");
    println!("{peak} KiB at the peak");
    assert!(peak < LIMIT / 1024, "{peak} KiB resident at the peak");
    drop((halves, tunnels));
}

#[test]
fn r05_distinct_denied_names_fill_no_table() {
    const MOST: usize = 2_048;
    let egret = Egret::with_policy("version: 1\n").start();
    let flood = |from: usize, to: usize| {
        let mut refused = Refused::at(egret.proxy());
        for n in from..to {
            assert_eq!(refused.ask(&format!("n{n}.denied.test")).expect("an answer"), 403);
        }
    };
    flood(0, MOST + 100);
    let (memory, series) = (kibibytes(&egret, "VmRSS"), egret.metrics().lines().count());
    flood(MOST + 100, 2 * MOST);
    let grown = kibibytes(&egret, "VmRSS").saturating_sub(memory);
    println!("{grown} KiB more after {} more names", MOST - 100);
    assert!(grown < 3 * 1024, "{grown} KiB more");
    assert_eq!(egret.metrics().lines().count(), series, "no name is a label");
    let report: Value = serde_json::from_str(&egret.get_admin("/report").1).expect("JSON");
    assert_eq!(report["destinations"].as_array().map(Vec::len), Some(MOST));
    assert!(report["other"].as_u64().is_some_and(|other| other > 0), "and what is beyond is counted");
}

/// A journal that nobody reads until the test does.
struct Stalled {
    egret: Egret,
    proxy: SocketAddr,
    admin: SocketAddr,
    journal: BufReader<fs::File>,
    _home: TempDir,
}

impl Stalled {
    fn start(mode: &str) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let pipe = home.path().join("journal");
        let made = Program::new("mkfifo").arg(&pipe).run();
        assert_eq!(made.code, 0, "{made:?}");
        // For reading and writing, so that neither end waits for the other (fifo(7)).
        let journal = fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe opens");
        let [proxy, admin] = [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let builder = Egret::with_policy("version: 1\n").listen(&proxy.to_string()).admin(&admin.to_string());
        let egret = builder.arg("--journal").arg(&pipe).arg("--journal-full").arg(mode).arg("--drain").arg("0").spawn();
        let mut journal = BufReader::new(journal);
        let started = line(&mut journal);
        assert_eq!((&started["event"], &started["phase"]), (&"lifecycle".into(), &"started".into()));
        Self { egret, proxy, admin, journal, _home: home }
    }

    fn dropped(&self) -> u64 {
        let mut stream = connect(self.admin);
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).expect("a request");
        let text = Response::read(stream).expect("the admin port answers").text();
        let value = text.lines().find_map(|line| line.strip_prefix("egret_events_dropped_total{sink=\"journal\"} "));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no such metric in {text}"))
    }
}

fn line(journal: &mut impl BufRead) -> Value {
    let mut line = String::new();
    journal.read_line(&mut line).expect("the journal is text");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

#[test]
fn o05_with_a_stalled_journal_decisions_go_on_and_what_is_lost_is_counted_and_said() {
    let stalled = Stalled::start("drop");
    let mut refused = Refused::at(stalled.proxy);
    let mut asked = 0u64;
    // The pipe and the queue hold some thousands.
    while stalled.dropped() < 100 {
        for _ in 0..500 {
            assert_eq!(refused.ask("denied.test").expect("an answer"), 403, "after {asked}");
            asked += 1;
        }
    }
    let lost = stalled.dropped();
    let written = follow(Some(stalled.journal));
    let count = |lines: &[String]| -> (u64, u64) {
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.fold((0, 0), |(seen, told), event| {
            (seen + u64::from(event["event"] == "request"), told + event["lost"].as_u64().unwrap_or(0))
        })
    };
    let (seen, told) = eventually("what is not written is said to be lost", || {
        let (seen, told) = count(&written.all());
        (seen + told >= asked).then_some((seen, told))
    });
    assert_eq!((told, seen + told), (lost, asked), "what is written and what is said to be lost are all there was");
}

#[test]
fn o05_who_must_not_lose_a_line_has_egret_stop_instead() {
    let stalled = Stalled::start("stop");
    let mut refused = Refused::at(stalled.proxy);
    let mut asked = 0;
    while refused.ask("denied.test").is_ok_and(|status| status == 403) {
        asked += 1;
        assert!(asked < 50_000, "it goes on and on");
    }
    assert_eq!(stalled.egret.wait_end().code(), Some(3));
    assert!(TcpStream::connect(stalled.proxy).is_err(), "nobody is let out without a journal");
    assert!(stalled.egret.stderr().contains("the journal"), "{}", stalled.egret.stderr());
}

#[test]
fn o05_a_disk_that_is_full_stops_it_or_is_counted() {
    let [proxy, admin] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let full = |mode: &str| {
        let builder = Egret::with_policy("version: 1\n").listen(&proxy).admin(&admin);
        builder.arg("--journal").arg("/dev/full").env("EGRET_JOURNAL_FULL", mode).spawn()
    };
    let stopped = full("stop");
    assert_eq!(stopped.wait_exit().code(), Some(3));
    assert!(stopped.stderr().contains("No space left"), "{}", stopped.stderr());
    let going = full("drop");
    let proxy: SocketAddr = proxy.parse().expect("an address");
    eventually("it listens", || TcpStream::connect(proxy).ok());
    assert_eq!(http_connect(proxy, "denied.test:443").response.status, 403);
    assert_eq!(going.stop().code(), Some(0));
}

#[test]
fn o05_the_policy_may_say_what_is_done_with_a_full_journal() {
    let egret = Egret::with_policy("version: 1\nrun: { journal-full: stop }\n").arg("--print-config").spawn();
    assert_eq!(egret.wait_exit().code(), Some(0));
    let told = egret.stdout_lines().join("\n");
    assert!(told.lines().any(|line| line.starts_with("journal-full") && line.contains("stop")), "{told}");
}

/// What a resolver that lies makes of a query.
type Lie = fn(&[u8]) -> Vec<u8>;

/// `1.2.3.4`, or whatever the test thinks of, as an answer to the query's own question.
fn answer(query: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut reply = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
    let question = query[12..].iter().position(|byte| *byte == 0).map_or(query.len(), |end| 12 + end + 5);
    reply.extend_from_slice(&query[12..question]);
    reply.extend_from_slice(&[&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &address].concat());
    reply
}

#[test]
fn r11_a_resolver_that_lies_leads_nowhere() {
    let lies: [(&str, Lie); 6] = [
        ("noise", |_| vec![0xff; 300]),
        ("another id", |query| {
            let mut reply = answer(query, [127, 0, 0, 1]);
            reply[0] ^= 0xff;
            reply
        }),
        ("another question", |query| {
            let mut reply = answer(query, [127, 0, 0, 1]);
            reply[13] = b'x';
            reply
        }),
        ("more answers than there are", |query| {
            let mut reply = answer(query, [127, 0, 0, 1]);
            reply[6..8].copy_from_slice(&[0xff, 0xff]);
            reply
        }),
        ("a name that points at itself", |query| {
            let mut reply = answer(query, [127, 0, 0, 1]);
            let at = reply.len() - 16;
            reply[at..at + 2].copy_from_slice(&[0xc0, u8::try_from(at).expect("a short query")]);
            reply
        }),
        ("nothing", |_| Vec::new()),
    ];
    let upstream = Upstream::echo();
    for (what, lie) in lies {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
        let resolver = socket.local_addr().expect("an address");
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                drop(socket.send_to(&lie(&query[..length]), from));
            }
        });
        let rule = local("allowed.test", upstream.port(), "as: tcp");
        let policy = format!("version: 1\negress: {{ allow: [{rule}] }}\ndns: {{ upstream: \"{resolver}\" }}\n");
        let egret = Egret::with_policy(&policy).start();
        let status = http_connect(egret.proxy(), &format!("allowed.test:{}", upstream.port())).response.status;
        assert!(matches!(status, 502 | 504), "{what}: {status}");
        let close = egret.only_record()["close"].as_str().unwrap_or_default().to_owned();
        assert!(close.starts_with("dns_"), "{what}: {close}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn r12_a_dead_resolver_holds_up_no_refusal() {
    let dead = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
    let resolver = dead.local_addr().expect("an address");
    let policy = format!("version: 1\negress: {{ allow: [allowed.test] }}\ndns: {{ upstream: \"{resolver}\" }}\n");
    let egret = Egret::with_policy(&policy).start();
    let mut waiting = connect(egret.proxy());
    waiting.write_all(b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n").expect("the proxy takes a request");
    dead.recv_from(&mut [0; 512]).expect("it is asked");
    for _ in 0..20 {
        assert_eq!(http_connect(egret.proxy(), "denied.test:443").response.status, 403);
    }
    waiting.set_nonblocking(true).expect("a socket can be told not to block");
    let early = waiting.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "all of them were answered before the first");
    waiting.set_nonblocking(false).expect("and to block again");
    let answer = String::from_utf8_lossy(&read_to_close(&mut waiting)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[test]
fn r09_long_heads_are_refused_in_every_way_of_asking() {
    let egret = Egret::with_policy("version: 1\n").start();
    let line = "a".repeat(1 << 20);
    let fields: String = (0..10_000).map(|n| format!("A{n}: b\r\n")).collect();
    let field = "b".repeat(100 * 1024);
    let mut count = 0;
    for (method, target) in [("CONNECT", "denied.test:443"), ("GET", "http://denied.test/")] {
        for head in [
            format!("{method} {target}{line} HTTP/1.1\r\n\r\n"),
            format!("{method} {target} HTTP/1.1\r\nHost: denied.test\r\n{fields}\r\n"),
            format!("{method} {target} HTTP/1.1\r\nHost: denied.test\r\nB: {field}\r\n\r\n"),
        ] {
            let mut stream = connect(egret.proxy());
            // It may be refused before it is read to its end.
            drop(stream.write_all(head.as_bytes()));
            let answer = String::from_utf8_lossy(&read_to_close(&mut stream)).into_owned();
            assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{method}: {}", &answer[..answer.len().min(80)]);
            count += 1;
            let record = egret.wait_records(count).pop().expect("a record");
            assert_eq!((&record["decision"], &record["reason"]), (&"deny".into(), &"malformed".into()), "{record}");
        }
    }
    assert!(Path::new(&format!("/proc/{}", egret.pid())).exists());
}
