//! A verdict depends on bytes, never on how they are cut into segments: samples of every way in, cut in many places at once,
//! have the verdict that they have whole, and the same bytes reach the upstream. Single cuts at every place stand with their
//! protocols.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::client::{read_exactly, read_to_close, socks5_request};
use crate::support::world::NAMES;
use crate::support::{Hello, Host, World};

/// Ways to cut that are tried for each sample.
const CASES: u32 = 25;

/// What a client says from its first byte on, and what it must hear.
struct Sample {
    case: &'static str,
    said: Vec<u8>,
    /// Of a granted one, the words of the proxy before the echo of `behind`.
    granted: Option<Vec<u8>>,
    /// What the upstream gets.
    behind: Vec<u8>,
    reason: Option<&'static str>,
}

const YES: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn socks5(world: &World, name: &str) -> Vec<u8> {
    [&[5, 1, 0][..], &socks5_request(1, Host::Name(name), world.upstream.port())].concat()
}

fn socks4a(world: &World, name: &str) -> Vec<u8> {
    [&[4, 1][..], &world.upstream.port().to_be_bytes(), &[0, 0, 0, 9], b"me\0", name.as_bytes(), &[0]].concat()
}

fn connect(world: &World, name: &str) -> Vec<u8> {
    format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\nProxy-Connection: keep-alive\r\n\r\n", world.at(name)).into_bytes()
}

fn samples(world: &World) -> Vec<Sample> {
    let hello = |sni: &str| Hello::new().alpn(&["h2"]).ech_grease().sni(sni).build();
    let good = hello("allowed.test");
    let granted = |case, ask: Vec<u8>, words: &[u8]| Sample {
        case,
        said: [&ask[..], &good].concat(),
        granted: Some(words.to_vec()),
        behind: good.clone(),
        reason: None,
    };
    let refused = |case, said: Vec<u8>, reason| Sample { case, said, granted: None, behind: Vec::new(), reason: Some(reason) };
    let (yes4, yes5) = ([0, 90, 0, 0, 0, 0, 0, 0], [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    vec![
        granted("CONNECT", connect(world, "allowed.test"), YES),
        granted("SOCKS4a", socks4a(world, "allowed.test"), &yes4),
        granted("SOCKS5", socks5(world, "allowed.test"), &yes5),
        refused("CONNECT, no rule", connect(world, "evil.test"), "no_rule"),
        refused("SOCKS4a, no rule", socks4a(world, "evil.test"), "no_rule"),
        refused("SOCKS5, no rule", socks5(world, "evil.test"), "no_rule"),
        refused("CONNECT, another SNI", [connect(world, "allowed.test"), hello("evil.test")].concat(), "sni_mismatch"),
        refused("SOCKS4a, another SNI", [socks4a(world, "allowed.test"), hello("evil.test")].concat(), "sni_mismatch"),
        refused("SOCKS5, another SNI", [socks5(world, "allowed.test"), hello("evil.test")].concat(), "sni_mismatch"),
        refused("TLS, no rule", hello("evil.test"), "no_rule"),
        refused("SOCKS4, no rule", [&[4, 1][..], &1_u16.to_be_bytes(), &[10, 0, 0, 1], b"me\0"].concat(), "address_not_listed"),
        refused("a bare LF", b"CONNECT allowed.test:443 HTTP/1.1\nHost: x\r\n\r\n".to_vec(), "malformed"),
        refused("two hosts", b"GET http://allowed.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), "malformed"),
        refused("no protocol", b"\x01\x02\x03".to_vec(), "unknown_protocol"),
    ]
}

/// Says a sample in these parts, and hears what it must.
fn say(world: &World, sample: &Sample, cuts: &[usize]) {
    let mut stream = world.send_parts(cuts.windows(2).map(|cut| &sample.said[cut[0]..cut[1]]));
    match &sample.granted {
        Some(words) => {
            let expected = [&words[..], &sample.behind].concat();
            assert!(read_exactly(&mut stream, expected.len()) == expected, "{} cut at {cuts:?}", sample.case);
        }
        None => drop(read_to_close(&mut stream)),
    }
}

/// So many records with the verdict of the sample, and its bytes at the upstream as often.
fn assert_verdicts(world: &World, sample: &Sample, count: usize) {
    for record in world.egret.wait_records(count) {
        assert_eq!(record["reason"].as_str(), sample.reason, "{}: {record:#}", sample.case);
        assert_eq!(record["bytes_up"], sample.behind.len(), "{}: {record:#}", sample.case);
    }
    assert_eq!(world.upstream.final_bytes(), (count * sample.behind.len()) as u64, "{}", sample.case);
}

#[test]
fn h59_s54_t54_many_cuts_at_once_change_no_verdict_and_no_byte() {
    for at in 0..samples(&World::echo(NAMES)).len() {
        let world = World::echo(NAMES);
        let sample = &samples(&world)[at];
        let length = sample.said.len();
        let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let cuts = prop::collection::vec(0..=length, 0..12);
        let outcome = TestRunner::new(config).run(&cuts, |mut cuts| {
            cuts.extend([0, length]);
            cuts.sort_unstable();
            say(&world, sample, &cuts);
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", sample.case));
        assert_verdicts(&world, sample, CASES as usize);
    }
}

#[test]
fn h60_s55_t55_every_single_cut_of_every_sample_changes_nothing() {
    for at in 0..samples(&World::echo(NAMES)).len() {
        let world = World::echo(NAMES);
        let sample = &samples(&world)[at];
        // Of long flights every eighth byte; those of the other tests are cut at each.
        let step = if sample.said.len() > 150 { 8 } else { 1 };
        let cuts: Vec<usize> = (0..sample.said.len()).step_by(step).collect();
        for at in &cuts {
            say(&world, sample, &[0, *at, sample.said.len()]);
        }
        assert_verdicts(&world, sample, cuts.len());
    }
}
