//! TLS and its server name (T). The first flight decides after the yes: until it has passed, not one byte of the
//! client reaches the upstream, however the hello is cut into records and segments.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{https_get, read_connect_answer, read_to_close};
use crate::support::hello::{rustls_hello, split_records};
use crate::support::world::{NAMES, assert_closed, assert_echo, connect_head};
use crate::support::{Hello, Upstream, World, http_connect};

const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 1, 0];

fn hello(sni: &str) -> Vec<u8> {
    Hello::new().sni(sni).build()
}

/// An echo upstream behind rules of one kind for `allowed.test`.
fn world_as(protocol: &str, more: &str) -> World {
    World::echo(&format!(
        "{more}\negress: {{ allow: [{{ id: allowed, to: \"allowed.test:PORT\", as: {protocol}, within: [127.0.0.0/8] }}] }}"
    ))
}

#[test]
fn t01_t25_a_differing_sni_is_closed_before_any_byte_reaches_the_upstream() {
    let world = World::echo(NAMES);
    for sni in ["evil.test", "x.allowed.test", "allowed.test.evil.test", "llowed.test", "test"] {
        let record = world.flight_denied(sni, &world.at("allowed.test"), &hello(sni), "confirm", "sni_mismatch");
        assert_eq!((&record["host"], &record["sni"], &record["rule"]), (&"allowed.test".into(), &sni.into(), &"allowed".into()));
        let detail = record["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(sni) && detail.contains("allowed.test"), "both names: {detail}");
    }
    world.egret.metric_becomes("egret_tls_sni_mismatch_total", &[], 5.0);
}

#[test]
fn t01_the_requested_sni_passes_to_a_real_server() {
    let world = World::new();
    let tunnel = http_connect(world.proxy, &world.at("allowed.test"));
    let answer = https_get(tunnel.stream, "allowed.test", "/", world.ca.client_config());
    assert_eq!(answer.text(), "hello");
    let record = world.allowed("HTTPS");
    assert_eq!((&record["sni"], &record["stage"], &record["via"]), (&"allowed.test".into(), &"relay".into(), &"connect".into()));
}

#[test]
fn t02_an_sni_that_another_rule_allows_is_still_not_the_requested_one() {
    let world = World::echo(NAMES);
    world.flight_denied("other.test", &world.at("allowed.test"), &hello("other.test"), "confirm", "sni_mismatch");
    world.flight_allowed("other.test", &world.at("other.test"), &hello("other.test"));
}

#[test]
fn t01_t03_audit_relaxes_a_missing_sni_and_never_a_differing_one() {
    let world = world_as("tls", "mode: audit");
    world.flight_denied("differing", &world.at("allowed.test"), &hello("evil.test"), "confirm", "sni_mismatch");
    let nameless = Hello::new().build();
    let mut tunnel = http_connect(world.proxy, &world.at("allowed.test"));
    tunnel.stream.write_all(&nameless).expect("the tunnel takes a hello");
    assert_echo("no SNI in audit", &mut tunnel.stream, &nameless);
    drop(tunnel);
    let record = world.record();
    assert_eq!((&record["decision"], &record["reason"]), (&"would_deny".into(), &"sni_missing".into()), "{record:#}");
}

#[test]
fn t03_no_sni_has_its_own_reason() {
    let world = World::echo(NAMES);
    let record = world.flight_denied("no SNI", &world.at("allowed.test"), &Hello::new().build(), "confirm", "sni_missing");
    assert_eq!(record["sni"], Value::Null);
}

/// Every one of `flights`, each a CONNECT and a hello in parts, has this verdict. `SNI` of the echo is `allowed.test`.
fn assert_all(world: &World, flights: &[(String, Vec<Vec<u8>>)], reason: Option<&str>) {
    let head = connect_head(world.at("allowed.test").as_bytes());
    for (case, parts) in flights {
        let whole = parts.concat();
        let hello = whole.strip_prefix(&head[..]).expect("the parts begin with the head");
        let mut stream = world.send_parts(parts.iter().map(Vec::as_slice));
        assert_eq!(read_connect_answer(&mut stream).status, 200, "{case}");
        match reason {
            None => assert_echo(case, &mut stream, hello),
            Some(_) => assert_closed(case, stream),
        }
    }
    let records = world.egret.wait_records(flights.len());
    for record in &records {
        assert_eq!(record["reason"].as_str(), reason, "{record:#}");
    }
    if reason.is_some() {
        assert_eq!(world.upstream.final_bytes(), 0, "bytes at the upstream");
    }
}

/// CONNECT and hello cut once at every byte, the cut between the two and none at all among them, and byte by byte.
fn every_segmentation(world: &World, hello: &[u8]) -> Vec<(String, Vec<Vec<u8>>)> {
    let whole = [&connect_head(world.at("allowed.test").as_bytes())[..], hello].concat();
    let bytes = whole.iter().map(|byte| vec![*byte]).collect();
    let cut = |at| (format!("cut at {at}"), vec![whole[..at].to_vec(), whole[at..].to_vec()]);
    (0..whole.len()).map(cut).chain([("byte by byte".to_owned(), bytes)]).collect()
}

/// The hello cut over two records at every byte, then over as many as it has bytes.
fn every_fragmentation(world: &World, hello: &Hello) -> Vec<(String, Vec<Vec<u8>>)> {
    let head = connect_head(world.at("allowed.test").as_bytes());
    let length = hello.handshake().len();
    let mut cuts: Vec<Vec<usize>> = (1..length).map(|at| vec![at]).collect();
    cuts.push((1..length).collect());
    cuts.push((1..length).step_by(3).collect());
    let cases = cuts.into_iter().map(|at| (format!("records cut at {at:?}"), split_records(&hello.build(), &at)));
    cases.map(|(case, records)| (case, vec![head.clone(), records])).collect()
}

#[test]
fn t04_t05_every_segmentation_of_connect_and_hello_has_the_same_verdict() {
    for (sni, reason) in [("allowed.test", None), ("evil.test", Some("sni_mismatch"))] {
        let world = World::echo(NAMES);
        assert_all(&world, &every_segmentation(&world, &hello(sni)), reason);
    }
}

#[test]
fn t05_every_fragmentation_of_a_hello_over_records_has_the_same_verdict() {
    let cases = [
        (Hello::new().sni("allowed.test"), None),
        (Hello::new().sni("evil.test"), Some("sni_mismatch")),
        (Hello::new(), Some("sni_missing")),
    ];
    for (hello, reason) in cases {
        let world = World::echo(NAMES);
        assert_all(&world, &every_fragmentation(&world, &hello), reason);
    }
}

#[test]
fn t05_t20_records_that_are_no_part_of_a_hello_are_refused() {
    let world = World::echo(NAMES);
    let whole = hello("allowed.test");
    let halves = split_records(&whole, &[20]);
    let (first, second) = halves.split_at(5 + 20);
    let cases: [(&str, Vec<u8>); 8] = [
        ("an empty record inside", split_records(&whole, &[20, 20])),
        ("an alert inside", [first, ALERT, second].concat()),
        ("application data inside", [first, &[0x17, 3, 3, 0, 1, 0], second].concat()),
        ("a ServerHello", vec![0x16, 3, 1, 0, 4, 2, 0, 0, 0]),
        ("version 2 in the second record", [first, &[0x16, 2], &second[2..]].concat()),
        ("an extension cut short", Hello::new().sni("allowed.test").extension(0, &[0, 9, 0]).build()),
        ("trailing bytes in the message", {
            let mut message = Hello::new().sni("allowed.test").handshake();
            message.push(0);
            message[3] += 1;
            let length = u16::try_from(message.len()).expect("a short message").to_be_bytes();
            [&[0x16, 3, 1], &length[..], &message].concat()
        }),
        ("random bytes after 0x16", [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196][..], &[0xaa; 196]].concat()),
    ];
    for (case, bytes) in cases {
        // A server name list that is cut short is no malformed hello but an invalid name, or a second one.
        let reason = if case == "an extension cut short" { "sni_ambiguous" } else { "hello_malformed" };
        world.flight_denied(case, &world.at("allowed.test"), &bytes, "confirm", reason);
    }
}

