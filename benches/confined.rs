//! What it costs an app to be held: connect(2) to an allowed literal address, through egret and not, and beside ptrace; calls
//! that egret is not asked about; a start.
//!
//! `cargo bench --bench confined`, with Debian's iproute2, python3 and util-linux, and strace for its row. Everything happens in a
//! network of its own, where 44.0.0.0/24 leads back to this machine, so that the policy takes it for the world outside. Rounds
//! take turns; of each round the median or the rate, and of the rounds the median.
//!
//! On a shared 2-core machine, Linux 6.18, 2026-11, release build without LTO, 5 rounds:
//!
//! | | direct | confined | strace -f |
//! |---|---|---|---|
//! | one connect, answered when its upstream is connected | 19.7 µs | 87.6 µs | 99.2 µs |
//! | a call that nobody is asked about | 121 ns | 154 ns | 89 µs |
//! | 8 threads | 22,000/s | 8,400/s | 13,200/s |
//! | `true` | 0.6 ms | 12 ms | |
//!
//! Since then no thread of the runtime is woken while the app waits: 82 µs where the program of before took 97, in one run in which
//! direct took 18 (2026-11-22, a busier hour; one connect after the other), and an eighth to a fifth more connects by 8 threads.
//!
//! Of a confined connect about 15 µs are the question and the answer (`confine/benches/connect.rs`, where nobody dials); the rest is
//! a second connection, the record, and threads that wake one another. The first filter of a process makes any call 30 ns dearer.
//! Under a container's profile, which is such a filter already, egret's makes no difference that could be measured: 155.0 ns with
//! the profile alone, 155.1 ns with both (2026-11-22, the same machine, 21 rounds in turn; 129.3 ns without any filter).

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
/// Where nanoseconds matter.
const FINE_ROUNDS: usize = 21;
const CONNECTS: usize = 4_000;
/// How long calls are made, and how many between two looks at the clock.
const CALLING: Duration = Duration::from_millis(200);
const CALLS: u32 = 1_000;
const THREADS: usize = 8;
const BURST: Duration = Duration::from_secs(2);
const STARTS: usize = 21;
/// More than all threads have under way.
const BACKLOG: i32 = 4096;
/// Connections that the server keeps.
const KEPT: usize = 512;
/// Leads to this machine, and is none of its addresses.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(44, 0, 0, 7);
/// Installs the profile, and becomes what follows.
const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/confine/tests/confined/profile.py");
/// Set where the bench runs in its own network.
const INSIDE: &str = "EGRET_BENCH_NETWORK";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["connects", port] => println!("{}", connects(port.parse().expect("a port"))),
        ["calls"] => println!("{}", calls()),
        ["burst", port] => println!("{}", burst(port.parse().expect("a port"))),
        _ if std::env::var_os(INSIDE).is_some() => compare(),
        _ => enter_a_network(),
    }
}

/// Begins again as root of a network of its own.
fn enter_a_network() {
    let script = "ip link set lo up && ip route add local 44.0.0.0/24 dev lo && exec \"$0\"";
    let me = std::env::current_exe().expect("a name");
    let error = Command::new("unshare").args(["-r", "-n", "sh", "-c", script]).arg(me).env(INSIDE, "1").exec();
    panic!("no network of its own: {error}");
}

fn compare() {
    let port = serve();
    let home = tempfile::TempDir::new().expect("a folder");
    let policy = home.path().join("policy.yaml");
    let text = format!("version: 1\negress:\n  allow:\n    - {{ to: 44.0.0.0/24, ports: [{port}], as: tcp }}\n");
    std::fs::write(&policy, text).expect("a policy");
    let held = || Way::Held(policy.clone());
    let ways = [("direct", Way::Direct), ("confined", held()), ("strace -f", Way::Traced)];
    let ways: Vec<_> = ways.into_iter().filter(|(_, way)| way.is_there()).collect();
    let port = port.to_string();
    for (what, work, unit) in [
        ("one connect", vec!["connects", &port], "µs"),
        ("getppid", vec!["calls"], "ns"),
        ("8 threads", vec!["burst", &port], "connects/s"),
    ] {
        in_turn(what, &ways, &work, ROUNDS, unit);
    }
    let in_a_container = |way| Way::Profiled(Box::new(way));
    let contained = [("profile", in_a_container(Way::Direct)), ("and held", in_a_container(held()))];
    in_turn("getppid", &contained, &["calls"], FINE_ROUNDS, "ns");
    let starts = |way: &Way| median((0..STARTS).map(|_| way.start()).collect());
    for (name, way) in ways.iter().take(2) {
        println!("{:12}  {name:10}  {:>10.1} ms", "run true", starts(way));
    }
}

