use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use super::*;

fn inode(socket: impl AsFd) -> u64 {
    rustix::fs::fstat(socket).unwrap().st_ino
}

#[test]
fn connected_and_listening_sockets_are_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(state_of(inode(&stream)), Ok(Some(State::Connected)));
    assert_eq!(state_of(inode(&listener)), Ok(Some(State::Listening)));
    assert_eq!(state_of(u64::MAX), Ok(None));
}

#[test]
fn ipv6_sockets_are_in_the_other_table() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return eprintln!("SKIPPED: no IPv6 here") };
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(state_of(inode(&stream)), Ok(Some(State::Connected)));
}

#[test]
fn a_bound_datagram_socket_has_a_port() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(udp_port_of(inode(&socket)), Ok(Some(socket.local_addr().unwrap().port())));
    assert_eq!(udp_port_of(u64::MAX), Ok(None));
}

#[test]
fn unix_sockets_are_known_by_kind_state_and_name() {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (here, _there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let pair = UnixState { kind: libc::SOCK_SEQPACKET, is_connected: true, is_named: false };
    assert_eq!(unix_state_of(inode(&here)), Some(pair));
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let unbound = UnixState { kind: libc::SOCK_DGRAM, is_connected: false, is_named: false };
    assert_eq!(unix_state_of(inode(&socket)), Some(unbound));
    assert_eq!(unix_state_of(u64::MAX), None);
    let named = "0000000000000000: 00000002 00000000 00010000 0001 01 77 /run/a name\n77 /run";
    let listener = UnixState { kind: libc::SOCK_STREAM, is_connected: false, is_named: true };
    assert_eq!(unix_state_in(named, 77), Some(listener));
    assert_eq!(unix_state_in("77 /run", 77), None, "a name may have an end of line in it");
    assert_eq!(unix_state_in("", 0), None);
}

#[test]
fn the_head_of_the_table_is_no_socket() {
    let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    assert_eq!(state_in(head, 0), None);
    assert_eq!(state_in("", 0), None);
    let line = "   0: 0100007F:1F90 0100007F:1F91 02 00000000:00000000 00:00000000 00000000     0        0 77 1 0 20";
    assert_eq!(state_in(line, 77), Some(State::Connecting));
    assert_eq!(state_in(line, 78), None);
}
