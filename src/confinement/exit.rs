//! What the supervisor of a confined app asks, answered by the policy: where a connection goes, and what a name's address is.
//!
//! This machine's own addresses are the app's to reach, as far as no rule denies them; so are those that `direct:` names. DNS
//! is answered by egret. Everything else is judged, dialled, and served at the door (`proxy/src/confined.rs`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use egret_confine::{Answer, Egress, Errno, Execution, Names, Query, Reply, Request, harmless_query};
use egret_policy::{Class, Denial, Host, Mode, Policy, Reason, Target};
use egret_proxy::{
    Call, ConnectFault, Decision, Dialled, Door, Gateway, Guest, Inquiry, Process, Serving, note_direct, note_refused, now,
};
use ipnet::IpNet;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::lately::Lately;
use crate::events::{Event, shortened};
use crate::journal::Journal;
use crate::metrics;

/// Queries by UDP that wait for their answer at most; more are lost, as datagrams are.
const MOST_QUERIES: usize = 256;
/// The longest path in an event, in characters.
const MAX_PATH: usize = 1_000;
/// The port of DNS (RFC 1035 section 4.2).
const DNS: u16 = 53;
/// That of DNS over TLS (RFC 7858 section 3.1).
const DNS_OVER_TLS: u16 = 853;

/// What `direct:` of the policy in force names.
pub(crate) type Direct = Arc<RwLock<Vec<IpNet>>>;

/// The way out of one app.
pub(crate) struct Exit {
    gateway: Arc<Gateway>,
    door: Arc<Door>,
    runtime: Handle,
    direct: Direct,
    nameservers: Vec<IpAddr>,
    queries: Arc<Semaphore>,
    journal: Journal,
    executed: Lately,
    /// Whether all is closed.
    serving: Serving,
}

/// Where a connection goes.
enum Course {
    /// Where it is aimed: it stays on this machine.
    Near,
    /// Where it is aimed, as the policy says.
    Direct,
    /// To egret, who answers DNS.
    Names,
    /// Nowhere.
    Refused(Denial),
    /// Where the policy lets it.
    Out,
}

impl Exit {
    /// Must be called in the runtime.
    pub(crate) fn new(gateway: Arc<Gateway>, door: Arc<Door>, direct: Direct, journal: Journal, serving: &Serving) -> Arc<Self> {
        let runtime = Handle::current();
        let (queries, executed) = (Arc::new(Semaphore::new(MOST_QUERIES)), Lately::default());
        let serving = serving.clone();
        Arc::new(Self { gateway, door, runtime, direct, nameservers: nameservers(), queries, journal, executed, serving })
    }

    fn course(&self, policy: &Arc<Policy>, to: SocketAddr) -> Course {
        let (is_near, is_direct) = (is_near(policy, to.ip()), self.is_direct(to.ip()));
        if self.answers_dns(to, is_near, is_direct) {
            return Course::Names;
        }
        if is_near && self.door.is_on(to.port()) {
            return Course::Refused(own_door(to));
        }
        if !is_near && !is_direct {
            return Course::Out;
        }
        match denied(policy, to) {
            Some(denial) => Course::Refused(denial),
            None if is_near => Course::Near,
            None => Course::Direct,
        }
    }

    fn is_direct(&self, address: IpAddr) -> bool {
        self.direct.read().unwrap_or_else(PoisonError::into_inner).iter().any(|net| net.contains(&address))
    }

    /// Whether somebody there would resolve names, which egret does instead: a resolver that the app reached by itself would carry
    /// any name out, whoever it belongs to.
    fn answers_dns(&self, to: SocketAddr, is_near: bool, is_direct: bool) -> bool {
        let is_nameserver = self.nameservers.contains(&to.ip());
        match to.port() {
            DNS if is_near || is_direct || is_nameserver => return true,
            DNS_OVER_TLS if is_nameserver && (is_near || is_direct) => return true,
            _ => {}
        }
        // Docker's resolver has an address of its own, and listens on other ports than it seems to.
        let is_its_own = is_nameserver && to.ip().is_loopback() && !is_localhost(to.ip());
        let Some(server) = self.gateway.nameserver() else { return is_its_own };
        // On this machine a server may listen on all addresses.
        let may_be_it = || server.port() == to.port() && is_near && self::is_near(&self.gateway.policy(), server.ip());
        is_its_own || is_direct && server == to || may_be_it()
    }

