//! Who is asking: told by the port that a client uses or by the user name that it gives. A role is a claim that
//! narrows, and no secret: passwords are not looked at, and are told to nobody.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::{connect, http_connect_with};
use crate::support::http1::Response;
use crate::support::ports::free_port_of;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Host, Upstream, http_connect, socks4a, socks5};

const PASSWORD: &str = "correct-horse";

/// Upstreams that only one role may reach, each, and an egret that knows the roles.
struct Site {
    egret: Egret,
    worker: Upstream,
    web: Upstream,
    _dns: DnsServer,
}

impl Site {
    /// `loopback` is an address that no other test uses: the ports of roles can't be the kernel's choice, and here
    /// nobody else takes them.
    fn new(loopback: [u8; 4]) -> Self {
        let (worker, web, dns) = (Upstream::http("for worker\n"), Upstream::http("for web\n"), DnsServer::new());
        dns.answers("worker.test", &LOCALHOST).answers("web.test", &LOCALHOST);
        let rules = [
            local("worker.test", worker.port(), "as: any, for: [worker], id: of-worker"),
            local("web.test", web.port(), "as: any, for: [web], id: of-web"),
        ];
        let roles =
            format!("roles: {{ worker: {{ proxy-user: worker }}, web: {{ port: {} }} }}\n", free_port_of(loopback.into()));
        let listen = format!("{}:0", Ipv4Addr::from(loopback));
        let egret = Egret::with_policy(&(policy(&dns, &rules) + &roles)).listen(&listen).start();
        Self { egret, worker, web, _dns: dns }
    }

    fn of_worker(&self) -> String {
        format!("worker.test:{}", self.worker.port())
    }

    fn of_web(&self) -> String {
        format!("web.test:{}", self.web.port())
    }

    /// The one connection was judged as this role's, and refused because of it.
    fn refused(&self, role: &str) {
        let record = self.egret.only_record();
        assert_eq!((&record["reason"], &record["role"]), (&"role_not_listed".into(), &role.into()));
        let labels = [("decision", "deny"), ("reason", "role_not_listed"), ("role", role)];
        self.egret.metric_becomes("egret_egress_decisions_total", &labels, 1.0);
        assert_eq!((self.worker.connections(), self.web.connections()), (0, 0));
    }

    fn passed(&self, role: &str, rule: &str) {
        let record = self.egret.only_record();
        assert_eq!((&record["decision"], &record["role"], &record["rule"]), (&"allow".into(), &role.into(), &rule.into()));
        let labels = [("decision", "allow"), ("role", role), ("rule", rule)];
        self.egret.metric_becomes("egret_egress_decisions_total", &labels, 1.0);
    }

    /// What was given as a password is in nothing that egret says.
    fn kept_secret(&self, answers: &[String]) {
        let admin = ["/metrics", "/status", "/report"].map(|path| self.egret.get_admin(path).1);
        let said = [self.egret.stdout_lines().join("\n"), self.egret.stderr(), admin.join("\n"), answers.join("\n")].join("\n");
        let encoded = [basic("worker"), basic("nobody")].map(|field| field.rsplit(' ').next().unwrap_or_default().to_owned());
        for secret in [PASSWORD, &encoded[0], &encoded[1]] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
}

fn basic(user: &str) -> String {
    format!("Proxy-Authorization: Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")))
}

/// A GET in a tunnel that stands.
fn get(stream: &TcpStream, host: &str) -> String {
    use std::io::Write;
    let mut stream = stream;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("the tunnel takes bytes");
    Response::read(stream).expect("the upstream answers").text()
}

/// A GET in absolute form, with one more field.
fn forward(proxy: SocketAddr, host: &str, field: &str) -> Response {
    use std::io::Write;
    let mut stream = connect(proxy);
    write!(stream, "GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{field}\r\nConnection: close\r\n\r\n")
        .expect("the proxy takes a request");
    Response::read(stream).expect("the proxy answers")
}

#[test]
fn by_port() {
    let site = Site::new([127, 41, 0, 1]);
    let [default, web] = site.egret.proxies()[..] else { panic!("two proxy ports: {}", site.egret.started()) };
    assert_ne!(default, web);
    let connected = http_connect(web, &site.of_web());
    assert_eq!(connected.response.status, 200, "{}", connected.response.text());
    assert_eq!(get(&connected.stream, &site.of_web()), "for web\n");
    drop(connected);
    site.passed("web", "of-web");
}

#[test]
fn by_the_wrong_port() {
    let site = Site::new([127, 41, 0, 2]);
    let response = http_connect(site.egret.proxies()[1], &site.of_worker()).response;
    assert_eq!((response.status, response.header("x-egret-reason")), (403, Some("role_not_listed")));
    assert_eq!(response.header("x-egret-rule"), Some("of-worker"));
    assert!(response.text().contains("web"), "it says who asked: {}", response.text());
    site.refused("web");
}

