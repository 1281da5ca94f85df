//! What looks like something else (H, T, S): names like the allowed one to the eye, to a resolver, or to a careless reader,
//! and protocols that begin like another. Each is refused for what it is, by every way in.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::support::client::{connect, raw, read_exactly, read_to_close};
use crate::support::hello::split_records;
use crate::support::http1::Response;
use crate::support::world::{NAMES, assert_echo};
use crate::support::{Hello, Host, Upstream, World, socks5};

/// A ClientHello that names this.
fn hello(sni: &str) -> Vec<u8> {
    Hello::new().sni(sni).build()
}

/// A web server behind a rule for cleartext HTTP.
fn web() -> World {
    let rule = "{ id: web, to: \"allowed.test:PORT\", as: http, within: [127.0.0.0/8] }";
    World::of(&format!("egress: {{ allow: [{rule}] }}"), Upstream::http("hello\n"))
}

#[test]
fn h50_names_like_an_allowed_one_are_other_names() {
    let world = World::echo(NAMES);
    let alike = [
        "al1owed.test",
        "aIlowed.test.evil.test",
        "allovved.test",
        "allowed-test",
        "allowed_test",
        "allowed.test-",
        "_allowed.test",
        "allowed.tests",
        "xn--llowed-5cd.test",
        "allowed.xn--tst-bma",
        "www.allowed.test",
        "allowed.test.localhost",
    ];
    for name in alike {
        // What is no name at all may be told so; what is one has no rule.
        let status = world.connect_raw(world.at(name).as_bytes()).status;
        let (stage, reason) = if status == 400 { ("parse", "malformed") } else { ("admit", "no_rule") };
        world.denied(name, stage, reason);
        let code = if status == 400 { 1 } else { 2 };
        world.socks5_denied(name, world.upstream.port(), code, stage, reason);
        let sni = if status == 400 { "sni_invalid" } else { "sni_mismatch" };
        world.flight_denied(name, &world.at("allowed.test"), &hello(name), "confirm", sni);
    }
}

#[test]
fn h51_labels_that_only_say_that_they_are_encoded_are_no_names() {
    let world = World::new();
    for name in
        ["xn--.test", "xn---.test", "xn--allowed-.test", "xn--99999999.test", "xn--a\u{7f}.test", "XN--ZZZZZZZZZZZZZZZZ.test"]
    {
        let status = world.connect_raw(world.at(name).as_bytes()).status;
        assert!([400, 403].contains(&status), "{name}: {status}");
        let (stage, reason) = if status == 400 { ("parse", "malformed") } else { ("admit", "no_rule") };
        world.denied(name, stage, reason);
        world.socks5_denied(name, world.upstream.port(), if status == 400 { 1 } else { 2 }, stage, reason);
    }
}

#[test]
fn h52_characters_that_a_reader_may_drop_are_not_dropped() {
    let world = World::new();
    for hidden in ["\u{ad}", "\u{200b}", "\u{200d}", "\u{2060}", "\u{feff}", "\u{180e}", "\u{e0061}"] {
        for name in [format!("allowed{hidden}.test"), format!("{hidden}allowed.test"), format!("allowed.test{hidden}")] {
            world.connect_denied(world.at(&name), 400, "parse", "malformed");
            world.socks5_denied(&name, world.upstream.port(), 1, "parse", "malformed");
        }
    }
}

#[test]
fn h53_one_address_in_many_spellings_is_one_address() {
    let world = World::echo(
        r#"
egress:
  allow: [{ to: "::/0", ports: [PORT], as: tcp }, { to: 0.0.0.0/0, ports: [PORT], as: tcp }]
  deny: [{ id: bad, to: "2001:4860::/32", ports: [1-65535] }, { id: worse, to: 8.8.8.8 }]
"#,
    );
    for spelling in
        ["[2001:4860:0:0:0:0:0:1]", "[2001:4860::1]", "[2001:4860::0:1]", "[2001:4860:0::0.0.0.1]", "[2001:4860:0000::0001]"]
    {
        let record = world.connect_denied(world.at(spelling), 403, "admit", "deny_rule");
        assert_eq!((&record["host"], &record["rule"]), (&"2001:4860::1".into(), &"bad".into()), "{spelling}");
    }
    for spelling in ["8.8.8.8", "[::ffff:8.8.8.8]", "[::ffff:808:808]", "[64:ff9b::808:808]", "[2002:808:808::]"] {
        let record = world.connect_denied(world.at(spelling), 403, "admit", "deny_rule");
        assert_eq!(record["rule"], "worse", "{spelling}");
    }
}

