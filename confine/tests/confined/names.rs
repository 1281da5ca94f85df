//! Names resolve for whoever asks, by the ways in which resolvers ask; and only those that are allowed.

use crate::yard::{Outcome, confined, is_possible};

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
    ran.was_asked("name www.good.example").was_asked("noname www.bad.example");
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
print("evil", outcome(s.sendto, b"secret", EVIL), outcome(s.connect, EVIL))
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
        .said("evil EACCES ENETUNREACH")
        .said("empty EAGAIN")
        .said("waited id 1234 code 0 answers 1")
        .said("again True");
    assert!(ran.heard.is_empty(), "{ran:#?}");
}

/// musl and others send without connecting, and compare the sender of what comes back with the nameserver. So the answer is the
/// nameserver's own.
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
    s.sendto(query("secret.bad.example", id=0x77), REAL); answer, sender = s.recvfrom(512); print(verdict(answer), sender == REAL)
s = udp(socket.AF_INET6); s.sendto(query("www.good.example"), ("::ffff:127.0.0.1", REAL[1])); print("mapped", verdict(s.recv(512)))
print("evil", outcome(udp().sendto, query("www.good.example"), EVIL), outcome(udp().sendto, b"x" * 5000, REAL))
"#,
    );
    ran.went_well().said("evil EACCES EMSGSIZE").said("mapped id 1234 code 0 answers 1");
    assert_eq!(ran.stdout.matches("id 1234 code 0 answers 1 True").count(), 2, "{ran:#?}");
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
        return eprintln!("*** NOT TESTED: node is not installed ***");
    }
    ran.said("lookup 203.0.113.7").said("c-ares 203.0.113.7").said("refused ENOTFOUND");
}
