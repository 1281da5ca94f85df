//! What it costs to see every flow: a listing of 10,000 sockets beside `ss -tin`, a watch over them, and what a watch takes
//! of memory; and whether a burst of short connections is seen whole.
//!
//! `cargo bench -p egret-flows --bench watch`, with Debian's iproute2 and util-linux. Everything happens in a network of its
//! own, where 198.18.0.0/15 leads back to this machine.
//!
//! On a shared 2-core machine, Linux 6.18, 2026-11, release build without LTO:
//!
//! | | |
//! |---|---|
//! | a listing of 10,000 sockets with their counters | 10 to 11 ms; beside other work twice that and more |
//! | the same by `ss -tin` | 56 ms |
//! | a watch over them, one listing a second | 1.4 % of a processor |
//! | memory | 287 octets a socket, of which some 210 are the table |
//! | 10,000 connections of 0.1 ms to 4 ms | all seen, no loss |

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use egret_flows::diag::{Direction, Family, Protocol, Which};
use egret_flows::netlink::Netlink;
use egret_flows::{Event, Flow, Options, Watch};

const CONNECTIONS: usize = 5_000;
const ROUNDS: usize = 21;
const WATCHED: Duration = Duration::from_secs(20);
const BURST: usize = 10_000;
const INSIDE: &str = "EGRET_BENCH_NETWORK";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        return enter_a_network();
    }
    let (listener, to) = listener();
    let (watch, told) = watch();
    until(&told, 0);
    let before = own_memory();
    let held: Vec<_> =
        (0..CONNECTIONS).map(|_| (TcpStream::connect(to).expect("a connection"), listener.accept().expect("it"))).collect();
    println!("{} sockets", held.len() * 2);
    let mut netlink = Netlink::open().expect("netlink");
    println!("a listing                {:?}", median(|| assert_eq!(list(&mut netlink), CONNECTIONS * 2)));
    println!("ss -tin                  {:?}", median(ss));
    until(&told, CONNECTIONS * 2);
    println!("memory                   {} octets a socket", own_memory().saturating_sub(before) / (CONNECTIONS * 2));
    idle();
    watch.stop();
    drop(held);
    burst(&listener, to);
}

fn enter_a_network() {
    let script = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && exec \"$0\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--", "sh", "-c", script]).arg(std::env::current_exe().expect("this program"));
    assert!(unshare.env(INSIDE, "1").status().expect("unshare runs").success());
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, SocketAddr::from(([198, 18, 0, 7], port)))
}

fn list(netlink: &mut Netlink) -> usize {
    let mut sockets = 0;
    for family in [Family::V4, Family::V6] {
        netlink.list(family, Protocol::Tcp, Which::Flows, |_| sockets += 1).expect("a listing");
    }
    sockets
}

fn ss() {
    let mut ss = Command::new("ss").arg("-tin").stdout(Stdio::null()).spawn().expect("ss runs");
    assert!(ss.wait().expect("ss ends").success());
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

/// A watch, and the numbers of sockets that it lists.
fn watch() -> (Watch, Receiver<usize>) {
    let (tell, told) = channel();
    let watch = Watch::start(Options::default(), move |event| {
        if let Event::Listed(listed) = event {
            let _ = tell.send(listed.sockets);
        }
    });
    (watch.expect("a watch"), told)
}

/// Waits until so many were listed, and until it was looked who holds them, which is done in portions.
fn until(told: &Receiver<usize>, sockets: usize) {
    assert_eq!(told.iter().filter(|listed| *listed == sockets).nth(6), Some(sockets));
}

/// What a watch takes at one listing a second.
fn idle() {
    let (before, began) = (busy(), Instant::now());
    thread::sleep(WATCHED);
    let share = (busy() - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    println!("a watch                  {share:.2} % of a processor at one listing a second");
}

/// Clock ticks of this process, of which Linux has a hundred a second.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// Octets of memory that is this process's alone.
fn own_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// The burst goes to addresses of its own.
fn is_of_the_burst(flow: &Flow) -> bool {
    flow.peer.is_some_and(|peer| peer.ip().to_string().starts_with("198.18.1."))
}

/// Connections that carry a little and end, as fast as two threads make them.
fn burst(listener: &TcpListener, to: SocketAddr) {
    let ended = Arc::new(AtomicUsize::new(0));
    let lost = Arc::new(AtomicUsize::new(0));
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let (counted, losses) = (Arc::clone(&ended), Arc::clone(&lost));
    let watch = Watch::start(Options::default(), move |event| match event {
        Event::Ended(flow, _) if flow.direction == Some(Direction::Out) && is_of_the_burst(&flow) => {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Event::Lost(_) => {
            losses.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    });
    let watch = watch.expect("a watch");
    let server = listener.try_clone().expect("a copy");
    let accepting = thread::spawn(move || {
        for _ in 0..BURST {
            let (mut server, _) = server.accept().expect("a client");
            let mut octet = [0];
            server.read_exact(&mut octet).and_then(|()| server.write_all(&octet)).expect("an exchange");
            drop(server.read(&mut octet));
        }
    });
    let began = Instant::now();
    for number in 0..BURST {
        let to = SocketAddr::from(([198, 18, 1, u8::try_from(number % 8).expect("small")], to.port()));
        let opened = Instant::now();
        let mut client = TcpStream::connect(to).expect("a connection");
        client.write_all(&[1]).and_then(|()| client.read_exact(&mut [0])).expect("an exchange");
        drop(client);
        let mut longest = longest.lock().expect("no panic");
        *longest = longest.max(opened.elapsed());
    }
    let took = began.elapsed();
    accepting.join().expect("it accepts");
    let end = Instant::now() + Duration::from_secs(5);
    while ended.load(Ordering::Relaxed) < BURST && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    let (seen, lost, longest) = (ended.load(Ordering::Relaxed), lost.load(Ordering::Relaxed), longest.lock().expect("no panic"));
    println!("{BURST} short connections  {seen} seen, {lost} losses told, in {took:?}, the longest {longest:?}");
    watch.stop();
}
