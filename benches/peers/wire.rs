//! What the two ends say to each other: a ClientHello and its answer, a stream whose every word tells its place, and the
//! counters of the far end, by which a sample is checked.

use std::net::{Ipv4Addr, SocketAddr};

/// The allowed name that peers find in `/etc/hosts`.
pub(crate) const NAME: &str = "origin.bench.test";
/// The allowed name that is in DNS alone, for those that keep answers.
pub(crate) const CACHED: &str = "cached.bench.test";
/// A name that no list has. It leads to the same address, as the names of a shared front do.
pub(crate) const FOREIGN: &str = "foreign.bench.test";

pub(crate) const TLS_PORT: u16 = 443;
pub(crate) const HTTP_PORT: u16 = 80;

pub(crate) const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The length of the answer to a ClientHello: about that of a ServerHello with a small certificate.
pub(crate) const FLIGHT: usize = 1200;
/// The length of the answer to [`ECHO`].
pub(crate) const ECHOED: usize = 64;
/// Asks for a stream without end.
pub(crate) const STREAM: u8 = b'S';
/// Asks for a few bytes, to see that a tunnel lives.
pub(crate) const ECHO: u8 = b'E';
/// Asks for the counters, as two big-endian numbers of 64 bits.
pub(crate) const COUNTERS: u8 = b'?';
/// The body of the plain answer.
pub(crate) const BODY: [u8; 128] = [b'x'; 128];

const HANDSHAKE: u8 = 22;
/// As current clients pad it.
const HELLO_LENGTH: usize = 517;

/// A ClientHello for TLS 1.3 and 1.2 (RFC 8446 section 4.1.2) with this server name, 517 bytes long as browsers send it.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    let random: Vec<u8> = (0..64).map(|n: u8| n.wrapping_mul(151).wrapping_add(7)).collect();
    let extensions = extensions(name, &random[..32]);
    let head = [
        &[3, 3][..],
        &random[..32],
        &[32],
        &random[32..],
        &sized(&[0x13, 1, 0x13, 3, 0x13, 2, 0xc0, 0x2b, 0xc0, 0x2f, 0xcc, 0xa9]),
        &[1, 0],
    ]
    .concat();
    // Record and handshake headers, the length of the extensions, the head of the padding.
    let padding = HELLO_LENGTH.saturating_sub(5 + 4 + head.len() + 2 + extensions.len() + 4);
    let extensions = [extensions, extension(21, &vec![0; padding])].concat();
    let body = [head, sized(&extensions)].concat();
    let length = u32::try_from(body.len()).expect("24 bits").to_be_bytes();
    [&[HANDSHAKE, 3, 1][..], &sized(&[&[1], &length[1..], &body].concat())].concat()
}

fn extensions(name: &str, share: &[u8]) -> Vec<u8> {
    let name = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    [
        extension(0, &name),
        extension(10, &sized(&[0, 29, 0, 23, 0, 24])),
        extension(13, &sized(&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1])),
        extension(16, &sized(b"\x02h2\x08http/1.1")),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(45, &[1, 1]),
        extension(51, &sized(&[&[0, 29][..], &sized(share)].concat())),
    ]
    .concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(body)].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("16 bits").to_be_bytes()[..], bytes].concat()
}

/// The length of the record at the start, with its header, if that is known yet.
pub(crate) fn record_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [HANDSHAKE, _, _, high, low, ..] => Some(5 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

/// What the far end answers to a ClientHello: a handshake record.
pub(crate) fn flight() -> Vec<u8> {
    let body: Vec<u8> = (0..FLIGHT - 5).map(|n| (n * 31 % 251) as u8).collect();
    [&[HANDSHAKE, 3, 3][..], &sized(&body)].concat()
}

/// The stream begins again after this many bytes: few enough to stay in the processor's cache.
pub(crate) const PERIOD: usize = 256 << 10;
const WORD: usize = 8;

/// One period of the stream.
pub(crate) fn period() -> Vec<u8> {
    (0..PERIOD / WORD).flat_map(word).collect()
}

fn word(index: usize) -> [u8; WORD] {
    (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

/// Whether these bytes are what the stream has at this offset, by their first and last whole words.
pub(crate) fn is_stream(bytes: &[u8], offset: usize) -> bool {
    let first = offset.next_multiple_of(WORD) - offset;
    let last = ((offset + bytes.len()) / WORD * WORD).checked_sub(WORD + offset).unwrap_or(usize::MAX);
    let right = |at: usize| {
        let found = bytes.get(at..at.saturating_add(WORD));
        found.is_none_or(|found| found == word((offset + at) % PERIOD / WORD))
    };
    right(first) && right(last)
}

/// The same, of every word.
pub(crate) fn is_stream_throughout(bytes: &[u8], offset: usize) -> bool {
    let first = offset.next_multiple_of(WORD) - offset;
    let words = bytes.get(first..).unwrap_or_default().chunks_exact(WORD);
    words.enumerate().all(|(n, found)| found == word((offset + first + n * WORD) % PERIOD / WORD))
}
