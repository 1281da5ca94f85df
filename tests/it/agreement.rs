//! One answer to why: for every reason there is, what the client is told, what the journal records and what `egret
//! explain` answers to the same question are the same words. A reason without a scenario here does not compile.

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::path::Path;
use std::thread;

use egret_policy::Reason;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::{forward_get, http_connect_with, raw, read_to_close};
use crate::support::http1::Response;
use crate::support::programs::Output;
use crate::support::world::{assert_closed, assert_echo};
use crate::support::{Hello, Host, World, free_port, http_connect, run_egret, socks4, socks4a, socks5};

const TLS: &str = r#"egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", as: tls, within: [127.0.0.0/8] }
"#;
const HTTP: &str = r#"egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", as: http, within: [127.0.0.0/8] }
"#;
const FOR_WORKER: &str = r#"roles: { web: { proxy-user: web }, worker: { proxy-user: worker } }
egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", for: [worker], within: [127.0.0.0/8] }
"#;
const EXPIRED: &str = r#"egress:
  allow:
    - { id: old, to: "allowed.test:PORT", expires: 2020-01-31, within: [127.0.0.0/8] }
"#;
const DENIED: &str = r#"egress:
  deny:
    - { id: never, to: allowed.test, note: the reason }
  allow:
    - { id: allowed, to: "allowed.test:PORT", within: [127.0.0.0/8] }
"#;
const AUDITED: &str = r#"egress:
  allow:
    - { id: trial, to: "allowed.test:PORT", mode: audit, as: tcp, within: [127.0.0.0/8] }
"#;
/// Nothing here could be shown by a server name, so that a literal address is judged at once.
const OPAQUE: &str = r#"egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", as: tcp, within: [127.0.0.0/8] }
"#;
const ANYWHERE: &str = r#"egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", as: tcp }
"#;
const ELSEWHERE: &str = r#"egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", as: tcp, within: [10.0.0.0/8] }
"#;
const WITH_A_ROLE_PORT: &str = r#"roles: { web: { port: OWN } }
egress:
  allow:
    - { id: all, to: 127.0.0.0/8, ports: [1-65535], for: [default, web] }
"#;
const BUCKETS: &str = r#"egress:
  allow:
    - { id: reports, s3: { buckets: [acme-reports], regions: [eu-west-1] } }
"#;
const ONE_CONNECTION: &str = r#"run: { connections: 1 }
egress:
  allow:
    - { id: allowed, to: "allowed.test:PORT", as: tls, within: [127.0.0.0/8] }
"#;
/// The address rule opens the space for names that only audit lets through.
const OBSERVED: &str = r#"mode: audit
egress:
  allow:
    - { id: here, to: 127.0.0.0/8, ports: [PORT] }
"#;

/// Asks for a target; what it gets, if it gets an HTTP answer.
type Client = fn(&World, &str) -> Option<Response>;

/// How to be refused for one reason, and how to ask `explain` about it. `PORT` stands for the upstream's port and `OWN`
/// for one of egret's own.
struct Scenario {
    policy: &'static str,
    target: &'static str,
    client: Client,
    question: Question,
}

/// What `explain` is asked.
enum Question {
    /// Nothing but what the reason means: the policy was never asked.
    Meaning,
    /// The target, with these arguments.
    Verdict { more: &'static [&'static str], line: Line },
}

/// What is known of the line that would allow it.
enum Line {
    /// There is one.
    Helps,
    /// There can be none.
    CannotHelp,
    /// If there is one, it helps.
    MayHelp,
}

fn unasked(policy: &'static str, target: &'static str, client: Client) -> Scenario {
    Scenario { policy, target, client, question: Question::Meaning }
}

/// Refused, and one line would change it.
fn mended(policy: &'static str, target: &'static str, client: Client, more: &'static [&'static str]) -> Scenario {
    Scenario { policy, target, client, question: Question::Verdict { more, line: Line::Helps } }
}

