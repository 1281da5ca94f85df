use super::*;

fn connect_to(name: &[u8], port: u16) -> Vec<u8> {
    let mut message = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    message.extend_from_slice(name);
    message.extend_from_slice(&port.to_be_bytes());
    message
}

fn asked_of(message: &[u8]) -> Asked {
    match request(message) {
        Progress::Done(asked, length) => {
            assert!(length <= message.len());
            asked
        }
        other => panic!("{message:?}: {other:?}"),
    }
}

#[test]
fn greetings_pick_user_names_where_offered() {
    assert_eq!(greeting(&[5, 1, 0]), Progress::Done(NO_AUTH, 3));
    assert_eq!(greeting(&[5, 2, 0, 2, 99]), Progress::Done(USER_PASSWORD, 4));
    assert_eq!(greeting(&[5, 1, 1]), Progress::Done(NO_METHOD, 3));
    assert_eq!(greeting(&[5, 0]), Progress::Done(NO_METHOD, 2));
    assert!(matches!(greeting(&[6, 1, 0]), Progress::Never(_)));
    for part in [&[][..], &[5], &[5, 1], &[5, 2, 0]] {
        assert_eq!(greeting(part), Progress::More);
    }
}

#[test]
fn s08_user_names_are_text_and_may_be_empty() {
    assert_eq!(credentials(b"\x01\x06worker\x01xY"), Progress::Done(Some("worker".into()), 10));
    assert_eq!(credentials(b"\x01\x00\x00"), Progress::Done(None, 3));
    assert!(matches!(credentials(b"\x01\x03a\0b\x00"), Progress::Never(_)));
    assert!(matches!(credentials(b"\x05\x01a"), Progress::Never(_)));
    let whole = [&b"\x01\xff"[..], &[b'u'; 255], b"\xff", &[b'p'; 255]].concat();
    for end in 0..whole.len() {
        assert_eq!(credentials(&whole[..end]), Progress::More, "{end}");
    }
    assert_eq!(credentials(&whole), Progress::Done(Some("u".repeat(255)), whole.len()));
}

#[test]
fn names_and_addresses_are_read_and_every_prefix_needs_more() {
    let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat();
    for (message, text) in [
        (connect_to(b"Allowed.test.", 443), "allowed.test:443"),
        (connect_to(b"192.0.2.1", 443), "192.0.2.1:443"),
        (vec![5, 1, 0, 1, 192, 0, 2, 1, 1, 187], "192.0.2.1:443"),
        (v6, "[::1]:80"),
    ] {
        assert_eq!(asked_of(&message), Asked::Connect(text.parse().unwrap()));
        for end in 0..message.len() {
            assert_eq!(request(&message[..end]), Progress::More, "{text} {end}");
        }
    }
}

#[test]
fn h04_h05_h11_names_with_other_bytes_are_refused_whole() {
    for c in [0u8, b'\r', b'\n', b' ', b'\t', b'%', b'@', b'/', b'?', b'#', b'\\', 0xff] {
        let name = [&b"allowed.test"[..], &[c], b".evil.test"].concat();
        assert!(matches!(asked_of(&connect_to(&name, 443)), Asked::Refused(Reply::Failure, _)), "{c:#04x}");
    }
    for name in [&b""[..], &[b'a'; 255], b"a..b", "evil\u{3002}test".as_bytes(), b"127.1", b"::1"] {
        assert!(matches!(asked_of(&connect_to(name, 443)), Asked::Refused(Reply::Failure, _)), "{name:?}");
    }
}

#[test]
fn s02_s03_everything_but_connect_is_refused() {
    for command in [0, 2, 3, 9] {
        let message = [5, command, 0, 1, 1, 1, 1, 1, 1, 187];
        assert!(matches!(asked_of(&message), Asked::Refused(Reply::CommandNotSupported, _)), "{command}");
    }
    assert!(matches!(asked_of(&[5, 1, 0, 2]), Asked::Refused(Reply::AddressTypeNotSupported, _)));
    assert!(matches!(asked_of(&connect_to(b"allowed.test", 0)), Asked::Refused(Reply::Failure, _)));
    assert!(matches!(request(&[5, 1, 1, 1]), Progress::Never(_)));
    assert!(matches!(request(&[6, 1, 0, 1]), Progress::Never(_)));
}
