//! The captured tables are of a little-endian machine: an IPv4 connection from an IPv4 socket, another from an IPv6
//! socket, one over IPv6, and one that ended.

use proptest::prelude::*;

use super::*;

const TCP: &str = include_str!("tcp.txt");
const TCP6: &str = include_str!("tcp6.txt");

fn find(table: impl AsRef<[u8]>, own: &str, peer: &str) -> Vec<u64> {
    sockets(table.as_ref(), own.parse().unwrap(), peer.parse().unwrap()).expect("a slice reads")
}

/// A row as the kernel writes it: `tcp4_seq_show` and `tcp6_seq_show`.
fn line(own: SocketAddr, peer: SocketAddr, inode: u64) -> String {
    let hex = |octets: &[u8]| -> String {
        octets.chunks(4).map(|four| format!("{:08X}", u32::from_ne_bytes(four.try_into().unwrap()))).collect()
    };
    let endpoint = |a: SocketAddr| match a.ip() {
        IpAddr::V4(ip) => format!("{}:{:04X}", hex(&ip.octets()), a.port()),
        IpAddr::V6(ip) => format!("{}:{:04X}", hex(&ip.octets()), a.port()),
    };
    let (own, peer) = (endpoint(own), endpoint(peer));
    format!(
        "   7: {own} {peer} 01 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0000000000000000 20 4 30 10 -1\n"
    )
}

#[cfg(target_endian = "little")]
#[test]
fn each_end_of_a_connection_is_found_by_its_own_address() {
    assert_eq!(find(TCP, "127.0.0.1:48744", "127.0.0.1:58911"), [1_453_292]);
    assert_eq!(find(TCP, "127.0.0.1:58911", "127.0.0.1:48744"), [1_453_293]);
    assert_eq!(find(TCP6, "[::1]:49648", "[::1]:58487"), [1_453_297]);
    assert_eq!(find(TCP6, "[::1%3]:49648", "[::1]:58487"), [1_453_297], "the table knows no scope");
    for (own, peer) in
        [("127.0.0.1:48744", "127.0.0.1:58912"), ("127.0.0.2:48744", "127.0.0.1:58911"), ("[::1]:48744", "[::1]:58911")]
    {
        assert_eq!(find(TCP, own, peer), [0; 0], "{own} {peer}");
    }
}

#[cfg(target_endian = "little")]
#[test]
fn an_ipv4_address_in_ipv6_is_that_ipv4_address() {
    for own in ["127.0.0.1:48746", "[::ffff:127.0.0.1]:48746"] {
        for peer in ["127.0.0.1:58911", "[::ffff:127.0.0.1]:58911"] {
            assert_eq!(find(TCP6, own, peer), [1_453_294], "{own} {peer}");
        }
    }
}

#[test]
fn a_socket_that_nobody_holds_is_none() {
    assert_eq!(find(TCP6, "[::1]:49664", "[::1]:58487"), [0; 0]);
}

#[test]
fn sockets_that_only_scopes_tell_apart_are_all_found() {
    let (own, peer) = ("[fe80::1]:5000", "[fe80::2]:6000");
    let row = |inode| line(own.parse().unwrap(), peer.parse().unwrap(), inode);
    assert_eq!(find(row(8) + &row(9), own, peer), [8, 9]);
}

#[test]
fn malformed_lines_are_passed_over() {
    let (own, peer) = ("127.0.0.1:5000", "127.0.0.1:6000");
    let good = line(own.parse().unwrap(), peer.parse().unwrap(), 8);
    let broken = [
        good.replace("0100007F:1388", "0100007F"),
        good.replace("0100007F:1388", "0100007F:11388"),
        good.replace("0100007F:1388", "100007F:1388"),
        good.replace("0100007F:1388", "ä00007F:1388"),
        good.replace(" 8 1 ", " 18446744073709551616 1 "),
        good.replace(" 8 1 ", " -8 1 "),
        good[..good.find(" 1 0000").unwrap()].to_owned() + "\n",
        "\n".into(),
    ];
    for bad in broken {
        assert_eq!(find(&bad, own, peer), [0; 0], "{bad}");
        assert_eq!(find(bad.clone() + &good, own, peer), [8], "{bad}");
    }
    assert_eq!(find([b"\xff\xfe 1 2\n", good.as_bytes()].concat(), own, peer), [8]);
}

#[test]
fn a_table_cut_anywhere_gives_no_other_socket() {
    for (table, own, peer, inode) in
        [(TCP, "127.0.0.1:48744", "127.0.0.1:58911", 1_453_292), (TCP6, "[::1]:49648", "[::1]:58487", 1_453_297)]
    {
        for end in 0..table.len() {
            let found = find(&table[..end], own, peer);
            assert!(found.is_empty() || found == [inode], "{end}: {found:?}");
        }
    }
}

#[test]
fn a_table_beyond_the_limit_is_an_error_unless_the_socket_came_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tcp");
    let (own, peer) = ("127.0.0.1:5000".parse().unwrap(), "127.0.0.1:6000".parse().unwrap());
    let other = line(peer, own, 7);
    let limit = u64::try_from(other.len() * 2).unwrap();
    std::fs::write(&path, line(own, peer, 8) + &other.repeat(9)).unwrap();
    assert_eq!(read(&path, own, peer, limit).unwrap(), [8]);
    std::fs::write(&path, other.repeat(9) + &line(own, peer, 8)).unwrap();
    assert!(read(&path, own, peer, limit).unwrap_err().to_string().contains("no more are read"));
}

#[test]
fn only_the_table_of_ipv6_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (v4, v6) = ("127.0.0.1:5000".parse().unwrap(), "[::1]:5000".parse().unwrap());
    assert_eq!(sockets_in(folder.path(), v6, v6), Ok(vec![]));
    let Err(Unknown::Procfs(text)) = sockets_in(folder.path(), v4, v4) else { panic!("no tables at all") };
    assert!(text.contains("net/tcp: "), "{text}");
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn what_the_kernel_writes_is_read(own in address(), peer in address(), inode in 1..=u64::MAX) {
        let expected = Row { own: plain(own), peer: plain(peer), inode };
        prop_assert_eq!(row(line(own, peer, inode).as_bytes()), Some(expected));
    }

    #[test]
    fn any_bytes_are_a_table(table: Vec<u8>, text in "[0-9A-F: ä\n]{0,200}", own in address()) {
        prop_assert_eq!(sockets(&table[..], own, own).unwrap(), [0; 0]);
        sockets(text.as_bytes(), own, own).unwrap();
    }
}
