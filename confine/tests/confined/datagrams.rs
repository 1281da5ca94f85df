//! Datagrams to daemons of this machine, which the egress lets pass; and to nobody else.

use crate::yard::{Ground, confined, ground, is_possible};

const DAEMON: &str = r#"
def udp(family=socket.AF_INET): return socket.socket(family, socket.SOCK_DGRAM)
def daemon(family=socket.AF_INET, host="127.0.0.1"):
    s = udp(family); s.bind((host, 0)); s.settimeout(20); return s, s.getsockname()
"#;

fn with_daemon(python: &str) -> crate::yard::Outcome {
    confined(&format!("{DAEMON}{python}"))
}

/// Without the wait for fatal signals only, nothing is written into the app's memory, so that addresses are not told.
fn tells_addresses() -> bool {
    ground() != Ground::OldKernel
}

#[test]
fn test_41_datagrams_of_connected_sockets() {
    if !is_possible() {
        return;
    }
    let ran = with_daemon(
        r#"
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    d, there = daemon(family, host); c = udp(family); c.settimeout(20); c.connect(there)
    c.send(b"one"); os.write(c.fileno(), b"two"); c.sendmsg([b"th", b"ree"]); c.send(b""); c.sendto(b"five", there)
    came = sorted((d.recv(99) for _ in range(5))); print("came", came)
    c.send(b"who"); _, who = d.recvfrom(99); d.sendto(b"answer", who); print("answer", c.recv(99))
    d.sendto(b"a longer one", who); print("cut", c.recv(6))
d, there = daemon(); c = udp(socket.AF_INET6); c.connect(("::ffff:127.0.0.1", there[1])); c.send(b"mapped"); print(d.recv(99))
c = udp(); c.connect(there); big = b"x" * 60000; print("big", c.send(big), len(d.recv(65535)))
"#,
    );
    ran.went_well().said("b'mapped'").said("big 60000 60000").was_asked("datagram 127.0.0.1:").was_asked("datagram [::1]:");
    assert_eq!(ran.stdout.matches("came [b'', b'five', b'one', b'three', b'two']").count(), 2, "{ran:#?}");
    assert_eq!(ran.stdout.matches("answer b'answer'\ncut b'a long'").count(), 2, "{ran:#?}");
}

#[test]
fn test_41_a_connected_socket_looks_like_one() {
    if !is_possible() || !tells_addresses() {
        return;
    }
    let ran = with_daemon(
        r#"
d, there = daemon(); c = udp(); c.connect(there); print("peer", c.getpeername() == there)
c.send(b"x"); _, who = d.recvfrom(9); print("here", c.getsockname() == who)
d.sendto(b"answer", who); print("from", c.recvfrom(99) == (b"answer", there))
free, nobody = daemon(); free.close(); free = udp(); free.bind(nobody); free.close(); c = udp(); c.connect(nobody); c.send(b"x"); print("nobody", outcome(c.recvfrom, 9))
c.setblocking(False); print("once", outcome(c.recvfrom, 9))
"#,
    );
    ran.went_well().said("peer True").said("here True").said("from True").said("nobody ECONNREFUSED").said("once EAGAIN");
}

#[test]
fn test_41_datagrams_without_connecting() {
    if !is_possible() {
        return;
    }
    let ran = with_daemon(
        r#"
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    d, there = daemon(family, host)
    for bind in (None, 0, "fixed"):
        c = udp(family); c.settimeout(20)
        if bind == 0: c.bind((host, 0))
        if bind == "fixed":
            free, (_, port, *_) = daemon(family, host); free.close(); c.bind((host, port))
        print("sent", c.sendto(b"trace", there)); message, who = d.recvfrom(99); print(message)
        if bind != "fixed": d.sendto(b"answer", who); print(c.recvfrom(99) == (b"answer", there))
d, there = daemon(); kept = [udp() for _ in range(600)]; print("long ago", kept[0].sendto(b"late", there), d.recv(9))
print("big", udp().sendto(b"x" * 65507, there), len(d.recv(65535)), outcome(udp().sendto, b"x" * 65508, there))
"#,
    );
    ran.went_well().said("long ago 4 b'late'").said("big 65507 65507 EMSGSIZE");
    assert_eq!(ran.stdout.matches("sent 5\nb'trace'\n").count(), 6, "{ran:#?}");
    assert_eq!(ran.stdout.matches("\nTrue\n").count(), 4, "{ran:#?}");
}

#[test]
fn test_41_datagrams_to_nobody_else() {
    if !is_possible() {
        return;
    }
    let ran = with_daemon(
        r#"
d, there = daemon(); near = ("127.0.0.1", 9); c = udp(); c.connect(there); nobody = (ctypes.c_char * 16)()
print("elsewhere", outcome(c.sendto, b"secret", EVIL), outcome(c.sendto, b"secret", near), outcome(c.connect, EVIL))
print("disconnected", libc.connect(c.fileno(), nobody, 16), outcome(c.sendto, b"secret", EVIL))
print("message", outcome(c.sendmsg, [b"secret"], [], 0, EVIL) == "EPIPE")
print("fresh", outcome(udp().sendto, b"secret", near), outcome(udp().connect, near), outcome(udp().sendmsg, [b"x"], [], 0, there))
c = udp(); c.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); print("all", outcome(c.sendto, b"secret", ("255.255.255.255", 8125)), outcome(c.sendto, b"secret", ("127.255.255.255", 8125)))
"#,
    );
    ran.went_well()
        .said("elsewhere EACCES EACCES ok")
        .said("disconnected 0 EACCES")
        .said("message True")
        .said("fresh EACCES ok EPIPE")
        .said("all EACCES EACCES")
        .was_asked("nodatagram 198.51.100.66:443")
        .was_asked("nodatagram 127.0.0.1:9");
}

#[test]
fn test_41_the_one_that_is_idle_goes() {
    if !is_possible() {
        return;
    }
    let ran = with_daemon(
        r#"
d, there = daemon(); kept = []
for i in range(400):
    c = udp(); c.connect(there); kept.append(c)
    c = kept[0]; c.send(b"%d" % i); assert d.recv(9) == b"%d" % i
print("idle", outcome(kept[1].send, b"x"), "used", outcome(kept[0].send, b"y"), d.recv(9))
kept[-1].send(b"z"); print("newest", d.recv(9))
"#,
    );
    ran.went_well().said("idle ECONNREFUSED used ok b'y'").said("newest b'z'");
}
