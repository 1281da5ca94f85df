//! Upstreams of cleartext HTTP that lie (P): where an answer ends, how many there are, what comes next. A client gets the
//! answer to its own request, framed by egret, or a 502; it is never led anywhere by egret itself.

use std::io::Write;

use crate::support::client::{connect, raw, read_to_close};
use crate::support::http1::Response;
use crate::support::{Upstream, World, http_connect};

fn web(upstream: Upstream) -> World {
    let rule = "{ id: web, to: \"allowed.test:PORT\", as: http, within: [127.0.0.0/8] }";
    World::of(&format!("egress: {{ allow: [{rule}] }}"), upstream)
}

fn get(world: &World, fields: &str) -> String {
    format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n{fields}\r\n", world.at("allowed.test"))
}

/// The answers to these bytes until egret closes: the status of each.
fn statuses(world: &World, bytes: &str) -> (Vec<String>, String) {
    let answer = String::from_utf8_lossy(&raw(world.proxy, bytes.as_bytes())).into_owned();
    (answer.split("HTTP/1.1 ").skip(1).map(|answer| answer.chars().take(3).collect()).collect(), answer)
}

#[test]
fn p21_an_answer_with_two_readings_is_a_bad_gateway() {
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(10_000));
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nforged",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\nforged",
        "HTTP/1.1 200 OK\r\nContent-Length: -6\r\n\r\nforged",
        "HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\n\r\nforged",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nforged",
        "HTTP/1.1 200 OK\r\nX-A: b\rX-Forged: c\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "ICY 200 OK\r\n\r\nforged",
        &huge,
        &many,
    ];
    for answer in answers {
        let world = web(Upstream::scripted_once(answer));
        let shown = &answer[..answer.len().min(100)];
        let (found, text) = statuses(&world, &get(&world, "Connection: close\r\n"));
        assert_eq!(found, ["502"], "{shown:?}: {text}");
        assert!(!text.to_lowercase().contains("forged"), "{shown:?}: {text}");
        let request = world.egret.event("request", |_| true);
        assert_eq!((&request["status"], &request["fault"]), (&502.into(), &"upstream_failed".into()), "{shown:?}");
        assert_eq!(world.egret.only_record()["decision"], "allow", "a broken upstream is no verdict");
    }
}

#[test]
fn p21_interim_answers_without_end_are_a_bad_gateway() {
    let few = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(3) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let world = web(Upstream::scripted(few));
    assert_eq!(statuses(&world, &get(&world, "Connection: close\r\n")).0, ["200"], "interim answers end at the proxy");
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 199 x\r\n\r\n"] {
        let world = web(Upstream::scripted(interim.repeat(10_000)));
        assert_eq!(statuses(&world, &get(&world, "Connection: close\r\n")).0, ["502"], "{interim:?}");
        assert_eq!(world.egret.event("request", |_| true)["fault"], "upstream_failed");
    }
}

#[test]
fn p22_a_redirect_is_the_clients_to_follow_and_is_judged_then() {
    let world = web(Upstream::scripted("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"));
    let follow = "GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n";
    let (found, text) = statuses(&world, &(get(&world, "") + follow));
    assert_eq!(found, ["302", "403"], "{text}");
    assert!(
        text.contains("Location: http://169.254.169.254/\r\n") && text.contains("x-egret-reason: address_not_listed"),
        "{text}"
    );
    assert_eq!((world.upstream.connections(), world.upstream.heads().len()), (1, 1), "egret follows nothing");
}

#[test]
fn p56_an_answer_that_nobody_asked_for_is_given_to_nobody() {
    let two = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let world = web(Upstream::scripted(two));
    let mut client = connect(world.proxy);
    for _ in 0..3 {
        client.write_all(get(&world, "").as_bytes()).expect("the proxy takes a request");
        let answer = Response::read(&client).expect("an answer");
        assert!(answer.status == 502 || answer.text() == "first", "{}{}", answer.head, answer.text());
    }
}

#[test]
fn p57_an_answer_without_content_has_none() {
    for (method, head) in [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")] {
        let world = web(Upstream::scripted(format!("HTTP/1.1 {head}\r\nContent-Length: 6\r\n\r\nforged")));
        let request = get(&world, "").replacen("GET", method, 1);
        let (found, text) = statuses(&world, &[request, get(&world, "Connection: close\r\n")].concat());
        assert!(found.len() == 2 && text.matches("forged").count() <= 1, "{method} {head}: {text}");
        assert!(!text.split("HTTP/1.1 ").nth(1).unwrap_or_default().contains("forged"), "{method} {head}: {text}");
    }
}

#[test]
fn p58_a_switch_of_protocols_that_nobody_asked_for_is_a_bad_gateway() {
    let world = web(Upstream::scripted("HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: upgrade\r\n\r\nfree"));
    for fields in
        ["", "Upgrade: h2c\r\nConnection: Upgrade\r\n", "Upgrade: websocket\r\nUpgrade: evil\r\nConnection: upgrade\r\n"]
    {
        let (found, text) = statuses(&world, &get(&world, &format!("{fields}X: y\r\n")).replace("X: y", "Connection: close"));
        assert!(!found.contains(&"101".to_owned()) && !text.contains("free"), "{fields:?}: {text}");
        assert_eq!(found.len(), 1, "{fields:?}: {text}");
    }
}

