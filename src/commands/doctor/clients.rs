//! Which clients found here go through a proxy when they are told to by the variables of `egret env`. Each asks for a page of
//! a name that nobody can have (RFC 6761 section 6.4) beside a proxy that notes who came; whoever did not come looked for the
//! name itself, and went around. They run in `/`: in the current folder may lie anybody's modules and settings.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::Serialize;

use crate::variables::{self, Runtime};

const NAME: &str = "egret-doctor.invalid";
/// How long one client may take for one page.
const PATIENCE: Duration = Duration::from_secs(15);
/// What the scripts below exit with where their library is not installed.
const NOT_INSTALLED: i32 = 42;

struct Client {
    name: &'static str,
    program: &'static str,
    runtime: Option<Runtime>,
    /// The page's address is put behind them.
    args: &'static [&'static str],
}

const CLIENTS: &[Client] = &[
    Client { name: "curl", program: "curl", runtime: None, args: &["-sS", "-o", "/dev/null", "--max-time", "10"] },
    Client { name: "wget", program: "wget", runtime: None, args: &["-q", "-O", "/dev/null", "-T", "10"] },
    Client { name: "git", program: "git", runtime: None, args: &["ls-remote"] },
    Client { name: "python urllib", program: "python3", runtime: Some(Runtime::Python), args: &["-c", URLLIB] },
    Client { name: "python requests", program: "python3", runtime: Some(Runtime::Python), args: &["-c", REQUESTS] },
    Client { name: "python httpx", program: "python3", runtime: Some(Runtime::Python), args: &["-c", HTTPX] },
    Client { name: "python aiohttp", program: "python3", runtime: Some(Runtime::Python), args: &["-c", AIOHTTP] },
    Client { name: "node fetch", program: "node", runtime: Some(Runtime::Node), args: &["-e", FETCH] },
    Client { name: "node agents", program: "node", runtime: Some(Runtime::NodeAgents), args: &["-e", AGENT] },
    Client { name: "ruby Net::HTTP", program: "ruby", runtime: Some(Runtime::Ruby), args: &["-rnet/http", "-e", RUBY] },
    Client { name: "php streams", program: "php", runtime: Some(Runtime::Php), args: &["-r", PHP_STREAM, "--"] },
    Client { name: "php curl", program: "php", runtime: Some(Runtime::Php), args: &["-r", PHP_CURL, "--"] },
    Client { name: "perl HTTP::Tiny", program: "perl", runtime: Some(Runtime::Perl), args: &["-MHTTP::Tiny", "-e", TINY] },
    Client { name: "perl LWP", program: "perl", runtime: Some(Runtime::Perl), args: &["-e", LWP] },
];

const URLLIB: &str = "import sys, urllib.request as u\nu.urlopen(sys.argv[1], timeout=10)";
const REQUESTS: &str =
    "import sys\ntry: import requests\nexcept ImportError: sys.exit(42)\nrequests.get(sys.argv[1], timeout=10)";
const HTTPX: &str = "import sys\ntry: import httpx\nexcept ImportError: sys.exit(42)\nhttpx.get(sys.argv[1], timeout=10)";
const AIOHTTP: &str = "import sys, asyncio
try: import aiohttp
except ImportError: sys.exit(42)
async def get():
    async with aiohttp.ClientSession() as s:
        async with s.get(sys.argv[1]) as r: await r.read()
asyncio.run(get())";
const FETCH: &str = "fetch(process.argv[1]).catch(() => {})";
/// An agent that is made as libraries make theirs.
const AGENT: &str = "const url = process.argv[1], m = require(url.split(':')[0]);\
    m.get(url, { agent: new m.Agent({ keepAlive: true }) }, r => { r.resume(); process.exit(0) }).on('error', () => {})";
const RUBY: &str = "u = URI(ARGV[0]); h = Net::HTTP.new(u.host, u.port); h.use_ssl = u.scheme == 'https'; h.get('/')";
const PHP_STREAM: &str = "@file_get_contents($argv[1]);";
const PHP_CURL: &str = "if (!function_exists('curl_init')) exit(42); curl_exec(curl_init($argv[1]));";
const TINY: &str = "exit 42 if $ARGV[0] =~ /^https/ && !HTTP::Tiny->can_ssl; HTTP::Tiny->new(timeout => 10)->get($ARGV[0])";
const LWP: &str = "eval { require LWP::UserAgent } or exit 42; $ARGV[0] =~ /^https/ and (eval { require LWP::Protocol::https } or exit 42);\
    LWP::UserAgent->new(timeout => 10)->get($ARGV[0])";

