//! What state a socket is in that nobody here holds, by the kernel's tables of this network (proc_net_tcp in the kernel's
//! documentation). It is read for calls that no program makes often.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// As far as connect(2) tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Connected,
}

/// How much of a table is read at most: 100,000 sockets.
const LONGEST_TABLE: u64 = 150 * 100_000;

/// The state of the socket with this inode; none if it is not connected.
pub(crate) fn state_of(inode: u64) -> Option<State> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"].into_iter().find_map(|path| {
        let table = BufReader::new(File::open(path).ok()?.take(LONGEST_TABLE));
        table.lines().map_while(Result::ok).find_map(|line| state_in(&line, inode))
    })
}

/// The port that the datagram socket with this inode is bound to.
pub(crate) fn udp_port_of(inode: u64) -> Option<u16> {
    ["/proc/self/net/udp", "/proc/self/net/udp6"].into_iter().find_map(|path| {
        let table = BufReader::new(File::open(path).ok()?.take(LONGEST_TABLE));
        table.lines().map_while(Result::ok).find_map(|line| port_in(&line, inode))
    })
}

fn port_in(line: &str, inode: u64) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let found: u64 = fields.nth(7)?.parse().ok()?;
    (found == inode).then(|| u16::from_str_radix(port, 16).ok()).flatten()
}

/// The state that a line tells of this inode.
fn state_in(line: &str, inode: u64) -> Option<State> {
    let mut fields = line.split_ascii_whitespace();
    let state = fields.nth(3)?;
    // After the state: queues, timers, retransmits, user, timeout, inode.
    let found: u64 = fields.nth(5)?.parse().ok()?;
    match state {
        // TCP_CLOSE and TCP_LISTEN of include/net/tcp_states.h.
        _ if found != inode => None,
        "07" | "0A" => None,
        "02" => Some(State::Connecting),
        _ => Some(State::Connected),
    }
}

#[cfg(test)]
mod tests;
