//! SOCKS5 as a server reads it (RFC 1928) with user names (RFC 1929). Only the CONNECT command is served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egret_policy::{Host, Target};

use super::{Progress, escaped, host};

/// No authentication.
pub const NO_AUTH: u8 = 0;
/// User name and password (RFC 1929).
pub const USER_PASSWORD: u8 = 2;
/// None of the offered methods is served.
pub const NO_METHOD: u8 = 0xff;

/// Status of RFC 1929: the credentials are taken; whom they stand for, the policy knows.
pub const CREDENTIALS_TAKEN: [u8; 2] = [1, 0];
/// Status of RFC 1929: they are none.
pub const CREDENTIALS_FAILED: [u8; 2] = [1, 1];

/// A reply code (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// The upstream is connected.
    Succeeded = 0,
    /// A malformed request, or a limit.
    Failure = 1,
    /// Refused by the policy.
    NotAllowed = 2,
    /// The name did not resolve, or no answer in time.
    HostUnreachable = 4,
    /// The upstream refused.
    Refused = 5,
    /// BIND, UDP ASSOCIATE and others.
    CommandNotSupported = 7,
    /// Neither IPv4, IPv6 nor a name.
    AddressTypeNotSupported = 8,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// CONNECT to this target.
    Connect(Target),
    /// Something else; the reply that says so, and why.
    Refused(Reply, String),
}

/// Reads the greeting and picks a method: user names where they are offered, since they carry the role.
#[must_use]
pub fn greeting(said: &[u8]) -> Progress<u8> {
    let [5, count, rest @ ..] = said else {
        return if said.len() < 2 { Progress::More } else { Progress::Never("not a SOCKS5 greeting".into()) };
    };
    let count = usize::from(*count);
    let Some(methods) = rest.get(..count) else { return Progress::More };
    let pick = [USER_PASSWORD, NO_AUTH].into_iter().find(|method| methods.contains(method));
    Progress::Done(pick.unwrap_or(NO_METHOD), 2 + count)
}

/// Reads a user name and password, and gives the name. An empty name is `None`.
#[must_use]
pub fn credentials(said: &[u8]) -> Progress<Option<String>> {
    match said {
        [1, ..] | [] => {}
        _ => return Progress::Never("not an RFC 1929 message".into()),
    }
    let Some((name, rest)) = counted(said.get(1..).unwrap_or_default()) else { return Progress::More };
    let Some((password, _)) = counted(rest) else { return Progress::More };
    let taken = 3 + name.len() + password.len();
    match std::str::from_utf8(name) {
        Ok(text) if !text.contains('\0') => Progress::Done(Some(text.to_owned()).filter(|text| !text.is_empty()), taken),
        _ => Progress::Never("the user name is not text".into()),
    }
}

/// Reads a request.
#[must_use]
pub fn request(said: &[u8]) -> Progress<Asked> {
    let [version, command, reserved, kind, rest @ ..] = said else { return Progress::More };
    if *version != 5 || *reserved != 0 {
        return Progress::Never("not a SOCKS5 request".into());
    }
    let address = match kind {
        1 => rest.first_chunk::<4>().map(|octets| (Ok(Host::Address(IpAddr::V4(Ipv4Addr::from(*octets)))), 4)),
        4 => rest.first_chunk::<16>().map(|octets| (Ok(Host::Address(IpAddr::V6(Ipv6Addr::from(*octets)))), 16)),
        3 => counted(rest).map(|(name, _)| (read_name(name), 1 + name.len())),
        other => {
            let why = format!("address type {other} is not served");
            return Progress::Done(Asked::Refused(Reply::AddressTypeNotSupported, why), said.len());
        }
    };
    let Some((host, length)) = address else { return Progress::More };
    let Some(port) = rest[length..].first_chunk::<2>().map(|octets| u16::from_be_bytes(*octets)) else {
        return Progress::More;
    };
    Progress::Done(asked(*command, host, port), 4 + length + 2)
}

fn asked(command: u8, host: Result<Host, String>, port: u16) -> Asked {
    match (command, host) {
        (1, Ok(_)) if port == 0 => Asked::Refused(Reply::Failure, "port 0 cannot be connected to".into()),
        (1, Ok(host)) => Asked::Connect(Target { host, port }),
        (1, Err(why)) => Asked::Refused(Reply::Failure, why),
        (other, _) => Asked::Refused(Reply::CommandNotSupported, format!("SOCKS5 command {other} is not served, only CONNECT")),
    }
}

/// A domain name; a literal IPv4 address written as one is taken for what it is.
fn read_name(bytes: &[u8]) -> Result<Host, String> {
    host(bytes).map_err(|error| format!("{} is no host: {error}", escaped(bytes)))
}

/// A length octet and that many bytes, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A reply. The bound address is left out (all zeros): clients of CONNECT do not use it, and it would tell the
/// upstream's address to whoever may not know it.
#[must_use]
pub fn reply(code: Reply) -> [u8; 10] {
    [5, code as u8, 0, 1, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests;
