//! The accept loop of every TCP server in the harness: one thread a connection, ended when the server is dropped.
//! It knows nothing of what is spoken on a connection.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use super::DEADLINE;

/// Accepts until dropped.
pub(crate) struct Listener {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    probes: Mutex<HashSet<SocketAddr>>,
    probe_accepted: Condvar,
}

impl Listener {
    /// Calls `arrived` in order of arrival for each connection, then `serve` on a thread of its own.
    pub(crate) fn spawn<A, S>(socket: TcpListener, arrived: A, serve: S) -> Self
    where
        A: Fn() + Send + 'static,
        S: Fn(TcpStream) + Send + Sync + 'static,
    {
        let addr = socket.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        let of_loop = Arc::clone(&shared);
        thread::spawn(move || accept_loop(&socket, &of_loop, &arrived, &Arc::new(serve)));
        Self { addr, shared }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns when each connection made before this call has been counted. The kernel accepts in order, so a
    /// connection of our own that came out of the queue proves that those before it did.
    pub(crate) fn settle(&self) {
        let mut probes = self.shared.probes.lock().unwrap_or_else(PoisonError::into_inner);
        // Made under the lock, so that the accept loop can't meet the probe before it is known as one.
        let probe = TcpStream::connect(self.addr).expect("a listener of the harness accepts");
        let own = probe.local_addr().expect("a connected socket has an address");
        probes.insert(own);
        let (probes, _) = self
            .shared
            .probe_accepted
            .wait_timeout_while(probes, DEADLINE, |probes| probes.contains(&own))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!probes.contains(&own), "the accept loop of {} stands still", self.addr);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the loop out of accept(2); when that fails, the loop is gone already.
        drop(TcpStream::connect(self.addr));
    }
}

fn accept_loop<S>(socket: &TcpListener, shared: &Shared, arrived: &impl Fn(), serve: &Arc<S>)
where
    S: Fn(TcpStream) + Send + Sync + 'static,
{
    while let Ok((stream, peer)) = socket.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        if shared.is_probe(peer) {
            continue;
        }
        arrived();
        let serve = Arc::clone(serve);
        thread::spawn(move || serve(stream));
    }
}

impl Shared {
    fn is_probe(&self, peer: SocketAddr) -> bool {
        let probe = self.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        if probe {
            self.probe_accepted.notify_all();
        }
        probe
    }
}