#[test]
fn t07_a_post_quantum_hello_is_longer_than_a_segment() {
    let world = World::echo(NAMES);
    let share = [&[0x11, 0xec, 4, 0xc0][..], &[7; 1216]].concat();
    for (sni, passes) in [("allowed.test", true), ("evil.test", false)] {
        let bytes = Hello::new().extension(0x0a0a, &share).padding(400).sni(sni).build();
        assert!(bytes.len() > 1460, "longer than a segment of Ethernet");
        match passes {
            true => drop(world.flight_allowed(sni, &world.at("allowed.test"), &bytes)),
            false => drop(world.flight_denied(sni, &world.at("allowed.test"), &bytes, "confirm", "sni_mismatch")),
        }
    }
    world.flight_allowed("rustls", &world.at("allowed.test"), &rustls_hello("allowed.test"));
}

#[test]
fn t08_padding_is_allowed_and_impossible_lengths_are_refused_at_once() {
    let world = World::echo(NAMES);
    let padded = Hello::new().padding(16 * 1024).sni("allowed.test").build();
    world.flight_allowed("16 KiB of padding", &world.at("allowed.test"), &padded);
    let cases: [(&str, &[u8]); 5] = [
        ("handshake of 2^24-1", &[0x16, 3, 1, 0, 8, 1, 0xff, 0xff, 0xff, 3, 3, 0, 0]),
        ("record of 0xffff", &[0x16, 3, 1, 0xff, 0xff, 1]),
        ("record of 2^14+1", &[0x16, 3, 1, 0x40, 1, 1]),
        ("record of 0", &[0x16, 3, 1, 0, 0]),
        ("record version 2.1", &[0x16, 2, 1]),
    ];
    for (case, bytes) in cases {
        let record = world.flight_denied(case, &world.at("allowed.test"), bytes, "confirm", "hello_malformed");
        assert!(record["duration_ms"].as_u64() < Some(8_000), "{case}: waited for more: {record:#}");
    }
    let endless = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xf0][..], &[0; 16_380]].concat();
    let endless = [&endless[..], &[&[0x16, 3, 1, 0x40, 0][..], &[0; 1 << 14]].concat().repeat(5)].concat();
    let record = world.flight_denied("more than 64 KiB", &world.at("allowed.test"), &endless, "confirm", "hello_malformed");
    assert!(record["duration_ms"].as_u64() < Some(8_000), "{record:#}");
}