/// Refused, and no line added to the policy would change it.
fn held(policy: &'static str, target: &'static str, client: Client, more: &'static [&'static str]) -> Scenario {
    Scenario { policy, target, client, question: Question::Verdict { more, line: Line::CannotHelp } }
}

fn asked(policy: &'static str, target: &'static str, client: Client, more: &'static [&'static str]) -> Scenario {
    Scenario { policy, target, client, question: Question::Verdict { more, line: Line::MayHelp } }
}

const NAME: &str = "allowed.test:PORT";

/// No arm stands for reasons that are not named.
fn scenario(reason: Reason) -> Scenario {
    match reason {
        Reason::Malformed => unasked(TLS, "allowed..test:PORT", by_connect),
        Reason::UnknownProtocol => unasked(TLS, NAME, by_strange_byte),
        Reason::Unsupported => unasked(TLS, NAME, |world, target| Some(forward_get(world.proxy, &format!("https://{target}/")))),
        Reason::NoRule => mended(TLS, "evil.test:PORT", by_connect, &[]),
        Reason::PortNotListed => mended(TLS, "allowed.test:1", by_socks5, &[]),
        Reason::RoleNotListed => mended(FOR_WORKER, NAME, by_connect_as_web, &["--role", "web"]),
        Reason::RuleExpired => mended(EXPIRED, NAME, by_forward, &[]),
        Reason::DenyRule => held(DENIED, NAME, by_socks4a, &[]),
        Reason::AuditRule => mended(AUDITED, NAME, let_through, &[]),
        Reason::AddressNotListed => mended(OPAQUE, "127.0.0.1:PORT", by_connect, &[]),
        Reason::AddressNotOfName => {
            let client: Client = |world, target| shows(world, target, &hello("allowed.test"));
            asked(TLS, "127.0.0.2:PORT", client, &["--resolve", "--shows", "sni=allowed.test"])
        }
        Reason::AddressClass => mended(ANYWHERE, NAME, by_connect, &["--resolve"]),
        Reason::AddressOutsideWithin => asked(ELSEWHERE, NAME, by_connect, &["--resolve"]),
        Reason::OwnListener => held(WITH_A_ROLE_PORT, "127.0.0.1:OWN", by_socks4, &[]),
        Reason::S3PathStyle => asked(BUCKETS, "s3.eu-west-1.amazonaws.com:443", by_connect, &[]),
        Reason::HelloMalformed => {
            held(TLS, NAME, |world, target| shows(world, target, &[0x16, 3, 1, 0, 0]), &["--shows", "bad-hello"])
        }
        Reason::SniMissing => {
            held(TLS, NAME, |world, target| shows(world, target, &Hello::new().build()), &["--shows", "no-sni"])
        }
        Reason::SniInvalid => held(TLS, NAME, |world, target| shows(world, target, &hello("")), &["--shows", "bad-sni"]),
        Reason::SniAmbiguous => {
            let client: Client = |world, target| shows(world, target, &Hello::new().sni_list(&["a.test", "b.test"]).build());
            held(TLS, NAME, client, &["--shows", "two-snis"])
        }
        Reason::SniMismatch => {
            held(TLS, NAME, |world, target| shows(world, target, &hello("evil.test")), &["--shows", "sni=evil.test"])
        }
        Reason::NotTls => held(TLS, NAME, |world, target| shows(world, target, b"SSH-2.0-x\r\n"), &["--shows", "bytes"]),
        Reason::NotHttp => held(HTTP, NAME, |world, target| shows(world, target, b"SSH-2.0-x\r\n"), &["--shows", "bytes"]),
        Reason::HostMismatch => held(HTTP, NAME, asks_for_another_host, &["--shows", "http=evil.test:80"]),
        Reason::NoFirstFlight => held(TLS, NAME, shows_nothing, &["--shows", "nothing"]),
        Reason::ConnectionLimit => unasked(ONE_CONNECTION, NAME, by_one_client_too_many),
    }
}

