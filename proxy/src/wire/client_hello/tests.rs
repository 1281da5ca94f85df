use proptest::prelude::*;

use super::*;

fn u16_bytes(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap().to_be_bytes()
}

fn extension_bytes(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &u16_bytes(data.len()), data].concat()
}

fn server_names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|(kind, name)| [&[*kind][..], &u16_bytes(name.len()), name].concat()).collect();
    extension_bytes(SERVER_NAME, &[&u16_bytes(list.len())[..], &list].concat())
}

fn sni(name: &str) -> Vec<u8> {
    server_names(&[(0, name.as_bytes())])
}

/// A handshake message with these extensions.
fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &u16_bytes(extensions.len()), extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], &body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &u16_bytes(part.len()), part].concat()).collect()
}

fn read(raw: &[u8]) -> Progress<Hello> {
    Joiner::default().read(raw)
}

fn sni_of(extensions: &[u8]) -> Sni {
    match read(&records(&message(extensions), MAX_RECORD)) {
        Progress::Done(hello, _) => hello.sni,
        other => panic!("{other:?}"),
    }
}

fn one(name: &str) -> Sni {
    Sni::One(name.parse().unwrap())
}

#[test]
fn a_name_is_read_and_normalised() {
    assert_eq!(sni_of(&sni("allowed.test")), one("allowed.test"));
    assert_eq!(sni_of(&sni("ALLOWED.test")), one("allowed.test"));
    assert_eq!(sni_of(&sni("allowed.test.")), one("allowed.test"));
    assert_eq!(sni_of(&[]), Sni::Absent);
}

#[test]
fn t05_every_way_of_cutting_it_into_records_gives_the_same_answer() {
    let message = message(&[extension_bytes(0x0a0a, &[]), sni("allowed.test"), extension_bytes(ECH, &[1; 40])].concat());
    let whole = Hello { sni: one("allowed.test"), ech: true };
    for size in 1..=message.len() {
        let raw = records(&message, size);
        assert_eq!(read(&raw), Progress::Done(whole.clone(), raw.len()), "records of {size}");
    }
    for cut in 1..message.len() {
        let raw = [records(&message[..cut], MAX_RECORD), records(&message[cut..], MAX_RECORD)].concat();
        assert_eq!(read(&raw), Progress::Done(whole.clone(), raw.len()), "cut at {cut}");
    }
}

#[test]
fn t04_every_prefix_needs_more_whether_read_at_once_or_in_steps() {
    let raw = records(&message(&sni("allowed.test")), 7);
    let mut joiner = Joiner::default();
    for end in 0..raw.len() {
        assert_eq!(read(&raw[..end]), Progress::More, "{end}");
        assert_eq!(joiner.read(&raw[..end]), Progress::More, "{end}");
    }
    assert!(matches!(joiner.read(&raw), Progress::Done(..)));
}

#[test]
fn what_follows_the_hello_is_left_alone() {
    let hello = records(&message(&sni("allowed.test")), MAX_RECORD);
    let raw = [&hello[..], &[0x17, 3, 3, 0, 1, 0]].concat();
    assert!(matches!(read(&raw), Progress::Done(_, length) if length == hello.len()));
}

#[test]
fn t08_lengths_are_bounded() {
    let padded = message(&[sni("allowed.test"), extension_bytes(21, &[0; 40_000])].concat());
    assert!(matches!(read(&records(&padded, MAX_RECORD)), Progress::Done(..)), "40 KB of padding");
    let huge = [&[HANDSHAKE, 3, 1, 0, 4][..], &[CLIENT_HELLO, 0xff, 0xff, 0xff]].concat();
    assert!(matches!(read(&huge), Progress::Never(_)), "a message of 16 MiB");
    for length in [[0u8, 0], [0x40, 1], [0xff, 0xff]] {
        assert!(matches!(read(&[&[HANDSHAKE, 3, 1][..], &length].concat()), Progress::Never(_)), "a record of {length:?}");
    }
    // The header of a message of 64,000 octets, and then its zeros, one to a record.
    let message = [&[CLIENT_HELLO, 0, 0xfa, 0][..], &[0; 64_000]].concat();
    assert!(matches!(read(&records(&message, 1)[..MAX_HELLO]), Progress::Never(_)), "64 KiB of one-octet records");
}

