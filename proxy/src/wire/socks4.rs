//! SOCKS4 and 4a as a server reads them. There is no RFC; these are the protocol notes of Ying-Da Lee. In 4a the
//! address is `0.0.0.x` with x not 0, and a name follows the user id.

use std::net::{IpAddr, Ipv4Addr};

use egret_policy::{Host, Target};

use super::{Progress, escaped, host};
use crate::limits::MAX_SOCKS4_TEXT;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// CONNECT to this target.
    Connect(Target),
    /// No host, or no port, and why.
    Malformed(String),
    /// BIND, and why not.
    Unsupported(String),
}

/// Reads a request. The user id is not used.
#[must_use]
pub fn request(said: &[u8]) -> Progress<Asked> {
    let Some(([version, command, port @ .., a, b, c, d], rest)) = said.split_first_chunk::<8>() else {
        return Progress::More;
    };
    if *version != 4 {
        return Progress::Never("not a SOCKS4 request".into());
    }
    let user = match text(rest) {
        Progress::Done(user, _) => user,
        Progress::More => return Progress::More,
        Progress::Never(why) => return Progress::Never(why),
    };
    let mut taken = 8 + user.len() + 1;
    let host = match [*a, *b, *c, *d] {
        [0, 0, 0, x] if x != 0 => match text(&rest[user.len() + 1..]) {
            Progress::Done(name, _) => {
                taken += name.len() + 1;
                host(name).map_err(|error| format!("{} is no host: {error}", escaped(name)))
            }
            Progress::More => return Progress::More,
            Progress::Never(why) => return Progress::Never(why),
        },
        octets => Ok(Host::Address(IpAddr::V4(Ipv4Addr::from(octets)))),
    };
    Progress::Done(asked(*command, host, u16::from_be_bytes(*port)), taken)
}

fn asked(command: u8, host: Result<Host, String>, port: u16) -> Asked {
    match (command, host) {
        (1, Ok(_)) if port == 0 => Asked::Malformed("port 0 cannot be connected to".into()),
        (1, Ok(host)) => Asked::Connect(Target { host, port }),
        (1, Err(why)) => Asked::Malformed(why),
        (other, _) => Asked::Unsupported(format!("SOCKS4 command {other} is not served, only CONNECT")),
    }
}

/// The bytes before the first NUL.
fn text(bytes: &[u8]) -> Progress<&[u8]> {
    let known = &bytes[..bytes.len().min(MAX_SOCKS4_TEXT + 1)];
    match known.iter().position(|byte| *byte == 0) {
        Some(end) => Progress::Done(&bytes[..end], end + 1),
        None if known.len() > MAX_SOCKS4_TEXT => Progress::Never("a SOCKS4 text is longer than 255 octets".into()),
        None => Progress::More,
    }
}

/// A reply: 90 granted, 91 rejected or failed.
#[must_use]
pub fn reply(granted: bool) -> [u8; 8] {
    [0, if granted { 90 } else { 91 }, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_name(user: &[u8], name: &[u8]) -> Vec<u8> {
        [&[4, 1, 1, 187, 0, 0, 0, 7][..], user, &[0], name, &[0]].concat()
    }

    fn asked_of(message: &[u8]) -> Asked {
        match request(message) {
            Progress::Done(asked, length) => {
                assert_eq!(length, message.len());
                asked
            }
            other => panic!("{message:?}: {other:?}"),
        }
    }

    #[test]
    fn addresses_and_names_are_read_and_every_prefix_needs_more() {
        let by_address = [&[4, 1, 1, 187, 192, 0, 2, 1][..], b"me\0"].concat();
        for (message, text) in [(by_address, "192.0.2.1:443"), (by_name(b"me", b"Allowed.test"), "allowed.test:443")] {
            assert_eq!(asked_of(&message), Asked::Connect(text.parse().unwrap()));
            for end in 0..message.len() {
                assert_eq!(request(&message[..end]), Progress::More, "{text} {end}");
            }
        }
    }

    #[test]
    fn s04_texts_are_bounded() {
        assert!(matches!(request(&by_name(&[b'u'; 256], b"a.test")), Progress::Never(_)));
        assert!(matches!(request(&by_name(b"", &[b'a'; 256])), Progress::Never(_)));
        assert!(matches!(asked_of(&by_name(&[b'u'; 255], b"a.test")), Asked::Connect(_)));
        assert!(matches!(request(&[4, 1, 1, 187, 0, 0, 0, 7].repeat(64)), Progress::Done(..)));
    }

    #[test]
    fn everything_but_connect_to_a_host_is_refused() {
        assert!(matches!(asked_of(&[4, 2, 1, 187, 1, 1, 1, 1, 0]), Asked::Unsupported(_)));
        assert!(matches!(asked_of(&[4, 1, 0, 0, 1, 1, 1, 1, 0]), Asked::Malformed(_)));
        assert!(matches!(asked_of(&by_name(b"", b"")), Asked::Malformed(_)));
        assert!(matches!(asked_of(&by_name(b"", b"a b")), Asked::Malformed(_)));
        assert!(matches!(request(&[5, 1, 0, 0, 0, 0, 0, 0]), Progress::Never(_)));
    }
}
