//! The resolver that egret asks in a test: answers for the names it was told about, over UDP, TCP and TLS, and a
//! list of every query that reached it. It recurses to nobody; a name it was not told about does not exist.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::listener::Listener;
use super::seen::Seen;
use super::{DEADLINE, Identity};

/// A DNS message is at least its header; anything shorter is a probe of our own.
const HEADER: usize = 12;

/// CNAMEs followed before an answer is sent as it stands, so that a loop ends.
const LONGEST_CHAIN: usize = 8;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// One query that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// Lower-cased, without the final dot.
    pub(crate) name: String,
    /// `A`, `AAAA`, …
    pub(crate) kind: String,
    pub(crate) transport: Transport,
}

/// A running server on 127.0.0.1, stopped when dropped.
pub(crate) struct DnsServer {
    udp: Arc<UdpSocket>,
    tcp: Listener,
    tls: Option<Listener>,
    zone: Arc<Zone>,
}

struct Zone {
    entries: Mutex<HashMap<String, Entry>>,
    ttl: AtomicU32,
    queries: Seen<Query>,
}

#[derive(Clone)]
enum Entry {
    /// One list for each time that the name is asked for in a family; the last one stays.
    Sequence(Vec<Vec<IpAddr>>),
    Cname(String),
    Truncated(Vec<IpAddr>),
    Nxdomain,
    Servfail,
    Silent,
}

impl DnsServer {
    pub(crate) fn new() -> Self {
        Self::start(None)
    }

    /// The same answers over DNS over TLS too, at [`DnsServer::tls_port`].
    pub(crate) fn with_tls(identity: &Identity) -> Self {
        Self::start(Some(identity.server_config()))
    }

    /// Where UDP and TCP are answered, in the form that `dns: { upstream: … }` takes.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.tcp.addr()
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr().port()
    }

    pub(crate) fn tls_port(&self) -> u16 {
        self.tls.as_ref().expect("the server was started with TLS").addr().port()
    }

    /// A and AAAA records. The family of which there is no address gets an empty answer.
    pub(crate) fn answers(&self, name: &str, addresses: &[IpAddr]) -> &Self {
        self.sequence(name, vec![addresses.to_vec()])
    }

    /// Another list each time: the n-th A query gets the n-th list's IPv4 addresses, and AAAA queries are counted
    /// apart. A query that is sent again counts again; the last list stays.
    pub(crate) fn sequence(&self, name: &str, lists: Vec<Vec<IpAddr>>) -> &Self {
        self.set(name, Entry::Sequence(lists))
    }

    /// An alias. What is known about the target comes along in the answer, as from a recursive resolver.
    pub(crate) fn cname(&self, name: &str, target: &str) -> &Self {
        self.set(name, Entry::Cname(key(target)))
    }

    /// No more than the truncation bit over UDP, everything over TCP and TLS.
    pub(crate) fn truncated(&self, name: &str, addresses: &[IpAddr]) -> &Self {
        self.set(name, Entry::Truncated(addresses.to_vec()))
    }

    /// Forgets a name. Names that were never told about are answered so anyway.
    pub(crate) fn nxdomain(&self, name: &str) -> &Self {
        self.set(name, Entry::Nxdomain)
    }

    pub(crate) fn servfail(&self, name: &str) -> &Self {
        self.set(name, Entry::Servfail)
    }

    /// Never answers for this name.
    pub(crate) fn silent(&self, name: &str) -> &Self {
        self.set(name, Entry::Silent)
    }

    /// The TTL of all answers from now on, in seconds; 1 if never set.
    pub(crate) fn ttl(&self, seconds: u32) -> &Self {
        self.zone.ttl.store(seconds, Ordering::SeqCst);
        self
    }

    /// Every query so far; all those over UDP that were sent before this call.
    pub(crate) fn queries(&self) -> Vec<Query> {
        self.settle();
        self.zone.queries.all()
    }

    pub(crate) fn queries_for(&self, name: &str) -> Vec<Query> {
        let name = key(name);
        self.queries().into_iter().filter(|query| query.name == name).collect()
    }

    pub(crate) fn total(&self) -> usize {
        self.queries().len()
    }

    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let (udp, tcp) = bind_both();
        let udp = Arc::new(udp);
        let zone = Arc::new(Zone::new());
        let (of_udp, of_tcp, of_tls) = (Arc::clone(&zone), Arc::clone(&zone), Arc::clone(&zone));
        let socket = Arc::clone(&udp);
        thread::spawn(move || serve_udp(&socket, &of_udp));
        let tcp = Listener::spawn(tcp, || (), move |stream| drop(serve_stream(stream, Transport::Tcp, &of_tcp)));
        let tls = tls.map(|config| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
            Listener::spawn(
                socket,
                || (),
                move |stream| {
                    let session = ServerConnection::new(Arc::clone(&config)).expect("the configuration is complete");
                    drop(serve_stream(StreamOwned::new(session, stream), Transport::Tls, &of_tls));
                },
            )
        });
        Self { udp, tcp, tls, zone }
    }

    fn set(&self, name: &str, entry: Entry) -> &Self {
        self.zone.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(key(name), entry);
        self
    }

    /// Sends a probe through the socket's queue and waits for its return, so that what was before it is counted.
    fn settle(&self) {
        let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the kernel has a free port");
        probe.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
        probe.send_to(b"?", self.addr()).expect("loopback takes a datagram");
        probe.recv(&mut [0; HEADER]).expect("the DNS server's thread runs");
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        // An empty datagram from the socket to itself ends its thread; when it can't be sent, nothing is lost but
        // that thread until the tests end.
        drop(self.udp.send_to(b"", self.addr()));
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Zone) {
    let mut buffer = [0; 4096];
    while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
        let answer = match count {
            0 => return,
            1..HEADER => Some(buffer[..count].to_vec()),
            _ => zone.answer(&buffer[..count], Transport::Udp),
        };
        if let Some(answer) = answer {
            // A client that is gone misses nothing.
            drop(socket.send_to(&answer, peer));
        }
    }
}

