//! Honest programs notice nothing.

use crate::yard::{Ground, confined, confined_often, ground, is_possible, not_tested, unconfined};

#[test]
fn the_tap_sees_what_leaves() {
    if is_possible() {
        let ran = unconfined("s = tcp(); s.setblocking(False); print(outcome(s.connect, EVIL))");
        assert_eq!(ran.stdout, "EINPROGRESS\n");
        assert!(!ran.leaks.is_empty(), "{ran:#?}");
    }
}

#[test]
fn test_01_connect_of_each_family() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
s = tcp(); s.connect(GOOD); print("v4", greeting(s))
s = tcp(socket.AF_INET6); s.connect(GOOD6); print("v6", greeting(s))
s = tcp(socket.AF_INET6); s.connect(("::ffff:203.0.113.7", 443)); print("mapped", greeting(s))
s = tcp(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); s.connect(GOOD6); print("only", greeting(s))
print(outcome(tcp().connect, EVIL), outcome(tcp(socket.AF_INET6).connect, EVIL6))
"#,
    );
    ran.went_well()
        .said("v4 203.0.113.7:443")
        .said("v6 [2001:db8:900d::7]:443")
        .said("mapped 203.0.113.7:443")
        .said("only [2001:db8:900d::7]:443")
        .said("EACCES EACCES")
        .was_asked("proxy 203.0.113.7:443 blocking /usr/bin/python3.")
        .was_asked("refuse 198.51.100.66:443 blocking");
}

#[test]
fn test_01_connect_without_waiting() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
s = tcp(); s.setblocking(False)
print("first", outcome(s.connect, GOOD))
print("writable", bool(select.select([], [s], [], 20)[1]), s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
s.setblocking(True); print(greeting(s))
import asyncio
async def go():
    reader, writer = await asyncio.open_connection("203.0.113.8", 80)
    print("asyncio", (await reader.readline()).decode().strip())
    writer.close()
asyncio.run(go())
"#,
    );
    ran.went_well()
        .said("first EINPROGRESS")
        .said("writable True 0")
        .said("203.0.113.7:443")
        .said("asyncio 203.0.113.8:80")
        .was_asked("proxy 203.0.113.7:443 nonblocking");
}

/// What netty and asio do.
#[test]
fn a_connection_seems_to_be_with_whom_it_was_asked_for() {
    if !is_possible() || ground() == Ground::OldKernel {
        return;
    }
    let ran = confined(
        r#"
s = tcp(); s.connect(GOOD); print("peer", s.getpeername() == GOOD, s.dup().getpeername() == GOOD)
s = tcp(); s.setblocking(False); s.connect_ex(GOOD); select.select([], [s], []); print("later", s.getpeername() == GOOD)
s = socket.socket(socket.AF_INET6); s.connect(("::ffff:" + GOOD[0], GOOD[1])); print("mapped", s.getpeername()[:2] == ("::ffff:" + GOOD[0], GOOD[1]))
s = tcp(); print("nobody", outcome(s.getpeername)); print("refused", outcome(s.connect, EVIL), outcome(s.getpeername))
l = tcp(); l.bind(("127.0.0.1", 0)); free = l.getsockname(); l.close(); s = tcp(); s.setblocking(False); s.connect_ex(free); print("near", outcome(s.getpeername))
"#,
    );
    ran.went_well().said("peer True True").said("later True").said("mapped True").said("nobody ENOTCONN");
    ran.said("refused EACCES ENOTCONN").said("near ENOTCONN");
}

#[test]
fn test_02_registered_with_epoll_before_connect() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
s = tcp(); s.setblocking(False)
poll = select.epoll(); poll.register(s, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
poll.poll(0)
outcome(s.connect, GOOD)
seen = 0
while not seen & select.EPOLLIN:
    seen |= poll.poll(20)[0][1]
print("readable and writable", bool(seen & select.EPOLLOUT))
s.setblocking(True); print(greeting(s))
"#,
    );
    ran.went_well().said("readable and writable True").said("203.0.113.7:443");
}

#[test]
fn test_03_a_copy_made_before_connect_is_connected_too() {
    if is_possible() {
        let ran = confined("s = tcp(); copy = s.dup(); s.connect(GOOD); s.close(); print(greeting(copy))");
        ran.went_well().said("203.0.113.7:443");
    }
}

#[test]
fn test_04_options_set_before_connect_are_kept() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
s = tcp()
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4321)
s.connect(GOOD)
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
      s.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), greeting(s))
"#,
    );
    ran.went_well().said("1 1 4321 203.0.113.7:443");
}

#[test]
fn test_05_a_second_connect_says_that_there_is_a_first() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
s = tcp(); s.connect(GOOD); print("blocking", outcome(s.connect, GOOD), outcome(s.connect, EVIL))
s = tcp(); s.setblocking(False); outcome(s.connect, GOOD); select.select([], [s], [], 20)
print("nonblocking", outcome(s.connect, GOOD), outcome(s.connect, GOOD))
"#,
    );
    ran.went_well().said("blocking EISCONN EISCONN").said("nonblocking ok EISCONN");
    assert_eq!(ran.asked.len(), 2, "one question for each connection: {ran:#?}");
}

