//! Netlink sockets: what is asked of the kernel, and what it tells unasked. The octets are `diag`'s business.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind, recvfrom, sendto, socket_with,
};
use socket2::{SockFilter, SockRef};

use crate::diag::{self, Family, Protocol, Said, Socket, Which, messages};

/// The kernel fills at most half of it at once.
const BUFFER: usize = 64 * 1024;
/// A listing that takes longer is broken off; a hundred thousand sockets take a quarter of a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Notifications that wait to be read, in octets of the kernel's memory. Without a capability the kernel grants what
/// `net.core.rmem_max` allows, mostly a few hundred notifications.
const WAITING: usize = 16 * 1024 * 1024;
/// How many are read before somebody hears of them.
const AT_ONCE: usize = 256;
/// How often who waits for notifications looks up.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Why the kernel could not be asked, or did not answer.
#[derive(Debug)]
pub enum Refused {
    /// No socket of this kind: a filter or a kernel without it.
    Socket(io::Error),
    /// The request was not taken.
    Request(io::Error),
    /// No end within five seconds.
    Slow,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => {
                write!(f, "no netlink socket for sock_diag: {error}; gVisor and some seccomp profiles have none")
            }
            Self::Request(error) => write!(f, "sock_diag does not answer: {error}; the kernel may lack inet_diag"),
            Self::Slow => f.write_str("sock_diag did not end a listing within 5 s"),
        }
    }
}

impl std::error::Error for Refused {}

/// A way to ask.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one. No privilege is needed.
    ///
    /// # Errors
    /// There is no such socket here.
    pub fn open() -> Result<Self, Refused> {
        let socket = open(0, PATIENCE).map_err(Refused::Socket)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Lists sockets of one kind.
    ///
    /// # Errors
    /// The listing did not come, or not to its end; what was told until then was told.
    pub fn list(
        &mut self,
        family: Family,
        protocol: Protocol,
        which: Which,
        mut each: impl FnMut(Socket),
    ) -> Result<(), Refused> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = diag::list(family, protocol, which, self.sequence);
        match self.ask(&request, &mut each)? {
            0 => Ok(()),
            // A kernel without IPv6 has no sockets of it.
            number if family == Family::V6 && Errno::from_raw_os_error(number) == Errno::NOENT => Ok(()),
            number => Err(Refused::Request(io::Error::from_raw_os_error(number))),
        }
    }

    /// The TCP socket at `own` whose peer is `peer`; `None` if there is none.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn find(&mut self, own: SocketAddr, peer: SocketAddr) -> Result<Option<Socket>, Refused> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = diag::find(own, peer, self.sequence);
        let mut found = None;
        // Where nothing is connected so, the kernel answers with a listener.
        let same = |a: SocketAddr, b: SocketAddr| (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port());
        let mut take = |socket: Socket| {
            if same(socket.local, own) && socket.peer.is_some_and(|its| same(its, peer)) {
                found = Some(socket);
            }
        };
        match self.ask(&request, &mut take)? {
            0 => Ok(found),
            number if Errno::from_raw_os_error(number) == Errno::NOENT => Ok(None),
            number => Err(Refused::Request(io::Error::from_raw_os_error(number))),
        }
    }

    /// Asks, and hears answers to their end, which may be a number of errno(3).
    fn ask(&mut self, request: &[u8], each: &mut impl FnMut(Socket)) -> Result<i32, Refused> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let is_listing = is_listing(request);
        sendto(&self.socket, request, SendFlags::empty(), &kernel).map_err(|error| Refused::Request(error.into()))?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let Some(length) = self.receive().map_err(Refused::Request)? else { continue };
            for message in messages(&self.buffer[..length]) {
                let message = message.map_err(|_| Refused::Request(io::ErrorKind::InvalidData.into()))?;
                match message.said {
                    // Of an earlier request that was broken off.
                    _ if message.sequence != self.sequence => {}
                    Said::Socket(socket) => each(socket),
                    Said::Done => return Ok(0),
                    Said::Failed(number) => return Ok(number),
                    Said::Other => {}
                }
                if !is_listing && message.sequence == self.sequence {
                    return Ok(0);
                }
            }
        }
        Err(Refused::Slow)
    }

    fn receive(&mut self) -> io::Result<Option<usize>> {
        match receive(&self.socket, &mut self.buffer, RecvFlags::empty()) {
            Heard::Octets(length) => Ok(Some(length)),
            Heard::Nothing => Ok(None),
            Heard::Lost => Err(Errno::NOBUFS.into()),
            Heard::Failed(error) => Err(error),
        }
    }
}

/// One answer follows, or many and an end.
fn is_listing(request: &[u8]) -> bool {
    request.get(7).is_some_and(|flags| *flags != 0) || request.get(6).is_some_and(|flags| *flags & 0xfe != 0)
}

