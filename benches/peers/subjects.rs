//! What is measured, and in which order: rounds take turns between the proxies, each of which is started anew for its sample.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::cost::elsewhere_now;
use crate::load::{Span, bulk, http, idle, tunnels};
use crate::peers::{Peer, Running, Setting};
use crate::place::{OriginProcess, files_limit};
use crate::table::{Table, median};
use crate::tunnel::open;
use crate::{holds, peers};

pub(crate) const SUBJECTS: [&str; 7] = ["holds", "tunnels", "bulk", "http", "idle", "start", "crowd"];

/// Descriptors of a proxy that are no tunnel's: its log, its threads' own, its listeners.
const OWN_FILES: usize = 500;
/// Tunnels of the two measurements of memory, as far as descriptors go.
const FEW: usize = 5_000;
const MANY: usize = 20_000;
/// Rules of the policy whose loading is timed.
const RULES: usize = 100;
/// Processors that others may use while a sample is taken: what a machine at rest does.
const CALM: f64 = 0.15;
/// Starts for each round.
const STARTS: usize = 5;

/// What every subject works with.
pub(crate) struct Bench<'a> {
    pub(crate) setting: Setting<'a>,
    pub(crate) peers: Vec<&'static Peer>,
    pub(crate) rounds: usize,
    pub(crate) span: Span,
    /// Processors that something else used, sample by sample.
    pub(crate) elsewhere: Vec<f64>,
    /// How much longer samples wait, all together, for a machine that does nothing else.
    pub(crate) patience: Duration,
}

/// One sample: figures for the columns, and how many records the proxy owes.
struct Sample {
    figures: Vec<f64>,
    owed: usize,
    elsewhere: f64,
    /// What else is to be said.
    note: Option<String>,
}

/// Samples that are taken alike.
struct Case {
    pinned: bool,
    columns: Vec<String>,
    fits: fn(&Peer) -> bool,
    take: Box<Take>,
}

/// Takes one sample of a proxy that runs.
type Take = dyn Fn(&Peer, &Running, Span) -> anyhow::Result<Sample>;

/// Any proxy, and the direct way.
const ALL: fn(&Peer) -> bool = |_| true;

