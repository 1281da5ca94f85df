//! Which addresses may be dialled (A): literal ones by address rules alone, answers of DNS by their class, and a
//! refused name is never asked for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::world::assert_refusal;
use crate::support::{Host, Service, Upstream, World, eventually, free_port, http_connect, socks4, socks5};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A second address of this host, on which nothing listens unless a test does.
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));

/// A rule for opaque bytes, so that a tunnel is what shows that an address was dialled.
const OPAQUE: &str = r#"egress: { allow: [{ to: "allowed.test:PORT", as: tcp, within: [127.0.0.0/8, "::1/128"] }] }"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
}

/// Each answer, given for a name of its own that a rule allows, is refused as being of that class, in either mode.
fn assert_classes(cases: &[(&str, &str)]) {
    for mode in ["enforce", "audit"] {
        let world = World::echo(&format!("mode: {mode}\negress: {{ allow: [\"*.allowed.test\"] }}"));
        for (at, (address, class)) in cases.iter().enumerate() {
            let name = format!("case-{at}.allowed.test");
            world.dns.answers(&name, &[ip(address)]);
            let case = format!("{address} in {mode} mode");
            let response = world.connect_raw(format!("{name}:443").as_bytes());
            let record = world.denied(&case, "vet", "address_class");
            assert_refusal(&case, &response, 403, &record);
            assert_eq!(record["class"], *class, "{case}: {record:#}");
            assert!(response.text().contains("within"), "{case}: the way out is missing in {}", response.text());
        }
    }
}

#[test]
fn a01_a_number_is_no_name_and_only_a_dotted_quad_is_an_address() {
    let world = World::new();
    let bad = [
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "1.1.1.1.",
        "127.0.0.01",
        "256.0.0.1",
        "127.0.0.1.1",
        "allowed.test.1",
        "allowed.0x1",
        "0",
        "0x",
        "127.0.0.1%lo",
        "127.0.0.1/8",
    ];
    for name in bad {
        world.connect_denied(world.at(name), 400, "parse", "malformed");
        world.socks5_denied(name, world.upstream.port(), 1, "parse", "malformed");
    }
}

#[test]
fn a02_s04_no_name_rule_allows_a_literal_address() {
    let world = World::echo(
        r#"egress: { allow: [{ to: "*.allowed.test:PORT", as: tcp }, { to: "allowed.test:PORT", as: tcp, within: [127.0.0.0/8] }] }"#,
    );
    let (proxy, port) = (world.proxy, world.upstream.port());
    for address in ["127.0.0.1", "93.184.216.34", "[2606:4700::1]", "[::1]"] {
        let record = world.connect_denied(world.at(address), 403, "admit", "address_not_listed");
        assert_eq!(record["rule"], serde_json::Value::Null, "{address}");
        let literal = ip(address.trim_matches(['[', ']']));
        assert_eq!(socks5(proxy, Host::Ip(literal), port, None).0, 2, "{address}");
        world.denied(&format!("SOCKS5 {address}"), "admit", "address_not_listed");
    }
    world.socks5_denied("127.0.0.1", port, 2, "admit", "address_not_listed");
    assert_eq!(socks4(proxy, Ipv4Addr::LOCALHOST, port, "me").0, 91);
    world.denied("SOCKS4", "admit", "address_not_listed");
}

