//! HTTP in the clear, request by request: each is judged by its own URL, and reaches the upstream as egret understood
//! it, whatever else it said. Ids are those of the catalogue of proxy attacks (P).

use std::io::Write;
use std::net::TcpStream;

use crate::support::client::{connect, forward_get, raw};
use crate::support::http1::Response;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Upstream, free_port, http_connect, payload};

/// One allowed web server, and one name that nothing allows.
struct Site {
    upstream: Upstream,
    dns: DnsServer,
    egret: Egret,
}

impl Site {
    fn new() -> Self {
        Self::with("as: http, id: web")
    }

    fn with(rule: &str) -> Self {
        let (upstream, dns) = (Upstream::http("hello\n"), DnsServer::new());
        dns.answers("allowed.test", &LOCALHOST).answers("evil.test", &LOCALHOST);
        let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", upstream.port(), rule)])).start();
        Self { upstream, dns, egret }
    }

    fn authority(&self) -> String {
        format!("allowed.test:{}", self.upstream.port())
    }

    /// A request in absolute form; `head` begins with what follows the URL.
    fn ask(&self, method: &str, path: &str, head: &str) -> Response {
        ask(&mut self.client(), &self.request(method, path, head))
    }

    fn request(&self, method: &str, path: &str, head: &str) -> String {
        let authority = self.authority();
        format!("{method} http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n{head}\r\n")
    }

    fn client(&self) -> TcpStream {
        connect(self.egret.proxy())
    }

    /// The head of the one request that reached the upstream.
    fn only_head(&self) -> String {
        let mut heads = self.upstream.wait_heads(1);
        assert_eq!(heads.len(), 1, "one request reaches the upstream: {heads:#?}");
        heads.remove(0)
    }

    /// The only connection so far was refused for this reason: nobody was asked or reached, and it was told and counted once.
    fn refused(&self, reason: &str) {
        self.untouched();
        let record = self.egret.only_record();
        assert_eq!((&record["decision"], &record["reason"]), (&"deny".into(), &reason.into()), "{record:#}");
        self.egret.metric_becomes("egret_egress_decisions_total", &[("decision", "deny"), ("reason", reason)], 1.0);
    }

    fn untouched(&self) {
        assert_eq!(self.upstream.connections(), 0, "the upstream was reached: {:#?}", self.upstream.heads());
        assert_eq!(self.dns.total(), 0, "a refused request was asked for: {:#?}", self.dns.queries());
    }
}

fn ask(stream: &mut TcpStream, request: &str) -> Response {
    stream.write_all(request.as_bytes()).expect("the proxy takes a request");
    Response::read(stream).expect("the proxy answers")
}

/// The values of all fields of that name.
fn fields(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}

const EVIL: &str = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n";

#[test]
fn get_is_answered_by_the_upstream() {
    let site = Site::new();
    let response = forward_get(site.egret.proxy(), &format!("http://{}/a?b=c", site.authority()));
    assert_eq!((response.status, response.text().as_str()), (200, "hello\n"));
    assert!(site.only_head().starts_with("GET /a?b=c HTTP/1.1\r\n"), "the upstream gets the origin form");
    let record = site.egret.only_record();
    assert_eq!((&record["via"], &record["decision"]), (&"forward".into(), &"allow".into()));
    assert_eq!((&record["host"], &record["rule"], &record["class"]), (&"allowed.test".into(), &"web".into(), &"loopback".into()));
}

#[test]
fn a_body_with_a_length_arrives_whole() {
    let site = Site::new();
    let body = payload::bytes(300_000);
    let mut client = site.client();
    let head = site.request("POST", "/upload", &format!("Content-Length: {}\r\n", body.len()));
    client.write_all(head.as_bytes()).expect("the proxy takes a head");
    client.write_all(&body).expect("the proxy takes a body");
    assert_eq!(Response::read(&client).expect("the upstream answers").text(), payload::receipt(&body));
}

