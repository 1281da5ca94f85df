//! The watch against the kernel, each test in a network namespace of its own, where 198.18.0.0/15 and 2001:2::/48 (the ranges
//! for benchmarking, RFC 2544 and RFC 5180) lead back to this machine. Nothing leaves it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use egret_flows::diag::{Direction, Protocol};
use egret_flows::known::End;
use egret_flows::watch::{Lost, Part};
use egret_flows::{Event, Flow, Options, Ours, Unseen, Watch};
use rustix::process::geteuid;
use socket2::{Domain, SockRef, Socket, Type};

/// Set where a test runs in its own network.
const INSIDE: &str = "EGRET_FLOWS_NETWORK";
/// How long anything is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
const SERVER: &str = "198.18.0.7";

/// Runs the test again in a network of its own.
fn in_a_network(test: &str, inside: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let script = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && ip -6 route add local 2001:2::/48 dev lo && \
                  exec \"$@\"";
    let user: &[&str] = if geteuid().is_root() { &[] } else { &["--map-root-user"] };
    let possible = Command::new("unshare").args(user).args(["--net", "--", "true"]).output().expect("unshare runs");
    if !possible.status.success() {
        assert!(std::env::var_os("EGRET_TEST_ALL").is_none(), "no namespaces: {possible:?}");
        drop(writeln!(std::io::stderr(), "*** NOT TESTED: no namespaces ***"));
        return;
    }
    let mut again = Command::new("unshare");
    again.args(user).args(["--net", "--", "sh", "-c", script, "sh"]).arg(std::env::current_exe().expect("this program"));
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let ran = again.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").env("PATH", path).output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

/// A watch, and what it told.
struct Watched {
    watch: Watch,
    told: Receiver<Event>,
    seen: Vec<Event>,
}

impl Watched {
    fn start(options: Options) -> Self {
        let (tell, told) = channel();
        let watch = Watch::start(options, move |event| drop(tell.send(event))).expect("the kernel lists sockets");
        let mut watched = Self { watch, told, seen: Vec::new() };
        watched.wait("a listing", |event| matches!(event, Event::Listed(_)).then_some(()));
        watched
    }

    fn often() -> Self {
        Self::start(Options { every: Duration::from_millis(50), ..Options::default() })
    }

    /// Only the first listing, until something has ended that it did not meet.
    fn once() -> Self {
        Self::start(Options { every: DEADLINE * 10, ..Options::default() })
    }

    /// The first that was told, or will be, of which `pick` gives something.
    fn wait<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        if let Some(found) = self.seen.iter().find_map(&pick) {
            return found;
        }
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.told.recv_timeout(left).unwrap_or_else(|_| panic!("not told: {what}\n{:#?}", self.seen));
            let found = pick(&event);
            self.seen.push(event);
            if let Some(found) = found {
                return found;
            }
        }
    }

    fn began(&mut self, to: SocketAddr) -> Flow {
        self.wait(&format!("a beginning, {to}"), |event| match event {
            Event::Began(flow) if flow.peer == Some(to) => Some(flow.clone()),
            _ => None,
        })
    }

    fn ended(&mut self, to: SocketAddr) -> (Flow, End) {
        self.wait(&format!("an end, {to}"), |event| match event {
            Event::Ended(flow, end) if flow.peer == Some(to) => Some((flow.clone(), *end)),
            _ => None,
        })
    }

    /// Whether the beginning of a flow there was told within a tenth of a second.
    fn is_met(&mut self, to: SocketAddr) -> bool {
        let end = Instant::now() + Duration::from_millis(100);
        while let Ok(event) = self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(event);
        }
        self.seen.iter().any(|event| matches!(event, Event::Began(flow) if flow.peer == Some(to)))
    }

    /// The number of whole listings told so far, and one more.
    fn another_listing(&mut self) {
        self.seen.retain(|event| !matches!(event, Event::Listed(_)));
        // The one under way may have begun before.
        for _ in 0..2 {
            self.wait("another listing", |event| matches!(event, Event::Listed(_)).then_some(()));
            self.seen.pop();
        }
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a port");
    let port = listener.local_addr().expect("loopback works").port();
    (listener, SocketAddr::new(SERVER.parse().expect("loopback works"), port))
}

