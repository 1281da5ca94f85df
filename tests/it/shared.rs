//! `egret run -- CMD`: stdout and stderr are the app's as well as egret's, the very same open files. An app that makes them
//! non-blocking, fills them, or has nobody read them, takes nothing from egret but time.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::egret::EgretBuilder;
use crate::support::programs::require;
use crate::support::{Egret, Program, eventually, run_egret};

const HANGUP: i32 = 1;
const TERMINATE: i32 = 15;

/// Noise is in pieces that a pipe keeps whole, so that what is torn is torn by egret.
const PRELUDE: &str = r#"
import fcntl, os, select, signal, socket, sys
NOISE = b'{"event":"noise","x":"' + b"x" * (4096 - 25) + b'"}\n'
PROXY = os.environ["HTTP_PROXY"].rpartition("/")[2].rsplit(":", 1)
assert len(NOISE) == 4096

def set(fd, flag, on=True):
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | flag if on else flags & ~flag)

def fill(fd):
    """Until there is no room for one octet."""
    set(fd, os.O_NONBLOCK)
    try:
        while True:
            os.write(fd, NOISE)
    except BlockingIOError:
        pass

def ask(name):
    """A request that is refused, and so recorded."""
    asking = socket.create_connection((PROXY[0], int(PROXY[1])))
    asking.sendall(f"CONNECT {name}.test:443 HTTP/1.1\r\nHost: {name}.test:443\r\n\r\n".encode())
    assert asking.recv(65536).startswith(b"HTTP/1.1 403 ")
    asking.close()

def ready():
    open(os.environ["READY"], "w").close()
"#;

/// egret about to start this Python program; nothing else looks at what the test is not about.
fn python(policy: &str, script: &str) -> EgretBuilder {
    let builder = Egret::with_policy(policy).under([require("setsid")]).arg("--confine").arg("off");
    let ready = builder.home().join("ready");
    let builder = builder.env("READY", ready).arg("--").arg("/usr/bin/python3").arg("-c");
    builder.arg(format!("{PRELUDE}\n{script}"))
}

/// Waits until the program says so.
fn ready(home: &Path) {
    let file = home.join("ready");
    eventually("the app is ready", || file.exists().then_some(()));
}

/// The names that were asked for, and how many events were lost.
fn told(egret: &Egret) -> (Vec<String>, u64) {
    let records = egret.records();
    let mut names: Vec<String> =
        records.iter().filter_map(|record| record["host"].as_str()?.strip_suffix(".test").map(str::to_owned)).collect();
    names.sort();
    (names, egret.events("gap").iter().filter_map(|gap| gap["lost"].as_u64()).sum())
}

#[test]
fn o63_a_journal_that_does_not_block_is_waited_for() {
    const BEFORE: usize = 200;
    let script = format!(
        r#"
fill(1); fill(2)
for n in range({BEFORE}): ask(f"before{{n:03}}")
ready()
for fd in (1, 2): select.select([], [fd], [])
for n in range(5): ask(f"later{{n}}")
"#
    );
    for sockets in [false, true] {
        let builder = python("version: 1\n", &script).unread(true);
        let home = builder.home().to_owned();
        let egret = if sockets { builder.sockets() } else { builder }.spawn();
        ready(&home);
        egret.read();
        assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
        let mut expected: Vec<String> = (0..BEFORE).map(|n| format!("before{n:03}")).collect();
        expected.extend((0..5).map(|n| format!("later{n}")));
        assert_eq!(told(&egret), (expected, 0), "sockets: {sockets}");
        let said: Vec<String> = egret.stderr().lines().filter(|line| !line.contains("noise")).map(str::to_owned).collect();
        assert_eq!(
            said,
            ["egret: confinement is none: confinement is off: programs that ignore the proxy variables are not held"]
        );
    }
}

#[test]
fn o63_a_flood_of_what_does_not_block_costs_no_record_that_is_not_counted() {
    let script = r#"
for fd in (1, 2): set(fd, os.O_NONBLOCK)
for fd in (1, 2, 1, 2):
    if os.fork() == 0:
        pieces = 1000
        while pieces:
            try:
                os.write(fd, NOISE)
                pieces -= 1
            except BlockingIOError:
                pass
        os._exit(0)
count, floods = 0, 4
while floods:
    ask(f"during{count}")
    count += 1
    while floods and os.waitpid(-1, os.WNOHANG)[0]: floods -= 1
ask(f"count{count}")
"#;
    for sockets in [false, true] {
        let builder = python("version: 1\n", script);
        let egret = if sockets { builder.sockets() } else { builder }.spawn();
        assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
        let (names, lost) = told(&egret);
        let count: u64 = names.iter().find_map(|name| name.strip_prefix("count")?.parse().ok()).expect("what came after is told");
        assert_eq!(names.len() as u64 + lost, count + 1, "sockets: {sockets}, {lost} lost");
    }
}

#[test]
fn o63_who_reads_neither_keeps_nobody_from_ending() {
    for is_blocking in [false, true] {
        let script = r#"
for fd in (1, 2):
    fill(fd)
    if os.environ["BLOCKING"] == "true": set(fd, os.O_NONBLOCK, False)
ready()
while True: signal.pause()
"#;
        let builder = python("version: 1\n", script).unread(true).env("BLOCKING", is_blocking.to_string());
        let home = builder.home().to_owned();
        let egret = builder.spawn();
        ready(&home);
        egret.signal(TERMINATE);
        assert_eq!(egret.wait_end().code(), Some(143), "blocking: {is_blocking}");
    }
}

