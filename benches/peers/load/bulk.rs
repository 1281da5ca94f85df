//! Bytes through tunnels that are open already: each streams as fast as it is read. Of every read two words are looked at, of
//! a first stretch all.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Span;
use crate::cost::Meter;
use crate::socket::{Poll, Ready, hear, say};
use crate::tunnel::{Route, Tunnel, open};
use crate::wire::{STREAM, is_stream, is_stream_throughout};

/// What one read takes.
const READ: usize = 256 << 10;
/// Of which every word is looked at, before anything is counted.
const PROVED: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Measured {
    pub(crate) gbit: f64,
    pub(crate) cpu_per_gib: f64,
    pub(crate) elsewhere: f64,
}

struct Streams {
    poll: Poll,
    streams: Vec<(Tunnel, usize)>,
    buffer: Vec<u8>,
    bytes: u64,
}

/// Measures one proxy with so many tunnels.
pub(crate) fn measure(route: &Route, proxy: Option<u32>, tunnels: usize, span: Span) -> anyhow::Result<Measured> {
    let mut streams = Streams::new(open(route, tunnels)?)?;
    while streams.streams.iter().any(|(_, got)| *got < PROVED) {
        streams.read(PATIENCE, is_stream_throughout)?;
    }
    streams.run(span.warm_up)?;
    streams.bytes = 0;
    let meter = Meter::start(proxy);
    streams.run(span.counted)?;
    let used = meter.read();
    let bytes = streams.bytes as f64;
    Ok(Measured {
        gbit: bytes * 8.0 / 1e9 / used.time.as_secs_f64(),
        cpu_per_gib: used.cpu / (bytes / f64::from(1 << 30)),
        elsewhere: used.elsewhere,
    })
}

impl Streams {
    fn new(tunnels: Vec<Tunnel>) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        for (token, tunnel) in tunnels.iter().enumerate() {
            ensure!(say(&tunnel.socket, &[STREAM])? == 1, "an idle tunnel takes nothing");
            poll.add(&tunnel.socket, Ready::IN, token)?;
        }
        let streams = tunnels.into_iter().map(|tunnel| (tunnel, 0)).collect();
        Ok(Self { poll, streams, buffer: vec![0; READ], bytes: 0 })
    }

    fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.read(PATIENCE, is_stream)?;
        }
        Ok(())
    }

    /// Reads once from whatever is ready.
    fn read(&mut self, patience: Duration, is_right: fn(&[u8], usize) -> bool) -> anyhow::Result<()> {
        let mut ready = self.poll.wait(patience)?.peekable();
        ensure!(ready.peek().is_some(), "no byte for {patience:?}");
        for (token, _) in ready {
            let (tunnel, got) = &mut self.streams[token];
            let Some(heard) = hear(&tunnel.socket, &mut self.buffer).context("a stream broke")? else { continue };
            ensure!(!heard.is_empty(), "a stream ended");
            ensure!(is_right(heard, *got), "not the bytes that were sent, at {got}");
            *got += heard.len();
            self.bytes += heard.len() as u64;
        }
        Ok(())
    }
}