    /// Judges and dials. A thread that waits hears how that ended; one that does not is connected meanwhile.
    fn out(&self, to: SocketAddr, waits: bool, reply: Reply) {
        let process = process_of(&reply);
        let call = match Call::judge(&self.gateway, to, process) {
            Ok(call) => call,
            Err(denial) => return reply.refuse(errno_of(&denial)),
        };
        match call.dial() {
            Dialled::Now(guest) => expect(&self.door, to, guest, reply),
            Dialled::Later(guest) if !waits => expect(&self.door, to, guest, reply),
            Dialled::Later(guest) => {
                let door = Arc::clone(&self.door);
                self.runtime.spawn(async move {
                    match guest.dialled().await {
                        Ok(guest) => expect(&door, to, guest, reply),
                        Err(fault) => reply.refuse(errno_of_fault(fault)),
                    }
                });
            }
            Dialled::Failed(fault) => reply.refuse(errno_of_fault(fault)),
        }
    }
}

/// Connects the app's socket to the door, which is told whom to expect from where.
fn expect(door: &Arc<Door>, to: SocketAddr, guest: Box<Guest>, reply: Reply) {
    let announcing = Arc::clone(door);
    reply.through(door.address_for(to), move |from| announcing.expect(from, guest));
}

impl Egress for Exit {
    fn connect(&self, request: Request, reply: Reply) {
        let (policy, to) = (self.gateway.policy(), request.destination);
        // What is told to nobody any more must not happen.
        if self.serving.close.is_cancelled() && !is_near(&policy, to.ip()) {
            return reply.refuse(Errno::ACCESS);
        }
        match self.course(&policy, to) {
            Course::Near => reply.direct(),
            Course::Direct => {
                note_direct(&self.gateway, to, process_of(&reply));
                reply.direct();
            }
            Course::Names => match Inquiry::begin(&self.gateway, to, process_of(&reply)) {
                Ok(inquiry) => {
                    let announcing = Arc::clone(&self.door);
                    reply.through(self.door.address_for(to), move |from| announcing.expect_queries(from, inquiry));
                }
                Err(denial) => reply.refuse(errno_of(&denial)),
            },
            Course::Refused(denial) => {
                note_refused(&self.gateway, to, process_of(&reply), denial);
                reply.refuse(Errno::ACCESS);
            }
            Course::Out => self.out(to, !request.nonblocking, reply),
        }
    }

    fn datagram(&self, destination: SocketAddr) -> bool {
        let policy = self.gateway.policy();
        let is_near = is_near(&policy, destination.ip());
        is_near && !self.answers_dns(destination, is_near, false) && denied(&policy, destination).is_none()
    }

    fn executes(&self, execution: Execution) {
        if !execution.listed {
            self.tell_execution(execution);
        }
    }
}

impl Exit {
    /// Tells of what the list does not have; the same at most once a minute.
    fn tell_execution(&self, execution: Execution) {
        let policy = self.gateway.policy();
        let mode = policy.mode_at(now());
        metrics::executed(mode);
        let path = execution.resolved.or(execution.path).unwrap_or_default();
        let path = path.to_string_lossy();
        if self.executed.is_news(&path) {
            let (pid, path) = (execution.pid, shortened(&path, MAX_PATH));
            self.journal.write(Event::Exec { decision: decision(mode), pid, path, policy: policy.hash().to_string() });
        }
    }
}

impl Names for Exit {
    fn is_nameserver(&self, address: SocketAddr) -> bool {
        let is_near = is_near(&self.gateway.policy(), address.ip());
        self.answers_dns(address, is_near, self.is_direct(address.ip()))
    }

