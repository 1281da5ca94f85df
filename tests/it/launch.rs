//! `egret run -- CMD`: the app is egret's child, behind the proxy, with its signals and its status; egret is a good init,
//! as process 1 or not, and ends with the app, whatever the app does.
//!
//! The app writes to stderr, as stdout is the journal's, and egret has no terminal but in the test of one.

use std::fs;

use serde_json::Value;

use crate::support::egret::EgretBuilder;
use crate::support::programs::require;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Program, Upstream, eventually};

const HANGUP: i32 = 1;
const INTERRUPT: i32 = 2;
const TERMINATE: i32 = 15;
const EMPTY: &str = "version: 1\n";

/// Waits for signals one by one and names them; SIGTERM and SIGINT end it. Nothing is lost between two, as all are blocked.
const LISTENER: &str = "
import signal, sys
waited = [getattr(signal, 'SIG' + name) for name in 'HUP INT QUIT USR1 USR2 TERM CONT TSTP WINCH'.split()]
signal.pthread_sigmask(signal.SIG_BLOCK, waited)
print('ready', file=sys.stderr, flush=True)
while True:
    got = signal.Signals(signal.sigwait(waited))
    print('got', got.name, file=sys.stderr, flush=True)
    if got in (signal.SIGTERM, signal.SIGINT):
        sys.exit(3)
";

/// egret about to start this command, in a session of its own.
fn launch(policy: &str, command: &[&str]) -> EgretBuilder {
    command.iter().fold(Egret::with_policy(policy).under([require("setsid")]).arg("--"), EgretBuilder::arg)
}

fn shell(script: &str) -> EgretBuilder {
    launch(EMPTY, &["sh", "-c", script])
}

/// The same with these arguments of egret's before the command.
fn shell_with(args: &[&str], script: &str) -> EgretBuilder {
    let builder = args.iter().fold(Egret::with_policy(EMPTY).under([require("setsid")]), EgretBuilder::arg);
    ["--", "sh", "-c", script].iter().fold(builder, EgretBuilder::arg)
}

fn python() -> String {
    require("python3").display().to_string()
}

fn phase(egret: &Egret, phase: &str) -> Value {
    egret.event("lifecycle", |event| event["phase"] == phase)
}

fn phases(egret: &Egret) -> Vec<String> {
    egret.events("lifecycle").iter().map(|event| event["phase"].as_str().expect("a phase").to_owned()).collect()
}

/// Waits until the app has written this line.
fn said(egret: &Egret, line: &str) {
    eventually(&format!("the app says {line}"), || egret.stderr().lines().any(|said| said == line).then_some(()));
}

#[test]
fn the_app_reaches_what_is_allowed_and_is_told_what_is_not() {
    let (dns, upstream) = (DnsServer::new(), Upstream::http("hello from upstream\n"));
    dns.answers("allowed.test", &LOCALHOST);
    let policy = policy(&dns, &[local("allowed.test", upstream.port(), "as: http")]);
    let script = format!(
        "curl -sS http://allowed.test:{0}/ >&2; curl -sS http://evil.test:{0}/ >&2
         {1} -c 'import urllib.request as r; print(len(r.urlopen(\"http://allowed.test:{0}/\").read()))' >&2",
        upstream.port(),
        python()
    );
    let egret = launch(&policy, &["sh", "-c", &script]).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains("hello from upstream\n"), "{}", egret.stderr());
    assert!(egret.stderr().contains("evil.test") && egret.stderr().contains("no rule names it"), "{}", egret.stderr());
    said(&egret, "20");
    assert_eq!(upstream.heads().len(), 2);
    // What was open when the app ended has its record too.
    let decisions: Vec<Value> = egret.wait_records(3).iter().map(|record| record["decision"].clone()).collect();
    assert_eq!(decisions.iter().filter(|decision| **decision == "allow").count(), 2, "{decisions:?}");
}

