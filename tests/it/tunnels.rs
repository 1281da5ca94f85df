//! Bytes both ways: every byte of a permitted connection arrives, in order, whoever speaks first and whoever ends
//! first, and the record counts them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::support::client::{connect, https_get, raw, read_connect_answer, read_exactly, read_to_close, tls_over};
use crate::support::http1::{Response, read_head};
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::upstream::WEBSOCKET_KEY;
use crate::support::{Ca, DEADLINE, DnsServer, Egret, Hello, Program, Upstream, http_connect, payload};

const LARGE: usize = 64 * 1024 * 1024;

/// An egret that lets allowed.test through on one port of this machine.
struct Way {
    egret: Egret,
    target: String,
    dns: DnsServer,
}

impl Way {
    fn to(port: u16, rule: &str) -> Self {
        let dns = DnsServer::new();
        dns.answers("allowed.test", &LOCALHOST);
        let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", port, rule)])).start();
        Self { egret, target: format!("allowed.test:{port}"), dns }
    }

    fn tunnel(&self) -> TcpStream {
        let connected = http_connect(self.egret.proxy(), &self.target);
        assert_eq!(connected.response.status, 200, "{}", connected.response.text());
        connected.stream
    }

    /// CONNECT with more bytes in the same segment; the tunnel after its yes.
    fn tunnel_with(&self, early: &[u8]) -> TcpStream {
        let mut stream = connect(self.egret.proxy());
        let head = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", self.target);
        stream.write_all(&[head.as_bytes(), early].concat()).expect("the proxy takes a request");
        assert_eq!(read_connect_answer(&mut stream).status, 200);
        stream
    }
}

fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap_or_else(|| panic!("{field} is a number: {record}"))
}

/// Bytes that no sniffing takes for TLS or HTTP.
fn opaque(count: usize) -> Vec<u8> {
    [&[0], &payload::bytes(count - 1)[..]].concat()
}

#[test]
fn r01_a_client_that_has_said_everything_still_hears_everything() {
    for rule in ["as: tcp", "as: any"] {
        let echo = Upstream::echo();
        let way = Way::to(echo.port(), rule);
        let mut tunnel = way.tunnel();
        let said = opaque(100_000);
        tunnel.write_all(&said).expect("the tunnel takes bytes");
        tunnel.shutdown(Shutdown::Write).expect("a socket can be closed halfway");
        assert!(read_to_close(&mut tunnel) == said, "{rule}: the echo differs");
        let record = way.egret.only_record();
        assert_eq!((number(&record, "bytes_up"), number(&record, "bytes_down")), (100_000, 100_000), "{rule}");
        assert_eq!((&record["close"], &record["stage"]), (&"client".into(), &"relay".into()), "{rule}");
    }
}

#[test]
fn r01_an_upstream_that_has_said_everything_still_hears_everything() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
    let way = Way::to(port(&listener), "as: tcp");
    let upstream = thread::spawn(move || {
        let mut stream = accept(&listener);
        stream.write_all(b"bye").expect("egret takes bytes");
        stream.shutdown(Shutdown::Write).expect("a socket can be closed halfway");
        read_to_close(&mut stream)
    });
    let mut tunnel = way.tunnel();
    assert_eq!(read_to_close(&mut tunnel), b"bye");
    let said = opaque(100_000);
    tunnel.write_all(&said).expect("the tunnel takes bytes");
    drop(tunnel);
    assert!(upstream.join().expect("the upstream reads to the end") == said, "what the upstream got differs");
    let record = way.egret.only_record();
    assert_eq!((number(&record, "bytes_up"), number(&record, "bytes_down")), (100_000, 3));
    assert_eq!(record["close"], "upstream");
}

#[test]
fn r04_sixty_four_mebibytes_come_down_through_tls() {
    let ca = Ca::new();
    let upstream = Upstream::tls(&ca.issue(&["allowed.test"]), "");
    let way = Way::to(upstream.port(), "as: tls");
    let response = https_get(way.tunnel(), "allowed.test", &format!("/bytes/{LARGE}"), ca.client_config());
    assert_eq!(payload::receipt(&response.body), payload::receipt(&payload::bytes(LARGE)));
    let record = way.egret.only_record();
    assert!(number(&record, "bytes_down") > LARGE as u64, "{record}");
    assert_eq!((&record["sni"], &record["decision"]), (&"allowed.test".into(), &"allow".into()));
}

#[test]
fn r04_sixty_four_mebibytes_go_up_through_tls() {
    let ca = Ca::new();
    let upstream = Upstream::tls(&ca.issue(&["allowed.test"]), "");
    let way = Way::to(upstream.port(), "as: tls");
    let mut tls = tls_over(way.tunnel(), "allowed.test", ca.client_config()).expect("the handshake passes");
    let body = payload::bytes(LARGE);
    write!(tls, "PUT / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: {LARGE}\r\n\r\n").expect("the upstream takes a head");
    tls.write_all(&body).expect("the upstream takes a body");
    assert_eq!(Response::read(&mut tls).expect("the upstream answers").text(), payload::receipt(&body));
    drop(tls);
    let record = way.egret.only_record();
    assert!(number(&record, "bytes_up") > LARGE as u64, "{record}");
    assert_eq!(number(&record, "bytes_up"), upstream.final_bytes());
}

