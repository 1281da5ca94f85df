//! One tunnel as a client makes it: connect, ask the proxy in its protocol, say a ClientHello, read the far end's flight. It
//! counts only when every byte of that is right.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::socket::{Poll, Ready, dial, hear, say};
use crate::wire::{FLIGHT, TLS_PORT, client_hello, flight, loopback};

/// How a client gets to the far end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Direct,
    Connect,
    Socks5,
    /// TLS without a word before it, as if it were redirected: the name in it is the request.
    Sni,
}

/// All that every tunnel of a measurement says.
pub(crate) struct Route {
    pub(crate) to: SocketAddr,
    way: Way,
    request: Vec<u8>,
    hello: Vec<u8>,
    flight: Vec<u8>,
}

const GREETING: [u8; 3] = [5, 1, 0];

impl Route {
    pub(crate) fn new(way: Way, port: u16, name: &str) -> Self {
        Self::with_sni(way, port, name, TLS_PORT, name)
    }

    /// Asks for one name and port, and shows another in its ClientHello.
    pub(crate) fn with_sni(way: Way, port: u16, name: &str, target: u16, sni: &str) -> Self {
        let request = match way {
            Way::Direct | Way::Sni => Vec::new(),
            Way::Connect => format!("CONNECT {name}:{target} HTTP/1.1\r\nHost: {name}:{target}\r\n\r\n").into_bytes(),
            Way::Socks5 => {
                let length = u8::try_from(name.len()).expect("a short name");
                [&[5, 1, 0, 3, length], name.as_bytes(), &target.to_be_bytes()].concat()
            }
        };
        Self { to: loopback(port), way, request, hello: client_hello(sni), flight: flight() }
    }

    /// What the client says in this step.
    fn words(&self, step: Step) -> &[u8] {
        match step {
            Step::Ask if self.way == Way::Socks5 => &GREETING,
            Step::Ask | Step::AskAgain => &self.request,
            Step::Hello => &self.hello,
            Step::Proven => &[],
        }
    }
}

/// What is being said, or was said and awaits its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The request, or SOCKS's greeting.
    Ask,
    /// SOCKS's request.
    AskAgain,
    Hello,
    Proven,
}

pub(crate) struct Tunnel {
    pub(crate) socket: OwnedFd,
    step: Step,
    said: usize,
    heard: Vec<u8>,
    began: Instant,
    /// When the proxy had said yes; where it says nothing of its own, when the far end's flight had come.
    pub(crate) setup: Duration,
}

