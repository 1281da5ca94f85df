//! Unix sockets: those of others; and where each of them is connected by the supervisor, without Landlock's right to connect.

use crate::yard::{Ground, Outcome, confined, confined_on, ground, is_possible, is_root, not_tested};

/// Runs it on a kernel of old, if this is the ground of a plain run.
fn of_old(ground_of_old: Ground, python: &str) -> Option<Outcome> {
    let is_plain = ground() == Ground::Plain && is_possible();
    (is_plain && (ground_of_old == Ground::OldKernel || is_root())).then(|| confined_on(ground_of_old, python))
}

const SERVER: &str = r#"
def serving(name, kind=socket.SOCK_STREAM, backlog=5):
    s = socket.socket(socket.AF_UNIX, kind); s.bind(name)
    if kind != socket.SOCK_DGRAM: s.listen(backlog)
    return s
def unix(kind=socket.SOCK_STREAM): return socket.socket(socket.AF_UNIX, kind)
def peer(s): return struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
"#;

fn serving_of_old(ground: Ground, python: &str) -> Option<Outcome> {
    of_old(ground, &format!("{SERVER}{python}"))
}

/// Tries the sockets of a container runtime as a user of its own, to whom gosu drops where the supervisor is root.
const RUNTIME: &str = r#"
import subprocess
code = """
import os, socket, errno
def reached(name):
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(name); return s.recv(9)
    except OSError as error: return errno.errorcode[error.errno]
os.symlink("roots.sock", "link")
for name in ("roots.sock", f"{os.getcwd()}/roots.sock", "link", "/proc/self/fd/%d" % os.open("roots.sock", os.O_PATH)): print("roots", reached(name))
try: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", "roots.sock")
except OSError as error: print("roots", errno.errorcode[error.errno])
print("open", reached("open.sock"), "abstract", reached(chr(0) + "runtime"))
"""
user = dict(user=1234, group=1234, extra_groups=[]) if os.getuid() == 0 else {}
subprocess.run([sys.executable, "-c", code], check=True, **user)
"#;

/// No policy speaks of them: what keeps the app from one are its permissions, for which nobody lends the app anything, and of an
/// abstract one Landlock's scope. One that is open to all is open to the app.
#[test]
fn test_33_unix_sockets_of_a_runtime() {
    if !is_possible() {
        return;
    }
    if !is_root() {
        return not_tested("without root all sockets are of one user");
    }
    let ran = confined(RUNTIME);
    let has_scopes = ground() != Ground::OldKernel;
    ran.went_well().said(if has_scopes { "open b'runtime' abstract EPERM" } else { "open b'runtime' abstract b'runtime'" });
    assert_eq!(ran.stdout.matches("roots EACCES").count(), 5, "{ran:#?}");
}

#[test]
fn test_33_unix_sockets_of_a_runtime_and_a_supervisor_that_is_root() {
    let Some(ran) = of_old(Ground::OldRoot, RUNTIME) else { return };
    ran.went_well().said("open b'runtime' abstract b'runtime'");
    assert_eq!(ran.stdout.matches("roots EACCES").count(), 5, "{ran:#?}");
}

#[test]
fn unix_sockets_without_landlock_work() {
    let ran = serving_of_old(
        Ground::OldKernel,
        r#"
os.mkdir("below"); here = os.getcwd()
for name in ("here", here + "/below/there", "\0nowhere"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        s = serving(name, kind); c = unix(kind); c.connect(name); s.accept()[0].sendall(b"unix"); print(c.recv(9), c.getpeername() == s.getsockname())
        if name[0] != "\0": os.unlink(name)
        s.close(); c.close()
s = serving("datagrams", socket.SOCK_DGRAM); c = unix(socket.SOCK_DGRAM); c.connect("datagrams"); c.send(b"log"); print(s.recv(9))
c = unix(socket.SOCK_DGRAM); c.sendto(b"unconnected", "datagrams"); print(s.recv(20))
c = unix(socket.SOCK_DGRAM); c.bind("answers"); c.connect("datagrams"); c.send(b"x"); print(s.recvfrom(9))
s = serving("file"); os.symlink("file", "link"); os.chdir("below")
for name in ("../link", "/proc/self/fd/%d/link" % os.open("..", os.O_PATH)):
    c = unix(); print(outcome(c.connect, name), s.accept() is not None)
try: s.setblocking(False); s.accept()
except BlockingIOError: print("no more")
c = unix(); c.setblocking(False); poll = select.epoll(); poll.register(c, select.EPOLLOUT | select.EPOLLIN); poll.poll(0)
print("unwaited", outcome(c.connect, "../file"), poll.poll(20)[0][1] & select.EPOLLOUT > 0)
c = unix(); c.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1); c.connect("../file"); print("named by itself", c.getsockname()[:1] == b"\0")
"#,
    );
    let Some(ran) = ran else { return };
    ran.went_well().said("b'log'").said("b'unconnected'").said("(b'x', 'answers')").said("no more").said("unwaited ok True");
    ran.said("named by itself True");
    assert_eq!(ran.stdout.matches("b'unix' True").count(), 6, "{ran:#?}");
    assert_eq!(ran.stdout.matches("ok True").count(), 3, "{ran:#?}");
}

