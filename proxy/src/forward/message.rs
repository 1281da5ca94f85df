//! HTTP messages on their way through: what a request names, which of its parts travel on (RFC 9110 section 7.6.1),
//! and egret's own answers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use egret_policy::{Denial, Reason, Target};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::timeout;

use super::told::Told;
use crate::fault::{Fault, Stop};
use crate::limits::{MAX_ANSWER_HEAD, MAX_METHOD};
use crate::reply::Answer;
use crate::wire::framing::is_length;
use crate::wire::http::basic_user;

/// A body for the client.
pub(super) type Body = BoxBody<Bytes, hyper::Error>;
/// A body for the upstream.
pub(super) type Outgoing = Streamed;

/// Content as it comes, without the trailers: those could carry fields that decide (Host, Authorization) behind the
/// check of the head. The record of the request lives as long as the content of its answer.
pub(super) struct Streamed {
    /// What was waited for and came.
    first: Option<Frame<Bytes>>,
    content: Incoming,
    _told: Option<Told>,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            match ready!(Pin::new(&mut self.content).poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_trailers() => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let rest = self.content.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper.saturating_add(first));
        }
        whole
    }
}

/// Fields of one connection, never of the message (RFC 9110 section 7.6.1), and the proxy's own credentials.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The method for the record.
pub(super) fn method(request: &Request<Incoming>) -> String {
    request.method().as_str().chars().take(MAX_METHOD).collect()
}

/// What is framed well and is not served.
pub(super) fn check(request: &Request<Incoming>) -> Result<(), Stop> {
    match *request.method() {
        Method::TRACE => Err(unsupported("TRACE is not served: it would show what the proxy added")),
        _ => Ok(()),
    }
}

fn unsupported(why: &str) -> Stop {
    Denial::new(Reason::Unsupported, why, "use CONNECT for everything but http:// URLs").into()
}

/// The target of a request in absolute form.
pub(super) fn absolute_target(request: &Request<Incoming>) -> Result<Target, Stop> {
    let uri = request.uri();
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) => target(authority.as_str(), 80),
        (Some("https"), _) => Err(unsupported("an https:// URL cannot be forwarded unseen; the client must use CONNECT")),
        (Some(_), _) => Err(unsupported("only http:// URLs are forwarded")),
        _ => Err(Stop::malformed("this is a proxy: it wants an absolute http:// URL or CONNECT")),
    }
}

/// The target of a request inside a tunnel to `permitted`: what its URL or its Host field names, on the tunnel's port
/// where no port is written. HTTP/1.0 may name nothing.
pub(super) fn tunnelled_target(request: &Request<Incoming>, permitted: &Target) -> Result<Target, Stop> {
    if let Some(authority) = request.uri().authority() {
        return target(authority.as_str(), permitted.port);
    }
    match request.headers().get(header::HOST) {
        Some(host) => target(host.to_str().map_err(|_| Stop::malformed("the Host field is not ASCII"))?, permitted.port),
        None if request.version() == Version::HTTP_10 => Ok(permitted.clone()),
        None => Err(Stop::malformed("the request has no Host field")),
    }
}

fn target(authority: &str, port: u16) -> Result<Target, Stop> {
    Target::parse_or(authority, port).map_err(|error| Stop::malformed(format!("the request names no host: {error}")))
}

/// The user name of the request's proxy credentials.
pub(super) fn user(request: &Request<Incoming>) -> Option<String> {
    basic_user(request.headers().get(header::PROXY_AUTHORIZATION)?.as_bytes())
}

/// Only WebSocket may take over a connection; h2c would hide further requests (RFC 9113 section 3.1).
pub(super) fn wants_websocket(request: &Request<Incoming>) -> bool {
    let upgrade = request.headers().get_all(header::UPGRADE);
    let mut values = upgrade.iter();
    values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket")) && values.next().is_none()
}

/// Waits for the content of a request to begin, if there is any: an upstream is not dialled for a client that never sends it.
pub(super) async fn begun(request: &mut Request<Incoming>, limit: Duration) -> Result<Option<Frame<Bytes>>, Stop> {
    if request.body().is_end_stream() {
        return Ok(None);
    }
    match timeout(limit, request.body_mut().frame()).await {
        Ok(Some(Ok(frame))) => Ok(Some(frame).filter(Frame::is_data)),
        Ok(None) => Ok(None),
        Ok(Some(Err(_))) => Err(Fault::ClientGone.into()),
        Err(_) => Err(Fault::ClientTimeout.into()),
    }
}

/// The request as the upstream gets it: origin form, Host from what was permitted, nothing of the hop.
pub(super) fn outgoing(
    request: Request<Incoming>,
    first: Option<Frame<Bytes>>,
    target: &Target,
    websocket: bool,
) -> Request<Outgoing> {
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    parts.headers.remove(header::EXPECT);
    let host = if target.port == 80 { target.to_string().trim_end_matches(":80").to_owned() } else { target.to_string() };
    if let Ok(host) = HeaderValue::from_str(&host) {
        parts.headers.insert(header::HOST, host);
    }
    if websocket {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    parts.uri = parts.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    parts.version = Version::HTTP_11;
    Request::from_parts(parts, Streamed { first, content: body, _told: None })
}

/// An answer has one length: what two readers could cut in two places is passed to none. How long a head hyper takes depends
/// on how it is cut into segments; what is taken here does not.
pub(super) fn check_answer(response: &Response<Incoming>) -> Result<(), &'static str> {
    let size: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > MAX_ANSWER_HEAD {
        return Err("its head is too long");
    }
    let all = |name: HeaderName| response.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    match (&all(header::CONTENT_LENGTH)[..], &all(header::TRANSFER_ENCODING)[..]) {
        ([], []) => Ok(()),
        ([length], []) if is_length(length) => Ok(()),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        ([], _) => Err("its transfer coding is not chunked"),
        _ => Err("it has more than one length, or none that is a number"),
    }
}

/// The upstream's answer as the client gets it.
pub(super) fn incoming(response: Response<Incoming>, told: Told) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, Streamed { first: None, content: body, _told: Some(told) }.boxed())
}

/// The 101 that joins two WebSocket ends.
pub(super) fn switching(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, _) = response.into_parts();
    strip(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    Response::from_parts(parts, text(String::new()))
}

fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // What frames the message is not the client's to take away.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// An answer of egret's own. After a request that broke the protocol, or its limits, its connection ends.
pub(super) fn refusal(answer: Answer) -> Response<Body> {
    let close = matches!(answer.status, 400 | 408 | 431 | 503);
    let mut response = Response::new(text(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::FORBIDDEN);
    if let Ok(phrase) = ReasonPhrase::try_from(answer.phrase) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    if close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn text(body: String) -> Body {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()
}
