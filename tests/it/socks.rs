//! SOCKS4, 4a and 5 (S): the same verdicts as CONNECT, in the protocol's own words, and nothing but CONNECT served.
//! Clients that resolve names themselves ask by address, and are judged by the name in their ClientHello (T26, T27).

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};

use crate::support::client::{connect, https_get, raw, read_to_close, socks5_request};
use crate::support::world::{NAMES, assert_closed, assert_echo};
use crate::support::{Hello, Host, Service, Upstream, World, free_port, http_connect, socks4, socks4a, socks5};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A reply as RFC 1928 has it, without a bound address.
fn reply(code: u8) -> Vec<u8> {
    vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

fn hello(sni: &str) -> Vec<u8> {
    Hello::new().sni(sni).build()
}

/// A whole SOCKS5 dialogue for this name with a hello behind it, as a client sends it that waits for nothing.
fn socks5_dialogue(world: &World, name: &str) -> Vec<u8> {
    [&[5, 1, 0][..], &socks5_request(1, Host::Name(name), world.upstream.port()), &hello(name)].concat()
}

fn socks4a_dialogue(world: &World, name: &str) -> Vec<u8> {
    let port = world.upstream.port().to_be_bytes();
    [&[4, 1][..], &port, &[0, 0, 0, 7], b"me\0", name.as_bytes(), &[0], &hello(name)].concat()
}

#[test]
fn s01_every_way_to_cut_a_dialogue_has_the_same_verdict() {
    let world = World::echo(NAMES);
    let name = "allowed.test";
    let socks4a_yes = [0, 90, 0, 0, 0, 0, 0, 0];
    let dialogues = [
        (socks5_dialogue(&world, name), [&[5, 0][..], &reply(0)].concat()),
        (socks4a_dialogue(&world, name), socks4a_yes.to_vec()),
    ];
    let mut count = 0;
    for (dialogue, answer) in &dialogues {
        let expected = [&answer[..], &hello(name)].concat();
        for at in 0..dialogue.len() {
            let mut stream = world.send_parts([&dialogue[..at], &dialogue[at..]]);
            assert_echo(&format!("cut at {at}"), &mut stream, &expected);
            count += 1;
        }
        let mut stream = world.send_parts(dialogue.chunks(1));
        assert_echo("byte by byte", &mut stream, &expected);
        count += 1;
    }
    let records = world.egret.wait_records(count);
    assert!(records.iter().all(|record| record["decision"] == "allow" && record["sni"] == name), "{records:#?}");
}

#[test]
fn s01_a_refused_name_is_refused_however_it_is_cut() {
    let world = World::echo(NAMES);
    let (fives, fours) = (socks5_dialogue(&world, "evil.test"), socks4a_dialogue(&world, "evil.test"));
    let cases = [(&fives, [&[5, 0][..], &reply(2)].concat()), (&fours, vec![0, 91, 0, 0, 0, 0, 0, 0])];
    for (dialogue, answer) in &cases {
        for at in 0..dialogue.len() {
            let mut stream = world.send_parts([&dialogue[..at], &dialogue[at..]]);
            assert_eq!(read_to_close(&mut stream), *answer, "cut at {at}");
        }
    }
    let records = world.egret.wait_records(fives.len() + fours.len());
    assert!(records.iter().all(|record| record["reason"] == "no_rule" && record["host"] == "evil.test"), "{records:#?}");
    assert_eq!((world.dns.total(), world.upstream.connections()), (0, 0));
}

#[test]
fn s01_both_versions_carry_tls_to_a_real_server() {
    let world = World::new();
    let (proxy, port) = (world.proxy, world.upstream.port());
    let (five, by_five) = socks5(proxy, Host::Name("allowed.test"), port, None);
    let (four, by_four) = socks4a(proxy, "allowed.test", port, "me");
    assert_eq!((five, four), (0, 90));
    for stream in [by_five, by_four] {
        assert_eq!(https_get(stream, "allowed.test", "/", world.ca.client_config()).text(), "hello");
    }
    let vias: Vec<_> = world.egret.wait_records(2).iter().map(|record| record["via"].clone()).collect();
    assert!(vias.contains(&"socks5".into()) && vias.contains(&"socks4".into()), "{vias:?}");
}

#[test]
fn s02_what_is_no_socks5_is_refused_in_its_words() {
    let world = World::new();
    let none: Vec<u8> = (0..=254).map(|at| if at == 0 || at == 2 { 1 } else { at }).collect();
    let greetings =
        [("no methods", vec![5, 0]), ("GSSAPI alone", vec![5, 1, 1]), ("255 other methods", [&[5, 255][..], &none].concat())];
    for (case, greeting) in greetings {
        assert_eq!(raw(world.proxy, &greeting), [5, 0xff], "{case}");
        world.denied(case, "parse", "unsupported");
    }
    let name = [&[5, 1, 0, 3, 12][..], b"allowed.test"].concat();
    let requests = [
        ("a reserved byte", [&[5, 1, 1, 3, 12][..], b"allowed.test", &[1, 187]].concat(), 1, "malformed"),
        ("version 4 in the request", [&[4, 1, 0, 3, 12][..], b"allowed.test", &[1, 187]].concat(), 1, "malformed"),
        ("address type 2", vec![5, 1, 0, 2, 1, 1, 1, 1, 1, 187], 8, "unsupported"),
        ("address type 0", vec![5, 1, 0, 0, 1, 1, 1, 1, 1, 187], 8, "unsupported"),
        ("an empty name", vec![5, 1, 0, 3, 0, 1, 187], 1, "malformed"),
        ("port 0", [&name[..], &[0, 0]].concat(), 1, "malformed"),
    ];
    for (case, request, code, reason) in requests {
        let answer = raw(world.proxy, &[&[5, 1, 0][..], &request].concat());
        assert_eq!(answer, [&[5, 0][..], &reply(code)].concat(), "{case}");
        world.denied(case, "parse", reason);
    }
}

#[test]
fn s02_a_dialogue_that_ends_early_is_the_clients_doing() {
    let world = World::new();
    let whole = [&[5, 1, 0][..], &socks5_request(1, Host::Name("allowed.test"), world.upstream.port())].concat();
    for end in 1..whole.len() {
        let mut stream = connect(world.proxy);
        stream.write_all(&whole[..end]).expect("the proxy takes a beginning");
        stream.shutdown(Shutdown::Write).expect("a socket has two directions");
        let answer = read_to_close(&mut stream);
        let choice: &[u8] = if end < 3 { &[] } else { &[5, 0] };
        assert_eq!(answer, choice, "ended after {end}");
        let record = world.record();
        assert_eq!(
            (&record["close"], &record["stage"]),
            (&"client_gone".into(), &"parse".into()),
            "ended after {end}: {record:#}"
        );
    }
    assert_eq!((world.dns.total(), world.upstream.connections()), (0, 0));
}

#[test]
fn s03_only_connect_is_served() {
    let world = World::new();
    let port = world.upstream.port();
    for command in [2, 3, 9, 0, 0xff] {
        for host in [Host::Name("allowed.test"), Host::Ip(LOCALHOST)] {
            let case = format!("command {command} to {host:?}");
            let answer = raw(world.proxy, &[&[5, 1, 0][..], &socks5_request(command, host, port)].concat());
            assert_eq!(answer, [&[5, 0][..], &reply(7)].concat(), "{case}: no port is bound");
            world.denied(&case, "parse", "unsupported");
        }
    }
    let bind = [&[4, 2][..], &port.to_be_bytes(), &[0, 0, 0, 1], b"\0allowed.test\0"].concat();
    assert_eq!(raw(world.proxy, &bind)[..2], [0, 91]);
    let record = world.record();
    assert_eq!((&record["decision"], &record["stage"]), (&"deny".into(), &"parse".into()), "{record:#}");
}

#[test]
fn s04_socks4_is_judged_by_name_or_by_address() {
    let world = World::echo(NAMES);
    let (proxy, port) = (world.proxy, world.upstream.port());
    for (name, stage, reason) in [
        ("evil.test", "admit", "no_rule"),
        ("", "parse", "malformed"),
        ("a b", "parse", "malformed"),
        ("127.1", "parse", "malformed"),
    ] {
        let (code, mut stream) = socks4a(proxy, name, port, "me");
        assert_eq!(code, 91, "{name:?}");
        assert_eq!(read_to_close(&mut stream), b"", "{name:?}");
        drop(stream);
        world.denied(&format!("SOCKS4a {name:?}"), stage, reason);
    }
    let other_port = if port == 443 { 444 } else { 443 };
    assert_eq!(socks4(proxy, Ipv4Addr::LOCALHOST, other_port, "").0, 91);
    world.denied("SOCKS4 by address", "admit", "address_not_listed");
    assert_eq!(socks4(proxy, Ipv4Addr::LOCALHOST, 0, "").0, 91);
    world.denied("SOCKS4 port 0", "parse", "malformed");
}

#[test]
fn s04_endless_texts_are_bounded() {
    let world = World::new();
    let head = [4, 1, 1, 187, 0, 0, 0, 1];
    let no_end = [&head[..], b"me\0", &vec![b'a'; 64 * 1024]].concat();
    let long_user = [&head[..], &vec![b'u'; 64 * 1024], b"\0allowed.test\0"].concat();
    for (case, bytes) in [("a name without an end", no_end), ("a long user id", long_user)] {
        assert_eq!(raw(world.proxy, &bytes), [0, 91, 0, 0, 0, 0, 0, 0], "{case}");
        world.denied(case, "parse", "malformed");
    }
    // Far more than egret reads of a refused client: the answer may be lost in the reset, the end may not.
    drop(raw(world.proxy, &[&head[..], &vec![b'u'; 1024 * 1024]].concat()));
    world.denied("a user id of 1 MiB", "parse", "malformed");
}

#[test]
fn s07_a_mapped_address_is_not_the_address_it_maps() {
    let world = World::echo("egress: { allow: [{ to: 127.0.0.0/8, ports: [PORT] }] }");
    for address in ["::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1"] {
        let host = Host::Ip(address.parse().expect("an address"));
        let (code, mut stream) = socks5(world.proxy, host, world.upstream.port(), None);
        assert_eq!((code, read_to_close(&mut stream)), (2, vec![]), "{address}");
        drop(stream);
        world.denied(address, "admit", "address_not_listed");
    }
}

/// `allowed.test` is for the role `worker` alone, which is whoever says so.
const FOR_WORKER: &str = r#"
roles: { worker: { proxy-user: worker } }
egress: { allow: [{ to: "allowed.test:PORT", for: [worker], as: tcp, within: [127.0.0.0/8] }] }
"#;

#[test]
fn s08_the_user_name_is_the_role() {
    let world = World::echo(FOR_WORKER);
    let (proxy, port) = (world.proxy, world.upstream.port());
    let long = "x".repeat(255);
    for (user, password) in [("nobody", "x"), ("", ""), ("Worker", "x"), ("worker ", "x"), (&long[..], &long[..])] {
        let (code, stream) = socks5(proxy, Host::Name("allowed.test"), port, Some((user, password)));
        assert_eq!(code, 2, "{user:?}");
        drop(stream);
        assert_eq!(world.denied(user, "admit", "role_not_listed")["role"], "default", "{user:?}");
    }
    for password in ["x", "", &long] {
        let (code, mut stream) = socks5(proxy, Host::Name("allowed.test"), port, Some(("worker", password)));
        assert_eq!(code, 0);
        stream.write_all(b"ping").expect("the tunnel takes bytes");
        assert_echo("worker", &mut stream, b"ping");
        drop(stream);
        assert_eq!(world.allowed("worker")["role"], "worker");
    }
    assert_eq!(socks5(proxy, Host::Name("allowed.test"), port, None).0, 2);
    world.denied("nobody at all", "admit", "role_not_listed");
}

#[test]
fn s08_credentials_that_are_no_text_fail_and_no_request_is_read() {
    let world = World::echo(FOR_WORKER);
    let request = socks5_request(1, Host::Name("allowed.test"), world.upstream.port());
    let cases: [(&str, &[u8]); 4] = [
        ("a NUL", b"\x01\x07worker\0\x01x"),
        ("a NUL inside", b"\x01\x08worker\0x\x01x"),
        ("no UTF-8", b"\x01\x02\xff\xfe\x01x"),
        ("version 5", b"\x05\x06worker\x01x"),
    ];
    for (case, credentials) in cases {
        let answer = raw(world.proxy, &[&[5, 1, 2][..], credentials, &request].concat());
        // RFC 1929 section 2: version 1, and any status but 0.
        assert!(matches!(answer[..], [5, 2, 1, status] if status != 0), "{case}: {answer:?}");
        world.denied(case, "parse", "malformed");
    }
}

#[test]
fn s09_success_is_said_after_the_dial_where_the_name_is_known() {
    let port = free_port();
    let rule = format!("egress: {{ allow: [{{ to: \"allowed.test:{port}\", as: tls, within: [127.0.0.0/8] }}] }}");
    let world = World::echo(&rule);
    assert_eq!(socks5(world.proxy, Host::Name("allowed.test"), port, None).0, 5);
    assert_refused(&world);
    assert_eq!(socks4a(world.proxy, "allowed.test", port, "").0, 91);
    assert_refused(&world);
    assert_eq!(http_connect(world.proxy, &format!("allowed.test:{port}")).response.status, 502);
    assert_refused(&world);

    // By address the name is shown only after a yes, so a failed dial can be nothing but a close.
    let (code, mut stream) = socks5(world.proxy, Host::Ip(LOCALHOST), port, None);
    assert_eq!(code, 0);
    stream.write_all(&hello("allowed.test")).expect("the tunnel takes a hello");
    assert_closed("a dead address", stream);
    assert_refused(&world);
    world.egret.metric_becomes("egret_upstream_connect_failures_total", &[], 4.0);
}

fn assert_refused(world: &World) {
    let record = world.record();
    assert_eq!((&record["close"], &record["stage"]), (&"connect_refused".into(), &"connect".into()), "{record:#}");
    assert_ne!(record["decision"], "deny", "a fault is no denial: {record:#}");
}

#[test]
fn s10_other_first_bytes_are_closed_without_a_word() {
    let world = World::new();
    let strangers: [&[u8]; 9] = [
        &[0],
        &[1, 1, 0],
        &[3],
        &[6, 1, 0],
        &[0x80, 0x2e, 1],
        &[0xff; 300],
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b" CONNECT allowed.test:443 HTTP/1.1\r\n\r\n",
        b"{\"jsonrpc\":\"2.0\"}",
    ];
    for bytes in strangers {
        assert_eq!(raw(world.proxy, bytes), b"", "{}", bytes.escape_ascii());
        let record = world.denied(&bytes.escape_ascii().to_string(), "sniff", "unknown_protocol");
        assert_eq!(record["via"], serde_json::Value::Null, "{record:#}");
    }
}

#[test]
fn s10_tls_to_the_proxy_itself_is_judged_by_its_sni() {
    let world = World::new();
    let nameless = Hello::new().build();
    let cases = [
        ("no SNI", nameless, "parse", "sni_missing"),
        ("an address", hello("127.0.0.1"), "parse", "sni_invalid"),
        ("two names", Hello::new().sni_list(&["allowed.test", "other.test"]).build(), "parse", "sni_ambiguous"),
        ("a name without a rule", hello("evil.test"), "admit", "no_rule"),
        ("a broken hello", vec![0x16, 3, 1, 0, 4, 2, 0, 0, 0], "parse", "hello_malformed"),
    ];
    for (case, bytes, stage, reason) in cases {
        let answer = raw(world.proxy, &bytes);
        assert!(matches!(answer[..], [] | [0x15, ..]), "{case}: {}", answer.escape_ascii());
        let record = world.denied(case, stage, reason);
        assert_eq!(record["via"], "tls", "{case}");
    }
}

#[test]
fn s10_a_client_with_an_https_proxy_url_leaves_a_hint_in_the_journal() {
    let world = World::new();
    drop(raw(world.proxy, &Hello::new().build()));
    let record = world.denied("no SNI", "parse", "sni_missing");
    assert!(record["detail"].as_str().is_some_and(|detail| detail.contains("https://")), "{record:#}");
}

#[test]
fn t26_an_address_is_allowed_by_an_sni_that_resolves_to_it() {
    let world = World::echo(NAMES);
    let bytes = hello("allowed.test");
    let record = world.flight_allowed("CONNECT", &world.at("127.0.0.1"), &bytes);
    let shown = ["rule", "host", "sni"].map(|field| record[field].as_str().unwrap_or("-"));
    assert_eq!(shown, ["allowed", "127.0.0.1", "allowed.test"], "{record:#}");
    let literal = Host::Ip(LOCALHOST);
    let (code, mut stream) = socks5(world.proxy, literal, world.upstream.port(), None);
    assert_eq!(code, 0);
    stream.write_all(&bytes).expect("the tunnel takes a hello");
    assert_echo("SOCKS5", &mut stream, &bytes);
    drop(stream);
    assert_eq!(world.allowed("SOCKS5")["via"], "socks5");
}

#[test]
fn t26_t27_an_sni_that_does_not_resolve_to_the_address_opens_nothing() {
    let world = World::echo(NAMES);
    let second = SocketAddr::from(([127, 0, 0, 2], world.upstream.port()));
    let stranger = Upstream::at(second, Service::Echo);
    let target = second.to_string();
    let cases = [
        ("an allowed name elsewhere", hello("allowed.test"), "vet", "address_not_of_name"),
        ("another name", hello("evil.test"), "admit", "no_rule"),
        ("no name", Hello::new().build(), "admit", "address_not_listed"),
        ("two names", Hello::new().sni_list(&["allowed.test", "other.test"]).build(), "admit", "address_not_listed"),
        ("an invalid name", hello("10.0.0.1"), "admit", "address_not_listed"),
        ("no TLS", b"SSH-2.0-x\r\n".to_vec(), "admit", "address_not_listed"),
    ];
    for (case, bytes, stage, reason) in cases {
        let record = world.flight_denied(case, &target, &bytes, stage, reason);
        assert_eq!((&record["host"], &record["close"]), (&"127.0.0.2".into(), &"denied".into()), "{case}: {record:#}");
    }
    world.flight_denied("another name at the right address", &world.at("127.0.0.1"), &hello("evil.test"), "admit", "no_rule");
    assert_eq!(stranger.connections(), 0);
}

#[test]
fn t27_where_no_rule_could_show_a_name_an_address_is_refused_at_once() {
    let world = World::echo(NAMES);
    let other_port = if world.upstream.port() == 443 { 444 } else { 443 };
    world.connect_denied(format!("127.0.0.1:{other_port}"), 403, "admit", "address_not_listed");
}
