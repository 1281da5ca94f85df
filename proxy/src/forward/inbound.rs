//! What a client sends, between its socket and hyper: each request is framed strictly (`wire::framing`) before hyper sees a
//! byte of it, and content as it passes. What breaks the rules is kept from hyper, which is given an empty request in its
//! place, so that the refusal is answered in its turn.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::client::Replay;
use crate::limits::MAX_HELD;
use crate::wire::Progress;
use crate::wire::framing::{self, Chunks, Content};
use crate::wire::http::Refused;

/// How much one read may add.
const READ: usize = 4 * 1024;
/// What hyper reads in the place of a request that is refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

/// A client's socket that yields well-framed requests only.
pub(super) struct Inbound {
    client: Replay,
    /// Read, and not handed on.
    held: BytesMut,
    /// How much of `held` has passed.
    passed: usize,
    place: Place,
    /// Requests handed on so far.
    requests: u64,
    findings: Arc<Findings>,
}

/// Where in a client's stream the next byte stands.
enum Place {
    Head,
    /// So many octets of content to go, and whether a WebSocket may follow it.
    Length(u64, bool),
    Chunks(Chunks, bool),
    /// After a request for a WebSocket, until its answer is known.
    Undecided,
    /// A WebSocket, which is not HTTP.
    Switched,
    /// After what was refused, of which nothing is read any more.
    Refused,
}

/// What the reader of a connection and its requests tell each other.
#[derive(Default)]
pub(super) struct Findings(Mutex<Found>);

#[derive(Default)]
struct Found {
    /// The number of the request in whose place hyper got another, and why.
    refused: Option<(u64, Refused, String)>,
    /// Why the content of the last request is broken.
    broken: Option<String>,
    /// Whether the last request for a WebSocket got one.
    switched: Option<bool>,
    reader: Option<Waker>,
}

impl Findings {
    /// Why the request of this number, from 1, is refused. Later ones are as well.
    pub(super) fn refusal(&self, number: u64) -> Option<(Refused, String)> {
        let found = self.lock();
        found.refused.as_ref().filter(|(first, ..)| number >= *first).map(|(_, kind, why)| (*kind, why.clone()))
    }

    /// Why the content of the request that is on its way is broken.
    pub(super) fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Tells the reader what came of a request for a WebSocket.
    pub(super) fn settled(&self, switched: bool) {
        let mut found = self.lock();
        found.switched = Some(switched);
        if let Some(reader) = found.reader.take() {
            reader.wake();
        }
    }

    fn poll_settled(&self, cx: &Context<'_>) -> Option<bool> {
        let mut found = self.lock();
        found.reader = Some(cx.waker().clone());
        found.switched.take()
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbound {
    pub(super) fn new(client: Replay, findings: Arc<Findings>) -> Self {
        Self { client, held: BytesMut::new(), passed: 0, place: Place::Head, requests: 0, findings }
    }

    /// The socket, and what was read from it and has not been handed on.
    pub(super) fn into_parts(self) -> (TcpStream, BytesMut) {
        let (stream, said) = self.client.into_parts();
        let mut held = self.held;
        held.extend_from_slice(&said);
        (stream, held)
    }

    /// Lets pass what may, of what is held. `false` if more has to be read first.
    fn judge(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        match &mut self.place {
            Place::Head => return Ok(self.judge_head()),
            Place::Length(0, websocket) => self.place = after_content(*websocket),
            Place::Length(left, _) => {
                let here = self.held.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= here as u64;
                self.passed = here;
                return Ok(here > 0);
            }
            Place::Chunks(chunks, websocket) => match chunks.read(&self.held) {
                Ok(0) if !chunks.ended() => return Ok(false),
                Ok(taken) => {
                    self.passed = taken;
                    if chunks.ended() {
                        self.place = after_content(*websocket);
                    }
                }
                Err(why) => {
                    self.findings.lock().broken = Some(why.clone());
                    self.place = Place::Refused;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            },
            Place::Switched => {
                self.passed = self.held.len();
                return Ok(self.passed > 0);
            }
            Place::Undecided => match self.findings.poll_settled(cx) {
                Some(switched) => self.place = if switched { Place::Switched } else { Place::Head },
                None => return Ok(false),
            },
            Place::Refused => return Ok(false),
        }
        Ok(true)
    }

    fn judge_head(&mut self) -> bool {
        match framing::request(&self.held) {
            Progress::More => return false,
            Progress::Done(Ok(head), length) => {
                self.requests += 1;
                self.passed = length;
                self.place = match head.content {
                    Content::Length(length) => Place::Length(length, head.websocket),
                    Content::Chunked => Place::Chunks(Chunks::default(), head.websocket),
                };
            }
            Progress::Done(Err((kind, why)), _) => self.refuse(kind, why),
            Progress::Never(why) => self.refuse(Refused::BadRequest, why),
        }
        true
    }

    fn refuse(&mut self, kind: Refused, why: String) {
        self.findings.lock().refused = Some((self.requests + 1, kind, why));
        self.place = Place::Refused;
        self.held = STAND_IN.into();
        self.passed = STAND_IN.len();
    }

    /// Reads more into what is held; 0 is the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [mem::MaybeUninit::uninit(); READ];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.client).poll_read(cx, &mut space))?;
        self.held.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// How much may go by without a look.
    fn unseen(&self) -> Option<usize> {
        match self.place {
            _ if !self.held.is_empty() => None,
            Place::Length(left, _) if left > 0 => Some(usize::try_from(left).unwrap_or(usize::MAX)),
            Place::Switched => Some(usize::MAX),
            _ => None,
        }
    }

    /// Reads at most so much straight from the socket.
    fn poll_unseen(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most.min(buf.remaining())));
        ready!(Pin::new(&mut self.client).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        if let Place::Length(left, _) = &mut self.place {
            *left -= read as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing may be read now. While a WebSocket is undecided a little is, so that a client that goes is noticed.
    fn is_shut(&self) -> bool {
        match self.place {
            Place::Undecided => self.held.len() >= MAX_HELD,
            Place::Refused => true,
            _ => false,
        }
    }

    /// The client has ended. What began and is not whole is for hyper to see, which knows what it was in the middle of.
    fn ended(&mut self) -> bool {
        if !matches!(self.place, Place::Undecided) {
            self.passed = self.held.len();
        }
        self.passed == 0
    }
}

impl AsyncRead for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passed > 0 {
                let now = this.passed.min(buf.remaining());
                buf.put_slice(&this.held.split_to(now));
                this.passed -= now;
                return Poll::Ready(Ok(()));
            }
            if let Some(most) = this.unseen() {
                return this.poll_unseen(cx, buf, most);
            }
            if this.judge(cx)? {
                continue;
            }
            if this.is_shut() {
                return Poll::Pending;
            }
            if ready!(this.poll_more(cx))? == 0 && this.ended() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client).poll_write(cx, data)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.client.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_shutdown(cx)
    }
}

fn after_content(websocket: bool) -> Place {
    if websocket { Place::Undecided } else { Place::Head }
}
