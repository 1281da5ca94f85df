//! What holds while it changes: another policy, tunnels that it revokes, other executables, other users.

use serde_json::Value;

use super::{POLICY, Scene, app, python_words, run, start};
use crate::support::outside::{is_root, untested, whole};
use crate::support::programs::require;
use crate::support::{Outside, eventually};

/// Has egret read its policy again.
const HANGUP: i32 = 1;
/// Passed on to the app, which takes it for its cue.
const USER_SIGNAL: i32 = 10;

/// Waits for the test's cue; the signal is blocked from the start, so that it is never lost.
const CUE: &str = r#"
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGHUP])
def cue(): print("ready"); signal.sigwait([signal.SIGUSR1])
"#;

impl Scene {
    /// Another policy comes into force, and the app, which waits for its cue, gets it.
    fn reload(&self, policy: &str) {
        self.said("ready");
        self.egret.rewrite_policy(&whole(policy));
        // The app could have written it: it is read when somebody says so. The app, too, gets the signal.
        self.egret.signal(HANGUP);
        self.egret.event("policy", |event| event["result"] == "loaded");
        self.egret.signal(USER_SIGNAL);
    }
}

#[test]
fn another_policy_binds_the_next_connection() {
    let before = "direct: [45.0.0.66]\negress:\n  allow: [{ to: 'good.test:80' }]\n";
    let after = "direct: [45.0.0.67]\negress:\n  allow: [{ to: 'db.test:5432' }]\n";
    let script = r#"
def look():
    print(outcome(connected, EVIL, 2222), outcome(connected, "45.0.0.67", 2222), get("http://good.test/")[:5], outcome(connected, GOOD, 80), addresses("db.test"))
look(); cue(); look()
"#;
    let Some(scene) = start(before, &format!("{CUE}{script}")) else { return };
    scene.reload(after);
    scene.ended_well();
    let said = scene.egret.stderr();
    let looks: Vec<&str> = said.lines().filter(|line| *line != "ready" && !line.starts_with("egret: ")).collect();
    assert_eq!(looks, ["ok EACCES hello ok NONAME", "EACCES ok gaier EACCES 44.0.0.8"]);
    let hashes: std::collections::BTreeSet<String> = scene.egret.records().iter().map(|r| r["policy"].to_string()).collect();
    assert_eq!(hashes.len(), 2, "each record has the policy that judged it");
    scene.outside.only(&["44.0.0.7:80", "44.0.0.7:80", "45.0.0.66:2222", "45.0.0.67:2222"], &["good.test", "db.test"]);
}

/// Root in a container may write nearly everything, and the policy with it.
#[test]
fn a_policy_that_the_app_writes_is_not_taken() {
    let script = r#"
command = open(f"/proc/{os.getppid()}/cmdline").read().split("\0"); policy = command[command.index("--policy") + 1]
open(policy, "w").write("version: 1\negress:\n  allow: [{ to: '45.0.0.66', ports: [25], as: tcp }]\n")
until = time.monotonic() + 3
while (came := outcome(connected, EVIL, 25)) == "EACCES" and time.monotonic() < until: time.sleep(0.05)
print("evil", came)
"#;
    let Some(scene) = run(POLICY, script) else { return };
    scene.said("evil EACCES");
    assert!(scene.egret.stderr().contains("can be changed by CMD, and is read again on SIGHUP only"), "{}", scene.egret.stderr());
    scene.outside.only(&[], &[]);
}

/// A name of `/etc/hosts` stands for its address, as for those whom the administrator wrote there.
#[test]
fn names_that_the_app_writes_are_not_taken() {
    let script = r#"
open("/etc/hosts", "a").write("45.0.0.66 db.test good.test\n"); open("/etc/resolv.conf", "w").write("nameserver 45.0.0.53\n")
cue(); print("evil", tls(EVIL, "good.test"))
"#;
    let Some(scene) = start(POLICY, &format!("{CUE}{script}")) else { return };
    scene.reload(&format!("{POLICY}    - more.test\n"));
    scene.ended_well();
    scene.refused("good.test", 443, "address_not_of_name");
    scene.outside.only(&[], &["good.test"]);
}