#[test]
fn h54_what_is_in_brackets_is_an_address_and_nothing_beside_it() {
    let world = World::new();
    for host in
        ["[v1.fe80::a]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1].allowed.test", "a[::1]", "[::1", "[1.2.3.4]", "[::g]"]
    {
        world.connect_denied(world.at(host), 400, "parse", "malformed");
        world.socks5_denied(host, world.upstream.port(), 1, "parse", "malformed");
    }
}

#[test]
fn h55_a_target_is_one_host_and_one_port() {
    let world = World::new();
    let port = world.upstream.port();
    for target in [
        format!("allowed.test:{port},evil.test:{port}"),
        format!("allowed.test:{port};evil.test"),
        format!("allowed.test:{port}#evil.test"),
        format!("allowed.test:{port}?evil.test:443"),
        format!("allowed.test:{port}\\@evil.test"),
        format!("//allowed.test:{port}"),
        format!("https://allowed.test:{port}"),
        format!("allowed.test:{port} evil.test:{port}"),
        format!("evil.test\tallowed.test:{port}"),
        "allowed.test:\u{ff14}\u{ff14}\u{ff13}".to_owned(),
    ] {
        world.connect_denied(target, 400, "parse", "malformed");
    }
}

#[test]
fn h56_the_target_of_a_connect_is_in_its_first_line_only() {
    let world = World::echo(NAMES);
    for field in
        ["Host: evil.test:443", "Host: ", "X-Forwarded-Host: evil.test", "Forwarded: host=evil.test", "X-Original-URL: /"]
    {
        let head = format!("CONNECT {} HTTP/1.1\r\n{field}\r\n\r\n", world.at("allowed.test"));
        let mut stream = connect(world.proxy);
        stream.write_all(&[head.as_bytes(), &hello("allowed.test")].concat()).expect("the proxy takes a request");
        let yes = b"HTTP/1.1 200 Connection established\r\n\r\n";
        assert_echo(field, &mut stream, &[&yes[..], &hello("allowed.test")].concat());
        drop(stream);
        assert_eq!(world.allowed(field)["host"], "allowed.test", "{field}");
    }
}

#[test]
fn h57_a_url_that_two_readers_split_differently_goes_nowhere() {
    let world = web();
    let port = world.upstream.port();
    let evil = [
        format!("http://allowed.test:{port}@evil.test/"),
        format!("http://evil.test\\@allowed.test:{port}/"),
        format!("http://evil.test#@allowed.test:{port}/"),
        format!("http://evil.test?@allowed.test:{port}/"),
        format!("http://evil.test/@allowed.test:{port}/"),
        format!("http://evil.test%2f@allowed.test:{port}/"),
        format!("http://evil.test%00.allowed.test:{port}/"),
        format!("http:///evil.test/allowed.test:{port}"),
        format!("http:allowed.test:{port}/"),
        format!("http:/allowed.test:{port}/"),
        format!("http://allowed.test:{port}:{port}/"),
        format!("http://[allowed.test]:{port}/"),
        format!("HTTP://evil.test:{port}/"),
    ];
    for url in evil {
        let request = format!("GET {url} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", world.at("allowed.test"));
        let answer = raw(world.proxy, request.as_bytes());
        let response = Response::read(&answer[..]).unwrap_or_else(|e| panic!("{url}: {e}"));
        assert!([400, 403].contains(&response.status), "{url}: {}", response.head);
        let reason = if response.status == 400 { "malformed" } else { response.header("x-egret-reason").unwrap_or("-") };
        let record = world.record();
        assert_eq!((&record["decision"], record["reason"].as_str()), (&"deny".into(), Some(reason)), "{url}: {record:#}");
    }
    assert_eq!((world.upstream.connections(), world.dns.total()), (0, 0));
}

