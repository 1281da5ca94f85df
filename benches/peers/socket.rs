//! Sockets that never block, and epoll: as few calls as the kernel allows, so that what is measured is the proxy.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, connect, listen, recv, send, socket_with,
    sockopt,
};

pub(crate) use epoll::EventFlags as Ready;

/// More than any bench has under way, so that no listener of the bench turns a connection away.
const BACKLOG: i32 = 4096;
const EVENTS: usize = 1024;

pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    pub(crate) fn add(&self, socket: impl AsFd, ready: Ready, token: usize) -> anyhow::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token as u64), ready)?)
    }

    pub(crate) fn change(&self, socket: impl AsFd, ready: Ready, token: usize) -> anyhow::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(token as u64), ready)?)
    }

    /// What is ready, by token; nothing after `limit`, or when a signal came.
    pub(crate) fn wait(&mut self, limit: Duration) -> anyhow::Result<impl Iterator<Item = (usize, Ready)> + use<>> {
        self.events.clear();
        let limit = Timespec { tv_sec: limit.as_secs().try_into()?, tv_nsec: limit.subsec_nanos().into() };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = self.events.iter().map(|event| (event.data.u64() as usize, event.flags)).collect();
        Ok(ready.into_iter())
    }
}

fn stream() -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// A listener; what it accepts has TCP_NODELAY from it.
pub(crate) fn listen_at(address: SocketAddr) -> anyhow::Result<OwnedFd> {
    let socket = stream()?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The next connection of a listener, if there is one.
pub(crate) fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).ok()
}

/// A connection under way; on loopback it is made by then, unless the listener's queue is full.
pub(crate) fn dial(to: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = stream()?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// What has come, `None` if that is nothing yet; empty at the end.
pub(crate) fn hear<'b>(socket: &OwnedFd, buffer: &'b mut [u8]) -> rustix::io::Result<Option<&'b [u8]>> {
    let length = match recv(socket, &mut buffer[..], RecvFlags::empty()) {
        Ok((_, length)) => length,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(&buffer[..length]))
}

/// How much was taken of it: nothing while the connection is not made yet or its buffer is full.
pub(crate) fn say(socket: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    match send(socket, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(0),
        other => other,
    }
}
