//! Requests: a listing of all sockets of a kind, with a filter that the kernel runs, or the one between two addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{AF_INET, AF_INET6, BY_FAMILY, Family, INFO, Protocol, Which};

/// The longest request that is made here, in octets.
pub(super) const LONGEST: usize = 192;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// The attribute of requests that has the filter.
const REQ_BYTECODE: u16 = 1;
/// A request for [`INFO`].
const WANT_INFO: u8 = 1 << (INFO - 1);
/// What the kernel calls a cookie that may be any.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// A request for all sockets of a kind. `sequence` comes back in each answer.
#[must_use]
pub fn list(family: Family, protocol: Protocol, which: Which, sequence: u32) -> Vec<u8> {
    let wants_info = protocol == Protocol::Tcp && which == Which::Flows;
    let info = if wants_info { WANT_INFO } else { 0 };
    let mut request = begin(NLM_F_DUMP, sequence);
    request.extend([family.number(), protocol.number(), info, 0]);
    request.extend(which.states(protocol).to_ne_bytes());
    request.extend([0; 48]);
    if which == Which::Flows {
        let filter = filter(family, protocol);
        request.extend(u16::try_from(4 + filter.len()).unwrap_or(u16::MAX).to_ne_bytes());
        request.extend(REQ_BYTECODE.to_ne_bytes());
        request.extend(filter);
    }
    finished(request)
}

/// A request for the one TCP socket between two addresses. Scopes of link-local addresses are devices.
#[must_use]
pub fn find(own: SocketAddr, peer: SocketAddr, sequence: u32) -> Vec<u8> {
    let (own_ip, peer_ip) = (own.ip().to_canonical(), peer.ip().to_canonical());
    let family = if own_ip.is_ipv4() { Family::V4 } else { Family::V6 };
    let device = match own {
        SocketAddr::V6(own) => own.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let mut request = begin(0, sequence);
    request.extend([family.number(), Protocol::Tcp.number(), 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(own.port().to_be_bytes());
    request.extend(peer.port().to_be_bytes());
    request.extend(padded(own_ip));
    request.extend(padded(peer_ip));
    request.extend(device.to_ne_bytes());
    request.extend(NO_COOKIE);
    finished(request)
}

fn begin(flags: u16, sequence: u32) -> Vec<u8> {
    let mut request = Vec::with_capacity(LONGEST);
    request.extend([0; 4]);
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request
}

/// The length stands first.
fn finished(mut request: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request
}

/// Sixteen octets, of which IPv4 takes the first four.
fn padded(address: IpAddr) -> [u8; 16] {
    let mut octets = [0; 16];
    match address {
        IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => octets = v6.octets(),
    }
    octets
}

/// Codes of steps.
const JUMP: u8 = 1;
const OWN_IS: u8 = 7;
const PEER_IS: u8 = 8;
/// The octets of a jump.
const STEP: u8 = 4;

/// A program that the kernel runs for each socket (`inet_diag_bc_run`): those whose peer is loopback are not copied; of UDP,
/// whose peer binds nobody, those that are loopback at both ends. Each step has a code, how far to go on if it holds, and how
/// far if not. The end is a yes, four octets beyond it a no; the kernel takes a program only if it ends with a yes where
/// everything holds, so the way to a no is a jump, which never holds.
pub(super) fn filter(family: Family, protocol: Protocol) -> Vec<u8> {
    let ends: &[u8] = match protocol {
        Protocol::Tcp => &[PEER_IS],
        Protocol::Udp => &[PEER_IS, OWN_IS],
    };
    // This holds for an IPv4 address in IPv6 too.
    let v4 = without(ends, AF_INET, 8, &[127, 0, 0, 0], 0);
    match family {
        Family::V4 => v4,
        Family::V6 => [without(ends, AF_INET6, 128, &Ipv6Addr::LOCALHOST.octets(), v4.len()), v4].concat(),
    }
}

/// Refuses sockets of which all these ends are in one network; so many octets of the program follow.
fn without(ends: &[u8], family: u8, prefix: u8, network: &[u8], following: usize) -> Vec<u8> {
    // The step itself, and family, prefix and port of its condition.
    let condition = 12 + network.len();
    let mut program = Vec::new();
    for (done, end) in ends.iter().enumerate() {
        let rest = condition * (ends.len() - done) + usize::from(STEP);
        program.extend(step(*end, u8::try_from(condition).unwrap_or(u8::MAX), rest));
        program.extend([family, prefix, 0, 0]);
        program.extend((-1i32).to_ne_bytes());
        program.extend(network);
    }
    program.extend(step(JUMP, STEP, usize::from(STEP) + following + 4));
    program
}

/// `inet_diag_bc_op`.
fn step(code: u8, yes: u8, no: usize) -> Vec<u8> {
    let no = u16::try_from(no).unwrap_or(u16::MAX).to_ne_bytes();
    vec![code, yes, no[0], no[1]]
}

impl Which {
    /// A bit for each state. What is left of closed connections, and who only asked to be let in, is in none.
    fn states(self, protocol: Protocol) -> u32 {
        let bits = |states: &[u32]| states.iter().fold(0, |bits, state| bits | 1 << state);
        match (self, protocol) {
            (Self::Flows, Protocol::Tcp) => bits(&[1, 2, 3, 4, 5, 8, 9, 11]),
            (Self::Flows, Protocol::Udp) => bits(&[1, 7]),
            (Self::Listeners, _) => bits(&[10]),
        }
    }
}
