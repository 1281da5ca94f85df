//! The head of a CONNECT request (RFC 9110 section 9.3.6), read strictly: authority form, lines that end in CRLF, no
//! content. Where other requests end is told in `framing`, as strictly, before hyper reads what they mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use egret_policy::{Name, Target};
use httparse::{EMPTY_HEADER, Header, Status};

use super::{Progress, ascii};
use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_REQUEST_LINE};

/// A CONNECT request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Where the client wants to go.
    pub target: Target,
    /// The user name of its proxy credentials.
    pub user: Option<String>,
}

/// Why a head is refused, as the status that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// 400.
    BadRequest,
    /// 431: more than 16 KiB, or more than 100 fields.
    TooLarge,
}

/// Reads the head of a CONNECT request.
#[must_use]
pub fn connect(said: &[u8]) -> Progress<Result<Connect, (Refused, String)>> {
    head(said, |request| read(request.path.unwrap_or_default(), request.headers))
}

/// Reads a whole head whose lines all end in CRLF, of at most 16 KiB and 100 fields.
pub(super) fn head<T>(
    said: &[u8],
    read: impl FnOnce(&httparse::Request<'_, '_>) -> Result<T, String>,
) -> Progress<Result<T, (Refused, String)>> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let refused = |kind, why: &str| Progress::Done(Err((kind, why.to_owned())), said.len());
    match request.parse(said) {
        Ok(Status::Complete(length)) if length <= MAX_HEAD => {
            if !has_plain_lines(&said[..length]) {
                return refused(Refused::BadRequest, "a line of the head does not end in CRLF");
            }
            match read(&request) {
                Ok(message) => Progress::Done(Ok(message), length),
                Err(why) => refused(Refused::BadRequest, &why),
            }
        }
        Ok(Status::Partial) if said.len() < MAX_HEAD => Progress::More,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => refused(Refused::TooLarge, "the request head is too large"),
        Err(error) => refused(Refused::BadRequest, &format!("the request head is malformed: {error}")),
    }
}

/// Every LF follows a CR and every CR precedes an LF. httparse takes a bare LF for an end of line; the next reader
/// may not.
pub(super) fn has_plain_lines(head: &[u8]) -> bool {
    let ends = head.windows(2).filter(|pair| *pair == b"\r\n").count();
    let count = |byte| head.iter().filter(|b| **b == byte).count();
    count(b'\n') == ends && count(b'\r') == ends
}

fn read(target: &str, headers: &[Header<'_>]) -> Result<Connect, String> {
    let of = |name: &str| headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value).collect::<Vec<_>>();
    let target = ascii(target.as_bytes()).and_then(Target::parse);
    let target = target.map_err(|error| format!("CONNECT wants host:port: {error}"))?;
    if of("host").len() > 1 {
        return Err("the request has more than one Host field".into());
    }
    if !of("transfer-encoding").is_empty() || of("content-length").iter().any(|value| *value != b"0") {
        return Err("CONNECT has no content".into());
    }
    let user = of("proxy-authorization").first().and_then(|value| basic_user(value));
    Ok(Connect { target, user })
}

/// The host that the Host field of a request names; `None` if it names none, or not in one way. The bytes stay where they are.
#[must_use]
pub fn host(said: &[u8]) -> Progress<Option<Name>> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(said) {
        Ok(Status::Partial) if said.len() < MAX_HEAD => Progress::More,
        Ok(Status::Complete(length)) => {
            let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
            let host = hosts.next().filter(|_| hosts.next().is_none()).map(|header| ascii(header.value));
            let target = host.and_then(Result::ok).and_then(|host| Target::parse_or(host, 80).ok());
            Progress::Done(target.and_then(|target| target.host.name().cloned()), length)
        }
        _ => Progress::Done(None, said.len()),
    }
}

/// The user name of HTTP Basic credentials (RFC 7617); `None` for anything else. Passwords are not looked at: a role
/// is a claim, and any process of the task could read a password.
#[must_use]
pub fn basic_user(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let end = decoded.iter().position(|byte| *byte == b':').unwrap_or(decoded.len());
    String::from_utf8(decoded[..end].to_vec()).ok().filter(|user| !user.is_empty())
}

/// Whether these bytes, the first of a tunnel, are an HTTP request, as the most lenient server would read them: blanks and
/// empty lines first (RFC 9112 section 2.2), a method that may be any token of any length, whatever some library takes for a
/// blank, any target, and a last word on the line that begins with `HTTP/`. Which of them is well-formed is for `framing` to
/// say. `None` while it is open.
#[must_use]
pub(crate) fn is_request(said: &[u8]) -> Option<bool> {
    let start = said.iter().position(|byte| !is_blank(*byte) && *byte != b'\n')?;
    let line = &said[start..];
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    match line.get(method) {
        None if said.len() > MAX_REQUEST_LINE => Some(true),
        None => None,
        Some(after) if method == 0 || !is_blank(*after) => Some(false),
        Some(_) if is_counted_syslog(line, method) => Some(false),
        Some(_) => match line.iter().position(|byte| *byte == b'\n') {
            Some(end) => Some(has_version(&line[method..end])),
            None if said.len() > MAX_REQUEST_LINE => Some(true),
            None => None,
        },
    }
}

/// Syslog over TCP may tell the length of each message before it and end none with a line (RFC 6587 section 3.4.1).
fn is_counted_syslog(line: &[u8], digits: usize) -> bool {
    line[..digits].iter().all(u8::is_ascii_digit) && line.get(digits + 1) == Some(&b'<')
}

/// What Python's `str.split` takes for white space in Latin-1, and servers written with it for the end of a word.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1f | 0x85 | 0xa0)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn has_version(line: &[u8]) -> bool {
    let mut words = line.rsplit(|byte| is_blank(*byte)).filter(|word| !word.is_empty());
    words.next().is_some_and(|last| last.len() >= 5 && last[..5].eq_ignore_ascii_case(b"HTTP/"))
}

/// The same of no more than one line's worth: what lies beyond it is not looked at, or the size of a read would decide, and
/// what is open still is a request, as blanks may come before one without end.
#[must_use]
pub fn opens_request(said: &[u8]) -> Option<bool> {
    let line = said.get(..=MAX_REQUEST_LINE);
    is_request(line.unwrap_or(said)).or(line.map(|_| true))
}

#[cfg(test)]
mod tests;