fn connect(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(to).expect("a connection");
    (client, listener.accept().expect("it is accepted").0)
}

/// Carries so many octets each way and ends in order, the client first.
fn exchange(mut client: TcpStream, mut server: TcpStream, up: usize, down: usize) {
    client.write_all(&vec![1; up]).expect("loopback works");
    server.read_exact(&mut vec![0; up]).expect("loopback works");
    server.write_all(&vec![2; down]).expect("loopback works");
    client.read_exact(&mut vec![0; down]).expect("loopback works");
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).expect("loopback works"), 0);
}

#[test]
fn a_live_flow_has_its_holder_and_both_ends_their_direction() {
    in_a_network("a_live_flow_has_its_holder_and_both_ends_their_direction", || {
        let (listener, to) = listener();
        let mut watched = Watched::often();
        let (mut client, mut server) = connect(&listener, to);
        let from = client.local_addr().unwrap();
        client.write_all(&[1; 700]).unwrap();
        server.read_exact(&mut [0; 700]).unwrap();
        let flow = watched.began(to);
        assert_eq!((flow.local, flow.protocol, flow.uid), (from, Protocol::Tcp, Some(geteuid().as_raw())));
        let holder = flow.holder.expect("this process");
        assert_eq!((holder.pid, holder.exe.clone()), (std::process::id(), std::env::current_exe().ok()));
        assert_eq!(holder.container, None, "it is here");
        assert_eq!(watched.began(from).peer, Some(from), "the accepted one is a flow too");
        watched.another_listing();
        let live = watched.watch.flows();
        let of = |peer| live.iter().find(|flow| flow.peer == Some(peer)).map(|flow| (flow.direction, flow.octets.sent));
        assert_eq!(of(to), Some((Some(Direction::Out), 700)));
        assert_eq!(of(from), Some((Some(Direction::In), 0)));
        let listening = watched.wait("a listing", |event| match event {
            Event::Listed(listed) if !listed.listening.is_empty() => Some(listed.listening.clone()),
            _ => None,
        });
        assert_eq!(listening, [to.port()]);
        exchange(client, server, 300, 40);
        let (flow, end) = watched.ended(to);
        assert_eq!((flow.octets.sent, end), (1000, End::Told));
        assert!((40..=41).contains(&flow.octets.received), "the other side's FIN may count: {flow:?}");
    });
}

#[test]
fn none_of_ten_thousand_short_connections_is_missed() {
    in_a_network("none_of_ten_thousand_short_connections_is_missed", || {
        const CONNECTIONS: usize = 10_000;
        let (listener, to) = listener();
        let watched = Watched::once();
        let accepting = thread::spawn(move || {
            for _ in 0..CONNECTIONS {
                let (mut server, _) = listener.accept().unwrap();
                let mut asked = [0; 10];
                server.read_exact(&mut asked).unwrap();
                server.write_all(&asked).unwrap();
                assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
            }
        });
        let mut locals = BTreeSet::new();
        for number in 0..CONNECTIONS {
            // Several addresses, so that no port is in use still.
            let to = SocketAddr::new([198, 18, 1, u8::try_from(number % 8).unwrap()].into(), to.port());
            let mut client = TcpStream::connect(to).unwrap();
            locals.insert((client.local_addr().unwrap(), to));
            client.write_all(&[7; 10]).unwrap();
            client.read_exact(&mut [0; 10]).unwrap();
        }
        accepting.join().unwrap();
        let mut told = BTreeSet::new();
        let mut is_lossy = false;
        while told.len() < locals.len() && !is_lossy {
            let event = watched.told.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{} of {}", told.len(), locals.len()));
            match event {
                Event::Ended(flow, End::Told) if flow.direction == Some(Direction::Out) => {
                    assert_eq!(flow.octets.sent, 10, "{flow:?}");
                    assert!(told.insert((flow.local, flow.peer.unwrap())), "told twice: {flow:?}");
                }
                // A machine that lets the reader wait has a gap, which is said; that nothing is missed can't be seen there.
                Event::Lost(_) => is_lossy = true,
                _ => {}
            }
        }
        let wrong: Vec<_> = told.symmetric_difference(&locals).collect();
        assert!(is_lossy || wrong.is_empty(), "{} of {}, but for {wrong:?}", told.len(), locals.len());
        if is_lossy {
            eprintln!("*** NOT TESTED: this machine is too busy ***");
        }
    });
}

