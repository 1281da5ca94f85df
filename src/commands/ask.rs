//! One GET to the admin port of a running egret.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// For the whole exchange: a probe that hangs is no probe.
const DEADLINE: Duration = Duration::from_secs(2);
/// The longest answer in octets; a full discovery table is about 1 MiB.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// What egret answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body of a 200.
    pub(super) fn ok_body(self) -> anyhow::Result<Bytes> {
        if self.status != StatusCode::OK {
            bail!("it answered {}", self.status);
        }
        Ok(self.body)
    }
}

/// Asks.
pub(super) fn ask(admin: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(DEADLINE, get(admin, path)).await.context("no answer in time")? })
}

async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", admin.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|error| anyhow::anyhow!(error))?;
    Ok(Answer { status, body: body.to_bytes() })
}