impl Bench<'_> {
    pub(crate) fn run(&mut self, subject: &str) -> anyhow::Result<Table> {
        match subject {
            "holds" => self.holds(),
            "tunnels" => self.cases("New tunnels", &tunnel_cases(), self.rounds),
            "bulk" => self.cases("Bulk", &bulk_cases(), self.rounds),
            "http" => self.cases("Plain HTTP, kept alive, 32 at a time", &http_cases(), self.rounds),
            // Memory differs little from one time to the next.
            "idle" => self.cases("Memory", &idle_cases(), 1),
            "start" => self.starts(),
            _ => self.cases("Throughput with many idle tunnels, and with none", &crowd_cases(), self.rounds),
        }
    }

    /// Whatever of the cases this machine and these proxies can do.
    fn cases(&mut self, title: &str, cases: &[Case], rounds: usize) -> anyhow::Result<Table> {
        let columns = cases.iter().flat_map(|case| case.columns.clone());
        let mut table = Table::new(title, columns);
        let first = self.elsewhere.len();
        for _ in 0..rounds {
            let mut column = 0;
            for case in cases {
                self.case(case, column, &mut table)?;
                column += case.columns.len();
            }
        }
        if let Some(elsewhere) = median(&self.elsewhere[first..]).filter(|elsewhere| *elsewhere > CALM) {
            table.note(format!("the machine was not calm: {elsewhere:.2} processors were busy with other things (median)"));
        }
        Ok(table)
    }

    fn case(&mut self, case: &Case, column: usize, table: &mut Table) -> anyhow::Result<()> {
        self.setting.pinned = case.pinned && self.setting.cores.can_pin();
        self.setting.cores.ends(self.setting.pinned)?;
        let _origin = OriginProcess::start()?;
        for peer in self.peers.clone() {
            if (case.fits)(peer) {
                match self.sample(case, peer, table) {
                    Ok(figures) => table.add(peer.name, column, &figures),
                    Err(error) => table.note(format!("{}, {}: {error:#}", peer.name, case.columns[0])),
                }
            }
        }
        Ok(())
    }

    fn wait_for_calm(&mut self) {
        let began = Instant::now();
        while elsewhere_now() > CALM && began.elapsed() < self.patience {}
        self.patience = self.patience.saturating_sub(began.elapsed());
    }

    fn sample(&mut self, case: &Case, peer: &Peer, table: &mut Table) -> anyhow::Result<Vec<f64>> {
        self.wait_for_calm();
        let running = peer.start(&self.setting)?;
        let sample = (case.take)(peer, &running, self.span)?;
        let records = running.end();
        if records < sample.owed && !peer.is_direct() {
            let what = if records == 0 { "it keeps no log".to_owned() } else { format!("{records} records for {}", sample.owed) };
            table.note(format!("{}, {}: {what}", peer.name, case.columns[0]));
        }
        if let Some(note) = sample.note {
            table.note(format!("{}, {}: {note}", peer.name, case.columns[0]));
        }
        self.elsewhere.push(sample.elsewhere);
        Ok(sample.figures)
    }

    fn holds(&mut self) -> anyhow::Result<Table> {
        let mut table = Table::new("Does the list hold?", holds::COLUMNS);
        self.setting.cores.ends(false)?;
        self.setting.pinned = false;
        let _origin = OriginProcess::start()?;
        for peer in self.peers.iter().filter(|peer| !peer.is_direct()) {
            let tried = peer.start(&self.setting).and_then(|_running| holds::try_all(peer));
            match tried {
                Ok(words) => {
                    table.say(peer.name, &words);
                    if peer.filters && words[1] == "passes" {
                        table.note(format!("{} was told to refuse the foreign name, and does not", peer.name));
                    }
                }
                Err(error) if peer.is_ours() => return Err(error.context(peer.name)),
                Err(error) => table.note(format!("{}: {error:#}", peer.name)),
            }
        }
        Ok(table)
    }

    fn starts(&mut self) -> anyhow::Result<Table> {
        let mut table = Table::new(&format!("Start, with a list of {RULES} names"), ["ms to listening"]);
        self.setting.pinned = self.setting.cores.can_pin();
        self.setting.cores.ends(self.setting.pinned)?;
        let names = std::mem::replace(&mut self.setting.names, RULES);
        let _origin = OriginProcess::start()?;
        for _ in 0..self.rounds * STARTS {
            for peer in self.peers.iter().filter(|peer| !peer.is_direct()) {
                match self.start(peer) {
                    Ok(ms) => table.add(peer.name, 0, &[ms]),
                    Err(error) => table.note(format!("{}: {error:#}", peer.name)),
                }
            }
        }
        self.setting.names = names;
        Ok(table)
    }

    /// Milliseconds from fork to the first connection that is taken.
    fn start(&self, peer: &Peer) -> anyhow::Result<f64> {
        peer.configure(&self.setting)?;
        let began = Instant::now();
        let mut running = peer.spawn(&self.setting)?;
        running.wait(peer.entrance())?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }
}

fn tunnel_cases() -> Vec<Case> {
    let case = |at_once: usize, pinned: bool| {
        let before = if pinned { format!("c={at_once}") } else { format!("unpinned c={at_once}") };
        let columns = ["/s", "set-up p50 µs", "p99 µs", "CPU µs"].map(|what| format!("{before}: {what}"));
        let take = move |peer: &Peer, running: &Running, span: Span| {
            let done = tunnels::measure(&peer.route(), running.pid(), at_once, span)?;
            let figures = vec![done.a_second, done.setup_p50, done.setup_p99, done.cpu_each];
            Ok(Sample { figures, owed: done.made, elsewhere: done.elsewhere, note: done.failed })
        };
        Case { pinned, columns: columns.into(), fits: ALL, take: Box::new(take) }
    };
    vec![case(1, true), case(32, true), case(256, true), case(32, false)]
}

