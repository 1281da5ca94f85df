//! A deadline for each phase of a client's request. A byte now and then moves none of them.

use std::time::Duration;

use egret_policy::{Protocol, Reason};
use egret_proxy::{Close, Limits, Record, Via};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scene::{NEVER, SOON, Scene, echo, endless, head_of, trickle};

const TIMED_OUT: Close = Close::Fault("client_timeout");

fn slow_request() -> Limits {
    Limits { request: SOON, ..endless() }
}

fn reason(record: &Record) -> Option<Reason> {
    record.denial.as_ref().map(|denial| denial.reason)
}

#[tokio::test]
async fn r08_a_trickled_request_ends_at_its_deadline_in_every_protocol() {
    let scene = Scene::local(slow_request(), Protocol::Any).await;
    let socks4a = [&[4, 1, 1, 187, 0, 0, 0, 1][..], &[b'u'; 255], &[0]].concat();
    for (first, again, via, answer) in [
        (&b"CON"[..], &b"N"[..0], None, &b""[..]),
        (b"CONNECT allowed.test:1 HTTP/1.1\r\nA: ", b"a", Some(Via::Connect), b"HTTP/1.1 408 "),
        (b"GET http://allowed.test/ HTTP/1.1\r\nA: ", b"a", Some(Via::Forward), b""),
        (&[5, 255], &[0], Some(Via::Socks5), &[5, 0xff]),
        (&[5, 1, 2, 1, 255], b"a", Some(Via::Socks5), &[5, 2]),
        (&[5, 1, 0, 5, 1, 0, 3, 255], b"a", Some(Via::Socks5), &[5, 0, 5, 1]),
        (&socks4a, b"a", Some(Via::Socks4), &[0, 91]),
        (&[0x16, 3, 1, 0x40, 0], &[0], Some(Via::Tls), &[0x15, 3, 1]),
    ] {
        let heard = trickle(scene.connect().await, first, if again.is_empty() { b"\0" } else { again }).await;
        let record = scene.record().await;
        if again.is_empty() {
            continue;
        }
        assert_eq!((record.close, record.via), (TIMED_OUT, via), "{record:?}");
        assert!(heard.starts_with(answer), "{via:?}: {}", heard.escape_ascii());
    }
    scene.all_ended().await;
}

#[tokio::test]
async fn r08_a_client_that_says_nothing_is_let_go() {
    let scene = Scene::local(slow_request(), Protocol::Any).await;
    let mut client = scene.connect().await;
    assert_eq!(client.read_to_end(&mut Vec::new()).await.expect("an orderly end"), 0);
    let record = scene.record().await;
    assert_eq!((record.close, record.via, record.decision()), (TIMED_OUT, None, None));
}

#[tokio::test]
async fn r08_a_trickled_hello_in_a_tunnel_ends_at_its_deadline() {
    let scene = Scene::local(Limits { first_flight: SOON, ..endless() }, Protocol::Tls).await;
    let upstream = echo().await;
    trickle(scene.tunnel(upstream).await, &[0x16, 3, 1, 0x40, 0], &[0]).await;
    let record = scene.record().await;
    assert_eq!((reason(&record), record.bytes_up), (Some(Reason::HelloMalformed), 0));
    let mut silent = scene.tunnel(upstream).await;
    assert_eq!(silent.read_to_end(&mut Vec::new()).await.expect("an orderly end"), 0);
    assert_eq!(reason(&scene.record().await), Some(Reason::NoFirstFlight));
    scene.all_ended().await;
}

#[tokio::test]
async fn r08_a_trickled_request_in_a_tunnel_ends_at_its_deadline() {
    let scene = Scene::local(Limits { first_flight: SOON, request: Duration::from_secs(1), ..endless() }, Protocol::Any).await;
    let tunnel = scene.tunnel(echo().await).await;
    trickle(tunnel, b"GET / HTTP/1.1\r\nA: ", b"a").await;
    let record = scene.record().await;
    assert_eq!((record.close, record.bytes_up), (TIMED_OUT, 0), "{record:?}");
}

#[tokio::test]
async fn r08_blanks_without_end_before_a_first_line_are_no_way_to_fill_memory() {
    let scene = Scene::local(endless(), Protocol::Any).await;
    let mut tunnel = scene.tunnel(echo().await).await;
    let (mut read, mut write) = tunnel.split();
    let mut heard = Vec::new();
    let flood = async { while write.write_all(&[b' '; 4096]).await.is_ok() {} };
    tokio::select! {
        _ = read.read_to_end(&mut heard) => {}
        () = flood => {}
    }
    let record = scene.record().await;
    assert_eq!((reason(&record), record.bytes_up), (Some(Reason::Malformed), 0), "{}", heard.escape_ascii());
}

#[tokio::test]
async fn r08_the_next_request_of_a_kept_connection_has_a_deadline_too() {
    let scene = Scene::local(Limits { keep_alive: SOON, ..endless() }, Protocol::Http).await;
    let mut client = scene.connect().await;
    client.write_all(b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n\r\n").await.expect("the proxy takes a request");
    assert!(head_of(&mut client).await.starts_with("HTTP/1.1 403 "));
    trickle(client, b"GET http://denied.test/ HTTP/1.1\r\nA: ", b"a").await;
    assert_eq!(scene.record().await.requests, 1);
    scene.all_ended().await;
}

#[tokio::test]
async fn r08_the_content_of_a_request_must_begin() {
    let scene = Scene::local(Limits { content: SOON, ..endless() }, Protocol::Http).await;
    let upstream = echo().await;
    let mut client = scene.connect().await;
    let head =
        format!("POST http://allowed.test:{}/ HTTP/1.1\r\nHost: allowed.test:{0}\r\nContent-Length: 5\r\n\r\n", upstream.port());
    client.write_all(head.as_bytes()).await.expect("the proxy takes a head");
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.expect("an answer and an end");
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    let record = scene.record().await;
    assert_eq!((record.requests, record.address, record.bytes_up), (1, None, 0), "nobody was dialled for it");
    assert!(NEVER > SOON);
}
