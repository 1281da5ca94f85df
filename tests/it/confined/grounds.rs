//! Real programs wherever a container may put them: as a user who may do nothing, under the runtime's seccomp profile, and as root
//! with the capabilities that runtimes give.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::programs::{POLICY, asks_about, in_go, with_musl};
use super::{Scene, app};
use crate::support::Outside;
use crate::support::outside::{is_root, untested};
use crate::support::programs::require;

const NOBODY: [&str; 6] =
    ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];

/// As moby's.
const CONTAINER: &str = "--bounding-set=-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,\
                         +setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write";

/// Each program fetches from whom it may and, if it is one that tells, from whom it may not.
const PROGRAMS: &str = r#"
exec >&2
try() { echo "-- $*"; name=$1; shift; "$@"; echo "$name ended with $?"; }
requests='import os, sys, requests; print(requests.get(sys.argv[1], verify=os.environ["SSL_CERT_FILE"]).text)'
fetch='fetch(process.argv[1]).then(r => r.text()).then(console.log, e => { console.log(e.cause); process.exit(9) })'
for host in good.test evil.test; do
    try curl-$host curl -sS https://$host/
    try wget-$host wget -qO- --tries=1 --ca-certificate="$SSL_CERT_FILE" https://$host/
    try git-$host git ls-remote https://$host/repo.git
    try python-$host /usr/bin/python3 -c "$requests" https://$host/
    try node-$host node -e "$fetch" https://$host/
    try ssh-$host ssh -F/dev/null -p2222 -oBatchMode=yes -oUserKnownHostsFile=/dev/null -oStrictHostKeyChecking=no $host true
done
try redis redis-cli -h db.test GET greeting
try go "$1" https://good.test/ https://evil.test/ http://45.0.0.66/
try musl "$2" good.test evil.test 45.0.0.66
"#;

/// What stands before egret: arguments of setpriv(1), and whatever follows them.
fn programs_reach_what_they_may(outside: Outside, ground: &[&str]) {
    for program in ["curl", "wget", "git", "node", "ssh", "redis-cli"] {
        require(program);
    }
    let (go, musl) = (in_go(&outside), with_musl(&outside));
    let egret = outside.egret_with(ground, POLICY);
    for folder in [outside.home(), egret.home()] {
        open_to_all(folder);
    }
    let egret = app(&outside, egret, &["/bin/sh", "-c", PROGRAMS, "sh", &go, &musl]).start();
    let scene = Scene { outside, egret };
    scene.ended_well();
    for (program, refused) in [("curl", 6), ("wget", 4), ("git", 128), ("python", 1), ("node", 9)] {
        scene.said(&format!("{program}-good.test ended with 0")).said(&format!("{program}-evil.test ended with {refused}"));
    }
    for program in ["redis", "go", "musl"] {
        scene.said(&format!("{program} ended with 0"));
    }
    scene.said("refused https://evil.test/").said("refused http://45.0.0.66/");
    scene.said("unknown evil.test").said("45.0.0.66: Permission denied");
    let left = scene.outside.left();
    let (connects, asks): (Vec<_>, Vec<_>) = left.iter().partition(|line| line.starts_with("connect"));
    let expected = ["44.0.0.7:2222", "44.0.0.7:443", "44.0.0.7:80", "44.0.0.8:6379"];
    let expected = expected.map(|to| (format!("connect {to}"), if to.ends_with(":443") { 6 } else { 1 }));
    let found = expected.each_ref().map(|(line, _)| (line.clone(), connects.iter().filter(|found| **found == line).count()));
    assert_eq!((found, connects.len()), (expected, 9), "{left:#?}");
    assert!(asks.iter().all(|line| asks_about(line, &["good.test", "db.test"])), "{left:#?}");
}

fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("it is the test's own");
}

#[test]
fn programs_of_nobody() {
    if !is_root() && !untested("only root can be nobody") {
        return;
    }
    let Some(outside) = Outside::new() else { return };
    programs_reach_what_they_may(outside, &NOBODY);
}

#[test]
fn programs_under_the_profile_of_a_container() {
    if !is_root() && !untested("only root can be nobody") {
        return;
    }
    let Some(outside) = Outside::new() else { return };
    let profile = outside.home().join("container.py");
    fs::write(&profile, include_str!("../../../confine/tests/confined/profile.py")).expect("the test's directory is writable");
    let profile = profile.display().to_string();
    let ground = [&NOBODY[..], &["/usr/bin/python3", &profile]].concat();
    programs_reach_what_they_may(outside, &ground);
}

#[test]
fn programs_of_a_containers_root() {
    let Some(outside) = Outside::new() else { return };
    programs_reach_what_they_may(outside, &[CONTAINER]);
}
