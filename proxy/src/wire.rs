//! Readers of what clients send: pure functions over bytes that answer done, need more, or never. No sockets, no
//! clocks; every prefix of a real message is a test, and so is every way of cutting one up.

pub mod http;
pub mod framing;
pub mod socks5;
pub mod socks4;
pub mod client_hello;

use egret_policy::{Host, NameError, TargetError};

/// What a reader says of the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// A whole message, and how many bytes it took.
    Done(T, usize),
    /// A beginning.
    More,
    /// No continuation can make this a message; the text says why.
    Never(String),
}

/// Reads a host as it came over the wire. Names on the wire are ASCII (RFC 9110, RFC 1928, RFC 6066); a non-ASCII
/// one is refused, since its readers disagree on what it means.
pub(crate) fn host(bytes: &[u8]) -> Result<Host, TargetError> {
    Host::parse(ascii(bytes)?)
}

pub(crate) fn ascii(bytes: &[u8]) -> Result<&str, TargetError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Ok(text),
        _ => Err(TargetError::Host(NameError::Idna)),
    }
}

/// Bytes as text for people, without anything that could steer a terminal or break a line.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    const SHOWN: usize = 100;
    let cut = &bytes[..bytes.len().min(SHOWN)];
    let dots = if cut.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}