#[test]
fn h58_the_upstream_hears_one_spelling_of_its_name() {
    let world = web();
    let port = world.upstream.port();
    for authority in [format!("ALLOWED.test:{port}"), format!("allowed.test.:{port}"), format!("Allowed.TEST.:{port}")] {
        let request = format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        assert!(raw(world.proxy, request.as_bytes()).starts_with(b"HTTP/1.1 200 "), "{authority}");
    }
    for head in world.upstream.wait_heads(3) {
        let hosts: Vec<&str> = head.lines().filter(|line| line.to_lowercase().starts_with("host:")).collect();
        assert_eq!(hosts.len(), 1, "{head}");
        assert!(hosts[0].ends_with(&format!(" allowed.test:{port}")), "{head}");
    }
}

#[test]
fn t50_what_is_more_than_a_name_is_no_server_name() {
    let world = World::echo(NAMES);
    let port = world.upstream.port();
    let wrong = [
        format!("allowed.test:{port}"),
        "*.allowed.test".into(),
        "https://allowed.test".into(),
        "allowed.test/".into(),
        " allowed.test".into(),
        "allowed.test ".into(),
        "allowed.test\n".into(),
        "allowed.test,other.test".into(),
        "user@allowed.test".into(),
        "[::1]".into(),
        "::1".into(),
        "127.0.0.1".into(),
        "0x7f.1".into(),
        "2130706433".into(),
        "allowed%2etest".into(),
        String::new(),
    ];
    for sni in wrong {
        world.flight_denied(&sni, &world.at("allowed.test"), &hello(&sni), "confirm", "sni_invalid");
    }
}

#[test]
fn t51_a_server_name_of_another_type_hides_no_other() {
    let world = World::echo(NAMES);
    let entry = |kind: u8, name: &[u8]| [&[kind, 0, u8::try_from(name.len()).expect("short")][..], name].concat();
    let list = |entries: &[Vec<u8>]| {
        let all = entries.concat();
        [&u16::try_from(all.len()).expect("short").to_be_bytes()[..], &all].concat()
    };
    let (good, other) = (entry(0, b"allowed.test"), entry(1, b"allowed.test"));
    let cases = [
        ("another type alone", list(std::slice::from_ref(&other)), "sni_invalid"),
        ("another type first", list(&[other.clone(), good.clone()]), "sni_invalid"),
        ("another type behind", list(&[good.clone(), other]), "sni_ambiguous"),
        ("the same twice", list(&[good.clone(), good.clone()]), "sni_ambiguous"),
        ("an empty list", vec![0, 0], "sni_invalid"),
        ("octets behind the list", [list(&[good]), vec![0]].concat(), "sni_invalid"),
        ("no list", Vec::new(), "sni_invalid"),
    ];
    for (case, data, reason) in cases {
        world.flight_denied(case, &world.at("allowed.test"), &Hello::new().extension(0, &data).build(), "confirm", reason);
    }
}

