//! A gateway whose names come from a table, and what it tells.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use egret_policy::{Draft, Mode, NamePattern, PortRange, Ports, Reason, RuleDraft, Surroundings, To};
use hickory_resolver::proto::rr::{Record as DnsRecord, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::fault::DnsFault;
use crate::limits::Limits;
use crate::listener::Serving;
use crate::record::{Observer, RequestRecord};
use crate::resolve::{BoxedAnswers, BoxedRecords, Resolve};

/// What was told, and how often DNS was asked.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) records: Mutex<Vec<Record>>,
    pub(super) names: Mutex<Vec<NameRecord>>,
    pub(super) queries: AtomicUsize,
}

impl Observer for Seen {
    fn began(&self, _: Via) {}
    fn decided(&self, _: &Record) {}
    fn answered(&self, _: &RequestRecord) {}
    fn closed(&self, record: Box<Record>) {
        self.records.lock().unwrap().push(*record);
    }
    fn requested(&self, _: RequestRecord) {}
    fn name_refused(&self, name: NameRecord) {
        self.names.lock().unwrap().push(name);
    }
    fn resolved(&self, _: Result<(), DnsFault>, _: Duration) {
        self.queries.fetch_add(1, Ordering::Relaxed);
    }
    fn dialled(&self, _: Result<(), ConnectFault>, _: Duration) {}
    fn unattributed(&self, _: &str) {}
    fn accept_failed(&self, _: &std::io::Error) {}
}

