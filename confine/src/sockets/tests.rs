use std::net::UdpSocket;

use super::*;

fn held() -> Held {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    Held::new(socket.into(), Family::V4, Kind::Udp).unwrap()
}

fn outcome(told: bool) -> Outcome {
    Outcome { destination: "192.0.2.7:443".parse().unwrap(), answer: Ok(()), told, stands_in: None }
}

#[test]
fn a_socket_is_taken_once() {
    let sockets = Sockets::default();
    let socket = held();
    let inode = socket.inode;
    sockets.hold(socket);
    assert_eq!(sockets.look(inode, |held| held.family), Some(Family::V4));
    assert!(sockets.take(inode).is_some());
    assert!(sockets.take(inode).is_none());
    assert_eq!(sockets.count(), 0);
}

#[test]
fn a_socket_that_is_in_use_is_closed_when_it_is_not_any_more() {
    let sockets = Sockets::default();
    let socket = held();
    let inode = socket.inode;
    let port = rustix::net::getsockname(&socket.socket).unwrap();
    sockets.hold(socket);
    let used = sockets.get(inode).unwrap();
    let (begin, begun) = std::sync::mpsc::channel();
    let user = thread::spawn(move || {
        begun.recv().unwrap();
        drop(used);
    });
    begin.send(()).unwrap();
    sockets.let_go(inode);
    user.join().unwrap();
    let port = std::net::SocketAddr::try_from(port).unwrap();
    assert!(UdpSocket::bind(port).is_ok());
    assert_eq!(sockets.count(), 0);
}

#[test]
fn others_that_are_bound_to_a_port_are_found() {
    let sockets = Sockets::default();
    let inodes = [80, 80, 443].map(|port| {
        let socket = held();
        let inode = socket.inode;
        sockets.hold(socket);
        sockets.bound(inode, port);
        inode
    });
    assert!(sockets.take_bound(Kind::Tcp, 80, 0).is_empty());
    let taken = sockets.take_bound(Kind::Udp, 80, inodes[0]);
    assert_eq!(taken.iter().map(|held| held.inode).collect::<Vec<_>>(), [inodes[1]]);
    assert_eq!(sockets.count(), 2);
}

#[test]
fn whoever_connects_the_same_socket_meanwhile_waits_for_the_outcome() {
    let sockets = Sockets::default();
    let socket = held();
    let (inode, good, evil) = (socket.inode, outcome(true).destination, "198.51.100.66:443".parse().unwrap());
    assert_eq!(sockets.join(inode, good, 1), Ok(false));
    sockets.hold(socket);
    assert!(sockets.take_to_connect(inode, good).is_some());
    assert_eq!(sockets.join(inode, good, 2), Ok(true));
    assert_eq!(sockets.join(inode, evil, 3), Err(Errno::ALREADY));
    for call in 1..MOST_JOINED as u64 {
        assert_eq!(sockets.join(inode, good, 10 + call), Ok(true));
    }
    assert_eq!(sockets.join(inode, good, 99), Err(Errno::ALREADY));
    let mut told = Vec::new();
    sockets.conclude(inode, outcome(false), |call, outcome| {
        told.push((call, outcome.told));
        call == Some(2)
    });
    assert_eq!(told[..3], [(None, false), (Some(2), false), (Some(11), true)]);
    assert_eq!(told.len(), 1 + MOST_JOINED);
    assert_eq!(recalled(&sockets, inode), Some(Recalled::Past(outcome(true))));
    assert_eq!(sockets.join(inode, good, 4), Ok(false));
}

#[test]
fn what_is_too_old_goes_when_another_comes() {
    let mut tables = Tables::default();
    let mut old = held();
    old.born -= LONGEST_HELD + Duration::from_secs(1);
    let inode = old.inode;
    assert!(tables.hold(old).is_empty());
    let gone = tables.hold(held());
    assert_eq!(gone.iter().map(|held| held.inode).collect::<Vec<_>>(), [inode]);
    assert_eq!((tables.held.len(), tables.births.len()), (1, 1));
}

#[test]
fn there_are_never_more_than_the_limit() {
    let mut tables = Tables::default();
    let first = held();
    let mut template = vec![first.inode];
    tables.hold(first);
    // One descriptor serves all: only the number counts.
    for inode in 1..=MOST_HELD as u64 {
        let mut another = held();
        another.inode = u64::MAX - inode;
        template.push(another.inode);
        tables.hold(another);
    }
    assert_eq!(tables.held.len(), MOST_HELD);
    assert!(!tables.held.contains_key(&template[0]), "the oldest went");
}

#[test]
fn births_of_sockets_that_are_gone_do_not_pile_up() {
    let mut tables = Tables::default();
    tables.hold(held());
    for _ in 0..5 * MOST_HELD {
        let another = held();
        let inode = another.inode;
        tables.hold(another);
        tables.held.remove(&inode);
    }
    assert!(tables.births.len() <= 2 * MOST_HELD + 1, "{}", tables.births.len());
}

fn recalled(sockets: &Sockets, inode: u64) -> Option<Recalled> {
    sockets.recall(inode, outcome(true).destination, |_| true)
}

#[test]
fn an_outcome_that_nobody_heard_is_told_until_somebody_does() {
    let sockets = Sockets::default();
    sockets.conclude(7, outcome(false), |_, _| false);
    let elsewhere = sockets.recall(7, "198.51.100.66:443".parse().unwrap(), |_| panic!("it went elsewhere"));
    assert_eq!(elsewhere, Some(Recalled::Past(outcome(false))));
    assert_eq!(sockets.recall(7, outcome(false).destination, |_| false), Some(Recalled::Told));
    assert_eq!(recalled(&sockets, 7), Some(Recalled::Told));
    assert_eq!(recalled(&sockets, 7), Some(Recalled::Past(outcome(true))));
    sockets.forget(7);
    assert_eq!(recalled(&sockets, 7), None);
}

#[test]
fn a_number_that_is_used_again_has_no_past() {
    let sockets = Sockets::default();
    let socket = held();
    let inode = socket.inode;
    sockets.conclude(inode, outcome(false), |_, _| true);
    sockets.hold(socket);
    assert_eq!(recalled(&sockets, inode), None);
}

#[test]
fn outcomes_are_limited() {
    let mut tables = Tables::default();
    for inode in 0..2 * MOST_RECENT as u64 {
        tables.remember(inode, outcome(true));
    }
    assert_eq!((tables.recent.len(), tables.recent_order.len()), (MOST_RECENT, MOST_RECENT));
    assert!(tables.recent.contains_key(&(2 * MOST_RECENT as u64 - 1)));
}
