//! What is asked of and told by the kernel's `sock_diag` (sock_diag(7); include/uapi/linux/inet_diag.h, netlink(7)): requests
//! as octets, and octets as messages. Pure: no socket is opened here. Whatever the octets are, nothing panics, and nothing is
//! read beyond a message's own length.

mod request;

use std::net::{IpAddr, SocketAddr};

pub use request::{find, list};

/// The message type of requests and answers, `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `nlmsghdr`, `inet_diag_msg` and the part of it that tells sockets apart, in octets.
const HEADER: usize = 16;
const SOCKET: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The attribute of answers that has what the protocol knows.
const INFO: u16 = 2;
/// The timer of what is left of a closed connection (`inet_twsk_diag_fill`).
const TIMER_TIME_WAIT: u8 = 3;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Connections, with counters.
    Tcp,
    /// Datagrams. The kernel counts them nowhere by socket.
    Udp,
}

/// IPv4 or IPv6 sockets. An IPv6 socket may hold an IPv4 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

/// A state of TCP, as the kernel numbers them (include/net/tcp_states.h). A UDP socket is established if it is connected,
/// else closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// 1.
    Established,
    /// 2: it asks.
    SynSent,
    /// 3: it was asked.
    SynReceived,
    /// 4.
    FinWait1,
    /// 5.
    FinWait2,
    /// 6.
    TimeWait,
    /// 7.
    Closed,
    /// 8.
    CloseWait,
    /// 9.
    LastAck,
    /// 10.
    Listen,
    /// 11.
    Closing,
    /// None of these.
    Other,
}

/// Which sockets of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What is connected, connecting or closing, to whomever but loopback; of UDP also what is not connected.
    Flows,
    /// Listeners.
    Listeners,
}

/// Which side began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This one.
    Out,
    /// The other.
    In,
}

/// One socket, as it was when the kernel told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its number, which no other socket of this machine has or had.
    pub cookie: u64,
    /// Its state.
    pub state: State,
    /// What is left of a connection whose socket is gone: it was told of before, has another cookie, and nothing is counted.
    pub is_remnant: bool,
    /// Its own address. IPv4 addresses in IPv6 are IPv4 addresses here.
    pub local: SocketAddr,
    /// The other end; `None` if it is not connected, or not any more.
    pub peer: Option<SocketAddr>,
    /// The address of the other end, which a disconnect may leave where it wipes the port; unspecified if there is none.
    pub former: IpAddr,
    /// Its user, where a listing tells it.
    pub uid: u32,
    /// Its inode; 0 if no process holds it.
    pub inode: u32,
    /// What TCP counted.
    pub counted: Option<Counted>,
}

/// Of `tcp_info` (include/uapi/linux/tcp.h). The kernel's own counts: in `acked`, SYN and FIN are one octet each, in `received` FIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Octets that the other side has acknowledged.
    pub acked: u64,
    /// Octets that came in order.
    pub received: u64,
    /// Octets of data that left, each once; kernels before 4.19 don't tell.
    pub sent: Option<u64>,
    /// Whether everything sent was acknowledged.
    pub is_idle: bool,
    /// The shortest round trip in µs, once there was an answer. It outlives a disconnect, which wipes the rest.
    pub had_answer: bool,
}

impl Socket {
    /// Octets of the program's own that left, as far as the kernel tells.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.counted.map_or(0, |counted| counted.sent.unwrap_or(counted.acked))
    }

    /// Octets that came in.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.counted.map_or(0, |counted| counted.received)
    }

    /// Which side began it, where that is certain: the SYN of the side that asks is counted among what was acknowledged, that
    /// of the side that answers is not. A FIN that was acknowledged counts as well, so that of what is closed not all is clear.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        match self.state {
            State::SynSent => return Some(Direction::Out),
            // Not one that a program holds: both sides may ask at once (RFC 9293 section 3.5).
            State::SynReceived if self.inode == 0 => return Some(Direction::In),
            _ => {}
        }
        // A wiped socket has nothing to count by.
        let sends = self.sends();
        let counted = self.counted.filter(|_| self.peer.is_some())?;
        let sent = counted.sent?;
        match counted.acked.checked_sub(sent) {
            Some(2..) => Some(Direction::Out),
            Some(0) if counted.is_idle && (sends || counted.had_answer) => Some(Direction::In),
            _ => None,
        }
    }

    /// Whether this side seems to have begun it: something that is no payload was acknowledged, and it may still send. The kernel
    /// reads the state before it waits for a program that is just closing the socket, and the counters after that; so one look is
    /// no proof, and a second one at another time is.
    pub(crate) fn seems_out(&self) -> bool {
        let counted = self.counted.filter(|_| self.peer.is_some() && self.sends());
        counted.is_some_and(|counted| counted.sent.is_some_and(|sent| counted.acked.checked_sub(sent) == Some(1)))
    }

    fn sends(&self) -> bool {
        matches!(self.state, State::Established | State::CloseWait)
    }
}

