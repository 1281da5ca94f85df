//! A TLS ClientHello (RFC 8446 section 4.1.2), joined from as many records and segments as the client cares to cut it
//! into, and read for its server name. tls-parser reads the message; the joining is ours, because a hello cut over
//! records is a known way around SNI filters, and so is the strict reading of the server name list.

use egret_policy::{Name, Sni};
use tls_parser::parse_tls_handshake_client_hello;

use super::{Progress, ascii, escaped};
use crate::limits::MAX_HELLO;

/// The record type of handshake messages.
const HANDSHAKE: u8 = 0x16;
/// The handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// The most payload of a plaintext record (RFC 8446 section 5.1).
const MAX_RECORD: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// Extension type of the server name (RFC 6066).
const SERVER_NAME: u16 = 0;
/// Extension type of Encrypted Client Hello (RFC 9849), GREASE included.
const ECH: u16 = 0xfe0d;

/// What a ClientHello shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The server name.
    pub sni: Sni,
    /// Whether the ECH extension is there.
    pub ech: bool,
}

/// Joins the handshake bytes of the records seen so far. It keeps its place, so that a hello that trickles in byte by
/// byte is not read from its start each time.
#[derive(Debug, Default)]
pub struct Joiner {
    message: Vec<u8>,
    taken: usize,
}

impl Joiner {
    /// Reads on in `said`, which holds everything the client has said, from its first byte. The count in `Done` is
    /// that of the raw bytes up to the end of the hello's last record; they travel on untouched.
    pub fn read(&mut self, said: &[u8]) -> Progress<Hello> {
        // What lies beyond the limit is not looked at, or it would depend on the size of a read whether it counts.
        let said = &said[..said.len().min(MAX_HELLO)];
        loop {
            match message_length(&self.message) {
                Some(length) if length > MAX_HELLO => return Progress::Never("the ClientHello is longer than 64 KiB".into()),
                Some(length) if self.message.len() >= length => return finish(&self.message[..length], self.taken),
                _ => {}
            }
            match record(&said[self.taken..]) {
                Progress::Done(payload, length) => {
                    self.taken += length;
                    // Nearly every hello is in one record, and is read where it lies.
                    if let Some(whole) = whole(payload).filter(|_| self.message.is_empty()) {
                        return finish(whole, self.taken);
                    }
                    self.message.extend_from_slice(payload);
                }
                Progress::More if said.len() >= MAX_HELLO => {
                    return Progress::Never("the ClientHello is longer than 64 KiB".into());
                }
                Progress::More => return self.early_refusal(),
                Progress::Never(why) => return Progress::Never(why),
            }
        }
    }

    fn early_refusal(&self) -> Progress<Hello> {
        match self.message.first() {
            Some(kind) if *kind != CLIENT_HELLO => Progress::Never(format!("handshake type {kind} is no ClientHello")),
            _ => Progress::More,
        }
    }
}

/// The length of a message with its header, once that is known.
fn message_length(message: &[u8]) -> Option<usize> {
    let [_, high, middle, low] = message.first_chunk::<MESSAGE_HEADER>()?;
    Some(MESSAGE_HEADER + u32::from_be_bytes([0, *high, *middle, *low]) as usize)
}

/// The message that begins here, if all of it is here.
fn whole(message: &[u8]) -> Option<&[u8]> {
    message.get(..message_length(message)?)
}

/// One record: its payload and its whole length.
fn record(bytes: &[u8]) -> Progress<&[u8]> {
    match bytes {
        [kind, ..] if *kind != HANDSHAKE => return Progress::Never(format!("record type {kind:#04x} inside the ClientHello")),
        [_, major, ..] if *major != 3 => return Progress::Never(format!("record version {major}.x is not TLS")),
        _ => {}
    }
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER>() else { return Progress::More };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 || length > MAX_RECORD {
        return Progress::Never(format!("a record of {length} octets"));
    }
    match rest.get(..length) {
        Some(payload) => Progress::Done(payload, RECORD_HEADER + length),
        None => Progress::More,
    }
}

fn finish(message: &[u8], taken: usize) -> Progress<Hello> {
    match parse(message) {
        Ok(hello) => Progress::Done(hello, taken),
        Err(why) => Progress::Never(why),
    }
}

fn parse(message: &[u8]) -> Result<Hello, String> {
    if message[0] != CLIENT_HELLO {
        return Err(format!("handshake type {} is no ClientHello", message[0]));
    }
    let Ok(([], contents)) = parse_tls_handshake_client_hello(&message[MESSAGE_HEADER..]) else {
        return Err("the ClientHello is malformed".into());
    };
    let mut hello = Hello { sni: Sni::Absent, ech: false };
    let mut rest = contents.ext.unwrap_or_default();
    while !rest.is_empty() {
        let (kind, data, after) = extension(rest).ok_or("an extension of the ClientHello is cut short")?;
        match kind {
            SERVER_NAME if hello.sni != Sni::Absent => hello.sni = Sni::Many,
            SERVER_NAME => hello.sni = server_name(data),
            ECH => hello.ech = true,
            _ => {}
        }
        rest = after;
    }
    Ok(hello)
}

fn extension(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (kind, rest) = bytes.split_first_chunk::<2>()?;
    let (data, after) = counted(rest)?;
    Some((u16::from_be_bytes(*kind), data, after))
}

/// Two octets of length, that many bytes, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// A server name list holds one entry of type host_name and nothing else (RFC 6066 section 3). What a lenient reader
/// would skip, another might take for the name.
fn server_name(data: &[u8]) -> Sni {
    let invalid = || Sni::Invalid(escaped(data));
    let Some((list, [])) = counted(data) else { return invalid() };
    let Some((0, entry)) = list.split_first().map(|(kind, entry)| (*kind, entry)) else { return invalid() };
    match counted(entry) {
        Some((name, [])) => match ascii(name).ok().and_then(|text| Name::parse(text).ok()) {
            Some(name) => Sni::One(name),
            None => Sni::Invalid(escaped(name)),
        },
        Some(_) => Sni::Many,
        None => invalid(),
    }
}

#[cfg(test)]
mod tests;