#[test]
fn o64_a_full_stderr_does_not_disarm_stop() {
    for (is_blocking, sockets) in [(false, false), (true, false), (false, true)] {
        let script = r#"
fill(2)
if os.environ["BLOCKING"] == "true": set(2, os.O_NONBLOCK, False)
open(os.path.join(os.environ["WATCHED"], "new"), "w").close()
while True: signal.pause()
"#;
        let watched = tempfile::TempDir::new().expect("a temporary directory");
        let policy = format!("version: 1\nfiles: {{ watch: [{{ path: {}, action: stop }}] }}\n", watched.path().display());
        let builder = python(&policy, script).unread(false).env("WATCHED", watched.path());
        let builder = builder.env("BLOCKING", is_blocking.to_string());
        let egret = if sockets { builder.sockets() } else { builder }.spawn();
        let case = format!("blocking: {is_blocking}, sockets: {sockets}");
        assert_eq!(egret.wait_end().code(), Some(1), "{case}");
        let ending = egret.event("lifecycle", |event| event["phase"] == "child_terminating");
        assert!(ending["why"].as_str().is_some_and(|why| why.contains("/new")), "{case}: {ending:#}");
    }
}

#[test]
fn o65_a_full_stderr_keeps_no_policy_from_being_read() {
    let script = "fill(2); ready(); signal.sigwait([signal.SIGTERM])";
    let script = format!(
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n{script}"
    );
    let builder = python("version: 1\n", &script).unread(false);
    let home = builder.home().to_owned();
    let egret = builder.spawn();
    ready(&home);
    egret.rewrite_policy("version: [\n");
    egret.signal(HANGUP);
    egret.event("policy", |event| event["result"] == "rejected");
    egret.rewrite_policy("version: 1\negress: { allow: [good.test] }\n");
    egret.signal(HANGUP);
    egret.event("policy", |event| event["result"] == "loaded");
    egret.read();
    assert_eq!(egret.stop().code(), Some(0), "{}", egret.stderr());
    assert!(egret.stderr().contains("egret: the policy was not reloaded"), "{}", egret.stderr());
}

/// Runs egret on a terminal whose foreground its app takes, with an order to stop whoever writes there from behind.
const TERMINAL: &str = r#"
import os, pty, sys
APP = '''
import os, signal, socket, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.setpgid(0, 0)
os.tcsetpgrp(0, os.getpgid(0))
modes = termios.tcgetattr(0)
modes[3] |= termios.TOSTOP
termios.tcsetattr(0, termios.TCSANOW, modes)
host, port = os.environ["HTTP_PROXY"].rpartition("/")[2].rsplit(":", 1)
asking = socket.create_connection((host, int(port)))
asking.sendall(b"CONNECT evil.test:443 HTTP/1.1\\r\\nHost: evil.test:443\\r\\n\\r\\n")
asking.recv(65536)
asking.close()
sys.stdin.readline()
sys.exit(3)
'''
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], [*sys.argv[1:], '--', sys.executable, '-c', APP])
seen = b''
while b'evil.test' not in seen:
    seen += os.read(terminal, 4096)
os.write(terminal, b'typed\n')
try:
    while True:
        seen += os.read(terminal, 4096)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn o67_an_app_that_takes_the_terminal_stops_nobody_who_writes_there() {
    let egret = env!("CARGO_BIN_EXE_egret");
    let run = ["-c", TERMINAL, egret, "run", "--confine", "off", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy"];
    let home = tempfile::TempDir::new().expect("a temporary directory");
    let policy = home.path().join("policy.yaml");
    fs::write(&policy, "version: 1\n").expect("the test's directory is writable");
    let output = Program::new("python3").args(run).arg(&policy).run();
    assert_eq!(output.code, 3, "{output:#?}");
}

/// What a command writes to a stdout, or a stderr, that is full, does not block, and is read once the command waits or has ended;
/// and how it ends.
fn jammed(args: &[&str], give: fn(&mut Command, Stdio) -> &mut Command) -> (Option<i32>, String) {
    let (mut reader, mut writer) = UnixStream::pair().expect("descriptors are free");
    writer.set_nonblocking(true).expect("a socket can be told so");
    while writer.write(&[b' '; 4096]).is_ok() {}
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    give(command.args(args).stdout(Stdio::null()).stderr(Stdio::null()), OwnedFd::from(writer).into());
    let mut child = command.spawn().expect("egret starts");
    drop(command);
    eventually("it waits, or has ended", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it was not waited for");
        let state = stat.rsplit(") ").next()?.chars().next()?;
        matches!(state, 'S' | 'Z').then_some(())
    });
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    (child.wait().expect("a child").code(), text.trim_start_matches(' ').to_owned())
}

#[test]
fn a_command_that_prints_waits_for_who_reads() {
    let schema = run_egret(["schema"], "");
    assert_eq!(jammed(&["schema"], Command::stdout::<Stdio>), (Some(0), schema.stdout));
    let bad = ["check", "/nowhere.yaml"];
    let found = run_egret(bad, "");
    assert!(found.code == 2 && !found.stderr.is_empty(), "{found:?}");
    assert_eq!(jammed(&bad, Command::stderr::<Stdio>), (Some(2), found.stderr));
}

#[test]
fn a_command_whose_messages_nobody_takes_ends_as_it_would() {
    let (reader, writer) = UnixStream::pair().expect("descriptors are free");
    drop(reader);
    for (args, code) in [(&["check", "/nowhere.yaml"][..], 2), (&["run", "--policy", "/nowhere.yaml"], 2), (&["schema"], 0)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        let [stdout, stderr] = [(); 2].map(|()| OwnedFd::from(writer.try_clone().expect("descriptors are free")));
        let ended = command.args(args).stdout(stdout).stderr(stderr).status().expect("egret starts");
        assert_eq!(ended.code(), Some(code), "{args:?}");
    }
}