/// Hears of sockets that end.
#[derive(Debug)]
pub(crate) struct Ends {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard {
    /// So many octets, from the kernel.
    Octets(usize),
    /// Nothing, for a while.
    Nothing,
    /// Notifications were lost: they came faster than they were read.
    Lost,
    /// It cannot be heard any more.
    Failed(io::Error),
}

impl Ends {
    /// Joins the groups of one protocol, both families (`SKNLGRP_INET_TCP_DESTROY` and so on).
    pub(crate) fn of(protocol: Protocol) -> Result<Self, Refused> {
        // The bits of groups 1 and 3, or 2 and 4.
        let groups = match protocol {
            Protocol::Tcp => 0b0101,
            Protocol::Udp => 0b1010,
        };
        let socket = open(groups, PAUSE).map_err(Refused::Socket)?;
        // The one beyond the limit needs a capability; failing both, the default is what there is.
        if set_socket_recv_buffer_size_force(&socket, WAITING).is_err() {
            let _ = set_socket_recv_buffer_size(&socket, WAITING);
        }
        // Without it there is only more to read.
        let _ = SockRef::from(&socket).attach_filter(&no_loopback(protocol));
        Ok(Self { socket, buffer: vec![0; BUFFER] })
    }

    /// Waits at most [`PAUSE`] for one notification, and takes those that wait behind it, up to [`AT_ONCE`].
    pub(crate) fn hear(&mut self, mut each: impl FnMut(Socket)) -> Heard {
        let mut waits = RecvFlags::empty();
        for _ in 0..AT_ONCE {
            let length = match receive(&self.socket, &mut self.buffer, waits) {
                Heard::Octets(length) => length,
                nothing => return nothing,
            };
            for message in messages(&self.buffer[..length]).map_while(Result::ok) {
                if let Said::Socket(socket) = message.said {
                    each(socket);
                }
            }
            waits = RecvFlags::DONTWAIT;
        }
        Heard::Nothing
    }
}

fn open(groups: u32, patience: Duration) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// What the kernel says; what another process says (one with the capability to) is nothing.
fn receive(socket: &OwnedFd, buffer: &mut [u8], flags: RecvFlags) -> Heard {
    let is_kernel = |from: Option<SocketAddrAny>| {
        from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0)
    };
    match recvfrom(socket, buffer, flags | RecvFlags::TRUNC) {
        Ok((_, _, from)) if !is_kernel(from.clone()) => Heard::Nothing,
        Ok((_, length, _)) if length > BUFFER => Heard::Lost,
        Ok((length, ..)) => Heard::Octets(length),
        Err(Errno::NOBUFS) => Heard::Lost,
        Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
        Err(error) => Heard::Failed(error.into()),
    }
}

/// A program that the kernel runs for each notification (kernel, Documentation/networking/filter.rst): ends of connections
/// to loopback don't take the place of others, nor those of UDP sockets that are loopback at both ends. It looks at
/// `inet_diag_msg` behind the header of the message.
fn no_loopback(protocol: Protocol) -> Vec<SockFilter> {
    const PEER: u32 = 40;
    const OWN: u32 = 24;
    const RETURN: u16 = 0x06;
    let give = |octets| SockFilter::new(RETURN, 0, 0, octets);
    let mut program = Vec::new();
    if protocol == Protocol::Udp {
        program.extend(is_loopback(OWN, IS_LOOPBACK));
    }
    program.extend(is_loopback(PEER, 0));
    program.extend([give(0), give(u32::MAX)]);
    program
}

/// The steps of [`is_loopback`].
const IS_LOOPBACK: u8 = 16;

/// Goes on to what follows if the address there is loopback; if not, to the second step behind so many more.
fn is_loopback(address: u32, further: u8) -> [SockFilter; IS_LOOPBACK as usize] {
    const BYTE: u16 = 0x30;
    const WORD: u16 = 0x20;
    const EQUALS: u16 = 0x15;
    const FAMILY: u32 = 16;
    let load = |size, at| SockFilter::new(size, 0, 0, at);
    let equals = |value, yes, no| SockFilter::new(EQUALS, yes, no, value);
    let or_not = |value, yes, no| equals(value, yes, no + further);
    [
        load(BYTE, FAMILY),
        equals(2, 0, 2),
        load(BYTE, address),
        or_not(127, 12, 13),
        or_not(10, 0, 12),
        load(WORD, address),
        or_not(0, 0, 10),
        load(WORD, address + 4),
        or_not(0, 0, 8),
        load(WORD, address + 8),
        equals(0, 0, 2),
        load(WORD, address + 12),
        or_not(1, 3, 4),
        or_not(0xffff, 0, 3),
        load(BYTE, address + 12),
        or_not(127, 0, 1),
    ]
}

#[cfg(test)]
mod tests;
