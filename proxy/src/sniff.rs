//! Which protocol a client speaks, from its first bytes. One port serves them all, since users set the wrong scheme in
//! proxy variables more often than the wrong port.

use egret_policy::{Denial, Reason};

use crate::client::Client;
use crate::fault::Stop;

/// A protocol, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP CONNECT.
    Connect,
    /// Any other HTTP/1 request.
    Http,
    /// SOCKS5 (RFC 1928).
    Socks5,
    /// SOCKS4 or 4a.
    Socks4,
    /// A TLS record: a client that was redirected here.
    Tls,
}

const CONNECT: &[u8] = b"CONNECT ";

/// Reads until the protocol is known. The bytes stay with the client.
pub(crate) async fn sniff(client: &mut Client) -> Result<Spoken, Stop> {
    loop {
        match judge(&client.said) {
            Some(Ok(spoken)) => return Ok(spoken),
            Some(Err(byte)) => return Err(unknown(byte).into()),
            None => client.hear().await?,
        }
    }
}

fn judge(said: &[u8]) -> Option<Result<Spoken, u8>> {
    Some(match *said.first()? {
        5 => Ok(Spoken::Socks5),
        4 => Ok(Spoken::Socks4),
        0x16 => Ok(Spoken::Tls),
        letter if letter.is_ascii_alphabetic() => {
            let known = said.len().min(CONNECT.len());
            if said[..known] != CONNECT[..known] {
                Ok(Spoken::Http)
            } else if known == CONNECT.len() {
                Ok(Spoken::Connect)
            } else {
                return None;
            }
        }
        other => Err(other),
    })
}

fn unknown(byte: u8) -> Denial {
    let detail = format!("the first byte {byte:#04x} is neither HTTP, SOCKS nor TLS");
    Denial::new(Reason::UnknownProtocol, detail, "use an http:// or socks5:// proxy URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s10_first_bytes_tell_the_protocol() {
        assert_eq!(judge(b"CONNECT a:1"), Some(Ok(Spoken::Connect)));
        assert_eq!(judge(b"CONN"), None);
        assert_eq!(judge(b"COPY /"), Some(Ok(Spoken::Http)));
        assert_eq!(judge(b"G"), Some(Ok(Spoken::Http)));
        assert_eq!(judge(&[5]), Some(Ok(Spoken::Socks5)));
        assert_eq!(judge(&[4, 1]), Some(Ok(Spoken::Socks4)));
        assert_eq!(judge(&[0x16, 3, 1]), Some(Ok(Spoken::Tls)));
        assert_eq!(judge(&[0x80, 0x2e, 1]), Some(Err(0x80)));
        assert_eq!(judge(b""), None);
    }
}