#[test]
fn by_http_user_of_a_connect() {
    let site = Site::new([127, 41, 0, 3]);
    let connected = http_connect_with(site.egret.proxy(), &site.of_worker(), &[&basic("worker")]);
    assert_eq!(connected.response.status, 200, "{}", connected.response.text());
    assert_eq!(get(&connected.stream, &site.of_worker()), "for worker\n");
    drop(connected);
    site.passed("worker", "of-worker");
    site.kept_secret(&[]);
}

#[test]
fn by_http_user_of_each_request() {
    let site = Site::new([127, 41, 0, 4]);
    assert_eq!(forward(site.egret.proxy(), &site.of_worker(), &basic("worker")).text(), "for worker\n");
    let record = site.egret.only_record();
    assert_eq!((&record["role"], &record["rule"], &record["via"]), (&"worker".into(), &"of-worker".into(), &"forward".into()));
    let request = site.egret.event("request", |_| true);
    assert_eq!((&request["role"], &request["rule"]), (&"worker".into(), &"of-worker".into()));
    let heads = site.worker.wait_heads(1);
    assert!(!heads[0].to_ascii_lowercase().contains("proxy-authorization"), "{heads:#?}");
    site.kept_secret(&[]);
}

#[test]
fn by_socks5_user() {
    let site = Site::new([127, 41, 0, 5]);
    let user = Some(("worker", PASSWORD));
    let (code, stream) = socks5(site.egret.proxy(), Host::Name("worker.test"), site.worker.port(), user);
    assert_eq!(code, 0);
    assert_eq!(get(&stream, &site.of_worker()), "for worker\n");
    drop(stream);
    site.passed("worker", "of-worker");
    site.kept_secret(&[]);
}

#[test]
fn a_user_goes_before_a_port() {
    let site = Site::new([127, 41, 0, 6]);
    let connected = http_connect_with(site.egret.proxies()[1], &site.of_worker(), &[&basic("worker")]);
    assert_eq!(connected.response.status, 200, "{}", connected.response.text());
    drop(connected);
    assert_eq!(site.egret.only_record()["role"], "worker");
}

#[test]
fn an_unknown_user_is_the_default() {
    let site = Site::new([127, 41, 0, 7]);
    let response = http_connect_with(site.egret.proxy(), &site.of_worker(), &[&basic("nobody")]).response;
    assert_eq!((response.status, response.header("x-egret-reason")), (403, Some("role_not_listed")));
    site.refused("default");
    site.kept_secret(&[response.head.clone(), response.text()]);
}

#[test]
fn an_unknown_user_of_a_request_is_the_default() {
    let site = Site::new([127, 41, 0, 8]);
    let response = forward(site.egret.proxy(), &site.of_worker(), &basic("nobody"));
    assert_eq!((response.status, response.header("x-egret-reason")), (403, Some("role_not_listed")));
    assert_eq!(site.egret.event("request", |_| true)["role"], "default");
    site.kept_secret(&[response.head.clone(), response.text()]);
}

#[test]
fn an_unknown_user_of_socks5_is_the_default() {
    let site = Site::new([127, 41, 0, 9]);
    let user = Some(("nobody", PASSWORD));
    assert_eq!(socks5(site.egret.proxy(), Host::Name("worker.test"), site.worker.port(), user).0, 2);
    site.refused("default");
    site.kept_secret(&[]);
}

#[test]
fn no_user_is_the_default_and_is_never_asked_for_one() {
    let site = Site::new([127, 41, 0, 10]);
    let response = http_connect(site.egret.proxy(), &site.of_worker()).response;
    assert_eq!(response.status, 403, "never 407: {}", response.head);
    site.refused("default");
}

#[test]
fn credentials_that_are_none_are_the_default() {
    let site = Site::new([127, 41, 0, 11]);
    let odd = ["Proxy-Authorization: Bearer worker", "Proxy-Authorization: Basic !!!", "Proxy-Authorization: Basic"];
    for field in odd {
        let response = http_connect_with(site.egret.proxy(), &site.of_worker(), &[field]).response;
        assert_eq!((response.status, response.header("x-egret-reason")), (403, Some("role_not_listed")), "{field}");
    }
    assert!(site.egret.wait_records(odd.len()).iter().all(|record| record["role"] == "default"));
}

#[test]
fn a_socks4_user_is_no_role() {
    let site = Site::new([127, 41, 0, 12]);
    // What SOCKS4 calls a user id is what programs put there by themselves, often the login name.
    assert_eq!(socks4a(site.egret.proxy(), "worker.test", site.worker.port(), "worker").0, 91);
    site.refused("default");
}
