//! The servers that egret dials: each counts what reaches it, so that a test can say that nothing did. HTTP, clear
//! or over TLS, is in [`http`]; here are the accounting and the servers of a few lines.

mod http;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::http1::read_head;
use super::listener::Listener;
use super::seen::Seen;
use super::{DEADLINE, Identity};

/// How much of what arrived first is kept.
const FIRST_BYTES: usize = 4096;

/// The key that a WebSocket client must send: the sample of RFC 6455 section 1.3, whose answer is known without
/// SHA-1.
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a server does with a connection.
pub(crate) enum Service {
    /// HTTP/1.1 with this body for whatever is asked, and the paths of [`http`].
    Http(String),
    /// The same over TLS.
    Https(Arc<ServerConfig>, String),
    /// Speaks first: this text, then whatever it receives.
    Banner(String),
    /// Sends back what it receives; closes its side when the client has closed the other.
    Echo,
    /// Accepts and reads, and never says a word.
    Silent,
    /// A WebSocket handshake for [`WEBSOCKET_KEY`], then each short frame unmasked.
    Websocket,
    /// These bytes for each HTTP head, be they an answer or not, and the end after them if so told.
    Scripted(Vec<u8>, bool),
}

/// A running server, stopped when dropped.
pub(crate) struct Upstream {
    listener: Listener,
    seen: Arc<Account>,
}

/// What reached one server.
struct Account {
    connections: AtomicUsize,
    bytes: AtomicU64,
    first: Mutex<Vec<u8>>,
    heads: Seen<String>,
    ended: Seen<()>,
}

impl Upstream {
    pub(crate) fn http(body: &str) -> Self {
        Self::at(any_port(), Service::Http(body.to_owned()))
    }

    pub(crate) fn tls(identity: &Identity, body: &str) -> Self {
        Self::at(any_port(), Service::Https(identity.server_config(), body.to_owned()))
    }

    pub(crate) fn banner(text: &str) -> Self {
        Self::at(any_port(), Service::Banner(text.to_owned()))
    }

    pub(crate) fn echo() -> Self {
        Self::at(any_port(), Service::Echo)
    }

    pub(crate) fn silent() -> Self {
        Self::at(any_port(), Service::Silent)
    }

    pub(crate) fn websocket() -> Self {
        Self::at(any_port(), Service::Websocket)
    }

    /// Answers each request with these bytes and waits for the next.
    pub(crate) fn scripted(answer: impl Into<Vec<u8>>) -> Self {
        Self::at(any_port(), Service::Scripted(answer.into(), false))
    }

    /// Answers one request with these bytes and closes.
    pub(crate) fn scripted_once(answer: impl Into<Vec<u8>>) -> Self {
        Self::at(any_port(), Service::Scripted(answer.into(), true))
    }

    /// A server at a given address: another of loopback's, or the port of another server at a second address.
    pub(crate) fn at(addr: SocketAddr, service: Service) -> Self {
        let socket = TcpListener::bind(addr).unwrap_or_else(|e| panic!("an upstream at {addr}: {e}"));
        let seen = Arc::new(Account::new());
        let (arriving, serving) = (Arc::clone(&seen), Arc::clone(&seen));
        let listener = Listener::spawn(
            socket,
            move || {
                arriving.connections.fetch_add(1, Ordering::SeqCst);
            },
            move |stream| {
                // A client that goes away is an ordinary end here; the test sees its own side of it.
                drop(serve(&service, stream, &serving));
                serving.ended.push(());
            },
        );
        Self { listener, seen }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr().port()
    }

    /// Connections accepted, all those counted that were made before this call.
    pub(crate) fn connections(&self) -> usize {
        self.listener.settle();
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Bytes read from all connections so far, as they came over TCP.
    pub(crate) fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::SeqCst)
    }

    /// [`Upstream::bytes`] when every connection has come to its end: what it will ever be, if no more are made.
    pub(crate) fn final_bytes(&self) -> u64 {
        let connections = self.connections();
        let ended = self.seen.ended.wait_for(|ended| (ended.len() >= connections).then_some(()));
        assert!(ended.is_some(), "of {connections} connections to the upstream some stayed open for {DEADLINE:?}");
        self.bytes()
    }

    /// The first bytes received, at most 4 KiB.
    pub(crate) fn first_bytes(&self) -> Vec<u8> {
        self.seen.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The heads of all HTTP requests so far, each with its request line and its empty line.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.heads.all()
    }

    /// Waits for `count` HTTP requests and returns their heads.
    pub(crate) fn wait_heads(&self, count: usize) -> Vec<String> {
        let heads = self.seen.heads.wait_for(|heads| (heads.len() >= count).then(|| heads.to_vec()));
        heads.unwrap_or_else(|| panic!("fewer than {count} requests: {:#?}", self.heads()))
    }
}

impl Account {
    fn new() -> Self {
        Self {
            connections: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            first: Mutex::new(Vec::new()),
            heads: Seen::new(),
            ended: Seen::new(),
        }
    }

    fn received(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let room = FIRST_BYTES - first.len();
        first.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A connection whose reads are put to the account.
struct Counted<'a> {
    stream: TcpStream,
    account: &'a Account,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.account.received(&buffer[..count]);
        Ok(count)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn serve(service: &Service, stream: TcpStream, account: &Account) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = Counted { stream, account };
    match service {
        Service::Http(body) => http::serve(stream, body, &account.heads),
        Service::Https(config, body) => serve_tls(stream, config, body, &account.heads),
        Service::Banner(text) => {
            stream.write_all(text.as_bytes())?;
            echo(&mut stream)
        }
        Service::Echo => echo(&mut stream),
        Service::Silent => io::copy(&mut stream, &mut io::sink()).map(drop),
        Service::Websocket => websocket(&mut stream, &account.heads),
        Service::Scripted(answer, once) => scripted(&mut stream, answer, *once, &account.heads),
    }
}

fn serve_tls(stream: Counted<'_>, config: &Arc<ServerConfig>, body: &str, heads: &Seen<String>) -> io::Result<()> {
    let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    http::serve(&mut stream, body, heads)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn echo(stream: &mut Counted<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.stream.shutdown(Shutdown::Write),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn scripted(stream: &mut Counted<'_>, answer: &[u8], once: bool, heads: &Seen<String>) -> io::Result<()> {
    while let Some(head) = read_head(stream)? {
        heads.push(head);
        stream.write_all(answer)?;
        if once {
            break;
        }
    }
    Ok(())
}

fn websocket(stream: &mut Counted<'_>, heads: &Seen<String>) -> io::Result<()> {
    let Some(head) = read_head(stream)? else { return Ok(()) };
    heads.push(head);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes())?;
    loop {
        echo_frame(stream)?;
    }
}

/// A client's frame of at most 125 bytes: opcode, length, mask, payload (RFC 6455 section 5.2).
fn echo_frame(stream: &mut Counted<'_>) -> io::Result<()> {
    let mut header = [0; 6];
    stream.read_exact(&mut header)?;
    let [opcode, length, mask @ ..] = header;
    let mut payload = vec![0; usize::from(length & 0x7f)];
    stream.read_exact(&mut payload)?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    stream.write_all(&[&[opcode, length & 0x7f], &payload[..]].concat())
}
