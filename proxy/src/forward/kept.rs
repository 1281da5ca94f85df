//! The upstream's side of forwarded HTTP: one connection, kept for the next request to the same target.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use egret_policy::Target;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::message::{self, Outgoing};
use crate::client::{Meter, Replay};
use crate::fault::{Fault, Stop};
use crate::limits::{KEPT_READY, MAX_HEADERS, MAX_HTTP_BUFFER, MAX_INTERIM};

/// An upstream connection, kept for the next request to the same target.
pub(super) struct Kept {
    target: Target,
    address: Option<IpAddr>,
    sender: SendRequest<Outgoing>,
    _task: AbortOnDropHandle<()>,
}

impl Kept {
    pub(super) async fn open(upstream: TcpStream, target: Target, meter: &Arc<Meter>) -> Result<Self, Fault> {
        let address = upstream.peer_addr().ok().map(|peer| peer.ip());
        let io = TokioIo::new(Replay::new(upstream, Arc::clone(meter)));
        let mut builder = Builder::new();
        builder.preserve_header_case(true).max_headers(MAX_HEADERS).max_buf_size(MAX_HTTP_BUFFER);
        let (sender, connection) = builder.handshake(io).await.map_err(|e| Fault::Upstream(e.to_string()))?;
        let task = tokio::spawn(async move {
            // Its errors reach whoever waits for the answer.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self { target, address, sender, _task: AbortOnDropHandle::new(task) })
    }

    /// The address it goes to.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The address it goes to, if it goes to this target and is open.
    pub(super) fn leads_to(&self, target: &Target) -> Option<IpAddr> {
        self.address.filter(|_| self.target == *target && !self.sender.is_closed())
    }
}

/// What became of a request.
pub(super) enum Sent {
    Answered(Response<Incoming>),
    /// The upstream had closed before it read any of it.
    Unread(Box<Request<Outgoing>>),
}

/// Sends a request on the kept connection. What fails is not kept.
pub(super) async fn send(kept: &mut Option<Kept>, mut request: Request<Outgoing>) -> Result<Sent, Stop> {
    let Some(mut there) = kept.take() else { return Ok(Sent::Unread(Box::new(request))) };
    // It has ended, or an earlier exchange is not over for its upstream: another connection serves as well.
    if !matches!(timeout(KEPT_READY, there.sender.ready()).await, Ok(Ok(()))) {
        return Ok(Sent::Unread(Box::new(request)));
    }
    let interim = Interim::heard_of(&mut request);
    let sent = tokio::select! {
        sent = there.sender.try_send_request(request) => sent,
        () = interim.too_many() => return Err(broken("it sends interim answers without end")),
    };
    match sent {
        Ok(response) => {
            message::check_answer(&response).map_err(broken)?;
            *kept = Some(there);
            Ok(Sent::Answered(response))
        }
        Err(mut error) => match error.take_message() {
            Some(request) => Ok(Sent::Unread(Box::new(request))),
            None => Err(broken(error.into_error())),
        },
    }
}

fn broken(why: impl Display) -> Stop {
    Fault::Upstream(format!("the upstream's answer is broken: {why}")).into()
}

/// Interim answers (RFC 9110 section 15.2) to one request. Each one is short, and none ends the wait.
#[derive(Default)]
struct Interim {
    count: AtomicUsize,
    too_many: Notify,
}

impl Interim {
    fn heard_of(request: &mut Request<Outgoing>) -> Arc<Self> {
        let interim = Arc::<Self>::default();
        let hears = Arc::clone(&interim);
        hyper::ext::on_informational(request, move |_| {
            if hears.count.fetch_add(1, Ordering::Relaxed) == MAX_INTERIM {
                hears.too_many.notify_one();
            }
        });
        interim
    }

    async fn too_many(&self) {
        self.too_many.notified().await;
    }
}