#[test]
fn ipv6_and_datagrams_are_seen() {
    in_a_network("ipv6_and_datagrams_are_seen", || {
        let mut watched = Watched::often();
        let (listener, to) = listener();
        let six = SocketAddr::new("2001:2::7".parse().unwrap(), to.port());
        let (client, server) = connect(&listener, six);
        exchange(client, server, 5, 5);
        let ended = watched.ended(six).0;
        assert_eq!((ended.octets.sent, ended.direction), (5, Some(Direction::Out)));
        for (own, peer) in [("0.0.0.0:0", "198.18.0.9:9"), ("[::]:0", "[2001:2::9]:9")] {
            let (udp, peer) = (UdpSocket::bind(own).unwrap(), peer.parse().unwrap());
            udp.connect(peer).unwrap();
            udp.send(b"out").unwrap();
            let flow = watched.began(peer);
            assert_eq!((flow.protocol, flow.octets.sent), (Protocol::Udp, 0), "nobody counts them");
            assert_eq!(flow.holder.expect("this process").pid, std::process::id());
            drop(udp);
            assert_eq!(watched.ended(peer).1, End::Told);
        }
        let open = UdpSocket::bind("0.0.0.0:0").unwrap();
        let local = open.local_addr().unwrap();
        open.send_to(b"anywhere", "198.18.0.9:9").unwrap();
        let flow = watched.wait("a socket without a peer", |event| match event {
            Event::Began(flow) if flow.local == local => Some(flow.clone()),
            _ => None,
        });
        assert_eq!(flow.peer, None);
    });
}

/// sendto(2) takes another address than that of the peer, and the kernel lets a socket out that is not bound to loopback.
#[test]
fn datagram_sockets_are_seen_whatever_peer_they_have_or_had_unless_both_ends_are_loopback() {
    in_a_network("datagram_sockets_are_seen_whatever_peer_they_have_or_had_unless_both_ends_are_loopback", || {
        let mut watched = Watched::often();
        for (loopback, peer) in [("127.0.0.1:0", "127.0.0.1:9"), ("[::1]:0", "198.18.0.1:9")] {
            let udp = UdpSocket::bind("198.18.0.1:0").unwrap();
            let (near, peer) = (both_ends(loopback), peer.parse().unwrap());
            near.send(b"stays").unwrap();
            udp.connect(peer).unwrap();
            assert_eq!(watched.began(peer).local, udp.local_addr().unwrap());
            let gone = near.local_addr().unwrap();
            drop((near, udp));
            assert_eq!(watched.ended(peer).1, End::Told);
            let is_near = |event: &Event| matches!(event, Event::Began(flow) | Event::Ended(flow, _) if flow.local == gone);
            assert!(!watched.seen.iter().any(is_near), "{:#?}", watched.seen);
        }
        let brief = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        brief.connect(&"198.18.0.9:9".parse::<SocketAddr>().unwrap().into()).unwrap();
        brief.send(b"out").unwrap();
        rustix::net::connect_unspec(&brief).unwrap();
        drop(brief);
        let flow = watched.wait("the end of a socket without port and peer", |event| match event {
            Event::Ended(flow, _) if flow.local.port() == 0 => Some(flow.clone()),
            _ => None,
        });
        assert_eq!((flow.protocol, flow.peer), (Protocol::Udp, None));
    });
}

/// A socket that has such an address at both ends.
fn both_ends(to: &str) -> UdpSocket {
    let (near, server) = (UdpSocket::bind(to).expect("a socket"), UdpSocket::bind(to).expect("a socket"));
    near.connect(server.local_addr().expect("a socket")).expect("a socket");
    near
}

