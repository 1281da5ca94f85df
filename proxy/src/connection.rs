//! The page: one connection, step by step. Every name here is a file of this folder. A step either gives the next its
//! input or stops the connection with a named cause, and one place turns a stop into an answer and a record.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use egret_policy::{Denial, Flight, Host, Permit, Policy, Protocol, Reason, Request, Sni, VettedAddr};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{timeout, timeout_at};

use crate::client::{Client, Meter};
use crate::connect::connect;
use crate::fault::{ConnectFault, DnsFault, Fault, Stop};
use crate::forward;
use crate::listener::{Gateway, now};
use crate::peek;
use crate::record::{Close, Open, Record, Stage, Via};
use crate::relay::{End, cut, relay};
use crate::reply;
use crate::request::{self, Asked};
use crate::revoke::{Live, revoked};
use crate::sniff::{Spoken, sniff};

/// What a connection holds while it lives: a place among the handshakes until it relays, and one among all once it has
/// asked for something. So clients that never ask keep nobody out who does, however many places there are.
pub(crate) struct Slots {
    pub(crate) handshake: Option<OwnedSemaphorePermit>,
    pub(crate) connection: Option<OwnedSemaphorePermit>,
}

/// A connection: the client, what it holds, and what it leaves behind.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) record: Open,
    pub(crate) slots: Slots,
}

/// Serves one client to its end. Each part of the way has its memory to itself, and gives it back: most tunnels are idle
/// most of the time.
pub(crate) async fn serve(mut connection: Box<Connection>) {
    let stop = match Box::pin(open(&mut connection)).await {
        Ok(None) => return Box::pin(forward::serve(*connection)).await,
        Ok(Some(tunnel)) => return tunnel.carry(connection).await,
        Err(stop) => stop,
    };
    let Connection { client, record, .. } = &mut *connection;
    record.stopped(&stop);
    record.decided();
    Box::pin(reply::no(client, record.via, &stop, &record.id)).await;
}

/// From the first byte to a tunnel, or to none where each request is to be looked at.
async fn open(Connection { client, gateway, record, slots }: &mut Connection) -> Result<Option<Box<Tunnel>>, Stop> {
    let policy = gateway.policy();
    record.policy = Arc::clone(policy.hash());
    let role = client.observed.role(&policy, gateway, None).await;
    record.role = Arc::clone(policy.role_name(role));
    match greet(client, record).await? {
        Via::Forward => Ok(None),
        via => Ok(Some(Box::new(tunnel(client, via, gateway, &policy, record, slots).await?))),
    }
}

/// From the first byte to the protocol.
async fn greet(client: &mut Client, record: &mut Open) -> Result<Via, Stop> {
    record.stage = Stage::Sniff;
    let spoken: Spoken = timeout_at(client.deadline, sniff(client)).await.map_err(|_| Fault::ClientTimeout)??;
    let via = request::via(spoken);
    record.began(via);
    record.stage = Stage::Parse;
    Ok(via)
}

/// A connection that was permitted, up to its first flight.
pub(crate) struct Tunnel {
    permit: Permit,
    upstream: TcpStream,
    flight: Flight,
}

/// The steps from a request to a confirmed first flight.
async fn tunnel(
    client: &mut Client,
    via: Via,
    gateway: &Gateway,
    policy: &Arc<Policy>,
    record: &mut Record,
    slots: &mut Slots,
) -> Result<Tunnel, Stop> {
    let asked = timeout_at(client.deadline, request::read(client, via)).await.map_err(|_| Fault::ClientTimeout)??;
    slots.connection = Some(gateway.place()?);
    let (request, shown) = who_and_what(client, via, asked, gateway, policy, record).await?;
    let mut permit = admit(policy, &request, record)?;
    let must_speak = must_speak(&permit);
    let reach = async {
        let addresses = resolve_and_vet(gateway, &mut permit, record).await?;
        dial(gateway, &addresses, record).await
    };
    let upstream = tokio::select! {
        biased;
        upstream = reach => upstream?,
        () = gone(client, must_speak) => return Err(Fault::ClientGone.into()),
    };
    reply::yes(client, via).await?;
    let flight = look(client, &upstream, &permit, shown, gateway, record, slots).await?;
    agree(permit, upstream, flight, record).await
}

