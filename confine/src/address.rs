//! What a `struct sockaddr` of a caller says. It is read once, into memory of this process, and nothing is decided by what the
//! caller's memory says later.

mod unix;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use rustix::io::Errno;

pub(crate) use unix::UnixName;

/// The length of the longest address (`struct sockaddr_storage`, linux/socket.h); the kernel refuses longer ones.
pub(crate) const LONGEST: usize = 128;

/// Lengths of `sockaddr_in`, and of `sockaddr_in6` without its scope, as of RFC 2133; the kernel takes both.
const IPV4_LENGTH: usize = 16;
const IPV6_SHORTEST: usize = 24;
const IPV6_LENGTH: usize = 28;

/// Whom a call is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// An internet address, and the family of the structure that it stood in.
    Internet(Destination),
    /// Nobody: disconnect (AF_UNSPEC of connect(2)).
    Nobody,
    /// A unix socket of this machine.
    Unix(UnixName),
    /// The kernel, by netlink.
    Kernel,
    /// Somebody else by netlink, or a family without meaning.
    Other,
}

/// An internet address as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    /// In the shortest form, and with what the kernel makes of it: mapped addresses are IPv4 ones, and the unspecified address
    /// is loopback.
    pub(crate) address: SocketAddr,
    /// The family of the structure.
    pub(crate) family: Family,
}

/// Of a socket or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Reads an address of this many bytes.
///
/// # Errors
/// INVAL: too short for its family, or too long.
pub(crate) fn parse(bytes: &[u8]) -> Result<Address, Errno> {
    let family = bytes.first_chunk::<2>().ok_or(Errno::INVAL)?;
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_UNSPEC => Ok(Address::Nobody),
        libc::AF_INET => parse_v4(bytes),
        libc::AF_INET6 => parse_v6(bytes),
        libc::AF_UNIX => UnixName::parse(&bytes[family.len()..]).map(Address::Unix),
        libc::AF_NETLINK if is_kernel(bytes) => Ok(Address::Kernel),
        _ => Ok(Address::Other),
    }
}

/// Whether a netlink address has neither a port nor a group (netlink(7)).
fn is_kernel(bytes: &[u8]) -> bool {
    array::<4>(bytes, 4) == Ok([0; 4]) && array::<4>(bytes, 8) == Ok([0; 4])
}

fn parse_v4(bytes: &[u8]) -> Result<Address, Errno> {
    let bytes = bytes.get(..IPV4_LENGTH).ok_or(Errno::INVAL)?;
    let address = Ipv4Addr::from(array::<4>(bytes, 4)?);
    let address = SocketAddr::V4(SocketAddrV4::new(reachable_v4(address), port(bytes)?));
    Ok(Address::Internet(Destination { address, family: Family::V4 }))
}

fn parse_v6(bytes: &[u8]) -> Result<Address, Errno> {
    if bytes.len() < IPV6_SHORTEST {
        return Err(Errno::INVAL);
    }
    let flow = u32::from_be_bytes(array(bytes, 4)?);
    let address = Ipv6Addr::from(array::<16>(bytes, 8)?);
    let scope = if bytes.len() >= IPV6_LENGTH { u32::from_ne_bytes(array(bytes, 24)?) } else { 0 };
    let port = port(bytes)?;
    let address = match address.to_ipv4_mapped() {
        Some(mapped) => SocketAddr::V4(SocketAddrV4::new(reachable_v4(mapped), port)),
        None if address.is_unspecified() => SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0)),
        None => SocketAddr::V6(SocketAddrV6::new(address, port, flow, scope)),
    };
    Ok(Address::Internet(Destination { address, family: Family::V6 }))
}

/// Reads an address of this many bytes that a socket of this family is to be bound to.
///
/// # Errors
/// INVAL: too short; AFNOSUPPORT: of another family; ADDRNOTAVAIL: one that has a meaning on one device only.
pub(crate) fn parse_local(bytes: &[u8], family: Family) -> Result<SocketAddr, Errno> {
    let written = i32::from(u16::from_ne_bytes(array(bytes, 0)?));
    match family {
        Family::V4 => {
            let bytes = bytes.get(..IPV4_LENGTH).ok_or(Errno::INVAL)?;
            let address = Ipv4Addr::from(array::<4>(bytes, 4)?);
            // No family at all goes for the unspecified address (`__inet_bind` of the kernel).
            let is_v4 = written == libc::AF_INET || written == libc::AF_UNSPEC && address.is_unspecified();
            let address = SocketAddr::V4(SocketAddrV4::new(address, port(bytes)?));
            is_v4.then_some(address).ok_or(Errno::AFNOSUPPORT)
        }
        Family::V6 => {
            let bytes = bytes.get(..IPV6_SHORTEST).ok_or(Errno::INVAL)?;
            let address = Ipv6Addr::from(array::<16>(bytes, 8)?);
            match written {
                libc::AF_INET6 if needs_device(address) => Err(Errno::ADDRNOTAVAIL),
                libc::AF_INET6 => Ok(SocketAddr::V6(SocketAddrV6::new(address, port(bytes)?, 0, 0))),
                _ => Err(Errno::AFNOSUPPORT),
            }
        }
    }
}

/// Link-local addresses, and groups of one interface or link (`__ipv6_addr_needs_scope_id` of the kernel).
fn needs_device(address: Ipv6Addr) -> bool {
    let is_narrow_group = address.is_multicast() && address.octets()[1] & 0xf <= 2;
    address.is_unicast_link_local() || is_narrow_group
}

/// Connecting to the unspecified address reaches this machine (ip(7)).
fn reachable_v4(address: Ipv4Addr) -> Ipv4Addr {
    if address.is_unspecified() { Ipv4Addr::LOCALHOST } else { address }
}

fn port(bytes: &[u8]) -> Result<u16, Errno> {
    Ok(u16::from_be_bytes(array(bytes, 2)?))
}

fn array<const N: usize>(bytes: &[u8], from: usize) -> Result<[u8; N], Errno> {
    bytes.get(from..).and_then(|rest| rest.first_chunk()).copied().ok_or(Errno::INVAL)
}

/// This address as a socket of this family takes it, if it can.
pub(crate) fn for_family(address: SocketAddr, family: Family) -> Option<SocketAddr> {
    match (address, family) {
        (SocketAddr::V4(v4), Family::V6) => Some(SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))),
        (SocketAddr::V6(v6), Family::V4) => v6.ip().to_ipv4_mapped().map(|ip| SocketAddr::V4(SocketAddrV4::new(ip, v6.port()))),
        _ => Some(address),
    }
}

/// As the kernel would write it for a socket of this family.
pub(crate) fn to_bytes(address: SocketAddr, family: Family) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(IPV6_LENGTH);
    match for_family(address, family) {
        Some(SocketAddr::V4(v4)) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        Some(SocketAddr::V6(v6)) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(v6.port().to_be_bytes());
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
        None => {}
    }
    bytes
}

#[cfg(test)]
mod tests;
