//! What passed the interfaces of this network namespace, as `/proc/net/dev` counts it (proc_net(5)). UDP is counted nowhere by
//! socket; what the interfaces carried beyond TCP is the only trace of it.

use std::io;
use std::path::Path;

use crate::known::Octets;

/// Octets of all interfaces but loopback, headers included.
///
/// # Errors
/// The table cannot be read.
pub fn passed() -> io::Result<Octets> {
    std::fs::read_to_string(Path::new("/proc/net/dev")).map(|table| sum(&table))
}

/// Lines of `name: received` and seven more fields, then `sent`; two of headings.
fn sum(table: &str) -> Octets {
    let rows = table.lines().filter_map(|line| line.rsplit_once(':')).filter(|(name, _)| name.trim() != "lo");
    let counts = rows.filter_map(|(_, counts)| {
        let mut fields = counts.split_ascii_whitespace().map(str::parse);
        let received = fields.next()?.ok()?;
        Some(Octets { received, sent: fields.nth(7)?.ok()? })
    });
    counts.fold(Octets::default(), |all, one| all + one)
}

/// What these many octets of TCP payload come to on an interface: a header of some 66 octets (Ethernet, IP, TCP with time
/// stamps) to each 1,448, and an acknowledgement of 66 to each two segments of the other direction; each connection has
/// a few segments more. An estimate: segments that the hardware splits are counted with one header.
#[must_use]
pub fn with_headers(payload: Octets, connections: u64) -> Octets {
    let on_the_wire = |data: u64, other: u64| {
        data.saturating_add(data / 20).saturating_add(other / 40).saturating_add(connections.saturating_mul(400))
    };
    Octets { sent: on_the_wire(payload.sent, payload.received), received: on_the_wire(payload.received, payload.sent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_summed_without_loopback() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
                     face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                     lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n  eth0: 1000 10 0 0 0 0 0 0 200 5 0 0 0 0 0 0\n\
                     eth1.7:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  bad: x\n";
        assert_eq!(sum(table), Octets { received: 1005, sent: 207 });
    }

    #[test]
    fn sums_never_overflow() {
        let most = Octets { sent: u64::MAX, received: u64::MAX };
        assert_eq!(with_headers(most, u64::MAX), most);
        let table = format!("a: {0} 0 0 0 0 0 0 0 {0}\nb: {0} 0 0 0 0 0 0 0 {0}\n", u64::MAX);
        assert_eq!(sum(&table), most);
    }
}
