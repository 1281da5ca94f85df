//! egret never reaches itself (L): its listeners are refused by whatever road, under whatever rule and mode, and what
//! it tells on its admin port is read-only and for nobody's browser.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::support::client::{connect, raw, read_to_close};
use crate::support::http1::Response;
use crate::support::world::assert_refusal;
use crate::support::{Hello, Host, World, free_port, http_connect, socks4, socks4a, socks5};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Everything that can be allowed is: names and addresses, on every port.
const ALL: &str = r#"
egress:
  allow:
    - { to: 127.0.0.0/8, ports: [1-65535], as: tcp }
    - { to: 0.0.0.0/8, ports: [1-65535], as: tcp }
    - { to: 192.0.0.0/8, ports: [1-65535], as: tcp }
    - { to: 10.0.0.0/8, ports: [1-65535], as: tcp }
    - { to: 172.16.0.0/12, ports: [1-65535], as: tcp }
    - { to: "::/8", ports: [1-65535], as: tcp }
    - { to: "fc00::/7", ports: [1-65535], as: tcp }
    - { to: "*.own.test", ports: [1-65535], as: any, within: [127.0.0.0/8, 0.0.0.0/8, "::/8"] }
    - { to: localhost, ports: [1-65535], as: any, within: [127.0.0.0/8, "::1/128"] }
"#;

/// The address from which this host speaks to others, if it has one. Nothing is sent.
fn interface() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    socket.local_addr().ok().map(|own| own.ip()).filter(|ip| !ip.is_unspecified())
}

/// A world with a role port, and all of egret's listeners.
fn listening(policy: &str) -> (World, Vec<SocketAddr>) {
    let world = World::echo(&format!("roles: {{ web: {{ port: {} }} }}\n{policy}", free_port()));
    let mut own = world.egret.proxies();
    assert_eq!(own.len(), 2, "the port of --listen and that of the role");
    own.push(world.egret.admin());
    (world, own)
}

fn assert_unreachable(policy: &str) {
    let (world, own) = listening(policy);
    let proxy = world.proxy;
    let mut literals = ["127.0.0.1", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]", "[::127.0.0.1]"]
        .map(str::to_owned)
        .to_vec();
    literals.extend(interface().map(|ip| ip.to_string()));
    for port in own.iter().map(SocketAddr::port) {
        for literal in &literals {
            world.connect_denied(format!("{literal}:{port}"), 403, "admit", "own_listener");
        }
        for literal in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let host = Host::Ip(literal.parse().expect("an address"));
            assert_eq!(socks5(proxy, host, port, None).0, 2, "SOCKS5 {literal} port {port}");
            world.denied(literal, "admit", "own_listener");
        }
        assert_eq!(socks4(proxy, Ipv4Addr::LOCALHOST, port, "").0, 91, "SOCKS4 port {port}");
        world.denied("SOCKS4", "admit", "own_listener");
    }
}

#[test]
fn l01_l02_no_literal_address_leads_to_egret_itself() {
    assert_unreachable(ALL);
}

#[test]
fn l01_l02_audit_does_not_open_egret_itself() {
    assert_unreachable(&format!("mode: audit\n{ALL}"));
    assert_unreachable("mode: audit");
}