#[test]
fn t10_an_sni_is_read_like_every_name() {
    let world = World::echo(NAMES);
    let target = world.at("allowed.test");
    for sni in ["allowed.test.", "ALLOWED.test"] {
        assert_eq!(world.flight_allowed(sni, &target, &hello(sni))["sni"], "allowed.test");
    }
    let long = "a.".repeat(128) + "allowed.test";
    let bad: [&[u8]; 13] = [
        b"allowed.test\0",
        b"allowed.test\0.evil.test",
        b"evil.test\0.allowed.test",
        b"allowed.test..",
        b"allowed\xe3\x80\x82test",
        b"b\xc3\xbccher.test",
        b"\xff\xfe",
        b"10.0.0.1",
        b"127.0.0.1",
        b"::1",
        b"",
        b"allowed.test:443",
        long.as_bytes(),
    ];
    for name in bad {
        let hello = Hello::new().sni_bytes(&[name]).build();
        world.flight_denied(&name.escape_ascii().to_string(), &target, &hello, "confirm", "sni_invalid");
    }
}

#[test]
fn t10_two_names_or_two_extensions_are_no_name() {
    let world = World::echo(NAMES);
    let target = world.at("allowed.test");
    let entry = [&[0, 15, 0, 0, 12][..], b"allowed.test"].concat();
    let cases = [
        ("allowed first", Hello::new().sni_list(&["allowed.test", "evil.test"])),
        ("evil first", Hello::new().sni_list(&["evil.test", "allowed.test"])),
        ("the same twice", Hello::new().sni_list(&["allowed.test", "allowed.test"])),
        ("two extensions", Hello::new().sni("evil.test").extension(0, &entry)),
        ("one extension twice", Hello::new().sni("allowed.test").extension(0, &entry)),
    ];
    for (case, hello) in cases {
        world.flight_denied(case, &target, &hello.build(), "confirm", "sni_ambiguous");
    }
    let of_another_type = [&[0, 15, 1, 0, 12][..], b"allowed.test"].concat();
    for body in [&of_another_type[..], &[0, 0], &[], &[0, 3, 0, 0, 9], &[&entry[..], &[0]].concat()] {
        let hello = Hello::new().extension(0, body).build();
        world.flight_denied(&body.escape_ascii().to_string(), &target, &hello, "confirm", "sni_invalid");
    }
}

