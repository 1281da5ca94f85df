use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as Peer};
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;

use super::*;

const SIZE: usize = 8 << 20;

/// Both ends of a connection: tokio's, and the peer's.
async fn pair() -> (TcpStream, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, peer)
}

/// No two places of it are alike within some megabytes, so that what is lost, doubled or swapped is noticed.
fn text(seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()
    };
    std::iter::repeat_with(next).take(SIZE / 4).flatten().collect()
}

/// Says it in pieces of all sizes, and then no more.
fn say(mut peer: &Peer, text: &[u8]) {
    let mut rest = text;
    for size in [1, 100, 1 << 20, 7, 300_000].into_iter().cycle() {
        let (piece, left) = rest.split_at(size.min(rest.len()));
        peer.write_all(piece).unwrap();
        rest = left;
        if rest.is_empty() {
            break;
        }
    }
    peer.shutdown(Shutdown::Write).unwrap();
}

/// Says one text, and gives back what it hears to the end.
fn talk(peer: Peer, seed: u32) -> JoinHandle<Vec<u8>> {
    let speaker = peer.try_clone().unwrap();
    thread::spawn(move || say(&speaker, &text(seed)));
    thread::spawn(move || {
        let mut heard = Vec::new();
        (&peer).take(1_000).read_to_end(&mut heard).unwrap();
        (&peer).read_to_end(&mut heard).unwrap();
        heard
    })
}

async fn both_ways(pipes: Pipes) {
    let ((mut client, client_peer), (mut upstream, upstream_peer)) = (pair().await, pair().await);
    let (asker, answerer) = (talk(client_peer, 1), talk(upstream_peer, 2));
    let (limits, meter) = (Limits::default(), Meter::default());
    let ends = (
        End { stream: &mut client, said: Bytes::from_static(b"before") },
        End { stream: &mut upstream, said: Bytes::from_static(b"known") },
    );
    let close = relay(ends.0, ends.1, &pipes, &limits, &meter).await;
    drop((client, upstream));
    assert!(matches!(close, Close::Client | Close::Upstream), "{close:?}");
    assert_eq!(meter.both(), (SIZE as u64, (b"before".len() + SIZE) as u64), "what was known was counted when it was read");
    assert!(answerer.join().unwrap() == [&b"before"[..], &text(1)].concat(), "the upstream heard something else");
    assert!(asker.join().unwrap() == [&b"known"[..], &text(2)].concat(), "the client heard something else");
}

#[tokio::test]
async fn what_is_said_in_bulk_both_ways_arrives_whole_and_is_counted() {
    both_ways(Pipes::default()).await;
}

#[tokio::test]
async fn so_it_does_without_pipes() {
    let pipes = Pipes::default();
    pipes.give_up();
    both_ways(pipes).await;
}

#[tokio::test]
async fn a_direction_that_pauses_gives_its_pipe_back_and_takes_one_again_for_the_next_bulk() {
    let pipes = Pipes::default();
    let ((mut client, speaker), (mut upstream, listener)) = (pair().await, pair().await);
    let (limits, meter) = (Limits::default(), Meter::default());
    let relaying = async {
        let client = End { stream: &mut client, said: Bytes::new() };
        let upstream = End { stream: &mut upstream, said: Bytes::new() };
        relay(client, upstream, &pipes, &limits, &meter).await
    };
    let scene = async {
        let mut lent = 0;
        for round in 1..=3_u64 {
            let mut hearing = listener.try_clone().unwrap();
            let hears = thread::spawn(move || hearing.read_exact(&mut vec![0; SIZE]));
            let mut saying = speaker.try_clone().unwrap();
            let says = thread::spawn(move || saying.write_all(&text(3)));
            while meter.total() < round * SIZE as u64 {
                lent = lent.max(pipes.lent());
                tokio::task::yield_now().await;
            }
            says.join().unwrap().unwrap();
            hears.join().unwrap().unwrap();
            let idle = async {
                while pipes.lent() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), idle).await.expect("an idle direction gives its pipe back");
        }
        assert_eq!(lent, 1, "bulk went without a pipe");
    };
    tokio::select! { close = relaying => panic!("{close:?}"), () = scene => {} }
}
