//! What kind of address it is. Only [`Class::Global`] may be dialled without a rule that names the space; every
//! other class says why. The table is complete for the IANA special-purpose registries (RFC 6890 and updates) and
//! adds what clouds keep inside ordinary-looking space.
//!
//! It does not know this host's own addresses; `policy` adds those.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The class of an address. `as_str` is stable and appears in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Ordinary unicast space.
    Global,
    /// `0.0.0.0/8`, `::`: this host on this network.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918 and unique local `fc00::/7`.
    Private,
    /// `100.64.0.0/10`, carrier-grade NAT (RFC 6598).
    SharedSpace,
    /// `169.254.0.0/16`, `fe80::/10`.
    LinkLocal,
    /// Instance metadata and platform credentials, wherever a cloud keeps them.
    Metadata,
    /// `224.0.0.0/4`, `ff00::/8`, and the limited broadcast address.
    Multicast,
    /// Documentation, benchmarking, reserved and protocol-assignment space.
    Reserved,
    /// An IPv6 form that embeds an IPv4 address: mapped, compatible, SIIT, NAT64, 6to4, Teredo, ISATAP.
    EmbedsIpv4,
    /// An address of one of this host's own interfaces.
    OwnInterface,
}

impl Class {
    /// The stable text of the class.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedSpace => "shared_space",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
            Self::EmbedsIpv4 => "embeds_ipv4",
            Self::OwnInterface => "own_interface",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The class of an address.
#[must_use]
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&address) {
        return Class::Metadata;
    }
    match address.octets() {
        [0, ..] => Class::Unspecified,
        [127, ..] => Class::Loopback,
        [10, ..] | [192, 168, ..] => Class::Private,
        [172, b, ..] if b & 0xf0 == 16 => Class::Private,
        [100, b, ..] if b & 0xc0 == 64 => Class::SharedSpace,
        [169, 254, ..] => Class::LinkLocal,
        [a, ..] if a & 0xf0 == 224 => Class::Multicast,
        [255, 255, 255, 255] => Class::Multicast,
        // Protocol assignments, three documentation nets, 6to4 relays, AMT, AS112, benchmarking, class E.
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Reserved,
        [192, 88, 99, _] | [192, 52, 193, _] | [192, 31, 196, _] | [192, 175, 48, _] => Class::Reserved,
        [198, 18 | 19, ..] => Class::Reserved,
        [a, ..] if a & 0xf0 == 240 => Class::Reserved,
        _ => Class::Global,
    }
}

/// AWS, GCP and Azure instance metadata; ECS and EKS credentials, AWS time and DNS; the Azure wire server; Alibaba;
/// Oracle's legacy address.
const METADATA_V4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(169, 254, 169, 123),
    Ipv4Addr::new(169, 254, 169, 253),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// AWS metadata, EKS credentials, AWS time and DNS, and GCP metadata over IPv6.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn classify_v6(address: Ipv6Addr) -> Class {
    if METADATA_V6.contains(&address) {
        return Class::Metadata;
    }
    if address.is_unspecified() {
        return Class::Unspecified;
    }
    if address.is_loopback() {
        return Class::Loopback;
    }
    if embedded_ipv4(address).is_some() {
        return Class::EmbedsIpv4;
    }
    match address.segments() {
        [a, ..] if a & 0xfe00 == 0xfc00 => Class::Private,
        [a, ..] if a & 0xffc0 == 0xfe80 => Class::LinkLocal,
        [a, ..] if a & 0xff00 == 0xff00 => Class::Multicast,
        // Protocol assignments (2001::/23), documentation, AS112, segment routing and discard space are carved out
        // of or lie beside 2000::/3, which alone is global unicast (RFC 4291, IANA).
        [0x2001, b, ..] if b < 0x200 => Class::Reserved,
        [0x2001, 0xdb8, ..] | [0x2620, 0x4f, 0x8000, ..] => Class::Reserved,
        [0x3fff, b, ..] if b < 0x1000 => Class::Reserved,
        [a, ..] if a & 0xe000 == 0x2000 => Class::Global,
        _ => Class::Reserved,
    }
}

/// The IPv4 address that an IPv6 address carries, in any of the forms that some gateway or kernel would unwrap:
/// mapped and compatible (RFC 4291), SIIT (RFC 2765), NAT64 with the well-known and the local-use prefix (RFC 6052,
/// RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380, inverted), ISATAP (RFC 5214).
#[must_use]
pub fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, hi, lo] if !is_v6_special(address) => Some(v4(hi, lo)),
        [0, 0, 0, 0, 0xffff, 0, hi, lo] => Some(v4(hi, lo)),
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => Some(v4(hi, lo)),
        [0x64, 0xff9b, 1, _, _, _, hi, lo] => Some(v4(hi, lo)),
        [0x2002, hi, lo, ..] => Some(v4(hi, lo)),
        [0x2001, 0, _, _, _, _, hi, lo] => Some(v4(!hi, !lo)),
        [_, _, _, _, 0 | 0x200, 0x5efe, hi, lo] => Some(v4(hi, lo)),
        _ => None,
    }
}

fn is_v6_special(address: Ipv6Addr) -> bool {
    address.is_unspecified() || address.is_loopback()
}

fn v4(hi: u16, lo: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo))
}

#[cfg(test)]
mod tests;
