//! The client's side of a connection: its socket, and the bytes read from it that nobody has used yet. Bytes taken
//! for a look stay here and travel on, so nothing is lost between the steps.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::asker::Observed;
use crate::fault::Fault;

/// How much one read may add.
const READ: usize = 4 * 1024;

/// A client, and what it has said so far.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) said: BytesMut,
    pub(crate) observed: Arc<Observed>,
    /// When its request must be whole. A trickled byte does not move it.
    pub(crate) deadline: Instant,
    /// Whether the yes has been said: after it, a refusal can only be a close.
    pub(crate) answered: bool,
    /// Whether a SOCKS5 client has been told its method: before it, a refusal is that there is none.
    pub(crate) greeted: bool,
}

impl Client {
    pub(crate) fn new(stream: TcpStream, observed: Observed, deadline: Instant) -> Self {
        Self { stream, said: BytesMut::new(), observed: Arc::new(observed), deadline, answered: false, greeted: false }
    }

    /// Reads more into `said`; an end of stream is a fault.
    pub(crate) async fn hear(&mut self) -> Result<(), Fault> {
        match self.hear_or_end().await {
            Ok(0) | Err(_) => Err(Fault::ClientGone),
            Ok(_) => Ok(()),
        }
    }

    /// Reads more into `said`; 0 is the end of the stream.
    pub(crate) async fn hear_or_end(&mut self) -> io::Result<usize> {
        self.said.reserve(READ);
        self.stream.read_buf(&mut self.said).await
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).await.map_err(|_| Fault::ClientGone)
    }

    /// A stream that first yields what was read already.
    pub(crate) fn into_replay(self, meter: Arc<Meter>) -> Replay {
        Replay { said: self.said, stream: self.stream, meter }
    }
}

/// Bytes each way, as a stream counts them.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
}

impl Meter {
    /// Bytes read and written so far.
    pub(crate) fn both(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }

    pub(crate) fn read(&self, count: usize) {
        self.read.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, count: usize) {
        self.written.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        let (read, written) = self.both();
        read + written
    }
}

/// A socket that first yields bytes which were read from it earlier, and counts what passes.
pub(crate) struct Replay {
    said: BytesMut,
    stream: TcpStream,
    meter: Arc<Meter>,
}

impl Replay {
    pub(crate) fn new(stream: TcpStream, meter: Arc<Meter>) -> Self {
        Self { said: BytesMut::new(), stream, meter }
    }

    /// The socket, and what was read from it and has not been yielded.
    pub(crate) fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.said)
    }
}

impl AsyncRead for Replay {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.said.has_remaining() {
            let n = self.said.len().min(buf.remaining());
            buf.put_slice(&self.said.split_to(n));
        } else {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        }
        let read = buf.filled().len() - before;
        self.meter.read(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, data))?;
        self.meter.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, data))?;
        self.meter.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
