//! Attempts on the supervisor itself, and what it can bear.

use crate::yard::{DESCRIPTORS, Ground, confined, confined_often, confined_with_stalled_file, ground, is_possible};

#[test]
fn test_16_signals_do_not_reach_the_supervisor() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
supervisor = int(os.environ["SUPERVISOR"])
for number in (signal.SIGKILL, signal.SIGSTOP, 0):
    print(outcome(os.kill, supervisor, number))
for tid in os.listdir(f"/proc/{supervisor}/task"):
    print("thread", libc.syscall(SYS.tkill, int(tid), 9))
    print("thread", libc.syscall(SYS.tgkill, supervisor, int(tid), 19))
s = tcp(); s.connect(GOOD); print(greeting(s))
"#,
    );
    ran.went_well().said("203.0.113.7:443");
    assert_eq!(ran.stdout.matches("EPERM").count(), 3, "{ran:#?}");
    assert!(!ran.stdout.contains("ok") && !ran.stdout.contains("thread 0"), "{ran:#?}");
}

#[test]
fn test_18_the_supervisor_shows_nothing() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
supervisor = int(os.environ["SUPERVISOR"])
for name in ("mem", "environ", "maps", "syscall", "auxv"):
    print(name, outcome(lambda: open(f"/proc/{supervisor}/{name}", "rb").read(1)))
print("write", outcome(os.open, f"/proc/{supervisor}/mem", os.O_RDWR))
# Root may list the numbers of descriptors, but not what they are.
print("descriptor", outcome(os.open, f"/proc/{supervisor}/fd/0", os.O_RDONLY))
print("maps", outcome(os.listdir, f"/proc/{supervisor}/map_files"))
for name in ("exe", "cwd", "root", "ns/net", "fd/0"):
    print(name, outcome(os.readlink, f"/proc/{supervisor}/{name}"))
attach = libc.ptrace(16, supervisor, 0, 0)
print("ptrace", attach, errno.errorcode[ctypes.get_errno()])
buffer = ctypes.create_string_buffer(8); iov = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
print("readv", libc.process_vm_readv(supervisor, iov, 1, iov, 1, 0), errno.errorcode[ctypes.get_errno()])
print("writev", libc.process_vm_writev(supervisor, iov, 1, iov, 1, 0), errno.errorcode[ctypes.get_errno()])
try: handle = os.pidfd_open(supervisor)
except PermissionError: print("pidfd_open EPERM"); sys.exit()
print("getfd", libc.syscall(SYS.pidfd_getfd, handle, 0, 0), errno.errorcode[ctypes.get_errno()])
print("pidfd", outcome(signal.pidfd_send_signal, handle, 9))
"#,
    );
    ran.went_well();
    let said: Vec<&str> = ran.stdout.lines().collect();
    // Without Landlock's scope there is not even a descriptor of the supervisor's process to try the last two with.
    let expected = if ground() == Ground::OldKernel { 17 } else { 18 };
    assert_eq!(said.len(), expected, "{ran:#?}");
    for line in said {
        assert!(line.ends_with("EPERM") || line.ends_with("EACCES"), "{line}");
    }
}

/// Where a signal can take a call away from the supervisor, it may do so in the moment in which that answers: the kernel takes
/// the answer, and calls again. Then the app may hear that its connection stands already, or is on its way; both are true.
#[test]
fn test_26_a_storm_of_signals() {
    if !is_possible() {
        return;
    }
    let ran = confined_often(
        10_000,
        r#"
signal.signal(signal.SIGURG, lambda *_: None); signal.siginterrupt(signal.SIGURG, False)
ended, thread = False, threading.main_thread().ident
def storm():
    while not ended: signal.pthread_kill(thread, signal.SIGURG)
stormer = threading.Thread(target=storm, daemon=True); stormer.start()
failed, doubled = 0, []
for _ in range(ATTEMPTS):
    s = tcp()
    try: s.connect(GOOD)
    except OSError as error:
        if error.errno in (errno.EISCONN, errno.EALREADY): doubled.append(s); continue
        failed += 1
    s.close()
ended = True; stormer.join(); print("failed", failed, "doubled", len(doubled))
print("greeted", sum("203.0.113.7:443" in greeting(s) for s in doubled))
"#,
    );
    let doubled = ran.stdout.lines().find_map(|line| line.strip_prefix("failed 0 doubled ")).map(str::to_owned);
    let doubled = doubled.unwrap_or_else(|| panic!("some failed: {ran:#?}"));
    ran.went_well().said(&format!("greeted {doubled}"));
    assert!(doubled == "0" || ground() == Ground::OldKernel, "{doubled} were told to be there already: {ran:#?}");
}