#[test]
fn test_06_disconnected_and_connected_again() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
nobody = (ctypes.c_char * 16)()
disconnect = lambda s: libc.connect(s.fileno(), nobody, 16)
s = tcp(); print("never connected", disconnect(s)); s.connect(GOOD); print(greeting(s))
print("connected", disconnect(s)); s.connect(("203.0.113.8", 80)); print(greeting(s))
print("evil", disconnect(s), outcome(s.connect, EVIL))
"#,
    );
    ran.went_well()
        .said("never connected 0")
        .said("203.0.113.7:443")
        .said("connected 0")
        .said("203.0.113.8:80")
        .said("evil 0 EACCES");
}

#[test]
fn test_07_a_bound_client() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
s = tcp(); s.bind(("0.0.0.0", 0)); s.connect(GOOD); print("bound", greeting(s), s.get_inheritable())
s = tcp(); s.setblocking(False); s.bind(("0.0.0.0", 0)); print(outcome(s.connect, GOOD), s.getblocking())
select.select([s], [], [], 20); s.setblocking(True); print("unwaited", greeting(s))
s = tcp(); s.bind(("192.0.2.2", 0)); print("evil", outcome(s.connect, EVIL))
"#,
    );
    ran.went_well()
        .said("bound 203.0.113.7:443 False")
        .said("EINPROGRESS False")
        .said("unwaited 203.0.113.7:443")
        .said("evil EACCES");
    assert!(ran.activity.contains("replaced: 0"), "{ran:#?}");
}

#[test]
fn near_connections_are_direct_and_tell_their_errors() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
free = tcp(); free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
print("refused", outcome(tcp().connect, ("127.0.0.1", port)))
free.listen(1)
s = tcp(); s.connect(("127.0.0.1", port)); print("here", s.getpeername() == ("127.0.0.1", port))
s = tcp(); s.connect(("0.0.0.0", port)); print("any", s.getpeername() == ("127.0.0.1", port))
s = tcp(); s.setblocking(False); print("unwaited", outcome(s.connect, ("127.0.0.1", 1)))
select.select([], [s], [], 20); print("error", errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
"#,
    );
    ran.went_well()
        .said("refused ECONNREFUSED")
        .said("here True")
        .said("any True")
        .said("unwaited EINPROGRESS")
        .said("error ECONNREFUSED");
}

#[test]
fn test_29_a_free_port_can_be_bound_again() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for family in (socket.AF_INET, socket.AF_INET6):
        a = socket.socket(family, kind); a.bind(("", 0)); port = a.getsockname()[1]; a.close()
        b = socket.socket(family, kind); b.bind(("", port)); print("again", b.getsockname()[1] == port)
"#,
    );
    ran.went_well();
    assert_eq!(ran.stdout, "again True\n".repeat(4), "{ran:#?}");
}

#[test]
fn test_30_a_server_inside_is_reached() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
server = tcp(); server.bind(("192.0.2.2", 0)); server.listen(5)
client = tcp(); client.connect(server.getsockname()); served, peer = server.accept()
client.sendall(b"question"); print(served.recv(100)); served.sendall(b"answer"); print(client.recv(100))
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); receiver.bind(("127.0.0.1", 0))
print("udp server bound", receiver.getsockname()[1] > 0)
"#,
    );
    ran.went_well().said("b'question'").said("b'answer'").said("udp server bound True");
}

#[test]
fn test_29_a_port_that_is_taken_is_taken() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    a, b = socket.socket(socket.AF_INET, kind), socket.socket(socket.AF_INET, kind)
    a.bind(("127.0.0.1", 0)); port = a.getsockname()[1]; a.close()
    b.bind(("127.0.0.1", port)); print(outcome(socket.socket(socket.AF_INET, kind).bind, ("127.0.0.1", port)))
"#,
    );
    ran.went_well();
    assert_eq!(ran.stdout, "EADDRINUSE\n".repeat(2), "{ran:#?}");
}

#[test]
fn unix_sockets_and_pairs_work() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
server = socket.socket(socket.AF_UNIX); server.bind("here"); server.listen(1)
client = socket.socket(socket.AF_UNIX); client.connect("here"); server.accept()[0].sendall(b"unix"); print(client.recv(9))
a, b = socket.socketpair(); a.sendall(b"pair"); print(b.recv(9))
print([name for _, name in socket.if_nameindex()])
"#,
    );
    ran.went_well().said("b'unix'").said("b'pair'").said("['lo', 'out0']");
}