#[test]
fn t12_t13_ech_is_noted_and_the_outer_name_decides() {
    let world = World::echo(NAMES);
    let target = world.at("allowed.test");
    assert_eq!(world.flight_allowed("plain", &target, &hello("allowed.test"))["ech"], false);
    let grease = Hello::new().sni("allowed.test").ech_grease();
    assert_eq!(world.flight_allowed("GREASE", &target, &grease.build())["ech"], true);
    let outer = Hello::new().sni("cloudflare-ech.com").ech_grease();
    let record = world.flight_denied("outer name", &target, &outer.build(), "confirm", "sni_mismatch");
    assert!(record["detail"].as_str().is_some_and(|detail| detail.contains("ECH")), "{record:#}");
    assert_eq!(record["ech"], true);
}

#[test]
fn t14_t16_what_is_no_tls_passes_an_opaque_rule_and_no_other() {
    let (tls, http, opaque) = (world_as("tls", ""), world_as("http", ""), world_as("tcp", ""));
    let (ssh, sslv2) = (b"SSH-2.0-OpenSSH_9.9\r\n", [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[7; 37]].concat());
    let get = b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n";
    let connect = b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n";
    let random = [0xde, 0xad, 0xbe, 0xef, 0, 1, 2, 3];
    for (case, bytes) in [("SSH", &ssh[..]), ("SSLv2", &sslv2), ("HTTP", get), ("CONNECT", connect), ("random", &random)] {
        tls.flight_denied(case, &tls.at("allowed.test"), bytes, "confirm", "not_tls");
        if !["HTTP", "CONNECT"].contains(&case) {
            http.flight_denied(case, &http.at("allowed.test"), bytes, "confirm", "not_http");
        }
        opaque.flight_allowed(case, &opaque.at("allowed.test"), bytes);
    }
    http.flight_denied("TLS", &http.at("allowed.test"), &hello("allowed.test"), "confirm", "not_http");
    opaque.flight_allowed("TLS with any SNI", &opaque.at("allowed.test"), &hello("evil.test"));
}

#[test]
fn t01_t14_a_rule_for_anything_checks_the_tls_it_meets() {
    let world = world_as("any", "");
    world.flight_denied("TLS", &world.at("allowed.test"), &hello("evil.test"), "confirm", "sni_mismatch");
    world.flight_allowed("TLS", &world.at("allowed.test"), &hello("allowed.test"));
    world.flight_allowed("SSH", &world.at("allowed.test"), b"SSH-2.0-x\r\n");
}

#[test]
fn t17_a_server_that_speaks_first_is_heard_at_once_unless_the_rule_wants_tls() {
    for protocol in ["tcp", "any"] {
        let policy = format!("egress: {{ allow: [{{ to: \"allowed.test:PORT\", as: {protocol}, within: [127.0.0.0/8] }}] }}");
        let world = World::of(&policy, Upstream::banner("220 ready\r\n"));
        let mut tunnel = http_connect(world.proxy, &world.at("allowed.test"));
        assert_echo(protocol, &mut tunnel.stream, b"220 ready\r\n");
        tunnel.stream.write_all(b"EHLO").expect("the tunnel takes bytes");
        assert_echo(protocol, &mut tunnel.stream, b"EHLO");
        drop(tunnel);
        world.allowed(protocol);
    }
    let world = World::of(NAMES, Upstream::banner("220 ready\r\n"));
    let mut tunnel = http_connect(world.proxy, &world.at("allowed.test"));
    assert_eq!(read_to_close(&mut tunnel.stream), b"", "nothing of the banner passes");
    let record = world.record();
    assert!(record["reason"] == "not_tls" || record["reason"] == "no_first_flight", "{record:#}");
    assert_eq!(world.upstream.final_bytes(), 0);
}

