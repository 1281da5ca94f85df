//! Connections of a program whose connect(2) egret is asked about (`egret run -- CMD`): no proxy protocol, the same questions.
//!
//! connect(2) → **admit** → **vet** → dial → the program's socket is connected to the [`Door`] → peek → **confirm** → relay →
//! record. The address that the program asks for is given back the name that it was resolved from, since its DNS comes
//! through here too ([`names`]); so `admit` sees a name. What the program shows first may correct that name to another
//! one of the same address.

mod door;
mod known;
mod names;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egret_policy::{Asker, Denial, Flight, Host, Name, Permit, Policy, Protocol, Request, RoleId, Sni, Target, VettedAddr};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use door::Door;
pub(crate) use known::Known;
pub use names::{Answered, Inquiry, NameRecord};

use crate::asker::Observed;
use crate::client::Client;
use crate::connect::{self, Begun};
use crate::connection::{
    Connection, Slots, Tunnel, admit, agree, dial, dialled, gone, judged_by_name, left, look, must_speak, over_the_limit,
    resolve_and_vet,
};
use crate::fault::{ConnectFault, Fault, Stop};
use crate::listener::{Gateway, now};
use crate::record::{Close, Open, Record, Stage, Via};
use crate::reply;
use crate::wire::Progress;
use crate::wire::http;

/// Who called connect(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// As numbered where egret runs.
    pub pid: u32,
    /// The executable, where it could be read.
    pub executable: Option<PathBuf>,
    /// The effective user.
    pub uid: u32,
}

/// One connect(2) that the policy does not refuse.
pub struct Call {
    case: Case,
    plan: Plan,
}

/// A call that a program may be connected for.
pub struct Guest {
    case: Case,
    way: Way,
}

/// What is known of a call from the first question to the last, with its place among all connections and its record.
struct Case {
    gateway: Arc<Gateway>,
    policy: Arc<Policy>,
    role: RoleId,
    destination: SocketAddr,
    record: Open,
    slots: Slots,
}

/// What is to be done for a call.
enum Plan {
    /// Permitted: dial.
    Dial(Permit, Vec<VettedAddr>),
    /// To be judged by the name that it shows first.
    Show(Request),
}

/// How far the way out has come.
enum Way {
    /// Connected, and told so.
    Dialled(Permit, TcpStream),
    /// Connected at once, and told so; the runtime does not know of it yet.
    Begun(Permit, Begun),
    Dialling(Permit, Begun, Instant),
    Shows(Request),
}

/// What became of dialling.
pub enum Dialled {
    /// The upstream is connected, or will be when the program has shown whom it means.
    Now(Box<Guest>),
    /// The upstream is being connected.
    Later(Box<Guest>),
    /// It failed, and is recorded.
    Failed(ConnectFault),
}

impl Call {
    /// The first two questions about a connect to this address. Neither asks DNS.
    ///
    /// # Errors
    /// The [`Denial`], which is recorded already.
    pub fn judge(gateway: &Arc<Gateway>, destination: SocketAddr, process: Option<Process>) -> Result<Self, Denial> {
        let mut case = Case::open(gateway, destination, process);
        let judged = match (&case.slots.connection, &case.slots.handshake) {
            (Some(_), Some(_)) => case.plan(),
            _ => Err(over_the_limit(gateway)),
        };
        match judged {
            Ok(plan) => Ok(Self { case, plan }),
            Err(denial) => {
                case.stopped(&denial.clone().into());
                Err(denial)
            }
        }
    }

