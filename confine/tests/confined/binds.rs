//! What a socket is bound to: kept for honest clients, and no device for the others.

use crate::yard::{Ground, confined, ground, is_possible, not_tested, unconfined, where_ports_are_free};

/// A link-local address names a device, which the kernel keeps even if it has no such address.
const LINK_LOCAL: &str = r#"
DEVICE = ("fe80::1234", 0, 0, socket.if_nametoindex("out0"))
SO_BINDTOIFINDEX = 62
def device(s): return s.getsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX)
def race(held, address):
    """Has a bind that is let through for a unix socket mean this one, and says whether it did."""
    local = socket.socket(socket.AF_UNIX); number, ended = os.dup(local.fileno()), False
    def flip():
        while not ended: os.dup2(held.fileno(), number); os.dup2(local.fileno(), number)
    before = (held.getsockname(), device(held)); flipper = threading.Thread(target=flip); flipper.start()
    for _ in range(10000):
        libc.bind(number, address, len(address))
        if (held.getsockname(), device(held)) != before: break
    ended = True; flipper.join(); return (held.getsockname(), device(held)) != before
def hide(hidden): libc.prctl(4, 0 if hidden else 1, 0, 0, 0)
"#;

#[test]
fn test_40_a_device_by_bind() {
    if !is_possible() {
        return;
    }
    let python = format!(
        r#"{LINK_LOCAL}
near = tcp(socket.AF_INET6); near.bind(("::1", 0)); near.listen(1)
for hidden in (False, True):
    s = tcp(socket.AF_INET6); s.setblocking(False); hide(hidden); print("bind", outcome(s.bind, DEVICE)); hide(False)
    print("device", device(s)); outcome(s.connect, near.getsockname())
"#
    );
    assert!(!unconfined(&python).leaks.is_empty(), "the attempt would not work anyway");
    let ran = confined(&python);
    ran.went_well().said("bind EADDRNOTAVAIL").said("bind EACCES");
    assert_eq!(ran.stdout.matches("device 0\n").count(), 2, "{ran:#?}");
}

#[test]
fn test_40_a_device_by_bind_during_connect() {
    if !is_possible() {
        return;
    }
    let ran = confined(&format!(
        r#"{LINK_LOCAL}
s = tcp(socket.AF_INET6)
threading.Thread(target=lambda: outcome(s.connect, ("2001:db8:900d::7", 9999)), daemon=True).start()
while "9999" not in open("asked").read(): time.sleep(0.001)
print(outcome(s.bind, DEVICE), outcome(s.bind, ("::1", 0)), device(s)); sys.stdout.flush(); os._exit(0)
"#
    ));
    ran.went_well().said("EINVAL EINVAL 0");
}

/// The descriptor means a unix socket, whose bind goes on by itself, or one for the internet.
#[test]
fn test_40_a_device_by_a_bind_of_something_else() {
    if !is_possible() {
        return;
    }
    let ran = confined(&format!(
        r#"{LINK_LOCAL}
address = struct.pack("=HHI", 10, 0, 0) + socket.inet_pton(10, "fe80::1234") + struct.pack("=I", DEVICE[3])
held = tcp(socket.AF_INET6); race(held, address)
found = device(held); held.setblocking(False); print("device", found, outcome(held.connect, GOOD6) if found else "")
"#
    ));
    ran.went_well();
    // Without Landlock the kernel may be misled, and the connect is refused.
    let is_refused = ground() == Ground::OldKernel && ran.stdout.ends_with(" EACCES\n");
    assert!(is_refused || ran.stdout == "device 0 \n", "{ran:#?}");
}

/// The same with a datagram socket, which Landlock does not keep from being bound: what is sent for it goes by the supervisor's own
/// socket, which must not take the device over.
#[test]
fn test_40_a_device_of_a_datagram_socket_by_a_bind_of_something_else() {
    if !is_possible() {
        return;
    }
    let attempt = |bind: &str| {
        format!(
            r#"{LINK_LOCAL}
there = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); there.bind(("::1", 0))
address = struct.pack("=HHI", 10, 0, 0) + socket.inet_pton(10, "fe80::1") + struct.pack("=I", DEVICE[3])
held = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
{bind}
print("device", device(held) == DEVICE[3], outcome(held.sendto, b"secret", there.getsockname()))
"#
        )
    };
    let control = unconfined(&attempt("libc.bind(held.fileno(), address, len(address))"));
    assert!(!control.leaks.is_empty(), "the attempt would not work anyway: {control:#?}");
    let ran = confined(&attempt("race(held, address)"));
    ran.went_well();
    if ran.stdout.starts_with("device False") {
        return not_tested("the kernel was not misled in 10,000 attempts");
    }
    ran.said("device True EACCES");
}

