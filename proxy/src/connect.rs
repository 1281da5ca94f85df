//! Dials vetted addresses, and nothing else: the type of its argument can only be made by `egret-policy`. Families
//! take turns, and a slow address does not hold up the next (RFC 8305).

use std::io;

use egret_policy::VettedAddr;
use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::fault::ConnectFault;
use crate::limits::Limits;

/// The first address that accepts, dialled with a head start for each before the next.
pub(crate) async fn connect(addresses: &[VettedAddr], limits: &Limits) -> Result<TcpStream, ConnectFault> {
    timeout(limits.connect, race(addresses, limits)).await.unwrap_or(Err(ConnectFault::Timeout))
}

async fn race(addresses: &[VettedAddr], limits: &Limits) -> Result<TcpStream, ConnectFault> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut dialling = FuturesUnordered::new();
    let mut worst = ConnectFault::Refused;
    loop {
        match waiting.next() {
            Some(address) => dialling.push(dial(address, limits)),
            None if dialling.is_empty() => return Err(worst),
            None => {}
        }
        tokio::select! {
            biased;
            Some(outcome) = dialling.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(fault) => worst = worse(worst, fault),
            },
            () = sleep(limits.connect_stagger) => {}
        }
    }
}

async fn dial(address: VettedAddr, limits: &Limits) -> Result<TcpStream, ConnectFault> {
    match timeout(limits.connect_one, TcpStream::connect(address.socket())).await {
        Ok(Ok(stream)) => {
            prepare(&stream);
            Ok(stream)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(ConnectFault::Refused),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(ConnectFault::Timeout),
        Ok(Err(error)) => Err(ConnectFault::Failed(error.kind())),
        Err(_) => Err(ConnectFault::Timeout),
    }
}

/// No delay for small writes, and probes that find a peer that is gone without a word. Neither is worth failing for.
pub(crate) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new());
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
