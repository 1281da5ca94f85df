//! HTTP in the clear, request by request: a forward connection, on which every absolute-form request is admitted on
//! its own, and a tunnel that turned out to carry HTTP, in which every request must name the permitted host. What has more
//! than one reading is refused (`inbound`), and hyper frames both sides anew, so that a client and an upstream cannot
//! disagree about where a request ends.

mod inbound;
mod kept;
mod message;
mod told;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use egret_policy::{Denial, Flight, Permit, Policy, RoleId, Target};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder as ServerBuilder;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::inbound::{Findings, Inbound};
use self::kept::{Kept, Sent, send};
use self::message::Body;
use self::told::Told;
use crate::asker::Observed;
use crate::client::{Client, Meter, Replay};
use crate::connection::{Connection, Slots, dial, resolve_and_vet};
use crate::fault::{Fault, Stop};
use crate::limits::{MAX_HEAD, MAX_HEADERS, MAX_HTTP_BUFFER};
use crate::listener::{Gateway, now};
use crate::record::{Close, Open, RequestRecord, Stage};
use crate::relay::{End, cut, relay, silence};
use crate::reply::Answer;
use crate::revoke::{Live, revoked};
use crate::wire::http::Refused;

/// Serves a client that sends absolute-form requests.
pub(crate) async fn serve(Connection { client, gateway, record, slots }: Connection) {
    let scope = Scope::Each { observed: Arc::clone(&client.observed) };
    Forwarder::new(gateway, scope, None, record, slots).run(client).await;
}

/// Serves HTTP inside a tunnel to one host.
pub(crate) async fn inside(connection: Connection, upstream: TcpStream, permit: Permit) {
    let Connection { client, gateway, record, slots } = connection;
    let meter = Arc::new(Meter::default());
    let Ok(kept) = Kept::open(upstream, permit.target().clone(), &meter).await else { return };
    let live = kept.address().map(|address| Live { permit: permit.clone(), address, flight: Flight::Http });
    let forwarder = Forwarder::new(gateway, Scope::One(Box::new(permit)), Some((kept, meter)), record, slots);
    *forwarder.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    forwarder.run(client).await;
}

/// Whom the requests may name.
enum Scope {
    /// Each is admitted on its own, by the policy of its time, for whoever its credentials and its socket say is asking.
    Each { observed: Arc<Observed> },
    /// The host of a tunnel, permitted already.
    One(Box<Permit>),
}

/// One client connection that carries requests.
struct Forwarder {
    gateway: Arc<Gateway>,
    scope: Scope,
    kept: tokio::sync::Mutex<Option<Kept>>,
    /// What the latest request was let through for.
    live: Mutex<Option<Live>>,
    meter: Arc<Meter>,
    record: Mutex<Open>,
    slots: Mutex<Slots>,
    /// Requests that hyper has read.
    requests: AtomicU64,
    findings: Arc<Findings>,
}

/// Two ends that become a WebSocket when the HTTP on both has ended.
struct Switching {
    client: OnUpgrade,
    upstream: OnUpgrade,
    _told: Told,
}

/// Where the service leaves two such ends for the connection. Not in the forwarder: they hold on to it.
type Handover = Arc<Mutex<Option<Switching>>>;

impl Forwarder {
    fn new(gateway: Arc<Gateway>, scope: Scope, kept: Option<(Kept, Arc<Meter>)>, record: Open, slots: Slots) -> Arc<Self> {
        let (kept, meter) = kept.map_or_else(Default::default, |(kept, meter)| (Some(kept), meter));
        Arc::new(Self {
            gateway,
            scope,
            kept: tokio::sync::Mutex::new(kept),
            live: Mutex::default(),
            meter,
            record: Mutex::new(record),
            slots: Mutex::new(slots),
            requests: AtomicU64::new(0),
            findings: Arc::default(),
        })
    }

