//! Where an HTTP/1 request ends and the next one begins (RFC 9112), for requests that go through hyper. hyper reads what
//! they mean; it also forgives what another reader may take for the start of a second request: a bare LF, a length beside
//! chunks. Nothing is forgiven here, so that whatever gets as far as hyper has one reading.

use httparse::{EMPTY_HEADER, Header, Request, Status};

use super::Progress;
use super::http::{Refused, has_plain_lines, head};
use crate::limits::{MAX_CHUNK_LINE, MAX_HEADERS, MAX_METHOD, MAX_TRAILERS};

/// What the head of a request says of its rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its content.
    pub content: Content,
    /// Whether it asks for a WebSocket, so that what follows may be none of HTTP.
    pub websocket: bool,
}

/// How the content of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// By this many octets.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Reads the head of a request in absolute or origin form.
#[must_use]
pub fn request(said: &[u8]) -> Progress<Result<Head, (Refused, String)>> {
    head(said, read)
}

fn read(request: &Request<'_, '_>) -> Result<Head, String> {
    let method = request.method.unwrap_or_default();
    if method.len() > MAX_METHOD {
        return Err("the method is longer than any there is".into());
    }
    if method.eq_ignore_ascii_case("CONNECT") {
        return Err("CONNECT comes first on its connection, or not at all".into());
    }
    if let Err(error) = request.path.unwrap_or_default().parse::<hyper::Uri>() {
        return Err(format!("the request target is no URI: {error}"));
    }
    let fields = Fields(request.headers);
    if let Some(host) = fields.at_most_one("Host")? {
        check_host(host)?;
    }
    let content = content(&fields, request.version == Some(1))?;
    let websocket = matches!(fields.at_most_one("Upgrade"), Ok(Some(value)) if value.eq_ignore_ascii_case(b"websocket"));
    Ok(Head { content, websocket })
}

/// A Host field names one host, or none (RFC 9112 section 3.2). Who reads a list, a path, or credentials before a name,
/// reads one of two names; which of them is right is no question for a filter.
fn check_host(value: &[u8]) -> Result<(), String> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    if value.iter().all(is_plain) { Ok(()) } else { Err("the Host field is no host with a port".into()) }
}

fn content(fields: &Fields<'_>, is_1_1: bool) -> Result<Content, String> {
    let coding = fields.at_most_one("Transfer-Encoding")?;
    match (fields.at_most_one("Content-Length")?, coding) {
        (Some(_), Some(_)) => Err("the request has both a Content-Length and a Transfer-Encoding".into()),
        (None, Some(_)) if !is_1_1 => Err("HTTP/1.0 has no Transfer-Encoding".into()),
        (None, Some(value)) if value.eq_ignore_ascii_case(b"chunked") => Ok(Content::Chunked),
        (None, Some(_)) => Err("the only transfer coding served is chunked".into()),
        (Some(value), None) => length(value).map(Content::Length).ok_or_else(|| "the Content-Length is no number".into()),
        (None, None) => Ok(Content::Length(0)),
    }
}

fn length(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok().filter(|_| is_length(value))?.parse().ok()
}

/// Digits and nothing else, few enough for every reader's integers.
pub(crate) fn is_length(value: &[u8]) -> bool {
    const MAX_DIGITS: usize = 18;
    !value.is_empty() && value.len() <= MAX_DIGITS && value.iter().all(u8::is_ascii_digit)
}

struct Fields<'a>(&'a [Header<'a>]);

impl<'a> Fields<'a> {
    fn at_most_one(&self, name: &str) -> Result<Option<&'a [u8]>, String> {
        let mut values = self.0.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
        let first = values.next();
        if values.next().is_some() { Err(format!("the request has more than one {name} field")) } else { Ok(first) }
    }
}

/// Reads chunked content (RFC 9112 section 7.1) piece by piece and keeps its place.
#[derive(Debug)]
pub struct Chunks(Place);

#[derive(Debug)]
enum Place {
    /// Before the line with the size of a chunk.
    Size,
    /// This many octets before the end of a chunk's data.
    Data(u64),
    /// Between a chunk's data and the next size.
    AfterData,
    /// After the last chunk.
    Trailers,
    /// After everything.
    End,
}

impl Default for Chunks {
    fn default() -> Self {
        Self(Place::Size)
    }
}

impl Chunks {
    /// How many of these octets, the next ones, belong to the content; of a line that is not whole yet, none.
    ///
    /// # Errors
    /// Says what is wrong where no continuation can make these chunks.
    pub fn read(&mut self, said: &[u8]) -> Result<usize, String> {
        let mut taken = 0;
        while let Some((length, next)) = self.step(&said[taken..])? {
            taken += length;
            self.0 = next;
        }
        Ok(taken)
    }

    /// Whether the content is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.0, Place::End)
    }

    fn step(&self, said: &[u8]) -> Result<Option<(usize, Place)>, String> {
        match self.0 {
            Place::Size => size_line(said),
            Place::Data(_) if said.is_empty() => Ok(None),
            Place::Data(left) => {
                let here = said.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - here as u64;
                Ok(Some((here, if left == 0 { Place::AfterData } else { Place::Data(left) })))
            }
            Place::AfterData => match said {
                [] | [b'\r'] => Ok(None),
                [b'\r', b'\n', ..] => Ok(Some((2, Place::Size))),
                _ => Err("a chunk is longer than its size says".into()),
            },
            Place::Trailers => trailers(said),
            Place::End => Ok(None),
        }
    }
}

/// A size in hex digits, perhaps extensions after a semicolon, CRLF.
fn size_line(said: &[u8]) -> Result<Option<(usize, Place)>, String> {
    const MAX_DIGITS: usize = 15;
    let digits = said.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let Some(after) = said.get(digits) else { return Ok(None) };
    if digits == 0 || digits > MAX_DIGITS || !matches!(after, b';' | b'\r') {
        return Err("the size of a chunk is no hexadecimal number, or too large".into());
    }
    let text = said[digits..].iter().take(MAX_CHUNK_LINE).take_while(|byte| is_text(**byte)).count();
    let end = digits + text;
    match &said[end..] {
        _ if text == MAX_CHUNK_LINE => Err("the extensions of a chunk are too long".into()),
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            let digits = std::str::from_utf8(&said[..digits]).unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
            Ok(Some((end + 2, if size == 0 { Place::Trailers } else { Place::Data(size) })))
        }
        _ => Err("the line with the size of a chunk does not end in CRLF".into()),
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Fields as in a head, and an empty line.
fn trailers(said: &[u8]) -> Result<Option<(usize, Place)>, String> {
    let mut fields = [EMPTY_HEADER; MAX_HEADERS];
    match httparse::parse_headers(said, &mut fields) {
        Ok(Status::Complete((length, _))) if length <= MAX_TRAILERS && has_plain_lines(&said[..length]) => {
            Ok(Some((length, Place::End)))
        }
        Ok(Status::Partial) if said.len() < MAX_TRAILERS => Ok(None),
        _ => Err("the trailers after the last chunk are malformed or too long".into()),
    }
}

#[cfg(test)]
mod tests;