#[test]
fn test_25_somebody_who_hangs_keeps_nobody_else_from_connecting() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
for _ in range(5): threading.Thread(target=lambda: outcome(tcp().connect, ("203.0.113.7", 9999)), daemon=True).start()
for _ in range(5):
    s = tcp(); s.connect(GOOD); print(greeting(s))
sys.stdout.flush(); os._exit(0)
"#,
    );
    ran.went_well();
    assert_eq!(ran.stdout, "203.0.113.7:443\n".repeat(5));
}

/// Whoever reads what does not arrive waits, and nothing interrupts that; so others go on. What arrives in the end is taken for
/// what it is.
#[test]
fn test_25_memory_that_does_not_arrive_keeps_nobody_else_from_connecting() {
    if !is_possible() {
        return;
    }
    let ran = confined_with_stalled_file(
        r#"
PAGE, BROKEN, COUNT, RELEASE = 4096, 32, 64, 65
file = os.open("stalled", os.O_RDONLY); assert os.fstat(file).st_size > RELEASE * PAGE
libc.mmap.restype = ctypes.c_void_p; libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
PROT_READ, PROT_WRITE, MAP_PRIVATE = 1, 2, 2
memory = libc.mmap(None, COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0)
at = lambda page: ctypes.c_void_p(memory + page * PAGE)
told = lambda page: os.pread(file, PAGE, page * PAGE).decode()
stalled = []
# In a process of its own, since memory that is waited for may be locked for all of its process.
def stall(what, name, make, *arguments):
    pid = os.fork()
    if pid == 0:
        s = make(); done = getattr(libc, name)(s.fileno(), *arguments)
        result = greeting(s) if done == 0 else errno.errorcode[ctypes.get_errno()]
        os.write(1, f"{what} {result}\n".encode()); os._exit(0)
    stalled.append(pid)
    while int(told(COUNT)) < len(stalled): assert os.waitpid(pid, os.WNOHANG)[0] == 0; time.sleep(0.01)
def connected():
    s = tcp(); s.connect(GOOD); return s
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
nameserver = struct.pack("=HH4s8x", 2, socket.htons(53), socket.inet_aton("192.0.2.53"))
stall("arrives", "connect", tcp, at(0), 16)
stall("connect", "connect", tcp, at(BROKEN), 16)
stall("bind", "bind", tcp, at(BROKEN + 1), 16)
stall("query", "sendto", udp, at(BROKEN + 2), ctypes.c_size_t(100), 0, nameserver, 16)
stall("peer", "getpeername", connected, at(BROKEN + 3), ctypes.byref(ctypes.c_int(16)))
stall("killed", "connect", tcp, at(1), 16); os.kill(stalled[-1], signal.SIGKILL); killed = os.waitpid(stalled.pop(), 0)[1]
for _ in range(5): assert greeting(connected()) == "203.0.113.7:443"
print("others connect", killed, os.waitpid(-1, os.WNOHANG)[0]); sys.stdout.flush(); told(RELEASE)
for pid in stalled: os.waitpid(pid, 0)
for _ in range(5): assert greeting(connected()) == "203.0.113.7:443"
"#,
    );
    ran.went_well().said("others connect 9 0").said("arrives 203.0.113.7:443");
    for what in ["connect", "bind", "query", "peer"] {
        ran.said(&format!("{what} EFAULT"));
    }
    assert!(ran.activity.contains("panics: 0") && ran.activity.contains("pending: 0"), "{ran:#?}");
}

#[test]
fn test_27_a_flood_of_connects() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
threading.stack_size(64 * 1024)
full = tcp(); full.bind(("127.0.0.1", 0)); full.listen(0); port = full.getsockname()[1]
# Nobody accepts: the ones after the first few wait, or are refused, and keep nobody else from connecting.
def knock():
    s = tcp(); s.settimeout(None); outcome(s.connect, ("127.0.0.1", port))
for _ in range(300): threading.Thread(target=knock, daemon=True).start()
for _ in range(50):
    s = tcp(); s.connect(GOOD); assert greeting(s) == "203.0.113.7:443"; s.close()
print("others connect"); sys.stdout.flush(); os._exit(0)
"#,
    );
    ran.went_well().said("others connect");
}

