//! The far end of every measurement, as a process of its own: answers a ClientHello with a flight, a `GET` with 128 bytes,
//! streams, and counts what it did, so that the near end can be checked. And the DNS server beside it.

use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use crate::socket::{Poll, Ready, accept, hear, listen_at, say};
use crate::wire::{
    BODY, CACHED, COUNTERS, ECHO, ECHOED, HTTP_PORT, NAME, PERIOD, STREAM, TLS_PORT, client_hello, flight, loopback, period,
    record_length,
};

/// Said on standard output once everything listens.
pub(crate) const READY: &str = "ready";

struct Conn {
    socket: OwnedFd,
    heard: Vec<u8>,
    /// Where in its period the stream is, if one was asked for.
    sent: Option<usize>,
}

struct Origin {
    hellos: [Vec<u8>; 2],
    flight: Vec<u8>,
    answer: Vec<u8>,
    stream: Vec<u8>,
    /// Hellos of an allowed name and requests that were answered.
    done: [u64; 2],
}

/// Serves until standard input ends: with the bench.
pub(crate) fn run() -> anyhow::Result<()> {
    let dns = UdpSocket::bind(loopback(53))?;
    thread::spawn(move || names(&dns));
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let listeners = [listen_at(loopback(TLS_PORT))?, listen_at(loopback(HTTP_PORT))?];
    let mut origin = Origin::new()?;
    println!("{READY}");
    origin.serve(&listeners)
}

impl Origin {
    fn new() -> anyhow::Result<Self> {
        let stream = period();
        let head = "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n";
        let answer = [head.as_bytes(), &BODY].concat();
        Ok(Self { hellos: [NAME, CACHED].map(client_hello), flight: flight(), answer, stream, done: [0; 2] })
    }

    fn serve(&mut self, listeners: &[OwnedFd]) -> anyhow::Result<()> {
        let mut poll = Poll::new()?;
        // By descriptor, which is small.
        let mut conns: Vec<Option<Conn>> = Vec::new();
        for listener in listeners {
            poll.add(listener, Ready::IN, listener.as_raw_fd() as usize)?;
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            for (token, ready) in poll.wait(Duration::from_secs(1))? {
                if let Some(listener) = listeners.iter().find(|listener| listener.as_raw_fd() as usize == token) {
                    welcome(listener, &poll, &mut conns)?;
                } else if let Some(conn) = conns.get_mut(token).and_then(Option::as_mut)
                    && !self.attend(conn, ready, &poll, &mut buffer)
                {
                    conns[token] = None;
                }
            }
        }
    }

    /// Whether the connection goes on.
    fn attend(&mut self, conn: &mut Conn, ready: Ready, poll: &Poll, buffer: &mut [u8]) -> bool {
        if ready.contains(Ready::IN) {
            match hear(&conn.socket, buffer) {
                Ok(Some([])) | Err(_) => return false,
                Ok(Some(heard)) => conn.heard.extend_from_slice(heard),
                Ok(None) => {}
            }
            let streams = conn.sent.is_some();
            if !streams && !self.answer_all(conn) {
                return false;
            }
            if !streams && conn.sent.is_some() {
                let token = conn.socket.as_raw_fd() as usize;
                return poll.change(&conn.socket, Ready::IN | Ready::OUT, token).is_ok();
            }
        }
        !ready.contains(Ready::OUT) || self.stream(conn)
    }

    /// Answers whatever has come whole.
    fn answer_all(&mut self, conn: &mut Conn) -> bool {
        loop {
            let used = match self.answer_one(conn) {
                Some(0) => return true,
                Some(used) => used,
                None => return false,
            };
            conn.heard.drain(..used);
        }
    }

    /// How much of what was heard is answered; nothing if more must come, `None` if it is not understood.
    fn answer_one(&mut self, conn: &mut Conn) -> Option<usize> {
        let heard = &conn.heard;
        let (kind, answer, used) = match heard.first() {
            None => return Some(0),
            Some(&STREAM) => {
                conn.sent = Some(0);
                return Some(0);
            }
            Some(&ECHO) => (None, &[ECHO; ECHOED][..], 1),
            Some(&COUNTERS) => (None, &self.done.map(u64::to_be_bytes).concat()[..], 1),
            Some(b'G') => {
                let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") else { return Some(0) };
                (Some(1), &self.answer[..], end + 4)
            }
            Some(_) => {
                let length = record_length(heard).or((heard.len() < 5).then_some(5))?;
                if heard.len() < length {
                    return Some(0);
                }
                let known = self.hellos.iter().any(|hello| hello == &heard[..length]);
                (known.then_some(0), &self.flight[..], length)
            }
        };
        let said = say(&conn.socket, answer).ok()?;
        if let Some(kind) = kind {
            self.done[kind] += 1;
        }
        // What is asked for at once is small, and the client takes it: a socket without room is a fault of the bench.
        (said == answer.len()).then_some(used)
    }

    fn stream(&mut self, conn: &mut Conn) -> bool {
        let Some(sent) = &mut conn.sent else { return true };
        match say(&conn.socket, &self.stream[*sent..]) {
            Ok(taken) => {
                *sent = (*sent + taken) % PERIOD;
                true
            }
            Err(_) => false,
        }
    }
}

fn welcome(listener: &OwnedFd, poll: &Poll, conns: &mut Vec<Option<Conn>>) -> anyhow::Result<()> {
    while let Some(socket) = accept(listener) {
        let token = socket.as_raw_fd() as usize;
        poll.add(&socket, Ready::IN, token)?;
        conns.resize_with(conns.len().max(token + 1), || None);
        conns[token] = Some(Conn { socket, heard: Vec::new(), sent: None });
    }
    Ok(())
}

/// A for every name below `bench.test`: 127.0.0.1; nothing else exists (RFC 1035 section 4.1).
fn names(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        if let Some(answer) = answer(&query[..length]) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let question = query.get(12..)?;
    let end = question.iter().position(|byte| *byte == 0)?;
    let ours = question[..end].to_ascii_lowercase().ends_with(b"\x05bench\x04test");
    let question = question.get(..end + 5)?;
    let is_a = question[end + 1..end + 3] == [0, 1];
    // A response, recursion desired and available; NXDOMAIN for names of others.
    let flags = [0x81, if ours { 0x80 } else { 0x83 }];
    let counts = [0, 1, 0, u8::from(ours && is_a), 0, 0, 0, 0];
    let mut answer = [&query[..2], &flags, &counts, question].concat();
    if ours && is_a {
        // The question's name, A, IN, an hour.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}