#[test]
fn a_chunked_body_arrives_whole() {
    let site = Site::new();
    let body = payload::bytes(100_000);
    let mut client = site.client();
    client
        .write_all(site.request("PUT", "/upload", "Transfer-Encoding: chunked\r\n").as_bytes())
        .expect("the proxy takes a head");
    for part in body.chunks(7_001) {
        let chunk = [format!("{:x};name=value\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
        client.write_all(&chunk).expect("the proxy takes a chunk");
    }
    client.write_all(b"0\r\n\r\n").expect("the proxy takes the last chunk");
    assert_eq!(Response::read(&client).expect("the upstream answers").text(), payload::receipt(&body));
}

#[test]
fn p01_host_comes_from_the_url() {
    let site = Site::new();
    let authority = site.authority();
    let response = ask(&mut site.client(), &format!("GET http://{authority}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"));
    assert_eq!(response.status, 200);
    let head = site.only_head();
    assert_eq!(fields(&head, "host"), [authority]);
    assert!(!head.contains("evil.test"), "{head}");
}

#[test]
fn p02_more_hosts_than_one_are_refused() {
    for field in ["Host: evil.test\r\n", "Host : evil.test\r\n", "X-Folded: 1\r\n Host: evil.test\r\n"] {
        let site = Site::new();
        let answer = raw(site.egret.proxy(), site.request("GET", "/", field).as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{field}: {}", String::from_utf8_lossy(&answer));
        site.refused("malformed");
    }
}

#[test]
fn p03_the_second_request_of_a_connection_is_judged_on_its_own() {
    let site = Site::new();
    let mut client = site.client();
    assert_eq!(ask(&mut client, &site.request("GET", "/", "")).status, 200);
    let response = ask(&mut client, EVIL);
    assert_eq!((response.status, response.header("x-egret-reason")), (403, Some("no_rule")));
    assert!(response.reason.contains("evil.test"), "{}", response.reason);
    assert_eq!(response.header("connection"), Some("close"), "{}", response.head);
    drop(client);
    let record = site.egret.only_record();
    assert_eq!((&record["decision"], &record["reason"], &record["requests"]), (&"deny".into(), &"no_rule".into(), &2.into()));
    assert_eq!((site.upstream.connections(), site.upstream.heads().len()), (1, 1));
    assert!(site.dns.queries_for("evil.test").is_empty(), "a refused name is never asked for");
}

#[test]
fn p03_the_same_the_other_way_round() {
    let site = Site::new();
    let response = ask(&mut site.client(), &EVIL.replace("close", "keep-alive"));
    assert_eq!(response.status, 403);
    site.untouched();
    // The refusal has not spoilt the next connection.
    assert_eq!(site.ask("GET", "/", "").status, 200);
}

#[test]
fn p04_pipelined_requests_are_judged_each() {
    let site = Site::new();
    let both = site.request("GET", "/", "") + EVIL;
    let answers = String::from_utf8(raw(site.egret.proxy(), both.as_bytes())).expect("answers are text");
    let answers: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(answers.len(), 2, "{answers:#?}");
    assert!(answers[0].starts_with("200 ") && answers[0].ends_with("hello\n"), "{answers:#?}");
    assert!(answers[1].starts_with("403 ") && answers[1].contains("x-egret-reason: no_rule"), "{answers:#?}");
    site.egret.only_record();
    assert_eq!(site.upstream.heads().len(), 1);
}

#[test]
fn p11_trailers_stay_behind() {
    let site = Site::new();
    let mut client = site.client();
    let head = site.request("POST", "/", "Transfer-Encoding: chunked\r\nTrailer: Host, Authorization\r\nTE: trailers\r\n");
    let body = "3\r\nabc\r\n0\r\nHost: evil.test\r\nAuthorization: Basic c2VjcmV0\r\n\r\n";
    assert_eq!(ask(&mut client, &(head + body)).text(), payload::receipt(b"abc"));
    let seen = String::from_utf8_lossy(&site.upstream.first_bytes()).to_ascii_lowercase();
    assert!(seen.contains("abc"), "{seen}");
    for hidden in ["evil.test", "authorization", "trailer"] {
        assert!(!seen.contains(hidden), "{hidden} in {seen}");
    }
}

#[test]
fn p13_fields_of_the_hop_stay_behind() {
    let site = Site::new();
    let head = "Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
                Proxy-Authorization: Basic d29ya2VyOmh1bnRlcjI=\r\nTE: trailers\r\nX-Kept: yes\r\n";
    assert_eq!(site.ask("GET", "/", head).status, 200);
    let head = site.only_head();
    for name in ["x-private", "keep-alive", "proxy-connection", "proxy-authorization", "te"] {
        assert_eq!(fields(&head, name), [""; 0], "{name} in {head}");
    }
    assert_eq!(fields(&head, "x-kept"), ["yes"]);
    assert!(!fields(&head, "connection").iter().any(|value| value.to_ascii_lowercase().contains("x-private")), "{head}");
}

#[test]
fn p17_requests_for_egret_itself_are_malformed() {
    for request in ["GET /metrics HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: allowed.test\r\n\r\n"] {
        let site = Site::new();
        let response = ask(&mut site.client(), request);
        assert_eq!((response.status, response.header("x-egret-reason")), (400, Some("malformed")), "{request}");
        site.refused("malformed");
    }
}

#[test]
fn p18_other_schemes_are_refused_with_a_hint() {
    for (scheme, hint) in [("https", "CONNECT"), ("ftp", "http://"), ("ws", "http://")] {
        let site = Site::new();
        let request = format!("GET {scheme}://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", site.authority());
        let response = ask(&mut site.client(), &request);
        assert_eq!(response.status, 400, "{scheme}");
        assert!(response.text().contains(hint), "{scheme}: {}", response.text());
        site.refused("unsupported");
    }
}

#[test]
fn p19_h2c_is_not_upgraded_to() {
    let site = Site::new();
    let head = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    assert_eq!(site.ask("GET", "/", head).status, 200);
    let head = site.only_head().to_ascii_lowercase();
    assert!(!head.contains("upgrade") && !head.contains("http2-settings") && !head.contains("h2c"), "{head}");
}

#[test]
fn p23_trace_is_refused() {
    let site = Site::new();
    let response = site.ask("TRACE", "/", "Cookie: secret\r\n");
    assert!((400..500).contains(&response.status), "{}", response.head);
    assert_eq!(response.header("x-egret-reason"), Some("unsupported"));
    assert!(!response.text().contains("secret"), "{}", response.text());
    site.refused("unsupported");
}

#[test]
fn p24_http_1_0_in_absolute_form_works() {
    let site = Site::new();
    let request = format!("GET http://{}/ HTTP/1.0\r\n\r\n", site.authority());
    let answer = String::from_utf8(raw(site.egret.proxy(), request.as_bytes())).expect("the answer is text");
    assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 ") && answer.ends_with("\r\n\r\nhello\n"), "{answer}");
    assert_eq!(fields(&site.only_head(), "host"), [site.authority()]);
}

#[test]
fn p24_http_0_9_does_not() {
    let site = Site::new();
    let answer = raw(site.egret.proxy(), format!("GET http://{}/\r\n\r\n", site.authority()).as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    site.refused("malformed");
}

#[test]
fn p25_requests_inside_a_tunnel_must_name_its_host() {
    for rule in ["as: http", "as: any"] {
        let site = Site::with(rule);
        let mut tunnel = http_connect(site.egret.proxy(), &site.authority()).stream;
        let allowed = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", site.authority());
        assert_eq!(ask(&mut tunnel, &allowed).text(), "hello\n", "{rule}");
        let response = ask(&mut tunnel, "GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
        assert_eq!((response.status, response.header("x-egret-reason")), (403, Some("host_mismatch")), "{rule}");
        drop(tunnel);
        let record = site.egret.only_record();
        assert_eq!((&record["via"], &record["reason"]), (&"connect".into(), &"host_mismatch".into()), "{rule}");
        assert_eq!(site.only_head().lines().next(), Some("GET / HTTP/1.1"), "{rule}");
    }
}

#[test]
fn p25_the_first_request_inside_a_tunnel_too() {
    let site = Site::new();
    for line in ["GET / HTTP/1.1", "GET http://evil.test/ HTTP/1.1"] {
        let mut tunnel = http_connect(site.egret.proxy(), &site.authority()).stream;
        let response = ask(&mut tunnel, &format!("{line}\r\nHost: evil.test\r\nConnection: close\r\n\r\n"));
        assert_eq!((response.status, response.header("x-egret-reason")), (403, Some("host_mismatch")), "{line}");
    }
    assert_eq!(site.upstream.final_bytes(), 0, "no byte of a refused request reaches the upstream");
}

#[test]
fn an_upstream_that_refuses_is_a_bad_gateway() {
    let dns = DnsServer::new();
    dns.answers("allowed.test", &LOCALHOST);
    let nobody = free_port();
    let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", nobody, "as: http")])).start();
    let response = forward_get(egret.proxy(), &format!("http://allowed.test:{nobody}/"));
    assert_eq!((response.status, response.header("x-egret-reason")), (502, Some("connect_refused")));
    let request = egret.event("request", |_| true);
    assert_eq!((&request["status"], &request["decision"]), (&502.into(), &"allow".into()));
}

#[test]
fn p21_an_upstream_that_speaks_no_http_is_a_bad_gateway() {
    let (dns, upstream) = (DnsServer::new(), Upstream::banner("220 mail.test ready\r\n"));
    dns.answers("allowed.test", &LOCALHOST);
    let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", upstream.port(), "as: http")])).start();
    let response = forward_get(egret.proxy(), &format!("http://allowed.test:{}/", upstream.port()));
    assert_eq!(response.status, 502);
    assert!(!response.text().contains("mail.test"), "nothing of a broken answer is passed on: {}", response.text());
    assert_eq!(egret.event("request", |_| true)["status"], 502);
}

#[test]
fn each_request_leaves_one_event_and_each_connection_one_record() {
    let site = Site::new();
    let mut client = site.client();
    for path in ["/one", "/two"] {
        assert_eq!(ask(&mut client, &site.request("GET", path, "")).status, 200);
    }
    assert_eq!(ask(&mut client, EVIL).status, 403);
    drop(client);
    let record = site.egret.only_record();
    assert_eq!((&record["requests"], &record["close"]), (&3.into(), &"client".into()));
    let requests = site.egret.events("request");
    let told: Vec<_> = requests.iter().map(|r| (&r["host"], &r["method"], &r["status"], &r["decision"], &r["id"])).collect();
    let (allowed, get, id) = (&"allowed.test".into(), &"GET".into(), &record["id"]);
    assert_eq!(told[..2], [(allowed, get, &200.into(), &"allow".into(), id); 2]);
    assert_eq!(told[2..], [(&"evil.test".into(), get, &403.into(), &"deny".into(), id)]);
}

#[test]
fn o04_paths_queries_and_credentials_appear_nowhere() {
    let site = Site::new();
    let secrets = "Authorization: Bearer hunter2\r\nProxy-Authorization: Basic d29ya2VyOmh1bnRlcjI=\r\nCookie: hunter2\r\n";
    assert_eq!(site.ask("GET", "/hunter2?key=hunter2", secrets).status, 200);
    let denied = ask(&mut site.client(), &EVIL.replace("evil.test/", "evil.test/hunter2?key=hunter2"));
    assert_eq!(denied.status, 403);
    let userinfo = format!("GET http://u:hunter2@{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", site.authority());
    let odd = ask(&mut site.client(), &userinfo);
    let records = site.egret.wait_records(3);
    assert!(site.upstream.heads().iter().all(|head| !head.contains("u:hunter2")), "{:#?}", site.upstream.heads());
    let admin = ["/metrics", "/status", "/report"].map(|path| site.egret.get_admin(path).1).join("\n");
    let answers = [&denied, &odd].map(|answer| answer.head.clone() + &answer.text()).join("\n");
    let all = [site.egret.stdout_lines().join("\n"), site.egret.stderr(), admin, answers];
    for secret in ["hunter2", "d29ya2VyOmh1bnRlcjI="] {
        assert!(!all.iter().any(|text| text.contains(secret)), "{secret} in {all:#?}\n{records:#?}");
    }
}

/// A web server that says that it closes after each answer, and does. It ends with the test.
fn closing_server() -> u16 {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                // A tunnel that is over has no further request.
                if let Ok(Some(_)) = crate::support::http1::read_head(&mut stream) {
                    stream.write_all(ANSWER).expect("an answer is taken");
                }
            });
        }
    });
    port
}

