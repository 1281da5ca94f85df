//! What a client asks for: a host (a name or a literal address) and a port. Readers are strict on purpose; a text
//! that two programs could read differently is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::name::{Name, NameError};

/// A name or a literal address. They are different kinds: a name rule never matches an address, nor the reverse.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, to be resolved by egret.
    Name(Name),
    /// A literal address, as the client wrote it.
    Address(IpAddr),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whom the client wants to reach.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

/// Why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// The host part is neither a name nor a canonical address.
    Host(NameError),
    /// Brackets that do not hold an IPv6 address.
    Brackets,
    /// An IPv6 address without brackets.
    Bare,
    /// No `:port` at the end.
    NoPort,
    /// Not 1 to 65535 in plain decimal digits.
    Port,
}

impl Host {
    /// Reads a host as it stands in a URI or a SOCKS request: a name, a dotted quad, or IPv6 in brackets.
    ///
    /// # Errors
    /// [`TargetError::Brackets`], [`TargetError::Bare`] or [`TargetError::Host`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(TargetError::Brackets)?;
            // No zone identifiers: they name an interface of this host (RFC 6874), never a remote target.
            let address: Ipv6Addr = inner.parse().map_err(|_| TargetError::Brackets)?;
            return Ok(Self::Address(IpAddr::V6(address)));
        }
        if text.contains(':') {
            return Err(TargetError::Bare);
        }
        if let Some(address) = dotted_quad(text) {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        Name::parse(text).map(Self::Name).map_err(TargetError::Host)
    }

    /// The name, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl Target {
    /// Reads `host:port`. The port is required.
    ///
    /// # Errors
    /// [`TargetError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let (host, port) = split_port(text)?;
        Ok(Self { host: Host::parse(host)?, port: port.ok_or(TargetError::NoPort)? })
    }

    /// Reads `host` or `host:port`, taking `default` where no port is written.
    ///
    /// # Errors
    /// [`TargetError`] names the part that is wrong.
    pub fn parse_or(text: &str, default: u16) -> Result<Self, TargetError> {
        let (host, port) = split_port(text)?;
        Ok(Self { host: Host::parse(host)?, port: port.unwrap_or(default) })
    }
}

/// A literal address in a rule or a configuration: dotted quad, or IPv6 with or without brackets.
#[must_use]
pub fn literal(text: &str) -> Option<IpAddr> {
    if let Some(address) = dotted_quad(text) {
        return Some(IpAddr::V4(address));
    }
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Four decimal numbers without leading zeros (the standard library refuses octal since CVE-2021-29922).
fn dotted_quad(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok()
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), TargetError> {
    let after_host = match text.rfind(']') {
        Some(end) => end + 1,
        None if text.starts_with('[') => return Err(TargetError::Brackets),
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(after_host);
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').ok_or(TargetError::Brackets)?;
    if !host.starts_with('[') && digits.contains(':') {
        return Err(TargetError::Bare);
    }
    Ok((host, Some(port(digits)?)))
}

/// Plain decimal digits only: no sign, blank or leading zero, and nothing that wraps around (CVE-2011-1843).
fn port(digits: &str) -> Result<u16, TargetError> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    if !plain {
        return Err(TargetError::Port);
    }
    digits.parse().map_err(|_| TargetError::Port)
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Brackets => f.write_str("brackets belong around an IPv6 address and nothing else"),
            Self::Bare => f.write_str("an IPv6 address with a port is written in brackets: [2001:db8::1]:443"),
            Self::NoPort => f.write_str("the port is missing: write host:port"),
            Self::Port => f.write_str("the port is not a decimal number from 1 to 65535"),
        }
    }
}

impl std::error::Error for TargetError {}

#[cfg(test)]
mod tests;
