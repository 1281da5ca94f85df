//! What others fail to do: resolvers and upstreams that never answer, clients that go, and a bug of ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use egret_policy::Protocol;
use egret_proxy::{Close, Limits, Stage};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{Entry, SOON, Scene, echo, endless, hello, silent};

/// A port of this address at which the kernel drops every SYN: its queue is full, and nobody accepts (listen(2)).
fn black_hole(at: Ipv4Addr) -> (SocketAddr, Vec<Socket>) {
    let address = |port| socket2::SockAddr::from(SocketAddr::from((at, port)));
    let hole = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    hole.bind(&address(0)).expect("a port");
    hole.listen(0).expect("it listens");
    let bound = hole.local_addr().expect("an address").as_socket().expect("of IPv4");
    let mut sockets = vec![hole];
    for _ in 0..4 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("a socket takes the option");
        let _ = filler.connect(&bound.into());
        sockets.push(filler);
    }
    (bound, sockets)
}

#[tokio::test]
async fn r11_an_upstream_that_never_accepts_is_a_504_with_its_reason() {
    let (hole, _sockets) = black_hole(Ipv4Addr::LOCALHOST);
    let scene = Scene::local(Limits { connect_one: SOON, ..endless() }, Protocol::Tcp).await;
    let (answer, mut client) = scene.ask(&format!("allowed.test:{}", hole.port())).await;
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("connection_timeout"), "{answer}");
    client.read_to_end(&mut Vec::new()).await.expect("an orderly end");
    assert_eq!(scene.record().await.close, Close::Fault("connect_timeout"));
    scene.all_ended().await;
}

#[tokio::test]
async fn r11_the_next_address_is_tried_beside_one_that_never_accepts() {
    let (hole, _sockets) = black_hole(Ipv4Addr::new(127, 0, 0, 2));
    let second = Ipv4Addr::new(127, 0, 0, 3);
    let listener = TcpListener::bind((second, hole.port())).await.expect("the port is free at another address");
    let names = vec![("allowed.test", Entry::At(vec![hole.ip(), IpAddr::V4(second)]))];
    let scene = Scene::new(endless(), Protocol::Tcp, names).await;
    let client = scene.tunnel(hole).await;
    assert!(listener.accept().await.is_ok());
    drop(client);
    assert_eq!(scene.record().await.address.map(|address| address.ip()), Some(IpAddr::V4(second)));
}

#[tokio::test]
async fn r11_an_upstream_that_never_answers_is_let_go_by_the_idle_limit() {
    let scene = Scene::local(Limits { idle: SOON, ..endless() }, Protocol::Http).await;
    let upstream = silent().await;
    let mut client = scene.connect().await;
    let request = format!("GET http://allowed.test:{0}/ HTTP/1.1\r\nHost: allowed.test:{0}\r\n\r\n", upstream.port());
    client.write_all(request.as_bytes()).await.expect("the proxy takes a request");
    let _ = client.read_to_end(&mut Vec::new()).await;
    let record = scene.record().await;
    assert_eq!((record.close, record.requests), (Close::Idle, 1), "{record:?}");
    scene.all_ended().await;
}

#[tokio::test]
async fn r13_a_client_that_vanishes_during_dns_or_dial_ends_them() {
    let (hole, _sockets) = black_hole(Ipv4Addr::LOCALHOST);
    let names = || vec![("silent.test", Entry::Silent), ("allowed.test", Entry::At(vec![Ipv4Addr::LOCALHOST.into()]))];
    for (protocol, resets) in [(Protocol::Tls, false), (Protocol::Tls, true), (Protocol::Tcp, true), (Protocol::Any, true)] {
        // No deadline would end them.
        let scene = Scene::new(endless(), protocol, names()).await;
        for (target, stage) in
            [("silent.test:443".to_owned(), Stage::Resolve), (format!("allowed.test:{}", hole.port()), Stage::Connect)]
        {
            let asked = scene.asked.load(Ordering::Relaxed);
            let mut client = scene.connect().await;
            client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.expect("sent");
            // A reset overtakes what was said before.
            while resets && scene.asked.load(Ordering::Relaxed) == asked {
                tokio::task::yield_now().await;
            }
            leave(client, resets);
            let record = scene.record().await;
            assert_eq!((record.close, record.stage), (Close::Fault("client_gone"), stage), "{protocol:?} {resets}");
        }
        scene.all_ended().await;
    }
}

/// Goes, well or not.
fn leave(client: TcpStream, resets: bool) {
    if resets {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket takes the option");
    }
    drop(client);
}