/// Two threads connect one socket, the second waits for the outcome of the first; and nobody is left of either.
#[test]
fn test_27_connects_of_the_dead_are_waited_for_no_more() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
full = tcp(); full.bind(("127.0.0.1", 0)); full.listen(0); kept = []
def waiting(): return supervisors_threads().count("confine-connect")
def until(is_so):
    end = time.monotonic() + 60
    while not is_so(waiting()) and time.monotonic() < end: time.sleep(0.01)
    return is_so(waiting())
for _ in range(2):
    kept.append(tcp()); kept[-1].setblocking(False); outcome(kept[-1].connect, full.getsockname())
def child():
    pid = os.fork()
    if pid: return pid
    s = tcp()
    for _ in range(2): threading.Thread(target=lambda: outcome(s.connect, full.getsockname()), daemon=True).start()
    signal.pause()
children = [child() for _ in range(20)]; print("waited for", until(lambda count: count == 20)); sys.stdout.flush()
for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)
print("forgotten", until(lambda count: count == 0)); sys.stdout.flush(); os._exit(0)
"#,
    );
    ran.went_well().said("waited for True").said("forgotten True");
}

/// The supervisor raises its own limit, and the app has the one that the supervisor was started with.
#[test]
fn the_app_has_the_limits_that_the_supervisor_was_started_with() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import resource
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
line = [l for l in open("/proc/%s/limits" % os.environ["SUPERVISOR"]) if l.startswith("Max open files")][0]
soft, hard = line.split()[3:5]
print("supervisor", soft == hard, int(soft) > 2048)
"#,
    );
    let soft = DESCRIPTORS.to_string();
    assert!(ran.stdout.lines().any(|line| line.split(' ').next() == Some(&soft)), "{ran:#?}");
    ran.went_well().said("supervisor True True");
}

/// Whoever has the same user may end or starve others by limits and priorities.
#[test]
fn test_41_limits_and_processors_of_the_supervisor() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import resource, subprocess, shutil
supervisor = int(os.environ["SUPERVISOR"])
tids = [int(t) for t in os.listdir(f"/proc/{supervisor}/task")]
for tid in tids:
    print("limit", outcome(resource.prlimit, tid, resource.RLIMIT_CPU, (1, 1)), outcome(resource.prlimit, tid, resource.RLIMIT_NOFILE, (3, 3)))
    print("sched", outcome(os.sched_setaffinity, tid, {0}), outcome(os.sched_setscheduler, tid, os.SCHED_IDLE, os.sched_param(0)),
          outcome(os.sched_setparam, tid, os.sched_param(0)), outcome(os.setpriority, os.PRIO_PROCESS, tid, 19))
    print("ioprio", libc.syscall(SYS.ioprio_set, 1, tid, 3 << 13))
print("all of them", outcome(os.setpriority, os.PRIO_USER, 0, 19), outcome(os.setpriority, os.PRIO_PGRP, os.getpgid(supervisor), 19))
handle = os.open(f"/proc/{supervisor}", os.O_RDONLY)
print("own", outcome(os.sched_setaffinity, 0, {0}), outcome(os.sched_setaffinity, os.getpid(), {0}), outcome(os.setpriority, os.PRIO_PROCESS, os.getpid(), 19),
      outcome(resource.setrlimit, resource.RLIMIT_CORE, (0, 0)), outcome(os.nice, 1))
print("tools", subprocess.run(["nice", "true"]).returncode, subprocess.run(["taskset", "1", "true"]).returncode, subprocess.run(["sh", "-c", "ulimit -n 64"]).returncode)
import fcntl
if os.access("/dev/userfaultfd", os.R_OK | os.W_OK): print("userfaultfd", outcome(fcntl.ioctl, os.open("/dev/userfaultfd", os.O_RDWR), 0xaa00, 0))
s = tcp(); s.connect(GOOD); print(greeting(s))
"#,
    );
    ran.went_well().said("own ok ok ok ok ok").said("tools 0 0 0").said("203.0.113.7:443").said("all of them EPERM EPERM");
    for line in ran.stdout.lines() {
        let (what, results) = line.split_once(' ').unwrap_or((line, ""));
        match what {
            "limit" | "sched" | "userfaultfd" => assert!(results.split(' ').all(|result| result == "EPERM"), "{ran:#?}"),
            "ioprio" => assert_eq!(results, "-1", "{ran:#?}"),
            _ => {}
        }
    }
}

