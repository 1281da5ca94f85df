//! The question: somebody wants to connect there. Who answers knows what may leave; nobody else here does.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;

use crate::caller::Process;
use crate::exec::Execution;
use crate::supervisor::connect::Attempt;

/// Decides what leaves.
pub trait Egress: Send + Sync + 'static {
    /// A confined thread wants to connect, and waits. This is called on one of few threads: whatever is slow goes elsewhere,
    /// and the answer is given there.
    fn connect(&self, request: Request, reply: Reply);

    /// Whether datagrams may go there: to a daemon of this machine that takes measurements, say. Whoever says yes lets anything
    /// go there that fits into one. This is asked for each socket that is connected there and each datagram that is sent there
    /// without, on the thread that answers: it has to be quick. What it is told is where they will go, in the form of
    /// [`Request::destination`].
    fn datagram(&self, destination: SocketAddr) -> bool {
        let _ = destination;
        false
    }

    /// A process is about to execute something; with a list that is enforced, something that is not on it. Nothing can be done
    /// about it here, and the process waits for the return.
    fn executes(&self, execution: Execution) {
        let _ = execution;
    }
}

impl<E: Egress> Egress for Arc<E> {
    fn connect(&self, request: Request, reply: Reply) {
        self.as_ref().connect(request, reply);
    }

    fn datagram(&self, destination: SocketAddr) -> bool {
        self.as_ref().datagram(destination)
    }

    fn executes(&self, execution: Execution) {
        self.as_ref().executes(execution);
    }
}

/// Who wants to go where, by TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to. Addresses that stand for others are given as what the kernel makes of them: mapped ones as IPv4, the unspecified
    /// address as loopback.
    pub destination: SocketAddr,
    /// Whether the thread would not wait for the connection: it expects an answer at once.
    pub nonblocking: bool,
    /// The thread that asks, as numbered in this process's PID namespace.
    pub tid: u32,
}

/// The answer to one request. Dropped without an answer, it refuses.
#[derive(Debug)]
pub struct Reply {
    attempt: Option<Box<Attempt>>,
}

impl Reply {
    pub(crate) fn new(attempt: Attempt) -> Self {
        Reply { attempt: Some(Box::new(attempt)) }
    }

    /// Who asks, read now. None if the thread has gone meanwhile, or nobody may look at it.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        self.attempt.as_ref()?.process()
    }

    /// Whether the thread still waits. A thread that was interrupted or killed does not.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.is_awaited())
    }

    /// The call fails with this error. ACCESS is what a firewall on the same machine gives; CONNREFUSED is what most programs
    /// retry least.
    pub fn refuse(mut self, errno: Errno) {
        if let Some(attempt) = self.attempt.take() {
            attempt.refuse(errno);
        }
    }

    /// The socket is connected where it was to go.
    pub fn direct(mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.direct();
        }
    }

    /// The socket is connected to this address instead: a proxy's listener on this machine, which accepts quickly. An IPv4
    /// address serves both families; an IPv6 one serves only IPv6 sockets.
    ///
    /// Once it is connected, and the thread has heard of it, `introduce` is told the connection's own address as the proxy
    /// sees it. The proxy may accept earlier than that: it has to wait for the introduction, and must take nothing that the
    /// connection itself carries for one, as its bytes are the app's.
    pub fn through(mut self, proxy: SocketAddr, introduce: impl FnOnce(SocketAddr) + Send + 'static) {
        if let Some(attempt) = self.attempt.take() {
            attempt.through(proxy, Box::new(introduce));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.refuse(Errno::ACCESS);
        }
    }
}