#[tokio::test]
async fn r13_a_client_that_has_said_more_and_is_reset_ends_what_is_done_for_it() {
    let scene = Scene::new(endless(), Protocol::Any, vec![("silent.test", Entry::Silent)]).await;
    let mut client = scene.connect().await;
    client.write_all(b"CONNECT silent.test:443 HTTP/1.1\r\nHost: silent.test\r\n\r\nand more").await.expect("sent");
    while scene.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    leave(client, true);
    assert_eq!(scene.record().await.close, Close::Fault("client_gone"));
    scene.all_ended().await;
}

#[tokio::test]
async fn r13_a_confined_program_that_vanishes_ends_what_is_done_for_it() {
    let (hole, _sockets) = black_hole(Ipv4Addr::LOCALHOST);
    let names = || vec![("silent.test", Entry::Silent), ("allowed.test", Entry::At(vec![Ipv4Addr::LOCALHOST.into()]))];
    let scene = Scene::new(endless(), Protocol::Tls, names()).await;
    for resets in [false, true] {
        for (name, stage) in [("silent.test", Stage::Resolve), ("allowed.test", Stage::Connect)] {
            let asked = scene.asked.load(Ordering::Relaxed);
            let mut program = scene.confined(hole).await;
            program.write_all(&hello(name)).await.expect("sent");
            while scene.asked.load(Ordering::Relaxed) == asked {
                tokio::task::yield_now().await;
            }
            leave(program, resets);
            let record = scene.record().await;
            assert_eq!((record.close, record.stage), (Close::Fault("client_gone"), stage), "{name} {resets}");
        }
    }
    // What its address stands for is known: it is dialled before it shows anything.
    scene.confined_asks_for("allowed.test").await;
    for resets in [false, true] {
        leave(scene.confined(hole).await, resets);
        let record = scene.record().await;
        assert_eq!((record.close, record.stage), (Close::Fault("client_gone"), Stage::Connect), "{resets}");
    }
    // It shows another name than its address stands for.
    let asked = scene.asked.load(Ordering::Relaxed);
    let mut program = scene.confined(silent().await).await;
    program.write_all(&hello("silent.test")).await.expect("sent");
    while scene.asked.load(Ordering::Relaxed) == asked {
        tokio::task::yield_now().await;
    }
    leave(program, false);
    let record = scene.record().await;
    assert_eq!((record.close, record.stage), (Close::Fault("client_gone"), Stage::Confirm));
    scene.all_ended().await;
}

#[tokio::test]
async fn r13_a_client_that_has_said_all_before_the_answer_still_hears_a_server_that_speaks_first() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let target = format!("allowed.test:{}", listener.local_addr().expect("an address").port());
    for protocol in [Protocol::Tcp, Protocol::Any] {
        let scene = Scene::local(endless(), protocol).await;
        let mut client = scene.connect().await;
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.expect("sent");
        client.shutdown().await.expect("a half-close");
        let (mut upstream, _) = listener.accept().await.expect("egret dials");
        upstream.write_all(b"220 hello\r\n").await.expect("sent");
        drop(upstream);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("an orderly end");
        assert!(heard.ends_with("\r\n\r\n220 hello\r\n"), "{protocol:?}: {heard}");
    }
}

#[tokio::test]
async fn r15_a_panic_ends_its_connection_alone_and_is_recorded() {
    let names = vec![("bug.test", Entry::Panic), ("allowed.test", Entry::At(vec![Ipv4Addr::LOCALHOST.into()]))];
    let scene = Scene::new(endless(), Protocol::Tcp, names).await;
    let mut neighbour = scene.tunnel(echo().await).await;
    let (answer, _) = scene.ask("bug.test:443").await;
    assert_eq!(answer, "", "nothing can be said");
    let record = scene.record().await;
    assert_eq!((record.close, record.target.map(|target| target.to_string())), (Close::Panic, Some("bug.test:443".into())));
    neighbour.write_all(b"still here").await.expect("the tunnel takes bytes");
    neighbour.read_exact(&mut [0; 10]).await.expect("the echo");
    drop(neighbour);
    assert_eq!(scene.record().await.bytes_up, 10);
    scene.all_ended().await;
}

#[tokio::test]
async fn r12_a_refusal_waits_for_nobody() {
    // If it asked the resolver, it would never come.
    let scene = Scene::new(endless(), Protocol::Tcp, vec![("allowed.test", Entry::Silent)]).await;
    let (answer, _) = scene.ask("denied.test:443").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let record = scene.record().await;
    assert_eq!((record.close, scene.asked.load(Ordering::Relaxed)), (Close::Denied, 0));
    assert!(record.duration < Duration::from_secs(10));
}
