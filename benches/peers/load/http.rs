//! Plain HTTP requests, one after the other on connections that are kept where the proxy keeps them. A request counts when
//! its answer is a 200 with the whole body.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::{Span, done_by_origin, quantile};
use crate::cost::Meter;
use crate::socket::{Poll, Ready, dial, hear, say};
use crate::wire::{BODY, HTTP_PORT, loopback};

pub(crate) struct Measured {
    pub(crate) a_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) cpu_each: f64,
    pub(crate) elsewhere: f64,
    /// Requests on one connection, on average.
    pub(crate) kept: f64,
    pub(crate) made: usize,
}

struct Client {
    socket: OwnedFd,
    heard: Vec<u8>,
    said: usize,
    began: Instant,
}

struct Clients {
    to: SocketAddr,
    request: Vec<u8>,
    poll: Poll,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    times: Vec<Duration>,
    made: usize,
    dialled: usize,
}

/// What became of the answer.
enum Answer {
    More,
    /// Whole, and whether the connection stays.
    Whole(bool),
}

const WAIT: Duration = Duration::from_millis(500);

/// Measures one proxy; `names_host` says whether a request has the host before its path.
pub(crate) fn measure(web: (u16, bool), host: &str, proxy: Option<u32>, at_once: usize, span: Span) -> anyhow::Result<Measured> {
    let before = done_by_origin()?[1];
    let mut clients = Clients::new(web, host, at_once)?;
    clients.run(span.warm_up)?;
    clients.times.clear();
    let meter = Meter::start(proxy);
    clients.run(span.counted)?;
    let used = meter.read();
    let answered = done_by_origin()?[1] - before;
    ensure!(answered >= clients.made as u64, "the origin answered {answered} of {} requests", clients.made);
    let count = clients.times.len();
    ensure!(count > 0, "no request was answered");
    Ok(Measured {
        a_second: count as f64 / used.time.as_secs_f64(),
        p50: quantile(&mut clients.times, 0.5),
        p99: quantile(&mut clients.times, 0.99),
        cpu_each: used.cpu * 1e6 / count as f64,
        elsewhere: used.elsewhere,
        kept: clients.made as f64 / clients.dialled as f64,
        made: clients.made,
    })
}

/// The request that is made.
pub(crate) fn request(host: &str, names_host: bool) -> Vec<u8> {
    let before = if names_host { format!("http://{host}:{HTTP_PORT}") } else { String::new() };
    format!("GET {before}/ HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n").into_bytes()
}

impl Clients {
    fn new((port, names_host): (u16, bool), host: &str, at_once: usize) -> anyhow::Result<Self> {
        let request = request(host, names_host);
        let (clients, times, buffer) = (Vec::new(), Vec::new(), vec![0; 64 << 10]);
        let mut this = Self { to: loopback(port), request, poll: Poll::new()?, clients, buffer, times, made: 0, dialled: 0 };
        for token in 0..at_once {
            let client = this.dial(token)?;
            this.clients.push(client);
        }
        Ok(this)
    }

    fn dial(&mut self, token: usize) -> anyhow::Result<Client> {
        let began = Instant::now();
        let socket = dial(self.to)?;
        let said = say(&socket, &self.request)?;
        self.poll.add(&socket, if said == 0 { Ready::IN | Ready::OUT } else { Ready::IN } | Ready::ET, token)?;
        self.dialled += 1;
        Ok(Client { socket, heard: Vec::new(), said, began })
    }

    fn run(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for (token, _) in self.poll.wait(WAIT)? {
                self.attend(token)?;
            }
        }
        Ok(())
    }

    fn attend(&mut self, token: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[token];
        if client.said < self.request.len() {
            client.said += say(&client.socket, &self.request[client.said..])?;
        }
        match hear(&client.socket, &mut self.buffer) {
            Ok(None) => return Ok(()),
            // Closed between two requests, as it may be.
            Ok(Some([])) | Err(_) if client.heard.is_empty() => {
                self.clients[token] = self.dial(token)?;
                return Ok(());
            }
            Ok(Some([])) | Err(_) => bail!("the answer breaks off"),
            Ok(Some(heard)) => client.heard.extend_from_slice(heard),
        }
        let Answer::Whole(stays) = answer(&client.heard)? else { return Ok(()) };
        self.times.push(client.began.elapsed());
        self.made += 1;
        if stays {
            client.heard.clear();
            client.began = Instant::now();
            client.said = say(&client.socket, &self.request).unwrap_or(0);
        } else {
            self.clients[token] = self.dial(token)?;
        }
        Ok(())
    }
}

/// Judges what has come of an answer. Its length is known, so no proxy has a reason to send it in pieces.
fn answer(heard: &[u8]) -> anyhow::Result<Answer> {
    let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(Answer::More) };
    let (head, body) = (&heard[..end], &heard[end + 4..]);
    ensure!(head.get(8..12) == Some(b" 200"), "{}", String::from_utf8_lossy(head).lines().next().unwrap_or_default());
    ensure!(BODY.starts_with(body), "not the body that was sent");
    if body.len() < BODY.len() {
        return Ok(Answer::More);
    }
    let says = |what: &[u8]| head.windows(what.len()).any(|part| part.eq_ignore_ascii_case(what));
    let stays = if head.starts_with(b"HTTP/1.0") { says(b"keep-alive") } else { !says(b"connection: close") };
    Ok(Answer::Whole(stays))
}