#[test]
fn netlink_sockets_bind_connect_and_send() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
RTM_NEWLINK, RTM_GETLINK, DUMP, KERNEL = 16, 18, 0x301, (0, 0)
query = struct.pack("=IHHIIB3x", 20, RTM_GETLINK, DUMP, 1, 0, 0)
def links(): return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
def told(s): return struct.unpack_from("=H", s.recv(1 << 16), 4)[0] == RTM_NEWLINK
s = links(); s.bind(KERNEL); print("bound", s.getsockname()[0] > 0, outcome(s.connect, KERNEL), s.getpeername()); s.send(query); print("told", told(s))
s = links(); print("unbound", outcome(s.connect, KERNEL)); s.sendall(query); print("told", told(s)); print("numbered", s.getsockname()[0] > 0)
print("again", libc.connect(s.fileno(), (ctypes.c_char * 16)(), 16), outcome(s.connect, KERNEL))
s = links(); s.sendto(query, KERNEL); print("told", told(s))
s = links(); s.sendmsg([query], [], 0, KERNEL); print("told", told(s))
print("others", outcome(links().connect, (4242, 0)), outcome(links().connect, (0, 1)))
address = struct.pack("=HHII", socket.AF_NETLINK, 0, 0, 0)
for s in (tcp(), socket.socket(socket.AF_UNIX)): print("no netlink", libc.connect(s.fileno(), address, 12), errno.errorcode[ctypes.get_errno()])
"#,
    );
    ran.went_well().said("bound True ok (0, 0)").said("unbound ok").said("numbered True").said("again 0 ok");
    ran.said("others EPERM EPERM").said("no netlink -1 EAFNOSUPPORT").said("no netlink -1 EINVAL");
    assert_eq!(ran.stdout.matches("told True").count(), 4, "{ran:#?}");
}

/// Threads, forks, an own table of descriptors, a new program in the middle of everything.
#[test]
fn test_21_whoever_starts_whom() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import subprocess
code = "import socket; s = socket.create_connection(('203.0.113.7', 443)); print('child', s.makefile().readline().strip())"
subprocess.run([sys.executable, "-c", code], close_fds=False)
subprocess.run([sys.executable, "-c", code])
print("spawned", os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", code], {}), 0)[1]))
CLONE_FILES = 0x400
def alone():
    print("own table", libc.unshare(CLONE_FILES)); s = tcp(); s.connect(GOOD); print("thread", greeting(s))
t = threading.Thread(target=alone); t.start(); t.join()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        s = tcp(); s.connect(GOOD); open("daemon", "w").write(greeting(s)); os.rename("daemon", "done")
    os._exit(0)
os.wait()
while not os.path.exists("done"): time.sleep(0.01)
print("daemon", open("done").read())
"#,
    );
    ran.went_well().said("child 203.0.113.7:443").said("spawned 0").said("own table 0").said("thread 203.0.113.7:443");
    ran.said("daemon 203.0.113.7:443");
    assert_eq!(ran.stdout.matches("child").count(), 3, "{ran:#?}");
}

#[test]
fn programs_that_people_run() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import shutil, subprocess
javascript = "require('net').connect(443, '203.0.113.7').on('data', d => { process.stdout.write(d); process.exit() })"
for command in (["curl", "-s", "--http0.9", "http://203.0.113.7/"], ["node", "-e", javascript]):
    if shutil.which(command[0]):
        print(command[0], subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.split()[0])
    else:
        print("SKIPPED:", command[0])
"#,
    );
    ran.went_well();
    for (program, line) in [("curl", "curl 203.0.113.7:80"), ("node", "node 203.0.113.7:443")] {
        if ran.stdout.contains(&format!("SKIPPED: {program}")) {
            not_tested(&format!("{program} is not installed"));
        } else {
            ran.said(line);
        }
    }
}

/// The program ends, or becomes another, while a connect of it is looked at.
/// 4,000 processes end or change, each in the middle of two or three connects, so that there are 10,000 of those; a process takes
/// its time to start.
#[test]
fn test_21_an_end_or_another_program_in_the_middle_of_a_connect() {
    if !is_possible() {
        return;
    }
    let ran = confined_often(
        4000,
        r#"
for number in range(ATTEMPTS):
    if os.fork() == 0:
        for to in (GOOD, EVIL): threading.Thread(target=lambda to=to: outcome(tcp().connect, to), daemon=True).start()
        if number % 4 == 0: os._exit(0)
        if number % 4 == 1: os.kill(os.getpid(), signal.SIGKILL)
        if number % 4 == 2: os.execv("/bin/true", ["true"])
        s = tcp(); os.set_inheritable(s.fileno(), True); threading.Thread(target=lambda: outcome(s.connect, GOOD), daemon=True).start()
        os.execv("/bin/sh", ["sh", "-c", f"echo secret >&{s.fileno()}"])
    os.wait()
s = tcp(); s.connect(GOOD); print(greeting(s))
"#,
    );
    ran.went_well().said("203.0.113.7:443");
    assert!(ran.activity.contains("panics: 0"), "{ran:#?}");
}