impl Tunnel {
    /// Connects and begins to speak; `token` is told when something comes.
    pub(crate) fn begin(route: &Route, poll: &Poll, token: usize) -> anyhow::Result<Self> {
        let began = Instant::now();
        let socket = dial(route.to).context("the proxy cannot be reached")?;
        let step = if route.request.is_empty() { Step::Hello } else { Step::Ask };
        let mut tunnel = Self { socket, step, said: 0, heard: Vec::new(), began, setup: Duration::ZERO };
        tunnel.speak(route)?;
        let wants = if tunnel.has_spoken(route) { Ready::IN } else { Ready::IN | Ready::OUT };
        poll.add(&tunnel.socket, wants | Ready::ET, token)?;
        Ok(tunnel)
    }

    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.step == Step::Proven
    }

    fn has_spoken(&self, route: &Route) -> bool {
        self.said == route.words(self.step).len()
    }

    fn speak(&mut self, route: &Route) -> anyhow::Result<()> {
        self.said += say(&self.socket, &route.words(self.step)[self.said..]).context("the proxy hung up")?;
        Ok(())
    }

    /// Goes on as far as it can; whether the tunnel is proven now.
    pub(crate) fn go_on(&mut self, route: &Route, buffer: &mut [u8]) -> anyhow::Result<bool> {
        if !self.has_spoken(route) {
            self.speak(route)?;
        }
        // As the proxy answers in one piece, one call is enough; a second would only say that nothing more is there.
        loop {
            let full = buffer.len();
            let got = match hear(&self.socket, buffer).context("the connection broke")? {
                None => return Ok(false),
                Some([]) => bail!("closed after {}", String::from_utf8_lossy(&self.heard)),
                Some(heard) => {
                    self.heard.extend_from_slice(heard);
                    heard.len()
                }
            };
            while self.step_done(route)? {}
            if self.step == Step::Proven || got < full {
                return Ok(self.step == Step::Proven);
            }
        }
    }

    /// Takes one whole answer, if it is there, and says what follows.
    fn step_done(&mut self, route: &Route) -> anyhow::Result<bool> {
        let (length, next) = match self.step {
            Step::Proven => {
                ensure!(self.heard.is_empty(), "more came than the far end says");
                return Ok(false);
            }
            Step::Hello => (self.flight(route)?, Step::Proven),
            Step::Ask if route.way == Way::Socks5 => (self.method()?, Step::AskAgain),
            Step::Ask => (self.head()?, Step::Hello),
            Step::AskAgain => (self.reply()?, Step::Hello),
        };
        let Some(length) = length else { return Ok(false) };
        self.heard.drain(..length);
        (self.step, self.said) = (next, 0);
        match next {
            Step::Hello => self.setup = self.age(),
            Step::Proven if route.request.is_empty() => self.setup = self.age(),
            Step::Proven | Step::Ask | Step::AskAgain => {}
        }
        self.speak(route)?;
        Ok(true)
    }

    fn flight(&self, route: &Route) -> anyhow::Result<Option<usize>> {
        let heard = &self.heard[..self.heard.len().min(FLIGHT)];
        ensure!(route.flight.starts_with(heard), "not the far end's flight: {:02x?}", &heard[..heard.len().min(16)]);
        Ok((heard.len() == FLIGHT).then_some(FLIGHT))
    }

    fn head(&self) -> anyhow::Result<Option<usize>> {
        let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&self.heard[..end]);
        ensure!(line.get(8..12) == Some(" 200"), "{}", line.lines().next().unwrap_or_default());
        Ok(Some(end + 4))
    }

    fn method(&self) -> anyhow::Result<Option<usize>> {
        match self.heard[..] {
            [5, 0, ..] => Ok(Some(2)),
            [_, _, ..] => bail!("SOCKS method {:?}", &self.heard[..2]),
            _ => Ok(None),
        }
    }

    fn reply(&self) -> anyhow::Result<Option<usize>> {
        let length = match self.heard[..] {
            [5, 0, _, 1, ..] => 10,
            [5, 0, _, 4, ..] => 22,
            [5, 0, _, 3, length, ..] => 7 + usize::from(length),
            [_, code, ..] if code != 0 => bail!("SOCKS reply {code}"),
            _ => return Ok(None),
        };
        Ok((self.heard.len() >= length).then_some(length))
    }
}

/// How many are made at the same time where only the result counts.
const AT_ONCE: usize = 32;
/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens so many tunnels and keeps them.
pub(crate) fn open(route: &Route, count: usize) -> anyhow::Result<Vec<Tunnel>> {
    let mut poll = Poll::new()?;
    let mut buffer = vec![0; 64 << 10];
    let mut tunnels: Vec<Tunnel> = Vec::with_capacity(count);
    let (mut proven, mut last) = (0, Instant::now());
    while proven < count {
        while tunnels.len() < count && tunnels.len() - proven < AT_ONCE {
            tunnels.push(Tunnel::begin(route, &poll, tunnels.len())?);
        }
        for (token, _) in poll.wait(PATIENCE / 10)? {
            let tunnel = &mut tunnels[token];
            if !tunnel.is_proven() && tunnel.go_on(route, &mut buffer).with_context(|| format!("tunnel {}", token + 1))? {
                proven += 1;
                last = Instant::now();
            }
        }
        ensure!(last.elapsed() < PATIENCE, "{proven} of {count} tunnels, then nothing for {PATIENCE:?}");
    }
    Ok(tunnels)
}
