//! Ports for programs that can't be told to take any.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below these are the ports of well-known servers.
const LOWEST: u32 = 10_000;
/// Where connections get theirs, unless the machine says otherwise (ip(7)).
const GIVEN: u32 = 32_768;

/// A TCP port of 127.0.0.1 that nobody has.
pub(crate) fn free_port() -> u16 {
    free_port_of(Ipv4Addr::LOCALHOST)
}

/// A TCP port that nobody has there, and that the kernel gives nobody who does not ask for it by number: of the ports that it
/// gives to whoever connects, each may be gone in the next moment.
pub(crate) fn free_port_of(address: Ipv4Addr) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count =
        first_given().checked_sub(LOWEST).filter(|count| *count > 0).expect("ports that the kernel does not give by itself");
    // Other test programs begin elsewhere.
    let begin = process::id().wrapping_mul(7919);
    let mut ports = (0..count).map(|_| LOWEST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count);
    let is_free = |port: &u16| TcpListener::bind((address, *port)).is_ok();
    ports.find_map(|port| u16::try_from(port).ok().filter(is_free)).expect("a free port")
}

/// The first port that the kernel gives by itself.
fn first_given() -> u32 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(GIVEN)
}
