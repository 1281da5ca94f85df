use std::time::Duration;

use egret_flows::Unseen;
use egret_flows::diag::State;

use super::*;

fn flow(peer: &str, local: &str, direction: Option<Direction>) -> Flow {
    Flow {
        cookie: 7,
        protocol: Protocol::Tcp,
        local: local.parse().unwrap(),
        peer: Some(peer.parse().unwrap()),
        state: State::Established,
        direction,
        uid: Some(1000),
        holder: Err(Unseen::NotVisible),
        octets: Octets::default(),
        new: Octets::default(),
        began: Duration::ZERO,
        is_news: true,
    }
}

fn way_with(own: &OwnSockets, flow: &Flow) -> Way {
    let is_near = |address: IpAddr| address == IpAddr::from([10, 0, 0, 5]) || address.is_loopback();
    let mut listening = Listening::default();
    listening.listed(&[8080]);
    let surroundings = Surroundings {
        own,
        direct: &["169.254.170.2/32".parse().unwrap(), "fd00:ec2::/32".parse().unwrap()],
        nameservers: &[[10, 0, 0, 2].into()],
        listening: &listening,
        is_near: &is_near,
        pid: std::process::id(),
    };
    surroundings.way(flow)
}

fn way(flow: &Flow) -> Way {
    way_with(&OwnSockets::default(), flow)
}

#[test]
fn what_is_not_known_goes_around() {
    for (peer, local, direction, expected) in [
        ("93.184.216.34:443", "10.0.0.5:40000", Some(Direction::Out), Way::Around),
        ("93.184.216.34:443", "10.0.0.5:40000", None, Way::Around),
        ("10.0.0.2:443", "10.0.0.5:40000", None, Way::Around),
        ("10.0.0.2:53", "10.0.0.5:40000", None, Way::Direct),
        ("169.254.170.2:80", "10.0.0.5:40000", None, Way::Direct),
        ("[fd00:ec2::253]:53", "[fd00::5]:40000", None, Way::Direct),
        ("169.254.169.254:80", "10.0.0.5:40000", None, Way::Around),
        ("10.0.0.5:9000", "10.0.0.5:40000", None, Way::Near),
        ("10.0.0.9:50000", "10.0.0.5:8080", Some(Direction::In), Way::In),
        ("10.0.0.9:50000", "10.0.0.5:8081", Some(Direction::In), Way::In),
        ("10.0.0.9:50000", "10.0.0.5:8080", None, Way::In),
        // Who connects from the port on which it listens is found out by its counters, or by whom it asks.
        ("10.0.0.9:50000", "10.0.0.5:8080", Some(Direction::Out), Way::Around),
        ("10.0.0.9:443", "10.0.0.5:8080", None, Way::Around),
        ("10.0.0.9:50000", "10.0.0.5:8081", None, Way::Around),
    ] {
        assert_eq!(way(&flow(peer, local, direction)), expected, "{peer} {local} {direction:?}");
    }
}

#[test]
fn sockets_that_egret_made_are_its_own_and_others_with_the_same_peer_are_not() {
    let own = OwnSockets::default();
    own.add(7);
    let ours = flow("93.184.216.34:443", "10.0.0.5:40000", None);
    assert_eq!(way_with(&own, &ours), Way::Proxy);
    assert_eq!(way_with(&own, &Flow { cookie: 8, ..ours }), Way::Around);
}

#[test]
fn datagram_sockets_without_a_peer_are_open_and_wiped_connections_go_around() {
    let mut one = flow("93.184.216.34:443", "10.0.0.5:40000", None);
    one.peer = None;
    assert_eq!(way(&one), Way::Around);
    one.protocol = Protocol::Udp;
    assert_eq!(way(&one), Way::Open);
    one.peer = Some("93.184.216.34:443".parse().unwrap());
    one.local = "10.0.0.5:8080".parse().unwrap();
    assert_eq!(way(&one), Way::Around, "nobody is asked by a connected UDP socket");
    let wiped = flow("93.184.216.34:0", "10.0.0.5:40000", None);
    assert_eq!(way(&wiped), Way::Around);
}

#[test]
fn a_datagram_peer_on_this_machine_holds_only_who_is_bound_to_loopback_as_well() {
    for (peer, local, expected) in [
        ("10.0.0.5:9", "10.0.0.5:40000", Way::Open),
        ("127.0.0.1:9", "10.0.0.5:40000", Way::Open),
        ("[::1]:9", "[fd00::5]:40000", Way::Open),
        ("10.0.0.5:9", "127.0.0.1:40000", Way::Near),
        ("127.0.0.1:8125", "127.0.0.1:40000", Way::Near),
        ("[::1]:8125", "[::1]:40000", Way::Near),
        ("10.0.0.2:53", "10.0.0.5:40000", Way::Direct),
    ] {
        let one = Flow { protocol: Protocol::Udp, ..flow(peer, local, None) };
        assert_eq!(way(&one), expected, "{peer} {local}");
    }
}

#[test]
fn a_port_that_listened_is_forgotten_with_the_second_listing_without_it() {
    let mut listening = Listening::default();
    listening.listed(&[80, 443]);
    listening.listed(&[443]);
    assert!(listening.has(80) && listening.has(443) && !listening.has(8080));
    listening.listed(&[443]);
    assert!(!listening.has(80) && listening.has(443));
    listening.listed(&[]);
    listening.listed(&[]);
    assert!(!listening.has(443));
}

#[test]
fn own_sockets_are_bounded_and_the_oldest_go() {
    let own = OwnSockets::default();
    (0..=MOST_OWN as u64).for_each(|cookie| own.add(cookie));
    assert!(!own.has(0) && own.has(1) && own.has(MOST_OWN as u64));
}

#[test]
fn unexplained_is_what_neither_tcp_nor_the_beginning_explains() {
    let octets = |sent, received| Octets { sent, received };
    let mut all = Unexplained::default();
    let totals = |connections, sent| Totals { flows: connections + 9, connections, octets: octets(sent, 0) };
    all.look(totals(3, 5_000), octets(9_000, 9_000));
    assert_eq!(all.unexplained, Octets::default());
    let near = flow("10.0.0.5:9000", "10.0.0.5:40000", None);
    all.near(&near, octets(1_000, 0));
    all.look(totals(4, 5_000 + 1_000 + 20_000), octets(9_000 + 22_000 + 100_000, 9_000));
    assert_eq!(all.passed, octets(122_000, 0));
    assert!((99_000..=101_000).contains(&all.unexplained.sent), "{:?}", all.unexplained);
}

/// Each connection is granted some segments without payload. Who has none is granted none: neither datagrams, nor what stays here.
#[test]
fn neither_datagrams_nor_near_connections_explain_octets() {
    let octets = |sent| Octets { sent, received: 0 };
    let mut all = Unexplained::default();
    all.look(Totals::default(), octets(0));
    all.look(Totals { flows: 300, ..Totals::default() }, octets(300 * 400));
    assert_eq!(all.unexplained, octets(300 * 400), "300 UDP sockets");
    let near = flow("10.0.0.5:9000", "10.0.0.5:40000", None);
    for _ in 0..300 {
        all.near(&near, Octets::default());
        all.near(&Flow { is_news: false, ..near.clone() }, Octets::default());
    }
    all.near(&Flow { protocol: Protocol::Udp, ..near }, Octets::default());
    all.look(Totals { flows: 601, connections: 301, ..Totals::default() }, octets(300 * 400));
    assert_eq!(all.unexplained, octets(299 * 400), "one connection left");
}