#[test]
fn an_upstream_that_closes_after_each_answer_is_dialled_anew() {
    let (port, dns) = (closing_server(), DnsServer::new());
    dns.answers("allowed.test", &LOCALHOST);
    let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", port, "as: http")])).start();
    let mut forward = connect(egret.proxy());
    let mut tunnel = http_connect(egret.proxy(), &format!("allowed.test:{port}")).stream;
    for n in 0..5 {
        let absolute = format!("GET http://allowed.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(ask(&mut forward, &absolute).status, 200, "forward {n}");
        let origin = format!("GET / HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n");
        assert_eq!(ask(&mut tunnel, &origin).status, 200, "tunnel {n}");
    }
}

#[test]
fn a_request_whose_client_went_before_the_answer_is_recorded() {
    let (silent, dns) = (Upstream::silent(), DnsServer::new());
    dns.answers("allowed.test", &LOCALHOST);
    let rules = [local("allowed.test", silent.port(), "as: http, id: web")];
    let egret = Egret::with_policy(&policy(&dns, &rules)).start();
    let mut client = connect(egret.proxy());
    let request = format!("GET http://allowed.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", silent.port());
    client.write_all(request.as_bytes()).expect("a request is taken");
    crate::support::eventually("the request reaches the upstream", || (silent.bytes() > 0).then_some(()));
    drop(client);
    let event = egret.event("request", |_| true);
    assert_eq!((&event["host"], &event["rule"], &event["status"]), (&"allowed.test".into(), &"web".into(), &0.into()), "{event}");
    assert_eq!(event["fault"], "client_gone");
    assert_eq!(egret.only_record()["host"], "allowed.test");
}

#[test]
fn a_role_is_that_of_the_port_under_every_policy() {
    let (upstream, dns, port) = (Upstream::http("hello\n"), DnsServer::new(), free_port());
    dns.answers("allowed.test", &LOCALHOST);
    let rule = local("allowed.test", upstream.port(), "as: http, for: [web]");
    let with =
        |others: &str| format!("roles: {{ {others}web: {{ port: {port} }} }}\n{}", policy(&dns, std::slice::from_ref(&rule)));
    let egret = Egret::with_policy(&with("")).start();
    let mut client = connect(egret.proxies()[1]);
    let request = format!("GET http://allowed.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", upstream.port());
    assert_eq!(ask(&mut client, &request).status, 200);
    egret.rewrite_policy(&with("admin: { proxy-user: a }, "));
    egret.event("policy", |event| event["result"] == "loaded");
    assert_eq!(ask(&mut client, &request).status, 200, "roles are not confused by a reload");
}

#[test]
fn p25_p55_http_in_disguise_inside_a_tunnel_is_judged_all_the_same() {
    let site = Site::with("as: any");
    for disguise in [
        "\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "get / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: evil.test\r\n\r\n",
        "GET_2 evil HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET\x0b/\x0bHTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET\r/\rHTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "AVERYLONGMETHODTHATNOBODYKNOWS / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    ] {
        let mut tunnel = http_connect(site.egret.proxy(), &site.authority()).stream;
        tunnel.write_all(disguise.as_bytes()).expect("the tunnel takes bytes");
        let answer = Response::read(&mut tunnel).unwrap_or_else(|error| panic!("{disguise:?}: {error}"));
        assert!((400..500).contains(&answer.status), "{disguise:?}: {}", answer.head);
    }
    let mut tunnel = http_connect(site.egret.proxy(), &site.authority()).stream;
    tunnel.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the tunnel takes bytes");
    let answer = crate::support::client::read_to_close(&mut tunnel);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "HTTP/2 in the clear: {}", answer.escape_ascii());
    assert_eq!(site.egret.record(|record| record["reason"] == "malformed")["decision"], "deny");
    assert_eq!(site.upstream.final_bytes(), 0);
}

#[test]
fn audit_notes_every_request_of_a_kept_connection() {
    let site = Site::new();
    let allow = local("allowed.test", site.upstream.port(), "as: http, id: web");
    let noted = policy(&site.dns, &[allow]).replace("dns:", "  deny: [{ id: noted, to: 127.0.0.0/8, mode: audit }]\ndns:");
    let egret = Egret::with_policy(&noted).start();
    let mut client = connect(egret.proxy());
    for _ in 0..2 {
        assert_eq!(ask(&mut client, &site.request("GET", "/", "")).status, 200);
    }
    drop(client);
    egret.only_record();
    let decisions: Vec<_> = egret.events("request").iter().map(|event| event["decision"].clone()).collect();
    assert_eq!(decisions, ["would_deny", "would_deny"]);
}
