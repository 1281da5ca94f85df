//! HTTP/1.1 heads and bodies as the harness's own client and server read them. It believes its peer: this is no
//! parser to test egret's with, and no message is ever refused here for anything but an early end.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Status line and headers as they came, with the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Reads one final answer; interim ones (100, 103) are skipped.
    pub(crate) fn read(stream: impl Read) -> io::Result<Self> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut response = Self::of_head(read_head(&mut stream)?.ok_or(ErrorKind::UnexpectedEof)?);
            if response.status >= 200 {
                let until_close = !matches!(response.status, 204 | 304);
                copy_body(&mut stream, &response.head, until_close, |part| response.body.extend_from_slice(part))?;
                return Ok(response);
            }
        }
    }

    /// What the head alone says; the body stays empty.
    pub(crate) fn of_head(head: String) -> Self {
        let mut words = first_line(&head).splitn(3, ' ').skip(1);
        let status = words.next().and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not an HTTP status line: {head:?}"));
        let reason = words.next().unwrap_or_default().to_owned();
        Self { status, reason, head, body: Vec::new() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads to the empty line and not a byte further. `None` when the peer closed before the first byte.
pub(crate) fn read_head(stream: &mut impl Read) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte)? {
            0 if head.is_empty() => return Ok(None),
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            _ => head.push(byte[0]),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

pub(crate) fn first_line(head: &str) -> &str {
    head.lines().next().unwrap_or_default()
}

/// The first header of that name, in any case.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Hands the body that follows `head` to `sink`, part by part, freed of chunks. Without a length it lasts until
/// the peer closes if `until_close` (answers), and is empty otherwise (requests).
pub(crate) fn copy_body(stream: &mut impl BufRead, head: &str, until_close: bool, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
    let chunked = header(head, "transfer-encoding").is_some_and(|coding| coding.ends_with("chunked"));
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    match length {
        _ if chunked => copy_chunks(stream, sink),
        Some(length) => copy_exactly(stream, length, &mut sink),
        None if until_close => copy_to_end(stream, sink),
        None => Ok(()),
    }
}

fn copy_chunks(stream: &mut impl BufRead, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
        if size == 0 {
            break;
        }
        copy_exactly(stream, size, &mut sink)?;
        read_line(stream)?;
    }
    while !read_line(stream)?.is_empty() {}
    Ok(())
}

fn copy_exactly(stream: &mut impl BufRead, length: u64, sink: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let available = stream.fill_buf()?;
        if available.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let taken = usize::try_from(left).map_or(available.len(), |left| left.min(available.len()));
        sink(&available[..taken]);
        stream.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

fn copy_to_end(stream: &mut impl BufRead, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let available = stream.fill_buf()?;
        if available.is_empty() {
            return Ok(());
        }
        let taken = available.len();
        sink(available);
        stream.consume(taken);
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
