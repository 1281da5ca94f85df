//! The life of a tunnel: how long it may be silent, how long one half may outlive the other, and what happens when nobody
//! reads. A WebSocket in the clear is a tunnel like others.

use std::net::SocketAddr;
use std::time::Duration;

use egret_policy::Protocol;
use egret_proxy::{Close, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scene::{SOON, Scene, echo, endless, head_of, silent, upstream};

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A server that switches to a WebSocket, says these bytes in the same breath, and then does this.
async fn websocket(serve: fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> SocketAddr {
    upstream(move |mut stream| async move {
        head_of(&mut stream).await;
        if stream.write_all(&[SWITCHING, b"hi"].concat()).await.is_ok() {
            serve(stream).await;
        }
    })
    .await
}

/// A client that got its WebSocket, and what the server said at once.
async fn switched(scene: &Scene, upstream: SocketAddr) -> TcpStream {
    let mut client = scene.connect().await;
    let request = format!(
        "GET http://allowed.test:{}/ HTTP/1.1\r\nHost: allowed.test:{0}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        upstream.port()
    );
    client.write_all(request.as_bytes()).await.expect("the proxy takes a request");
    let answer = head_of(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut first = [0; 2];
    client.read_exact(&mut first).await.expect("what came with the answer");
    assert_eq!(&first, b"hi");
    client
}

fn forever(mut stream: TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { while stream.write_all(b"x").await.is_ok() && pause().await {} })
}

fn nothing(stream: TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
}

/// Between the bytes of somebody who never ends; far shorter than [`SOON`].
async fn pause() -> bool {
    tokio::time::sleep(Duration::from_millis(5)).await;
    true
}

/// Reads to the end, be it orderly or a reset.
async fn drained(client: &mut TcpStream) {
    let _ = client.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn r01_ten_megabytes_arrive_after_a_half_close() {
    const LARGE: usize = 10 << 20;
    let server = upstream(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let _ = stream.write_all(&vec![7; LARGE]).await;
    })
    .await;
    let scene = Scene::local(endless(), Protocol::Tcp).await;
    let mut client = scene.tunnel(server).await;
    client.write_all(b"all I have to say").await.expect("the tunnel takes bytes");
    client.shutdown().await.expect("one half ends");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("the whole answer");
    assert!(answer.len() == LARGE && answer.iter().all(|byte| *byte == 7));
    let record = scene.record().await;
    assert_eq!((record.close, record.bytes_up, record.bytes_down), (Close::Client, 17, LARGE as u64));
    scene.all_ended().await;
}

#[tokio::test]
async fn r02_silence_after_a_half_close_is_bounded_whichever_side_ended() {
    let scene = Scene::local(Limits { half_closed_idle: SOON, ..endless() }, Protocol::Tcp).await;
    let mut client = scene.tunnel(silent().await).await;
    client.shutdown().await.expect("one half ends");
    drained(&mut client).await;
    assert_eq!(scene.record().await.close, Close::Linger);
    let ended = upstream(|mut stream| async move {
        let _ = stream.shutdown().await;
        nothing(stream).await;
    })
    .await;
    let mut client = scene.tunnel(ended).await;
    drained(&mut client).await;
    assert_eq!(scene.record().await.close, Close::Linger);
    drop(client);
    scene.all_ended().await;
}

#[tokio::test]
async fn r02_a_half_that_never_ends_is_bounded_however_busy() {
    let scene = Scene::local(Limits { half_closed: SOON, ..endless() }, Protocol::Tcp).await;
    let mut client = scene.tunnel(upstream(forever).await).await;
    client.shutdown().await.expect("one half ends");
    drained(&mut client).await;
    let record = scene.record().await;
    assert_eq!(record.close, Close::Linger);
    scene.all_ended().await;
}

#[tokio::test]
async fn r02_a_websocket_that_is_half_closed_is_bounded_too() {
    for (limits, serve) in [
        (Limits { half_closed_idle: SOON, ..endless() }, nothing as fn(_) -> _),
        (Limits { half_closed: SOON, ..endless() }, forever),
    ] {
        let scene = Scene::local(limits, Protocol::Http).await;
        let mut client = switched(&scene, websocket(serve).await).await;
        client.shutdown().await.expect("one half ends");
        drained(&mut client).await;
        let record = scene.record().await;
        assert_eq!((record.close, record.requests), (Close::Linger, 1), "{record:?}");
        scene.all_ended().await;
    }
}

#[tokio::test]
async fn r02_a_websocket_still_hears_what_comes_after_its_half_close() {
    let late = |mut stream: TcpStream| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said).await;
            let _ = stream.write_all(&said).await;
        })
    };
    let scene = Scene::local(endless(), Protocol::Http).await;
    let mut client = switched(&scene, websocket(late).await).await;
    client.write_all(b"and thanks").await.expect("the socket takes bytes");
    client.shutdown().await.expect("one half ends");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).await.expect("an orderly end");
    assert_eq!(heard, b"and thanks");
    let record = scene.record().await;
    assert_eq!(record.close, Close::Client);
    assert_eq!(record.bytes_down, SWITCHING.len() as u64 + 12, "the answer, what came with it, and the echo");
}

