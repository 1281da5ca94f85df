//! The generator: closed loops of tunnels, streams and requests, each with its own proof that what it counts was done.

pub(crate) mod bulk;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod tunnels;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::wire::{COUNTERS, TLS_PORT, loopback};

/// How long is counted, after how long that is not.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) warm_up: Duration,
    pub(crate) counted: Duration,
}

/// What the origin has done since it started: hellos of an allowed name, and requests, answered.
pub(crate) fn done_by_origin() -> anyhow::Result<[u64; 2]> {
    let mut origin = TcpStream::connect(loopback(TLS_PORT))?;
    origin.write_all(&[COUNTERS])?;
    let mut counters = [0; 16];
    origin.read_exact(&mut counters)?;
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|n| counters[at * 8 + n]));
    Ok([number(0), number(1)])
}

/// The value below which this part of them is, in microseconds.
pub(crate) fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len().saturating_sub(1)) as f64 * part).round() as usize;
    times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}