/// Whoever asks a nameserver of this machine takes for its answer what comes from its address; and nothing tells what the supervisor
/// sends for the app from what that sends.
#[test]
fn test_43_nothing_comes_from_where_a_nameserver_would_be() {
    if !is_possible() {
        return;
    }
    let attempt = |bind: &str| {
        format!(
            r#"{LINK_LOCAL}
def udp(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asks = udp(); asks.bind(("127.0.0.1", 0)); asks.settimeout(20)
held = udp(); held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
print("bound", {bind})
print("sent", outcome(held.sendto, b"forged", asks.getsockname()), outcome(held.sendto, bytes(12), ("192.0.2.53", 53)) if "PROXY" in os.environ else "")
udp().sendto(b"true", asks.getsockname()); message, sender = asks.recvfrom(99)
print("heard", message, sender[1] == 53)
"#
        )
    };
    let honest = r#"outcome(held.bind, ("127.0.0.11", 53))"#;
    where_ports_are_free(false, &attempt(honest)).went_well().said("heard b'forged' True");
    for bind in [honest, r#"outcome(held.bind, ("0.0.0.0", 53))"#] {
        where_ports_are_free(true, &attempt(bind))
            .went_well()
            .said("bound ok")
            .said("sent EACCES EACCES")
            .said("heard b'true' False");
    }
    let misled = r#"race(held, struct.pack("=HH4s8x", 2, socket.htons(53), socket.inet_aton("127.0.0.11")))"#;
    let ran = where_ports_are_free(true, &attempt(misled));
    ran.went_well();
    if ran.stdout.starts_with("bound False") {
        return not_tested("the kernel was not misled in 10,000 attempts");
    }
    ran.said("sent EACCES EACCES").said("heard b'true' False");
}

/// A nameserver of this machine that is not there yet, or has gone.
#[test]
fn test_43_nobody_takes_the_place_of_a_nameserver() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
port = int(os.environ["REAL_NAMESERVER"])
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for family, hosts in ((socket.AF_INET, ("127.0.0.1", "0.0.0.0", "127.0.0.2")), (socket.AF_INET6, ("::ffff:127.0.0.1", "::"))):
        for host in hosts: print(host, outcome(socket.socket(family, kind).bind, (host, port)))
"#,
    );
    ran.went_well();
    let expected = "127.0.0.1 EACCES\n0.0.0.0 EACCES\n127.0.0.2 ok\n::ffff:127.0.0.1 EACCES\n:: EACCES\n";
    assert_eq!(ran.stdout, expected.repeat(2), "{ran:#?}");
}

#[test]
fn a_bound_client_keeps_its_address_options_and_registrations() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
near = tcp(); near.bind(("127.0.0.1", 0)); near.listen(5)
c = tcp(); c.bind(("127.0.0.9", 0)); c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1); here = c.getsockname()
c.connect(near.getsockname()); _, peer = near.accept()
print("kept", peer == here == c.getsockname(), c.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
s = tcp(); s.setblocking(False); waits = select.epoll(); waits.register(s, select.EPOLLOUT | select.EPOLLET)
s.bind(("0.0.0.0", 0)); waits.poll(0); outcome(s.connect, GOOD); print("told", [n == s.fileno() for n, _ in waits.poll(20)])
first = tcp(); first.bind(("0.0.0.0", 0)); copy = first.dup(); copy.connect(GOOD); print("copy", greeting(first))
"#,
    );
    ran.went_well().said("kept True 1").said("told [True]").said("copy 203.0.113.7:443");
    assert!(ran.activity.contains("replaced: 0"), "{ran:#?}");
}

#[test]
fn what_the_kernel_says_to_a_bind() {
    if !is_possible() {
        return;
    }
    let python = r#"
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    s = socket.socket(socket.AF_INET, kind); s.bind(("127.0.0.1", 0)); print("twice", outcome(s.bind, ("127.0.0.1", 0)))
    s = socket.socket(socket.AF_INET, kind); print("foreign", outcome(s.bind, ("198.51.100.1", 0)))
s = tcp(); s.bind(("127.0.0.1", 0)); s.listen(1); print("listening", outcome(s.bind, ("127.0.0.1", 0)))
c = tcp(); c.connect(s.getsockname()); print("connected", outcome(c.bind, ("127.0.0.1", 0)))
print("accepted", outcome(s.accept()[0].bind, ("127.0.0.1", 0)))
raw = lambda s, bytes, length: "ok" if libc.bind(s.fileno(), bytes, length) == 0 else errno.errorcode[ctypes.get_errno()]
v4, v6 = struct.pack("=HH28x", 2, 0), struct.pack("=HH28x", 10, 0)
print("families", raw(tcp(), v6, 28), raw(tcp(socket.AF_INET6), v4, 28), raw(tcp(), bytes(16), 16), raw(tcp(), v4, 15), raw(tcp(socket.AF_INET6), v6, 23))
print("pointers", raw(tcp(), ctypes.c_void_p(8), 16), raw(tcp(), None, 0), "files", errno.errorcode[ctypes.get_errno()] if libc.bind(0, v4, 16) else 0)
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("::", 0)); print("mapped", outcome(tcp(socket.AF_INET6).bind, ("::ffff:127.0.0.1", 0)))
"#;
    let (ours, kernels) = (confined(python), unconfined(python));
    ours.went_well();
    assert_eq!(ours.stdout, kernels.stdout);
}

#[test]
fn ports_that_are_not_for_everybody() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
print("as it is", outcome(tcp().bind, ("127.0.0.1", 81)), outcome(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind, ("127.0.0.1", 81)))
if os.getuid() == 0:
    import subprocess
    code = "import socket\ntry: socket.socket().bind(('127.0.0.1', 82)); print('dropped bound')\nexcept OSError as e: print('dropped', e.errno)"
    sys.stdout.flush(); subprocess.run([sys.executable, "-c", code], user=1234, group=1234, extra_groups=[])
"#,
    );
    ran.went_well();
    if ground() == Ground::Root {
        ran.said("as it is ok ok").said("dropped 13");
    } else {
        ran.said("as it is EACCES EACCES");
    }
}

#[test]
fn addresses_of_others_are_not_taken() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
IP_FREEBIND, IPV6_FREEBIND = 15, 78
s = tcp(); print(outcome(s.setsockopt, socket.IPPROTO_IP, IP_FREEBIND, 1), outcome(s.bind, ("198.51.100.66", 0)))
s = tcp(socket.AF_INET6); print(outcome(s.setsockopt, socket.IPPROTO_IPV6, IPV6_FREEBIND, 1), outcome(s.bind, ("2001:db8:bad::66", 0)))
"#,
    );
    ran.went_well();
    assert_eq!(ran.stdout, "EPERM EADDRNOTAVAIL\n".repeat(2));
}