/// Other ways to have a signal sent than to send it to the supervisor's own number.
#[test]
fn test_16_signals_that_take_other_ways() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import fcntl
supervisor = int(os.environ["SUPERVISOR"]); group = os.getpgid(supervisor)
tids = [int(t) for t in os.listdir(f"/proc/{supervisor}/task")]
for tid in tids: print("thread", outcome(os.kill, tid, 9), libc.syscall(SYS.tkill, tid, 9))
print("groups", os.getpgrp() != group, outcome(os.killpg, group, 9))
handle = os.open(f"/proc/{supervisor}", os.O_RDONLY)
print("handle", libc.syscall(SYS.pidfd_send_signal, handle, 9, 0, 0))
a, b = socket.socketpair()
for owner in (*tids, -group):
    outcome(fcntl.fcntl, a, fcntl.F_SETOWN, owner); outcome(fcntl.fcntl, a, 10, 9); fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC); b.send(b"x")
outcome(fcntl.fcntl, a, 15, struct.pack("=ii", 1, supervisor)); b.send(b"x")
for request in (0x8901, 0x8902): outcome(fcntl.ioctl, a, request, struct.pack("=i", supervisor)); b.send(b"x")
fcntl.fcntl(a, fcntl.F_SETFL, 0)
heard = []; signal.signal(signal.SIGUSR1, lambda *_: heard.append(1)); os.kill(os.getpid(), signal.SIGUSR1); signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
print("own", len(heard), libc.syscall(SYS.tkill, threading.get_native_id(), 0), outcome(os.kill, 0, 0))
print("joined", outcome(os.setpgid, 0, group) if os.getpgrp() != os.getpid() else "leads"); signal.signal(signal.SIGTERM, signal.SIG_IGN); os.kill(0, signal.SIGTERM)
s = tcp(); s.connect(GOOD); print(greeting(s))
"#,
    );
    ran.went_well().said("own 2 0 ok").said("groups True EPERM").said("handle -1").said("203.0.113.7:443");
    assert!(ran.stdout.lines().filter(|line| line.starts_with("thread")).all(|line| line == "thread EPERM -1"), "{ran:#?}");
}

/// An option of the app's own socket drops whatever answers a connect, even that to the proxy; and the mode of the socket changes
/// while it is connected.
#[test]
fn test_42_connects_that_hang_keep_nobody_else_from_connecting() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import fcntl
IP_MINTTL = 21
def deaf():
    s = tcp(); s.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 255); return s
print("deaf", outcome(deaf().connect, GOOD))
s = deaf(); print("before", s.getblocking(), fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK, outcome(s.connect, GOOD), fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK)
for name in (14, 32, 38, 31): print("option", outcome(tcp().setsockopt, socket.IPPROTO_TCP, name, bytes(256)))
def hang():
    while True:
        s = deaf(); flags = fcntl.fcntl(s, fcntl.F_GETFL)
        def flip():
            while s.fileno() >= 0:
                try: fcntl.fcntl(s, fcntl.F_SETFL, flags)
                except (OSError, ValueError): return
        flipper = threading.Thread(target=flip, daemon=True); flipper.start(); outcome(s.connect, GOOD); s.close(); flipper.join()
for _ in range(20):
    if os.fork() == 0: threading.Thread(target=hang, daemon=True).start(); hang()
time.sleep(3)
for _ in range(20):
    s = tcp(); s.connect(GOOD); assert greeting(s) == "203.0.113.7:443"; s.close()
print("others connect"); sys.stdout.flush(); signal.signal(signal.SIGTERM, signal.SIG_IGN); os.kill(0, signal.SIGTERM)
"#,
    );
    ran.went_well().said("deaf ETIMEDOUT").said("before True 0 ETIMEDOUT 0").said("others connect");
    assert_eq!(ran.stdout.matches("option EPERM").count(), 4, "{ran:#?}");
}

/// Whoever closes a connection that lingers waits for it, and that may be the supervisor.
#[test]
fn test_42_a_socket_that_is_closed_while_it_is_connected() {
    if !is_possible() {
        return;
    }
    let ran = confined_often(
        10_000,
        r#"
for _ in range(ATTEMPTS):
    s = tcp(); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 10000))
    t = threading.Thread(target=lambda: libc.connect(s.fileno(), struct.pack("=HH4s8x", 2, socket.htons(443), socket.inet_aton(GOOD[0])), 16), daemon=True)
    t.start(); os.close(s.detach()); t.join()
s = tcp(); s.connect(GOOD); print(greeting(s))
"#,
    );
    ran.went_well().said("203.0.113.7:443");
}
