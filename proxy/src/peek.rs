//! After the yes: what the client shows first. Its bytes stay with it; none has reached the upstream. Where a rule
//! lets the server speak first, whoever speaks first ends the wait.

use std::ops::RangeInclusive;

use egret_policy::{Flight, Mode, Permit, Protocol, Sni};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::fault::{Fault, Stop};
use crate::limits::Limits;
use crate::record::Record;
use crate::request;
use crate::wire::http;

/// The kind of a record that holds a hello, all kinds that there are, and the first half of every version (RFC 8446 section 5.1,
/// RFC 6520 section 1).
const HANDSHAKE: u8 = 0x16;
const RECORDS: RangeInclusive<u8> = 0x14..=0x18;
const TLS_MAJOR: u8 = 3;

/// Whether the client may be silent for as long as a tunnel may: where the server may speak first.
pub(crate) fn is_patient(permit: &Permit) -> bool {
    permit.protocol() == Protocol::Any || permit.mode() == Mode::Audit
}

/// Waits for the first flight. For a rule of opaque bytes nothing is waited for.
pub(crate) async fn peek(client: &mut Client, upstream: &TcpStream, permit: &Permit, limits: &Limits) -> Result<Flight, Stop> {
    if permit.protocol() == Protocol::Tcp {
        return Ok(Flight::Opaque);
    }
    let patient = is_patient(permit);
    if client.said.is_empty() {
        tokio::select! {
            // What the client says is looked at even if the server speaks at the same time.
            biased;
            heard = client.hear_or_end() => match heard {
                Ok(0) => return Ok(Flight::Silent),
                Ok(_) => {}
                Err(_) => return Err(Fault::ClientGone.into()),
            },
            _ = upstream.readable() => return spoke_first(upstream, patient).await,
            () = sleep(limits.idle), if patient => return Err(Fault::ClientTimeout.into()),
            () = sleep(limits.first_flight), if !patient => return Ok(Flight::Silent),
        }
    }
    match timeout(limits.first_flight, flight(client)).await {
        Ok(flight) => flight,
        Err(_) if client.said.first() == Some(&HANDSHAKE) => Ok(Flight::Malformed),
        // It may yet become a request, and must not do so unseen; hyper waits for the rest and refuses what is none.
        Err(_) => Ok(Flight::Http),
    }
}

/// The server said something, or went. Where the client had to speak first, that it went is no verdict on the client.
async fn spoke_first(upstream: &TcpStream, patient: bool) -> Result<Flight, Stop> {
    match upstream.peek(&mut [0]).await {
        Ok(0) | Err(_) if !patient => Err(Fault::Upstream("the upstream closed before the client spoke".into()).into()),
        _ => Ok(Flight::ServerFirst),
    }
}

async fn flight(client: &mut Client) -> Result<Flight, Stop> {
    if client.said.first() == Some(&HANDSHAKE) {
        return request::hello(client).await;
    }
    if begins_with_another_record(client).await? {
        return Ok(Flight::Malformed);
    }
    loop {
        match http::opens_request(&client.said) {
            Some(true) => return Ok(Flight::Http),
            Some(false) => return Ok(Flight::Opaque),
            None => client.hear().await?,
        }
    }
}

/// Whether a record of TLS comes first in which no hello can be. Some servers pass over it, and read the hello behind it.
async fn begins_with_another_record(client: &mut Client) -> Result<bool, Stop> {
    while client.said.len() == 1 && is_of_another_kind(client.said[0]) {
        client.hear().await?;
    }
    Ok(matches!(client.said[..], [kind, TLS_MAJOR, ..] if is_of_another_kind(kind)))
}

fn is_of_another_kind(record: u8) -> bool {
    RECORDS.contains(&record) && record != HANDSHAKE
}

/// Notes what was shown.
pub(crate) fn note(record: &mut Record, flight: &Flight) {
    if let Flight::Tls { sni, ech } = flight {
        record.ech = *ech;
        record.sni = match sni {
            Sni::Absent => None,
            Sni::One(name) => Some(name.shared()),
            Sni::Invalid(text) => Some(text.as_str().into()),
            Sni::Many => Some("(more than one)".into()),
        };
    }
}
