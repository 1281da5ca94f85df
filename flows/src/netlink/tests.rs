use std::net::{TcpListener, TcpStream, UdpSocket};

use super::*;

#[test]
fn the_socket_between_two_addresses_is_found_and_a_listener_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let client = TcpStream::connect(to).unwrap();
    let from = client.local_addr().unwrap();
    let mut netlink = Netlink::open().expect("netlink");
    let found = netlink.find(from, to).expect("an answer").expect("a socket");
    assert_eq!((found.local, found.peer), (from, Some(to)));
    assert!(found.inode != 0);
    let nobody = SocketAddr::new(from.ip(), 1);
    assert_eq!(netlink.find(to, nobody).expect("an answer"), None, "only a listener is there");
    assert_eq!(netlink.find(nobody, from).expect("an answer"), None);
}

/// How many notifications the kernel has dropped for want of room: the ninth column, of the row with this inode.
fn dropped(ends: &Ends) -> u64 {
    let inode = rustix::fs::fstat(&ends.socket).unwrap().st_ino.to_string();
    let table = std::fs::read_to_string("/proc/net/netlink").unwrap();
    let rows = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row.last() == Some(&inode.as_str())).expect("a row");
    row[8].parse().unwrap()
}

#[test]
fn what_nobody_reads_is_lost_and_said_to_be() {
    let mut ends = Ends::of(Protocol::Udp).expect("the groups");
    set_socket_recv_buffer_size(&ends.socket, 4096).unwrap();
    // The kernel notifies when it finds the time.
    let end = Instant::now() + Duration::from_secs(60);
    while dropped(&ends) == 0 {
        assert!(Instant::now() < end, "nothing is dropped");
        for _ in 0..100 {
            UdpSocket::bind("0.0.0.0:0").unwrap();
        }
    }
    loop {
        match ends.hear(|_| {}) {
            Heard::Octets(_) => {}
            Heard::Lost => break,
            other => panic!("{other:?}"),
        }
    }
}
