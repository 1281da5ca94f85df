//! The program under test: started on ports of the kernel's choice with a policy of its own, watched through its
//! journal, its stderr and its admin port, and killed when dropped. What egret should do is the tests' business.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use super::client::connect;
use super::http1::Response;
use super::programs::{Output, Program, require};
use super::seen::Seen;
use super::{DEADLINE, eventually};

const EGRET: &str = env!("CARGO_BIN_EXE_egret");

/// SIGTERM, as every Unix numbers it.
const TERMINATE: i32 = 15;

/// Runs egret's one-shot commands (`check`, `explain`, …) to their end.
pub(crate) fn run_egret<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>, stdin: &str) -> Output {
    egret_program().args(args).stdin(stdin.as_bytes()).run()
}

/// The same, to be given variables or a directory before it runs.
pub(crate) fn egret_program() -> Program {
    Program::at(Path::new(EGRET))
}

/// `egret run` about to be started.
pub(crate) struct EgretBuilder {
    home: TempDir,
    policy: bool,
    listen: Vec<String>,
    admin: String,
    under: Vec<OsString>,
    enter: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    sockets: bool,
    unread: [bool; 2],
}

/// A running `egret run`.
pub(crate) struct Egret {
    child: Mutex<Child>,
    pid: u32,
    home: TempDir,
    /// What runs a program where egret's loopback is, if that is not the test's.
    enter: Vec<OsString>,
    stdout: Arc<Seen<String>>,
    stderr: Arc<Seen<String>>,
    /// What nobody reads yet, and where its lines are to be collected.
    unread: Mutex<Vec<(Reader, Arc<Seen<String>>)>>,
}

/// The other end of stdout, or of stderr.
type Reader = Box<dyn Read + Send>;

impl Egret {
    /// An egret whose policy is this text, in a file of its own.
    pub(crate) fn with_policy(yaml: &str) -> EgretBuilder {
        let builder = EgretBuilder { policy: true, ..Self::without_policy() };
        fs::write(policy_file(&builder.home), yaml).expect("the test's directory is writable");
        builder
    }

    /// An egret without `--policy`, for the other places that a policy may come from.
    pub(crate) fn without_policy() -> EgretBuilder {
        EgretBuilder {
            home: TempDir::new().expect("a temporary directory"),
            policy: false,
            listen: Vec::new(),
            admin: "127.0.0.1:0".to_owned(),
            under: Vec::new(),
            enter: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            sockets: false,
            unread: [false; 2],
        }
    }

