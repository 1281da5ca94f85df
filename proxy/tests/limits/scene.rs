//! A gateway with limits of the test's choice, names from a table, and upstreams of a few lines.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egret_policy::{Draft, Name, NamePattern, Policy, Ports, Protocol, RuleDraft, Surroundings, To};
use egret_proxy::{
    BoxedAnswers, BoxedRecords, Call, ConnectFault, Dialled, DnsFault, Door, Gateway, Limits, NameRecord, Observer, Record,
    RequestRecord, Resolve, Serving, Via,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Longer than any test may take.
pub(crate) const NEVER: Duration = Duration::from_secs(600);
/// A limit under test.
pub(crate) const SOON: Duration = Duration::from_millis(200);
/// Between the bytes of a client that trickles; far more of them than fit into [`SOON`].
const TRICKLE: Duration = Duration::from_millis(5);

/// Limits of which none is ever reached.
pub(crate) fn endless() -> Limits {
    Limits {
        request: NEVER,
        first_flight: NEVER,
        dns: NEVER,
        connect: NEVER,
        connect_one: NEVER,
        idle: NEVER,
        half_closed_idle: NEVER,
        half_closed: NEVER,
        content: NEVER,
        keep_alive: NEVER,
        ..Limits::default()
    }
}

/// What a name of the table stands for.
pub(crate) enum Entry {
    At(Vec<IpAddr>),
    Silent,
    Panic,
}

struct Table {
    names: HashMap<&'static str, Entry>,
    asked: Arc<AtomicUsize>,
}

impl Resolve for Table {
    fn resolve<'a>(&'a self, name: &'a Name) -> BoxedAnswers<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match self.names.get(name.as_str()) {
                Some(Entry::At(addresses)) => Ok(addresses.clone()),
                Some(Entry::Silent) => std::future::pending().await,
                Some(Entry::Panic) => panic!("a bug, on purpose"),
                None => Err(DnsFault::NxDomain),
            }
        })
    }

    fn records<'a>(&'a self, _: &'a Name, _: hickory_resolver::proto::rr::RecordType) -> BoxedRecords<'a> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn listed_for(&self, _: IpAddr) -> Vec<Name> {
        Vec::new()
    }
}

struct Told(UnboundedSender<Record>);

impl Observer for Told {
    fn began(&self, _: Via) {}
    fn decided(&self, _: &Record) {}
    fn answered(&self, _: &RequestRecord) {}
    fn closed(&self, record: Box<Record>) {
        // A test that has seen enough is gone.
        let _ = self.0.send(*record);
    }
    fn requested(&self, _: RequestRecord) {}
    fn name_refused(&self, _: NameRecord) {}
    fn resolved(&self, _: Result<(), DnsFault>, _: Duration) {}
    fn dialled(&self, _: Result<(), ConnectFault>, _: Duration) {}
    fn unattributed(&self, _: &str) {}
    fn accept_failed(&self, _: &std::io::Error) {}
}

/// A gateway that serves.
pub(crate) struct Scene {
    pub(crate) proxy: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
    gateway: Arc<Gateway>,
    serving: Serving,
    records: Mutex<UnboundedReceiver<Record>>,
}

impl Scene {
    /// One that lets `allowed.test` and whatever the table names through as this protocol, on every port of loopback.
    pub(crate) async fn new(limits: Limits, protocol: Protocol, names: Vec<(&'static str, Entry)>) -> Self {
        let mut draft = Draft::default();
        for (name, _) in &names {
            let to = To::Name(NamePattern::parse(name).expect("a name"));
            let within = vec!["127.0.0.0/8".parse().expect("a network")];
            draft.allow(RuleDraft { within, protocol: Some(protocol), ..RuleDraft::new(vec![(to, Some(Ports::every()))]) });
        }
        let (told, records) = unbounded_channel();
        let asked = Arc::new(AtomicUsize::new(0));
        let table = Table { names: names.into_iter().collect(), asked: Arc::clone(&asked) };
        let policy = Arc::new(Policy::new(draft, Surroundings::default()));
        let gateway = Arc::new(Gateway::new("test".into(), policy, Box::new(table), limits, Arc::new(Told(told))));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let proxy = listener.local_addr().expect("an address");
        let serving = Serving::default();
        tokio::spawn(Arc::clone(&gateway).serve(listener, serving.clone()));
        Self { proxy, asked, gateway, serving, records: Mutex::new(records) }
    }

    /// With `allowed.test` at 127.0.0.1.
    pub(crate) async fn local(limits: Limits, protocol: Protocol) -> Self {
        Self::new(limits, protocol, vec![("allowed.test", Entry::At(vec![Ipv4Addr::LOCALHOST.into()]))]).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy).await.expect("the proxy accepts")
    }

