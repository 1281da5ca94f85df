use proptest::prelude::*;

use super::*;
use crate::limits::MAX_HEAD;

fn judged(head: &str) -> Result<Head, (Refused, String)> {
    match request(head.as_bytes()) {
        Progress::Done(result, _) => result,
        other => panic!("{head:?}: {other:?}"),
    }
}

fn with(fields: &str) -> Result<Head, (Refused, String)> {
    judged(&format!("POST http://allowed.test/ HTTP/1.1\r\n{fields}\r\n"))
}

#[track_caller]
fn malformed(fields: &str) {
    assert_eq!(with(fields).map_err(|(kind, _)| kind), Err(Refused::BadRequest), "{fields:?}");
}

#[test]
fn content_is_delimited_in_one_way() {
    let content = |fields| with(fields).unwrap().content;
    assert_eq!(content(""), Content::Length(0));
    assert_eq!(content("Host: a:80\r\nContent-Length: 007\r\n"), Content::Length(7));
    assert_eq!(content("Host: \r\ncontent-length: 999999999999999999\r\n"), Content::Length(999_999_999_999_999_999));
    assert_eq!(content("Transfer-Encoding: Chunked\r\n"), Content::Chunked);
}

#[test]
fn p02_p05_p06_p07_p10_heads_with_two_readings_are_malformed() {
    for fields in [
        "Host: a\r\nHost: a\r\n",
        "Host: a, b\r\n",
        "Host: u@a\r\n",
        "Host: a/b\r\n",
        "Host: a b\r\n",
        "Host: \u{e4}.test\r\n",
        "Host : a\r\n",
        "Host: a\r\n b\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: \r\n",
        "Content-Length: 1000000000000000000\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "A: b\nC: d\r\n",
        "A: b\rC: d\r\n",
        "A: b\0c\r\n",
        "A b: c\r\n",
        ": c\r\n",
    ] {
        malformed(fields);
    }
    for head in [
        "GET http://a.test/ HTTP/1.1\nHost: a.test\r\n\r\n",
        "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\n",
        "\nGET http://a.test/ HTTP/1.1\r\n\r\n",
        "GET http://a.test/\r\n\r\n",
        "GET  http://a.test/ HTTP/1.1\r\n\r\n",
        "GET http://a.test/ HTTP/1.2\r\n\r\n",
        "GET http://a.test/ HTTP/2.0\r\n\r\n",
        "G(T http://a.test/ HTTP/1.1\r\n\r\n",
        "GET http://[::1/ HTTP/1.1\r\n\r\n",
        "POST http://a.test/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "connect a.test:443 HTTP/1.1\r\n\r\n",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG http://a.test/ HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(judged(head).map_err(|(kind, _)| kind), Err(Refused::BadRequest), "{head:?}");
    }
}

#[test]
fn r09_heads_are_bounded() {
    let kind = |fields: &str| with(fields).map_err(|(kind, _)| kind);
    assert_eq!(kind(&"A: b\r\n".repeat(101)), Err(Refused::TooLarge));
    assert_eq!(kind(&format!("A: {}\r\n", "b".repeat(MAX_HEAD))), Err(Refused::TooLarge));
    assert!(with(&"A: b\r\n".repeat(100)).is_ok());
}

#[test]
fn every_prefix_of_a_head_needs_more() {
    let head = b"\r\nPOST http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nUpgrade: WebSocket\r\n\r\n";
    for end in 0..head.len() {
        assert_eq!(request(&head[..end]), Progress::More, "{end}");
    }
    let expected = Head { content: Content::Chunked, websocket: true };
    assert_eq!(request(&[&head[..], b"5\r\n"].concat()), Progress::Done(Ok(expected), head.len()));
}

const GOOD: &[u8] = b"5;name=\"va;lue\"\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX: y\r\nHost: evil.test\r\n\r\n";

/// How much of `said`, which comes in these parts, is content.
fn chunks(parts: &[&[u8]]) -> Result<(usize, bool), String> {
    let (mut chunks, mut held, mut total) = (Chunks::default(), Vec::new(), 0);
    for part in parts {
        held.extend_from_slice(part);
        let taken = chunks.read(&held)?;
        held.drain(..taken);
        total += taken;
    }
    Ok((total, chunks.ended()))
}

#[test]
fn chunks_end_where_they_end() {
    let followed = [GOOD, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(chunks(&[&followed]), Ok((GOOD.len(), true)));
    for end in 0..GOOD.len() {
        let (taken, ended) = chunks(&[&GOOD[..end]]).unwrap();
        assert!(taken <= end && !ended, "{end}");
    }
}

#[test]
fn p08_a_broken_chunk_is_refused_however_it_is_cut() {
    let long = format!("1;{}\r\na\r\n", "e".repeat(MAX_CHUNK_LINE));
    let trailers = format!("0\r\nA: {}\r\n\r\n", "b".repeat(MAX_TRAILERS));
    for bad in [
        "FFFFFFFFFFFFFFFFF\r\n",
        "ffffffffffffffff\r\n",
        "0x1\r\na\r\n",
        "-1\r\na\r\n",
        "+1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "\r\n",
        ";x\r\n",
        "1\na\r\n",
        "1\r\nab\r\n",
        "1\r\na\n",
        "1\r\na\r0",
        "1;a\nb\r\na\r\n",
        "1;a\x01\r\na\r\n",
        "0\r\nHost: a\nB: c\r\n\r\n",
        "0\r\nHost : a\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\n\n",
        &long,
        &trailers,
    ] {
        let bytes = bad.as_bytes();
        assert!(chunks(&[bytes]).is_err(), "{bad:?}");
        let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
        assert!(chunks(&one_by_one).is_err(), "{bad:?} byte by byte");
    }
}

proptest! {
    #[test]
    fn chunks_are_the_same_however_they_are_cut(cuts in prop::collection::vec(0..GOOD.len(), 0..12)) {
        let mut cuts = cuts;
        cuts.extend([0, GOOD.len()]);
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &GOOD[cut[0]..cut[1]]).collect();
        prop_assert_eq!(chunks(&parts), Ok((GOOD.len(), true)));
    }

    #[test]
    fn anything_is_read_without_a_panic_and_alike_in_two_parts(said in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
        let cut = cut.min(said.len());
        let _ = request(&said);
        let whole = chunks(&[&said]);
        let parts = chunks(&[&said[..cut], &said[cut..]]);
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn near_chunks_are_read_alike_in_two_parts(said in "[0-9a-f]{0,2};{0,1}[\r\n a1]{0,12}", cut in 0usize..20) {
        let cut = cut.min(said.len());
        let parts = chunks(&[&said.as_bytes()[..cut], &said.as_bytes()[cut..]]);
        prop_assert_eq!(chunks(&[said.as_bytes()]), parts);
    }
}