fn hello(sni: &str) -> Vec<u8> {
    Hello::new().sni(sni).build()
}

fn parts(target: &str) -> (&str, u16) {
    let (host, port) = target.rsplit_once(':').expect("a target has a port");
    (host, port.parse().expect("a port is a number"))
}

fn by_connect(world: &World, target: &str) -> Option<Response> {
    Some(http_connect(world.proxy, target).response)
}

fn by_connect_as_web(world: &World, target: &str) -> Option<Response> {
    // web:x
    Some(http_connect_with(world.proxy, target, &["Proxy-Authorization: Basic d2ViOng="]).response)
}

fn by_forward(world: &World, target: &str) -> Option<Response> {
    Some(forward_get(world.proxy, &format!("http://{target}/")))
}

fn by_socks5(world: &World, target: &str) -> Option<Response> {
    let (host, port) = parts(target);
    assert_eq!(socks5(world.proxy, Host::Name(host), port, None).0, 2, "SOCKS5 {target}");
    None
}

fn by_socks4a(world: &World, target: &str) -> Option<Response> {
    let (host, port) = parts(target);
    assert_eq!(socks4a(world.proxy, host, port, "").0, 91, "SOCKS4a {target}");
    None
}

fn by_socks4(world: &World, target: &str) -> Option<Response> {
    let (host, port) = parts(target);
    assert_eq!(socks4(world.proxy, host.parse().expect("an IPv4 address"), port, "").0, 91, "SOCKS4 {target}");
    None
}

fn by_tls(world: &World, target: &str) -> Option<Response> {
    drop(raw(world.proxy, &hello(parts(target).0)));
    None
}

fn by_strange_byte(world: &World, _target: &str) -> Option<Response> {
    assert_eq!(raw(world.proxy, &[0x80]), b"");
    None
}

fn by_one_client_too_many(world: &World, target: &str) -> Option<Response> {
    let first = http_connect(world.proxy, target);
    assert_eq!(first.response.status, 200, "it has the only place");
    by_connect(world, target)
}

/// Is granted a tunnel, shows this, and is closed.
fn shows(world: &World, target: &str, flight: &[u8]) -> Option<Response> {
    let mut tunnel = http_connect(world.proxy, target);
    assert_eq!(tunnel.response.status, 200, "{target}: {}", tunnel.response.head);
    tunnel.stream.write_all(flight).expect("the tunnel takes bytes");
    assert_closed(target, tunnel.stream);
    None
}

fn shows_nothing(world: &World, target: &str) -> Option<Response> {
    let mut tunnel = http_connect(world.proxy, target);
    assert_eq!(tunnel.response.status, 200, "{target}: {}", tunnel.response.head);
    tunnel.stream.shutdown(Shutdown::Write).expect("the tunnel has two directions");
    assert_eq!(read_to_close(&mut tunnel.stream), b"");
    None
}

fn asks_for_another_host(world: &World, target: &str) -> Option<Response> {
    let mut tunnel = http_connect(world.proxy, target);
    assert_eq!(tunnel.response.status, 200, "{target}: {}", tunnel.response.head);
    tunnel.stream.write_all(b"GET / HTTP/1.1\r\nHost: evil.test:80\r\n\r\n").expect("the tunnel takes a request");
    Some(Response::read(&tunnel.stream).expect("the proxy answers"))
}

fn let_through(world: &World, target: &str) -> Option<Response> {
    let mut tunnel = http_connect(world.proxy, target);
    tunnel.stream.write_all(b"SSH-2.0-x\r\n").expect("the tunnel takes bytes");
    assert_echo(target, &mut tunnel.stream, b"SSH-2.0-x\r\n");
    None
}

/// `egret explain` with this policy; more arguments follow the target.
fn explain(policy: &Path, target: &str, more: &[&str]) -> Output {
    let policy = policy.to_str().expect("the test's directory has a name in UTF-8");
    run_egret([&["explain", target, "--policy", policy], more].concat(), "")
}

