//! The supervisor stopped, gone, and looked at from outside.

use crate::yard::{confined, is_possible};

/// Asks for a listener of its own, as who means to answer its own calls.
const LISTENER: &str = r#"
allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7fff0000))
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 1, ctypes.addressof(allow)))
def listen(flags): return f"{libc.syscall(SYS.seccomp, 1, flags, program)} {errno.errorcode[ctypes.get_errno()]}"
"#;

#[test]
fn test_17_a_listener_of_its_own() {
    if !is_possible() {
        return;
    }
    let ran = confined(&format!(
        r#"{LISTENER}
for flags in (8, 8 | 32, 8 | 16 | 1): print(listen(flags))
print("plain", libc.syscall(SYS.seccomp, 1, 0, program))
print(outcome(tcp().connect, EVIL))
"#
    ));
    ran.went_well().said("plain 0").said("EACCES");
    assert_eq!(ran.stdout.matches("-1 EBUSY").count(), 3, "{ran:#?}");
}

/// With a listener of its own, whoever outlives the supervisor could answer the calls that nobody answers any more.
#[test]
fn test_17_a_listener_of_its_own_after_the_supervisor() {
    if !is_possible() {
        return;
    }
    let ran = confined(&after_the_supervisor(
        r#"print(*(listen(flags) for flags in (8, 8 | 32, 8 | 16 | 1)), file=after)
        print(libc.syscall(SYS.seccomp, 1, 0, program), outcome(s.connect, EVIL), outcome(socket.socket, socket.AF_INET), file=after)"#,
    ));
    ran.went_well();
    assert_eq!(ran.orphan(), "-1 EBUSY -1 EBUSY -1 EBUSY\n0 ENOSYS ENOSYS\n", "{ran:#?}");
}

/// A process that outlives everybody, and does this then.
fn after_the_supervisor(python: &str) -> String {
    format!(
        r#"{LISTENER}
a, b = os.pipe(); open("outlives", "w")
# Another test has all numbers used again: a directory of /proc stays that of its process.
supervisor = os.open("/proc/" + os.environ["SUPERVISOR"], os.O_RDONLY)
s, t = tcp(), tcp(); udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if os.fork() == 0:
    os.close(b); os.setsid()
    # The pipe ends with the supervisor's child; the supervisor itself ends soon after.
    os.read(a, 1)
    while outcome(lambda: os.stat("stat", dir_fd=supervisor)) == "ok": time.sleep(0.01)
    with open("after", "w") as after:
        {python}
    os.rename("after", "orphan")
    os._exit(0)
"#
    )
}

/// Without the supervisor nobody answers, and nothing is made or connected any more.
#[test]
fn test_16_nothing_goes_on_without_the_supervisor() {
    if !is_possible() {
        return;
    }
    let ran = confined(&after_the_supervisor(
        r#"print(outcome(s.connect, EVIL), outcome(t.connect, GOOD), outcome(udp.sendto, b"secret", EVIL), file=after)
        print(outcome(socket.socket, socket.AF_INET, socket.SOCK_STREAM), file=after)
        libc.bind(s.fileno(), struct.pack("=HHI", 10, 0, 0) + socket.inet_pton(10, "fe80::1") + struct.pack("=I", 2), 28)
        for one in (s, t, udp):
            for send in (one.send, lambda data: one.sendmsg([data], [], 0, EVIL), lambda data: one.sendto(data, socket.MSG_FASTOPEN, EVIL)): outcome(send, b"secret")"#,
    ));
    ran.went_well();
    assert_eq!(ran.orphan(), "ENOSYS ENOSYS ENOSYS\nENOSYS\n", "{ran:#?}");
}

/// Somebody outside stops the supervisor: the app waits, nothing leaves, and all goes on when the supervisor does.
#[test]
fn test_16_nothing_goes_on_while_the_supervisor_is_stopped() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
ask = outside(); s, t = tcp(), tcp(); udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print(ask("stop"))
came, tids = {}, {}
def go(name, do, *arguments): tids[name] = threading.get_native_id(); came[name] = outcome(do, *arguments)
calls = {"good": (s.connect, GOOD), "evil": (t.connect, EVIL), "udp": (udp.sendto, b"secret", EVIL), "born": (tcp,)}
threads = [threading.Thread(target=go, args=(name, *call)) for name, call in calls.items()]
for thread in threads: thread.start()
def waits(name): return open(f"/proc/self/task/{tids[name]}/syscall").read().split()[0].isdigit() and name not in came
while not (len(tids) == 4 and all(waits(name) for name in calls)): time.sleep(0.01)
print("meanwhile", outcome(udp.sendmsg, [b"secret"], [], 0, EVIL), outcome(s.sendto, b"secret", socket.MSG_FASTOPEN, EVIL), outcome(s.send, b"secret"), came)
print(ask("resume"))
for thread in threads: thread.join()
print(came, greeting(s))
"#,
    );
    ran.went_well().said("stopped").said("meanwhile EPIPE EOPNOTSUPP EPIPE {}").said("resumed");
    assert!(ran.stdout.contains("'good': 'ok'") && ran.stdout.contains("'evil': 'EACCES'"), "{ran:#?}");
    assert!(ran.stdout.contains("'udp': 'EACCES'") && ran.stdout.contains("'born': 'ok'"), "{ran:#?}");
    assert!(ran.stdout.ends_with("203.0.113.7:443\n"), "{ran:#?}");
}

/// The supervisor's descriptors are counted by somebody outside, before and after. What is left may be folders of threads that
/// called, of which each thread that answers keeps a few.
#[test]
fn test_28_sockets_that_are_abandoned_are_not_kept() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
ask = outside()
def ends(number):
    if os.fork() == 0:
        if number % 2: s = tcp(); threading.Thread(target=lambda: outcome(s.connect, GOOD), daemon=True).start()
        else: [libc.socket(family, kind, 0) for family in (2, 10) for kind in (1, 2)]
        os.kill(os.getpid(), 9)
    os.wait()
def kept():
    return 8 * sum(name[len("confine-"):].isdigit() for name in supervisors_threads())
before = int(ask("count"))
for number in range(10000): os.close(libc.socket(2 if number % 2 else 10, 1 if number % 3 else 2, 0))
for number in range(500): ends(number)
most = int(ask("count")) - before; end = time.monotonic() + 60
while int(ask("count")) - before > kept() and time.monotonic() < end: time.sleep(0.05)
left = int(ask("count")) - before; print("counted", most > kept(), "kept", left if left > kept() else "none")
s = tcp(); s.connect(GOOD); print(greeting(s))
"#,
    );
    ran.went_well().said("counted True kept none").said("203.0.113.7:443");
}