    /// Begins to connect the upstream, on any thread. Nothing here waits: an upstream on this machine is connected when it
    /// returns.
    #[must_use]
    pub fn dial(self) -> Dialled {
        let Self { mut case, plan } = self;
        let (permit, addresses) = match plan {
            Plan::Dial(permit, addresses) => (permit, addresses),
            Plan::Show(request) => return Dialled::Now(Box::new(Guest { case, way: Way::Shows(request) })),
        };
        let started = Instant::now();
        case.record.reached(Stage::Connect);
        let limit = case.gateway.limits.connect_one;
        let none = ConnectFault::Failed(ErrorKind::AddrNotAvailable);
        let address = addresses.first().copied().ok_or(none);
        match address.and_then(|address| connect::begin(address, limit, &*case.gateway.observer)) {
            Ok(begun) => match begun.connected() {
                Some(address) => {
                    case.dialled(Ok(address), started);
                    Dialled::Now(Box::new(Guest { case, way: Way::Begun(permit, begun) }))
                }
                None => Dialled::Later(Box::new(Guest { case, way: Way::Dialling(permit, begun, started) })),
            },
            Err(fault) => {
                case.dialled(Err(fault), started);
                Dialled::Failed(fault)
            }
        }
    }
}

impl Guest {
    /// Waits for the upstream.
    ///
    /// # Errors
    /// It cannot be reached, which is recorded.
    pub async fn dialled(self: Box<Self>) -> Result<Box<Self>, ConnectFault> {
        let Self { mut case, way } = *self;
        let way = match way {
            Way::Dialling(permit, begun, started) => {
                let outcome = begun.done().await;
                case.dialled(outcome.as_ref().map(|reached| reached.address).map_err(|fault| *fault), started);
                Way::Dialled(permit, outcome?.stream)
            }
            other => other,
        };
        Ok(Box::new(Self { case, way }))
    }

    /// Where the program's own connection comes from.
    fn comes_from(&mut self, address: SocketAddr) {
        self.case.record.client = Some(address);
    }
}

impl Case {
    fn open(gateway: &Arc<Gateway>, destination: SocketAddr, process: Option<Process>) -> Self {
        let policy = gateway.policy();
        let role = role_of(&policy, process.as_ref());
        let mut record = gateway.open(None);
        record.process = process;
        record.policy = Arc::clone(policy.hash());
        record.role = Arc::clone(policy.role_name(role));
        record.target = Some(literal(destination, role).target().clone());
        record.class = Some(policy.class_of(destination.ip()));
        record.began(Via::Confined);
        Self { gateway: Arc::clone(gateway), slots: gateway.slots(), policy, role, destination, record }
    }

    /// By the names that the address was resolved from, the latest first; one that is let through by audit alone is taken when
    /// there is no other. Without a name, by the address, or by the name that it will show.
    fn plan(&mut self) -> Result<Plan, Denial> {
        let (literal, address) = (literal(self.destination, self.role), self.destination.ip());
        self.record.reached(Stage::Admit);
        let (mut by_audit, mut first_denial) = (None, None);
        for name in self.gateway.names_of(address) {
            let by_name = literal.clone().shown(name);
            match permit(&self.policy, &by_name, address) {
                Ok(permitted) if permitted.0.would_deny().is_none() => return Ok(self.noted(permitted)),
                Ok(permitted) => drop(by_audit.get_or_insert(permitted)),
                Err(denial) => drop(first_denial.get_or_insert((by_name, denial))),
            }
        }
        if let Some(permitted) = by_audit {
            return Ok(self.noted(permitted));
        }
        match (permit(&self.policy, &literal, address), first_denial) {
            (Ok(permitted), _) => Ok(self.noted(permitted)),
            (Err(_), Some((by_name, denial))) => {
                self.record.target = Some(by_name.target().clone());
                Err(denial)
            }
            (Err(_), None) if self.policy.wants_name(&literal) => Ok(Plan::Show(literal)),
            (Err(denial), None) => Err(denial),
        }
    }

    fn noted(&mut self, (permit, addresses): (Permit, Vec<VettedAddr>)) -> Plan {
        self.record.target = Some(permit.target().clone());
        self.record.permitted(&permit);
        Plan::Dial(permit, addresses)
    }

    /// A dial that fails ends the call.
    fn dialled(&mut self, outcome: Result<SocketAddr, ConnectFault>, started: Instant) {
        dialled(&self.gateway, outcome, started, &mut self.record);
        if let Err(fault) = outcome {
            self.stopped(&fault.into());
        }
    }

    fn stopped(&mut self, stop: &Stop) {
        self.record.stopped(stop);
        self.record.decided();
    }
}

