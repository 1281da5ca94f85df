//! The usual scene of a test: a resolver, one upstream and an egret between it and the test, and what has been seen of
//! them so far. Each verdict is judged by what is new since the last one, so that a test can put many questions to one
//! egret, one after the other.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::client::{connect, http_connect, raw, read_exactly, read_to_close};
use super::http1::Response;
use super::{Ca, DnsServer, Egret, Upstream};

/// Two names on the upstream's port, TLS only. `PORT` stands for that port.
pub(crate) const NAMES: &str = r#"
egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", as: tls, within: [127.0.0.0/8] }
    - { id: other, to: "other.test:PORT", as: tls, within: [127.0.0.0/8] }
"#;

/// Between two parts, so that egret reads them one by one. No verdict depends on it.
const PACE: Duration = Duration::from_millis(1);

/// A running scene. `allowed.test`, `other.test` and `evil.test` resolve to the upstream.
pub(crate) struct World {
    pub(crate) dns: DnsServer,
    pub(crate) ca: Ca,
    pub(crate) upstream: Upstream,
    pub(crate) egret: Egret,
    pub(crate) proxy: SocketAddr,
    seen: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    records: usize,
    queries: usize,
    connections: usize,
    bytes: u64,
    denials: HashMap<String, u32>,
}

impl World {
    /// [`NAMES`] in front of an HTTPS server with certificates for both.
    pub(crate) fn new() -> Self {
        let ca = Ca::new();
        let upstream = Upstream::tls(&ca.issue(&["allowed.test", "other.test"]), "hello");
        Self::start(NAMES, upstream, ca)
    }

    /// This policy, in front of a server that sends back whatever it receives.
    pub(crate) fn echo(policy: &str) -> Self {
        Self::of(policy, Upstream::echo())
    }

    /// This policy (all but `version:` and `dns:`, with `PORT` for the upstream's port), in front of this server.
    pub(crate) fn of(policy: &str, upstream: Upstream) -> Self {
        Self::start(policy, upstream, Ca::new())
    }

    fn start(policy: &str, upstream: Upstream, ca: Ca) -> Self {
        let dns = DnsServer::new();
        for name in ["allowed.test", "other.test", "evil.test"] {
            dns.answers(name, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        }
        let policy = policy.replace("PORT", &upstream.port().to_string());
        let policy = format!("version: 1\n{policy}\ndns: {{ upstream: \"{}\" }}\n", dns.addr());
        let egret = Egret::with_policy(&policy).start();
        let proxy = egret.proxy();
        Self { dns, ca, upstream, egret, proxy, seen: Mutex::default() }
    }

    /// `name:port` with the upstream's port.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{name}:{}", self.upstream.port())
    }

    /// What comes back for a CONNECT head with this target, whatever its bytes, until egret closes.
    pub(crate) fn connect_raw(&self, target: &[u8]) -> Response {
        let answer = raw(self.proxy, &connect_head(target));
        let case = target.escape_ascii();
        Response::read(&answer[..]).unwrap_or_else(|e| panic!("{case}: no HTTP answer ({e}): {}", answer.escape_ascii()))
    }

    /// A CONNECT that is refused with this status, at this stage, for this reason.
    pub(crate) fn connect_denied(&self, target: impl AsRef<[u8]>, status: u16, stage: &str, reason: &str) -> Value {
        let case = format!("CONNECT {}", target.as_ref().escape_ascii());
        let response = self.connect_raw(target.as_ref());
        let record = self.denied(&case, stage, reason);
        assert_refusal(&case, &response, status, &record);
        record
    }

    /// What comes back for a SOCKS5 CONNECT to a domain of these bytes, after the choice of no authentication, until
    /// egret closes.
    pub(crate) fn socks5_raw(&self, name: &[u8], port: u16) -> Vec<u8> {
        let length = u8::try_from(name.len()).expect("at most 255 bytes");
        let request = [&[5, 1, 0, 3, length][..], name, &port.to_be_bytes()].concat();
        let mut stream = connect(self.proxy);
        stream.write_all(&[5, 1, 0]).expect("the proxy takes a greeting");
        assert_eq!(read_exactly(&mut stream, 2), [5, 0], "the method choice");
        stream.write_all(&request).expect("the proxy takes a request");
        read_to_close(&mut stream)
    }

