//! What state a socket is in that nobody here holds, by the kernel's tables of this network (proc_net_tcp in the kernel's
//! documentation). It is read for calls that no program makes often.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};

use rustix::io::Errno;

/// As far as connect(2) tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Connected,
    Listening,
}

/// How much of a table is read at most: 100,000 sockets.
const LONGEST_TABLE: u64 = 150 * 100_000;

/// The state of the TCP socket with this inode; none if it is in use for nothing.
///
/// # Errors
/// AGAIN: nobody knows, as the tables can't be read to their ends.
pub(crate) fn state_of(inode: u64) -> Result<Option<State>, Errno> {
    find(["/proc/self/net/tcp", "/proc/self/net/tcp6"], |line| state_in(line, inode))
}

/// The port that the datagram socket with this inode is bound to.
///
/// # Errors
/// As [`state_of`].
pub(crate) fn udp_port_of(inode: u64) -> Result<Option<u16>, Errno> {
    find(["/proc/self/net/udp", "/proc/self/net/udp6"], |line| port_in(line, inode))
}

fn find<T>(paths: [&str; 2], look: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Errno> {
    for path in paths {
        let table = match File::open(path) {
            Ok(table) => table,
            // Without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => return Err(Errno::AGAIN),
        };
        let mut table = BufReader::new(table.take(LONGEST_TABLE));
        let mut line = String::new();
        while table.read_line(&mut line).map_err(|_| Errno::AGAIN)? > 0 {
            if let Some(found) = look(&line) {
                return Ok(Some(found));
            }
            line.clear();
        }
        if table.get_ref().limit() == 0 {
            return Err(Errno::AGAIN);
        }
    }
    Ok(None)
}

/// A unix socket, as far as connect(2) cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnixState {
    /// As of socket(2).
    pub(crate) kind: i32,
    pub(crate) is_connected: bool,
    pub(crate) is_named: bool,
}

/// The state of the unix socket with this inode, if it is of this network.
pub(crate) fn unix_state_of(inode: u64) -> Option<UnixState> {
    let table = BufReader::new(File::open("/proc/self/net/unix").ok()?.take(LONGEST_TABLE));
    // Names are any bytes.
    table.split(b'\n').map_while(Result::ok).find_map(|line| unix_state_in(&String::from_utf8_lossy(&line), inode))
}

/// The line has an address, a count, protocol, flags, type, state and inode; and a name, if there is one.
fn unix_state_in(line: &str, inode: u64) -> Option<UnixState> {
    let mut fields = line.split_ascii_whitespace().skip(4);
    let (kind, state, found) = (fields.next()?, fields.next()?, fields.next()?);
    if found.parse() != Ok(inode) {
        return None;
    }
    // SS_CONNECTED of linux/net.h.
    Some(UnixState { kind: i32::from_str_radix(kind, 16).ok()?, is_connected: state == "03", is_named: fields.next().is_some() })
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
        // TCP_CLOSE, TCP_LISTEN and TCP_SYN_SENT of include/net/tcp_states.h.
        _ if found != inode => None,
        "07" => None,
        "0A" => Some(State::Listening),
        "02" => Some(State::Connecting),
        _ => Some(State::Connected),
    }
}

#[cfg(test)]
mod tests;
