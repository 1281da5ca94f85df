//! Clients that never ask hold places of their own kind, and those that are served another kind: neither keeps the other
//! out.

use egret_policy::{Protocol, Reason};
use egret_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scene::{Scene, echo, endless, head_of};

/// What half-open clients have said so far, in every protocol.
const HALVES: [&[u8]; 6] =
    [b"", b"CONNECT allowed.te", b"GET http://allowed.test/ HTTP/1.1\r\n", &[5], &[4, 1, 0, 80], &[0x16, 3, 1, 2, 0]];

#[tokio::test]
async fn r06_half_open_clients_take_no_place_from_those_that_ask() {
    let scene = Scene::local(Limits { connections: 1, ..endless() }, Protocol::Any).await;
    let mut halves = Vec::new();
    for half in HALVES.iter().cycle().take(60) {
        let mut client = scene.connect().await;
        client.write_all(half).await.expect("the proxy takes bytes");
        halves.push(client);
    }
    let mut tunnel = scene.tunnel(echo().await).await;
    tunnel.write_all(b"\0hello").await.expect("the tunnel takes bytes");
    let mut heard = [0; 6];
    tunnel.read_exact(&mut heard).await.expect("the echo");
    assert_eq!(&heard, b"\0hello");
}

#[tokio::test]
async fn r06_established_tunnels_keep_nobody_from_being_told() {
    let scene = Scene::local(Limits { connections: 2, handshakes: 1, ..endless() }, Protocol::Tcp).await;
    let upstream = echo().await;
    let tunnels = [scene.tunnel(upstream).await, scene.tunnel(upstream).await];
    let target = format!("allowed.test:{}", upstream.port());
    let asked = scene.asked.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..3 {
        let (answer, _) = scene.ask(&target).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
        let mut client = scene.connect().await;
        client.write_all(format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.expect("sent");
        assert!(head_of(&mut client).await.starts_with("HTTP/1.1 503 "));
        for _ in 0..2 {
            let record = scene.record().await;
            assert_eq!(record.denial.map(|denial| denial.reason), Some(Reason::ConnectionLimit));
        }
    }
    assert_eq!(scene.asked.load(std::sync::atomic::Ordering::Relaxed), asked, "nothing is looked up for them");
    drop(tunnels);
    for _ in 0..2 {
        scene.record().await;
    }
    drop(scene.tunnel(upstream).await);
    assert!(scene.record().await.denial.is_none(), "their places are free again");
}

#[tokio::test]
async fn r06_more_half_open_clients_than_places_wait_and_are_served_in_their_turn() {
    let scene = Scene::local(Limits { handshakes: 2, ..endless() }, Protocol::Tcp).await;
    let halves = [scene.connect().await, scene.connect().await];
    let (mut waiting, upstream) = (scene.connect().await, echo().await);
    let head = format!("CONNECT allowed.test:{0} HTTP/1.1\r\nHost: allowed.test:{0}\r\n\r\n", upstream.port());
    waiting.write_all(head.as_bytes()).await.expect("the kernel takes bytes");
    drop(halves);
    assert!(head_of(&mut waiting).await.starts_with("HTTP/1.1 200 "));
}