#[test]
fn a02_an_address_rule_opens_its_space_on_its_ports_and_no_name() {
    let world = World::echo(r#"egress: { allow: [{ id: net, to: 127.0.0.0/8, ports: [PORT], as: tcp }] }"#);
    let record = world.flight_allowed("literal", &world.at("127.0.0.1"), b"ping");
    assert_eq!((&record["rule"], &record["host"], &record["class"]), (&"net".into(), &"127.0.0.1".into(), &"loopback".into()));
    world.connect_denied("127.0.0.1:1", 403, "admit", "port_not_listed");
    world.connect_denied(world.at("128.0.0.1"), 403, "admit", "address_not_listed");
    world.connect_denied(world.at("evil.test"), 403, "admit", "no_rule");
}

#[test]
fn a03_answers_in_private_and_metadata_space_are_refused() {
    assert_classes(&[
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.5", "private"),
        ("172.31.255.1", "private"),
        ("192.168.0.1", "private"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("169.254.1.1", "link_local"),
        ("100.64.0.1", "shared_space"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fe80::1", "link_local"),
        ("fc00::1", "private"),
        ("fd12:3456::1", "private"),
    ]);
}

#[test]
fn a04_a05_a06_a07_answers_that_embed_an_ipv4_address_are_refused() {
    assert_classes(&[
        ("::ffff:127.0.0.1", "embeds_ipv4"),
        ("::ffff:a9fe:a9fe", "embeds_ipv4"),
        ("::ffff:93.184.216.34", "embeds_ipv4"),
        ("64:ff9b::a9fe:a9fe", "embeds_ipv4"),
        ("64:ff9b::10.0.0.1", "embeds_ipv4"),
        ("64:ff9b:1::a9fe:a9fe", "embeds_ipv4"),
        ("2002:7f00:1::", "embeds_ipv4"),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "embeds_ipv4"),
        ("::127.0.0.1", "embeds_ipv4"),
        ("::ffff:0:10.0.0.1", "embeds_ipv4"),
        ("2606:4700::5efe:10.0.0.1", "embeds_ipv4"),
        ("2606:4700::200:5efe:10.0.0.1", "embeds_ipv4"),
    ]);
}

#[test]
fn a04_s07_an_embedded_address_passes_no_rule_for_the_plain_one_and_every_deny_rule() {
    let world = World::echo(
        r#"
egress:
  allow: [{ to: 127.0.0.0/8, ports: [PORT] }, { to: "::ffff:0:0/96", ports: [1-65535] }, { to: 10.0.0.0/8, ports: [PORT] }]
  deny: [{ id: no-ten, to: 10.0.0.0/8 }]
"#,
    );
    for (address, reason) in [
        ("::127.0.0.1", "address_not_listed"),
        ("64:ff9b::7f00:1", "address_not_listed"),
        ("2002:7f00:1::", "address_not_listed"),
        ("::ffff:10.0.0.1", "deny_rule"),
        ("::10.0.0.1", "deny_rule"),
        ("64:ff9b::a00:1", "deny_rule"),
        ("10.0.0.1", "deny_rule"),
    ] {
        let literal = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        world.connect_denied(world.at(&literal), 403, "admit", reason);
        assert_eq!(socks5(world.proxy, Host::Ip(ip(address)), world.upstream.port(), None).0, 2, "{address}");
        world.denied(address, "admit", reason);
    }
}

#[test]
fn a08_answers_that_nobody_can_have_are_refused() {
    assert_classes(&[
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("255.255.255.255", "multicast"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("192.0.2.77", "reserved"),
        ("198.18.0.1", "reserved"),
        ("2001:db8::1", "reserved"),
        ("100::1", "reserved"),
        ("3fff::1", "reserved"),
        ("5f00::1", "reserved"),
    ]);
}

#[test]
fn a09_one_resolution_per_connect_and_each_connect_judged_anew() {
    let world = World::echo(OPAQUE);
    world.dns.ttl(0).sequence("allowed.test", vec![vec![LOCALHOST], vec![PRIVATE]]);
    let record = world.flight_allowed("first answer", &world.at("allowed.test"), b"ping");
    assert_eq!(record["address"], world.upstream.addr().to_string(), "{record:#}");
    let mut kinds: Vec<String> = world.dns.queries().into_iter().map(|query| query.kind).collect();
    kinds.sort();
    assert_eq!(kinds, ["A", "AAAA"], "one look-up of each family, none between check and dial");
    world.connect_denied(world.at("allowed.test"), 403, "vet", "address_outside_within");
    assert_eq!(world.dns.queries_for("allowed.test").len(), 4);
}

#[test]
fn a10_of_a_mixed_answer_only_the_permitted_address_is_dialled() {
    let world = World::echo(&OPAQUE.replace("127.0.0.0/8", "127.0.0.1/32"));
    let forbidden = Upstream::at(SocketAddr::new(SECOND, world.upstream.port()), Service::Echo);
    for answers in [[SECOND, LOCALHOST], [LOCALHOST, SECOND], [PRIVATE, LOCALHOST]] {
        world.dns.ttl(0).answers("allowed.test", &answers);
        let record = world.flight_allowed(&format!("{answers:?}"), &world.at("allowed.test"), b"ping");
        assert_eq!(record["address"], world.upstream.addr().to_string(), "{answers:?}");
    }
    assert_eq!(forbidden.connections(), 0);
}

#[test]
fn a10_when_the_permitted_address_is_dead_the_other_is_still_not_dialled() {
    let port = free_port();
    let world = World::echo(&OPAQUE.replace("127.0.0.0/8", "127.0.0.1/32").replace("PORT", &port.to_string()));
    let forbidden = Upstream::at(SocketAddr::new(SECOND, port), Service::Echo);
    world.dns.answers("allowed.test", &[LOCALHOST, SECOND, PRIVATE]);
    let response = world.connect_raw(format!("allowed.test:{port}").as_bytes());
    assert_eq!(response.status, 502, "{}", response.head);
    let record = world.record();
    assert_eq!((&record["close"], &record["stage"]), (&"connect_refused".into(), &"connect".into()), "{record:#}");
    assert_eq!(forbidden.connections(), 0);
}

#[test]
fn a11_the_end_of_a_chain_of_aliases_decides() {
    let world = World::echo(r#"egress: { allow: [allowed.test] }"#);
    world.dns.cname("allowed.test", "internal.corp").answers("internal.corp", &[PRIVATE]);
    let record = world.connect_denied("allowed.test:443", 403, "vet", "address_class");
    assert_eq!((&record["host"], &record["class"]), (&"allowed.test".into(), &"private".into()));
}

#[test]
fn a11_loops_and_long_chains_of_aliases_end_in_time() {
    let world = World::echo(OPAQUE);
    world.dns.cname("allowed.test", "loop.test").cname("loop.test", "allowed.test");
    assert_eq!(answered_in_time(&world, "loop"), 502);
    let record = world.record();
    assert!(record["close"].as_str().is_some_and(|close| close.starts_with("dns_")), "{record:#}");

    let chained = World::echo(OPAQUE);
    chained.dns.cname("allowed.test", "c0.test").answers("c20.test", &[LOCALHOST]);
    for at in 0..20 {
        chained.dns.cname(&format!("c{at}.test"), &format!("c{}.test", at + 1));
    }
    let status = answered_in_time(&chained, "20 aliases");
    assert!([200, 502, 504].contains(&status), "20 aliases: {status}");
}

/// The status of a CONNECT to the upstream, which must come within 5 s: the promise for every failure of DNS.
fn answered_in_time(world: &World, case: &str) -> u16 {
    let begun = Instant::now();
    let status = http_connect(world.proxy, &world.at("allowed.test")).response.status;
    assert!(begun.elapsed() < Duration::from_secs(5), "{case}: answered after {:?}", begun.elapsed());
    status
}

#[test]
fn a12_a_denied_name_sends_no_dns_packet() {
    let world = World::new();
    for name in ["secret-data.evil.test", "evil.test", "x.allowed.test", "aws-key-akia.deny.evil.test"] {
        world.connect_denied(world.at(name), 403, "admit", "no_rule");
        world.socks5_denied(name, world.upstream.port(), 2, "admit", "no_rule");
    }
    assert_eq!(world.dns.queries(), []);
}

#[test]
fn a13_many_names_under_one_wildcard_are_allowed_and_counted_by_rule() {
    const NAMES: usize = 20;
    let world = World::echo(r#"egress: { allow: [{ id: wild, to: "*.allowed.test:PORT", as: tcp, within: [127.0.0.0/8] }] }"#);
    for at in 0..NAMES {
        let name = format!("{at:0>63}.{at:a>63}.allowed.test");
        world.dns.answers(&name, &[LOCALHOST]);
        let record = world.flight_allowed(&name, &world.at(&name), b"ping");
        assert_eq!((&record["host"], &record["rule"]), (&name.as_str().into(), &"wild".into()));
    }
    let labels = [("decision", "allow"), ("rule", "wild")];
    world.egret.metric_becomes("egret_egress_decisions_total", &labels, NAMES as f64);
    let metrics = world.egret.metrics();
    assert!(!metrics.contains(&"a".repeat(60)), "names from the network are no metric labels: {metrics}");
}

#[test]
fn a15_failures_of_dns_are_told_apart_and_told_in_time() {
    let world = World::echo(&OPAQUE.replace("allowed.test:PORT", "*.allowed.test:PORT"));
    world
        .dns
        .nxdomain("no.allowed.test")
        .servfail("broken.allowed.test")
        .silent("silent.allowed.test")
        .answers("none.allowed.test", &[]);
    let cases = [
        ("no", 502, 4, "dns_nxdomain"),
        ("broken", 502, 4, "dns_failed"),
        ("none", 502, 4, "dns_no_address"),
        ("silent", 504, 4, "dns_timeout"),
    ];
    for (name, status, code, close) in cases {
        let name = format!("{name}.allowed.test");
        let begun = Instant::now();
        let response = world.connect_raw(world.at(&name).as_bytes());
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{name}: answered after {took:?}");
        assert_eq!((response.status, response.header("x-egret-reason")), (status, Some(close)), "{name}: {}", response.head);
        assert_fault(&name, &world.record(), close);
        assert_eq!(world.socks5_raw(name.as_bytes(), world.upstream.port())[..2], [5, code], "{name}");
        assert_fault(&name, &world.record(), close);
    }
    assert_eq!(world.upstream.connections(), 0);
}

/// A record that nobody can take for "allowed and connected", nor for a denial.
fn assert_fault(case: &str, record: &serde_json::Value, close: &str) {
    assert_eq!((&record["close"], &record["stage"]), (&close.into(), &"resolve".into()), "{case}: {record:#}");
    assert!(record["address"].is_null() && record["decision"] != "deny" && record["reason"].is_null(), "{case}: {record:#}");
    assert!(record["detail"].is_string(), "{case}: {record:#}");
}

#[test]
fn a15_a_truncated_answer_is_asked_again_over_tcp() {
    let world = World::echo(OPAQUE);
    world.dns.truncated("allowed.test", &[LOCALHOST]);
    world.flight_allowed("truncated", &world.at("allowed.test"), b"ping");
}

#[test]
fn a15_a_resolver_that_is_down_from_the_start_is_a_fault_of_dns() {
    let egret = crate::support::Egret::with_policy(&format!(
        "version: 1\negress: {{ allow: [allowed.test] }}\ndns: {{ upstream: \"127.0.0.1:{}\" }}",
        free_port()
    ))
    .start();
    let begun = Instant::now();
    let response = http_connect(egret.proxy(), "allowed.test:443").response;
    assert!(begun.elapsed() < Duration::from_secs(5), "answered after {:?}", begun.elapsed());
    assert!([502, 504].contains(&response.status), "{}", response.head);
    let record = egret.only_record();
    assert!(record["close"] == "dns_failed" || record["close"] == "dns_timeout", "{record:#}");
}

#[test]
fn a15_a_failure_is_forgotten_within_seconds() {
    let world = World::echo(OPAQUE);
    world.dns.ttl(3600).nxdomain("allowed.test");
    let status = || http_connect(world.proxy, &world.at("allowed.test")).response.status;
    assert_eq!(status(), 502);
    world.dns.answers("allowed.test", &[LOCALHOST]);
    let begun = Instant::now();
    eventually("the name resolves again", || (status() == 200).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(10), "remembered for {:?}", begun.elapsed());
}

#[test]
fn a16_dead_addresses_and_families_do_not_hide_a_live_one() {
    let world = World::echo(OPAQUE);
    let dead6 = ip("::1");
    for answers in [vec![SECOND, LOCALHOST], vec![dead6, LOCALHOST], vec![dead6, SECOND, ip("127.0.0.3"), LOCALHOST]] {
        world.dns.ttl(0).answers("allowed.test", &answers);
        let record = world.flight_allowed(&format!("{answers:?}"), &world.at("allowed.test"), b"ping");
        assert_eq!(record["address"], world.upstream.addr().to_string(), "{answers:?}");
    }
}

#[test]
fn a16_a_host_of_ipv6_alone_is_reached() {
    let upstream = Upstream::at(SocketAddr::new(ip("::1"), 0), Service::Echo);
    let world = World::of(OPAQUE, upstream);
    world.dns.answers("allowed.test", &[ip("::1")]);
    let record = world.flight_allowed("IPv6", &world.at("allowed.test"), b"ping");
    assert_eq!(record["address"], world.upstream.addr().to_string());
}