#[test]
fn t19_clients_that_stall_are_closed_at_the_deadline_and_their_places_freed() {
    let world = World::echo(NAMES);
    let target = world.at("allowed.test");
    let half = hello("allowed.test");
    let half = &half[..half.len() / 2];
    let silent_after_yes = [&b""[..], half].map(|bytes| {
        let mut stream = http_connect(world.proxy, &target).stream;
        stream.write_all(bytes).expect("the tunnel takes a part");
        stream
    });
    let silent_before = [&b"CONNECT allowed.te"[..], &[5, 1], b""].map(|bytes| world.send_parts([bytes]));
    let begun = Instant::now();
    for mut stream in silent_after_yes.into_iter().chain(silent_before) {
        let last = read_to_close(&mut stream);
        assert!(!last.starts_with(b"HTTP/1.1 200"), "{}", last.escape_ascii());
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "closed after {:?}", begun.elapsed());
    let records = world.egret.wait_records(5);
    let cause = |record: &Value| record["reason"].as_str().or(record["close"].as_str()).unwrap_or("-").to_owned();
    let mut causes: Vec<String> = records.iter().map(cause).collect();
    causes.sort();
    assert_eq!(causes, ["client_timeout", "client_timeout", "client_timeout", "hello_malformed", "no_first_flight"]);
    assert_eq!(world.upstream.final_bytes(), 0);
    world.egret.metric_becomes("egret_egress_connections_active", &[], 0.0);
}

#[test]
fn t20_the_end_may_follow_the_hello_at_once() {
    let world = World::echo(NAMES);
    let target = world.at("allowed.test");
    let whole = hello("allowed.test");
    world.flight_allowed("close_notify after it", &target, &[&whole[..], ALERT].concat());
    let mut tunnel = http_connect(world.proxy, &target);
    tunnel.stream.write_all(&whole).expect("the tunnel takes a hello");
    tunnel.stream.shutdown(Shutdown::Write).expect("the tunnel has two directions");
    let mut echo = Vec::new();
    tunnel.stream.read_to_end(&mut echo).expect("an orderly end");
    assert_eq!(echo, whole, "the upstream still answers after our end");
    world.allowed("FIN after it");

    let mut tunnel = http_connect(world.proxy, &target);
    tunnel.stream.write_all(&whole[..50]).expect("the tunnel takes a part");
    tunnel.stream.shutdown(Shutdown::Write).expect("the tunnel has two directions");
    assert_eq!(read_to_close(&mut tunnel.stream), b"");
    let record = world.record();
    let gone = record["close"] == "client_gone" || record["reason"] == "hello_malformed";
    assert!(gone && record["stage"] == "confirm" && record["bytes_up"] == 0, "FIN inside it: {record:#}");
}

#[test]
fn t21_early_data_behind_the_hello_arrives_intact() {
    let world = World::echo(NAMES);
    let data: Vec<u8> = (0..40_000_u32).map(|at| (at % 251) as u8).collect();
    let records: Vec<u8> = data.chunks(10_000).flat_map(|part| [&[0x17, 3, 3, 0x27, 0x10][..], part].concat()).collect();
    let flight = [&hello("allowed.test")[..], &records].concat();
    let whole = [&connect_head(world.at("allowed.test").as_bytes())[..], &flight].concat();
    let mut stream = world.send_parts([&whole[..]]);
    assert_eq!(read_connect_answer(&mut stream).status, 200);
    assert_echo("one write", &mut stream, &flight);
    drop(stream);
    let record = world.allowed("one write");
    assert_eq!(record["bytes_up"].as_u64(), u64::try_from(flight.len()).ok(), "{record:#}");
    assert_eq!(record["bytes_down"], record["bytes_up"], "{record:#}");
}

#[test]
fn t22_a_resumed_session_is_read_like_any_other() {
    let world = World::echo(NAMES);
    let psk = [&[0, 38, 0, 32][..], &[9; 32], &[0, 0, 0, 0], &[0, 33, 32], &[8; 32]].concat();
    let resumed = |sni: &str| Hello::new().sni(sni).extension(45, &[1, 1]).extension(41, &psk).build();
    world.flight_denied("evil.test", &world.at("allowed.test"), &resumed("evil.test"), "confirm", "sni_mismatch");
    world.flight_allowed("allowed.test", &world.at("allowed.test"), &resumed("allowed.test"));
}

#[test]
fn t25_the_upstream_is_connected_before_the_yes_and_gets_nothing_before_the_verdict() {
    let world = World::echo(NAMES);
    let mut tunnel = http_connect(world.proxy, &world.at("allowed.test"));
    assert_eq!((world.upstream.connections(), world.upstream.bytes()), (1, 0));
    tunnel.stream.write_all(&hello("evil.test")).expect("the tunnel takes a hello");
    assert_closed("evil.test", tunnel.stream);
    world.denied("evil.test", "confirm", "sni_mismatch");
}