/// How a client behaved.
#[derive(Debug, Serialize)]
pub(super) struct Tried {
    name: &'static str,
    http: Way,
    https: Way,
    /// What to do where it goes around.
    help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    Through,
    Around,
    /// It did not end in time, and did not come.
    Late,
    /// Its library, or what that needs for TLS, is not installed.
    Missing,
}

impl Tried {
    pub(super) fn goes_through(&self) -> bool {
        self.http == Way::Through && matches!(self.https, Way::Through | Way::Missing)
    }
}

/// Tries every client that is found in PATH.
///
/// # Errors
/// There is no port on loopback.
pub(super) fn tried() -> io::Result<Vec<Tried>> {
    let proxy = Proxy::start()?;
    Ok(CLIENTS.iter().filter_map(|client| client.tried(&proxy)).collect())
}

/// For people; nothing if none was tried.
pub(super) fn rows(tried: &[Tried]) -> String {
    let row = |one: &Tried| {
        let way = |way: Way| match way {
            Way::Through => "through",
            Way::Around => "around",
            Way::Late => "late",
            Way::Missing => "missing",
        };
        let help = if one.goes_through() { String::new() } else { format!("  {}", one.help) };
        let sign = if one.goes_through() { "+" } else { "-" };
        format!("{sign} {:16} http {:8} https {:8}{help}", one.name, way(one.http), way(one.https)).trim_end().to_owned() + "\n"
    };
    tried.iter().map(row).collect()
}

impl Client {
    fn tried(&self, proxy: &Proxy) -> Option<Tried> {
        let program = found(self.program)?;
        let [http, https] = ["http", "https"].map(|scheme| self.way(&program, scheme, proxy));
        let help = self.runtime.map_or("see `egret env --runtime`, or start the app by `egret run --`", Runtime::note);
        (http != Way::Missing).then_some(Tried { name: self.name, http, https, help })
    }

    fn way(&self, program: &PathBuf, scheme: &str, proxy: &Proxy) -> Way {
        let runtimes: Vec<Runtime> = self.runtime.into_iter().collect();
        let variables = variables::variables(&proxy.address, &variables::no_proxy(&[]), &runtimes);
        let before = proxy.visits();
        let mut command = Command::new(program);
        command.current_dir("/").env("PYTHONSAFEPATH", "1").process_group(0);
        command.args(self.args).arg(format!("{scheme}://{NAME}/")).envs(variables);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else { return Way::Missing };
        match (wait(child, PATIENCE), proxy.visits() > before) {
            (Some(NOT_INSTALLED), _) => Way::Missing,
            (_, true) => Way::Through,
            (Some(_), false) => Way::Around,
            (None, false) => Way::Late,
        }
    }
}

/// The exit code, -1 for a signal; `None` if it had to be killed, with all that it left in its group.
fn wait(mut child: Child, patience: Duration) -> Option<i32> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Ok(Some(status)) => return Some(status.code().unwrap_or(-1)),
            Err(_) => break,
        }
    }
    // Each fails only if it has just ended. It has not been waited for, so that nobody else has its number.
    let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
    drop(child.kill());
    drop(child.wait());
    None
}

/// In the folders of PATH that do not depend on the current one, as an empty entry does.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Notes who asks for the name, and refuses everything.
struct Proxy {
    address: String,
    visits: Arc<Mutex<usize>>,
}

impl Proxy {
    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        let visits = Arc::new(Mutex::new(0));
        let noted = Arc::clone(&visits);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever goes before it has asked was no client of ours.
                drop(refuse(stream, &noted));
            }
        });
        Ok(Self { address, visits })
    }

    fn visits(&self) -> usize {
        *self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes it if the first line asks for the name, before the client has the answer that it waits for.
fn refuse(stream: TcpStream, visits: &Mutex<usize>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut line = String::new();
    BufReader::new((&stream).take(8192)).read_line(&mut line)?;
    *visits.lock().unwrap_or_else(PoisonError::into_inner) += usize::from(line.contains(NAME));
    (&stream).write_all(b"HTTP/1.1 403 egret doctor\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[cfg(test)]
mod tests;