    fn is_asked(&self, bound: SocketAddr) -> bool {
        let policy = self.gateway.policy();
        let server = self.gateway.nameserver();
        let systems = self.nameservers.iter().map(|ip| SocketAddr::new(*ip, DNS)).filter(|_| server.is_none());
        let is_it = |asked: SocketAddr| asked.ip() == bound.ip() || bound.ip().is_unspecified() && is_near(&policy, asked.ip());
        systems.chain(server).any(|asked| asked.port() == bound.port() && is_it(asked))
    }

    fn refuses(&self, query: &Query) -> bool {
        self.gateway.refuses_query(&query.message, query.process.clone().map(process).as_ref())
    }

    fn query(&self, query: Query, answer: Answer) {
        if self.serving.close.is_cancelled() {
            return;
        }
        let Ok(turn) = Arc::clone(&self.queries).try_acquire_owned() else { return };
        let (gateway, process) = (Arc::clone(&self.gateway), query.process.map(process));
        self.runtime.spawn(async move {
            let _turn = turn;
            let id = query.message.first_chunk::<2>().copied().map_or(0, u16::from_be_bytes);
            if let Some(answered) = gateway.answer_query(&query.message, process).await {
                answer.answer(&answered.message, &answered.again.unwrap_or_else(|| harmless_query(id)));
            }
        });
    }
}

/// Whether it is this machine. An address that an interface had may be somebody else's by now.
fn is_near(policy: &Policy, address: IpAddr) -> bool {
    match policy.class_of(address) {
        Class::Loopback => true,
        Class::OwnInterface => stays_here(address),
        _ => false,
    }
}

fn stays_here(address: IpAddr) -> bool {
    if_addrs::get_if_addrs().is_ok_and(|all| all.iter().any(|interface| interface.ip() == address))
}

fn is_localhost(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

/// The deny rule that speaks against this address.
fn denied(policy: &Arc<Policy>, to: SocketAddr) -> Option<Denial> {
    let target = Target { host: Host::Address(to.ip()), port: to.port() };
    policy.denies(&egret_policy::Request::new(target, policy.default_role(), now()))
}

fn decision(mode: Mode) -> &'static str {
    let decision = if mode == Mode::Audit { Decision::WouldDeny } else { Decision::Deny };
    decision.as_str()
}

fn own_door(to: SocketAddr) -> Denial {
    let help = "connect where the connection is to go: egret sees to the rest";
    Denial::new(Reason::OwnListener, format!("{to} is refused: this is egret itself"), help)
}

fn process_of(reply: &Reply) -> Option<Process> {
    reply.process().map(process)
}

fn process(process: egret_confine::Process) -> Process {
    Process { pid: process.pid, executable: process.exe, uid: process.uid }
}

/// What connect(2) says of a refusal: what a firewall of the same machine would.
fn errno_of(denial: &Denial) -> Errno {
    if denial.reason == Reason::ConnectionLimit { Errno::AGAIN } else { Errno::ACCESS }
}

fn errno_of_fault(fault: ConnectFault) -> Errno {
    use std::io::ErrorKind;
    match fault {
        ConnectFault::Refused => Errno::CONNREFUSED,
        ConnectFault::Timeout => Errno::TIMEDOUT,
        ConnectFault::Failed(ErrorKind::NetworkUnreachable) => Errno::NETUNREACH,
        ConnectFault::Failed(ErrorKind::AddrNotAvailable) => Errno::ADDRNOTAVAIL,
        ConnectFault::Failed(ErrorKind::ConnectionReset) => Errno::CONNRESET,
        ConnectFault::Failed(_) => Errno::HOSTUNREACH,
    }
}

/// What programs are told to ask (resolv.conf(5)); this machine itself where nothing is written.
pub(crate) fn nameservers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let written = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        // A zone names an interface of this machine.
        words.next()?.split('%').next()?.parse().ok()
    });
    let all: Vec<IpAddr> = written.collect();
    if all.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { all }
}