#[test]
fn other_records_messages_and_versions_are_refused() {
    for raw in [&[0x15u8, 3, 1][..], &[HANDSHAKE, 2, 0], &[0x80, 0x2e, 1], &[HANDSHAKE, 3, 1, 0, 1, 2]] {
        assert!(matches!(read(raw), Progress::Never(_)), "{raw:?}");
    }
    let split = [records(&message(&sni("a.test"))[..9], MAX_RECORD), vec![0x17, 3, 3, 0, 1, 0]].concat();
    assert!(matches!(read(&split), Progress::Never(_)), "application data inside the hello");
}

#[test]
fn t10_server_names_that_are_no_names_are_told_apart() {
    for name in [&b""[..], b"10.0.0.1", b"[::1]", b"a\0b", "b\u{fc}cher.test".as_bytes(), &[b'a'; 300], b"a b", b"*.test"] {
        assert!(matches!(sni_of(&server_names(&[(0, name)])), Sni::Invalid(_)), "{name:?}");
    }
    assert!(matches!(sni_of(&server_names(&[(1, b"allowed.test")])), Sni::Invalid(_)));
    assert!(matches!(sni_of(&server_names(&[])), Sni::Invalid(_)));
    assert!(matches!(sni_of(&extension_bytes(SERVER_NAME, &[])), Sni::Invalid(_)));
    let trailing = [&[0, 15, 0, 0, 12][..], b"allowed.test", b"x"].concat();
    assert!(matches!(sni_of(&extension_bytes(SERVER_NAME, &trailing)), Sni::Invalid(_)));
}

#[test]
fn two_server_names_are_ambiguous_in_one_list_or_two_extensions() {
    assert_eq!(sni_of(&server_names(&[(0, b"allowed.test"), (0, b"evil.test")])), Sni::Many);
    assert_eq!(sni_of(&server_names(&[(0, b"allowed.test"), (7, b"evil.test")])), Sni::Many);
    assert_eq!(sni_of(&[sni("allowed.test"), sni("evil.test")].concat()), Sni::Many);
    assert_eq!(sni_of(&[sni("allowed.test"), sni("allowed.test")].concat()), Sni::Many);
}

#[test]
fn malformed_messages_are_refused() {
    let good = message(&sni("allowed.test"));
    let mut cut_extension = good.clone();
    let at = cut_extension.len() - 13;
    cut_extension[at] = 0xff;
    assert!(matches!(read(&records(&cut_extension, MAX_RECORD)), Progress::Done(Hello { sni: Sni::Invalid(_), .. }, _)));
    let mut trailing = good;
    trailing.push(0);
    trailing[3] += 1;
    assert!(matches!(read(&records(&trailing, MAX_RECORD)), Progress::Never(_)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&[&[HANDSHAKE, 3, 1][..], &raw].concat());
        let _ = read(&records(&[&[CLIENT_HELLO, 0, 0, u8::try_from(raw.len().min(255)).unwrap()][..], &raw].concat(), 50));
    }

    #[test]
    fn random_cuts_give_the_answer_of_the_whole(cuts in prop::collection::vec(1usize..40, 1..60)) {
        let message = message(&sni("allowed.test"));
        let (mut raw, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(message.len());
            raw.extend(records(&message[at..end], MAX_RECORD));
            at = end;
            if at == message.len() { break; }
        }
        let mut joiner = Joiner::default();
        let mut answer = Progress::More;
        for end in 0..=raw.len() {
            answer = joiner.read(&raw[..end]);
        }
        prop_assert_eq!(answer, Progress::Done(Hello { sni: one("allowed.test"), ech: false }, raw.len()));
    }
}