#[test]
fn t52_tls_of_another_kind_is_not_tls() {
    let world = World::echo(NAMES);
    let whole = hello("allowed.test");
    let mut datagram = whole.clone();
    datagram[1..3].copy_from_slice(&[0xfe, 0xff]);
    let quic = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 1194]].concat();
    let cases = [
        ("DTLS", datagram, "hello_malformed"),
        ("QUIC", quic, "not_tls"),
        ("a record before it", [&[0x17, 3, 3, 0, 1, 0][..], &whole].concat(), "hello_malformed"),
        ("an alert before it", [&[0x15, 3, 3, 0, 2, 1, 0][..], &whole].concat(), "hello_malformed"),
        ("a change of cipher before it", [&[0x14, 3, 3, 0, 1, 1][..], &whole].concat(), "hello_malformed"),
        ("an octet before it", [&[0][..], &whole].concat(), "not_tls"),
        ("an empty line before it", [&b"\r\n"[..], &whole].concat(), "not_tls"),
        ("a PROXY line before it", [&b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"[..], &whole].concat(), "not_tls"),
        ("a hello request", vec![0x16, 3, 1, 0, 4, 0, 0, 0, 0], "hello_malformed"),
    ];
    for (case, flight, reason) in cases {
        world.flight_denied(case, &world.at("allowed.test"), &flight, "confirm", reason);
    }
}

/// Go's server, for one, passes over a warning, and reads the hello behind it.
#[test]
fn t52_nothing_hides_a_hello_from_rules_of_any_protocol() {
    let whole = hello("evil.test");
    for rule in [
        "{ to: 'allowed.test:PORT', within: [127.0.0.0/8], as: any }",
        "{ to: 'allowed.test:PORT', within: [127.0.0.0/8], mode: audit }",
        "{ to: 'allowed.test:PORT', within: [127.0.0.0/8], as: any, mode: audit }",
    ] {
        let world = World::echo(&format!("egress:\n  allow: [{rule}]\n"));
        for (case, record) in [
            ("an alert", &[0x15, 3, 1, 0, 2, 1, 90][..]),
            ("data", &[0x17, 3, 3, 0, 1, 0][..]),
            ("a change of cipher", &[0x14, 3, 3, 0, 1, 1][..]),
            ("a heartbeat", &[0x18, 3, 3, 0, 3, 1, 0, 0][..]),
        ] {
            let flight = [record, &whole].concat();
            world.flight_denied(&format!("{case}, {rule}"), &world.at("allowed.test"), &flight, "confirm", "hello_malformed");
        }
    }
}

#[test]
fn t53_an_introduction_of_a_load_balancer_introduces_nobody() {
    let world = World::new();
    let connect_to = |target: String| format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let v1 = [&b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"[..], &connect_to(world.at("allowed.test"))].concat();
    let answer = raw(world.proxy, &v1);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", answer.escape_ascii());
    let record = world.denied("version 1", "parse", "malformed");
    assert!(record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{record:#}");
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02";
    assert_eq!(raw(world.proxy, &[&v2[..], &connect_to(world.at("allowed.test"))].concat()), b"");
    world.denied("version 2", "sniff", "unknown_protocol");
}

#[test]
fn t56_the_first_hello_decides_whatever_follows_it() {
    let world = World::echo(NAMES);
    let target = world.at("allowed.test");
    let (good, evil) = (hello("allowed.test"), hello("evil.test"));
    let in_one_record = |first: &str, second: &str| {
        let messages = [Hello::new().sni(first).handshake(), Hello::new().sni(second).handshake()].concat();
        [&[0x16, 3, 1][..], &u16::try_from(messages.len()).expect("short").to_be_bytes(), &messages].concat()
    };
    let halves = split_records(&good, &[20]);
    let (first, second) = halves.split_at(5 + 20);
    let refused = [
        ("another hello behind", [&evil[..], &good].concat(), "sni_mismatch"),
        ("another hello in its record", in_one_record("evil.test", "allowed.test"), "sni_mismatch"),
        ("a change of cipher inside", [first, &[0x14, 3, 3, 0, 1, 1], second].concat(), "hello_malformed"),
        ("another hello inside", [first, &evil].concat(), "hello_malformed"),
    ];
    for (case, flight, reason) in refused {
        world.flight_denied(case, &target, &flight, "confirm", reason);
    }
    // A server that took the second one would break TLS; what it gets is what the client sent.
    for flight in [[&good[..], &evil].concat(), in_one_record("allowed.test", "evil.test")] {
        assert_eq!(world.flight_allowed("the right one first", &target, &flight)["sni"], "allowed.test");
    }
}

#[test]
fn s50_words_that_begin_like_connect_are_not_connect() {
    let world = World::new();
    let target = world.at("allowed.test");
    for line in [
        format!("connect {target} HTTP/1.1"),
        format!("Connect {target} HTTP/1.1"),
        format!("CONNECTX {target} HTTP/1.1"),
        format!("CONNECT\t{target} HTTP/1.1"),
        format!("CONNECT  {target} HTTP/1.1"),
        format!("CONNECT {target} HTTP/1.1 "),
        format!("CONNECT {target} HTTP/1.1\0"),
        format!("CONNECT {target}"),
        format!("CONNECT {target} HTTP/2.0"),
        format!("CONNECT {target} HTTP/0.9"),
        format!("CONNECT {target} ICAP/1.0"),
        format!("CONNECT-UDP {target} HTTP/1.1"),
    ] {
        let answer = raw(world.proxy, format!("{line}\r\nHost: {target}\r\n\r\n").as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{line}: {}", answer.escape_ascii());
        world.denied(&line, "parse", "malformed");
    }
}

#[test]
fn s51_what_begins_like_socks_and_goes_on_as_something_else_is_refused() {
    let world = World::new();
    let port = world.upstream.port().to_be_bytes();
    let cases: [(&str, Vec<u8>); 6] = [
        ("SOCKS5, then HTTP", [&[5][..], format!("CONNECT {} HTTP/1.1\r\n\r\n", world.at("allowed.test")).as_bytes()].concat()),
        ("SOCKS4, then HTTP", [&[4, 1][..], b"GET http://allowed.test/ HTTP/1.1\r\n\r\n", &[0; 300]].concat()),
        ("SOCKS5, then SOCKS4", [&[5, 1, 0][..], &[4, 1], &port, &[127, 0, 0, 1, 0]].concat()),
        ("SOCKS5, then TLS", [&[5, 1, 0][..], &hello("allowed.test")].concat()),
        ("SOCKS4 to 0.0.0.0", vec![4, 1, 0, 1, 0, 0, 0, 0, 0]),
        ("SOCKS4a without a name", [&[4, 1][..], &port, &[0, 0, 0, 1, 0, 0]].concat()),
    ];
    for (case, bytes) in cases {
        let mut stream = connect(world.proxy);
        stream.write_all(&bytes).expect("the proxy takes bytes");
        stream.shutdown(std::net::Shutdown::Write).expect("a socket can be closed halfway");
        let answer = read_to_close(&mut stream);
        assert!(!answer.starts_with(&[0, 90]) && !answer.windows(3).any(|part| part == [5, 0, 0]), "{case}: {answer:?}");
        let record = world.record();
        assert_ne!(record["decision"], "allow", "{case}: {record:#}");
    }
    assert_eq!((world.upstream.connections(), world.dns.total()), (0, 0));
}

#[test]
fn s52_an_address_in_the_place_of_a_name_is_judged_as_an_address() {
    let world = World::echo(
        r#"egress: { allow: [{ id: net, to: 127.0.0.1, ports: [PORT], as: tcp }], deny: [{ id: bad, to: 127.0.0.3 }] }"#,
    );
    let port = world.upstream.port();
    let (code, stream) = socks5(world.proxy, Host::Name("127.0.0.1"), port, None);
    assert_eq!(code, 0);
    drop(stream);
    assert_eq!(world.allowed("a name that is an address")["rule"], "net");
    assert_eq!(world.socks5_denied("127.0.0.3", port, 2, "admit", "deny_rule")["rule"], "bad");
    world.socks5_denied("127.0.0.2", port, 2, "admit", "address_not_listed");
    for odd in ["127.1", "0x7f000001", "127.0.0.1.", "0127.0.0.1", "127.0.0.1\0"] {
        world.socks5_denied(odd, port, 1, "parse", "malformed");
    }
    let literal = Host::Ip(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)));
    assert_eq!(socks5(world.proxy, literal, port, None).0, 2, "and so is an address");
    world.denied("an address", "admit", "deny_rule");
}

#[test]
fn s53_credentials_in_the_wrong_shape_are_no_request() {
    let world = World::echo(&format!("roles: {{ worker: {{ proxy-user: worker }} }}\n{NAMES}"));
    let request = [&[5, 1, 0, 3, 12][..], b"allowed.test", &world.upstream.port().to_be_bytes()].concat();
    for credentials in [&[5, 1, b'x', 1, b'y'][..], &[0, 0, 0], &[2, 6, b'w', b'o', b'r', b'k', b'e', b'r', 0]] {
        let mut stream = connect(world.proxy);
        stream.write_all(&[5, 1, 2]).expect("the proxy takes a greeting");
        assert_eq!(read_exactly(&mut stream, 2), [5, 2]);
        stream.write_all(&[credentials, &request].concat()).expect("the proxy takes credentials");
        let answer = read_to_close(&mut stream);
        assert!(answer.first() == Some(&1) && answer.get(1) != Some(&0), "{credentials:?}: {answer:?}");
        world.denied(&format!("{credentials:?}"), "parse", "malformed");
    }
}
