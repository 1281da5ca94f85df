//! Whether each list holds. What is fast because it asks nothing is no peer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::ensure;

use crate::load::http::request;
use crate::peers::Peer;
use crate::tunnel::{Route, Way, open};
use crate::wire::{BODY, FOREIGN, HTTP_PORT, TLS_PORT, loopback};

pub(crate) const COLUMNS: [&str; 6] =
    ["allowed name", "foreign name", "foreign SNI", "literal address", "other port", "plain HTTP to a foreign name"];

const PASSES: &str = "passes";
const REFUSED: &str = "refused";
const NOTHING: &str = "";

/// What becomes of each. An error where the bench would measure what it does not say: an allowed name that is refused, a
/// foreign one that is let through by a proxy that was told not to, a foreign SNI that passes egret.
pub(crate) fn try_all(peer: &Peer) -> anyhow::Result<[&'static str; 6]> {
    let route = |name: &str, target, sni: &str| Route::with_sni(peer.way, peer.entrance(), name, target, sni);
    let own = peer.host();
    open(&peer.route(), 1)?;
    let named = match peer.way {
        Way::Sni => [tried(&route(own, TLS_PORT, FOREIGN)), NOTHING, NOTHING, NOTHING],
        _ => [
            tried(&route(FOREIGN, TLS_PORT, FOREIGN)),
            tried(&route(own, TLS_PORT, FOREIGN)),
            // With an allowed name's SNI egret would let it through: that name leads there.
            tried(&route("127.0.0.1", TLS_PORT, FOREIGN)),
            tried(&route(own, HTTP_PORT, own)),
        ],
    };
    let plain = match peer.web() {
        Some((port, names_host)) => plain(port, &request(FOREIGN, names_host))?,
        None => NOTHING,
    };
    let all = [PASSES, named[0], named[1], named[2], named[3], plain];
    ensure!(!peer.is_ours() || all[1..].iter().all(|what| *what != PASSES), "egret's list does not hold: {all:?}");
    Ok(all)
}

fn tried(route: &Route) -> &'static str {
    if open(route, 1).is_ok() { PASSES } else { REFUSED }
}

fn plain(port: u16, request: &[u8]) -> anyhow::Result<&'static str> {
    let mut socket = TcpStream::connect(loopback(port))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.write_all(request)?;
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard);
    Ok(if heard.ends_with(&BODY) { PASSES } else { REFUSED })
}
