use std::future::poll_fn;
use std::io::{Read, Write};

use tokio::net::TcpListener;

use super::*;

/// Both ends of a connection: tokio's, and the peer's.
async fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, peer)
}

async fn filled(pipe: &mut Pipe, from: &TcpStream) -> Filled {
    from.readable().await.unwrap();
    pipe.fill(from).unwrap()
}

#[tokio::test]
async fn what_is_there_goes_and_the_pipe_is_lent_again() {
    let pipes = Pipes::default();
    let ((from, mut source), (to, mut sink)) = (pair().await, pair().await);
    for said in ["first", "second"] {
        source.write_all(said.as_bytes()).unwrap();
        let (mut pipe, mut moved) = (pipes.lend().unwrap(), 0);
        assert_eq!(filled(&mut pipe, &from).await, Filled::Octets(said.len()));
        poll_fn(|cx| pipe.poll_empty(cx, &to, &mut |count| moved += count)).await.unwrap();
        assert_eq!((moved, pipe.fill(&from).unwrap()), (said.len(), Filled::Dry));
        pipes.take_back(pipe);
        let mut heard = vec![0; said.len()];
        sink.read_exact(&mut heard).unwrap();
        assert_eq!(heard, said.as_bytes());
    }
    assert_eq!(pipes.spare().len(), 1);
    drop(source);
    assert_eq!(filled(&mut pipes.lend().unwrap(), &from).await, Filled::End);
}

#[tokio::test]
async fn a_pipe_with_bytes_in_it_is_lent_to_nobody_else() {
    let pipes = Pipes::default();
    let (from, mut source) = pair().await;
    source.write_all(b"for somebody").unwrap();
    let mut pipe = pipes.lend().unwrap();
    assert_eq!(filled(&mut pipe, &from).await, Filled::Octets(12));
    pipes.take_back(pipe);
    assert_eq!((pipes.spare().len(), pipes.places.available_permits()), (0, MAX_PIPES));
}

#[test]
fn there_are_no_more_than_the_limit_and_none_once_given_up() {
    let pipes = Pipes::default();
    let mut lent: Vec<Pipe> = std::iter::from_fn(|| pipes.lend()).collect();
    assert_eq!(lent.len(), MAX_PIPES);
    pipes.take_back(lent.pop().unwrap());
    assert!(pipes.lend().is_some_and(|pipe| {
        lent.push(pipe);
        true
    }));
    pipes.give_up();
    pipes.take_back(lent.pop().unwrap());
    drop(lent);
    assert!(pipes.lend().is_none());
}