#[test]
fn p59_an_answer_that_ends_early_does_not_end_well() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nx\r\n",
    ] {
        let world = web(Upstream::scripted_once(answer));
        let (found, text) = statuses(&world, &get(&world, "Connection: close\r\n"));
        assert!(found.len() <= 1 && !text.ends_with("0\r\n\r\n"), "cut short for the client too: {text}");
        world.egret.only_record();
    }
}

#[test]
fn p60_fields_of_the_upstreams_connection_stay_there() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\n\
                  Proxy-Connection: close\r\nUpgrade: h2\r\nTrailer: X-T\r\nContent-Length: 2\r\n\r\nok";
    let world = web(Upstream::scripted_once(answer));
    let (found, text) = statuses(&world, &get(&world, "Connection: close\r\n"));
    assert_eq!(found, ["200"], "{text}");
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "proxy-connection", "upgrade", "trailer"] {
        assert!(!text.to_lowercase().contains(name), "{name} in {text}");
    }
}

#[test]
fn p61_fields_that_frame_a_request_are_not_the_connections_to_take_away() {
    let world = web(Upstream::http("hello\n"));
    let fields =
        "Connection: close, content-length, transfer-encoding, host, authorization\r\nAuthorization: x\r\nContent-Length: 3\r\n";
    let request = get(&world, fields).replacen("GET", "POST", 1) + "abc";
    assert_eq!(statuses(&world, &request).0, ["200"]);
    let head = world.upstream.wait_heads(1).remove(0).to_lowercase();
    assert!(head.contains("content-length: 3\r\n") && head.matches("host: ").count() == 1, "{head}");
    assert!(!head.contains("authorization"), "what the client names as the hop's stays behind: {head}");
}

#[test]
fn p62_a_hundred_requests_in_one_segment_are_judged_each_in_order() {
    let world = web(Upstream::http("hello\n"));
    let evil = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    let pairs = (get(&world, "") + evil).repeat(50) + &get(&world, "Connection: close\r\n");
    let (found, _) = statuses(&world, &pairs);
    let expected: Vec<&str> = (0..50).flat_map(|_| ["200", "403"]).chain(["200"]).collect();
    assert_eq!(found, expected);
    assert_eq!(world.record()["requests"], 101);
    assert_eq!(world.upstream.heads().len(), 51);
    world.egret.metric_becomes("egret_egress_decisions_total", &[("decision", "deny"), ("reason", "no_rule")], 50.0);
    assert!(world.dns.queries_for("evil.test").is_empty());
}

#[test]
fn p63_another_port_is_another_host_inside_a_tunnel() {
    let world = web(Upstream::http("hello\n"));
    let target = world.at("allowed.test");
    let other = "allowed.test:1";
    for request in [
        format!("GET / HTTP/1.1\r\nHost: {other}\r\n"),
        format!("GET http://{other}/ HTTP/1.1\r\nHost: {target}\r\n"),
        format!("GET http://allowed.test.:1/ HTTP/1.1\r\nHost: {target}\r\n"),
        format!("GET http://127.0.0.1:{}/ HTTP/1.1\r\nHost: {target}\r\n", world.upstream.port()),
    ] {
        let mut tunnel = http_connect(world.proxy, &target).stream;
        tunnel.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes()).expect("the tunnel takes a request");
        let answer = Response::read(&mut tunnel).expect("an answer");
        assert_eq!((answer.status, answer.header("x-egret-reason")), (403, Some("host_mismatch")), "{request}");
        assert_eq!(world.record()["reason"], "host_mismatch", "{request}");
    }
    assert_eq!(world.upstream.final_bytes(), 0);
}

#[test]
fn p64_inside_a_tunnel_the_upstream_hears_the_name_that_was_permitted() {
    let world = web(Upstream::http("hello\n"));
    let target = world.at("allowed.test");
    for request in [
        format!("GET http://{target}/ HTTP/1.1\r\nHost: evil.test\r\n"),
        format!("GET http://ALLOWED.test.:{}/ HTTP/1.1\r\nHost: evil.test\r\n", world.upstream.port()),
        format!("GET / HTTP/1.1\r\nHost: Allowed.TEST.:{}\r\n", world.upstream.port()),
        "GET / HTTP/1.0\r\n".to_owned(),
    ] {
        let mut tunnel = http_connect(world.proxy, &target).stream;
        tunnel.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes()).expect("the tunnel takes a request");
        assert!(String::from_utf8_lossy(&read_to_close(&mut tunnel)).contains(" 200 "), "{request}");
    }
    for head in world.upstream.wait_heads(4) {
        assert!(head.contains(&format!("{target}\r\n")) && !head.contains("evil"), "{head}");
    }
}

#[test]
fn p19_the_preface_of_http_2_is_no_request() {
    let world = web(Upstream::http("hello\n"));
    let answer = raw(world.proxy, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    world.denied("PRI", "parse", "malformed");
}

#[test]
fn p23_max_forwards_is_for_the_upstream() {
    let world = web(Upstream::http("hello\n"));
    let request = get(&world, "Max-Forwards: 0\r\nConnection: close\r\n").replacen("GET", "OPTIONS", 1);
    assert_eq!(statuses(&world, &request).0, ["200"], "egret answers nothing in the place of an upstream");
    let trace = get(&world, "Max-Forwards: 0\r\nCookie: secret\r\nConnection: close\r\n").replacen("GET", "TRACE", 1);
    let (found, text) = statuses(&world, &trace);
    assert!(found == ["400"] && !text.contains("secret"), "{text}");
}