#[test]
fn the_app_has_the_callers_environment_with_the_proxy_in_it() {
    let policy = "version: 1\ndirect: [10.0.0.53]\n";
    let script = r#"env >"$OUT"; pwd >>"$OUT"; cat >>"$OUT"; grep -E '^Sig(Ign|Blk)' /proc/self/status >>"$OUT"
                    read -r _ _ _ _ group _ </proc/$$/stat; [ "$group" = $$ ]"#;
    let builder = launch(policy, &["sh", "-c", script]).listen("0.0.0.0:0");
    let home = builder.home().display().to_string();
    let enter = format!("cd {home} && printf 'from stdin\\n' >in && exec \"$@\" <in");
    let egret = builder
        .under(["/bin/sh", "-c", &enter, "sh", &require("setsid").display().to_string()])
        .env("OUT", format!("{home}/out"))
        .env("https_proxy", "http://elsewhere.test:1")
        .env("NO_PROXY", "*")
        .env("MINE", "kept")
        .start();
    assert_eq!(egret.wait_exit().code(), Some(0), "the app leads a group of its own: {}", egret.stderr());
    let out = fs::read_to_string(egret.policy_path().with_file_name("out")).expect("the app wrote a file");
    let proxy = format!("http://127.0.0.1:{}", egret.proxy().port());
    for line in [
        "MINE=kept",
        "from stdin",
        &home,
        &format!("HTTP_PROXY={proxy}"),
        &format!("https_proxy={proxy}"),
        "NO_PROXY=localhost,127.0.0.1,::1,169.254.170.2,169.254.170.23,10.0.0.53",
        "NODE_USE_ENV_PROXY=1",
        "SigBlk:\t0000000000000000",
    ] {
        assert!(out.lines().any(|found| found == line), "no {line} in {out}");
    }
    let ignored = out.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("SigIgn");
    // 32 and 33 are the C library's own.
    let ignored = u64::from_str_radix(ignored, 16).expect("hexadecimal digits") & 0x7fff_ffff;
    assert_eq!(ignored, 0, "SIGPIPE and the others are at their defaults");
}

#[test]
fn the_apps_status_is_egrets() {
    for (script, code, status, signal) in [
        ("exit 0", 0, Some(0), None),
        ("exit 7", 7, Some(7), None),
        ("exit 255", 255, Some(255), None),
        ("kill -KILL $$", 137, None, Some(9)),
        ("kill -TERM $$", 143, None, Some(15)),
    ] {
        let egret = launch(EMPTY, &["sh", "-c", script, "a-secret"]).start();
        assert_eq!(egret.wait_exit().code(), Some(code), "{script}");
        assert_eq!(phases(&egret), ["started", "child_started", "child_exited", "stopped"], "{script}");
        let (started, exited) = (phase(&egret, "child_started"), phase(&egret, "child_exited"));
        assert_eq!((started["command"].as_str(), &started["pid"]), (Some("sh"), &exited["pid"]), "{script}");
        let told = (exited["status"].as_i64(), exited["signal"].as_i64());
        assert_eq!(told, (status, signal), "{script}: {exited}");
        assert!(!egret.stdout_lines().concat().contains("secret"), "arguments may be secrets");
    }
}

#[test]
fn a_command_that_cannot_be_started_is_named_and_has_the_shells_status() {
    let home = tempfile::TempDir::new().expect("a temporary directory");
    let script = home.path().join("script").display().to_string();
    fs::write(&script, "#!/nonexistent/interpreter\n").expect("the test's directory is writable");
    let plain = home.path().join("plain").display().to_string();
    fs::copy(&script, &plain).expect("the test's directory is writable");
    let executable = Program::new("chmod").args(["+x", &script]).run();
    assert_eq!(executable.code, 0, "{executable:?}");
    for (command, code, says) in [
        ("no-such-command", 127, "no command `no-such-command` in PATH"),
        ("/nonexistent/app", 127, "no command `/nonexistent/app`"),
        (&script, 127, "its interpreter"),
        (&plain, 126, "cannot be executed"),
        ("/", 126, "cannot be executed"),
    ] {
        let egret = launch(EMPTY, &[command, "a-secret"]).spawn();
        assert_eq!(egret.wait_exit().code(), Some(code), "{command}");
        assert!(egret.stderr().contains(says) && egret.stderr().contains(command), "{command}: {}", egret.stderr());
        assert!(!egret.stderr().contains("secret"), "{}", egret.stderr());
        assert_eq!(phases(&egret), ["started", "stopped"], "{command}");
    }
}

#[test]
fn signals_are_passed_on_and_a_hangup_also_reloads() {
    let egret = launch(EMPTY, &[&python(), "-c", LISTENER]).start();
    said(&egret, "ready");
    for (number, name) in [(HANGUP, "HUP"), (3, "QUIT"), (10, "USR1"), (12, "USR2"), (28, "WINCH"), (18, "CONT"), (20, "TSTP")] {
        egret.signal(number);
        said(&egret, &format!("got SIG{name}"));
    }
    egret.event("policy", |event| event["result"] == "loaded");
    assert_eq!(egret.get_admin("/readyz").0, 200, "none of them is an end");
    egret.signal(INTERRUPT);
    assert_eq!(egret.wait_exit().code(), Some(3));
    said(&egret, "got SIGINT");
    assert_eq!(phase(&egret, "child_terminating")["why"], "SIGINT");
}