#[tokio::test]
async fn r10_a_silent_tunnel_ends_at_the_idle_limit_and_a_busy_one_does_not() {
    let scene = Scene::local(Limits { idle: SOON, ..endless() }, Protocol::Tcp).await;
    let mut busy = scene.tunnel(upstream(forever).await).await;
    let mut quiet = scene.tunnel(silent().await).await;
    drained(&mut quiet).await;
    let record = scene.record().await;
    assert_eq!((record.close, record.bytes_down), (Close::Idle, 0), "{record:?}");
    assert!(busy.read_u8().await.is_ok(), "its neighbour is served on");
    drop(busy);
    assert_ne!(scene.record().await.close, Close::Idle);
    scene.all_ended().await;
}

#[tokio::test]
async fn r10_a_silent_websocket_ends_at_the_idle_limit() {
    let scene = Scene::local(Limits { idle: SOON, ..endless() }, Protocol::Http).await;
    let mut client = switched(&scene, websocket(nothing).await).await;
    drained(&mut client).await;
    assert_eq!(scene.record().await.close, Close::Idle);
    scene.all_ended().await;
}

#[tokio::test]
async fn r03_a_reset_on_one_side_ends_the_other() {
    let scene = Scene::local(endless(), Protocol::Tcp).await;
    let mut client = scene.tunnel(upstream(forever).await).await;
    client.read_u8().await.expect("the tunnel is alive");
    // Closed with bytes unread, to which the kernel answers with a reset.
    drop(client);
    assert_eq!(scene.record().await.close, Close::Reset);
    scene.all_ended().await;
}

#[tokio::test]
async fn r16_two_ends_that_do_not_read_stop_nobody_else_and_lose_nothing() {
    const EACH: usize = 24 << 20;
    let scene = Scene::local(endless(), Protocol::Tcp).await;
    let (go, _) = tokio::sync::broadcast::channel::<()>(1);
    let gone = go.clone();
    let server = upstream(move |stream| {
        let go = gone.subscribe();
        async move { assert_eq!(exchange(stream, go).await, EACH) }
    })
    .await;
    let client = scene.tunnel(server).await;
    let ours = tokio::spawn(exchange(client, go.subscribe()));
    // While both write and neither reads, the runtime serves others.
    let mut other = scene.tunnel(echo().await).await;
    for _ in 0..100 {
        other.write_all(b"ping").await.expect("the tunnel takes bytes");
        other.read_exact(&mut [0; 4]).await.expect("the echo");
    }
    drop(other);
    assert_eq!(scene.record().await.bytes_down, 400);
    while go.receiver_count() < 2 {
        tokio::task::yield_now().await;
    }
    go.send(()).expect("both wait");
    assert_eq!(ours.await.expect("no panic"), EACH);
    let record = scene.record().await;
    assert_eq!((record.bytes_up, record.bytes_down), (EACH as u64, EACH as u64), "{record:?}");
    scene.all_ended().await;

    /// Writes everything, and begins to read when told; how much it read.
    async fn exchange(mut stream: TcpStream, mut go: tokio::sync::broadcast::Receiver<()>) -> usize {
        let (mut read, mut write) = stream.split();
        let writing = async {
            write.write_all(&vec![1; EACH]).await.expect("everything is taken in the end");
            write.shutdown().await.expect("one half ends");
        };
        let mut heard = Vec::new();
        let reading = async {
            go.recv().await.expect("somebody says when");
            read.read_to_end(&mut heard).await.expect("an orderly end");
        };
        tokio::join!(writing, reading);
        heard.len()
    }
}
