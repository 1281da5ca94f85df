//! Moves bytes between two sockets until both have ended. Each direction reads only when its socket has something,
//! so that an idle tunnel holds no buffer, and writes before it reads on, so that a slow reader slows its writer.
//! One side may end while the other goes on (half-close); for that there are limits.

use std::io;
use std::time::Duration;

use socket2::SockRef;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::sleep;

use crate::client::Meter;
use crate::limits::{Limits, RELAY_BUFFER};
use crate::record::Close;

/// One end of a relay, and what it has said already.
pub(crate) struct End<'a> {
    pub(crate) stream: &'a mut TcpStream,
    pub(crate) said: &'a [u8],
}

/// Relays, beginning with what each end has already said. `meter` counts what is written to the upstream and read from it;
/// it is kept outside, so that a relay cut short has still counted.
pub(crate) async fn relay(client: End<'_>, upstream: End<'_>, limits: &Limits, meter: &Meter) -> Close {
    let (client_read, mut client_write) = client.stream.split();
    let (upstream_read, upstream_write) = upstream.stream.split();
    let up = pump(client.said, client_read, upstream_write, |count| meter.wrote(count));
    let down = async {
        // This was counted when it was read.
        client_write.write_all(upstream.said).await?;
        pump(&[], upstream_read, client_write, |count| meter.read(count)).await
    };
    tokio::pin!(up, down);
    let (close, upward_left) = tokio::select! {
        ended = &mut up => match ended { Ok(()) => (Close::Client, false), Err(_) => return Close::Reset },
        ended = &mut down => match ended { Ok(()) => (Close::Upstream, true), Err(_) => return Close::Reset },
        () = silence(limits.idle, || meter.total()) => return Close::Idle,
    };
    let rest = async { if upward_left { up.await } else { down.await } };
    tokio::select! {
        // What the client still says to an upstream that has ended is lost; an answer cut short is not an end.
        ended = rest => if upward_left || ended.is_ok() { close } else { Close::Reset },
        () = silence(limits.half_closed_idle, || meter.total()) => Close::Linger,
        () = sleep(limits.half_closed) => Close::Linger,
    }
}

/// One direction, to its end, which is passed on as a half-close.
async fn pump(first: &[u8], from: ReadHalf<'_>, mut to: WriteHalf<'_>, moved: impl Fn(usize)) -> io::Result<()> {
    to.write_all(first).await?;
    moved(first.len());
    loop {
        from.readable().await?;
        if !drain(&from, &mut to, &moved).await? {
            return to.shutdown().await;
        }
    }
}

/// Moves what is there now; false at the end of the stream.
async fn drain(from: &ReadHalf<'_>, to: &mut WriteHalf<'_>, moved: &impl Fn(usize)) -> io::Result<bool> {
    let mut buffer = vec![0; RELAY_BUFFER];
    loop {
        match from.try_read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                to.write_all(&buffer[..n]).await?;
                moved(n);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Closes both ends so that they hear at once that this is over, unless they ended it themselves.
pub(crate) fn cut(close: Close, client: &TcpStream, upstream: &TcpStream) {
    if matches!(close, Close::Idle | Close::Linger | Close::Reset | Close::Revoked) {
        for stream in [client, upstream] {
            // Nothing is left to say where this fails.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
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