    /// A SOCKS5 CONNECT that is refused with this reply code, at this stage, for this reason.
    pub(crate) fn socks5_denied(&self, name: impl AsRef<[u8]>, port: u16, code: u8, stage: &str, reason: &str) -> Value {
        let case = format!("SOCKS5 {} port {port}", name.as_ref().escape_ascii());
        let answer = self.socks5_raw(name.as_ref(), port);
        assert_eq!(answer, [5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{case}");
        self.denied(&case, stage, reason)
    }

    /// A CONNECT that is granted, and a first flight that is not: nothing of it reaches the upstream, and nothing of
    /// the upstream comes back. A TLS client may be told by an alert.
    pub(crate) fn flight_denied(&self, case: &str, target: &str, flight: &[u8], stage: &str, reason: &str) -> Value {
        let mut tunnel = http_connect(self.proxy, target);
        assert_eq!(tunnel.response.status, 200, "{case}: {}", tunnel.response.head);
        tunnel.stream.write_all(flight).expect("the tunnel takes bytes");
        assert_closed(case, tunnel.stream);
        self.denied(case, stage, reason)
    }

    /// A CONNECT and a first flight that reach an echo upstream unchanged.
    pub(crate) fn flight_allowed(&self, case: &str, target: &str, flight: &[u8]) -> Value {
        let mut tunnel = http_connect(self.proxy, target);
        assert_eq!(tunnel.response.status, 200, "{case}: {}", tunnel.response.head);
        tunnel.stream.write_all(flight).expect("the tunnel takes bytes");
        assert_echo(case, &mut tunnel.stream, flight);
        drop(tunnel);
        self.allowed(case)
    }

    /// Sends these parts to the proxy one by one.
    pub(crate) fn send_parts<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> TcpStream {
        let mut stream = connect(self.proxy);
        for part in parts {
            // Once refused, egret may be gone before the rest is sent; what it answered is what counts.
            drop(stream.write_all(part));
            thread::sleep(PACE);
        }
        stream
    }

    /// The record of the one connection since the last record.
    pub(crate) fn record(&self) -> Value {
        let mut seen = self.seen();
        seen.records += 1;
        self.egret.wait_records(seen.records).pop().expect("at least one record was waited for")
    }

    /// The one connection since the last record was denied, in the record and in the metrics, and left no trace
    /// outside: no look-up before `resolve`, no dial before `connect`, and no byte at all.
    pub(crate) fn denied(&self, case: &str, stage: &str, reason: &str) -> Value {
        let record = self.record();
        let verdict = ["decision", "reason", "stage"].map(|field| record[field].as_str().unwrap_or("-"));
        assert_eq!(verdict, ["deny", reason, stage], "{case}: {record:#}");
        assert!(record["via"] == "forward" || record["close"] == "denied", "{case}: {record:#}");
        assert!(record["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{case}: {record:#}");
        assert_eq!(record["bytes_up"], 0, "{case}: {record:#}");
        self.assert_untouched(case, stage);
        let count = {
            let mut seen = self.seen();
            let count = seen.denials.entry(reason.to_owned()).or_default();
            *count += 1;
            f64::from(*count)
        };
        self.egret.metric_becomes("egret_egress_decisions_total", &[("decision", "deny"), ("reason", reason)], count);
        record
    }

    /// The one connection since the last record was allowed, and is over.
    pub(crate) fn allowed(&self, case: &str) -> Value {
        let record = self.record();
        assert_eq!((&record["decision"], &record["reason"]), (&"allow".into(), &Value::Null), "{case}: {record:#}");
        self.take_stock();
        record
    }

    /// Takes what has happened so far as known.
    pub(crate) fn take_stock(&self) {
        let mut seen = self.seen();
        seen.queries = self.dns.total();
        seen.connections = self.upstream.connections();
        seen.bytes = self.upstream.final_bytes();
    }

    fn assert_untouched(&self, case: &str, stage: &str) {
        let early = ["accept", "sniff", "parse", "admit"].contains(&stage);
        let mut seen = self.seen();
        let queries = self.dns.queries();
        assert!(!early || queries.len() == seen.queries, "{case}: looked up {:?}", &queries[seen.queries..]);
        seen.queries = queries.len();
        let connections = self.upstream.connections();
        let late = ["confirm", "relay"].contains(&stage);
        assert!(late || connections == seen.connections, "{case}: the upstream was dialled");
        seen.connections = connections;
        assert_eq!(self.upstream.final_bytes(), seen.bytes, "{case}: bytes at the upstream");
    }

    fn seen(&self) -> MutexGuard<'_, Counts> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A CONNECT head with a target of any bytes.
pub(crate) fn connect_head(target: &[u8]) -> Vec<u8> {
    [b"CONNECT ", target, b" HTTP/1.1\r\nHost: allowed.test\r\n\r\n"].concat()
}

/// After a yes, a refusal is a close: nothing of the upstream comes back, though a TLS client may be told by an alert.
pub(crate) fn assert_closed(case: &str, mut stream: TcpStream) {
    let answer = read_to_close(&mut stream);
    assert!(matches!(answer[..], [] | [0x15, ..]), "{case}: {}", answer.escape_ascii());
}

/// The next bytes from an echo upstream are these.
pub(crate) fn assert_echo(case: &str, stream: &mut impl std::io::Read, sent: &[u8]) {
    let mut echo = vec![0; sent.len()];
    stream.read_exact(&mut echo).unwrap_or_else(|e| panic!("{case}: no echo: {e}"));
    assert!(echo == sent, "{case}: the upstream got {}", echo.escape_ascii());
}

/// The answer says what the record says, and that the connection ends.
pub(crate) fn assert_refusal(case: &str, response: &Response, status: u16, record: &Value) {
    let head = &response.head;
    assert_eq!(response.status, status, "{case}: {head}");
    assert_eq!(response.header("x-egret-reason"), record["reason"].as_str(), "{case}: {head}");
    assert_eq!(response.header("connection"), Some("close"), "{case}: {head}");
    assert!(!response.body.is_empty(), "{case}: {head}");
    if status == 403 {
        assert_eq!(response.header("x-egret-id"), record["id"].as_str(), "{case}: {head}");
    }
    if let Some(rule) = response.header("x-egret-rule") {
        assert_eq!(Some(rule), record["rule"].as_str(), "{case}: {head}");
    }
}
