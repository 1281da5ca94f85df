//! All of it again where something else is around the supervisor, and what only that ground allows.

use crate::yard::{Ground, all_again, confined, ground, is_possible};

#[test]
fn all_again_under_a_profile() {
    // The profile refuses unshare, which these two need.
    all_again("profile", &["connects::test_21_whoever_starts_whom", "privileges::test_23"]);
}

#[test]
fn all_again_as_root() {
    // Root has privileges, hides nothing from itself by hiding, and has a name that some controls don't expect.
    all_again("root", &["privileges::test_22_no_new_privileges", "bypasses::test_24_an_app"]);
}

/// Without Landlock and without waiting for fatal signals only. What those are needed for is not asked of it.
#[test]
fn all_again_on_an_old_kernel() {
    all_again(
        "old",
        &["test_31_the_c_library", "looks_like", "that_stand_for", "other_resolvers", "do_not_reach", "test_35_enforced"],
    );
}

/// What gosu and su-exec do: the supervisor is root, and the app is not any more.
#[test]
fn test_24_an_app_that_drops_its_privileges() {
    if ground() != Ground::Root || !is_possible() {
        return;
    }
    let ran = confined(
        r#"
import subprocess
code = "import socket, os; s = socket.create_connection(('203.0.113.7', 443)); print(os.getuid(), s.makefile().readline().strip())"
subprocess.run([sys.executable, "-c", code], user=1234, group=1234, extra_groups=[])
if os.fork() == 0:
    os.setgid(1234); os.setuid(1234)
    print("without exec", outcome(tcp().connect, GOOD), outcome(tcp().connect, EVIL)); sys.stdout.flush(); os._exit(0)
os.wait()
"#,
    );
    ran.went_well().said("1234 203.0.113.7:443").said("without exec EACCES EACCES");
    assert!(ran.asked.iter().any(|asked| asked.starts_with("proxy 203.0.113.7:443") && asked.ends_with(" 1234")), "{ran:#?}");
}

/// Capabilities that lead around the confinement are gone, whoever the app is.
#[test]
fn test_09_raw_sockets_and_packets_of_root() {
    if ground() != Ground::Root || !is_possible() {
        return;
    }
    let ran = confined(
        r#"
print("raw", outcome(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1), "packet", outcome(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 768))
print("held", int([l for l in open("/proc/self/status") if l.startswith("CapEff")][0].split()[1], 16) & (1 << 13 | 1 << 12 | 1 << 19 | 1 << 21))
"#,
    );
    ran.went_well().said("raw EPROTONOSUPPORT packet EAFNOSUPPORT").said("held 0");
}