impl State {
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => Self::Other,
        }
    }

    /// The stable text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::FinWait1 => "fin_wait_1",
            Self::FinWait2 => "fin_wait_2",
            Self::TimeWait => "time_wait",
            Self::Closed => "closed",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::Other => "other",
        }
    }
}

impl Protocol {
    /// The stable text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// As IANA numbers it.
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }
}

/// What one message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A socket.
    Socket(Socket),
    /// The end of a listing.
    Done,
    /// The kernel refuses, with this number of errno(3); 0 is a yes.
    Failed(i32),
    /// Something else.
    Other,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// That of the request; 0 if nobody asked.
    pub sequence: u32,
    /// What it says.
    pub said: Said,
}

/// What is no whole message. Nothing after it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

/// The messages of what was received at once.
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);

/// Reads what was received.
#[must_use]
pub fn messages(received: &[u8]) -> Messages<'_> {
    Messages(received)
}

impl Iterator for Messages<'_> {
    type Item = Result<Message, Torn>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((message, rest)) = split(self.0) else {
            self.0 = &[];
            return Some(Err(Torn));
        };
        self.0 = rest;
        Some(message.ok_or(Torn).inspect_err(|_| self.0 = &[]))
    }
}

/// The first message, if it can be read, and what follows.
fn split(received: &[u8]) -> Option<(Option<Message>, &[u8])> {
    let length = usize::try_from(u32_at(received, 0)?).ok()?;
    let message = received.get(..length).filter(|message| message.len() >= HEADER)?;
    let rest = received.get(aligned(length)..).unwrap_or_default();
    Some((read(message), rest))
}

fn read(message: &[u8]) -> Option<Message> {
    let (kind, sequence) = (u16_at(message, 4)?, u32_at(message, 8)?);
    let payload = message.get(HEADER..)?;
    let said = match kind {
        BY_FAMILY => Said::Socket(socket(payload)?),
        NLMSG_ERROR => Said::Failed(errno(payload)?),
        // A listing that broke off says so in its last message; older kernels say nothing there.
        NLMSG_DONE => match errno(payload) {
            Some(number) if number > 0 => Said::Failed(number),
            _ => Said::Done,
        },
        _ => Said::Other,
    };
    Some(Message { sequence, said })
}

fn errno(payload: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*payload.first_chunk()?).saturating_neg())
}

/// `inet_diag_msg` and its attributes.
fn socket(payload: &[u8]) -> Option<Socket> {
    let (fixed, attributes) = payload.split_at_checked(SOCKET)?;
    let (family, timer) = (*fixed.first()?, *fixed.get(2)?);
    let address = |at: usize, port: usize| {
        let port = u16::from_be_bytes(*fixed.get(port..)?.first_chunk()?);
        Some(SocketAddr::new(ip(family, fixed.get(at..at + 16)?)?, port))
    };
    let peer = address(24, 6)?;
    let counted = attribute(attributes, INFO).and_then(counted);
    Some(Socket {
        cookie: u64::from(u32_at(fixed, 44)?) | u64::from(u32_at(fixed, 48)?) << 32,
        state: State::of(*fixed.get(1)?),
        is_remnant: timer == TIMER_TIME_WAIT,
        local: address(8, 4)?,
        peer: Some(peer).filter(|peer| peer.port() != 0),
        former: peer.ip(),
        uid: u32_at(fixed, 64)?,
        inode: u32_at(fixed, 68)?,
        counted,
    })
}

fn ip(family: u8, octets: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(*octets.first_chunk::<4>()?)),
        AF_INET6 => Some(IpAddr::from(*octets.first_chunk::<16>()?).to_canonical()),
        _ => None,
    }
}

/// The content of the first attribute of this kind.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let content = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == kind {
            return Some(content);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

/// `tcp_info`, which grows from kernel to kernel.
fn counted(info: &[u8]) -> Option<Counted> {
    let sent = u64_at(info, 200).zip(u64_at(info, 208)).map(|(sent, again)| sent.saturating_sub(again));
    let least = u32_at(info, 148).unwrap_or_default();
    Some(Counted {
        acked: u64_at(info, 120)?,
        received: u64_at(info, 128)?,
        sent,
        is_idle: u32_at(info, 24)? == 0,
        had_answer: !matches!(least, 0 | u32::MAX),
    })
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
