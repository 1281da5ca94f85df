//! Sockets that are in use already stay what they are, whatever is asked of them.

use crate::yard::{confined, is_possible, unconfined};

#[test]
fn a_socket_that_listens_or_was_accepted_is_connected_already() {
    if !is_possible() {
        return;
    }
    let python = r#"
near = tcp(); near.bind(("127.0.0.1", 0)); near.listen(5); where = near.getsockname()
print("listens", outcome(near.connect, where), outcome(tcp().connect, where))
near.accept(); client = tcp(); client.connect(where); served, peer = near.accept()
print("accepted", outcome(served.connect, where)); served.sendall(b"still here"); print(client.recv(10), peer[0])
"#;
    let (ours, kernels) = (confined(python), unconfined(python));
    ours.went_well().said("listens EISCONN ok").said("accepted EISCONN");
    assert_eq!(ours.stdout, kernels.stdout);
}

/// More than are remembered.
#[test]
fn of_many_connections_the_first_is_still_one() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
near = tcp(); near.bind(("127.0.0.1", 0)); near.listen(4096); where = near.getsockname(); connected = []
for _ in range(1200): s = tcp(); s.connect(where); connected.append(s)
a, peer = near.accept(); first = connected[0]
print("first", peer == first.getsockname(), outcome(first.connect, where), outcome(first.connect, EVIL))
a.sendall(b"alive"); print(first.recv(5))
"#,
    );
    ran.went_well().said("first True EISCONN EISCONN").said("b'alive'");
    assert!(ran.activity.contains("replaced: 0"), "{ran:#?}");
}

/// A copy keeps a socket open that the app has closed, and epoll tells of whatever is open.
#[test]
fn what_is_closed_is_forgotten_by_epoll() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
BOTH = select.EPOLLIN | select.EPOLLOUT
waits = select.epoll(); s = tcp(); s.setblocking(False); waits.register(s, BOTH)
print("refused", outcome(s.connect, EVIL)); s.close()
while waits.poll(0): time.sleep(0.05)
print("forgotten")
kept = tcp()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    waits = select.epoll(); s = socket.socket(socket.AF_INET, kind); waits.register(s, BOTH); s.close()
    while waits.poll(0): time.sleep(0.05)
    print("forgotten")
waits = select.epoll(); s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("192.0.2.53", 53)); waits.register(s, BOTH); s.close()
while waits.poll(0): time.sleep(0.05)
print("forgotten")
kept.connect(GOOD); print("kept", greeting(kept))
"#,
    );
    ran.went_well().said("refused EACCES").said("kept 203.0.113.7:443");
    assert_eq!(ran.stdout.matches("forgotten").count(), 4, "{ran:#?}");
    assert!(ran.activity.contains("replaced: 0"), "{ran:#?}");
}