fn explain_json(policy: &Path, target: &str, more: &[&str]) -> (i32, Value) {
    let output = explain(policy, target, &[more, &["--output", "json"]].concat());
    let told = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{target} {more:?}: no JSON ({e}): {output:#?}"));
    (output.code, told)
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("`{field}` says nothing: {value:#}"))
}

/// The client's answer is the record's, word for word.
fn assert_told(reason: Reason, answer: &Response, record: &Value) {
    let shown = format!("{reason}: {}{}\n{record:#}", answer.head, answer.text());
    assert_eq!(answer.header("x-egret-reason"), Some(reason.code()), "{shown}");
    assert_eq!(answer.header("x-egret-rule"), record["rule"].as_str(), "{shown}");
    let (body, detail) = (answer.text(), text(record, "detail"));
    assert!(body.contains(detail) && answer.reason.contains(detail), "{shown}");
    assert!(body.contains(&format!("reason: {reason}\n")) && body.contains("to change this: "), "{shown}");
}

/// `explain` says of the target what the record says.
fn assert_explained(reason: Reason, world: &World, target: &str, more: &[&str], record: &Value) -> Value {
    let policy = world.egret.policy_path();
    let (code, told) = explain_json(&policy, target, more);
    let shown = format!("{reason}: explain {target} {more:?}: exit {code}: {told:#}\n{record:#}");
    for field in ["decision", "reason", "rule", "role", "detail"] {
        assert_eq!(told[field], record[field], "{field} of {shown}");
    }
    assert_eq!(code, i32::from(told["decision"] == "deny"), "{shown}");
    let people = explain(&policy, target, more);
    assert_eq!(people.code, code, "{shown}\n{people:#?}");
    for words in [reason.code(), text(&told, "detail"), text(&told, "help")] {
        assert!(people.stdout.contains(words), "{words:?}: {people:#?}");
    }
    told
}

/// The line that is told, if one is, makes `explain` allow the same target, wherever under `egress.allow` it is put.
fn assert_mends(world: &World, target: &str, more: &[&str], told: &Value, line: &Line) {
    let given = told["allow_line"].as_str();
    match line {
        Line::Helps => assert!(given.is_some(), "{told:#}"),
        Line::CannotHelp => assert_eq!(told["allow_line"], Value::Null, "{told:#}"),
        Line::MayHelp => {}
    }
    let people = explain(&world.egret.policy_path(), target, more).stdout;
    assert_eq!(people.contains("smallest line that would allow it: "), given.is_some(), "{people}");
    let Some(given) = given else { return };
    assert!(people.contains(&format!("smallest line that would allow it: {given}\n")), "{given}: {people}");
    let policy = fs::read_to_string(world.egret.policy_path()).expect("the policy is readable");
    let first = policy.replacen("  allow:\n", &format!("  allow:\n    {given}\n"), 1);
    let last = policy.replacen("\n\ndns:", &format!("\n    {given}\n\ndns:"), 1);
    let dir = TempDir::new().expect("a temporary directory");
    for mended in [first, last] {
        assert_ne!(mended, policy, "the line was put nowhere");
        let file = dir.path().join("mended.yaml");
        fs::write(&file, &mended).expect("the test's directory is writable");
        let (code, told) = explain_json(&file, target, more);
        assert_eq!((code, &told["decision"]), (0, &"allow".into()), "{told:#}\n{mended}");
    }
}

