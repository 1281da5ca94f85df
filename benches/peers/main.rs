//! egret beside what a user would put in its place, as whole programs, each with a list of names and logging on.
//!
//!     cargo bench --bench peers
//!
//! measures egret and whichever of the peers in `peers.rs` are installed: Debian's `squid-openssl tinyproxy haproxy microsocks
//! dante-server privoxy nginx-light libnginx-mod-stream sniproxy`, with `iproute2 util-linux`; others where a variable names them. As
//! root all of them start; without, in a user namespace, those do that need no second user. It takes less than 15 minutes.
//! `-- --only egret,squid --subject tunnels` takes seconds; `-- --help` says what else there is. Where others use the machine,
//! `chrt -r 20` before it, once it is built, keeps them off; a table says how busy they were.
//!
//! Everything happens in a network of its own on loopback, where both ends (the generator here, the origin in a second process)
//! have one processor and the proxy has another, or, unpinned, all have both. Rounds take turns between the proxies, each of
//! which is started anew for its sample; a table has the medians. A sample counts only what is proven: a tunnel when the
//! proxy said yes and every byte of the origin's flight came, a stream when its words are those that were sent, a request when
//! its body came whole, and all when the origin counted as many. `direct` is the same without a proxy. What the last full run
//! gave is in `results.md`.
//!
//! # Where the time goes
//!
//! Of the 97 µs of processor that a tunnel takes (32 at a time, pinned; `perf record -g` by `--under`, 2026-11, of 6c8d760) 81 %
//! are the kernel's: connect(2) and what it wakes 19, send(2) 19, close(2) 15, shutdown(2) 5, epoll_ctl(2) 5, recv(2) and
//! socket(2) 4 each, accept(2) 2; 5 % are malloc and memmove, 14 % egret and tokio, spread thin. haproxy's 76 µs are 89 % the
//! kernel's: 68 µs against 78, and 8 of its own against 19. What it does not do: read a CONNECT and answer it (a receive and a
//! send more), and look at every other socket of the network (netlink, some 5 µs: `--flows 0` leaves it out).
//!
//! So these aims were not reached on this machine: as many tunnels a second as a bare router of TLS (0.7 of nginx, with CONNECT
//! and without), and a tunnel that stands in 100 µs (128, of which `direct` takes 56). Twice 9,500 descriptors are what it
//! gives to a process; 20,000 tunnels were not tried.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

mod cost;
mod holds;
mod load;
mod options;
mod origin;
mod peers;
mod place;
mod socket;
mod subjects;
mod table;
mod tunnel;
mod wire;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::options::{Options, USAGE};
use crate::peers::{Peer, Setting};
use crate::place::Cores;
use crate::subjects::{Bench, SUBJECTS};

/// How long all samples together wait for a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "origin") {
        place::files_limit();
        return origin::run();
    }
    if arguments.iter().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return Ok(());
    }
    let options = Options::read(arguments.into_iter())?;
    place::enter()?;
    compare(&options)
}

fn compare(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix("peers.").tempdir()?;
    open_to_all(folder.path())?;
    place::furnish(folder.path())?;
    let cores = Cores::find()?;
    let setting = Setting {
        folder: folder.path(),
        cores: &cores,
        pinned: false,
        names: 1,
        egret: options.egret.clone(),
        other: options.other.clone(),
        under: options.under.clone(),
    };
    let peers = chosen(options, &setting)?;
    let mut text = heading(&peers, &setting, options);
    let (rounds, span, elsewhere) = (options.rounds, options.span, Vec::new());
    let mut bench = Bench { setting, peers, rounds, span, elsewhere, patience: PATIENCE };
    print!("{text}");
    for subject in SUBJECTS.into_iter().filter(|subject| options.wants(subject)) {
        let table = bench.run(subject)?.print();
        println!("{table}");
        let _ = writeln!(text, "{table}");
    }
    let took = format!("{} s in all.\n", began.elapsed().as_secs());
    print!("{took}");
    if options.save {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/results.md"), text + &took)?;
    }
    Ok(())
}

/// Peers change to users of theirs, which must write their logs here. What the folder holds is the bench's own.
fn open_to_all(folder: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
    let identity = rcgen::generate_simple_self_signed(vec!["bench.test".to_owned()])?;
    Ok(fs::write(folder.join("squid.pem"), identity.signing_key.serialize_pem() + &identity.cert.pem())?)
}

/// The proxies that are asked for and there.
fn chosen(options: &Options, setting: &Setting) -> anyhow::Result<Vec<&'static Peer>> {
    if let Some(unknown) = options.only.iter().find(|name| peers::ALL.iter().all(|peer| peer.name != **name)) {
        let names: Vec<&str> = peers::ALL.iter().map(|peer| peer.name).collect();
        anyhow::bail!("there is no {unknown}; there are {}", names.join(", "));
    }
    let wanted = |peer: &&Peer| options.only.is_empty() || options.only.iter().any(|name| name == peer.name);
    let there = |peer: &&Peer| peer.is_direct() || peer.path(setting).is_some();
    let (peers, missing): (Vec<&Peer>, Vec<&Peer>) = peers::ALL.iter().filter(wanted).partition(there);
    let missing: Vec<&str> = missing.iter().filter(|peer| !peer.is_ours()).map(|peer| peer.name).collect();
    ensure!(options.only.is_empty() || missing.is_empty(), "not installed: {}", missing.join(", "));
    if !missing.is_empty() {
        println!("Not installed, so not measured: {}.\n", missing.join(", "));
    }
    Ok(peers)
}

fn heading(peers: &[&Peer], setting: &Setting, options: &Options) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown", |(_, name)| name);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!("# egret and its peers\n\n{now}, Linux {}, {cpu}, {cores} processors, ", kernel.trim());
    let _ = writeln!(text, "egret of {}, {} rounds of {:?}; medians.\n", commit(), options.rounds, options.span.counted);
    let mut said = Vec::new();
    for peer in peers {
        let version = peer.version(setting);
        if !version.is_empty() && !said.contains(&version) {
            let _ = writeln!(text, "- {}: {version}", peer.name);
            said.push(version);
        }
    }
    text.push('\n');
    text
}

/// What is measured: the commit, and whether the files differ from it.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let said = git.context("git").map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.ok().filter(|said| !said.is_empty()).unwrap_or_else(|| "an unknown commit".to_owned())
}