#[test]
fn l01_l03_no_name_leads_to_egret_itself() {
    for mode in ["enforce", "audit"] {
        let (world, own) = listening(&format!("mode: {mode}\n{ALL}"));
        let answers =
            [("a.own.test", "127.0.0.1"), ("b.own.test", "::1"), ("c.own.test", "0.0.0.0"), ("d.own.test", "::ffff:127.0.0.1")];
        for (name, address) in answers {
            world.dns.answers(name, &[address.parse().expect("an address")]);
        }
        for port in own.iter().map(SocketAddr::port) {
            for name in answers.iter().map(|(name, _)| *name).chain(["localhost"]) {
                world.connect_denied(format!("{name}:{port}"), 403, "vet", "own_listener");
            }
            world.socks5_denied("a.own.test", port, 2, "vet", "own_listener");
            assert_eq!(socks4a(world.proxy, "a.own.test", port, "").0, 91);
            world.denied("SOCKS4a", "vet", "own_listener");
            let url = format!("http://a.own.test:{port}/metrics");
            let answer = raw(world.proxy, format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
            let response = Response::read(&answer[..]).expect("an HTTP answer");
            assert!(!response.text().contains("egret_build_info"), "{url}: {}", response.text());
            let record = world.denied(&url, "vet", "own_listener");
            assert_eq!(response.status, 403, "{url}: {record:#}");
        }
    }
}

#[test]
fn l01_an_sni_opens_egret_itself_no_more_than_a_name() {
    let (world, own) =
        listening(r#"egress: { allow: [{ to: allowed.test, ports: [1-65535], as: tls, within: [127.0.0.0/8] }] }"#);
    for port in own.iter().map(SocketAddr::port) {
        world.connect_denied(format!("127.0.0.1:{port}"), 403, "admit", "own_listener");
    }
    // What is not egret's on the same address stays within reach.
    world.flight_allowed("the upstream", &world.at("127.0.0.1"), &Hello::new().sni("allowed.test").build());
}

#[test]
fn l01_a_mixed_answer_does_not_fall_back_to_egret_itself() {
    let (world, own) = listening(ALL);
    // Outside the rule's `within`, so that nothing permitted is left.
    let other = IpAddr::V4(Ipv4Addr::new(10, 255, 255, 1));
    world.dns.answers("mixed.own.test", &[LOCALHOST, other]);
    let response = world.connect_raw(format!("mixed.own.test:{}", own[2].port()).as_bytes());
    assert_eq!(response.status, 403, "{}", response.head);
    world.denied("mixed", "vet", "own_listener");
}

#[test]
fn l03_an_answer_that_is_an_interface_of_this_host_is_refused() {
    let own = interface().expect("this test needs an interface besides loopback");
    let world = World::echo("egress: { allow: [own.test] }");
    world.dns.answers("own.test", &[own]);
    let response = world.connect_raw(b"own.test:443");
    let record = world.denied("own interface", "vet", "address_class");
    assert_eq!(record["class"], "own_interface", "{record:#}");
    assert_refusal("own interface", &response, 403, &record);
}

#[test]
fn l05_the_proxy_port_serves_nothing_of_its_own() {
    let world = World::new();
    for path in ["/metrics", "/healthz", "/readyz", "/status", "/report", "/", "*"] {
        let method = if path == "*" { "OPTIONS" } else { "GET" };
        for host in ["x", "127.0.0.1"] {
            let answer = raw(world.proxy, format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            let response = Response::read(&answer[..]).expect("an HTTP answer");
            let text = response.text();
            assert!(!text.contains("egret_") && !text.contains('{'), "{path}: {text}");
            let record = world.denied(path, "parse", "malformed");
            assert_refusal(path, &response, 400, &record);
        }
    }
}

/// What the admin port answers to a request of these lines.
fn admin(world: &World, lines: &[&str]) -> Response {
    let mut stream = connect(world.egret.admin());
    let request = format!("{}\r\nConnection: close\r\n\r\n", lines.join("\r\n"));
    stream.write_all(request.as_bytes()).expect("the admin port takes a request");
    let answer = read_to_close(&mut stream);
    Response::read(&answer[..]).unwrap_or_else(|e| panic!("{lines:?}: {e}: {}", answer.escape_ascii()))
}

#[test]
fn l06_the_admin_port_is_read_only() {
    let world = World::new();
    let host = format!("Host: {}", world.egret.admin());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        for path in ["/healthz", "/readyz", "/metrics", "/status", "/report", "/reload", "/quit", "/"] {
            let answer = admin(&world, &[&format!("{method} {path} HTTP/1.1"), &host, "Content-Length: 0"]);
            assert!([404, 405].contains(&answer.status), "{method} {path}: {}", answer.head);
        }
    }
    assert!(world.egret.events("policy").is_empty(), "nothing was reloaded");
    assert_eq!(world.egret.get_admin("/healthz").0, 200);
}

#[test]
fn l06_the_admin_port_wants_to_be_called_by_address_or_localhost() {
    let world = World::new();
    let port = world.egret.admin().port();
    for host in ["evil.test", "rebound.evil.test", "localhost.evil.test", "127.0.0.1.evil.test", "xlocalhost", ""] {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let answer = admin(&world, &["GET /metrics HTTP/1.1", &format!("Host: {host}")]);
            assert!((400..500).contains(&answer.status), "Host: {host:?}: {}", answer.head);
            assert!(!answer.text().contains("egret_build_info"), "Host: {host:?}");
        }
    }
    for host in ["127.0.0.1", "localhost", "[::1]", "10.0.0.9"] {
        let answer = admin(&world, &["GET /metrics HTTP/1.1", &format!("Host: {host}:{port}")]);
        assert_eq!(answer.status, 200, "Host: {host}: {}", answer.head);
    }
}

#[test]
fn l06_no_page_may_read_what_the_admin_port_says() {
    let world = World::new();
    let host = format!("Host: {}", world.egret.admin());
    for method in ["GET", "OPTIONS"] {
        let lines =
            [&format!("{method} /status HTTP/1.1"), &host, "Origin: https://evil.test", "Access-Control-Request-Method: GET"];
        let answer = admin(&world, &lines);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{method}: {}", answer.head);
    }
}

#[test]
fn l05_connect_to_the_admin_port_is_no_way_around_either() {
    let (world, own) = listening(ALL);
    let tunnel = http_connect(world.egret.proxies()[1], &own[2].to_string());
    assert_eq!(tunnel.response.status, 403, "{}", tunnel.response.head);
    drop(tunnel);
    assert_eq!(world.denied("by the role's port", "admit", "own_listener")["role"], "web");
}
