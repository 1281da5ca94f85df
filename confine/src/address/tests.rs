use proptest::prelude::*;

use super::*;

fn internet(bytes: &[u8]) -> SocketAddr {
    match parse(bytes) {
        Ok(Address::Internet(destination)) => destination.address,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_reaches_this_machine_is_named_so() {
    let any_v4 = to_bytes("0.0.0.0:80".parse().unwrap(), Family::V4);
    assert_eq!(internet(&any_v4), "127.0.0.1:80".parse().unwrap());
    let any_v6 = to_bytes("[::]:80".parse().unwrap(), Family::V6);
    assert_eq!(internet(&any_v6), "[::1]:80".parse().unwrap());
    let mapped_any = to_bytes("0.0.0.0:80".parse().unwrap(), Family::V6);
    assert_eq!(internet(&mapped_any), "127.0.0.1:80".parse().unwrap());
}

#[test]
fn a_mapped_address_is_the_ipv4_one() {
    let mapped = to_bytes("192.0.2.7:443".parse().unwrap(), Family::V6);
    assert_eq!(internet(&mapped), "192.0.2.7:443".parse().unwrap());
}

#[test]
fn what_a_socket_is_bound_to_names_no_device() {
    let local = |address: &str, family| parse_local(&to_bytes(address.parse().unwrap(), family), family);
    for (address, family) in [
        ("0.0.0.0:0", Family::V4),
        ("127.0.0.9:80", Family::V4),
        ("[::]:80", Family::V6),
        ("[2001:db8::2]:80", Family::V6),
        ("[ff05::2]:80", Family::V6),
    ] {
        assert_eq!(local(address, family), Ok(address.parse().unwrap()));
    }
    assert_eq!(local("192.0.2.2:80", Family::V6), Ok("[::ffff:192.0.2.2]:80".parse().unwrap()));
    for address in ["[fe80::1%7]:80", "[febf::1%7]:0", "[ff02::2%7]:80", "[ff01::2%7]:80", "[ff12::2%7]:80", "[fe80::1]:80"] {
        assert_eq!(local(address, Family::V6), Err(Errno::ADDRNOTAVAIL), "{address}");
    }
    let with_device = local("[2001:db8::2%7]:80", Family::V6);
    assert_eq!(with_device, Ok("[2001:db8::2]:80".parse().unwrap()), "the kernel ignores a device that is not needed");
}

#[test]
fn what_a_socket_is_bound_to_is_of_its_family_and_whole() {
    let (v4, v6) = (to_bytes("192.0.2.2:80".parse().unwrap(), Family::V4), to_bytes("[::]:80".parse().unwrap(), Family::V6));
    assert_eq!(parse_local(&v4, Family::V6), Err(Errno::INVAL), "it is shorter, too");
    assert_eq!(parse_local(&v6, Family::V4), Err(Errno::AFNOSUPPORT));
    assert_eq!(parse_local(&[&v4[..], &[0; 16]].concat(), Family::V6), Err(Errno::AFNOSUPPORT));
    assert_eq!(parse_local(&[0; 16], Family::V4), Ok("0.0.0.0:0".parse().unwrap()));
    assert_eq!(parse_local(&[&[0; 2], &v4[2..]].concat(), Family::V4), Err(Errno::AFNOSUPPORT));
    for length in 0..16 {
        assert_eq!(parse_local(&v4[..length], Family::V4), Err(Errno::INVAL));
        assert_eq!(parse_local(&v6[..length], Family::V6), Err(Errno::INVAL));
    }
}

#[test]
fn families_are_told_apart() {
    assert_eq!(parse(&[0, 0]), Ok(Address::Nobody));
    assert_eq!(parse(&[16, 0]), Ok(Address::Other));
    let netlink = |port: u8, group: u8| [16, 0, 7, 7, 0, port, 0, 0, 0, 0, group, 0];
    assert_eq!(parse(&netlink(0, 0)), Ok(Address::Kernel));
    assert_eq!(parse(&netlink(0, 0)[..11]), Ok(Address::Other), "too short");
    assert_eq!((parse(&netlink(1, 0)), parse(&netlink(0, 1))), (Ok(Address::Other), Ok(Address::Other)));
    assert_eq!(parse(&[]), Err(Errno::INVAL));
    assert_eq!(parse(&[2]), Err(Errno::INVAL));
}

#[test]
fn unix_names_are_paths_or_abstract() {
    let name = |bytes: &[u8]| match parse(&[&[1, 0], bytes].concat()) {
        Ok(Address::Unix(name)) => Ok((name.path().map(<[u8]>::to_vec), name.abstract_name().map(<[u8]>::to_vec))),
        Ok(other) => panic!("{other:?}"),
        Err(errno) => Err(errno),
    };
    assert_eq!(name(b"/run/s\0rest"), Ok((Some(b"/run/s".to_vec()), None)));
    assert_eq!(name(b"\0a\0b"), Ok((None, Some(b"a\0b".to_vec()))));
    assert_eq!(name(b"\0"), Ok((None, Some(Vec::new()))));
    assert_eq!(name(&[b'x'; 108]), Ok((Some(vec![b'x'; 108]), None)));
    for wrong in [vec![], vec![b'x'; 109], [vec![b'x', 0], vec![b'x'; 107]].concat()] {
        assert_eq!(name(&wrong), Err(Errno::INVAL), "{}", wrong.len());
    }
    assert_eq!(format!("{:?}", parse(b"\x01\0\0x\xff")), r"Ok(Unix(@x\xff))");
}

#[test]
fn every_shorter_address_is_refused() {
    let v4 = to_bytes("192.0.2.7:443".parse().unwrap(), Family::V4);
    let v6 = to_bytes("[2001:db8::7]:443".parse().unwrap(), Family::V6);
    for length in 2..v4.len() {
        assert_eq!(parse(&v4[..length]), Err(Errno::INVAL));
    }
    for length in 2..24 {
        assert_eq!(parse(&v6[..length]), Err(Errno::INVAL));
    }
    assert_eq!(internet(&v6[..24]), "[2001:db8::7]:443".parse().unwrap());
}

proptest! {
    #[test]
    fn what_is_written_is_read(address in any::<SocketAddr>(), zeros in 0..100_usize) {
        prop_assume!(!address.ip().to_canonical().is_unspecified());
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let mut bytes = to_bytes(address, family);
        bytes.extend(vec![0; zeros]);
        let read = internet(&bytes);
        prop_assert_eq!(read.ip(), address.ip().to_canonical());
        prop_assert_eq!(read.port(), address.port());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..LONGEST)) {
        let _ = parse(&bytes);
    }
}
