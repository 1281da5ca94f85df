//! What a host name may look like (H). One reader for every protocol: what two programs could read differently is
//! refused before any rule is asked, and a rule matches whole labels or nothing.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown};

use crate::support::client::{https_get, raw, read_to_close};
use crate::support::http1::Response;
use crate::support::world::assert_refusal;
use crate::support::{Hello, Host, Upstream, World, http_connect, socks4a, socks5};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A label of this length.
fn label(length: usize) -> String {
    "a".repeat(length)
}

/// A whole HTTPS exchange with the upstream through this target.
fn assert_reaches(world: &World, target: &str) {
    let tunnel = http_connect(world.proxy, target);
    assert_eq!(tunnel.response.status, 200, "{target}: {}", tunnel.response.head);
    let answer = https_get(tunnel.stream, "allowed.test", "/", world.ca.client_config());
    assert_eq!(answer.text(), "hello", "{target}");
    assert_eq!(world.allowed(target)["host"], "allowed.test", "{target}: the record has the normal form");
}

#[test]
fn h01_letters_may_have_any_case() {
    let world = World::new();
    assert_reaches(&world, &world.at("ALLOWED.Test"));
}

#[test]
fn h02_one_trailing_dot_is_removed_before_every_rule() {
    let world = World::new();
    assert_reaches(&world, &world.at("allowed.test."));
    for name in ["allowed.test..", "allowed..test", ".allowed.test", ".", "evil.test.."] {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
        world.socks5_denied(name, world.upstream.port(), 1, "parse", "malformed");
    }
}

#[test]
fn h01_h02_h03_no_spelling_dodges_a_deny_rule() {
    let world = World::echo(
        r#"
egress:
  allow: [{ to: "bad.test:PORT", within: [127.0.0.0/8] }]
  deny: [{ id: bad, to: bad.test }]
"#,
    );
    for name in ["bad.test", "bad.test.", "BAD.test", "Bad.Test."] {
        let record = world.connect_denied(world.at(name), 403, "admit", "deny_rule");
        assert_eq!((&record["rule"], &record["host"]), (&"bad".into(), &"bad.test".into()), "{name}");
        world.socks5_denied(name, world.upstream.port(), 2, "admit", "deny_rule");
    }
    for name in ["[bad.test]", "[bad.test", "bad.test]", "[]"] {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
        world.socks5_denied(name, world.upstream.port(), 1, "parse", "malformed");
    }
}

#[test]
fn h03_brackets_are_for_ipv6_alone() {
    let world = World::new();
    for name in ["[allowed.test]", "[127.0.0.1]", "[::1", "::1", "[::1]x", "[::1%25lo]", "[[::1]]"] {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
    }
}

#[test]
fn h04_a_nul_never_ends_a_name() {
    let world = World::new();
    for name in ["allowed.test\0.evil.test", "evil.test\0.allowed.test", "allowed.test\0", "\0allowed.test", "\0"] {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
        world.socks5_denied(name, world.upstream.port(), 1, "parse", "malformed");
    }
}

#[test]
fn h04_in_socks4a_a_nul_ends_the_name_for_everybody() {
    let world = World::new();
    let (code, mut stream) = socks4a(world.proxy, "evil.test\0.allowed.test", world.upstream.port(), "");
    assert_eq!(code, 91);
    assert_eq!(read_to_close(&mut stream), b"", "nothing after the reply");
    assert_eq!(world.denied("SOCKS4a", "admit", "no_rule")["host"], "evil.test");
}

#[test]
fn h05_a_name_has_letters_digits_hyphens_underscores_and_dots() {
    let world = World::new();
    let bad = [
        "\r", "\n", "\r\n", " ", "\t", "\x0b", "%00", "%2e", "@", "/", "?", "#", "\\", ":", "*", "'", "\"", "<", "{", "\x7f",
        "\x1b[2J", "$",
    ];
    for text in bad {
        for name in [format!("allowed{text}.test"), format!("allowed.test{text}"), format!("{text}allowed.test")] {
            world.socks5_denied(&name, world.upstream.port(), 1, "parse", "malformed");
            world.connect_denied(world.at(&name), 400, "parse", "malformed");
        }
    }
}