    /// The answer's head to a CONNECT, and the connection.
    pub(crate) async fn ask(&self, target: &str) -> (String, TcpStream) {
        let mut stream = self.connect().await;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the proxy takes a request");
        (head_of(&mut stream).await, stream)
    }

    /// A tunnel to this port.
    pub(crate) async fn tunnel(&self, upstream: SocketAddr) -> TcpStream {
        let (answer, stream) = self.ask(&format!("allowed.test:{}", upstream.port())).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        stream
    }

    /// The connection of a confined program that called connect(2) with this address.
    pub(crate) async fn confined(&self, to: SocketAddr) -> TcpStream {
        let door = Door::open(&self.gateway, &self.serving).expect("a port");
        let (Dialled::Now(guest) | Dialled::Later(guest)) = Call::judge(&self.gateway, to, None).expect("it is allowed").dial()
        else {
            panic!("{to} fails at once")
        };
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        door.expect(socket.local_addr().expect("an address"), guest);
        socket.connect(door.address_for(to)).await.expect("the door opens")
    }

    /// A confined program asks for the addresses of this name, and what it is told is known from then on.
    pub(crate) async fn confined_asks_for(&self, name: &str) {
        let labels =
            name.split('.').flat_map(|label| [&[u8::try_from(label.len()).expect("short")][..], label.as_bytes()].concat());
        let query = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &labels.collect::<Vec<u8>>(), &[0, 0, 1, 0, 1]].concat();
        assert!(self.gateway.answer_query(&query, None).await.is_some());
    }

    /// The next record.
    pub(crate) async fn record(&self) -> Record {
        let next = std::future::poll_fn(|cx| self.records.lock().expect("not poisoned").poll_recv(cx));
        next.await.expect("the gateway lives")
    }

    /// Waits until no task of a connection is left.
    pub(crate) async fn all_ended(self) {
        self.serving.stop_accepting.cancel();
        self.serving.tasks.close();
        self.serving.tasks.wait().await;
    }
}

/// A ClientHello for this name.
pub(crate) fn hello(name: &'static str) -> Vec<u8> {
    let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into().expect("a name")).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("it fits");
    hello
}

/// Up to the empty line, and not a byte more.
pub(crate) async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text")
}

/// A server that does this with each client.
pub(crate) async fn upstream<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server that sends back what it gets, to the end.
pub(crate) async fn echo() -> SocketAddr {
    upstream(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

/// A server that accepts and says nothing, for as long as its client is there and longer.
pub(crate) async fn silent() -> SocketAddr {
    upstream(|stream| async move {
        tokio::time::sleep(NEVER).await;
        drop(stream);
    })
    .await
}

/// Sends the first part, and then the second byte by byte, again and again, until the other side has closed; what came
/// back.
pub(crate) async fn trickle(mut stream: TcpStream, first: &[u8], again: &[u8]) -> Vec<u8> {
    stream.write_all(first).await.expect("the proxy takes bytes");
    let (mut read, mut write) = stream.split();
    let mut heard = Vec::new();
    let trickling = async {
        for byte in again.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(TRICKLE).await;
        }
    };
    tokio::select! {
        _ = read.read_to_end(&mut heard) => {}
        () = trickling => {}
    }
    heard
}
