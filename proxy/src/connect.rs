//! Dials vetted addresses, and nothing else: the type of its argument can only be made by `egret-policy`. Families
//! take turns, and a slow address does not hold up the next (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use egret_policy::VettedAddr;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::io::Errno;
use rustix::net::sockopt::socket_cookie;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::fault::ConnectFault;
use crate::limits::{Limits, PROBE};
use crate::record::Observer;

/// A connection that is made, or being made. The runtime does not know of it yet, so that any thread may begin one.
pub(crate) struct Begun {
    socket: std::net::TcpStream,
    address: SocketAddr,
    is_connected: bool,
    deadline: Instant,
}

/// A connection that is made, and where to.
pub(crate) struct Reached {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
}

/// Begins to connect, and waits for nothing: an upstream on this machine is connected by then.
pub(crate) fn begin(address: VettedAddr, limit: Duration, observer: &dyn Observer) -> Result<Begun, ConnectFault> {
    let address = address.socket();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP)).map_err(fault)?;
    // Before it is connected, so that nobody who watches meets it unknown.
    let _ = socket_cookie(&socket).map(|cookie| observer.opened(cookie));
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(fault(error)),
        _ => {}
    }
    let socket = std::net::TcpStream::from(socket);
    let is_connected = socket.peer_addr().is_ok();
    Ok(Begun { socket, address, is_connected, deadline: Instant::now() + limit })
}

impl Begun {
    /// Where to, if it is made.
    pub(crate) fn connected(&self) -> Option<SocketAddr> {
        self.is_connected.then_some(self.address)
    }

    /// Waits for it.
    pub(crate) async fn done(self) -> Result<Reached, ConnectFault> {
        let Self { socket, address, is_connected, deadline } = self;
        let stream = TcpStream::from_std(socket).map_err(fault)?;
        if !is_connected {
            timeout_at(deadline, stream.writable()).await.map_err(|_| ConnectFault::Timeout)?.map_err(fault)?;
            stream.take_error().map_err(fault)?.map_or(Ok(()), |error| Err(fault(error)))?;
        }
        prepare(&stream);
        Ok(Reached { stream, address })
    }
}

/// The first address that accepts, dialled with a head start for each before the next.
pub(crate) async fn connect(addresses: &[VettedAddr], limits: &Limits, observer: &dyn Observer) -> Result<Reached, ConnectFault> {
    match addresses {
        // Nobody to race with.
        [address] => dial(*address, limits.connect.min(limits.connect_one), observer).await,
        _ => timeout(limits.connect, race(addresses, limits, observer)).await.unwrap_or(Err(ConnectFault::Timeout)),
    }
}

async fn race(addresses: &[VettedAddr], limits: &Limits, observer: &dyn Observer) -> Result<Reached, ConnectFault> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut dialling = FuturesUnordered::new();
    let mut worst = ConnectFault::Refused;
    loop {
        match waiting.next() {
            Some(address) => dialling.push(dial(address, limits.connect_one, observer)),
            None if dialling.is_empty() => return Err(worst),
            None => {}
        }
        tokio::select! {
            biased;
            Some(outcome) = dialling.next() => match outcome {
                Ok(reached) => return Ok(reached),
                Err(fault) => worst = worse(worst, fault),
            },
            () = sleep(limits.connect_stagger) => {}
        }
    }
}

async fn dial(address: VettedAddr, limit: Duration, observer: &dyn Observer) -> Result<Reached, ConnectFault> {
    begin(address, limit, observer)?.done().await
}

fn fault(error: io::Error) -> ConnectFault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectFault::Refused,
        io::ErrorKind::TimedOut => ConnectFault::Timeout,
        kind => ConnectFault::Failed(kind),
    }
}

/// No delay for small writes, and probes that find a peer that is gone without a word, and that keep a silent connection
/// alive in the tables on its way (an AWS NAT gateway forgets after 350 s). Neither is worth failing for.
pub(crate) fn prepare(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE));
}

/// The family of the first answer, then the other, in turns.
fn interleaved(addresses: &[VettedAddr]) -> Vec<VettedAddr> {
    let first_is_v6 = addresses.first().is_some_and(|a| a.socket().is_ipv6());
    let (mut first, mut second): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(|a| a.socket().is_ipv6() == first_is_v6);
    let mut order = Vec::with_capacity(addresses.len());
    first.reverse();
    second.reverse();
    while !first.is_empty() || !second.is_empty() {
        order.extend(first.pop());
        order.extend(second.pop());
    }
    order
}

/// Of several faults the one that tells most: a timeout, then what the kernel said, then a refusal.
fn worse(a: ConnectFault, b: ConnectFault) -> ConnectFault {
    match (a, b) {
        (ConnectFault::Timeout, _) | (_, ConnectFault::Timeout) => ConnectFault::Timeout,
        (ConnectFault::Refused, other) => other,
        (failed, _) => failed,
    }
}
