//! Where a cleartext HTTP request ends (P). What has two readings is answered 400 and ends its connection, on a forward
//! connection and inside a tunnel alike; nothing behind it is read, and nothing of it reaches anybody.

use std::io::Write;
use std::net::TcpStream;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::client::{connect, raw, read_exactly, read_to_close};
use crate::support::http1::{Response, read_head};
use crate::support::world::assert_refusal;
use crate::support::{Upstream, World, http_connect};

/// A second request, for whoever reads beyond the first.
const EVIL: &str = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n";

/// A web server behind a rule of its own.
fn web(protocol: &str) -> World {
    let rule = format!("{{ id: web, to: \"allowed.test:PORT\", as: {protocol}, within: [127.0.0.0/8] }}");
    World::of(&format!("egress: {{ allow: [{rule}] }}"), Upstream::http("hello\n"))
}

/// A request line and a Host field, both for the web server, and these fields.
fn head(world: &World, fields: &str) -> String {
    format!("POST http://{0}/ HTTP/1.1\r\nHost: {0}\r\n{fields}\r\n", world.at("allowed.test"))
}

/// One answer in all, which is a refusal that its record agrees with.
fn assert_refused(world: &World, case: &str, status: u16, stage: &str, answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{case}: nothing is read after it: {text}");
    let response = Response::read(answer).unwrap_or_else(|e| panic!("{case}: no HTTP answer ({e}): {text}"));
    let record = world.denied(case, stage, "malformed");
    assert_eq!(record["requests"], 0, "{case}: {record:#}");
    assert_refusal(case, &response, status, &record);
}

/// On a forward connection, and inside a tunnel, with another request behind it.
fn refused_everywhere(world: &World, request: &str, status: u16) {
    let case = request.escape_debug().to_string();
    let case = &case[..case.len().min(300)];
    let both = [request, EVIL].concat();
    assert_refused(world, &format!("forward {case}"), status, "parse", &raw(world.proxy, both.as_bytes()));
    let mut tunnel = http_connect(world.proxy, &world.at("allowed.test")).stream;
    drop(tunnel.write_all(both.as_bytes()));
    assert_refused(world, &format!("tunnel {case}"), status, "relay", &read_to_close(&mut tunnel));
}

fn refused_fields(fields: &[&str]) {
    let world = web("http");
    for fields in fields {
        refused_everywhere(&world, &(head(&world, fields) + "0\r\n\r\n"), 400);
    }
}

#[test]
fn p02_a_host_field_names_one_host() {
    let hosts = ["a, b", "allowed.test evil.test", "u@allowed.test", "allowed.test/evil.test", "all\u{f6}wed.test"];
    let world = web("http");
    for host in hosts {
        refused_everywhere(&world, &format!("GET http://{}/ HTTP/1.1\r\nHost: {host}\r\n\r\n", world.at("allowed.test")), 400);
    }
}

#[test]
fn p05_a_length_beside_chunks_is_refused() {
    refused_fields(&[
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
    ]);
}

#[test]
fn p06_odd_lengths_are_malformed() {
    refused_fields(&[
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 \t5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
    ]);
}

#[test]
fn p07_transfer_codings_but_chunked_are_malformed() {
    refused_fields(&[
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
    ]);
    let world = web("http");
    let old = head(&world, "Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0");
    refused_everywhere(&world, &(old + "0\r\n\r\n"), 400);
}

#[test]
fn p10_lines_that_two_programs_could_read_differently_are_malformed() {
    refused_fields(&[
        "X-Bare: a\rHost: evil.test\r\n",
        "X-Bare: a\nHost: evil.test\r\n",
        "X-Bare: a\n\r\n",
        "X-Nul: a\0b\r\n",
        "X Blank: 1\r\n",
        "X-Colon : 1\r\n",
    ]);
    let world = web("http");
    let plain = head(&world, "");
    let bare = [plain.replace("\r\n", "\n"), plain.replacen("\r\n", "\n", 1), plain.replace("\r\n\r\n", "\r\n\n")];
    for lines in bare {
        refused_everywhere(&world, &lines, 400);
    }
    for method in ["P(ST", "P\u{f6}ST", "PO:ST", "POST "] {
        let case = format!("method {method}");
        assert_refused(&world, &case, 400, "parse", &raw(world.proxy, plain.replacen("POST", method, 1).as_bytes()));
    }
}

