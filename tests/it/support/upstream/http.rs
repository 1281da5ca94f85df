//! The HTTP/1.1 server of the upstreams, over whatever carries it. Three kinds of request have an answer of their
//! own, every other gets the server's fixed body:
//!
//! - `GET /bytes/N`: N bytes of [`payload`](crate::support::payload)
//! - `POST` or `PUT`, any path: length and checksum of what was sent
//! - `HEAD`: no body

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use crate::support::http1::{copy_body, first_line, header, read_head};
use crate::support::payload::{Checksum, Payload};
use crate::support::seen::Seen;

/// How much of a payload is made at once; a multiple of 8, as the generator asks.
const PART: usize = 64 * 1024;

/// Answers requests until the client closes or asks to be closed.
pub(super) fn serve(stream: impl Read + Write, body: &str, heads: &Seen<String>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(head) = read_head(&mut stream)? {
        heads.push(head.clone());
        answer(&mut stream, &head, body)?;
        if header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

fn answer<S: Read + Write>(stream: &mut BufReader<S>, head: &str, body: &str) -> io::Result<()> {
    let mut words = first_line(head).split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if header(head, "expect").is_some() {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let receipt = receive(stream, head)?;
    let count = path.strip_prefix("/bytes/").and_then(|count| count.parse().ok());
    let mut out = BufWriter::new(stream.get_mut());
    match (method, count) {
        ("POST" | "PUT", _) => send(&mut out, &receipt),
        ("GET", Some(count)) => send_payload(&mut out, count),
        ("HEAD", _) => send_head(&mut out, body.len()),
        _ => send(&mut out, body),
    }?;
    out.flush()
}

fn receive(stream: &mut impl BufRead, head: &str) -> io::Result<String> {
    let mut sum = Checksum::new();
    copy_body(stream, head, false, |part| sum.add(part))?;
    Ok(sum.receipt())
}

fn send(out: &mut impl Write, body: &str) -> io::Result<()> {
    send_head(out, body.len())?;
    out.write_all(body.as_bytes())
}

fn send_head(out: &mut impl Write, length: usize) -> io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n")
}

fn send_payload(out: &mut impl Write, count: usize) -> io::Result<()> {
    send_head(out, count)?;
    let mut payload = Payload::new();
    let mut buffer = vec![0; PART];
    let mut left = count;
    while left > 0 {
        let part = left.min(PART);
        payload.fill(&mut buffer[..part]);
        out.write_all(&buffer[..part])?;
        left -= part;
    }
    Ok(())
}
