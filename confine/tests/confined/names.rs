//! Names resolve for whoever asks, by the ways in which resolvers ask; and only those that are allowed.

use crate::yard::{Outcome, confined, is_possible, not_tested};

/// Builds, sends and reads DNS messages.
const DNS: &str = r#"
def query(name, kind=1, id=0x1234):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return struct.pack("!HHHHHH", id, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
def verdict(answer):
    return "id %x code %d answers %d" % (*struct.unpack("!H", answer[:2]), answer[3] & 15, answer[7])
NAMESERVER, REAL = ("192.0.2.53", 53), ("127.0.0.1", int(os.environ["REAL_NAMESERVER"]))
def udp(family=socket.AF_INET): return socket.socket(family, socket.SOCK_DGRAM)
"#;

fn resolving(python: &str) -> Outcome {
    confined(&format!("{DNS}{python}"))
}

#[test]
fn test_31_the_c_library() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
print("good", socket.gethostbyname("www.good.example"))
print("both", sorted({a[4][0] for a in socket.getaddrinfo("api.good.example", 443)}))
try: print(socket.gethostbyname("www.bad.example"))
except socket.gaierror as error: print("bad", error.errno == socket.EAI_NONAME)
s = socket.create_connection(("www.good.example", 443)); print(greeting(s))
"#,
    );
    ran.went_well().said("good 203.0.113.7").said("both ['203.0.113.7']").said("bad True").said("203.0.113.7:443");
    ran.was_asked("name www.good.example /usr/bin/python3").was_asked("noname www.bad.example /usr/bin/python3");
}

#[test]
fn test_31_a_connected_socket_looks_like_what_it_stands_for() {
    if !is_possible() {
        return;
    }
    let ran = resolving(
        r#"
s = udp(); s.connect(NAMESERVER)
print("peer", s.getpeername(), "here", s.getsockname()[0])
s.send(query("www.good.example")); answer, sender = s.recvfrom(512); print(verdict(answer), sender)
s.sendto(query("www.bad.example"), NAMESERVER); answer, sender = s.recvfrom(512); print(verdict(answer), sender)
os.write(s.fileno(), query("www.good.example", 28)); print(verdict(s.recv(512)))
print("cut", len(s.recvfrom(5, socket.MSG_DONTWAIT | socket.MSG_PEEK)[0]) if s.send(query("www.good.example")) and select.select([s], [], [], 20)[0] else 0)
print("evil", outcome(s.sendto, b"secret", EVIL))
s.setblocking(False); s.recv(512); print("empty", outcome(s.recvfrom, 512))
s.setblocking(True)
threading.Timer(0.2, lambda: s.send(query("late.good.example"))).start(); print("waited", verdict(s.recvfrom(512)[0]))
s.connect(REAL); print("again", s.getpeername() == REAL); s.send(query("www.good.example")); print(verdict(s.recv(512)))
"#,
    );
    ran.went_well()
        .said("peer ('192.0.2.53', 53) here 192.0.2.2")
        .said("id 1234 code 0 answers 1 ('192.0.2.53', 53)")
        .said("id 1234 code 3 answers 0 ('192.0.2.53', 53)")
        .said("id 1234 code 0 answers 0")
        .said("cut 5")
        .said("evil EACCES")
        .said("empty EAGAIN")
        .said("waited id 1234 code 0 answers 1")
        .said("again True");
    assert!(ran.heard.is_empty(), "{ran:#?}");
}

/// musl and others send without connecting, and compare the sender of what comes back with the nameserver. So the answer is the
/// nameserver's own; who compares its question as well hears of a refusal at once.
#[test]
fn test_31_a_socket_that_is_not_connected() {
    if !is_possible() {
        return;
    }
    let ran = resolving(
        r#"
for bound in (False, True):
    s = udp()
    if bound: s.bind(("0.0.0.0", 0))
    print("sent", s.sendto(query("www.good.example"), REAL) == len(query("www.good.example")))
    answer, sender = s.recvfrom(512); print(verdict(answer), sender == REAL)
    print("secret", outcome(s.sendto, query("secret.bad.example", id=0x77), REAL))
    answer, sender = s.recvfrom(512); print(verdict(answer), sender == REAL)
s = udp(socket.AF_INET6); s.sendto(query("www.good.example"), ("::ffff:127.0.0.1", REAL[1])); print("mapped", verdict(s.recv(512)))
print("evil", outcome(udp().sendto, query("www.good.example"), EVIL), outcome(udp().sendto, b"x" * 5000, REAL))
"#,
    );
    ran.went_well().said("evil EACCES EMSGSIZE").said("mapped id 1234 code 0 answers 1");
    assert_eq!(ran.stdout.matches("id 1234 code 0 answers 1 True").count(), 2, "{ran:#?}");
    assert_eq!(ran.stdout.matches("secret ECONNREFUSED").count(), 2, "{ran:#?}");
    assert_eq!(ran.stdout.matches("id 77 code 3 answers 0 True").count(), 2, "{ran:#?}");
    let good = "www.good.example";
    assert_eq!(ran.heard, [good, "invalid", good, "invalid", good], "what was refused was not heard of");
}

