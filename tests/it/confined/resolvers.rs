//! Resolvers that an app could reach by itself, past egret: they would carry any name out. Wherever one is, egret answers.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{POLICY, app, python_words};
use crate::support::Outside;
use crate::support::programs::require;

/// Asks one nameserver in each way, for names that are refused: the last word is what came of it, as egret says it.
const ASK: &str = r#"
def question(name):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0"
    return struct.pack("!HHHHHH", 0x1234, 0x100, 1, 0, 0, 0) + labels + struct.pack("!HH", 1, 1)
def family(to): return socket.AF_INET6 if ":" in to[0] else socket.AF_INET
def by_tcp(to, name):
    s = tcp(family(to)); s.connect(to); s.sendall(struct.pack("!H", len(question(name))) + question(name))
    return "code %d" % (s.recv(4096)[5] & 15)
def by_udp(to, name):
    s = socket.socket(family(to), socket.SOCK_DGRAM); s.connect(to); s.send(question(name))
    return "code %d" % (s.recv(4096)[3] & 15)
def unconnected(to, name):
    return outcome(socket.socket(family(to), socket.SOCK_DGRAM).sendto, question(name), to)
def ask(*to): return " ".join([by_tcp(to, "a.evil.test"), by_udp(to, "b.evil.test"), unconnected(to, "c.evil.test")])
"#;
/// What a refused name is: by TCP and by UDP it does not exist, and without connecting it isn't sent.
const REFUSED: &str = "code 3 code 3 ECONNREFUSED";

/// A resolver of somebody else's in the same network: it says that it is there, and then what it is asked.
const RESOLVER: &str = r#"
import socket, sys, threading
at = (sys.argv[1], int(sys.argv[2]))
stream, datagrams = socket.create_server(at), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(at)
def accept():
    while True: print("heard", stream.accept()[0].recv(4096), flush=True)
threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
while True: print("heard", datagrams.recv(4096), flush=True)
"#;

/// It, until it is dropped.
struct Resolver(Child, BufReader<ChildStdout>);

impl Resolver {
    fn at(outside: &Outside, host: &str, port: u16) -> Self {
        let words = outside.enter();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(require("python3")).args(["-c", RESOLVER, host, &port.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut ready = String::new();
        said.read_line(&mut ready).expect("a line");
        assert_eq!(ready, "ready\n");
        Self(child, said)
    }

    /// All that it heard.
    fn heard(mut self) -> String {
        self.0.kill().expect("it runs");
        let mut heard = String::new();
        self.1.read_to_string(&mut heard).expect("text");
        heard
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // It fails only if it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a67_port_53_of_a_direct_address_is_egrets() {
    let policy = format!("direct: [45.0.0.0/8]\n{POLICY}");
    let Some(outside) = Outside::new() else { return };
    let script = format!("{ASK}print('direct', ask(EVIL, 53)); print('other', connected(EVIL, 5432).getpeername())");
    let egret = app(&outside, outside.egret(&policy), &python_words(&script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains(&format!("direct {REFUSED}\nother ('45.0.0.66', 5432)")), "{}", egret.stderr());
    assert_eq!(egret.event("name", |event| event["name"] == "a.evil.test")["decision"], "deny");
    assert_no_name_left(&outside);
}

/// What the platform offers every task is a resolver, too.
#[test]
fn a67_presets_open_no_resolver() {
    for preset in ["aws-ecs-task", "aws-eks-pod"] {
        let Some(outside) = Outside::new() else { return };
        let policy = format!("presets: [{preset}]\n{POLICY}");
        let script = format!("{ASK}print('four', ask('169.254.169.253', 53)); print('six', ask('fd00:ec2::253', 53))");
        let egret = app(&outside, outside.egret(&policy), &python_words(&script)).start();
        assert_eq!(egret.wait_exit().code(), Some(0), "{preset}: {}", egret.stderr());
        assert!(egret.stderr().contains(&format!("four {REFUSED}\nsix {REFUSED}")), "{preset}: {}", egret.stderr());
        assert_no_name_left(&outside);
    }
}

/// Nothing was connected to but what the script says of itself, and of what was asked, nothing has a name of the app's in it.
fn assert_no_name_left(outside: &Outside) {
    let left = outside.left();
    assert!(left.iter().all(|line| !line.contains("evil") && !line.contains(":53")), "{left:#?}");
}

/// The one that egret asks, on whatever port and address of this machine it is reached; and should it go, the app can't take its
/// place.
#[test]
fn a68_the_resolver_that_egret_asks_is_not_the_apps_to_ask() {
    let Some(outside) = Outside::new() else { return };
    let resolver = Resolver::at(&outside, "0.0.0.0", 5353);
    let script = format!(
        "{ASK}
for to in ('127.0.0.1', '127.0.0.9', '10.99.0.2'): print(to, ask(to, 5353))
print('other', outcome(connected, '127.0.0.1', 5354))
for at in ('127.0.0.1', '0.0.0.0', '127.0.0.9'):
    s = tcp(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); print('place', at, outcome(s.bind, (at, 5353)))"
    );
    let egret = app(&outside, outside.egret_asking("127.0.0.1:5353", POLICY), &python_words(&script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let said = egret.stderr();
    for to in ["127.0.0.1", "127.0.0.9", "10.99.0.2"] {
        assert!(said.contains(&format!("{to} {REFUSED}\n")), "{said}");
    }
    let places = "place 127.0.0.1 EACCES\nplace 0.0.0.0 EACCES\nplace 127.0.0.9 EADDRINUSE";
    assert!(said.contains(&format!("other ECONNREFUSED\n{places}")), "{said}");
    let heard = resolver.heard();
    assert!(!heard.contains("evil"), "{heard}");
    outside.only(&[], &[]);
}

/// Docker's listens on ports that it does not tell, of an address of loopback that is nobody else's.
#[test]
fn a68_a_nameserver_on_a_loopback_address_of_its_own_is_one_on_every_port() {
    let Some(outside) = Outside::with_resolver_options("\nnameserver 127.0.0.11") else { return };
    let resolver = Resolver::at(&outside, "127.0.0.11", 40123);
    let script = format!(
        "{ASK}
for port in (53, 853, 40123): print(port, ask('127.0.0.11', port))
print('other', outcome(connected, '127.0.0.12', 40123))"
    );
    let egret = app(&outside, outside.egret(POLICY), &python_words(&script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let said = egret.stderr();
    for port in [53, 853, 40123] {
        assert!(said.contains(&format!("{port} {REFUSED}\n")), "{said}");
    }
    assert!(said.contains("other ECONNREFUSED"), "{said}");
    let heard = resolver.heard();
    assert!(!heard.contains("evil"), "{heard}");
    outside.only(&[], &[]);
}

/// A server of names may be an app as any other is, as long as egret does not ask it.
#[test]
fn port_53_may_be_served_by_the_app() {
    let Some(outside) = Outside::new() else { return };
    // As container runtimes have it.
    let every_port = "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(outside.program("sh").args(["-c", every_port]).run().code, 0);
    let script = "server = socket.create_server(('0.0.0.0', 53)); print('serves', server.getsockname()[1])";
    let egret = app(&outside, outside.egret(POLICY), &python_words(script)).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
}
