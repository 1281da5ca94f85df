//! The size and time limits of a connection, each with its reason. Nothing in this crate waits, queues or buffers
//! without one of these; the lengths that a protocol itself fixes stand with its reader.

use std::time::Duration;

/// Limits that a program may set; the defaults are for a sidecar with 64 MB of memory.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at one time. Further clients are told so (HTTP 503, SOCKS 1) and recorded.
    pub connections: usize,
    /// Connections at one time that have not yet got as far as relaying. Further ones wait in the listen backlog,
    /// so that slow clients can hold no more memory than this many heads and hellos.
    pub handshakes: usize,
    /// From accept to a whole request: first byte, SOCKS dialogue, HTTP head. A trickled byte does not extend it.
    pub request: Duration,
    /// From the answer to a whole first flight, or from its first byte where the client may be silent.
    pub first_flight: Duration,
    /// One resolution with all its retries. Below 5 s, so that the client hears of it within 5 s.
    pub dns: Duration,
    /// All addresses of one resolution: the whole dial.
    pub connect: Duration,
    /// One address, while others wait their turn.
    pub connect_one: Duration,
    /// Head start of one address before the next is tried beside it (RFC 8305 section 5: 250 ms).
    pub connect_stagger: Duration,
    /// Silence in both directions of a tunnel; long enough for server-sent events and WebSockets without pings.
    pub idle: Duration,
    /// Silence after one side has ended: nobody waits an hour for a peer that is half gone.
    pub half_closed_idle: Duration,
    /// The longest life of a tunnel after one side has ended, however busy the other is.
    pub half_closed: Duration,
    /// From the head of a forwarded request to the first octet of its content, if it has any.
    pub content: Duration,
    /// A keep-alive HTTP connection waits this long for the whole head of its next request.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            handshakes: 1_024,
            request: Duration::from_secs(10),
            first_flight: Duration::from_secs(10),
            dns: Duration::from_millis(4_500),
            connect: Duration::from_secs(10),
            connect_one: Duration::from_secs(5),
            connect_stagger: Duration::from_millis(250),
            idle: Duration::from_secs(3_600),
            half_closed_idle: Duration::from_secs(60),
            half_closed: Duration::from_secs(3_600),
            content: Duration::from_secs(60),
            keep_alive: Duration::from_secs(60),
        }
    }
}

/// The longest HTTP request head in octets; longer ones are answered 431.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// The most header fields in one head.
pub(crate) const MAX_HEADERS: usize = 100;
/// The longest method in octets; the longest registered one has 17.
pub(crate) const MAX_METHOD: usize = 32;
/// The longest extensions of one chunk in octets; nobody uses them.
pub(crate) const MAX_CHUNK_LINE: usize = 256;
/// The longest trailers of one message in octets. They are read past and dropped.
pub(crate) const MAX_TRAILERS: usize = 4 * 1024;
/// The longest fields of an upstream's answer in octets.
pub(crate) const MAX_ANSWER_HEAD: usize = 48 * 1024;
/// The most interim answers (100, 103) to one forwarded request.
pub(crate) const MAX_INTERIM: usize = 16;
/// What a client may say while it waits for its WebSocket, in octets, before nothing more is read.
pub(crate) const MAX_HELD: usize = 16 * 1024;
/// The longest first flight in octets, record headers included. Post-quantum hellos take about 2 KiB; the largest
/// padding extension brings one to 64 KiB.
pub(crate) const MAX_HELLO: usize = 64 * 1024;
/// The longest request line that is still recognised as HTTP inside a tunnel.
pub(crate) const MAX_REQUEST_LINE: usize = 8 * 1024;
/// The longest SOCKS4 user id and name, each (RFC 1035 names fit).
pub(crate) const MAX_SOCKS4_TEXT: usize = 255;
/// The longest SOCKS message in octets: a SOCKS4a request with both texts, or RFC 1929 credentials.
pub(crate) const MAX_SOCKS: usize = 1024;
/// A relay reads this much at once, into a buffer of its thread; so much waits at most for a slow reader.
pub(crate) const RELAY_BUFFER: usize = 16 * 1024;
/// Pipes for tunnels that prove bulky, at one time; further ones are relayed through buffers.
pub(crate) const MAX_PIPES: usize = 32;
/// The size of a pipe in octets; what waits in it for a slow reader is the kernel's memory.
pub(crate) const PIPE_SIZE: usize = 256 * 1024;
/// The most buffering of one forwarded HTTP message head, either way.
pub(crate) const MAX_HTTP_BUFFER: usize = 64 * 1024;
/// DNS answers kept, by their time to live.
pub(crate) const DNS_CACHE: u64 = 512;
/// Answers of the last moment, which are taken again as they are.
pub(crate) const DNS_LATEST: usize = 512;
/// How long. Not longer, as an answer that lacks a family whose query failed is an answer, too.
pub(crate) const DNS_MOMENT: Duration = Duration::from_secs(1);
/// The longest that a failed resolution is remembered.
pub(crate) const DNS_NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// DNS queries in flight to one server.
pub(crate) const DNS_IN_FLIGHT: usize = 256;
/// Walks through the process table at one time, where roles are told by executable; further clients wait their turn.
pub(crate) const OWNER_LOOKUPS: usize = 4;
/// Pause before the next accept when the process is out of descriptors or memory.
pub(crate) const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// Descriptors that are left to others than new clients: to what serves the present ones, to the admin port. Of a limit
/// below 64, a quarter.
pub(crate) const DESCRIPTORS_KEPT: u64 = 16;
/// Silence on a connection before the kernel probes whether its peer is there.
pub(crate) const PROBE: Duration = Duration::from_secs(45);
/// The longest wait for a kept upstream connection to take another request, before a new one is made.
pub(crate) const KEPT_READY: Duration = Duration::from_secs(1);
/// The longest wait for a refused client to take its answer and go.
pub(crate) const LINGER_AFTER_REFUSAL: Duration = Duration::from_millis(500);
/// The most bytes of a refused client that are read and thrown away, so that it sees the answer and no reset.
pub(crate) const DISCARD_AFTER_REFUSAL: usize = 256 * 1024;
