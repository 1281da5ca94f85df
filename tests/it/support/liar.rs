//! A resolver that answers in bytes of a test's own making: wrong ids, wrong questions, other ports, loops, lies about
//! lengths. It knows how a query begins and nothing of what it is answered.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::DEADLINE;
use super::dns::bind_both;
use super::listener::Listener;

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;
pub(crate) const IN: u16 = 1;

/// A response without an error, recursion done.
pub(crate) const PLAIN: u16 = 0x8180;
/// The same cut short.
pub(crate) const TRUNCATED: u16 = 0x8380;

/// One query, as it came.
pub(crate) struct Asked {
    pub(crate) id: u16,
    /// Name, type and class, encoded.
    pub(crate) question: Vec<u8>,
    pub(crate) kind: u16,
    /// Lower-cased, without the final dot.
    pub(crate) name: String,
}

/// One datagram back.
pub(crate) enum Reply {
    /// From the address that was asked.
    Here(Vec<u8>),
    /// From another port of it.
    Elsewhere(Vec<u8>),
}

/// A running liar, stopped when dropped.
pub(crate) struct Liar {
    udp: Arc<UdpSocket>,
    _tcp: Listener,
    queries: Arc<AtomicUsize>,
}

impl Liar {
    /// Answers datagrams with `udp`, and queries over TCP with the bytes of `tcp`, their length not put before them.
    pub(crate) fn new(
        udp: impl Fn(&Asked) -> Vec<Reply> + Send + 'static,
        tcp: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let (datagrams, streams): (UdpSocket, TcpListener) = bind_both();
        let (datagrams, queries) = (Arc::new(datagrams), Arc::new(AtomicUsize::new(0)));
        let (socket, count) = (Arc::clone(&datagrams), Arc::clone(&queries));
        thread::spawn(move || serve(&socket, &udp, &count));
        let listener = Listener::spawn(streams, || (), move |stream| drop(serve_stream(stream, &tcp)));
        Self { udp: datagrams, _tcp: listener, queries }
    }

    /// Over UDP alone; what comes over TCP is closed.
    pub(crate) fn datagrams(udp: impl Fn(&Asked) -> Vec<Reply> + Send + 'static) -> Self {
        Self::new(udp, |_| Vec::new())
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.udp.local_addr().expect("a bound socket has an address")
    }

    /// Datagrams that came so far.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        // An empty datagram ends the thread; when it can't be sent, it ends with the tests.
        drop(self.udp.send_to(b"", self.addr()));
    }
}

fn serve(socket: &UdpSocket, answer: &dyn Fn(&Asked) -> Vec<Reply>, queries: &AtomicUsize) {
    let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
    let mut buffer = [0; 4096];
    while let Ok((count @ 1.., peer)) = socket.recv_from(&mut buffer) {
        queries.fetch_add(1, Ordering::SeqCst);
        for reply in answer(&Asked::read(&buffer[..count])) {
            // A client that is gone misses nothing.
            drop(match reply {
                Reply::Here(bytes) => socket.send_to(&bytes, peer),
                Reply::Elsewhere(bytes) => elsewhere.send_to(&bytes, peer),
            });
        }
    }
}

/// Answers until there is no answer, and then holds the connection for as long as the client does.
fn serve_stream(mut stream: TcpStream, answer: &dyn Fn(&Asked) -> Vec<u8>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        match answer(&Asked::read(&query)) {
            bytes if bytes.is_empty() => return Ok(()),
            bytes => stream.write_all(&bytes)?,
        }
    }
}

impl Asked {
    fn read(query: &[u8]) -> Self {
        let body = &query[12..];
        let (mut end, mut labels) = (0, Vec::new());
        while body[end] != 0 {
            let length = usize::from(body[end]);
            labels.push(String::from_utf8_lossy(&body[end + 1..=end + length]).to_ascii_lowercase());
            end += length + 1;
        }
        let kind = u16::from_be_bytes([body[end + 1], body[end + 2]]);
        Self { id: u16::from_be_bytes([query[0], query[1]]), question: body[..end + 5].to_vec(), kind, name: labels.join(".") }
    }

    /// An answer to this query: flags, and these records as answers and as additional ones.
    pub(crate) fn message(&self, flags: u16, answers: &[Vec<u8>], additional: &[Vec<u8>]) -> Vec<u8> {
        message(self.id, flags, &self.question, answers, additional)
    }

    /// The address as an answer to an A query, and none to any other.
    pub(crate) fn honest(&self, address: [u8; 4]) -> Vec<u8> {
        let answers = if self.kind == A { vec![record(&self.name, A, IN, 60, &address)] } else { Vec::new() };
        self.message(PLAIN, &answers, &[])
    }
}

/// A whole message.
pub(crate) fn message(id: u16, flags: u16, question: &[u8], answers: &[Vec<u8>], additional: &[Vec<u8>]) -> Vec<u8> {
    let count = |records: &[Vec<u8>]| u16::try_from(records.len()).expect("at most 65,535 records");
    let header = [id, flags, 1, count(answers), 0, count(additional)].map(u16::to_be_bytes).concat();
    [&header[..], question, &answers.concat(), &additional.concat()].concat()
}

/// A record that says so much of its length and means it.
pub(crate) fn record(name: &str, kind: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("at most 65,535 octets");
    [&encoded(name)[..], &kind.to_be_bytes(), &class.to_be_bytes(), &ttl.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// A name in labels.
pub(crate) fn encoded(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).expect("a label")][..], label.as_bytes()].concat();
    [name.split('.').flat_map(label).collect(), vec![0]].concat()
}

/// With its length before it, as over TCP.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("at most 65,535 octets");
    [&length.to_be_bytes(), message].concat()
}