/// Ends only after it has asked something of the upstream, when it is let.
const LATE: &str = "
import os, signal, sys, urllib.request
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print('ready', file=sys.stderr, flush=True)
signal.sigwait([signal.SIGTERM])
open(sys.argv[1]).read()
print(urllib.request.urlopen(sys.argv[2]).read().decode(), file=sys.stderr)
sys.exit(5)
";

#[test]
fn the_gateway_serves_while_the_app_shuts_down() {
    let (dns, upstream) = (DnsServer::new(), Upstream::http("goodbye"));
    dns.answers("allowed.test", &LOCALHOST);
    let policy = policy(&dns, &[local("allowed.test", upstream.port(), "as: http")]);
    let home = tempfile::TempDir::new().expect("a temporary directory");
    let gate = home.path().join("gate");
    assert_eq!(Program::new("mkfifo").arg(&gate).run().code, 0);
    let url = format!("http://allowed.test:{}/", upstream.port());
    let gate_name = gate.display().to_string();
    let builder = Egret::with_policy(&policy).under([require("setsid")]).arg("--drain").arg("600");
    let egret = ["--", &python(), "-c", LATE, &gate_name, &url].iter().fold(builder, EgretBuilder::arg).start();
    said(&egret, "ready");
    let pid = phase(&egret, "child_started")["pid"].clone();
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!((&status["child"]["state"], &status["child"]["pid"]), (&"running".into(), &pid));
    egret.signal(TERMINATE);
    let told = phase(&egret, "child_terminating");
    assert_eq!((told["why"].as_str(), told["grace_ms"].as_u64()), (Some("SIGTERM"), Some(600_000)));
    assert_eq!(egret.get_admin("/readyz"), (503, "draining\n".to_owned()));
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!(status["child"]["state"], "terminating");
    fs::write(&gate, "go").expect("the app reads");
    assert_eq!(egret.wait_exit().code(), Some(5), "{}", egret.stderr());
    said(&egret, "goodbye");
    let expected = ["started", "child_started", "draining", "child_terminating", "child_exited", "stopped"];
    assert_eq!(phases(&egret), expected);
}

#[test]
fn an_app_that_ignores_the_end_is_killed_with_its_group_after_the_drain() {
    for drain in ["0", "1"] {
        // Its own child holds stdout; that one must be gone too, or this test waits for it.
        let egret = shell_with(&["--drain", drain], "trap '' TERM; sleep 600 & echo ready >&2; wait; wait").start();
        said(&egret, "ready");
        assert_eq!(egret.stop().code(), Some(137), "--drain {drain}");
        phase(&egret, "child_killed");
        assert_eq!(phase(&egret, "child_exited")["signal"], 9);
    }
}

#[test]
fn a_daemon_that_holds_stdout_does_not_hold_up_the_end() {
    let egret = shell("setsid sleep 600 & echo daemon $! >&2; exit 4").start();
    assert_eq!(egret.wait_end().code(), Some(4));
    let daemon = eventually("the app names its daemon", || {
        egret.stderr().lines().find_map(|line| line.strip_prefix("daemon ").map(str::to_owned))
    });
    let kill = format!("kill -KILL {daemon}");
    assert_eq!(Program::new("sh").args(["-c", &kill]).run().code, 0, "it outlived egret");
}

/// Leaves 600 orphans behind, and ends well when egret has no child but this one any more.
const ORPHANS: &str = r"
import glob, os, sys, time
for _ in range(600):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(9)
        os._exit(0)
    os.wait()
def children():
    for name in glob.glob('/proc/[0-9]*/stat'):
        try:
            fields = open(name).read().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getppid():
            yield name
end = time.monotonic() + 20
while len(list(children())) > 1:
    if time.monotonic() > end:
        sys.exit('egret keeps dead children: ' + ' '.join(children()))
    time.sleep(0.01)
sys.exit(8)
";

#[test]
fn orphans_are_reaped_and_their_status_is_not_the_apps() {
    let egret = launch(EMPTY, &[&python(), "-c", ORPHANS]).start();
    assert_eq!(egret.wait_exit().code(), Some(8), "{}", egret.stderr());
}