/// Rounds of all ways in turn, and of each the median.
fn in_turn(what: &str, ways: &[(&str, Way)], work: &[&str], rounds: usize, unit: &str) {
    let mut figures = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for ((_, way), figures) in ways.iter().zip(&mut figures) {
            figures.push(way.run(work));
        }
    }
    for ((name, _), figures) in ways.iter().zip(figures) {
        println!("{what:12}  {name:10}  {:>10.1} {unit}", median(figures));
    }
}

/// How the work is run.
enum Way {
    Direct,
    /// With this policy.
    Held(PathBuf),
    Traced,
    /// Under a seccomp profile like those of container runtimes, and then this way.
    Profiled(Box<Way>),
}

impl Way {
    fn is_there(&self) -> bool {
        !matches!(self, Self::Traced) || Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok()
    }

    fn command(&self, program: PathBuf) -> Command {
        match self {
            Self::Direct => Command::new(program),
            Self::Held(policy) => {
                let mut egret = Command::new(env!("CARGO_BIN_EXE_egret"));
                egret.args(["run", "--confine", "require", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
                egret.args(["--journal", "/dev/null", "--policy"]).arg(policy).arg("--").arg(program);
                egret
            }
            Self::Traced => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-o", "/dev/null"]).arg(program);
                strace
            }
            Self::Profiled(way) => {
                let inner = way.command(program);
                let mut profile = Command::new("/usr/bin/python3");
                profile.arg(PROFILE).arg(inner.get_program()).args(inner.get_args());
                profile
            }
        }
    }

    /// Runs this bench's own work, and gives the figure that it prints.
    fn run(&self, work: &[&str]) -> f64 {
        let output = self.command(std::env::current_exe().expect("a name")).args(work).stderr(Stdio::inherit()).output();
        let said = String::from_utf8(output.expect("it runs").stdout).expect("text");
        said.trim().parse().unwrap_or_else(|_| panic!("no figure: {said}"))
    }

    /// Milliseconds from the start of `true` to its end.
    fn start(&self) -> f64 {
        let began = Instant::now();
        assert!(self.command("true".into()).status().expect("it runs").success());
        began.elapsed().as_secs_f64() * 1e3
    }
}

/// A server that takes what comes, and forgets it when the client has long gone.
fn serve() -> u16 {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).expect("a port");
    socket.listen(BACKLOG).expect("a server");
    let listener = TcpListener::from(socket);
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let mut taken = Vec::with_capacity(KEPT);
        for stream in listener.incoming().map_while(Result::ok) {
            if taken.len() == KEPT {
                taken.clear();
            }
            taken.push(stream);
        }
    });
    port
}

/// Closes without leaving a port waiting.
fn end(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The median of one connect after the other, in microseconds.
fn connects(port: u16) -> f64 {
    let to = SocketAddr::from((OUTSIDE, port));
    let one = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let began = Instant::now();
        socket.connect(&to.into()).expect("an allowed address");
        let took = began.elapsed();
        end(&TcpStream::from(socket));
        took.as_secs_f64() * 1e6
    };
    median((0..CONNECTS).map(|_| one()).collect())
}

/// Nanoseconds of a call that nobody is asked about.
fn calls() -> f64 {
    let (began, mut made) = (Instant::now(), 0);
    while began.elapsed() < CALLING {
        for _ in 0..CALLS {
            std::hint::black_box(rustix::process::getppid());
        }
        made += CALLS;
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(made)
}

/// Connects a second, of several threads at once.
fn burst(port: u16) -> f64 {
    let to = SocketAddr::from((OUTSIDE, port));
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(stream) = TcpStream::connect(to) {
                        end(&stream);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        thread::sleep(BURST);
        over.store(true, Ordering::Relaxed);
    });
    done.load(Ordering::Relaxed) as f64 / BURST.as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
