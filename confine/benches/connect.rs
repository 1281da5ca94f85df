//! What a connect costs: `cargo bench -p egret-confine --bench connect`.
//!
//! This binary runs itself as the app: directly, confined, and, if it is installed, under `strace -f`. The app connects to a
//! listener on loopback, blocking, and closes. Rounds are interleaved, and what is printed is the median of the rounds: of the
//! time of one connect at p50, of getpid(2), which the filter does not ask about, and of connects per second by eight threads.
//!
//! Linux 6.18, two virtual CPUs (AMD EPYC) that others use as well, release build, no outer seccomp profile:
//!
//! | | socket, p50 | connect, p50 | getpid | connects/s |
//! |---|---|---|---|---|
//! | direct | 2.5 µs | 24.2 µs | 166 ns | 19 k |
//! | through | 13.5 µs | 39.6 µs | 229 ns | 13 k |
//! | `strace -f` | 19.8 µs | 47.6 µs | 28 µs | 9 k |
//!
//! Of the connects per second a good part is the listener's own: it accepts and closes on the same two CPUs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use egret_confine::{Egress, NoNames, Options, Reply, Request, launch, probe};

const ROUNDS: usize = 5;
const CONNECTS: usize = 4000;
const THREADS: u64 = 8;
const FLOOD: Duration = Duration::from_secs(1);

/// What one run of the app measured: nanoseconds of a socket and of a connect, of getpid, and connects per second.
type Figures = [u64; 4];

struct Through(SocketAddr);

impl Egress for Through {
    fn connect(&self, _: Request, reply: Reply) {
        reply.through(self.0, |_| {});
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("app") => app(std::env::args().nth(2).and_then(|address| address.parse().ok()).expect("an address")),
        _ => compare(),
    }
}

fn compare() {
    let proxy = listener();
    let has_strace = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    let found = probe().expect("a probe");
    let (mut direct, mut through, mut traced) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(finish(command(&[], proxy).spawn().expect("the app")));
        let confined = launch(command(&[], proxy), Options::default(), &found, Through(proxy), NoNames);
        let mut confined = confined.expect("a launch");
        let out = confined.child.stdout.take();
        through.push(read(out));
        confined.child.wait().expect("its end");
        confined.finish();
        if has_strace {
            let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=connect"];
            traced.push(finish(command(&strace, proxy).spawn().expect("strace")));
        }
    }
    print("direct", direct);
    print("through", through);
    print("strace -f", traced);
}

/// A listener that accepts and closes, on two threads.
fn listener() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    // Room for all who come at once: whoever finds none tries again after a second.
    rustix::net::listen(&listener, 4096).expect("room");
    let address = listener.local_addr().expect("an address");
    for _ in 0..2 {
        let listener = listener.try_clone().expect("a copy");
        thread::spawn(move || listener.incoming().for_each(drop));
    }
    address
}

fn command(before: &[&str], proxy: SocketAddr) -> Command {
    let this = std::env::current_exe().expect("a name");
    let mut command = match before.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(this);
            command
        }
        None => Command::new(this),
    };
    command.args(["app", &proxy.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn finish(mut child: std::process::Child) -> Figures {
    let figures = read(child.stdout.take());
    child.wait().expect("its end");
    figures
}

fn read(out: Option<impl Read>) -> Figures {
    let mut text = String::new();
    out.expect("a pipe").read_to_string(&mut text).expect("figures");
    let mut figures = text.split_whitespace().map(|figure| figure.parse().expect("a number"));
    std::array::from_fn(|_| figures.next().expect("a figure"))
}

fn print(name: &str, runs: Vec<Figures>) {
    if runs.is_empty() {
        return;
    }
    let median = |column: usize| {
        let mut values: Vec<u64> = runs.iter().map(|run| run[column]).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let micros = |column: usize| median(column) as f64 / 1000.0;
    let line = format!(
        "{name:10} socket {:5.1} µs, connect {:5.1} µs, getpid {} ns, {} connects/s\n",
        micros(0),
        micros(1),
        median(2),
        median(3)
    );
    std::io::stdout().write_all(line.as_bytes()).expect("a terminal");
}

fn app(to: SocketAddr) {
    let (mut sockets, mut connects) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTS {
        let begun = Instant::now();
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        let made = Instant::now();
        rustix::net::connect(&socket, &to).expect("a connection");
        connects.push(made.elapsed());
        sockets.push(made - begun);
        linger_not(&socket);
    }
    let begun = Instant::now();
    for _ in 0..50_000 {
        std::hint::black_box(rustix::process::getpid());
    }
    let getpid = begun.elapsed() / 50_000;
    let figures = [p50(sockets), p50(connects), nanos(getpid), flood(to)];
    let line = figures.map(|figure| figure.to_string()).join(" ");
    std::io::stdout().write_all(line.as_bytes()).expect("a pipe");
}

fn flood(to: SocketAddr) -> u64 {
    let done = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while begun.elapsed() < FLOOD {
                    linger_not(TcpStream::connect(to).expect("a connection"));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.load(Ordering::Relaxed) * 1000 / u64::try_from(begun.elapsed().as_millis()).expect("a short time")
}

/// Has the port be free at once.
fn linger_not(socket: impl std::os::fd::AsFd) {
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).expect("an option");
}

fn p50(mut times: Vec<Duration>) -> u64 {
    times.sort_unstable();
    nanos(times[times.len() / 2])
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a short time")
}
