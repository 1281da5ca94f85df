//! The pure parts: one decision over rule sets of growing size, and one ClientHello.
//!
//! `cargo bench --bench decide`. On a shared 2-core machine, 2026-11, medians: an allowed exact name 125 ns, a wildcard
//! 190 ns, a denial with its texts 275 ns, each the same at 10, 1,000 and 100,000 rules; a ClientHello 146 ns, a CONNECT
//! head 325 ns.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use egret_policy::{Draft, Policy, Request, RuleDraft, Surroundings, UnixTime};
use egret_proxy::wire::client_hello::Joiner;
use egret_proxy::wire::http;

/// Half exact names, half wildcards.
fn policy(rules: usize) -> Arc<Policy> {
    let mut draft = Draft::default();
    for n in 0..rules {
        let text = if n % 2 == 0 { format!("host{n}.example.test") } else { format!("*.zone{n}.example.test") };
        draft.allow(RuleDraft::name(text.parse().expect("a pattern")));
    }
    Arc::new(Policy::new(draft, Surroundings::default()))
}

fn admit(c: &mut Criterion) {
    let mut group = c.benchmark_group("admit");
    for rules in [10, 1_000, 100_000] {
        let policy = policy(rules);
        for (what, target) in
            [("exact", "host0.example.test:443"), ("wildcard", "a.b.zone1.example.test:443"), ("denied", "evil.test:443")]
        {
            let request = Request::new(target.parse().expect("a target"), policy.default_role(), UnixTime(0));
            group.bench_with_input(BenchmarkId::new(what, rules), &request, |b, request| {
                b.iter(|| policy.admit(black_box(request)).is_ok())
            });
        }
    }
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

criterion_group!(benches, admit, read);
criterion_main!(benches);
