//! Moves bytes between two sockets until both have ended. Each direction reads only when its socket has something, into a
//! buffer of the thread, so that an idle tunnel holds none, and writes before it reads on, so that a slow reader slows its
//! writer. A direction that proves bulky goes through a pipe of the kernel (`pipes`), without a copy.
//! One side may end while the other goes on (half-close); for that there are limits.

mod pipes;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep};

pub(crate) use self::pipes::Pipes;
use self::pipes::{Filled, Pipe};
use crate::client::Meter;
use crate::limits::{Limits, RELAY_BUFFER};
use crate::record::Close;

/// Reads of this many octets, this many in a row, make a direction bulky; a spell of less makes it ordinary again.
const LARGE: usize = 8 * 1024;
const BULKY: u8 = 4;

thread_local! {
    /// Holds nothing between two polls.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; RELAY_BUFFER].into_boxed_slice());
}

/// One end of a relay, and what it has said already.
pub(crate) struct End<'a> {
    pub(crate) stream: &'a mut TcpStream,
    pub(crate) said: Bytes,
}

/// Relays, beginning with what each end has already said. `meter` counts what is written to the upstream and read from it;
/// it is kept outside, so that a relay cut short has still counted.
pub(crate) fn relay<'a>(
    client: End<'a>,
    upstream: End<'a>,
    pipes: &'a Pipes,
    limits: &'a Limits,
    meter: &'a Meter,
) -> impl Future<Output = Close> + Send + 'a {
    let (client_read, client_write) = client.stream.split();
    let (upstream_read, upstream_write) = upstream.stream.split();
    // What the upstream has said was counted when it was read.
    let mut counted = upstream.said.len();
    let mut up = Direction::new(client_read, upstream_write, client.said);
    let mut down = Direction::new(upstream_read, client_write, upstream.said);
    // The arguments of an `async fn` would take their place twice.
    async move {
        let mut wrote = |count| meter.wrote(count);
        let mut read = |count| {
            let known = counted.min(count);
            counted -= known;
            meter.read(count - known);
        };
        let (close, ended) = tokio::select! {
            ended = poll_fn(|cx| up.poll(cx, pipes, &mut wrote)) => (Close::Client, ended.and_then(|()| up.end())),
            ended = poll_fn(|cx| down.poll(cx, pipes, &mut read)) => (Close::Upstream, ended.and_then(|()| down.end())),
            () = silence(limits.idle, None, || meter.total()) => return Close::Idle,
        };
        if ended.is_err() {
            return Close::Reset;
        }
        let upward_left = close == Close::Upstream;
        let end = Instant::now().checked_add(limits.half_closed);
        tokio::select! {
            // What the client still says to an upstream that has ended is lost; an answer cut short is not an end. The end of
            // the second direction is passed on as both sockets close, which they do next.
            ended = poll_fn(|cx| if upward_left { up.poll(cx, pipes, &mut wrote) } else { down.poll(cx, pipes, &mut read) }) => {
                if upward_left || ended.is_ok() { close } else { Close::Reset }
            }
            () = silence(limits.half_closed_idle, end, || meter.total()) => Close::Linger,
        }
    }
}

/// One of the two.
struct Direction<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    /// Read, and not written yet.
    left: Bytes,
    /// What is in it was read, and not written yet.
    pipe: Option<Pipe>,
    /// Large reads in a row.
    large: u8,
    /// Octets that went through the pipe since the last pause.
    spell: usize,
}

impl<'a> Direction<'a> {
    fn new(from: ReadHalf<'a>, to: WriteHalf<'a>, said: Bytes) -> Self {
        Self { from, to, left: said, pipe: None, large: 0, spell: 0 }
    }

    /// Moves to the end.
    fn poll(&mut self, cx: &mut Context<'_>, pipes: &Pipes, moved: &mut impl FnMut(usize)) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write(cx, moved))?;
            let more = if self.large < BULKY { self.poll_copy(cx, moved) } else { self.poll_fill(cx, pipes) };
            if !ready!(more)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes what has been read.
    fn poll_write(&mut self, cx: &mut Context<'_>, moved: &mut impl FnMut(usize)) -> Poll<io::Result<()>> {
        while !self.left.is_empty() {
            let count = ready!(Pin::new(&mut self.to).poll_write(cx, &self.left))?;
            moved(count);
            // The last of it gives its memory back.
            self.left = if count < self.left.len() { self.left.slice(count..) } else { Bytes::new() };
        }
        match &mut self.pipe {
            Some(pipe) => pipe.poll_empty(cx, self.to.as_ref(), moved),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Reads once, and writes what can be written at once; false at the end of the stream.
    fn poll_copy(&mut self, cx: &mut Context<'_>, moved: &mut impl FnMut(usize)) -> Poll<io::Result<bool>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.from).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(false));
            }
            let written = match Pin::new(&mut self.to).poll_write(cx, read)? {
                Poll::Ready(count) => count,
                Poll::Pending => 0,
            };
            moved(written);
            self.left = Bytes::copy_from_slice(&read[written..]);
            self.large = if read.len() < LARGE { 0 } else { self.large + 1 };
            Poll::Ready(Ok(true))
        })
    }

    /// Reads into a pipe, which is held for as long as bytes come without a pause; false at the end of the stream. Without a
    /// pipe, the next reads are copied.
    fn poll_fill(&mut self, cx: &mut Context<'_>, pipes: &Pipes) -> Poll<io::Result<bool>> {
        ready!(self.from.as_ref().poll_read_ready(cx))?;
        let Some(mut pipe) = self.pipe.take().or_else(|| pipes.lend()) else {
            self.large = 0;
            return Poll::Ready(Ok(true));
        };
        let filled = pipe.fill(self.from.as_ref())?;
        match filled {
            Filled::Octets(count) => {
                self.spell += count;
                self.pipe = Some(pipe);
                return Poll::Ready(Ok(true));
            }
            Filled::Unsupported => pipes.give_up(),
            Filled::Dry | Filled::End => pipes.take_back(pipe),
        }
        if std::mem::take(&mut self.spell) < LARGE {
            self.large = 0;
        }
        Poll::Ready(Ok(filled != Filled::End))
    }

    /// Passes the end on as a half-close.
    fn end(&self) -> io::Result<()> {
        match SockRef::from(self.to.as_ref()).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }
}

/// Closes both ends so that they hear at once that this is over, unless they ended it themselves.
pub(crate) fn cut(close: Close, client: &TcpStream, upstream: &TcpStream) {
    if matches!(close, Close::Idle | Close::Linger | Close::Reset | Close::Revoked) {
        for stream in [client, upstream] {
            // Nothing is left to say where this fails.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Ends when nothing has moved for the limit, and at the end at the latest. It looks once per limit, so a tunnel lives at most
/// twice as long.
pub(crate) async fn silence(limit: Duration, end: Option<Instant>, moved: impl Fn() -> u64) {
    let mut seen = moved();
    loop {
        sleep(end.map_or(limit, |end| limit.min(end.saturating_duration_since(Instant::now())))).await;
        let now = moved();
        if now == seen || end.is_some_and(|end| Instant::now() >= end) {
            return;
        }
        seen = now;
    }
}

#[cfg(test)]
mod tests;