/// Whether nothing comes of a client that says nothing: one that may let the server speak first may have said all that it has to
/// say.
pub(crate) fn must_speak(permit: &Permit) -> bool {
    permit.protocol() != Protocol::Tcp && !peek::is_patient(permit)
}

/// Ends when the client has reset its connection, or has ended it where it would have to speak. What it says instead stays
/// with it.
pub(crate) async fn gone(client: &mut Client, must_speak: bool) {
    if client.said.is_empty() {
        match client.hear_or_end().await {
            Ok(0) if must_speak => return,
            Err(_) => return,
            Ok(_) => {}
        }
    }
    left(client, false).await;
}

/// Ends when a client that has spoken has reset its connection; or has ended it, where it would have to go on. Nothing is read:
/// tokio tells of an end with the interest in priority, too.
pub(crate) async fn left(client: &Client, must_go_on: bool) {
    let told = if must_go_on { Interest::ERROR | Interest::PRIORITY } else { Interest::ERROR };
    let _ = client.stream.ready(told).await;
}

/// Looks at the first flight, if it has not been shown yet.
pub(crate) async fn look(
    client: &mut Client,
    upstream: &TcpStream,
    permit: &Permit,
    shown: Option<Flight>,
    gateway: &Gateway,
    record: &mut Record,
    slots: &mut Slots,
) -> Result<Flight, Stop> {
    record.stage = Stage::Confirm;
    let flight = match shown {
        Some(flight) => flight,
        None => {
            if peek::is_patient(permit) {
                // It may be silent for an hour, and must not keep others waiting meanwhile.
                slots.handshake = None;
            }
            peek::peek(client, upstream, permit, &gateway.limits).await?
        }
    };
    peek::note(record, &flight);
    Ok(flight)
}

/// The third question.
pub(crate) async fn agree(
    mut permit: Permit,
    mut upstream: TcpStream,
    flight: Flight,
    record: &mut Record,
) -> Result<Tunnel, Stop> {
    let confirmed = permit.confirm(&flight);
    record.permitted(&permit);
    if let Err(denial) = confirmed {
        abandon(&mut upstream).await;
        return Err(denial.into());
    }
    Ok(Tunnel { permit, upstream, flight })
}

/// Turns what was read into a request to the policy. A literal address without a rule of its own is judged by the
/// name it shows, which it shows only after a yes.
async fn who_and_what(
    client: &mut Client,
    via: Via,
    asked: Asked,
    gateway: &Gateway,
    policy: &Policy,
    record: &mut Record,
) -> Result<(Request, Option<Flight>), Stop> {
    let role = client.observed.role(policy, gateway, asked.user.as_deref()).await;
    record.role = Arc::clone(policy.role_name(role));
    record.target = Some(asked.target.clone());
    let request = Request::new(asked.target, role, now());
    if asked.flight.is_some() || !policy.wants_name(&request) {
        return Ok((request, asked.flight));
    }
    reply::yes(client, via).await?;
    let (request, flight) = judged_by_name(client, request, gateway, record).await?;
    Ok((request, Some(flight)))
}

/// Reads the first flight of a client that asks for a literal address, and has the request judged by the name that it shows.
pub(crate) async fn judged_by_name(
    client: &mut Client,
    request: Request,
    gateway: &Gateway,
    record: &mut Record,
) -> Result<(Request, Flight), Stop> {
    let read = timeout(gateway.limits.first_flight, request::hello(client)).await;
    let flight = read.unwrap_or(Ok(Flight::Silent))?;
    peek::note(record, &flight);
    let request = match &flight {
        Flight::Tls { sni: Sni::One(name), .. } => request.shown(name.clone()),
        _ => request,
    };
    Ok((request, flight))
}

/// The first question.
pub(crate) fn admit(policy: &Arc<Policy>, request: &Request, record: &mut Record) -> Result<Permit, Stop> {
    record.reached(Stage::Admit);
    let permit = policy.admit(request)?;
    record.permitted(&permit);
    Ok(permit)
}

