//! The harness of the end-to-end tests: egret itself, what stands around it, and how long to wait for either.
//!
//! Everything here talks to loopback only, with ports of the kernel's choice, or within a network of its own. No assertion
//! about egret is made here: a test reads what happened and judges it.
//!
//! In reading order:
//!
//! - [`egret`]: the program under test, its journal, its admin port
//! - [`client`]: what an app does, as raw bytes: CONNECT, SOCKS, TLS
//! - [`hello`]: ClientHellos built by hand
//! - [`dns`]: the resolver that egret asks
//! - [`liar`]: a resolver that answers in bytes of the test's own
//! - [`upstream`]: the servers that egret dials
//! - [`programs`]: curl, nginx and other real programs
//! - [`moto`]: S3, for clients of it
//! - [`ports`]: ports for programs that can't be told to take any
//! - [`rules`]: policies for names on loopback
//! - [`outside`]: the Internet of a confined app
//! - [`journal`]: journals written by hand, and what reads them
//! - [`world`]: the usual scene made of these. It alone asserts: what every denial has in common
//! - [`pki`], [`http1`], [`payload`], [`listener`], [`seen`]: what those are made of

pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod egret;
pub(crate) mod hello;
pub(crate) mod http1;
pub(crate) mod journal;
pub(crate) mod liar;
pub(crate) mod listener;
pub(crate) mod moto;
pub(crate) mod outside;
pub(crate) mod payload;
pub(crate) mod pki;
pub(crate) mod ports;
pub(crate) mod programs;
pub(crate) mod rules;
pub(crate) mod seen;
pub(crate) mod upstream;
pub(crate) mod world;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use client::{Host, http_connect, socks4, socks4a, socks5};
pub(crate) use dns::DnsServer;
pub(crate) use egret::{Egret, run_egret};
pub(crate) use hello::Hello;
pub(crate) use outside::Outside;
pub(crate) use pki::{Ca, Identity};
pub(crate) use ports::free_port;
pub(crate) use programs::{Program, nginx};
pub(crate) use upstream::{Service, Upstream};
pub(crate) use world::World;

/// How long any wait of the harness lasts before it fails the test. Long, so that a busy machine is no failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Asks `probe` until it has an answer. Only for state that tells nobody when it changes (a metric, a file, the
/// end of a process); whatever can be waited on is waited on.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// The fields that the table under this heading of a page names, in its first column.
pub(crate) fn documented<'p>(page: &'p str, heading: &str) -> BTreeSet<&'p str> {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading:?}"));
    let rows = section.split("\n#").next().into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("| `"));
    let named = rows.filter_map(|row| row.split_once(" | ")).flat_map(|(fields, _)| fields.split("`, `"));
    named.map(|field| field.trim_end_matches('`')).collect()
}

/// The names of an object's fields.
pub(crate) fn fields(object: &serde_json::Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}