#[test]
fn o09_r04_bytes_in_the_clear_are_counted_exactly() {
    let upstream = Upstream::http("");
    let way = Way::to(upstream.port(), "as: tcp");
    let mut tunnel = way.tunnel();
    let request = format!("GET /bytes/{LARGE} HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n");
    tunnel.write_all(request.as_bytes()).expect("the tunnel takes bytes");
    let answer = read_to_close(&mut tunnel);
    assert!(answer.ends_with(&payload::bytes(LARGE)), "the body differs");
    drop(tunnel);
    let record = way.egret.only_record();
    assert_eq!((number(&record, "bytes_up"), number(&record, "bytes_down")), (request.len() as u64, answer.len() as u64));
    assert_eq!(upstream.final_bytes(), request.len() as u64);
    way.egret.metric_becomes("egret_egress_bytes_total", &[("direction", "up")], request.len() as f64);
    way.egret.metric_becomes("egret_egress_bytes_total", &[("direction", "down")], answer.len() as f64);
}

#[test]
fn t17_a_server_may_speak_first() {
    for rule in ["as: any", "as: tcp"] {
        let upstream = Upstream::banner("220 mail.test ready\r\n");
        let way = Way::to(upstream.port(), rule);
        let mut tunnel = way.tunnel();
        // The client has not said a word yet.
        assert_eq!(read_exactly(&mut tunnel, 21), b"220 mail.test ready\r\n", "{rule}");
        tunnel.write_all(b"EHLO app.test\r\n").expect("the tunnel takes bytes");
        assert_eq!(read_exactly(&mut tunnel, 15), b"EHLO app.test\r\n", "{rule}");
        drop(tunnel);
        assert_eq!(way.egret.only_record()["decision"], "allow", "{rule}");
    }
}

#[test]
fn t17_a_server_that_speaks_first_speaks_no_tls() {
    let upstream = Upstream::banner("220 mail.test ready\r\n");
    let way = Way::to(upstream.port(), "as: tls");
    assert_eq!(read_to_close(&mut way.tunnel()), b"", "nothing of a refused upstream reaches the client");
    let record = way.egret.only_record();
    assert_eq!((&record["reason"], &record["stage"]), (&"not_tls".into(), &"confirm".into()));
    assert_eq!(upstream.final_bytes(), 0);
}

#[test]
fn both_may_say_nothing() {
    let upstream = Upstream::silent();
    let way = Way::to(upstream.port(), "as: any");
    let mut tunnel = way.tunnel();
    tunnel.shutdown(Shutdown::Write).expect("a socket can be closed halfway");
    assert_eq!(read_to_close(&mut tunnel), b"");
    let record = way.egret.only_record();
    assert_eq!((&record["decision"], number(&record, "bytes_up"), number(&record, "bytes_down")), (&"allow".into(), 0, 0));
    assert_eq!((upstream.connections(), upstream.final_bytes()), (1, 0));
}

#[test]
fn p14_a_connect_has_no_content() {
    let echo = Upstream::echo();
    let way = Way::to(echo.port(), "as: any");
    for content in ["Content-Length: 10\r\n\r\n0123456789", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"] {
        let head = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n{content}", way.target);
        let answer = String::from_utf8_lossy(&raw(way.egret.proxy(), head.as_bytes())).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{content:?}: {answer}");
    }
    assert!(way.egret.wait_records(2).iter().all(|record| record["reason"] == "malformed"));
    way.egret.metric_becomes("egret_egress_decisions_total", &[("decision", "deny"), ("reason", "malformed")], 2.0);
    assert_eq!((echo.connections(), way.dns.total()), (0, 0));
}

#[test]
fn p15_bytes_in_the_segment_of_the_connect_are_kept() {
    let echo = Upstream::echo();
    let hello = Hello::new().sni("allowed.test").alpn(&["h2", "http/1.1"]).build();
    for (rule, early) in [("as: tcp", &b"\0early"[..]), ("as: any", b"\0early"), ("as: any", &hello), ("as: tls", &hello)] {
        let way = Way::to(echo.port(), rule);
        let mut tunnel = way.tunnel_with(early);
        assert!(read_exactly(&mut tunnel, early.len()) == early, "{rule}: the echo differs");
        tunnel.write_all(b"more").expect("the tunnel takes bytes");
        assert_eq!(read_exactly(&mut tunnel, 4), b"more", "{rule}");
        drop(tunnel);
        assert_eq!(number(&way.egret.only_record(), "bytes_up"), early.len() as u64 + 4, "{rule}");
    }
}