#[test]
fn test_31_sockets_that_stand_for_others_are_limited() {
    if !is_possible() {
        return;
    }
    let ran = resolving(
        r#"
kept = []
for _ in range(600):
    s = udp(); s.connect(NAMESERVER); kept.append(s)
print("oldest", outcome(kept[0].send, query("www.good.example")))
kept[-1].send(query("www.good.example")); print("newest", verdict(kept[-1].recv(512)))
"#,
    );
    ran.went_well().said("oldest ECONNREFUSED").said("newest id 1234 code 0 answers 1");
}

#[test]
fn test_31_other_resolvers() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import shutil, subprocess
javascript = """
const dns = require('dns');
dns.lookup('www.good.example', { family: 4 }, (e, a) => { console.log('lookup', e ? e.code : a);
dns.resolve4('www.good.example', (e, a) => { console.log('c-ares', e ? e.code : a[0]);
dns.resolve4('www.bad.example', (e, a) => { console.log('refused', e ? e.code : a); }) }) })
"""
if shutil.which("node"): print(subprocess.run(["node", "-e", javascript], capture_output=True, text=True).stdout)
else: print("SKIPPED: node")
"#,
    );
    ran.went_well();
    if ran.stdout.contains("SKIPPED") {
        return not_tested("node is not installed");
    }
    ran.said("lookup 203.0.113.7").said("c-ares 203.0.113.7").said("refused ENOTFOUND");
}

/// What glibc does to sort addresses, and whoever wants to know its own.
#[test]
fn the_own_address_is_found_by_connecting() {
    if !is_possible() {
        return;
    }
    let ran = resolving(
        r#"
s = udp(); s.connect(EVIL); print("own", s.getsockname()[0], s.getpeername() == EVIL, outcome(s.send, b"secret"))
s = udp(socket.AF_INET6); s.connect(EVIL6); print("own", s.getsockname()[0], outcome(s.send, b"secret"))
libc.connect(s.fileno(), bytes(16), 16); print("nobody", outcome(s.getpeername), outcome(s.sendto, b"secret", EVIL6))
s = udp(); s.connect(EVIL); s.connect(NAMESERVER); s.send(query("www.good.example")); print(verdict(s.recv(512)))
s = udp(); s.bind(("0.0.0.0", 1053)); s.connect(EVIL); print("server", s.getpeername() == EVIL, outcome(s.sendmsg, [b"secret"]))
"#,
    );
    ran.went_well().said("own 192.0.2.2 True EPIPE").said("own 2001:db8::2 EPIPE").said("nobody ENOTCONN EACCES");
    ran.said("id 1234 code 0 answers 1").said("server True EPIPE");
}

#[test]
fn options_that_were_set_before_are_those_of_the_socket_that_takes_the_place() {
    if !is_possible() {
        return;
    }
    let ran = resolving(
        r#"
def timeout(s, name): return struct.unpack("ll", s.getsockopt(socket.SOL_SOCKET, name, 16))
s = udp(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
for name in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO): s.setsockopt(socket.SOL_SOCKET, name, struct.pack("ll", 0, 300000))
before = s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF); s.connect(NAMESERVER)
print(timeout(s, socket.SO_RCVTIMEO), timeout(s, socket.SO_SNDTIMEO), s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before)
print("waited", outcome(s.recvfrom, 512), outcome(s.recv, 512))
"#,
    );
    ran.went_well().said("(0, 300000) (0, 300000) True").said("waited EAGAIN EAGAIN");
}

/// A socket that lingers is closed by whoever receives the message in which it stands.
#[test]
fn test_31_sockets_that_are_smuggled_in_keep_nobody_from_resolving() {
    if !is_possible() {
        return;
    }
    let ran = resolving(
        r#"
near = tcp(); near.bind(("127.0.0.1", 0)); near.listen(50)
def full():
    s = tcp(); s.connect(near.getsockname()); kept.append(near.accept()[0]); s.setblocking(False)
    try:
        while True: s.send(b"x" * 65536)
    except BlockingIOError: pass
    s.setblocking(True); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 100000)); return s
kept = []
for _ in range(5):
    s, (a, b) = full(), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    socket.send_fds(a, [b"x"], [s.fileno()]); s.close(); a.close()
    u = udp(); u.connect(NAMESERVER); pair = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=u.detach())
    smuggled = outcome(socket.send_fds, pair, [query("www.good.example")], [b.fileno()]); kept.append(pair)
    # What does not get in would have this program wait; as would the last to close it.
    if smuggled == "ok": threading.Thread(target=b.close, daemon=True).start()
    else: kept.append(b)
s = udp(); s.connect(NAMESERVER); s.send(query("www.good.example")); print(verdict(s.recv(512)))
sys.stdout.flush(); os._exit(0)
"#,
    );
    ran.went_well().said("id 1234 code 0 answers 1");
}

#[test]
fn test_31_what_is_no_question_and_what_whoever_answers_does_not_expect() {
    if !is_possible() {
        return;
    }
    let ran = resolving(
        r#"
s = udp(); s.connect(NAMESERVER)
for message in (b"", b"x", bytes(11)): s.send(message)
# More than there may be readers.
for _ in range(6): s.send(query("bug.good.example"))
t = udp(); print("sent", t.sendto(b"short", REAL))
s.send(query("www.good.example")); print(verdict(s.recv(512)))
"#,
    );
    ran.went_well().said("id 1234 code 0 answers 1").said("sent 5");
    assert!(ran.heard.is_empty(), "{ran:#?}");
}