fn assert_agrees(reason: Reason) {
    let Scenario { policy, target, client, question } = scenario(reason);
    let own = free_port().to_string();
    let world = World::echo(&policy.replace("OWN", &own));
    let target = target.replace("PORT", &world.upstream.port().to_string()).replace("OWN", &own);
    let answer = client(&world, &target);
    let record = world.egret.record(|record| record["reason"] == reason.code());
    let decision = if reason == Reason::AuditRule { "would_deny" } else { "deny" };
    assert_eq!(record["decision"], decision, "{reason}: {record:#}");
    assert!(!text(&record, "detail").is_empty(), "{reason}: {record:#}");
    if let Some(answer) = &answer {
        assert_told(reason, answer, &record);
    }
    let Question::Verdict { more, line } = question else { return };
    let told = assert_explained(reason, &world, &target, more, &record);
    if let Some(answer) = &answer {
        let help = text(&told, "help");
        assert!(answer.text().trim_end().ends_with(help), "{reason}: {help:?}: {}", answer.text());
    }
    assert_mends(&world, &target, more, &told, &line);
}

#[test]
fn o10_the_denial_text_explain_and_the_journal_agree_for_every_reason_in_the_enum() {
    let disagreeing: Vec<&str> = thread::scope(|scope| {
        let all: Vec<_> = Reason::ALL.iter().map(|reason| (reason, scope.spawn(|| assert_agrees(*reason)))).collect();
        all.into_iter().filter_map(|(reason, case)| case.join().is_err().then_some(reason.code())).collect()
    });
    assert!(disagreeing.is_empty(), "see above: {disagreeing:?}");
}

#[test]
fn explain_says_what_every_reason_means() {
    for reason in Reason::ALL {
        let code = reason.code();
        let people = run_egret(["explain", "--reason", code], "");
        assert_eq!((people.code, people.stdout.trim_end()), (0, &*format!("{code}: {}", reason.meaning())), "{people:#?}");
        assert!(reason.meaning().len() > 10, "{code} has a meaning");
        let output = run_egret(["explain", "--reason", code, "--output", "json"], "");
        let told: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{code}: {e}: {output:#?}"));
        assert_eq!((&told["v"], &told["reason"]), (&1.into(), &code.into()), "{told}");
        assert_eq!(told["meaning"], reason.meaning(), "{told}");
    }
    let unknown = run_egret(["explain", "--reason", "no_ruel"], "");
    assert_eq!(unknown.code, 2, "{unknown:#?}");
    assert!(unknown.stderr.contains("no_ruel") && unknown.stderr.contains("no_rule"), "{unknown:#?}");
}

#[test]
fn every_road_leads_to_the_same_words() {
    let world = World::echo(TLS);
    let target = "evil.test:443";
    let roads: [(&str, Client); 5] =
        [("connect", by_connect), ("forward", by_forward), ("socks5", by_socks5), ("socks4", by_socks4a), ("tls", by_tls)];
    let (_, told) = explain_json(&world.egret.policy_path(), target, &[]);
    for (via, road) in roads {
        road(&world, target);
        let record = world.egret.record(|record| record["via"] == via);
        for field in ["decision", "reason", "rule", "role", "detail"] {
            assert_eq!(told[field], record[field], "{field} by {via}: {told:#}\n{record:#}");
        }
    }
    let request = world.egret.event("request", |_| true);
    assert_eq!((&request["reason"], &request["detail"]), (&told["reason"], &told["detail"]), "{request:#}");
}

#[test]
fn audit_says_the_same_of_what_it_would_deny() {
    let world = World::echo(OBSERVED);
    let target = world.at("evil.test");
    let_through(&world, &target);
    let record = world.record();
    assert_eq!((&record["decision"], &record["reason"]), (&"would_deny".into(), &"no_rule".into()), "{record:#}");
    let told = assert_explained(Reason::NoRule, &world, &target, &["--resolve"], &record);
    assert_mends(&world, &target, &["--resolve"], &told, &Line::Helps);
    let (code, enforced) = explain_json(&world.egret.policy_path(), &target, &["--mode", "enforce"]);
    assert_eq!((code, &enforced["decision"]), (1, &"deny".into()), "{enforced:#}");
    for field in ["reason", "rule", "detail", "help", "allow_line"] {
        assert_eq!(told[field], enforced[field], "{field}: {told:#}\n{enforced:#}");
    }
}
