//! Memory: of a proxy that has just served its first tunnel, with many idle ones, and after each of those was used once more.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::cost::resident;
use crate::socket::{hear, say};
use crate::tunnel::{Route, Tunnel, open};
use crate::wire::{ECHO, ECHOED};

pub(crate) struct Measured {
    /// KiB before.
    pub(crate) at_rest: f64,
    /// KiB for each tunnel.
    pub(crate) each: f64,
    /// The same, after a few bytes went through each.
    pub(crate) each_used: f64,
}

/// Memory is settled when it has stayed the same for so long.
const STILL: Duration = Duration::from_millis(300);
const SETTLING: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures one proxy with so many tunnels.
pub(crate) fn measure(route: &Route, proxy: u32, count: usize) -> anyhow::Result<Measured> {
    // What is made when it is first needed belongs to the program, not to its tunnels.
    drop(open(route, 1)?);
    let at_rest = settled(proxy);
    let tunnels = open(route, count)?;
    let with = settled(proxy);
    use_each(&tunnels)?;
    let after = settled(proxy);
    let each = |with: f64| (with - at_rest) / count as f64;
    Ok(Measured { at_rest, each: each(with), each_used: each(after) })
}

fn settled(proxy: u32) -> f64 {
    let end = Instant::now() + SETTLING;
    let mut last = resident(proxy);
    loop {
        thread::sleep(STILL);
        let now = resident(proxy);
        // Within a page or two.
        if (now - last).abs() < 16.0 || Instant::now() > end {
            return now;
        }
        last = now;
    }
}

/// Sends a byte through every tunnel and takes its answer: an idle tunnel that is dead is no idle tunnel.
pub(crate) fn use_each(tunnels: &[Tunnel]) -> anyhow::Result<()> {
    let mut buffer = [0; ECHOED];
    for (n, tunnel) in tunnels.iter().enumerate() {
        ensure!(say(&tunnel.socket, &[ECHO])? == 1, "tunnel {n} takes nothing");
        let (mut got, end) = (0, Instant::now() + PATIENCE);
        while got < ECHOED {
            match hear(&tunnel.socket, &mut buffer[got..])? {
                Some(heard) => {
                    ensure!(!heard.is_empty() && heard.iter().all(|byte| *byte == ECHO), "tunnel {n} is dead");
                    got += heard.len();
                }
                None => {
                    ensure!(Instant::now() < end, "tunnel {n} does not answer");
                    thread::yield_now();
                }
            }
        }
    }
    Ok(())
}
