//! What a process and all it started cost, from `/proc`: processor time (proc_pid_stat(5), in ticks of 10 ms), memory
//! (`smaps_rollup`), and what the rest of the machine did meanwhile.

use std::fs;
use std::time::{Duration, Instant};

/// Ticks a second: USER_HZ, which is 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A process and its descendants, the process first.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let threads = fs::read_dir(format!("/proc/{}/task", found[at])).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> =
            children.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
        found.extend(children);
        at += 1;
    }
    found
}

/// Processor seconds of a family, those of reaped children included.
fn seconds(pid: u32) -> f64 {
    let of = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).to_owned();
        // utime, stime, cutime, cstime: fields 14 to 17, of which two went with the name.
        fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    family(pid).iter().map(of).sum::<u64>() as f64 / TICKS
}

/// Processor seconds of the whole machine.
fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // All but idle and iowait; guests are counted in user.
    let busy: u64 = fields.iter().take(8).enumerate().filter(|(n, _)| *n != 3 && *n != 4).map(|(_, field)| field).sum();
    busy as f64 / TICKS
}

/// Begun when a measurement begins.
pub(crate) struct Meter {
    proxy: Option<u32>,
    began: Instant,
    at_start: f64,
    others_at_start: f64,
}

/// What was used since.
pub(crate) struct Used {
    pub(crate) time: Duration,
    /// Processor seconds of the proxy.
    pub(crate) cpu: f64,
    /// Processors that neither the bench nor the proxy had.
    pub(crate) elsewhere: f64,
}

impl Meter {
    pub(crate) fn start(proxy: Option<u32>) -> Self {
        Self { proxy, at_start: proxy.map_or(0.0, seconds), others_at_start: others(), began: Instant::now() }
    }

    pub(crate) fn read(&self) -> Used {
        let time = self.began.elapsed();
        let cpu = self.proxy.map_or(0.0, seconds) - self.at_start;
        let elsewhere = ((others() - self.others_at_start) / time.as_secs_f64()).max(0.0);
        Used { time, cpu, elsewhere }
    }
}

/// Processor seconds of whatever is no child of the bench.
fn others() -> f64 {
    machine() - seconds(std::process::id())
}

/// Processors that something else uses now.
pub(crate) fn elsewhere_now() -> f64 {
    let meter = Meter::start(None);
    std::thread::sleep(GLANCE);
    meter.read().elsewhere
}

/// Ten ticks.
const GLANCE: Duration = Duration::from_millis(100);

/// Resident memory of a family in KiB. Of several processes, pages that they share count once.
pub(crate) fn resident(pid: u32) -> f64 {
    let family = family(pid);
    let field = if family.len() == 1 { "Rss:" } else { "Pss:" };
    let of = |pid: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or_default()
    };
    family.iter().map(of).sum()
}