    /// Where the proxy listens: the first of [`Egret::proxies`].
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.proxies()[0]
    }

    /// Every proxy port: those of `--listen`, then those of roles in the order of their names.
    pub(crate) fn proxies(&self) -> Vec<SocketAddr> {
        let started = self.started();
        let listen = started["listen"].as_array().expect("`listen` is a list");
        listen.iter().map(address).collect()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        address(&self.started()["admin"])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn policy_path(&self) -> PathBuf {
        policy_file(&self.home)
    }

    /// Puts a new policy in the place of the old one, whole at once: what is written in place may be read half. Nothing is
    /// signalled: egret notices, or the test sends SIGHUP.
    pub(crate) fn rewrite_policy(&self, yaml: &str) {
        let next = self.policy_path().with_extension("next");
        fs::write(&next, yaml).and_then(|()| fs::rename(next, self.policy_path())).expect("the test's directory is writable");
    }

    /// The `lifecycle` line that says what listens where; waits for it.
    pub(crate) fn started(&self) -> Value {
        self.event("lifecycle", |event| event["phase"] == "started")
    }

    /// Every line of stdout so far, as written.
    pub(crate) fn stdout_lines(&self) -> Vec<String> {
        self.stdout.all()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.all().join("\n")
    }

    /// The journal's events of that kind so far.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        events_in(&self.stdout.all(), kind)
    }

    /// The first event of that kind of which `matches` is true; waits for it.
    pub(crate) fn event(&self, kind: &str, matches: impl Fn(&Value) -> bool) -> Value {
        self.stdout
            .wait_for(|lines| events_in(lines, kind).into_iter().find(&matches))
            .unwrap_or_else(|| panic!("no such `{kind}` event within {DEADLINE:?}, or egret ended before it"))
    }

    /// The first `connection` record of which `matches` is true; waits for it.
    pub(crate) fn record(&self, matches: impl Fn(&Value) -> bool) -> Value {
        self.event("connection", matches)
    }

    /// The `connection` records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.events("connection")
    }

    /// Waits for `count` `connection` records and returns them; more than that is a failure.
    pub(crate) fn wait_records(&self, count: usize) -> Vec<Value> {
        let records = self.stdout.wait_for(|lines| {
            let records = events_in(lines, "connection");
            (records.len() >= count).then_some(records)
        });
        let records = records.unwrap_or_else(|| panic!("fewer than {count} `connection` records"));
        assert_eq!(records.len(), count, "each connection leaves one record: {records:#?}");
        records
    }

    /// Waits for the one `connection` record of a test that makes one connection.
    pub(crate) fn only_record(&self) -> Value {
        self.wait_records(1).remove(0)
    }

    /// One GET to the admin port.
    pub(crate) fn get_admin(&self, path: &str) -> (u16, String) {
        let admin = self.admin();
        if !self.enter.is_empty() {
            return get_through(&self.enter, &format!("http://{admin}{path}"));
        }
        let mut stream = connect(admin);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the admin port takes a request");
        let response = Response::read(stream).expect("the admin port answers");
        (response.status, response.text())
    }

    /// `/metrics`, as text.
    pub(crate) fn metrics(&self) -> String {
        let (status, text) = self.get_admin("/metrics");
        assert_eq!(status, 200, "/metrics: {text}");
        text
    }

    /// The sum of all samples of that name that carry (at least) these labels; 0 if there are none.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.metrics();
        text.lines().filter_map(|line| sample(line, name, labels)).sum()
    }

    /// Waits until [`Egret::metric`] is `value`: metrics may lag behind the record of the same connection.
    pub(crate) fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        eventually(&format!("{name}{labels:?} is {value}"), || {
            let off = (self.metric(name, labels) - value).abs();
            (off < f64::EPSILON).then_some(())
        });
    }

    pub(crate) fn signal(&self, signal: i32) {
        // The shell's own `kill`, which needs neither a package nor unsafe code.
        let script = format!("kill -{signal} {}", self.pid);
        let status = Command::new("/bin/sh").args(["-c", &script]).status().expect("a shell runs");
        assert!(status.success(), "signal {signal} could not be sent to egret");
    }

    /// Asks egret to end (SIGTERM) and waits until it has.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.signal(TERMINATE);
        self.wait_exit()
    }

    /// Waits for egret's end; others may still hold what it wrote to.
    pub(crate) fn wait_end(&self) -> ExitStatus {
        eventually("egret ends", || self.child().try_wait().expect("a child can be waited for"))
    }

    /// Waits for egret's end, and for the last line that it wrote.
    pub(crate) fn wait_exit(&self) -> ExitStatus {
        let status = self.wait_end();
        assert!(self.stdout.wait_complete(), "egret ended but its stdout is held open");
        assert!(self.stderr.wait_complete(), "egret ended but its stderr is held open");
        status
    }

    /// Reads from now on what was left unread.
    pub(crate) fn read(&self) {
        let unread = std::mem::take(&mut *self.unread.lock().unwrap_or_else(PoisonError::into_inner));
        unread.into_iter().for_each(|(reader, lines)| collect(reader, lines));
    }

    /// The numbers of the processes that it started, or adopted, if it lives.
    fn apps(&self) -> Vec<String> {
        if !matches!(self.child().try_wait(), Ok(None)) {
            return Vec::new();
        }
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children.flat_map(|children| children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Egret {
    fn drop(&mut self) {
        // What it started would outlive it.
        let apps = self.apps();
        // Each fails only for who is gone already.
        drop(self.child().kill());
        drop(self.child().wait());
        if !apps.is_empty() {
            let groups = apps.iter().map(|app| format!("-{app}"));
            drop(Command::new("kill").args(["-KILL", "--"]).args(groups).args(&apps).stderr(Stdio::null()).status());
        }
        if thread::panicking() {
            let journal = self.stdout.all().join("\n");
            eprintln!("--- journal of egret {}\n{journal}\n--- stderr\n{}\n---", self.pid, self.stderr());
        }
    }
}

impl EgretBuilder {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Starts egret through this program, which must replace itself with the command that follows its own arguments,
    /// as `setpriv`, `prlimit` and `sh -c '… exec "$@"' sh` do.
    pub(crate) fn under<A: AsRef<OsStr>>(mut self, program: impl IntoIterator<Item = A>) -> Self {
        self.under = program.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Says that egret is in another network, and what runs a program there.
    pub(crate) fn inside(mut self, enter: Vec<OsString>) -> Self {
        self.enter = enter;
        self
    }

    /// Instead of `127.0.0.1:0`; may be repeated.
    pub(crate) fn listen(mut self, addr: &str) -> Self {
        self.listen.push(addr.to_owned());
        self
    }

    /// Instead of `127.0.0.1:0`.
    pub(crate) fn admin(mut self, addr: &str) -> Self {
        addr.clone_into(&mut self.admin);
        self
    }

    /// Sockets instead of pipes as stdout and stderr, as under systemd: they can't be opened anew.
    pub(crate) fn sockets(self) -> Self {
        Self { sockets: true, ..self }
    }

    /// Nobody reads stderr, and stdout if that is said, until the test wants it.
    pub(crate) fn unread(self, stdout_too: bool) -> Self {
        Self { unread: [stdout_too, true], ..self }
    }

    /// The directory that holds the policy, for files that must lie beside it.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts egret and waits until everything listens.
    pub(crate) fn start(self) -> Egret {
        let egret = self.spawn();
        egret.started();
        egret
    }

    /// Starts egret and waits for nothing: it may be meant to fail, or to write its journal elsewhere.
    pub(crate) fn spawn(self) -> Egret {
        let mut command = self.command();
        let sockets = self.sockets.then(|| [socket(), socket()]);
        if let Some([(_, stdout), (_, stderr)]) = &sockets {
            let [stdout, stderr] = [stdout, stderr].map(|end| end.try_clone().expect("descriptors are free"));
            command.stdout(stdout).stderr(stderr);
        }
        let mut child = command.spawn().expect("egret starts");
        // Its ends are its own alone.
        drop(command);
        let readers: [Reader; 2] = match sockets {
            Some(sockets) => sockets.map(|(reader, _)| Box::new(reader) as Reader),
            None => [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))],
        };
        let [stdout, stderr] = [(); 2].map(|()| Arc::new(Seen::new()));
        let streams = readers.into_iter().zip([&stdout, &stderr].map(Arc::clone)).zip(self.unread);
        let (unread, read): (Vec<_>, Vec<_>) = streams.partition(|(_, is_unread)| *is_unread);
        read.into_iter().for_each(|((reader, lines), _)| collect(reader, lines));
        let unread = Mutex::new(unread.into_iter().map(|(stream, _)| stream).collect());
        Egret { pid: child.id(), child: Mutex::new(child), home: self.home, enter: self.enter, stdout, stderr, unread }
    }

    fn command(&self) -> Command {
        let words: Vec<&OsStr> = self.under.iter().map(OsString::as_os_str).chain([OsStr::new(EGRET)]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        if self.enter.is_empty() {
            // What else goes on in a network that all tests share is no test's business.
            command.env("EGRET_FLOWS", "0");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.arg("run").arg("--admin").arg(&self.admin);
        if self.policy {
            command.arg("--policy").arg(policy_file(&self.home));
        }
        let any = ["127.0.0.1:0".to_owned()];
        for addr in if self.listen.is_empty() { &any[..] } else { &self.listen } {
            command.arg("--listen").arg(addr);
        }
        command.args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn policy_file(home: &TempDir) -> PathBuf {
    home.path().join("policy.yaml")
}

/// Collects the lines of a pipe.
pub(crate) fn follow(pipe: Option<impl Read + Send + 'static>) -> Arc<Seen<String>> {
    let lines = Arc::new(Seen::new());
    collect(pipe.expect("the output is piped"), Arc::clone(&lines));
    lines
}

fn collect(pipe: impl Read + Send + 'static, lines: Arc<Seen<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        lines.complete();
    });
}

/// The two ends of a socket: the test's and the program's.
fn socket() -> (UnixStream, OwnedFd) {
    let (ours, its) = UnixStream::pair().expect("descriptors are free");
    (ours, its.into())
}

/// One GET by a program in another network.
fn get_through(enter: &[OsString], url: &str) -> (u16, String) {
    let program = Program::at(Path::new(&enter[0])).args(&enter[1..]).arg(require("curl"));
    let output = program.args(["-sS", "-w", "\n%{http_code}", url]).run();
    let (body, status) = output.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{url}: {output:?}"));
    (status.parse().expect("a status"), body.to_owned())
}

/// Every line must be a JSON object with a known place for its kind: a journal that can't be read fails the test.
fn events_in(lines: &[String], kind: &str) -> Vec<Value> {
    let parsed = lines.iter().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
        assert!(event["event"].is_string(), "no event: {line}");
        event
    });
    parsed.filter(|event| event["event"] == kind).collect()
}

fn address(value: &Value) -> SocketAddr {
    let text = value.as_str().unwrap_or_else(|| panic!("not an address: {value}"));
    text.parse().unwrap_or_else(|_| panic!("not an address: {text}"))
}

/// The value of a sample line, if it is of this metric and carries these labels.
fn sample(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (found, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest.strip_prefix(' ')?),
    };
    // A comma on both sides, so that a label is found whole and never as the end of another.
    let found = format!(",{found},");
    let carries = |(label, value): &(&str, &str)| found.contains(&format!(",{label}=\"{value}\","));
    labels.iter().all(carries).then(|| value.split_whitespace().next()?.parse().ok()).flatten()
}
