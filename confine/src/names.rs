//! The other question: what address has this name. DNS queries of the app by UDP end here; those by TCP are connections like
//! any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::caller::Process;
use crate::supervisor::datagram::Asker;

/// Answers DNS queries.
pub trait Names: Send + Sync + 'static {
    /// Whether somebody who sends a datagram there asks for a name: one of the nameservers that the app was told of.
    fn is_nameserver(&self, address: SocketAddr) -> bool;

    /// Whether this process itself asks whoever is bound there (the unspecified address stands for all): nobody who is held may
    /// take that place. By default it asks each nameserver.
    fn is_asked(&self, bound: SocketAddr) -> bool {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let meant = if bound.ip().is_unspecified() { &loopback[..] } else { &[bound.ip()] };
        meant.iter().any(|ip| self.is_nameserver(SocketAddr::new(*ip, bound.port())))
    }

    /// Whether such a query is refused without asking anybody. The app waits for the answer.
    fn refuses(&self, query: &Query) -> bool;

    /// A message was sent to a nameserver. This is called on one of few threads, and nobody waits for its return but the next
    /// query: whatever is slow goes elsewhere.
    fn query(&self, query: Query, answer: Answer);
}

impl<N: Names> Names for std::sync::Arc<N> {
    fn is_nameserver(&self, address: SocketAddr) -> bool {
        self.as_ref().is_nameserver(address)
    }

    fn is_asked(&self, bound: SocketAddr) -> bool {
        self.as_ref().is_asked(bound)
    }

    fn refuses(&self, query: &Query) -> bool {
        self.as_ref().refuses(query)
    }

    fn query(&self, query: Query, answer: Answer) {
        self.as_ref().query(query, answer);
    }
}

/// No names: every datagram is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Names for NoNames {
    fn is_nameserver(&self, _: SocketAddr) -> bool {
        false
    }

    fn refuses(&self, _: &Query) -> bool {
        true
    }

    fn query(&self, _: Query, _: Answer) {}
}

/// What was sent to a nameserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Whom it was sent to.
    pub nameserver: SocketAddr,
    /// The message as the app wrote it, of 12 bytes at least; it need not be DNS.
    pub message: Vec<u8>,
    /// Who asks: of a socket that was connected to the nameserver whoever connected it, else whoever sent. None if it was gone by
    /// then, or nobody may look at it.
    pub process: Option<Process>,
}

/// Where the answer goes. Dropped without one, the app hears nothing, as when a datagram is lost.
#[derive(Debug)]
pub struct Answer {
    asker: Asker,
}

impl Answer {
    pub(crate) fn new(asker: Asker) -> Self {
        Answer { asker }
    }

    /// Answers. How depends on how the app asked, so that both are needed:
    ///
    /// A socket that was connected to the nameserver receives `answer`, a whole DNS message.
    ///
    /// One that was not, as musl's, accepts only what comes from the nameserver's own address. So `instead` is sent to the real
    /// nameserver from the same port, and what that answers is what the app receives. For a name that is allowed it is the
    /// query, best written anew; for one that is refused, [`harmless_query`], which nameservers refuse by themselves. A resolver
    /// that compares the question of that answer with its own goes on waiting; so its call that sent the query failed, as if
    /// nobody listened there ([`Names::refuses`]).
    pub fn answer(self, answer: &[u8], instead: &[u8]) {
        self.asker.tell(answer, instead);
    }
}

/// A query with this id for a name that does not exist anywhere (`invalid.`, RFC 6761 section 6.4): an answer comes quickly, and
/// nothing of what the app asked leaves.
#[must_use]
pub fn harmless_query(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    // Header (RFC 1035 section 4.1.1): recursion desired, one question. Then the name, type A, class IN.
    let mut query = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x07invalid\0\0\x01\0\x01");
    query
}
