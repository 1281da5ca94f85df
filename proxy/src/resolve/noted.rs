//! The sockets of DNS, told as they are made: who watches this machine's sockets knows egret's own by it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioRuntimeProvider};
use rustix::net::sockopt::socket_cookie;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

/// For a connection to a server, if hickory does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// Is told the number of each socket (`SO_COOKIE`, socket(7)).
pub(super) type Note = Arc<dyn Fn(u64) + Send + Sync>;

/// Tokio, with a note of each socket.
#[derive(Clone)]
pub(super) struct Noted {
    tokio: TokioRuntimeProvider,
    note: Note,
}

impl Noted {
    pub(super) fn new(note: Note) -> Self {
        Self { tokio: TokioRuntimeProvider::default(), note }
    }
}

type Soon<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for Noted {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = <TokioRuntimeProvider as RuntimeProvider>::Timer;
    type Udp = <TokioRuntimeProvider as RuntimeProvider>::Udp;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(&self, server: SocketAddr, from: Option<SocketAddr>, most: Option<Duration>) -> Soon<Self::Tcp> {
        let note = Arc::clone(&self.note);
        // Whoever fails to connect has sent something, too.
        Box::pin(async move {
            let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            let _ = socket_cookie(&socket).map(|cookie| note(cookie));
            if let Some(from) = from {
                socket.bind(from)?;
            }
            socket.set_nodelay(true)?;
            let connected = timeout(most.unwrap_or(CONNECT), socket.connect(server)).await;
            connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(&self, from: SocketAddr, server: SocketAddr) -> Soon<Self::Udp> {
        let (binding, note) = (self.tokio.bind_udp(from, server), Arc::clone(&self.note));
        Box::pin(async move {
            let socket: UdpSocket = binding.await?;
            let _ = socket_cookie(&socket).map(|cookie| note(cookie));
            Ok(socket)
        })
    }
}