fn bulk_cases() -> Vec<Case> {
    let case = |tunnels: usize, pinned: bool| {
        let before = if pinned { format!("{tunnels}") } else { format!("unpinned {tunnels}") };
        let columns = ["Gbit/s", "CPU s per GiB"].map(|what| format!("{before}: {what}"));
        let take = move |peer: &Peer, running: &Running, span: Span| {
            let done = bulk::measure(&peer.route(), running.pid(), tunnels, span)?;
            Ok(Sample { figures: vec![done.gbit, done.cpu_per_gib], owed: 0, elsewhere: done.elsewhere, note: None })
        };
        Case { pinned, columns: columns.into(), fits: ALL, take: Box::new(take) }
    };
    vec![case(1, true), case(8, true), case(8, false)]
}

fn http_cases() -> Vec<Case> {
    let case = |pinned: bool| {
        let columns = ["requests/s", "p50 µs", "p99 µs", "CPU µs each", "on one connection"];
        let columns = columns.map(|what| if pinned { what.to_owned() } else { format!("unpinned: {what}") });
        let take = move |peer: &Peer, running: &Running, span: Span| {
            let web = peer.web().context("no plain HTTP")?;
            let done = http::measure(web, peer.host(), running.pid(), 32, span)?;
            let figures = vec![done.a_second, done.p50, done.p99, done.cpu_each, done.kept];
            Ok(Sample { figures, owed: done.made, elsewhere: done.elsewhere, note: None })
        };
        Case { pinned, columns: columns.into(), fits: |peer| peer.web().is_some(), take: Box::new(take) }
    };
    vec![case(true), case(false)]
}

/// As many as fit: a proxy has two descriptors for a tunnel.
fn that_fit(wanted: usize) -> usize {
    wanted.min((files_limit() - OWN_FILES) / 2 / 500 * 500)
}

fn idle_cases() -> Vec<Case> {
    let case = |count: usize| {
        let count = that_fit(count);
        let columns = ["KiB each".to_owned(), "KiB each, used once".to_owned(), "MiB at rest".to_owned()];
        let columns = columns.map(|what| format!("{count} tunnels: {what}"));
        let take = move |peer: &Peer, running: &Running, _: Span| {
            let proxy = running.pid().context("no proxy")?;
            let done = idle::measure(&peer.route(), proxy, count)?;
            Ok(Sample { figures: vec![done.each, done.each_used, done.at_rest / 1024.0], owed: 0, elsewhere: 0.0, note: None })
        };
        Case { pinned: false, columns: columns.into(), fits: |peer| !peer.is_direct(), take: Box::new(take) }
    };
    vec![case(FEW), case(MANY)]
}

fn crowd_cases() -> Vec<Case> {
    let case = |idle: usize| {
        let idle = that_fit(idle);
        let columns = ["tunnels/s, c=32", "CPU µs each", "Gbit/s, 8 tunnels"].map(|what| format!("{idle} idle: {what}"));
        let take = move |peer: &Peer, running: &Running, span: Span| {
            let kept = open(&peer.route(), idle)?;
            let new = tunnels::measure(&peer.route(), running.pid(), 32, span)?;
            let bulk = bulk::measure(&peer.route(), running.pid(), 8, span)?;
            idle::use_each(&kept)?;
            let elsewhere = f64::midpoint(new.elsewhere, bulk.elsewhere);
            Ok(Sample { figures: vec![new.a_second, new.cpu_each, bulk.gbit], owed: 0, elsewhere, note: None })
        };
        let fits = |peer: &Peer| peers::CROWD.contains(&peer.name);
        Case { pinned: true, columns: columns.into(), fits, take: Box::new(take) }
    };
    vec![case(0), case(MANY - 1_000)]
}
