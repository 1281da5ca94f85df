//! The captured messages are of Linux 6.18 on a little-endian machine: a connection of 1,000 octets one way and 500 the other
//! over IPv4 from an IPv4 socket to an IPv6 one, one over IPv6, a UDP socket, and the ends of all of these; at last one that
//! was wiped.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::request::{LONGEST, filter};
use super::*;

const SEEDS: [&[u8]; 6] = [
    include_bytes!("../../../fuzz/seeds/sock_diag/listing_tcp"),
    include_bytes!("../../../fuzz/seeds/sock_diag/listing_tcp6"),
    include_bytes!("../../../fuzz/seeds/sock_diag/listing_udp"),
    include_bytes!("../../../fuzz/seeds/sock_diag/listeners"),
    include_bytes!("../../../fuzz/seeds/sock_diag/failed"),
    include_bytes!("../../../fuzz/seeds/sock_diag/ends"),
];

fn read_all(octets: &[u8]) -> Vec<Message> {
    messages(octets).collect::<Result<_, _>>().expect("captured messages are whole")
}

fn sockets(octets: &[u8]) -> Vec<Socket> {
    let socket = |message: Message| match message.said {
        Said::Socket(socket) => Some(socket),
        _ => None,
    };
    read_all(octets).into_iter().filter_map(socket).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[cfg(target_endian = "little")]
#[test]
fn a_listing_is_read() {
    let [socket] = &sockets(SEEDS[0])[..] else { panic!("one socket") };
    assert_eq!((socket.local, socket.peer), (address("198.18.0.1:40001"), Some(address("198.18.0.7:4443"))));
    assert_eq!((socket.state, socket.uid, socket.is_remnant), (State::Established, 0, false));
    assert!(socket.inode > 0 && socket.cookie > 0);
    let counted = Counted { acked: 1001, received: 500, sent: Some(1000), is_idle: true, had_answer: true };
    assert_eq!(socket.counted, Some(counted), "the SYN was acknowledged as well");
    assert_eq!((socket.sent(), socket.received(), socket.direction(), socket.seems_out()), (1000, 500, None, true));
    assert_eq!(read_all(SEEDS[0]).last().map(|last| last.said.clone()), Some(Said::Done));
}

#[cfg(target_endian = "little")]
#[test]
fn an_ipv4_address_in_ipv6_is_that_ipv4_address() {
    let all = sockets(SEEDS[1]);
    let accepted = all.iter().find(|socket| socket.local == address("198.18.0.7:4443")).expect("the accepted one");
    assert_eq!((accepted.peer, accepted.direction()), (Some(address("198.18.0.1:40001")), Some(Direction::In)));
    let six = all.iter().find(|socket| socket.local == address("[2001:2::1]:40002")).expect("the one over IPv6");
    assert_eq!((six.peer, six.sent(), six.seems_out()), (Some(address("[2001:2::7]:4443")), 3, true));
    assert_eq!(all.len(), 3);
}

#[cfg(target_endian = "little")]
#[test]
fn datagrams_and_listeners_are_read_and_have_no_counters() {
    let [udp] = &sockets(SEEDS[2])[..] else { panic!("one socket") };
    assert_eq!((udp.peer, udp.counted, udp.direction()), (Some(address("198.18.0.9:53")), None, None));
    let [listener] = &sockets(SEEDS[3])[..] else { panic!("one listener") };
    assert_eq!((listener.state, listener.peer, listener.local.port()), (State::Listen, None, 4443));
}

#[cfg(target_endian = "little")]
#[test]
fn ends_have_final_counts_and_what_was_wiped_shows() {
    let all = sockets(SEEDS[5]);
    let end = |local: &str| all.iter().find(|socket| socket.local == address(local)).unwrap_or_else(|| panic!("{local}"));
    let client = end("198.18.0.1:40001");
    assert_eq!((client.state, client.sent(), client.received()), (State::Closed, 1000, 500));
    let server = end("198.18.0.7:4443");
    assert_eq!((server.sent(), server.received()), (500, 1001), "a FIN counts as received");
    assert_eq!(client.direction(), Some(Direction::Out));
    assert_eq!(sockets(SEEDS[0])[0].cookie, client.cookie);
    let wiped = all.iter().find(|socket| socket.peer.is_none()).expect("the wiped one");
    assert_eq!((wiped.former, wiped.sent(), wiped.direction()), (address("198.18.0.7:0").ip(), 0, None));
    assert!(wiped.counted.expect("counters").had_answer, "its shortest round trip is left");
}

#[test]
fn a_refusal_has_its_number() {
    assert_eq!(read_all(SEEDS[4])[0], Message { sequence: 7, said: Said::Failed(2) });
}

#[test]
fn who_began_is_told_only_where_it_is_certain() {
    let socket = |state, acked, sent, is_idle| Socket {
        cookie: 1,
        state,
        is_remnant: false,
        local: address("198.18.0.1:1"),
        peer: Some(address("198.18.0.2:2")),
        former: [198, 18, 0, 2].into(),
        uid: 0,
        inode: 1,
        counted: Some(Counted { acked, received: 0, sent, is_idle, had_answer: true }),
    };
    use State::{CloseWait, Closed, Established, FinWait1, SynReceived, SynSent};
    for (state, acked, sent, is_idle, told) in [
        (SynSent, 0, Some(0), false, Some(Direction::Out)),
        (SynReceived, 0, Some(0), false, None),
        (Established, 1, Some(0), true, None),
        (Established, 11, Some(10), true, None),
        (Established, 10, Some(10), true, Some(Direction::In)),
        (Established, 10, Some(10), false, None),
        (Established, 5, Some(10), false, None),
        (CloseWait, 10, Some(10), true, Some(Direction::In)),
        (FinWait1, 11, Some(10), true, None),
        (FinWait1, 12, Some(10), true, Some(Direction::Out)),
        (Closed, 12, Some(10), true, Some(Direction::Out)),
        (Closed, 11, Some(10), true, None),
        (Closed, 10, Some(10), true, Some(Direction::In)),
        (Closed, 10, Some(10), false, None),
        (Established, 11, None, true, None),
    ] {
        assert_eq!(socket(state, acked, sent, is_idle).direction(), told, "{state:?} {acked} {sent:?} {is_idle}");
    }
    let asked = Socket { inode: 0, ..socket(SynReceived, 0, Some(0), false) };
    assert_eq!(asked.direction(), Some(Direction::In), "nobody holds who was not accepted");
    let wiped = Socket { peer: None, ..socket(Closed, 0, Some(0), true) };
    assert_eq!(wiped.direction(), None);
    for (state, acked, seems) in [(Established, 11, true), (CloseWait, 11, true), (Established, 10, false), (Closed, 11, false)] {
        assert_eq!(socket(state, acked, Some(10), true).seems_out(), seems, "{state:?} {acked}");
    }
}

#[test]
fn requests_are_of_the_length_that_they_say() {
    let requests = [
        list(Family::V4, Protocol::Tcp, Which::Flows, 1),
        list(Family::V6, Protocol::Udp, Which::Flows, 2),
        list(Family::V6, Protocol::Tcp, Which::Listeners, 3),
        find(address("127.0.0.1:1"), address("[::ffff:127.0.0.1]:2"), 4),
        find(address("[fe80::1%3]:1"), address("[fe80::2%3]:2"), 5),
    ];
    for (request, length) in requests.iter().zip([72 + 4 + 20, 72 + 4 + 96, 72, 72, 72]) {
        assert_eq!((request.len(), u32_at(request, 0)), (length, u32::try_from(length).ok()));
        assert!(request.len() <= LONGEST);
    }
}

/// The kernel's own rules for such a program (`inet_diag_bc_audit`), and what it would answer (`inet_diag_bc_run`).
fn runs(program: &[u8], family: u8, own: &[u8], peer: &[u8]) -> bool {
    let (mut at, end) = (0, program.len());
    while at < end {
        let (code, yes, no) = (program[at], usize::from(program[at + 1]), usize::from(u16_at(program, at + 2).unwrap()));
        assert!(at + yes <= end && at + no <= end + 4 && yes % 4 == 0 && no % 4 == 0, "no jump beyond the end");
        let holds = code != 1 && {
            let end = if code == 8 { peer } else { own };
            let (wanted, prefix) = (program[at + 4], usize::from(program[at + 5]));
            let mapped = family == AF_INET6 && wanted == AF_INET && end.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            let address = if mapped { &end[12..] } else { end };
            (wanted == family || mapped) && address[..prefix / 8] == program[at + 12..at + 12 + prefix / 8]
        };
        at += if holds { yes } else { no };
    }
    at == end
}

#[test]
fn the_filter_refuses_loopback_and_nothing_else() {
    let v4 = |octets: [u8; 4]| runs(&filter(Family::V4, Protocol::Tcp), AF_INET, &[198, 18, 0, 1], &octets);
    let six = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let v6 = |text: &str| runs(&filter(Family::V6, Protocol::Tcp), AF_INET6, &six("2001:db8::9"), &six(text));
    assert!(!v4([127, 0, 0, 1]) && !v4([127, 255, 0, 9]));
    assert!(v4([128, 0, 0, 1]) && v4([126, 255, 255, 255]) && v4([0, 0, 0, 0]));
    assert!(!v6("::1") && !v6("::ffff:127.0.0.1") && !v6("::ffff:127.9.9.9"));
    assert!(v6("::") && v6("::2") && v6("2001:db8::1") && v6("::ffff:198.18.0.1") && v6("::127.0.0.1"));
}

#[test]
fn of_datagrams_the_filter_refuses_what_is_loopback_at_both_ends() {
    let v4 = |own: [u8; 4], peer: [u8; 4]| runs(&filter(Family::V4, Protocol::Udp), AF_INET, &own, &peer);
    let six = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let v6 = |own: &str, peer: &str| runs(&filter(Family::V6, Protocol::Udp), AF_INET6, &six(own), &six(peer));
    assert!(!v4([127, 0, 0, 1], [127, 255, 0, 9]));
    assert!(v4([198, 18, 0, 1], [127, 0, 0, 1]) && v4([127, 0, 0, 1], [0, 0, 0, 0]) && v4([10, 0, 0, 1], [10, 0, 0, 1]));
    assert!(!v6("::1", "::1") && !v6("::ffff:127.0.0.1", "::ffff:127.9.9.9"));
    assert!(v6("2001:db8::1", "::1") && v6("::ffff:198.18.0.1", "::ffff:127.0.0.1") && v6("::1", "::"));
}

#[test]
fn a_message_that_is_cut_is_torn_and_those_before_it_are_the_same() {
    for seed in SEEDS {
        let whole = read_all(seed);
        for end in 0..seed.len() {
            let mut read = messages(&seed[..end]);
            let before: Vec<Message> = read.by_ref().map_while(Result::ok).collect();
            assert_eq!(before, whole[..before.len()], "{end}");
            assert_eq!(read.next(), None, "nothing follows a torn one");
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_torn(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let all: Vec<_> = messages(&octets).collect();
        prop_assert!(all.len() <= octets.len() / HEADER + 1);
        prop_assert!(all.iter().rev().skip(1).all(Result::is_ok), "torn is the last");
    }

    #[test]
    fn a_changed_octet_is_no_panic(seed in 0..SEEDS.len(), at: prop::sample::Index, octet: u8) {
        let mut octets = SEEDS[seed].to_vec();
        let at = at.index(octets.len());
        octets[at] = octet;
        for message in messages(&octets).map_while(Result::ok) {
            if let Said::Socket(socket) = message.said {
                let _ = (socket.direction(), socket.sent(), socket.received());
            }
        }
    }

    #[test]
    fn several_receipts_are_read_as_one(first in 0..SEEDS.len(), second in 0..SEEDS.len()) {
        let both = [SEEDS[first], SEEDS[second]].concat();
        prop_assert_eq!(read_all(&both), [read_all(SEEDS[first]), read_all(SEEDS[second])].concat());
    }
}