#[test]
fn h07_a_rule_ends_at_a_label() {
    let world = World::echo(
        r#"
egress:
  allow:
    - { to: "github.com:PORT", within: [127.0.0.0/8] }
    - { to: "*.allowed.test:PORT", within: [127.0.0.0/8] }
"#,
    );
    let strangers = [
        "github.com.evil.test",
        "github.comevil.test",
        "xgithub.com",
        "www.github.com",
        "com",
        "evilallowed.test",
        "x.evilallowed.test",
        "allowed.test.evil.test",
        "x-allowed.test",
        "test",
    ];
    for name in strangers {
        world.connect_denied(world.at(name), 403, "admit", "no_rule");
        world.socks5_denied(name, world.upstream.port(), 2, "admit", "no_rule");
    }
}

/// The ways in which a client can name a host. Each says whether it was let through.
fn asked_every_way(world: &World, name: &str) -> [(&'static str, bool); 5] {
    let (proxy, port) = (world.proxy, world.upstream.port());
    let connect = http_connect(proxy, &world.at(name)).response.status == 200;
    world.record();
    let socks5 = socks5(proxy, Host::Name(name), port, None).0 == 0;
    world.record();
    let socks4a = socks4a(proxy, name, port, "").0 == 90;
    world.record();
    let forward =
        raw(proxy, format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", world.at(name)).as_bytes());
    let forward = Response::read(&forward[..]).expect("an HTTP answer").status == 200;
    world.record();
    let mut by_sni = http_connect(proxy, &world.at("127.0.0.1"));
    by_sni.stream.write_all(&Hello::new().sni(name).build()).expect("the tunnel takes bytes");
    by_sni.stream.shutdown(Shutdown::Write).expect("the tunnel has two directions");
    drop(read_to_close(&mut by_sni.stream));
    let by_sni = world.record()["decision"] == "allow";
    [("CONNECT", connect), ("SOCKS5", socks5), ("SOCKS4a", socks4a), ("forward", forward), ("SNI", by_sni)]
}

#[test]
fn h08_a_wildcard_is_one_or_more_labels_and_never_the_apex_whoever_asks() {
    let policy = r#"egress: { allow: [{ to: "*.allowed.test:PORT", within: [127.0.0.0/8] }] }"#;
    let world = World::of(policy, Upstream::http("hello"));
    for (name, expected) in
        [("allowed.test", false), ("b.allowed.test", true), ("a.b.allowed.test", true), ("b.evil.test", false)]
    {
        world.dns.answers(name, &[LOCALHOST]);
        for (way, passed) in asked_every_way(&world, name) {
            assert_eq!(passed, expected, "{name} by {way}");
        }
    }
}

#[test]
fn h09_dots_of_other_scripts_are_no_dots() {
    let world = World::new();
    let names = [
        "evil\u{3002}test",
        "allowed\u{ff0e}test",
        "allowed.test\u{ff61}",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "\u{ff41}llowed.test",
    ];
    for name in names {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
        world.socks5_denied(name, world.upstream.port(), 1, "parse", "malformed");
    }
    world.connect_denied(
        [b"allowed\xff.test:", world.upstream.port().to_string().as_bytes()].concat(),
        400,
        "parse",
        "malformed",
    );
    world.socks5_denied(b"allowed\xff.test", world.upstream.port(), 1, "parse", "malformed");
}

#[test]
fn h10_an_international_rule_matches_its_a_label() {
    let world = World::echo(r#"egress: { allow: [{ to: "bücher.test:PORT", as: tcp, within: [127.0.0.0/8] }] }"#);
    world.dns.answers("xn--bcher-kva.test", &[LOCALHOST]);
    let record = world.flight_allowed("A-label", &world.at("XN--bcher-kva.test"), b"ping");
    assert_eq!(record["host"], "xn--bcher-kva.test");
    world.connect_denied(world.at("bücher.test"), 400, "parse", "malformed");
}

#[test]
fn h11_names_have_the_lengths_of_dns() {
    let world = World::new();
    let longest = [label(63), label(63), label(63), label(56), "test".to_owned()].join(".");
    assert_eq!(longest.len(), 253);
    for name in [format!("{}.test", label(63)), longest.clone(), format!("{longest}.")] {
        world.connect_denied(world.at(&name), 403, "admit", "no_rule");
        world.socks5_denied(&name, world.upstream.port(), 2, "admit", "no_rule");
    }
    let too_long = [
        format!("{}.test", label(64)),
        format!("a{longest}"),
        "a..b".to_owned(),
        label(255),
        "a.".repeat(127) + "a",
        "-a.test".to_owned(),
    ];
    for name in &too_long {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
        world.socks5_denied(name, world.upstream.port(), 1, "parse", "malformed");
    }
    world.connect_denied(world.at(&label(10_000)), 400, "parse", "malformed");
    let longest_line = world.egret.stdout_lines().iter().map(String::len).max();
    assert!(longest_line < Some(4096), "a journal line of {longest_line:?} bytes");
}

#[test]
fn h12_a_port_is_a_plain_number_from_1_to_65535() {
    let world = World::new();
    let port = world.upstream.port();
    let (wrapped16, wrapped32) = (u64::from(port) + (1 << 16), u64::from(port) + (1 << 32));
    let bad = ["0", "65536", "65979", "4294967739", "18446744073709552059", "-1", "x", "0x1bb", "443.0", "1e3", "٤٤٣", ""]
        .map(str::to_owned);
    let of_upstream = [
        wrapped16.to_string(),
        wrapped32.to_string(),
        format!("+{port}"),
        format!(" {port}"),
        format!("0{port}"),
        format!("{port}x"),
        format!("{port}:{port}"),
        format!("{port}/"),
        format!("{port}%20"),
    ];
    for text in bad.iter().chain(&of_upstream) {
        world.connect_denied(format!("allowed.test:{text}"), 400, "parse", "malformed");
    }
    for target in ["allowed.test", "", ":443", "allowed.test 443", "[::1]"] {
        world.connect_denied(target, 400, "parse", "malformed");
    }
    world.socks5_denied("allowed.test", 0, 1, "parse", "malformed");
}

#[test]
fn h12_a_port_that_no_rule_lists_has_its_own_reason() {
    let world = World::new();
    let unlisted = if world.upstream.port() == 443 { 444 } else { 443 };
    let record = world.connect_denied(format!("allowed.test:{unlisted}"), 403, "admit", "port_not_listed");
    assert_eq!(record["rule"], "allowed");
    world.socks5_denied("allowed.test", unlisted, 2, "admit", "port_not_listed");
}

#[test]
fn h13_user_info_is_no_host() {
    let world = World::new();
    for name in ["user:pw@allowed.test", "user@allowed.test", "evil.test@allowed.test", "allowed.test@evil.test", "@allowed.test"]
    {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
        let url = format!("http://{}/", world.at(name));
        let answer = raw(world.proxy, format!("GET {url} HTTP/1.1\r\nHost: allowed.test\r\n\r\n").as_bytes());
        let response = Response::read(&answer[..]).expect("an HTTP answer");
        let record = world.denied(&url, "parse", "malformed");
        assert_refusal(&url, &response, 400, &record);
    }
}

const HOST_NAMES: [&str; 6] =
    ["localhost", "metadata", "kubernetes", "foo.localhost", "host.docker.internal", "metadata.google.internal"];

#[test]
fn h15_h16_names_of_the_neighbourhood_need_a_rule_like_any_other() {
    let world = World::new();
    for name in HOST_NAMES {
        world.dns.answers(name, &[LOCALHOST]);
        world.connect_denied(world.at(name), 403, "admit", "no_rule");
        world.socks5_denied(name, world.upstream.port(), 2, "admit", "no_rule");
    }
}

#[test]
fn h15_h16_a_rule_that_names_them_does_not_open_their_addresses() {
    let rules: Vec<String> = HOST_NAMES.iter().map(|name| format!("\"{name}:PORT\"")).collect();
    let world = World::echo(&format!("egress: {{ allow: [{}] }}", rules.join(", ")));
    for name in HOST_NAMES {
        let address = if name.starts_with("metadata") { IpAddr::from([169, 254, 169, 254]) } else { LOCALHOST };
        world.dns.answers(name, &[address]);
        let record = world.connect_denied(world.at(name), 403, "vet", "address_class");
        let class = if name.starts_with("metadata") { "metadata" } else { "loopback" };
        assert_eq!(record["class"], class, "{name}");
    }
}

#[test]
fn h01_h12_every_way_to_cut_a_connect_head_is_the_same_request() {
    let world = World::new();
    let head = format!("CONNECT {} HTTP/1.1\r\nHost: {0}\r\nUser-Agent: t\r\n\r\n", world.at("evil.test")).into_bytes();
    for cut in 1..head.len() {
        let mut stream = world.send_parts([&head[..cut], &head[cut..]]);
        let answer = read_to_close(&mut stream);
        assert!(answer.starts_with(b"HTTP/1.1 403 "), "cut at {cut}: {}", answer.escape_ascii());
    }
    let records = world.egret.wait_records(head.len() - 1);
    assert!(records.iter().all(|record| record["reason"] == "no_rule" && record["host"] == "evil.test"), "{records:#?}");
    assert_eq!((world.dns.total(), world.upstream.connections()), (0, 0));
}
