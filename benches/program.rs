//! The whole program as its user meets it: start to listening, memory at idle, and how long a denial takes, from the
//! first byte of a new connection to the last of the 403.
//!
//! `cargo bench --bench program`. On a shared 2-core machine, Linux 6.18, 2026-11, two rules, release build: start to
//! listening median 2.9 ms; resident at idle median 10.0 MiB (8.0 MiB for the static build of `cargo dist`); a denied
//! CONNECT median 0.09 ms, 99th percentile 0.19 ms, longest of 2,000 0.85 ms.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STARTS: usize = 21;
const DENIALS: usize = 2_000;

fn main() {
    let starts: Vec<(Duration, u64)> = (0..STARTS).map(|_| one_start()).collect();
    print("start to listening", starts.iter().map(|(took, _)| *took).collect());
    let mut memory: Vec<u64> = starts.iter().map(|(_, kib)| *kib).collect();
    memory.sort_unstable();
    println!("resident at idle: median {:.1} MiB", memory[STARTS / 2] as f64 / 1024.0);
    let (mut egret, proxy) = start();
    print("denied CONNECT", (0..DENIALS).map(|_| one_denial(proxy)).collect());
    egret.kill().expect("egret ends");
    egret.wait().expect("and is gone");
}

/// The time from spawn to the line that says where it listens, and the memory after it.
fn one_start() -> (Duration, u64) {
    let began = Instant::now();
    let (mut egret, proxy) = start();
    drop(TcpStream::connect(proxy).expect("it listens"));
    let took = began.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", egret.id())).expect("a process status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    egret.kill().expect("egret ends");
    egret.wait().expect("and is gone");
    (took, kib.expect("resident memory"))
}

fn start() -> (Child, SocketAddr) {
    let mut egret = Command::new(env!("CARGO_BIN_EXE_egret"))
        .args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("EGRET_ALLOW", "api.example.test *.cdn.example.test")
        .stdout(Stdio::piped())
        .spawn()
        .expect("egret starts");
    let mut journal = BufReader::new(egret.stdout.take().expect("a journal"));
    let mut line = String::new();
    journal.read_line(&mut line).expect("the started line");
    let started: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    // The rest of the journal is read and thrown away, as a log driver would take it.
    std::thread::spawn(move || std::io::copy(&mut journal, &mut std::io::sink()));
    (egret, started["listen"][0].as_str().and_then(|text| text.parse().ok()).expect("where it listens"))
}

fn one_denial(proxy: SocketAddr) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(proxy).expect("it accepts");
    stream.write_all(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n").expect("it takes a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(answer.starts_with(b"HTTP/1.1 403 "), "{}", answer.escape_ascii());
    began.elapsed()
}

fn print(what: &str, mut all: Vec<Duration>) {
    all.sort_unstable();
    let at = |share: usize| all[(all.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("{what}: {} times, median {:.2} ms, 99th percentile {:.2} ms, longest {:.2} ms", all.len(), at(50), at(99), at(100));
}