#[test]
fn unix_sockets_without_landlock_fail_as_they_would() {
    let ran = serving_of_old(
        Ground::OldKernel,
        r#"
s = serving("here"); open("plain", "w"); os.mkdir("shut"); serving("shut/in"); os.chmod("shut", 0); serving("closed").close()
for name in ("none", "plain", "shut/in", "closed", "here/in", "\0none"): print(name.strip("\0"), outcome(unix().connect, name))
print("kind", outcome(unix(socket.SOCK_DGRAM).connect, "here"), outcome(unix(socket.SOCK_SEQPACKET).connect, "here"))
os.chmod("here", 0o400); print("unwritable", outcome(unix().connect, "here")); os.chmod("here", 0o700)
c = unix(); c.connect("here"); print("again", outcome(c.connect, "here"))
a, b = socket.socketpair(); print("pair", outcome(a.connect, "here"))
c, t = unix(), tcp(); print("unnamed", libc.connect(c.fileno(), b"\1\0", 2), errno.errorcode[ctypes.get_errno()])
print("tcp", libc.connect(t.fileno(), b"\1\0here\0", 7), errno.errorcode[ctypes.get_errno()])
print("evil", outcome(unix().connect, "/proc/self/root/here"), outcome(unix().connect, "/proc/%s/root/x" % os.environ["SUPERVISOR"]))
print("other", libc.connect(c.fileno(), struct.pack("=HH4s8x", 2, 80, bytes(4)), 16), errno.errorcode[ctypes.get_errno()])
"#,
    );
    let Some(ran) = ran else { return };
    ran.went_well()
        .said("none ENOENT")
        .said("plain ECONNREFUSED")
        .said("shut/in EACCES")
        .said("closed ECONNREFUSED")
        .said("here/in ENOTDIR")
        .said("none ECONNREFUSED")
        .said("kind EPROTOTYPE EPROTOTYPE")
        .said("unwritable EACCES")
        .said("again EISCONN")
        .said("pair EISCONN")
        .said("unnamed -1 EINVAL")
        .said("tcp -1 EAFNOSUPPORT")
        .said("evil ELOOP ELOOP")
        .said("other -1 EINVAL");
}

/// Whoever waits for room waits, and keeps nobody else from connecting; and whoever does not, or is gone, does not.
#[test]
fn unix_sockets_without_landlock_wait_for_room() {
    let ran = serving_of_old(
        Ground::OldKernel,
        r#"
s = serving("full", backlog=0); kept = [unix()]; kept[0].connect("full")
c = unix(); c.setblocking(False); print("unwaited", outcome(c.connect, "full"))
c = unix(); c.settimeout(None); c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 10000)); print("limited", outcome(c.connect, "full"))
print("kept", c.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == struct.pack("ll", 0, 12000) or c.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == struct.pack("ll", 0, 10000))
for _ in range(30):
    if os.fork() == 0: unix().connect("full"); os._exit(0)
waiting = threading.Thread(target=lambda: print("waited", outcome(unix().connect, "full"))); waiting.start()
for _ in range(20):
    other = tcp(); other.connect(GOOD); assert greeting(other) == "203.0.113.7:443"
print("others connect")
while waiting.is_alive():
    s.settimeout(0.05)
    try: kept.append(s.accept())
    except TimeoutError: pass
    waiting.join(0.001)
print("done")
"#,
    );
    let Some(ran) = ran else { return };
    ran.went_well().said("unwaited EAGAIN").said("limited EAGAIN").said("kept True").said("waited ok").said("others connect");
}