/// A request whose content breaks after its head went on: refused once, with its upstream's side abandoned in the middle.
fn broken_content(world: &World, chunk: &str) {
    let request = [head(world, "Transfer-Encoding: chunked\r\n").as_str(), chunk, "0\r\n\r\n", EVIL].concat();
    let shown = chunk.escape_debug().to_string();
    let shown = &shown[..shown.len().min(100)];
    let mut tunnel = http_connect(world.proxy, &world.at("allowed.test")).stream;
    drop(tunnel.write_all(request.as_bytes()));
    for (way, answer) in [("forward", raw(world.proxy, request.as_bytes())), ("tunnel", read_to_close(&mut tunnel))] {
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 400 "), "{way} {shown}: {text}");
        assert!(text.contains("x-egret-reason: malformed\r\n"), "{way} {shown}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{way} {shown}: {text}");
    }
}

#[test]
fn p08_a_broken_chunk_ends_the_request() {
    let world = web("http");
    let extension = format!("1;ext={}\r\na\r\n", "x".repeat(64 * 1024));
    let trailer = format!("0\r\nX: {}\r\n", "x".repeat(64 * 1024));
    let chunks = [
        "FFFFFFFFFFFFFFFFF\r\n",
        "0x1\r\na\r\n",
        "-1\r\n",
        "1\r\nab\r\n",
        "1\na\r\n",
        "1\r\na\n",
        "1 \r\na\r\n",
        "1;a\nb\r\na\r\n",
        "3\r\nabc0\r\n\r\n",
        "0\r\nX: a\nHost: evil.test\r\n",
        &extension,
        &trailer,
    ];
    for chunk in chunks {
        broken_content(&world, chunk);
    }
    let records = world.egret.wait_records(2 * chunks.len());
    assert!(records.iter().all(|record| record["reason"] == "malformed" && record["requests"] == 1), "{records:#?}");
    world.egret.metric_becomes("egret_egress_decisions_total", &[("decision", "deny"), ("reason", "malformed")], 24.0);
    world.upstream.final_bytes();
    assert!(!String::from_utf8_lossy(&world.upstream.first_bytes()).contains("evil.test"));
    assert!(world.dns.queries_for("evil.test").is_empty());
}

#[test]
fn p09_content_of_any_method_stays_content() {
    let world = web("http");
    let smuggled = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    for method in ["GET", "DELETE", "HEAD", "OPTIONS", "X-OWN"] {
        let fields = format!("Content-Length: {}\r\n", smuggled.len());
        let mut client = connect(world.proxy);
        let request = head(&world, &fields).replacen("POST", method, 1) + smuggled;
        client.write_all(request.as_bytes()).expect("the proxy takes a request");
        let chunked = head(&world, "Transfer-Encoding: chunked\r\nConnection: close\r\n").replacen("POST", method, 1);
        let chunks = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
        client.write_all([chunked, chunks].concat().as_bytes()).expect("the proxy takes another");
        let answers = String::from_utf8_lossy(&read_to_close(&mut client)).into_owned();
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{method}: {answers}");
        let record = world.record();
        assert_eq!((&record["requests"], &record["decision"]), (&2.into(), &"allow".into()), "{method}: {record:#}");
    }
    assert!(world.upstream.heads().iter().all(|head| !head.contains("evil.test")), "{:#?}", world.upstream.heads());
    assert!(world.dns.queries_for("evil.test").is_empty());
}

