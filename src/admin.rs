//! The admin port: health, readiness, metrics, status, the discovery report. It is read-only: there is no method but
//! GET and HEAD, no body is read, and nothing it does changes anything. Requests that name a host other than an
//! address or localhost are refused, so that a web page cannot reach it through a name of its own (DNS rebinding).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use egret_policy::{Host, Target};
use egret_proxy::{Gateway, now};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::confinement;
use crate::discovery::report::Report;
use crate::files::Monitor;
use crate::flows::Flows;
use crate::launch::Told;
use crate::readiness::Readiness;
use crate::reading::Missing;
use crate::witness::Witness;

/// Connections at one time; a scraper and a probe need two.
const CONNECTIONS: usize = 32;
/// For the whole head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// For a whole connection.
const LIFE: Duration = Duration::from_secs(60);
/// The largest head in octets.
const MAX_HEAD: usize = 16 * 1024;

/// What the admin port tells of.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) prometheus: PrometheusHandle,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) files: Arc<Monitor>,
    pub(crate) flows: Arc<Flows>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) unserved: Arc<Mutex<Vec<&'static str>>>,
    pub(crate) child: Told,
    pub(crate) confinement: confinement::Told,
}

/// Serves the admin port for ever.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let router = router(admin);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
            let _ = tokio::time::timeout(LIFE, server.serve_connection(TokioIo::new(stream), service)).await;
            drop(slot);
        });
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/report", get(report))
        .route("/flows", get(flows))
        .layer(middleware::from_fn(local_only))
        .with_state(admin)
}

async fn local_only(request: Request, next: Next) -> Response {
    let is_for_a_proxy = request.uri().authority().is_some();
    if is_for_a_proxy || request.headers().contains_key(header::ORIGIN) || !names_no_site(request.headers()) {
        return (StatusCode::FORBIDDEN, "egret: the admin port answers to an address or localhost only\n").into_response();
    }
    next.run(request).await
}

fn names_no_site(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none()).and_then(|host| host.to_str().ok());
    host.and_then(|host| Target::parse_or(host, 80).ok()).is_some_and(|target| match target.host {
        Host::Address(_) => true,
        Host::Name(name) => name.as_str() == "localhost",
    })
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.readiness.why_not() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.prometheus.render())
}

async fn status(State(admin): State<Admin>) -> impl IntoResponse {
    let policy = admin.gateway.policy();
    Json(json!({
        "v": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": admin.readiness.why_not().is_none(),
        "not_ready": admin.readiness.why_not(),
        "listen": admin.listen,
        "policy": { "hash": **policy.hash(), "mode": policy.mode_at(now()).to_string(), "rules": policy.rules().len() },
        "unserved": *admin.unserved.lock().unwrap_or_else(PoisonError::into_inner),
        "files": admin.files.status(),
        "flows": admin.flows.status(),
        "destinations": admin.witness.discovery().len(),
        "child": *admin.child.lock().unwrap_or_else(PoisonError::into_inner),
        "confinement": *admin.confinement.lock().unwrap_or_else(PoisonError::into_inner),
    }))
}

async fn report(State(admin): State<Admin>) -> impl IntoResponse {
    Json(Report::new(&admin.witness.discovery(), &admin.flows.trends(), Missing::default()))
}

/// Every flow, and with `since` those that ended after that number. A large table takes a while to copy.
async fn flows(State(admin): State<Admin>, request: Request) -> Response {
    let since = request.uri().query().and_then(|query| query.strip_prefix("since=")?.parse().ok());
    let flows = Arc::clone(&admin.flows);
    match tokio::task::spawn_blocking(move || flows.seen(since)).await {
        Ok(seen) => Json(seen).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