#[test]
fn unix_sockets_without_landlock_that_were_replaced() {
    let ran = serving_of_old(
        Ground::OldKernel,
        r#"
s = serving("one", socket.SOCK_DGRAM); t = serving("two", socket.SOCK_DGRAM); nobody = (ctypes.c_char * 16)()
c = unix(socket.SOCK_DGRAM); print("never", libc.connect(c.fileno(), nobody, 16)); c.connect("one"); c.connect("two"); c.send(b"2"); print(t.recv(9))
print("disconnected", libc.connect(c.fileno(), nobody, 16), outcome(c.send, b"nobody")); c.connect("one"); c.send(b"1"); print(s.recv(9))
server = serving("stream"); kept = [unix() for _ in range(600)]
print("stream", libc.connect(kept[0].fileno(), nobody, 16), errno.errorcode[ctypes.get_errno()])
kept[0].connect("stream"); print("long ago", server.accept()[0].send(b"x"), kept[0].recv(9), kept[0].get_inheritable())
"#,
    );
    let Some(ran) = ran else { return };
    ran.went_well().said("never 0").said("b'2'").said("disconnected 0 ENOTCONN").said("b'1'").said("stream -1 EINVAL");
    ran.said("long ago 1 b'x' False");
}

/// Whoever was interrupted calls again, and is connected once. Kernels without the wait for fatal signals only lose answers that
/// come after the signal and before the caller looks: of a connect that was made it is told then, of a socket it is lost.
#[test]
fn unix_sockets_without_landlock_bear_a_storm_of_signals() {
    let ran = serving_of_old(
        Ground::OldKernel,
        r#"
signal.signal(signal.SIGURG, lambda *_: None); signal.siginterrupt(signal.SIGURG, False)
thread, s, failed, turns = threading.main_thread().ident, serving("here", backlog=2000), set(), threading.Semaphore(0)
def storm():
    while True:
        turns.acquire()
        for _ in range(100): signal.pthread_kill(thread, signal.SIGURG)
threading.Thread(target=storm, daemon=True).start()
s.setblocking(False); accepted = 0
for _ in range(10000):
    c = unix(); turns.release(); came = outcome(c.connect, "here")
    if came != "ok": failed.add(came)
    c.close()
    while outcome(lambda: s.accept()[0].close()) == "ok": accepted += 1
print("failed", failed - {"EISCONN"}, "accepted", accepted)
"#,
    );
    let Some(ran) = ran else { return };
    ran.went_well().said("failed set() accepted 10000");
}

/// Whoever listens sees the user and group that the app has, not those of the supervisor.
#[test]
fn unix_sockets_without_landlock_lend_no_identity() {
    let ran = serving_of_old(
        Ground::OldRoot,
        r#"
import subprocess
os.chmod(".", 0o755); s = serving("here"); os.chmod("here", 0o777); serving("roots"); os.chmod("roots", 0o700)
os.mkdir("group"); os.chown("group", 0, 4242); os.chmod("group", 0o750); g = serving("group/s"); os.chmod("group/s", 0o777)
os.mkdir("theirs"); t = serving("theirs/s"); os.chown("theirs", 4242, 4242); os.chmod("theirs", 0o700); print("root may", outcome(unix().connect, "theirs/s"))
c = unix(); c.connect("here"); pid, uid, gid = peer(s.accept()[0]); print("root", uid, gid, str(pid) == os.environ["SUPERVISOR"])
code = """
import socket, sys, os
def go(name):
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(name); return "ok"
    except OSError as error: return os.strerror(error.errno)
for name in sys.argv[1:]: print(go(name))
"""
def dropped(*names, **ids): print(*subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, **ids).stdout.splitlines(), sep="; "); sys.stdout.flush()
dropped("here", "roots", "group/s", user=1234, group=1235, extra_groups=[])
pid, uid, gid = peer(s.accept()[0]); print("dropped", uid, gid, str(pid) == os.environ["SUPERVISOR"])
dropped("group/s", user=1234, group=1235, extra_groups=[4242]); print(peer(g.accept()[0])[1:])
if os.fork() == 0:
    # Root that gave up what passes by permissions.
    libc.prctl(24, 1, 0, 0, 0); header = struct.pack("=Ii", 0x20080522, 0); keep = 1 << 7 | 1 << 6
    assert libc.capset(header, struct.pack("=6I", keep, keep, 0, 0, 0, 0)) == 0
    print("weak root", outcome(unix().connect, "here"), outcome(unix().connect, "theirs/s")); sys.stdout.flush(); os._exit(0)
os.wait(); s.accept()
c = unix(); c.connect("here"); print("root again", peer(s.accept()[0])[1:])
"#,
    );
    let Some(ran) = ran else { return };
    ran.went_well()
        .said("root 0 0 True")
        .said("root may ok")
        .said("weak root ok EACCES")
        .said("ok; Permission denied; Permission denied")
        .said("dropped 1234 1235 True")
        .said("ok")
        .said("(1234, 1235)")
        .said("root again (0, 0)");
}
