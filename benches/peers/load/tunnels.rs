//! New tunnels a second: a fixed number is under way at any time; when one is proven, it is closed and the next begins.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Span, done_by_origin, quantile};
use crate::cost::{Meter, Used};
use crate::socket::Poll;
use crate::tunnel::{Route, Tunnel};

/// After so long one has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for those that have.
const ROUND: Duration = Duration::from_millis(200);

pub(crate) struct Measured {
    pub(crate) a_second: f64,
    pub(crate) setup_p50: f64,
    pub(crate) setup_p99: f64,
    /// Microseconds of the proxy's processor for each.
    pub(crate) cpu_each: f64,
    /// How many failed, and how the first did.
    pub(crate) failed: Option<String>,
    pub(crate) elsewhere: f64,
    /// All that were made, those of the warm-up too: as many records as the proxy owes.
    pub(crate) made: usize,
}

struct Loop<'a> {
    route: &'a Route,
    poll: Poll,
    slots: Vec<Option<Tunnel>>,
    buffer: Vec<u8>,
    setup: Vec<Duration>,
    made: usize,
    failed: usize,
    why: Option<anyhow::Error>,
}

/// Measures one proxy at this concurrency.
pub(crate) fn measure(route: &Route, proxy: Option<u32>, at_once: usize, span: Span) -> anyhow::Result<Measured> {
    let before = done_by_origin()?[0];
    let mut tunnels = Loop::new(route, at_once)?;
    tunnels.run(span.warm_up)?;
    tunnels.forget();
    let meter = Meter::start(proxy);
    tunnels.run(span.counted)?;
    let used = meter.read();
    let answered = done_by_origin()?[0] - before;
    ensure!(answered >= tunnels.made as u64, "the origin answered {answered} hellos, {} tunnels were counted", tunnels.made);
    tunnels.result(&used)
}

impl<'a> Loop<'a> {
    fn new(route: &'a Route, at_once: usize) -> anyhow::Result<Self> {
        let mut slots = Vec::new();
        slots.resize_with(at_once, || None);
        let (setup, buffer) = (Vec::new(), vec![0; 64 << 10]);
        Ok(Self { route, poll: Poll::new()?, slots, buffer, setup, made: 0, failed: 0, why: None })
    }

    fn forget(&mut self) {
        self.setup.clear();
        (self.failed, self.why) = (0, None);
    }

    fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        let mut round = Instant::now();
        self.fill();
        while Instant::now() < end {
            for (token, _) in self.poll.wait(ROUND / 4)? {
                self.attend(token);
            }
            if round.elapsed() > ROUND {
                round = Instant::now();
                self.give_up();
                self.fill();
            }
        }
        Ok(())
    }

    /// Begins where nothing is under way.
    fn fill(&mut self) {
        for token in 0..self.slots.len() {
            if self.slots[token].is_none() {
                self.begin(token);
            }
        }
    }

    fn begin(&mut self, token: usize) {
        match Tunnel::begin(self.route, &self.poll, token) {
            Ok(tunnel) => self.slots[token] = Some(tunnel),
            Err(error) => self.fail(error),
        }
    }

    fn attend(&mut self, token: usize) {
        let Some(tunnel) = &mut self.slots[token] else { return };
        match tunnel.go_on(self.route, &mut self.buffer) {
            Ok(false) => {}
            Ok(true) => {
                self.setup.push(tunnel.setup);
                self.made += 1;
                self.slots[token] = None;
                self.begin(token);
            }
            // Begun again with the next round only, so that a proxy that refuses is not a busy loop.
            Err(error) => {
                self.slots[token] = None;
                self.fail(error);
            }
        }
    }

    fn fail(&mut self, error: anyhow::Error) {
        self.failed += 1;
        self.why.get_or_insert(error);
    }

    fn give_up(&mut self) {
        for token in 0..self.slots.len() {
            if self.slots[token].as_ref().is_some_and(|tunnel| tunnel.age() > PATIENCE) {
                self.slots[token] = None;
                self.fail(anyhow::anyhow!("nothing for {PATIENCE:?}"));
            }
        }
    }

    fn result(mut self, used: &Used) -> anyhow::Result<Measured> {
        let count = self.setup.len();
        if count == 0 {
            return Err(self.why.unwrap_or_else(|| anyhow::anyhow!("no tunnel")));
        }
        Ok(Measured {
            a_second: count as f64 / used.time.as_secs_f64(),
            setup_p50: quantile(&mut self.setup, 0.5),
            setup_p99: quantile(&mut self.setup, 0.99),
            cpu_each: used.cpu * 1e6 / count as f64,
            failed: self.why.map(|why| format!("{} failed, the first so: {why:#}", self.failed)),
            elsewhere: used.elsewhere,
            made: self.made,
        })
    }
}