/// Nobody who is confined gives a proxy user, or comes to a proxy port. A path that is not UTF-8 is none that a policy could name.
fn role_of(policy: &Policy, process: Option<&Process>) -> RoleId {
    let executable = process.and_then(|process| process.executable.as_deref()?.to_str());
    policy.role_of(Asker { user: None, executable, port: 0 })
}

fn literal(destination: SocketAddr, role: RoleId) -> Request {
    let target = Target { host: Host::Address(destination.ip()), port: destination.port() };
    Request::new(target, role, now())
}

/// The first two questions at once: the answer of the second is the address itself.
fn permit(policy: &Arc<Policy>, request: &Request, address: IpAddr) -> Result<(Permit, Vec<VettedAddr>), Denial> {
    let mut permit = policy.admit(request)?;
    let vetted = permit.vet(&[address])?;
    Ok((permit, vetted))
}

/// Serves a program that has been connected to the door, to its end.
async fn serve(guest: Guest, stream: TcpStream) {
    let Guest { case: Case { gateway, policy, role, destination, record, slots }, way } = guest;
    // Who it is, the kernel has told already.
    let mut client = Client::new(stream, Observed::new(None), tokio::time::Instant::now() + gateway.limits.request);
    // Whoever called connect(2) has its answer.
    client.answered = true;
    let judge = Judge { gateway: Arc::clone(&gateway), policy, literal: literal(destination, role) };
    let mut connection = Box::new(Connection { client, gateway, record, slots });
    let stop = match Box::pin(judge.tunnel(&mut connection, way)).await {
        Ok(tunnel) => return tunnel.carry(connection).await,
        Err(stop) => stop,
    };
    let Connection { client, record, .. } = &mut *connection;
    record.stopped(&stop);
    record.decided();
    if matches!(stop, Stop::Fault(Fault::Connect(_))) {
        // The program thinks that it is connected. A reset is the nearest to what it would have been told.
        let _ = socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
        return;
    }
    Box::pin(reply::no(client, record.via, &stop, &record.id)).await;
}

/// What a call is judged by once its program is connected.
struct Judge {
    gateway: Arc<Gateway>,
    policy: Arc<Policy>,
    literal: Request,
}

impl Judge {
    async fn tunnel(self, Connection { client, record, slots, .. }: &mut Connection, way: Way) -> Result<Tunnel, Stop> {
        let gateway = &*self.gateway;
        let (permit, upstream, shown) = match way {
            Way::Dialled(permit, upstream) => (permit, upstream, None),
            Way::Begun(permit, begun) => (permit, begun.done().await?.stream, None),
            Way::Dialling(permit, begun, started) => {
                let outcome = tokio::select! {
                    biased;
                    outcome = begun.done() => outcome,
                    () = gone(client, must_speak(&permit)) => return Err(Fault::ClientGone.into()),
                };
                dialled(gateway, outcome.as_ref().map(|reached| reached.address).map_err(|fault| *fault), started, record);
                (permit, outcome?.stream, None)
            }
            Way::Shows(request) => {
                let (request, flight) = judged_by_name(client, request, gateway, record).await?;
                let mut permit = admit(&self.policy, &request, record)?;
                record.target = Some(permit.target().clone());
                let reach = async {
                    let addresses = self.resolve_and_vet(&mut permit, record).await?;
                    dial(gateway, &addresses, record).await
                };
                let upstream = unless_left(client, &flight, reach).await?;
                (permit, upstream, Some(flight))
            }
        };
        let flight = look(client, &upstream, &permit, shown, gateway, record, slots).await?;
        let permit = self.renamed(client, permit, &flight, record).await?;
        agree(permit, upstream, flight, record).await
    }