/// What `/etc/hosts` and DNS say in a test.
pub(super) struct Book(HashMap<&'static str, Vec<IpAddr>>);

impl Resolve for Book {
    fn resolve<'a>(&'a self, name: &'a Name) -> BoxedAnswers<'a> {
        Box::pin(async move { self.0.get(name.as_str()).cloned().ok_or(DnsFault::NxDomain) })
    }

    fn records<'a>(&'a self, _: &'a Name, _: RecordType) -> BoxedRecords<'a> {
        Box::pin(async move { Ok(Vec::<DnsRecord>::new()) })
    }

    fn listed_for(&self, _: IpAddr) -> Vec<Name> {
        Vec::new()
    }
}

/// A gateway that allows these rules (`name:port`) opaque bytes, to loopback and to 192.0.2.0/24.
pub(super) fn gateway(mode: Mode, rules: &[&str], book: &[(&'static str, &str)]) -> (Arc<Gateway>, Arc<Seen>) {
    limited(mode, rules, book, Limits::default())
}

fn limited(mode: Mode, rules: &[&str], book: &[(&'static str, &str)], limits: Limits) -> (Arc<Gateway>, Arc<Seen>) {
    let mut draft = Draft::default();
    draft.mode = mode;
    for rule in rules {
        let (name, port) = rule.split_once(':').unwrap();
        let ports = Ports::of(vec![PortRange::parse(port).unwrap()]);
        let within = vec!["127.0.0.0/8".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
        let to = To::Name(NamePattern::parse(name).unwrap());
        draft.allow(RuleDraft { within, protocol: Some(Protocol::Tcp), ..RuleDraft::new(vec![(to, ports)]) });
    }
    let mut table: HashMap<&'static str, Vec<IpAddr>> = HashMap::new();
    for (name, address) in book {
        table.entry(name).or_default().push(address.parse().unwrap());
    }
    let seen = Arc::new(Seen::default());
    let observer = Arc::clone(&seen) as Arc<dyn Observer>;
    let policy = Arc::new(Policy::new(draft, Surroundings::default()));
    (Arc::new(Gateway::new("test".to_owned(), policy, Box::new(Book(table)), limits, observer)), seen)
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn refused(gateway: &Arc<Gateway>, to: &str) -> Option<Reason> {
    Call::judge(gateway, at(to), None).err().map(|denial| denial.reason)
}

#[tokio::test]
async fn an_address_is_judged_by_the_name_that_led_to_it() {
    let (gateway, seen) = gateway(Mode::Enforce, &["a.test:5432", "b.test:80"], &[]);
    assert_eq!(refused(&gateway, "192.0.2.1:5432"), Some(Reason::AddressNotListed));
    gateway.known.learn(&"a.test".parse().unwrap(), &["192.0.2.1".parse().unwrap()]);
    assert_eq!(refused(&gateway, "192.0.2.1:5432"), None);
    assert_eq!(refused(&gateway, "192.0.2.1:80"), Some(Reason::PortNotListed), "a.test is not for port 80");
    gateway.known.learn(&"b.test".parse().unwrap(), &["192.0.2.1".parse().unwrap()]);
    assert_eq!((refused(&gateway, "192.0.2.1:80"), refused(&gateway, "192.0.2.1:5432")), (None, None), "by one of its names");
    let hosts: Vec<String> =
        seen.records.lock().unwrap().iter().map(|record| record.target.as_ref().unwrap().to_string()).collect();
    assert_eq!(hosts, ["192.0.2.1:5432", "a.test:5432", "a.test:80", "b.test:80", "a.test:5432"]);
    assert_eq!(seen.queries.load(Ordering::Relaxed), 0, "nobody asked DNS");
}

#[tokio::test]
async fn a_name_beyond_what_its_rule_allows_is_refused_at_connect_too() {
    let (gateway, _) = gateway(Mode::Enforce, &["a.test:443"], &[]);
    gateway.known.learn(&"a.test".parse().unwrap(), &["10.0.0.1".parse().unwrap()]);
    assert_eq!(refused(&gateway, "10.0.0.1:443"), Some(Reason::AddressOutsideWithin));
}

#[tokio::test]
async fn every_call_has_a_place_or_is_told() {
    let (gateway, seen) = limited(Mode::Audit, &[], &[], Limits { connections: 1, ..Limits::default() });
    let first = Call::judge(&gateway, at("8.8.8.8:443"), None).unwrap();
    assert_eq!(refused(&gateway, "8.8.8.8:443"), Some(Reason::ConnectionLimit));
    drop(first);
    assert_eq!(refused(&gateway, "8.8.8.8:443"), None);
    assert_eq!(seen.records.lock().unwrap().len(), 3);
}

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn dialled(gateway: &Arc<Gateway>, to: SocketAddr) -> Box<Guest> {
    match Call::judge(gateway, to, None).unwrap().dial() {
        Dialled::Now(guest) => guest,
        Dialled::Later(guest) => guest.dialled().await.unwrap(),
        Dialled::Failed(fault) => panic!("{fault:?}"),
    }
}

#[tokio::test]
async fn the_two_halves_meet_in_either_order_and_strangers_get_nothing() {
    let server = echo().await;
    let (gateway, seen) = gateway(Mode::Enforce, &[&format!("a.test:{}", server.port())], &[]);
    gateway.known.learn(&"a.test".parse().unwrap(), &[server.ip()]);
    let serving = Serving::default();
    let door = Door::open(&gateway, &serving).unwrap();
    for announced_first in [true, false] {
        let guest = dialled(&gateway, server).await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let from = socket.local_addr().unwrap();
        let mut stream = if announced_first {
            door.expect(from, guest);
            socket.connect(door.address_for(server)).await.unwrap()
        } else {
            let stream = socket.connect(door.address_for(server)).await.unwrap();
            door.expect(from, guest);
            stream
        };
        stream.write_all(b"hello").await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
    }
    let mut stranger = TcpStream::connect(door.address_for(server)).await.unwrap();
    stranger.write_all(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n").await.unwrap();
    let mut said = Vec::new();
    let read = stranger.read_to_end(&mut said).await;
    assert!(read.is_err() || said.is_empty(), "{said:?}");
    serving.tasks.close();
    serving.tasks.wait().await;
    let records = seen.records.lock().unwrap();
    assert_eq!(records.len(), 2, "a stranger is nobody's connection");
    assert!(records.iter().all(|record| record.client.is_some() && record.via == Some(Via::Confined)), "{records:?}");
    assert!(records.iter().all(|record| (record.bytes_up, record.bytes_down) == (5, 5)), "{records:?}");
}

/// Where an app has closed its connection before it was announced, its port may be somebody else's.
#[tokio::test]
async fn who_comes_later_from_the_same_port_is_not_who_was_announced() {
    let server = echo().await;
    let (gateway, seen) = gateway(Mode::Enforce, &[&format!("a.test:{}", server.port())], &[]);
    gateway.known.learn(&"a.test".parse().unwrap(), &[server.ip()]);
    let serving = Serving::default();
    let door = Door::open(&gateway, &serving).unwrap();
    let guest = dialled(&gateway, server).await;
    let at = door.address_for(server);
    let first = TcpStream::connect(at).await.unwrap();
    let from = first.local_addr().unwrap();
    socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(from).unwrap();
    let mut second = socket.connect(at).await.unwrap();
    // Both wait inside by then.
    while accept_queue(at.port()) > 0 {
        tokio::task::yield_now().await;
    }
    door.expect(from, guest);
    let _ = second.write_all(b"hello").await;
    let heard = second.read(&mut [0; 5]).await;
    assert!(heard.as_ref().map_or(true, |length| *length == 0), "{heard:?}");
    // The one that was announced is served, and leaves its record.
    while seen.records.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

/// How many connections wait to be accepted (`rx_queue` of proc_net_tcp(5)).
fn accept_queue(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().find(|row| row.contains(&format!(":{port:04X} 00000000:0000 0A "))).expect("a listener");
    let queues = row.split_ascii_whitespace().nth(4).unwrap();
    u64::from_str_radix(queues.rsplit(':').next().unwrap(), 16).unwrap()
}

#[tokio::test]
async fn an_upstream_that_refuses_is_an_error_and_a_record() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let (gateway, seen) = gateway(Mode::Enforce, &[&format!("a.test:{}", free.port())], &[]);
    gateway.known.learn(&"a.test".parse().unwrap(), &[free.ip()]);
    let fault = match Call::judge(&gateway, free, None).unwrap().dial() {
        Dialled::Failed(fault) => fault,
        Dialled::Later(guest) => guest.dialled().await.err().unwrap(),
        Dialled::Now(_) => panic!("nobody listens there"),
    };
    assert_eq!(fault, ConnectFault::Refused);
    assert_eq!(seen.records.lock().unwrap()[0].close, Close::Fault("connect_refused"));
}