#[test]
fn an_orphan_comes_to_egret() {
    let script = "(sleep 600 & echo $! >\"$OUT\"); read -r pid <\"$OUT\"; read -r _ _ _ parent _ </proc/$pid/stat
                  kill $pid; [ \"$parent\" = $PPID ]";
    let builder = shell(script);
    let out = builder.home().join("out");
    let egret = builder.env("OUT", out).start();
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
}

#[test]
fn as_process_1_it_does_the_same() {
    const NAMESPACE: [&str; 6] = ["unshare", "-r", "-p", "-f", "--mount-proc", "--kill-child"];
    // An app that is confined may not signal egret.
    for (confine, command, code) in [
        ("auto", vec!["sh", "-c", "[ $PPID = 1 ] && exit 9"], 9),
        ("off", vec!["sh", "-c", "trap 'exit 6' TERM; sleep 600 & kill -TERM 1; wait"], 6),
        ("off", vec!["sh", "-c", "trap '' TERM; kill -TERM 1; sleep 600"], 137),
        ("auto", vec!["sh", "-c", "setsid sleep 600 & exit 5"], 5),
        ("off", vec![&*python(), "-c", ORPHANS], 8),
        ("auto", vec![&*python(), "-c", ORPHANS], 8),
    ] {
        let builder = Egret::with_policy(EMPTY).under(NAMESPACE).arg("--drain").arg("1").arg("--confine").arg(confine).arg("--");
        let egret = command.iter().fold(builder, EgretBuilder::arg).start();
        assert_eq!(egret.started()["pid"], 1, "{command:?}");
        // Whatever is left in the namespace ends with its process 1, or stdout would stay open.
        assert_eq!(egret.wait_exit().code(), Some(code), "{command:?}: {}", egret.stderr());
    }
}

#[test]
fn a_stopped_app_is_woken_to_end() {
    let egret = shell_with(&["--drain", "600"], "trap 'exit 6' TERM; kill -STOP $$; exec sleep 600").start();
    let pid = phase(&egret, "child_started")["pid"].clone();
    eventually("the app has stopped", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.contains(") T ").then_some(())
    });
    assert_eq!(egret.stop().code(), Some(6));
}

#[test]
fn that_the_app_is_not_held_is_said_once_everywhere() {
    let egret = shell_with(&["--confine", "off"], "echo ready >&2; exec sleep 600").start();
    said(&egret, "ready");
    phase(&egret, "child_started");
    let told = egret.event("confinement", |_| true);
    assert_eq!((told["state"].as_str(), told["why"].as_str().map(|why| why.contains("ignore"))), (Some("none"), Some(true)));
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!((&status["confinement"]["state"], &status["confinement"]["why"]), (&told["state"], &told["why"]), "{status}");
    assert_eq!(status["child"]["command"], "sh");
    assert_eq!(egret.stop().code(), Some(143));
    assert_eq!(egret.stderr().matches("confinement is none").count(), 1, "{}", egret.stderr());
    assert_eq!(egret.events("confinement").len(), 1);
}

#[test]
fn without_a_command_there_is_no_child_to_tell_of() {
    let egret = Egret::with_policy(EMPTY).arg("--drain").arg("0").start();
    let status: Value = serde_json::from_str(&egret.get_admin("/status").1).expect("JSON");
    assert_eq!(status["child"], Value::Null);
    assert_eq!(egret.stop().code(), Some(0));
    assert_eq!(egret.events("confinement"), [Value::Null; 0]);
}

/// Runs egret on a terminal of its own: the app reads a line there, then is sent Ctrl-C, which it survives.
const TERMINAL: &str = r"
import os, pty, sys
APP = '''
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
print('line', sys.stdin.readline().strip(), flush=True)
for _ in range(2):
    print('got', signal.Signals(signal.sigwait([signal.SIGINT, signal.SIGTERM])).name, flush=True)
sys.exit(3)
'''
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [*sys.argv[1:], '--', sys.executable, '-c', APP])
seen = b''
def until(text):
    global seen
    while text not in seen:
        seen += os.read(terminal, 4096)
until(b'child_started')
os.write(terminal, b'typed\n')
until(b'line typed')
os.write(terminal, b'\x03')
until(b'got SIGINT')
os.kill(pid, 15)
until(b'got SIGTERM')
try:
    while True:
        seen += os.read(terminal, 4096)
except OSError:
    pass
print(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn on_a_terminal_its_keys_reach_the_app_once() {
    let egret = env!("CARGO_BIN_EXE_egret");
    let run = ["-c", TERMINAL, egret, "run", "--mode", "audit", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let output = Program::new("python3").args(run).run();
    assert_eq!(output.code, 3, "{output:#?}");
    assert_eq!(output.stdout.matches("\"child_terminating\"").count(), 1, "Ctrl-C is the app's affair: {output:#?}");
}