    /// One address may have many names, and the program may have this one from elsewhere: where what it shows names another
    /// host than was permitted, that is judged as for a literal address with an SNI. If it is not let through, the first
    /// permit stays, and refuses what it does not agree with.
    async fn renamed(&self, client: &mut Client, permit: Permit, flight: &Flight, record: &mut Record) -> Result<Permit, Stop> {
        if permit.protocol() == Protocol::Tcp {
            return Ok(permit);
        }
        let Some(name) = self.name_shown(client, flight).await? else { return Ok(permit) };
        let is_literal_tls = permit.target().host.name().is_none() && *flight != Flight::Http;
        if is_literal_tls || permit.target().host.name() == Some(&name) {
            return Ok(permit);
        }
        let Ok(mut other) = self.policy.admit(&self.literal.clone().shown(name)) else { return Ok(permit) };
        let mut notes = record.clone();
        match unless_left(client, flight, self.resolve_and_vet(&mut other, &mut notes)).await {
            Ok(_) => {}
            Err(left @ Stop::Fault(Fault::ClientGone)) => return Err(left),
            Err(_) => return Ok(permit),
        }
        record.target = Some(other.target().clone());
        Ok(other)
    }

    /// Which host the first flight names: by its SNI, or by the Host field of a request.
    async fn name_shown(&self, client: &mut Client, flight: &Flight) -> Result<Option<Name>, Stop> {
        match flight {
            Flight::Tls { sni: Sni::One(name), .. } => Ok(Some(name.clone())),
            Flight::Http => timeout(self.gateway.limits.first_flight, host_of(client)).await.unwrap_or(Ok(None)),
            _ => Ok(None),
        }
    }

    /// The second question about an address that was dialled, or will be, by a name that was shown for it: what the program's
    /// own DNS queries told counts, and else one resolution.
    async fn resolve_and_vet(&self, permit: &mut Permit, record: &mut Record) -> Result<Vec<VettedAddr>, Stop> {
        let Host::Address(address) = self.literal.target().host else {
            return resolve_and_vet(&self.gateway, permit, record).await;
        };
        let is_known = permit.name_to_resolve().is_some_and(|name| self.gateway.known.has(name, address));
        if is_known { Ok(permit.vet(&[address])?) } else { resolve_and_vet(&self.gateway, permit, record).await }
    }
}

/// What comes of this, unless a program that has shown its first flight leaves meanwhile. In TLS it would have to go on.
async fn unless_left<T>(client: &Client, flight: &Flight, reach: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    tokio::select! {
        biased;
        reached = reach => reached,
        () = left(client, matches!(flight, Flight::Tls { .. })) => Err(Fault::ClientGone.into()),
    }
}

/// The host that a request names; none if its head is none, which is for others to say.
async fn host_of(client: &mut Client) -> Result<Option<Name>, Stop> {
    loop {
        match http::host(&client.said) {
            Progress::Done(name, _) => return Ok(name),
            Progress::Never(_) => return Ok(None),
            Progress::More => client.hear().await?,
        }
    }
}

impl Gateway {
    /// The names that led to this address: the app's own queries, the latest first, then `/etc/hosts`.
    fn names_of(&self, address: IpAddr) -> Vec<Name> {
        let mut names = self.known.names_of(address);
        names.extend(self.resolver().listed_for(address));
        names
    }

    /// The names that anybody resolved to this address through here, the latest first. They prove nothing of a connection.
    #[must_use]
    pub fn resolved_names(&self, address: IpAddr) -> Vec<Name> {
        let mut names = self.known.names_of(address);
        names.extend(self.resolved.names_of(address).into_iter().filter(|name| !self.known.has(name, address)));
        names
    }
}

/// Notes a connection that the program makes itself, to an address that is left to it.
pub fn note_direct(gateway: &Arc<Gateway>, destination: SocketAddr, process: Option<Process>) {
    let mut case = Case::open(gateway, destination, process);
    case.record.address = Some(destination);
    case.record.stage = Stage::Connect;
    case.record.close = Close::Direct;
    case.record.decided();
}

/// Notes a connection that is refused before any of the questions.
pub fn note_refused(gateway: &Arc<Gateway>, destination: SocketAddr, process: Option<Process>, denial: Denial) {
    Case::open(gateway, destination, process).stopped(&denial.into());
}

#[cfg(test)]
mod tests;