#[test]
fn a_revoked_tunnel_is_closed_where_that_is_wanted() {
    let Some(outside) = Outside::new() else { return };
    let script = r#"
s = connected("db.test", 5432); s.sendall(b"\0hello"); s.recv(6)
kept = connected("good.test", 80); kept.sendall(b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n"); kept.recv(4096)
cue(); print("revoked", outcome(s.recv, 1)); print("kept", request(kept, "good.test"))
"#;
    let egret = outside.egret(POLICY).arg("--close-revoked");
    let egret = app(&outside, egret, &python_words(&format!("{CUE}{script}"))).start();
    let scene = Scene { outside, egret };
    scene.reload("egress:\n  allow: [{ to: 'good.test:80' }]\n");
    scene.ended_well().said("revoked ECONNRESET").said("kept hello from 44.0.0.7:80 as good.test");
    assert_eq!(scene.record("db.test", 5432)["close"], "revoked");
    assert_eq!(scene.record("good.test", 80)["close"], "client");
}

#[test]
fn roles_are_told_by_the_executable_that_connects() {
    let curl = require("curl").canonicalize().expect("a path").display().to_string();
    let policy = format!(
        "roles: {{ fetch: {{ exe: {curl} }} }}
egress:
  allow: [{{ to: 'good.test:80', for: [fetch] }}, {{ to: 'private.test:80', for: [fetch], within: [10.20.0.0/16] }}]
"
    );
    let script = format!(
        r#"
for name in ("good.test", "private.test"):
    fetched = subprocess.run(["{curl}", "-sS", f"http://{{name}}/"], capture_output=True, text=True)
    print(fetched.stdout.strip(), fetched.stderr.strip())
    print("python", get(f"http://{{name}}/"))
print("curl's", outcome(connected, GOOD, 80))
"#
    );
    let Some(scene) = run(&policy, &script) else { return };
    scene.said("hello from 44.0.0.7:80 as good.test ").said("hello from 10.20.0.9:80 as private.test ");
    // What only another program may reach does not exist for this one, not even where it knows the address.
    assert_eq!(scene.egret.stderr().matches("python gaierror").count(), 2, "{}", scene.egret.stderr());
    scene.said("curl's EACCES");
    let records = scene.egret.wait_records(3);
    let told = |record: &Value| ["role", "exe", "decision"].map(|field| record[field].as_str().unwrap_or("-").to_owned());
    for record in &records {
        let [role, exe, decision] = told(record);
        let is_curl = exe == curl;
        assert_eq!((role == "fetch", decision == "allow"), (is_curl, is_curl), "{record:#}");
    }
    scene.outside.only(&["10.20.0.9:80", "44.0.0.7:80"], &["good.test", "private.test"]);
}

/// The capabilities of a container (moby's default), of which a program that drops root needs two.
const CONTAINER: &str = "--bounding-set=-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,\
                         +setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write";

#[test]
fn a_program_that_drops_root_is_still_held() {
    if !is_root() && !untested("only root can drop root") {
        return;
    }
    let Some(outside) = Outside::new() else { return };
    let script = r#"
drop = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "--inh-caps=-all"]
for url in ("http://good.test/", "http://evil.test/", "http://45.0.0.66:81/"):
    fetched = subprocess.run([*drop, "curl", "-sS", url], capture_output=True, text=True)
    print(fetched.returncode, fetched.stdout.strip())
print("raw", outcome(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1))
"#;
    let egret = app(&outside, outside.egret_with(&[CONTAINER], POLICY), &python_words(script)).start();
    let scene = Scene { outside, egret };
    scene.ended_well().said("0 hello from 44.0.0.7:80 as good.test").said("6 ").said("7 ").said("raw EPROTONOSUPPORT");
    assert_eq!(scene.record("good.test", 80)["uid"], 1234);
    assert_eq!(scene.refused("45.0.0.66", 81, "address_not_listed")["uid"], 1234);
    scene.outside.only(&["44.0.0.7:80"], &["good.test"]);
}

/// While egret is asked to end, its app is still to say goodbye.
#[test]
fn an_app_that_shuts_down_is_served_to_its_end() {
    let Some(outside) = Outside::new() else { return };
    let script = r#"
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print("ready"); signal.sigwait([signal.SIGTERM])
print(get("http://good.test/"), addresses("evil.test"), outcome(connected, EVIL, 25)); sys.exit(5)
"#;
    let egret = app(&outside, outside.egret(POLICY).arg("--drain").arg("600"), &python_words(script)).start();
    let scene = Scene { outside, egret };
    scene.said("ready");
    assert_eq!(scene.egret.stop().code(), Some(5), "{}", scene.egret.stderr());
    scene.said("hello from 44.0.0.7:80 as good.test NONAME EACCES");
    scene.refused("45.0.0.66", 25, "address_not_listed");
    scene.outside.only(&["44.0.0.7:80"], &["good.test"]);
}

/// The supervisor is gone: what it would be asked fails, and nothing leaves.
#[test]
fn without_egret_nothing_leaves() {
    let script = r#"
PARENT = os.getppid()
old = connected("db.test", 5432)
held = tcp()
here = open(os.environ["HOME"] + "/after", "w")
print("ready")
while os.getppid() == PARENT: select.select([], [], [], 0.01)
new = outcome(socket.socket, socket.AF_INET, socket.SOCK_STREAM)
ends = [outcome(held.connect, (EVIL, 80)), outcome(held.connect, (GOOD, 80)), new, outcome(old.recv, 1), addresses("good.test")]
here.write(" ".join(ends)); here.close(); os.rename(here.name, here.name + "-done")
"#;
    let Some(scene) = start(POLICY, script) else { return };
    scene.said("ready");
    scene.egret.signal(9);
    let done = scene.outside.home().join("after-done");
    let said = eventually("the app has tried", || std::fs::read_to_string(&done).ok());
    assert!(said.starts_with("ENOSYS ENOSYS ENOSYS "), "{said}");
    scene.outside.only(&["44.0.0.8:5432"], &["db.test"]);
}
