//! The pure parts: one decision over rule sets of growing size, against the two ways people would write it without an
//! index, the loading of a large policy, and what is read of clients.
//!
//! `cargo bench --bench decide`. On a shared 2-core machine, 2026-11, medians, at 10 / 1,000 / 100,000 / 1,000,000 rules:
//!
//! | | |
//! |---|---|
//! | an allowed exact name | 131 / 126 / 129 / 126 ns |
//! | an allowed wildcard | 195 / 195 / 195 / 192 ns |
//! | a denial with its texts | 291 / 293 / 297 / 296 ns |
//! | the naive twin, denied, without texts | 69 ns / 6.9 us / 672 us / - |
//! | globs in a list, denied, without texts | 116 ns / 12.6 us / 29.2 ms / - |
//! | loading 100,000 rules of 6.8 MB, to a policy in force | 0.42 s |
//! | the same, with everything that `check` warns of | 0.53 s |
//! | a ClientHello; a CONNECT head | 148 ns; 377 ns |
//!
//! In an hour in which others used the machine (a getppid(2) took a tenth longer, ptrace half as long again), without LTO, as of
//! 2026-11-22: at 1,000,000 rules 166, 237 and 433 ns; a ClientHello 347 ns, a CONNECT head 563 ns. What decides does not grow
//! with the rules, and is below 300 ns in either.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use egret::config;
use egret::config::source::Text;
use egret_policy::{Draft, Flight, Name, NamePattern, Policy, Request, RuleDraft, Sni, Surroundings, UnixTime};
use egret_proxy::wire::client_hello::Joiner;
use egret_proxy::wire::{Progress, framing, http, socks4, socks5};
use globset::{Glob, GlobMatcher};

const SIZES: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
/// What is asked for: the first exact name, a name below the second wildcard, and one that no rule speaks of.
const TARGETS: [(&str, &str); 3] =
    [("exact", "host0.example.test"), ("wildcard", "a.b.zone1.example.test"), ("denied", "evil.test")];

/// Half exact names, half wildcards.
fn names(rules: usize) -> impl Iterator<Item = String> {
    (0..rules).map(|n| if n % 2 == 0 { format!("host{n}.example.test") } else { format!("*.zone{n}.example.test") })
}

fn policy(rules: usize) -> Arc<Policy> {
    let mut draft = Draft::default();
    names(rules).for_each(|name| draft.allow(RuleDraft::name(name.parse().expect("a pattern"))));
    Arc::new(Policy::new(draft, Surroundings::default()))
}

fn admit(c: &mut Criterion) {
    let mut group = c.benchmark_group("admit");
    for rules in SIZES {
        let policy = policy(rules);
        for (what, host) in TARGETS {
            let target = format!("{host}:443").parse().expect("a target");
            let request = Request::new(target, policy.default_role(), UnixTime(0));
            group.bench_with_input(BenchmarkId::new(what, rules), &request, |b, request| {
                b.iter(|| policy.admit(black_box(request)).is_ok())
            });
        }
    }
}

/// The naive twin: every pattern is asked in turn.
fn scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    for rules in &SIZES[..3] {
        let patterns: Vec<NamePattern> = names(*rules).map(|name| name.parse().expect("a pattern")).collect();
        let denied: Name = "evil.test".parse().expect("a name");
        group.bench_with_input(BenchmarkId::new("denied", rules), &denied, |b, name| {
            b.iter(|| patterns.iter().any(|pattern| pattern.matches(black_box(name))))
        });
    }
}

/// Globs in a list, as they are written where there is no notion of labels.
fn globs(c: &mut Criterion) {
    let mut group = c.benchmark_group("globset");
    for rules in &SIZES[..3] {
        let globs: Vec<GlobMatcher> = names(*rules).map(|name| Glob::new(&name).expect("a glob").compile_matcher()).collect();
        group.bench_with_input(BenchmarkId::new("denied", rules), "evil.test", |b, name| {
            b.iter(|| globs.iter().any(|glob| glob.is_match(black_box(name))))
        });
    }
}

/// From the text of a file to a policy in force.
fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    let rules: String = names(100_000).map(|name| format!("    - {{ to: \"{name}:8443\", as: tls, note: a rule }}\n")).collect();
    let text = Text { origin: "policy.yaml".to_owned(), yaml: format!("version: 1\negress:\n  allow:\n{rules}") };
    group.bench_function("100000", |b| {
        b.iter(|| Policy::new(config::load(black_box(&text), None).expect("a policy").draft, Surroundings::default()))
    });
    group.bench_function("100000 with lints", |b| {
        b.iter(|| config::load(black_box(&text), None).expect("a policy").lints(UnixTime(0), true).len())
    });
}

/// The second and the third question: four answers of DNS, and the server name of a hello.
fn permit(c: &mut Criterion) {
    let policy = policy(1_000);
    let request = Request::new("host0.example.test:443".parse().expect("a target"), policy.default_role(), UnixTime(0));
    let mut permit = policy.admit(&request).expect("a permit");
    let answers: Vec<IpAddr> = (1..=4).map(|n| IpAddr::from([8, 8, 8, n])).collect();
    c.bench_function("vet 4 answers", |b| b.iter(|| permit.vet(black_box(&answers)).is_ok()));
    let flight = Flight::Tls { sni: Sni::One("host0.example.test".parse().expect("a name")), ech: false };
    c.bench_function("confirm", |b| b.iter(|| permit.confirm(black_box(&flight)).is_ok()));
}

/// Whatever clients say first, whole; a hello also as it comes in segments, and cut into records.
fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    let hello = client_hello("api.example.test");
    group.bench_function("client_hello", |b| b.iter(|| Joiner::default().read(black_box(&hello))));
    group.bench_function("client_hello, 4 segments", |b| b.iter(|| in_segments(black_box(&hello))));
    let records = in_records(&hello, 64);
    group.bench_function("client_hello, records of 64", |b| b.iter(|| Joiner::default().read(black_box(&records))));
    let connect = b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: api.example.test:443\r\nUser-Agent: curl/8\r\n\r\n";
    group.bench_function("connect_head", |b| b.iter(|| http::connect(black_box(connect))));
    let get = b"GET http://api.example.test/ HTTP/1.1\r\nHost: api.example.test\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n";
    group.bench_function("request_head", |b| b.iter(|| framing::request(black_box(get))));
    let greeting = [5, 1, 0];
    let request = [&[5, 1, 0, 3, 16], &b"api.example.test"[..], &[1, 187]].concat();
    group.bench_function("socks5", |b| b.iter(|| (socks5::greeting(black_box(&greeting)), socks5::request(black_box(&request)))));
    let request = [&[4, 1, 1, 187, 0, 0, 0, 1, 0][..], b"api.example.test\0"].concat();
    group.bench_function("socks4a", |b| b.iter(|| socks4::request(black_box(&request))));
}

fn in_segments(hello: &[u8]) -> bool {
    let mut joiner = Joiner::default();
    (1..=4).map(|quarter| joiner.read(&hello[..hello.len() * quarter / 4])).any(|read| matches!(read, Progress::Done(..)))
}

/// The same handshake message in records of so many octets.
fn in_records(hello: &[u8], octets: u8) -> Vec<u8> {
    let record = |fragment: &[u8]| [&[22, 3, 1, 0, fragment.len() as u8], fragment].concat();
    hello[5..].chunks(octets.into()).flat_map(record).collect()
}

/// The hello of a real rustls client.
fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let name = name.to_owned().try_into().expect("a server name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

criterion_group!(benches, admit, scan, globs, load, permit, read);
criterion_main!(benches);