/// One resolution, and the second question about its answers.
pub(crate) async fn resolve_and_vet(
    gateway: &Gateway,
    permit: &mut Permit,
    record: &mut Record,
) -> Result<Vec<VettedAddr>, Stop> {
    let mut answers = Vec::new();
    if let Some(name) = permit.name_to_resolve() {
        record.reached(Stage::Resolve);
        answers = look_up(gateway, gateway.resolver().resolve(name)).await?;
        gateway.resolved.learn(name, &answers);
    } else if let Host::Address(address) = permit.target().host {
        answers.push(address);
    }
    record.reached(Stage::Vet);
    let vetted = permit.vet(&answers);
    let first = vetted.as_ref().ok().and_then(|vetted| vetted.first()).map(|vetted| vetted.socket().ip());
    record.class = first.or(answers.first().copied()).map(|address| permit.policy().class_of(address));
    record.refused = answers.first().copied().filter(|_| vetted.is_err());
    record.permitted(permit);
    Ok(vetted?)
}

/// Waits for what DNS says, as long as it may take, and tells how it went.
pub(crate) async fn look_up<T>(gateway: &Gateway, query: impl Future<Output = Result<T, DnsFault>>) -> Result<T, DnsFault> {
    let started = Instant::now();
    let answer = timeout(gateway.limits.dns, query).await.unwrap_or(Err(DnsFault::Timeout));
    gateway.observer.resolved(answer.as_ref().map(|_| ()).map_err(|fault| *fault), started.elapsed());
    answer
}

/// Connects to a vetted address.
pub(crate) async fn dial(gateway: &Gateway, addresses: &[VettedAddr], record: &mut Record) -> Result<TcpStream, Stop> {
    record.reached(Stage::Connect);
    let started = Instant::now();
    let outcome = connect(addresses, &gateway.limits, &*gateway.observer).await;
    dialled(gateway, outcome.as_ref().map(|reached| reached.address).map_err(|fault| *fault), started, record);
    Ok(outcome?.stream)
}

/// Tells how a dial went that began then.
pub(crate) fn dialled(gateway: &Gateway, outcome: Result<SocketAddr, ConnectFault>, started: Instant, record: &mut Record) {
    gateway.observer.dialled(outcome.map(drop), started.elapsed());
    record.address = outcome.ok();
}

/// Closes an upstream that got nothing. A clean end tells it more than a reset would.
async fn abandon(upstream: &mut TcpStream) {
    let _ = tokio::io::AsyncWriteExt::shutdown(upstream).await;
}

impl Tunnel {
    /// Relays. Cleartext HTTP stays under watch, request by request; everything else is bytes.
    pub(crate) fn carry(self, mut connection: Box<Connection>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        connection.record.stage = Stage::Relay;
        connection.slots.handshake = None;
        let Self { permit, upstream, flight } = self;
        let gateway = &connection.gateway;
        if flight == Flight::Http && permit.protocol() != Protocol::Tcp {
            connection.client.deadline = tokio::time::Instant::now() + gateway.limits.request;
            return Box::pin(forward::inside(*connection, upstream, permit));
        }
        connection.record.decided();
        let address = connection.record.address.filter(|_| gateway.close_revoked);
        let live = address.map(|address| Box::new(Live { permit, address: address.ip(), flight }));
        Box::pin(carry(connection, upstream, live))
    }
}

async fn carry(connection: Box<Connection>, mut upstream: TcpStream, live: Option<Box<Live>>) {
    let Connection { mut client, gateway, record, slots: _slots } = *connection;
    let meter = Meter::default();
    let mut counted = Counted { record, meter: &meter };
    let said = std::mem::take(&mut client.said).freeze();
    let close = tokio::select! {
        close = relay(
            End { stream: &mut client.stream, said },
            End { stream: &mut upstream, said: Bytes::new() },
            &gateway.pipes,
            &gateway.limits,
            &meter,
        ) => close,
        () = revoked(&gateway, || live.as_deref().cloned()) => Close::Revoked,
    };
    counted.record.close = close;
    cut(close, &client.stream, &upstream);
    // Whoever waits to be served goes before what is over.
    tokio::task::yield_now().await;
}

/// A record that takes its byte counts on every path out, a cancelled relay included.
struct Counted<'a> {
    record: Open,
    meter: &'a Meter,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        (self.record.bytes_down, self.record.bytes_up) = self.meter.both();
    }
}

pub(crate) fn over_the_limit(gateway: &Gateway) -> Denial {
    let detail = format!("{} connections are open, which is the limit", gateway.limits.connections);
    Denial::new(Reason::ConnectionLimit, detail, "close idle connections or come back later")
}