#[test]
fn loopback_is_left_out_of_listings_and_ends() {
    in_a_network("loopback_is_left_out_of_listings_and_ends", || {
        let mut watched = Watched::often();
        let (listener, to) = listener();
        let near = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().unwrap(), to.port()));
        for near in near {
            let (client, server) = connect(&listener, near);
            watched.another_listing();
            exchange(client, server, 1, 1);
        }
        let (client, server) = connect(&listener, to);
        exchange(client, server, 1, 1);
        watched.ended(to);
        let told = watched.seen.iter().filter_map(|event| match event {
            Event::Began(flow) | Event::Ended(flow, _) => Some(flow.peer?.ip()),
            _ => None,
        });
        assert_eq!(told.collect::<BTreeSet<IpAddr>>(), BTreeSet::from([to.ip()]));
    });
}

#[test]
fn a_connection_that_its_program_wipes_is_seen_with_its_address() {
    in_a_network("a_connection_that_its_program_wipes_is_seen_with_its_address", || {
        let (listener, to) = listener();
        let mut watched = Watched::once();
        let (client, server) = connect(&listener, to);
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop((client, server));
        let wiped = SocketAddr::new(to.ip(), 0);
        assert_eq!(watched.ended(wiped).1, End::Wiped);
    });
}

#[test]
fn after_a_flow_that_nobody_met_others_are_met_between_two_listings() {
    in_a_network("after_a_flow_that_nobody_met_others_are_met_between_two_listings", || {
        let (listener, to) = listener();
        let mut watched = Watched::once();
        watched.seen.clear();
        let (brief, served) = connect(&listener, to);
        exchange(brief, served, 1, 1);
        watched.ended(to);
        let met = SocketAddr::new("198.18.0.8".parse().unwrap(), to.port());
        let (_client, _server) = connect(&listener, met);
        let end = Instant::now() + DEADLINE;
        // A busy machine may come to look only when there is no hurry any more; brief flows make it hurry again.
        while !watched.is_met(met) {
            assert!(Instant::now() < end, "{:#?}", watched.seen);
            let (brief, served) = connect(&listener, to);
            exchange(brief, served, 1, 1);
        }
        assert_eq!(watched.began(met).holder.expect("this process").pid, std::process::id());
        assert!(!watched.seen.iter().any(|event| matches!(event, Event::Listed(_))), "nothing was listed meanwhile");
    });
}

#[test]
fn a_full_queue_is_told_and_what_is_gone_then_has_ended() {
    in_a_network("a_full_queue_is_told_and_what_is_gone_then_has_ended", || {
        let (listener, to) = listener();
        let mut watched = Watched::start(Options { every: Duration::from_millis(50), queue: 0, ..Options::default() });
        let (client, server) = connect(&listener, to);
        watched.began(to);
        exchange(client, server, 5, 6);
        watched.wait("a loss", |event| matches!(event, Event::Lost(Lost::Queue)).then_some(()));
        let (flow, end) = watched.ended(to);
        assert_eq!((flow.peer, end), (Some(to), End::Gone));
    });
}

#[test]
fn a_socket_that_goes_to_another_process_keeps_the_holder_that_was_seen_first() {
    in_a_network("a_socket_that_goes_to_another_process_keeps_the_holder_that_was_seen_first", || {
        let (listener, to) = listener();
        let mut watched = Watched::often();
        let (client, _server) = connect(&listener, to);
        assert_eq!(watched.began(to).holder.expect("this process").pid, std::process::id());
        let mut heir = Heir(holding("sleep", &["600"], client));
        watched.another_listing();
        let live = watched.watch.flows();
        let flow = live.iter().find(|flow| flow.peer == Some(to)).expect("it lives");
        assert_eq!(flow.holder.clone().expect("the first holder").pid, std::process::id());
        heir.end();
        assert_eq!(watched.ended(to).0.holder.expect("the first holder").pid, std::process::id());
    });
}