#[test]
fn r09_heads_are_bounded() {
    let world = web("http");
    let target = world.at("allowed.test");
    let many = "X-A: b\r\n".repeat(10_000);
    let long = format!("X-A: {}\r\n", "b".repeat(100 * 1024));
    let line = format!("GET http://{target}/{} HTTP/1.1\r\nHost: {target}\r\n\r\n", "a".repeat(1024 * 1024));
    for request in [head(&world, &many), head(&world, &long), line] {
        refused_everywhere(&world, &request, 431);
    }
    let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{many}\r\n");
    let answer = raw(world.proxy, connect.as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
    world.denied("CONNECT", "parse", "malformed");
}

#[test]
fn p26_a_tunnel_leads_to_no_further_proxy() {
    let nested = "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n";
    for protocol in ["http", "any"] {
        let world = web(protocol);
        let mut tunnel = http_connect(world.proxy, &world.at("allowed.test")).stream;
        tunnel.write_all(nested.as_bytes()).expect("the tunnel takes bytes");
        assert_refused(&world, protocol, 400, "relay", &read_to_close(&mut tunnel));
    }
    let world = web("tls");
    world.flight_denied("tls", &world.at("allowed.test"), nested.as_bytes(), "confirm", "not_tls");
}

/// Two requests, one with chunks, one with a length, and a third that is refused; and their answers' status lines.
fn dialogue(world: &World) -> Vec<u8> {
    let chunked = head(world, "Transfer-Encoding: chunked\r\n") + "5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";
    let counted = head(world, "Content-Length: 4\r\n") + "0\r\n\r";
    [chunked.as_str(), &counted, EVIL].concat().into_bytes()
}

/// What came of a dialogue in these parts: the status lines of the answers, and whether the third was refused by name.
fn statuses(world: &World, parts: &[&[u8]]) -> Vec<String> {
    let mut stream = world.send_parts(parts.iter().copied());
    let answer = String::from_utf8_lossy(&read_to_close(&mut stream)).into_owned();
    answer.split("HTTP/1.1 ").skip(1).map(|answer| answer.chars().take(3).collect()).collect()
}

#[test]
fn p50_every_way_to_cut_forwarded_requests_gives_the_same_verdicts() {
    let world = web("http");
    let whole = dialogue(&world);
    let expected = ["200", "200", "403"].map(str::to_owned);
    for at in 0..whole.len() {
        assert_eq!(statuses(&world, &[&whole[..at], &whole[at..]]), expected, "cut at {at}");
    }
    let one_by_one: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(statuses(&world, &one_by_one), expected, "byte by byte");
    let heads = world.upstream.heads();
    assert_eq!(heads.len(), 2 * (whole.len() + 1), "two of three reach the upstream each time");
    assert!(heads.iter().all(|head| head.starts_with("POST / HTTP/1.1\r\n") && !head.contains("evil.test")));
    assert!(world.dns.queries_for("evil.test").is_empty());
}

#[test]
fn p51_random_cuts_of_forwarded_requests_give_the_same_verdicts() {
    let world = web("http");
    let whole = dialogue(&world);
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(0..whole.len(), 1..8), |mut cuts| {
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]).collect();
        prop_assert_eq!(statuses(&world, &parts), ["200", "200", "403"].map(str::to_owned));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn p52_a_refused_request_is_answered_in_its_turn() {
    let world = web("http");
    let good = head(&world, "Content-Length: 0\r\n");
    let bad = head(&world, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n");
    let answer = String::from_utf8_lossy(&raw(world.proxy, [good.as_str(), &good, &bad, EVIL].concat().as_bytes())).into_owned();
    let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answer}");
    let record = world.record();
    assert_eq!((&record["requests"], &record["reason"]), (&2.into(), &"malformed".into()), "{record:#}");
}

/// A client that asks for a WebSocket and says more before it has an answer.
fn asks_for_websocket(world: &World, more: &[u8]) -> TcpStream {
    let head =
        head(world, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n").replacen("POST", "GET", 1);
    let mut client = connect(world.proxy);
    client.write_all(&[head.as_bytes(), more].concat()).expect("the proxy takes a request");
    client
}

#[test]
fn p53_what_follows_a_websocket_that_was_not_granted_is_a_request() {
    let world = web("http");
    let answers = String::from_utf8_lossy(&read_to_close(&mut asks_for_websocket(&world, EVIL.as_bytes()))).into_owned();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "403"], "{answers}");
    assert_eq!(world.record()["reason"], "no_rule");
}

#[test]
fn p54_what_follows_a_websocket_that_was_granted_is_its_own() {
    let rule = "{ id: web, to: \"allowed.test:PORT\", as: http, within: [127.0.0.0/8] }";
    let world = World::of(&format!("egress: {{ allow: [{rule}] }}"), Upstream::websocket());
    // A frame of two octets, masked with zeros, which is no HTTP by any reading.
    let mut client = asks_for_websocket(&world, &[0x81, 0x82, 0, 0, 0, 0, b'\n', 0]);
    let head = read_head(&mut client).expect("an answer comes").expect("before the end");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(read_exactly(&mut client, 4), [0x81, 2, b'\n', 0]);
}
