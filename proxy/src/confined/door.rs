//! Where the sockets of a confined program are connected to: a listener on loopback that serves nobody who was not announced.
//!
//! Who comes is known by its source address, which the supervisor announces once the socket is connected; the
//! connection may be accepted before that. So the two halves wait for one another here, for a moment. Nothing that a
//! connection carries is taken for an announcement: its bytes are the program's.
//!
//! An announcement is what has the door accept. The kernel is not asked to tell of connections: it would wake a thread of the
//! runtime in the middle of a connect(2), which would have to wait for that thread where processors are few.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{sleep, timeout};

use super::{Guest, Inquiry, names, serve};
use crate::connect::prepare;
use crate::limits::ACCEPT_BACK_OFF;
use crate::listener::{Gateway, Serving};

/// How long one half waits for the other: the supervisor announces within microseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the door looks who came unannounced.
const GLANCE: Duration = Duration::from_millis(500);
/// How soon it looks again for somebody who was announced, and is not there: the kernel may finish a handshake a moment later on
/// the listener's side.
const SOON: Duration = Duration::from_millis(1);
/// The most halves of a kind that wait. Whoever connects to the door unasked can fill it with streams, and loses those.
const MOST_WAITING: usize = 4096;
/// How many are accepted in a row, and the most that wait to be.
const MOST_AT_ONCE: usize = 128;
const BACKLOG: i32 = 4096;

/// The door of one gateway.
pub struct Door {
    address: SocketAddr,
    /// For sockets of IPv6, which may be bound to an address that has no way to IPv4's loopback; if there is IPv6 here.
    address_v6: Option<SocketAddr>,
    announce: Sender<(SocketAddr, Expected)>,
}

/// Whom the door expects.
enum Expected {
    /// A connection to somewhere.
    Guest(Box<Guest>),
    /// One to a nameserver.
    Asker(Inquiry),
}

/// Who attends to the door.
struct Attendant {
    gateway: Arc<Gateway>,
    serving: Serving,
    listeners: Vec<TcpListener>,
    announced: Receiver<(SocketAddr, Expected)>,
    /// Who was announced and has not come, and who came and was not announced; since when.
    expected: HashMap<SocketAddr, (Instant, Expected)>,
    came: HashMap<SocketAddr, (Instant, OwnedFd)>,
}

/// Who is accepted: whoever is there, or only until nobody is expected any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accept {
    Anybody,
    Expected,
}

impl Door {
    /// Opens a door on ports that the kernel chooses, on loopback. Must be called in the runtime.
    ///
    /// # Errors
    /// No port.
    pub fn open(gateway: &Arc<Gateway>, serving: &Serving) -> io::Result<Self> {
        let listener = listen(Ipv4Addr::LOCALHOST.into())?;
        let listener_v6 = listen(Ipv6Addr::LOCALHOST.into()).ok();
        let (announce, announced) = channel(MOST_WAITING);
        let address = listener.local_addr()?;
        let address_v6 = listener_v6.as_ref().map(TcpListener::local_addr).transpose()?;
        let attendant = Attendant {
            gateway: Arc::clone(gateway),
            serving: serving.clone(),
            listeners: [Some(listener), listener_v6].into_iter().flatten().collect(),
            announced,
            expected: HashMap::new(),
            came: HashMap::new(),
        };
        let close = serving.close.clone();
        tokio::spawn(async move { close.run_until_cancelled(attendant.attend()).await });
        Ok(Self { address, address_v6, announce })
    }

    /// Where it is, for a socket that was to be connected there.
    #[must_use]
    pub fn address_for(&self, destination: SocketAddr) -> SocketAddr {
        self.address_v6.filter(|_| destination.is_ipv6()).unwrap_or(self.address)
    }

    /// Whether it is on this port.
    #[must_use]
    pub fn is_on(&self, port: u16) -> bool {
        [Some(self.address), self.address_v6].into_iter().flatten().any(|address| address.port() == port)
    }

    /// Announces whose connection comes from this address.
    pub fn expect(&self, from: SocketAddr, mut guest: Box<Guest>) {
        guest.comes_from(from);
        // If too many wait it ends here, and says so in its record.
        let _ = self.announce.try_send((from, Expected::Guest(guest)));
    }

    /// The same of a connection that was to go to a nameserver: its queries are answered here.
    pub fn expect_queries(&self, from: SocketAddr, inquiry: Inquiry) {
        let _ = self.announce.try_send((from, Expected::Asker(inquiry)));
    }
}

fn listen(on: IpAddr) -> io::Result<TcpListener> {
    let address = SocketAddr::new(on, 0);
    let listener = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    listener.bind(&address.into())?;
    // Whoever connects from now on inherits this.
    prepare(&listener);
    listener.listen(BACKLOG)?;
    Ok(listener.into())
}

impl Attendant {
    async fn attend(mut self) {
        let mut glanced = Instant::now();
        loop {
            let patience = if self.expected.is_empty() { GLANCE } else { SOON };
            if let Ok(Some((from, whom))) = timeout(patience, self.announced.recv()).await {
                self.expect(from, whom);
            }
            self.accept(Accept::Expected).await;
            if glanced.elapsed() >= GLANCE {
                self.accept(Accept::Anybody).await;
                self.forget_late();
                glanced = Instant::now();
            }
        }
    }

    /// Who is expected may be here already.
    fn expect(&mut self, from: SocketAddr, whom: Expected) {
        match self.came.remove(&from) {
            Some((_, stream)) => self.welcome(stream, whom),
            None => drop(self.expected.insert(from, (Instant::now(), whom))),
        }
    }

    async fn accept(&mut self, accept: Accept) {
        for listener in std::mem::take(&mut self.listeners) {
            let accepted = self.accept_from(&listener, accept);
            self.listeners.push(listener);
            if let Err(error) = accepted {
                self.gateway.observer.accept_failed(&error);
                sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }

    /// Accepts who is there, for as long as it is wanted. Who was not announced waits for that.
    fn accept_from(&mut self, listener: &TcpListener, accept: Accept) -> io::Result<()> {
        for _ in 0..MOST_AT_ONCE {
            if accept == Accept::Expected && self.expected.is_empty() {
                break;
            }
            let (stream, from) = match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((stream, from)) => (stream, from.and_then(|from| SocketAddr::try_from(from).ok())),
                Err(Errno::WOULDBLOCK) => break,
                // Who left before being accepted.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Some(from) = from else { continue };
            match self.expected.remove(&from) {
                Some((_, whom)) => self.welcome(stream, whom),
                // Who came first from a port is who is announced first, even if it has gone since.
                None if self.came.len() < MOST_WAITING => drop(self.came.entry(from).or_insert((Instant::now(), stream))),
                None => {}
            }
        }
        Ok(())
    }

    fn welcome(&self, stream: OwnedFd, whom: Expected) {
        let Ok(stream) = TcpStream::from_std(stream.into()) else { return };
        let close = self.serving.close.clone();
        let served: BoxFuture<'static, ()> = match whom {
            Expected::Guest(guest) => Box::pin(serve(*guest, stream)),
            Expected::Asker(inquiry) => Box::pin(names::serve(inquiry, stream)),
        };
        self.serving.tasks.spawn(async move { close.run_until_cancelled(served).await });
    }

    /// Forgets who waits for nobody.
    fn forget_late(&mut self) {
        self.expected.retain(|_, (since, _)| since.elapsed() <= PATIENCE);
        self.came.retain(|_, (since, _)| since.elapsed() <= PATIENCE);
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}