/// Messages with their length before them (RFC 1035 section 4.2.2), until the client closes.
fn serve_stream(mut stream: impl Read + Write, transport: Transport, zone: &Zone) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        if let Some(answer) = zone.answer(&query, transport) {
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), &answer[..]].concat())?;
            stream.flush()?;
        }
    }
}

impl Zone {
    fn new() -> Self {
        Self { entries: Mutex::default(), ttl: AtomicU32::new(1), queries: Seen::new() }
    }

    /// The encoded answer, or `None` where silence is meant.
    fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).expect("egret sends DNS messages");
        let question = query.queries.first().expect("a query has a question").clone();
        let turn = self.note(&key(&question.name.to_ascii()), question.query_type, transport);
        let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = query.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        self.resolve(&mut message, question.name.clone(), question.query_type, transport, turn)?;
        message.add_query(question);
        Some(message.to_vec().expect("an answer of the harness can be encoded"))
    }

    /// Records the query and returns how often the same question came before.
    fn note(&self, name: &str, kind: RecordType, transport: Transport) -> usize {
        let query = Query { name: name.to_owned(), kind: kind.to_string(), transport };
        let same = |other: &&Query| other.name == query.name && other.kind == query.kind;
        let turn = self.queries.all().iter().filter(same).count();
        self.queries.push(query);
        turn
    }

    /// Fills in the answer for `name`, aliases followed. `None` where silence is meant.
    fn resolve(&self, message: &mut Message, mut name: Name, kind: RecordType, transport: Transport, turn: usize) -> Option<()> {
        for _ in 0..LONGEST_CHAIN {
            match self.entry(&name) {
                Entry::Silent => return None,
                Entry::Servfail => message.metadata.response_code = ResponseCode::ServFail,
                Entry::Nxdomain => self.deny(message, &name),
                Entry::Truncated(_) if transport == Transport::Udp => message.metadata.truncation = true,
                Entry::Truncated(addresses) => self.fill(message, &name, kind, &addresses),
                Entry::Sequence(lists) => self.fill(message, &name, kind, list_of_turn(&lists, turn)),
                Entry::Cname(target) => {
                    name = self.follow(message, &name, &target);
                    continue;
                }
            }
            break;
        }
        Some(())
    }

    fn entry(&self, name: &Name) -> Entry {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&key(&name.to_ascii())).cloned().unwrap_or(Entry::Nxdomain)
    }

    /// The addresses of the family asked for; an empty answer says that the name exists without one.
    fn fill(&self, message: &mut Message, name: &Name, kind: RecordType, addresses: &[IpAddr]) {
        let of_kind = addresses.iter().filter_map(|address| match (kind, address) {
            (RecordType::A, IpAddr::V4(ip)) => Some(RData::A(A(*ip))),
            (RecordType::AAAA, IpAddr::V6(ip)) => Some(RData::AAAA(AAAA(*ip))),
            _ => None,
        });
        let records: Vec<Record> = of_kind.map(|data| self.record(name, data)).collect();
        if records.is_empty() {
            message.add_authority(self.start_of_authority(name));
        }
        message.add_answers(records);
    }

    fn deny(&self, message: &mut Message, name: &Name) {
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(self.start_of_authority(name));
    }

    fn follow(&self, message: &mut Message, name: &Name, target: &str) -> Name {
        let target = Name::from_ascii(format!("{target}.")).expect("a test's alias is a name");
        message.add_answer(self.record(name, RData::CNAME(CNAME(target.clone()))));
        target
    }

    /// What a resolver needs to know how long a name stays absent (RFC 2308).
    fn start_of_authority(&self, name: &Name) -> Record {
        let ttl = self.ttl.load(Ordering::SeqCst);
        let zone = name.base_name();
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86400, ttl);
        self.record(&zone, RData::SOA(soa))
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttl.load(Ordering::SeqCst), data)
    }
}

fn list_of_turn(lists: &[Vec<IpAddr>], turn: usize) -> &[IpAddr] {
    lists.get(turn).or(lists.last()).map_or(&[], Vec::as_slice)
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// UDP and TCP on the same port, as one resolver address promises. The kernel picks for one of them only, so the
/// other may be taken.
pub(crate) fn bind_both() -> (UdpSocket, TcpListener) {
    let attempt = |_| {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
        Some((udp, tcp))
    };
    (0..20).find_map(attempt).expect("a port that is free for UDP and TCP")
}
