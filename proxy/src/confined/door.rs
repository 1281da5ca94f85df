//! Where the sockets of a confined program are connected to: a listener on loopback that serves nobody who was not announced.
//!
//! Who comes is known by its source address, which the supervisor announces once the socket is connected; the
//! connection may be accepted before that. So the two halves wait for one another here, for a moment. Nothing that a
//! connection carries is taken for an announcement: its bytes are the program's.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, sleep};

use super::{Guest, Inquiry, names, serve};
use crate::connect::prepare;
use crate::limits::ACCEPT_BACK_OFF;
use crate::listener::{Gateway, Serving};

/// How long one half waits for the other: the supervisor announces within microseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most halves that wait. Whoever connects to the door unasked can fill it with streams, and loses those.
const MOST_WAITING: usize = 4096;

/// The door of one gateway.
pub struct Door {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    /// For sockets of IPv6, which may be bound to an address that has no way to IPv4's loopback; if there is IPv6 here.
    address_v6: Option<SocketAddr>,
    waiting: Mutex<HashMap<SocketAddr, (Instant, Half)>>,
    serving: Serving,
}

/// Whom the door expects.
enum Expected {
    /// A connection to somewhere.
    Guest(Box<Guest>),
    /// One to a nameserver.
    Asker(Inquiry),
}

/// Who has come so far.
enum Half {
    Announced(Expected),
    Stream(TcpStream),
}

impl Door {
    /// Opens a door on ports that the kernel chooses, on loopback. Must be called in the runtime.
    ///
    /// # Errors
    /// No port.
    pub async fn open(gateway: &Arc<Gateway>, serving: &Serving) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let listener_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.ok();
        let door = Arc::new(Self {
            gateway: Arc::clone(gateway),
            address: listener.local_addr()?,
            address_v6: listener_v6.as_ref().map(TcpListener::local_addr).transpose()?,
            waiting: Mutex::default(),
            serving: serving.clone(),
        });
        for listener in [Some(listener), listener_v6].into_iter().flatten() {
            tokio::spawn(Arc::clone(&door).accept(listener));
        }
        Ok(door)
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

    /// Announces whose connection comes from this address. Must be called in the runtime, or having entered it.
    pub fn expect(&self, from: SocketAddr, mut guest: Box<Guest>) {
        guest.comes_from(from);
        let met = self.meet(from, Half::Announced(Expected::Guest(guest)));
        self.welcome(met);
    }

    /// The same of a connection that was to go to a nameserver: its queries are answered here.
    pub fn expect_queries(&self, from: SocketAddr, inquiry: Inquiry) {
        let met = self.meet(from, Half::Announced(Expected::Asker(inquiry)));
        self.welcome(met);
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let accepting = async {
            let mut tick = interval(PATIENCE);
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, from)) => {
                            prepare(&stream);
                            let met = self.meet(from, Half::Stream(stream));
                            self.welcome(met);
                        }
                        Err(error) => {
                            self.gateway.observer.accept_failed(&error);
                            sleep(ACCEPT_BACK_OFF).await;
                        }
                    },
                    _ = tick.tick() => self.tidy(),
                }
            }
        };
        self.serving.close.run_until_cancelled(accepting).await;
    }

    /// Puts one half down, or finds the other.
    fn meet(&self, from: SocketAddr, half: Half) -> Option<(TcpStream, Expected)> {
        let mut waiting = self.waiting();
        match (waiting.remove(&from), half) {
            (Some((_, Half::Stream(stream))), Half::Announced(whom))
            | (Some((_, Half::Announced(whom))), Half::Stream(stream)) => Some((stream, whom)),
            // A port comes twice only when the first to use it has gone.
            (_, half) => {
                if waiting.len() < MOST_WAITING || matches!(half, Half::Announced(_)) {
                    waiting.insert(from, (Instant::now(), half));
                }
                None
            }
        }
    }

    fn welcome(&self, met: Option<(TcpStream, Expected)>) {
        let Some((stream, whom)) = met else { return };
        let close = self.serving.close.clone();
        let served: BoxFuture<'static, ()> = match whom {
            Expected::Guest(guest) => Box::pin(serve(*guest, stream)),
            Expected::Asker(inquiry) => Box::pin(names::serve(inquiry, stream)),
        };
        self.serving.tasks.spawn(async move { close.run_until_cancelled(served).await });
    }

    /// Forgets who waits for nobody.
    fn tidy(&self) {
        let mut gone = Vec::new();
        let mut waiting = self.waiting();
        let late: Vec<SocketAddr> =
            waiting.iter().filter(|(_, (since, _))| since.elapsed() > PATIENCE).map(|(from, _)| *from).collect();
        gone.extend(late.iter().filter_map(|from| waiting.remove(from)));
        drop(waiting);
        // Records are written outside the lock.
        drop(gone);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<SocketAddr, (Instant, Half)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}