#[test]
fn p15_and_judged() {
    let echo = Upstream::echo();
    let way = Way::to(echo.port(), "as: tls");
    let mut tunnel = way.tunnel_with(&Hello::new().sni("evil.test").build());
    let answer = read_to_close(&mut tunnel);
    assert!(answer.is_empty() || answer[0] == 0x15, "a close or a TLS alert: {answer:?}");
    assert_eq!(way.egret.only_record()["reason"], "sni_mismatch");
    assert_eq!(echo.final_bytes(), 0);
}

#[test]
fn a_websocket_passes_inside_a_tunnel() {
    for rule in ["as: any", "as: http"] {
        let upstream = Upstream::websocket();
        let way = Way::to(upstream.port(), rule);
        talk_websocket(&mut way.tunnel(), "/chat", &way.target);
        assert_eq!(way.egret.only_record()["decision"], "allow", "{rule}");
    }
}

#[test]
fn a_websocket_passes_in_absolute_form() {
    let upstream = Upstream::websocket();
    let way = Way::to(upstream.port(), "as: http");
    let mut client = connect(way.egret.proxy());
    talk_websocket(&mut client, &format!("http://{}/chat", way.target), &way.target);
    drop(client);
    let record = way.egret.only_record();
    assert_eq!((&record["via"], &record["decision"], &record["requests"]), (&"forward".into(), &"allow".into(), &1.into()));
    assert_eq!(way.egret.event("request", |_| true)["status"], 101);
    assert!(upstream.wait_heads(1)[0].starts_with("GET /chat HTTP/1.1\r\n"));
}

/// The handshake of RFC 6455 section 1.3, two frames each way, and an end.
fn talk_websocket(stream: &mut TcpStream, url: &str, host: &str) {
    let request = format!(
        "GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("the proxy takes a request");
    let answer = Response::of_head(read_head(stream).expect("an answer comes").expect("before the end"));
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")), "{}", answer.head);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for text in ["hello", "again"] {
        let mask = [1, 2, 3, 4];
        let masked: Vec<u8> = text.bytes().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        stream.write_all(&[&[0x81, 0x85], &mask[..], &masked].concat()).expect("the socket takes a frame");
        assert_eq!(read_exactly(stream, 7), [&[0x81, 0x05], text.as_bytes()].concat());
    }
    stream.shutdown(Shutdown::Write).expect("a socket can be closed halfway");
    assert_eq!(read_to_close(stream), b"");
}

#[test]
fn r10_a_silent_tunnel_is_probed_at_both_ends() {
    let upstream = Upstream::silent();
    let way = Way::to(upstream.port(), "as: tcp");
    let tunnel = way.tunnel();
    let shown = Program::new("ss").args(["-tnoH", "state", "established"]).run().stdout;
    let client = format!("{} ", tunnel.local_addr().expect("a connected socket has an address"));
    let server = format!("127.0.0.1:{} ", upstream.port());
    // The peer's address comes last but one: these are egret's own sockets.
    let probed = |peer: &str| shown.lines().find(|line| line.contains(&format!(" {peer}")) && line.contains("timer:(keepalive,"));
    for peer in [&client, &server] {
        let line = probed(peer).unwrap_or_else(|| panic!("no probe is due to {peer}:\n{shown}"));
        let seconds = line.split("keepalive,").nth(1).and_then(|rest| rest.split("sec").next()?.parse::<f64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds <= 45.0), "{line}");
    }
}

#[test]
fn r03_a_reset_by_the_client_ends_the_upstream() {
    let echo = Upstream::echo();
    let way = Way::to(echo.port(), "as: tcp");
    let mut tunnel = way.tunnel();
    tunnel.write_all(b"x").expect("the tunnel takes bytes");
    reset(tunnel);
    assert_eq!(echo.final_bytes(), 1);
    assert_eq!(way.egret.only_record()["close"], "reset");
}

#[test]
fn r03_a_reset_by_the_upstream_ends_the_client() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
    let way = Way::to(port(&listener), "as: tcp");
    let mut tunnel = way.tunnel();
    tunnel.write_all(b"x").expect("the tunnel takes bytes");
    reset(accept(&listener));
    let end = tunnel.read(&mut [0; 8]);
    assert!(matches!(&end, Ok(0)) || end.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "{end:?}");
    assert_eq!(way.egret.only_record()["close"], "reset");
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().expect("egret dials");
    stream.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    stream
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().as_ref().map(SocketAddr::port).expect("a bound listener has an address")
}

/// Closes with a byte unread, to which the kernel answers with a reset (RFC 1122 section 4.2.2.13).
fn reset(stream: TcpStream) {
    let waiting = stream.peek(&mut [0]).expect("a byte comes");
    assert_eq!(waiting, 1);
}
