//! The pure parts: one decision over rule sets of growing size, against the two ways people would write it without an
//! index, the loading of a large policy, and one ClientHello.
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

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use egret::config;
use egret::config::source::Text;
use egret_policy::{Draft, Name, NamePattern, Policy, Request, RuleDraft, Surroundings, UnixTime};
use egret_proxy::wire::client_hello::Joiner;
use egret_proxy::wire::http;
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

fn read(c: &mut Criterion) {
    let hello = client_hello("api.example.test");
    c.bench_function("client_hello", |b| b.iter(|| Joiner::default().read(black_box(&hello))));
    let head = b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: api.example.test:443\r\nUser-Agent: curl/8\r\n\r\n";
    c.bench_function("connect_head", |b| b.iter(|| http::connect(black_box(head))));
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

criterion_group!(benches, admit, scan, globs, load, read);
criterion_main!(benches);
