//! Moves bytes between two sockets until both have ended. Each direction reads only when its socket has something,
//! so that an idle tunnel holds no buffer, and writes before it reads on, so that a slow reader slows its writer.
//! One side may end while the other goes on (half-close); for that there are limits.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::sleep;

use crate::limits::{Limits, RELAY_BUFFER};
use crate::record::Close;

/// Bytes moved so far, each way. Kept outside the relay, so that a relay cut short has still counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
}

impl Tally {
    fn total(&self) -> u64 {
        self.up.load(Ordering::Relaxed) + self.down.load(Ordering::Relaxed)
    }
}

/// Relays, beginning with what the client has already said.
pub(crate) async fn relay(
    client: &mut TcpStream,
    said: &[u8],
    upstream: &mut TcpStream,
    limits: &Limits,
    tally: &Tally,
) -> Close {
    let (client_read, client_write) = client.split();
    let (upstream_read, upstream_write) = upstream.split();
    let up = pump(said, client_read, upstream_write, &tally.up);
    let down = pump(&[], upstream_read, client_write, &tally.down);
    tokio::pin!(up, down);
    let (close, upward_left) = tokio::select! {
        ended = &mut up => match ended { Ok(()) => (Close::Client, false), Err(_) => return Close::Reset },
        ended = &mut down => match ended { Ok(()) => (Close::Upstream, true), Err(_) => return Close::Reset },
        () = silence(limits.idle, || tally.total()) => return Close::Idle,
    };
    let rest = async { if upward_left { up.await } else { down.await } };
    tokio::select! {
        // What the client still says to an upstream that has ended is lost; an answer cut short is not an end.
        ended = rest => if upward_left || ended.is_ok() { close } else { Close::Reset },
        () = silence(limits.half_closed_idle, || tally.total()) => Close::Linger,
        () = sleep(limits.half_closed) => Close::Linger,
    }
}

/// One direction, to its end, which is passed on as a half-close.
async fn pump(first: &[u8], from: ReadHalf<'_>, mut to: WriteHalf<'_>, count: &AtomicU64) -> io::Result<()> {
    to.write_all(first).await?;
    count.fetch_add(first.len() as u64, Ordering::Relaxed);
    loop {
        from.readable().await?;
        if !drain(&from, &mut to, count).await? {
            return to.shutdown().await;
        }
    }
}

/// Moves what is there now; false at the end of the stream.
async fn drain(from: &ReadHalf<'_>, to: &mut WriteHalf<'_>, count: &AtomicU64) -> io::Result<bool> {
    let mut buffer = vec![0; RELAY_BUFFER];
    loop {
        match from.try_read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                to.write_all(&buffer[..n]).await?;
                count.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Ends when nothing has moved for the limit. It looks once per limit, so a tunnel lives at most twice as long.
pub(crate) async fn silence(limit: Duration, moved: impl Fn() -> u64) {
    let mut seen = moved();
    loop {
        sleep(limit).await;
        let now = moved();
        if now == seen {
            return;
        }
        seen = now;
    }
}