    /// Runs the client's side to its end.
    async fn run(self: Arc<Self>, client: Client) {
        let from_client = Arc::new(Meter::default());
        let first_head = self.first_head(client.deadline);
        let io = TokioIo::new(Inbound::new(client.into_replay(Arc::clone(&from_client)), Arc::clone(&self.findings)));
        let handover = Handover::default();
        let service = {
            let (forwarder, handover) = (Arc::clone(&self), Arc::clone(&handover));
            service_fn(move |request| {
                let (forwarder, handover) = (Arc::clone(&forwarder), Arc::clone(&handover));
                async move { Ok::<_, Infallible>(forwarder.answer(request, &handover).await) }
            })
        };
        let mut builder = ServerBuilder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.gateway.limits.keep_alive)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_HTTP_BUFFER)
            .preserve_header_case(true)
            .auto_date_header(false);
        let served = async {
            let ended = builder.serve_connection(io, service).with_upgrades().await;
            if let Some(close) = self.join(&handover).await {
                self.record().close = close;
            }
            ended
        };
        let moved = || from_client.total() + self.meter.total();
        tokio::select! {
            ended = served => self.finish(ended),
            () = silence(self.gateway.limits.idle, None, moved) => self.record().close = Close::Idle,
            () = revoked(&self.gateway, || self.live()) => self.record().close = Close::Revoked,
            () = first_head => self.record().stopped(&Fault::ClientTimeout.into()),
        }
    }

    /// Ends if the first request is not whole in time.
    async fn first_head(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
        if self.record().requests > 0 {
            std::future::pending::<()>().await;
        }
    }

    /// Notes how the client's side ended, where nothing has been noted yet.
    fn finish(&self, ended: hyper::Result<()>) {
        let mut record = self.record();
        if record.close != Close::Drained {
            return;
        }
        record.close = Close::Client;
        if let Err(error) = ended {
            let stop = if error.is_parse() {
                Stop::malformed(format!("the HTTP request is malformed: {error}"))
            } else if error.is_timeout() {
                Fault::ClientTimeout.into()
            } else {
                Fault::ClientGone.into()
            };
            // A keep-alive connection that times out between requests has ended well.
            if record.requests == 0 || error.is_parse() {
                record.stopped(&stop);
                record.decided();
            }
        }
    }

    fn record(&self) -> MutexGuard<'_, Open> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, to its answer and its record.
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>, handover: &Handover) -> Response<Body> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some((kind, why)) = self.findings.refusal(number) {
            return self.refused(Stop::malformed(why), kind == Refused::TooLarge);
        }
        if let Err(full) = self.take_place() {
            return self.refused(full.into(), false);
        }
        let policy = match &self.scope {
            Scope::Each { .. } => self.gateway.policy(),
            Scope::One(permit) => Arc::clone(permit.policy()),
        };
        let mut told = Told::new(&self, &request, &policy);
        let upgrade = message::wants_websocket(&request).then(|| hyper::upgrade::on(&mut request));
        let outcome = self.exchange(request, upgrade.is_some(), &policy, &mut told.entry).await;
        if upgrade.is_some() {
            self.findings.settled(matches!(&outcome, Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS));
        }
        match outcome {
            Ok(response) => {
                told.answered(response.status().as_u16());
                incoming(response, upgrade, told, handover)
            }
            Err(stop) => {
                // What the client broke is not the upstream's fault, though the upstream's side ended with it.
                let stop = self.findings.broken().map_or(stop, Stop::malformed);
                told.entry.stopped(&stop);
                let answer = Answer::of(&stop, Some(&told.entry.id));
                told.answered(answer.status);
                message::refusal(answer)
            }
        }
    }

    /// Once a request is whole its client has a place among the connections, and none among the handshakes.
    fn take_place(&self) -> Result<(), Denial> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.connection.is_none() {
            slots.connection = Some(self.gateway.place()?);
        }
        slots.handshake = None;
        Ok(())
    }

    /// The answer to what broke the protocol, or is beyond a limit. It ends the connection, whose record is the only one that
    /// tells of it.
    fn refused(&self, stop: Stop, too_large: bool) -> Response<Body> {
        let mut record = self.record();
        record.stopped(&stop);
        record.decided();
        let mut answer = Answer::of(&stop, Some(&record.id));
        if too_large {
            let too_large = Answer::head_too_large();
            (answer.status, answer.phrase, answer.body) = (too_large.status, too_large.phrase, too_large.body);
        }
        message::refusal(answer)
    }

    /// The connection's record tells of its first request, and of the worst verdict of all.
    fn note(&self, entry: &RequestRecord) {
        let mut record = self.record();
        let first = record.requests == 1;
        if first {
            record.target.clone_from(&entry.target);
            record.role.clone_from(&entry.role);
        }
        let worse = (entry.denial.is_some() && record.denial.is_none())
            || (entry.would_deny.is_some() && record.would_deny.is_none() && record.denial.is_none());
        if first || worse {
            record.rule.clone_from(&entry.rule);
            record.denial.clone_from(&entry.denial);
            record.would_deny.clone_from(&entry.would_deny);
        }
    }

    /// From a request to the head of its answer.
    async fn exchange(
        &self,
        mut request: Request<Incoming>,
        websocket: bool,
        policy: &Arc<Policy>,
        entry: &mut RequestRecord,
    ) -> Result<Response<Incoming>, Stop> {
        message::check(&request)?;
        let (mut permit, asked) = match &self.scope {
            Scope::Each { observed } => {
                let asked = message::absolute_target(&request)?;
                entry.target = Some(asked.clone());
                let role = observed.role(policy, &self.gateway, message::user(&request).as_deref()).await;
                (self.permit(asked.clone(), role, policy, entry)?, asked)
            }
            Scope::One(permit) => {
                let asked = message::tunnelled_target(&request, permit.target())?;
                entry.target = Some(asked.clone());
                entry.rule = permit.rule().map(|rule| rule.id().clone());
                entry.would_deny = permit.would_deny().cloned();
                permit.confirm_host(&asked)?;
                ((**permit).clone(), asked)
            }
        };
        let first = message::begun(&mut request, self.gateway.limits.content).await?;
        let mut kept = self.kept.lock().await;
        let mut outgoing = message::outgoing(request, first, &asked, websocket);
        // An upstream may close a kept connection at any time; what it has not read is sent once more, on a new one.
        for _ in 0..2 {
            self.reach(&mut kept, &mut permit, entry).await?;
            match send(&mut kept, outgoing).await? {
                Sent::Answered(response) => {
                    self.record().reached(Stage::Relay);
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !websocket {
                        return Err(Fault::Upstream("the upstream switched protocols unasked".into()).into());
                    }
                    return Ok(response);
                }
                Sent::Unread(request) => outgoing = *request,
            }
        }
        Err(Fault::Upstream("the upstream closes its connections unread".into()).into())
    }

    /// Admits one absolute-form request. That it is cleartext HTTP is known before any look-up.
    fn permit(&self, target: Target, role: RoleId, policy: &Arc<Policy>, entry: &mut RequestRecord) -> Result<Permit, Stop> {
        entry.role = Arc::clone(policy.role_name(role));
        let asked = egret_policy::Request::new(target, role, now());
        self.record().reached(Stage::Admit);
        let mut permit = policy.admit(&asked)?;
        entry.rule = permit.rule().map(|rule| rule.id().clone());
        permit.confirm(&Flight::Http)?;
        entry.would_deny = permit.would_deny().cloned();
        Ok(permit)
    }

    /// Makes `kept` a connection to the permitted target: the one there is, if its address still passes, or a new one.
    async fn reach(&self, kept: &mut Option<Kept>, permit: &mut Permit, entry: &mut RequestRecord) -> Result<(), Stop> {
        if let Some(address) = kept.as_ref().and_then(|kept| kept.leads_to(permit.target())) {
            permit.vet(&[address])?;
            entry.would_deny = permit.would_deny().cloned();
            self.record().went_to(entry);
            return self.goes_to(address, permit);
        }
        *kept = None;
        let mut notes = self.record().clone();
        (notes.address, notes.refused, notes.class) = (None, None, None);
        let outcome = async {
            let addresses = resolve_and_vet(&self.gateway, permit, &mut notes).await?;
            dial(&self.gateway, &addresses, &mut notes).await
        }
        .await;
        notes.went_to(entry);
        self.record().took(notes);
        entry.would_deny = permit.would_deny().cloned();
        let opened = Kept::open(outcome?, permit.target().clone(), &self.meter).await?;
        let address = opened.address();
        *kept = Some(opened);
        address.map_or(Ok(()), |address| self.goes_to(address, permit))
    }

    /// Notes where the requests go now, for another policy to judge; one that came meanwhile judges at once.
    fn goes_to(&self, address: IpAddr, permit: &Permit) -> Result<(), Stop> {
        let live = Live { permit: permit.clone(), address, flight: Flight::Http };
        let judged = if self.gateway.close_revoked { live.judge(&self.gateway.policy()) } else { Ok(()) };
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
        Ok(judged?)
    }

    /// Joins the two ends of a WebSocket, if there is one: from there on it is a tunnel like others.
    async fn join(&self, handover: &Handover) -> Option<Close> {
        let Switching { client, upstream, _told } = handover.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let client = client.await.ok()?.downcast::<TokioIo<Inbound>>().ok()?;
        let upstream = upstream.await.ok()?.downcast::<TokioIo<Replay>>().ok()?;
        let ((mut to_client, more), (mut to_upstream, rest)) =
            (client.io.into_inner().into_parts(), upstream.io.into_inner().into_parts());
        let (from_client, from_upstream) = ([&client.read_buf[..], &more].concat(), [&upstream.read_buf[..], &rest].concat());
        let (client, upstream) = (
            End { stream: &mut to_client, said: from_client.into() },
            End { stream: &mut to_upstream, said: from_upstream.into() },
        );
        let close = relay(client, upstream, &self.gateway.pipes, &self.gateway.limits, &self.meter).await;
        cut(close, &to_client, &to_upstream);
        Some(close)
    }

    fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The upstream's answer for the client; after a 101 the two sockets will be joined.
fn incoming(mut response: Response<Incoming>, upgrade: Option<OnUpgrade>, told: Told, handover: &Handover) -> Response<Body> {
    match upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
        None => message::incoming(response, told),
        Some(client) => {
            let upstream = hyper::upgrade::on(&mut response);
            let switching = Switching { client, upstream, _told: told };
            *handover.lock().unwrap_or_else(PoisonError::into_inner) = Some(switching);
            message::switching(response)
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let record = self.record.get_mut().unwrap_or_else(PoisonError::into_inner);
        (record.bytes_down, record.bytes_up) = self.meter.both();
    }
}
