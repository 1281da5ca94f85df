//! The kernel's tables of TCP sockets, `/proc/net/tcp` and `/proc/net/tcp6`: which sockets lie between two addresses.
//! Processes are not its business.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::Unknown;

/// How much of a table is read, in octets: about 100,000 sockets.
const LONGEST_TABLE: u64 = 16 * 1024 * 1024;

/// The inodes of the sockets at `own` whose peer is `peer`. There can be more than one, where scopes or devices tell
/// equal addresses apart; the tables have neither.
pub(crate) fn sockets_in(proc: &Path, own: SocketAddr, peer: SocketAddr) -> Result<Vec<u64>, Unknown> {
    // An IPv6 socket can hold an IPv4 connection: both tables may have it.
    let tables: &[&str] = if own.ip().to_canonical().is_ipv4() { &["net/tcp", "net/tcp6"] } else { &["net/tcp6"] };
    for table in tables {
        let path = proc.join(table);
        let found = read(&path, own, peer, LONGEST_TABLE).map_err(|e| Unknown::procfs(&path, &e))?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn read(path: &Path, own: SocketAddr, peer: SocketAddr, limit: u64) -> io::Result<Vec<u64>> {
    let file = match File::open(path) {
        // A kernel without IPv6 has no table for it.
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.ends_with("tcp6") => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut table = BufReader::new(file).take(limit);
    let found = sockets(&mut table, own, peer)?;
    if found.is_empty() && table.limit() == 0 {
        return Err(io::Error::other(format!("not found in the first {limit} octets, and no more are read")));
    }
    Ok(found)
}

fn sockets(mut table: impl BufRead, own: SocketAddr, peer: SocketAddr) -> io::Result<Vec<u64>> {
    let wanted = (plain(own), plain(peer));
    let (mut found, mut line) = (Vec::new(), Vec::new());
    while table.read_until(b'\n', &mut line)? > 0 {
        found.extend(row(&line).filter(|row| (row.own, row.peer) == wanted).map(|row| row.inode));
        line.clear();
    }
    Ok(found)
}

/// What the table can tell of an address: no scope, and an IPv4 address in IPv6 is that IPv4 address.
fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    own: (IpAddr, u16),
    peer: (IpAddr, u16),
    inode: u64,
}

/// One line; `None` for the heading, for a socket that no process holds (inode 0) and for anything else.
fn row(line: &[u8]) -> Option<Row> {
    let mut fields = str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (own, peer) = (endpoint(fields.nth(1)?)?, endpoint(fields.next()?)?);
    let inode = fields.nth(6)?.parse().ok().filter(|inode| *inode != 0)?;
    // More follows, always: a number at the end of a line was cut.
    fields.next().map(|_| Row { own, peer, inode })
}

/// `0100007F:0C38`: the address as words in the machine's byte order, the port as the number it is.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let address = match address.len() {
        8 => Ipv4Addr::from(word(address)?).into(),
        32 => ipv6(address)?.to_canonical(),
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

fn ipv6(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 16];
    for (at, four) in octets.chunks_exact_mut(4).enumerate() {
        four.copy_from_slice(&word(text.get(at * 8..at * 8 + 8)?)?);
    }
    Some(Ipv6Addr::from(octets).into())
}

fn word(text: &str) -> Option<[u8; 4]> {
    u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes)
}

#[cfg(test)]
mod tests;