#[test]
fn a_process_that_ends_at_once_leaves_its_flow_behind() {
    in_a_network("a_process_that_ends_at_once_leaves_its_flow_behind", || {
        let (listener, to) = listener();
        let mut watched = Watched::once();
        let (client, server) = connect(&listener, to);
        Heir(holding("true", &[], client)).wait();
        drop(server);
        assert_eq!(watched.ended(to).0.holder, Err(Unseen::Ended));
    });
}

#[test]
fn sockets_of_another_user_are_seen_and_their_holders_as_far_as_they_may_be() {
    in_a_network("sockets_of_another_user_are_seen_and_their_holders_as_far_as_they_may_be", || {
        if !geteuid().is_root() || Command::new("setpriv").args(["--reuid=65534", "true"]).status().is_ok_and(|s| !s.success()) {
            eprintln!("*** NOT TESTED: no other user ***");
            return;
        }
        // The watch runs without any capability, as another user than the one who connects.
        let (listener, to) = listener();
        let (client, _server) = connect(&listener, to);
        let other = ["--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
        let mut watcher = Command::new("setpriv");
        watcher.args(other).arg(readable_copy()).args([
            "--exact",
            "prints_what_an_unprivileged_user_sees",
            "--ignored",
            "--nocapture",
        ]);
        let said = watcher.env(INSIDE, "1").output().expect("setpriv runs");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&format!("{to} uid 0 not_visible deaf false")), "{said}");
        drop(client);
    });
}

#[test]
fn nobody_hurries_for_sockets_of_ones_own() {
    in_a_network("nobody_hurries_for_sockets_of_ones_own", || {
        let (listener, to) = listener();
        let ours = Ours::new(|_| true);
        let mut watched = Watched::start(Options { every: DEADLINE * 10, ours, ..Options::default() });
        let (brief, served) = connect(&listener, to);
        exchange(brief, served, 1, 1);
        watched.ended(to);
        let unmet = SocketAddr::new("198.18.0.8".parse().unwrap(), to.port());
        let (_client, _server) = connect(&listener, unmet);
        assert!(!watched.is_met(unmet), "the next listing meets it");
    });
}

/// This program where every user may run it.
fn readable_copy() -> PathBuf {
    let copy = std::env::temp_dir().join(format!("egret-flows-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().expect("this program"), &copy).expect("a copy");
    copy
}

#[test]
#[ignore = "part of the test before it, which runs it as another user"]
fn prints_what_an_unprivileged_user_sees() {
    let mut watched = Watched::often();
    let flow = watched.wait("a flow", |event| match event {
        Event::Began(flow) if flow.direction != Some(Direction::In) => Some(flow.clone()),
        _ => None,
    });
    let holder = flow.holder.map_or_else(Unseen::code, |_| "visible");
    watched.another_listing();
    let is_deaf = watched.seen.iter().any(|event| matches!(event, Event::Refused(Part::Ends, _)));
    println!("{} uid {} {holder} deaf {is_deaf}", flow.peer.unwrap(), flow.uid.unwrap());
    drop(std::fs::remove_file(std::env::current_exe().expect("this program")));
}

#[test]
fn thousands_of_idle_sockets_are_told_once() {
    in_a_network("thousands_of_idle_sockets_are_told_once", || {
        const SOCKETS: usize = 2_000;
        let (listener, to) = listener();
        let _idle: Vec<_> = (0..SOCKETS).map(|_| connect(&listener, to)).collect();
        let mut watched = Watched::often();
        watched.another_listing();
        let is_it = |event: &&Event| matches!(event, Event::Began(flow) if flow.peer == Some(to));
        assert_eq!(watched.seen.iter().filter(is_it).count(), SOCKETS);
        assert!(!watched.seen.iter().any(|event| matches!(event, Event::Refused(Part::Ends | Part::Listings, _))));
    });
}

/// A process that holds a socket.
struct Heir(Child);

impl Heir {
    fn end(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }

    fn wait(mut self) {
        assert!(self.0.wait().expect("it can be waited for").success());
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        self.end();
    }
}

fn holding(program: &str, args: &[&str], socket: TcpStream) -> Child {
    let socket = OwnedFd::from(Socket::from(socket));
    Command::new(program).args(args).stdin(Stdio::from(socket)).spawn().expect("a process")
}
