//! A network namespace for each test, and in it, without any privilege, this very binary as the supervisor of one program.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;

use egret_confine::{
    Answer, Egress, Errno, ExecList, Execution, Names, Options, Query, Reply, Request, harmless_query, launch, probe,
};

/// Says to the re-executed test binary where its directory is.
const YARD: &str = "CONFINE_YARD";

/// What the names of directories begin with, before the number of the process.
const LEFT_BEHIND: &str = "confine-test-";

/// What a program did, and what came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    #[allow(dead_code, reason = "it is shown when a test fails")]
    pub(crate) stderr: String,
    /// As a shell would say it: a signal is a negative number.
    pub(crate) code: i32,
    /// Packets that left, in hexadecimal from the IP header on.
    pub(crate) leaks: Vec<String>,
    /// What the egress was asked, one line each: verdict, destination, `blocking` or `nonblocking`, executable, user.
    pub(crate) asked: Vec<String>,
    /// What the supervisor said about itself at the end.
    pub(crate) activity: String,
    /// Why there was nothing to supervise.
    pub(crate) failed: String,
    /// Names that reached the nameserver that there really is.
    pub(crate) heard: Vec<String>,
    directory: PathBuf,
}

impl Outcome {
    /// It ended well, and nothing left.
    #[track_caller]
    pub(crate) fn went_well(&self) -> &Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self.nothing_left()
    }

    #[track_caller]
    pub(crate) fn nothing_left(&self) -> &Self {
        assert!(self.leaks.is_empty(), "{self:#?}");
        self
    }

    /// What a process wrote that outlived everybody.
    pub(crate) fn orphan(&self) -> String {
        fs::read_to_string(self.directory.join("orphan")).expect("what it wrote")
    }

    #[track_caller]
    pub(crate) fn said(&self, line: &str) -> &Self {
        assert!(self.stdout.lines().any(|said| said == line), "not said: {line}\n{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn was_asked(&self, question: &str) -> &Self {
        assert!(self.asked.iter().any(|asked| asked.starts_with(question)), "not asked: {question}\n{self:#?}");
        self
    }
}

/// Runs a Python program confined; a few names that most programs need are imported already.
pub(crate) fn confined(python: &str) -> Outcome {
    run(true, &["/usr/bin/python3", "-c", &with_prelude(python)])
}

/// Runs a Python program confined, with a list of what may be executed: whether it is enforced, and its paths. There is a
/// directory `tools` with a few programs.
pub(crate) fn confined_with_list(enforce: bool, paths: &[&str], command: &[&str]) -> Outcome {
    let list: String = [if enforce { "enforce" } else { "audit" }].iter().chain(paths).map(|line| format!("{line}\n")).collect();
    let prepare = |directory: &Path| {
        fs::write(directory.join("exec"), list).expect("a file");
        lay_out_tools(directory);
    };
    run_with(ground(), true, prepare, command)
}

/// The same with nobody between: what it shows is that the attempt would have worked, and that the tap sees it.
pub(crate) fn unconfined(python: &str) -> Outcome {
    run(false, &["/usr/bin/python3", "-c", &with_prelude(python)])
}

/// Runs a Python program confined that tries something `ATTEMPTS` times: so many without any privilege, and a tenth of it on other
/// grounds, which have the same code run.
pub(crate) fn confined_often(attempts: u32, python: &str) -> Outcome {
    let attempts = match ground() {
        Ground::Plain => attempts,
        // Answers that the kernel loses cost the app descriptors there.
        Ground::OldKernel => attempts / 40,
        _ => attempts / 10,
    };
    confined(&python.replace("ATTEMPTS", &attempts.to_string()))
}

/// Runs a Python program confined on this ground.
pub(crate) fn confined_on(ground: Ground, python: &str) -> Outcome {
    run_on(ground, true, &["/usr/bin/python3", "-c", &with_prelude(python)])
}

/// Runs any program, confined or not, without any privilege.
pub(crate) fn run(confined: bool, command: &[&str]) -> Outcome {
    run_on(ground(), confined, command)
}

/// The same on this ground.
pub(crate) fn run_on(ground: Ground, confined: bool, command: &[&str]) -> Outcome {
    run_with(ground, confined, |_| (), command)
}

/// Runs a Python program confined that has a file `stalled`, whose pages don't arrive before it says so.
pub(crate) fn confined_with_stalled_file(python: &str) -> Outcome {
    let prepare = |directory: &Path| fs::write(directory.join("stalled"), "").expect("a file");
    run_with(ground(), true, prepare, &["/usr/bin/python3", "-c", &with_prelude(python)])
}

/// Runs a Python program, confined or not, where every port is everybody's, as container runtimes have it.
pub(crate) fn where_ports_are_free(confined: bool, python: &str) -> Outcome {
    let prepare = |directory: &Path| fs::write(directory.join("ports"), "").expect("a file");
    run_with(ground(), confined, prepare, &["/usr/bin/python3", "-c", &with_prelude(python)])
}

fn run_with(ground: Ground, confined: bool, prepare: impl FnOnce(&Path), command: &[&str]) -> Outcome {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let directory = shared().join(format!("yard-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&directory).expect("a directory");
    open_to_all(&directory, 0o777);
    prepare(&directory);
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount"]);
    if !is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.args(["--", "/usr/bin/python3"]).arg(shared().join("yard.py")).arg(&directory);
    // The trace of a bug that a test has the supervisor meet may take longer than that waits for whoever reads.
    unshare.args(privileges(ground)).env(GROUND, ground.name()).env("RUST_BACKTRACE", "0");
    if confined {
        unshare.args(["prlimit", &format!("--nofile={DESCRIPTORS}:")]);
    }
    if confined && ground == Ground::Profile {
        unshare.arg("/usr/bin/python3").arg(shared().join("profile.py"));
    }
    if confined {
        unshare.arg(shared().join("supervisor")).args(["as_the_supervisor", "--exact", "--ignored", "--nocapture"]);
        fs::write(directory.join("command"), command.join("\0")).expect("a file");
        unshare.env(YARD, &directory);
    } else {
        unshare.args(command);
    }
    let ran = unshare.current_dir(&directory).stdin(Stdio::null()).output().expect("unshare");
    outcome(&directory, confined, &ran)
}

/// The soft limit of descriptors that the supervisor is started with.
pub(crate) const DESCRIPTORS: u32 = 2048;

/// A program, and a script for each of two interpreters.
fn lay_out_tools(directory: &Path) {
    let tools = directory.join("tools");
    fs::create_dir(&tools).expect("a directory");
    open_to_all(&tools, 0o777);
    fs::copy("/usr/bin/true", tools.join("true")).expect("a copy");
    for (name, interpreter) in [("script", "/bin/sh"), ("other", "/usr/bin/env sh")] {
        fs::write(tools.join(name), format!("#!{interpreter}\necho it ran\n")).expect("a file");
        open_to_all(&tools.join(name), 0o755);
    }
}

/// What is around the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// A user without any privilege.
    Plain,
    /// The same, under a seccomp profile like that of container runtimes, at its strictest.
    Profile,
    /// Root with the capabilities that container runtimes give.
    Root,
    /// A kernel that has no more than Linux 5.9, as far as that can be pretended.
    OldKernel,
    /// Such a kernel, and root.
    OldRoot,
}

impl Ground {
    fn name(self) -> &'static str {
        match self {
            Ground::Plain => "plain",
            Ground::Profile => "profile",
            Ground::Root => "root",
            Ground::OldKernel => "old",
            Ground::OldRoot => "old-root",
        }
    }
}

/// Says on which ground a run of all tests stands.
const GROUND: &str = "CONFINE_GROUND";

/// The capabilities of a container (moby's default).
const CONTAINER: &str = "+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,\
    +net_bind_service,+sys_chroot,+kill,+audit_write";

pub(crate) fn ground() -> Ground {
    match std::env::var(GROUND).as_deref() {
        Ok("profile") => Ground::Profile,
        Ok("root") => Ground::Root,
        Ok("old") => Ground::OldKernel,
        Ok("old-root") => Ground::OldRoot,
        _ => Ground::Plain,
    }
}

fn privileges(ground: Ground) -> Vec<String> {
    let mut setpriv = vec!["setpriv".to_owned()];
    if matches!(ground, Ground::Root | Ground::OldRoot) {
        setpriv.push(format!("--bounding-set=-all,{CONTAINER}"));
        return setpriv;
    }
    setpriv.extend(["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"].map(str::to_owned));
    if is_root() {
        setpriv.extend(["--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned));
    }
    setpriv
}

/// Runs all tests of this binary again on another ground, but for those whose names have one of these in them.
pub(crate) fn all_again(ground: &str, but: &[&str]) {
    if !is_possible() || std::env::var_os(GROUND).is_some() {
        return;
    }
    let mut again = Command::new(std::env::current_exe().expect("a name"));
    again.env(GROUND, ground).args(["--skip", "all_again"]);
    for skipped in but {
        again.args(["--skip", skipped]);
    }
    let ran = again.output().expect("this binary");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.matches("... ok").count() > 10, "hardly any test: {said}");
}

fn outcome(directory: &Path, confined: bool, ran: &std::process::Output) -> Outcome {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let yards_own = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && directory.join("leaks").exists(), "no yard: {yards_own}");
    let lines = |name: &str| read(name).lines().map(str::to_owned).collect::<Vec<_>>();
    let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) =
        if confined { (read("stdout"), read("stderr") + &yards_own) } else { (own(&ran.stdout), own(&ran.stderr)) };
    let code = if confined { read("status") } else { read("code") };
    Outcome {
        stdout,
        stderr,
        code: code.trim().parse().unwrap_or(i32::MIN),
        leaks: lines("leaks"),
        asked: lines("asked"),
        activity: read("activity"),
        failed: read("failed"),
        heard: lines("heard"),
        directory: directory.to_owned(),
    }
}

/// Whether these tests can be another user than they are.
pub(crate) fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")))
    })
}

pub(crate) fn with_prelude(python: &str) -> String {
    let numbers = NUMBERS.map(|(name, number)| format!("    {name} = {number}\n")).concat();
    format!("{}\nclass SYS:\n{numbers}\n{python}", include_str!("prelude.py"))
}

/// Numbers of calls that Python has no function for, on this architecture.
const NUMBERS: [(&str, libc::c_long); 15] = [
    ("add_key", libc::SYS_add_key),
    ("clone", libc::SYS_clone),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("ioprio_set", libc::SYS_ioprio_set),
    ("keyctl", libc::SYS_keyctl),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("connect", libc::SYS_connect),
    ("request_key", libc::SYS_request_key),
    ("seccomp", libc::SYS_seccomp),
    ("tgkill", libc::SYS_tgkill),
    ("tkill", libc::SYS_tkill),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// A directory that everybody may read, with this binary in it: the one of the build may be out of others' reach.
pub(crate) fn shared() -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        remove_what_others_left();
        let directory = std::env::temp_dir().join(format!("{LEFT_BEHIND}{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        open_to_all(&directory, 0o755);
        fs::copy(std::env::current_exe().expect("a name"), directory.join("supervisor")).expect("a copy");
        fs::write(directory.join("yard.py"), include_str!("yard.py")).expect("a file");
        fs::write(directory.join("stalled.py"), include_str!("stalled.py")).expect("a file");
        fs::write(directory.join("profile.py"), include_str!("profile.py")).expect("a file");
        directory
    })
}

/// A test binary has no end at which it could tidy up; the next one does.
fn remove_what_others_left() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(LEFT_BEHIND).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Compiles a C program to where everybody may run it.
pub(crate) fn compile(name: &str, source: &str) -> PathBuf {
    compile_with(name, source, &["-pthread"])
}

/// The same, with these options.
pub(crate) fn compile_with(name: &str, source: &str, options: &[&str]) -> PathBuf {
    let program = shared().join(name);
    let code = shared().join(format!("{name}.c"));
    fs::write(&code, source).expect("a file");
    let gcc = Command::new("gcc").arg("-O1").args(options).arg("-o").arg(&program).arg(&code).output().expect("gcc");
    assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
    open_to_all(&program, 0o755);
    program
}

fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

/// Whether this machine can be tested on; says so loudly if not.
pub(crate) fn is_possible() -> bool {
    static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
    let possible = POSSIBLE.get_or_init(|| {
        let found = probe().map_err(|errno| format!("no child: {errno}"))?;
        let status = egret_confine::Status::of(&found);
        status.confines().then_some(()).ok_or(format!("{status:?}"))
    });
    if let Err(why) = possible {
        not_tested(&format!("nothing can be confined on this machine: {why}"));
    }
    possible.is_ok()
}

/// Says loudly what is missing for a test; where `EGRET_TEST_ALL` is set, that is a failure.
#[track_caller]
pub(crate) fn not_tested(why: &str) {
    assert!(std::env::var_os("EGRET_TEST_ALL").is_none(), "not tested: {why}");
    drop(writeln!(std::io::stderr(), "\n*** NOT TESTED: {why} ***\n"));
}

/// Records what it is asked, and lets through what [`verdict`] says.
struct Recorder {
    asked: Mutex<fs::File>,
    introductions: Arc<Introductions>,
    proxy: SocketAddr,
}

/// Whom the proxy was told of.
#[derive(Default)]
struct Introductions {
    known: Mutex<HashMap<SocketAddr, SocketAddr>>,
    more: Condvar,
}

/// The port that hangs whoever asks.
const HANG: u16 = 9999;

/// The port of this machine that datagrams may not go to.
const DISCARD: u16 = 9;

enum Verdict {
    Proxy,
    Direct,
    Refuse,
}

/// Two networks are good, this machine is near, and everything else is evil.
fn verdict(destination: IpAddr) -> Verdict {
    match destination {
        IpAddr::V4(v4) if v4.octets()[..3] == [203, 0, 113] => Verdict::Proxy,
        IpAddr::V6(v6) if v6.segments()[..3] == [0x2001, 0xdb8, 0x900d] => Verdict::Proxy,
        IpAddr::V4(v4) if v4.is_loopback() || v4.octets() == [192, 0, 2, 2] => Verdict::Direct,
        IpAddr::V6(v6) if v6.is_loopback() => Verdict::Direct,
        _ => Verdict::Refuse,
    }
}

impl Egress for Recorder {
    fn connect(&self, request: Request, reply: Reply) {
        let verdict = verdict(request.destination.ip());
        let word = match verdict {
            Verdict::Proxy => "proxy",
            Verdict::Direct => "direct",
            Verdict::Refuse => "refuse",
        };
        let process = reply.process();
        let exe = process.as_ref().and_then(|process| Some(process.exe.as_ref()?.display().to_string()));
        let line = format!(
            "{word} {} {} {} {}\n",
            request.destination,
            if request.nonblocking { "nonblocking" } else { "blocking" },
            exe.unwrap_or_default(),
            process.map_or(u32::MAX, |process| process.uid),
        );
        self.asked.lock().expect("a lock").write_all(line.as_bytes()).expect("a record");
        match verdict {
            // A question that is never answered, by somebody who does not even return.
            Verdict::Proxy if request.destination.port() == HANG => loop {
                thread::park();
            },
            Verdict::Proxy => {
                let (known, destination) = (Arc::clone(&self.introductions), request.destination);
                reply.through(self.proxy, move |local| {
                    known.known.lock().expect("a lock").insert(local, destination);
                    known.more.notify_all();
                });
            }
            Verdict::Direct => reply.direct(),
            Verdict::Refuse => reply.refuse(Errno::ACCESS),
        }
    }

    fn executes(&self, execution: Execution) {
        let shown = |path: Option<PathBuf>| path.map_or("?".to_owned(), |path| path.display().to_string());
        let listed = if execution.listed { "listed" } else { "unlisted" };
        let line = format!("executes {listed} {} {}\n", shown(execution.path), shown(execution.resolved));
        self.asked.lock().expect("a lock").write_all(line.as_bytes()).expect("a record");
    }

    fn datagram(&self, destination: SocketAddr) -> bool {
        let may = destination.ip().is_loopback() && destination.port() != DISCARD;
        let line = format!("{} {destination}\n", if may { "datagram" } else { "nodatagram" });
        self.asked.lock().expect("a lock").write_all(line.as_bytes()).expect("a record");
        may
    }
}

/// The nameserver of /etc/resolv.conf, or what stands for it where a test lays its own over it; and one on loopback that there
/// really is, for those who insist on its address.
struct Book {
    asked: Mutex<fs::File>,
    real: SocketAddr,
}

/// The one nameserver that nobody runs.
const NAMESERVER: &str = "192.0.2.53:53";

impl Names for Book {
    fn is_nameserver(&self, address: SocketAddr) -> bool {
        address == NAMESERVER.parse().expect("an address") || address == self.real
    }

    fn refuses(&self, query: &Query) -> bool {
        name_in(&query.message).is_some_and(|name| !is_good(&name))
    }

    fn query(&self, query: Query, answer: Answer) {
        let name = name_in(&query.message).unwrap_or_default();
        let is_good = is_good(&name);
        assert_ne!(name, "bug.good.example", "a bug of whoever answers");
        let exe = query.process.as_ref().and_then(|process| Some(process.exe.as_ref()?.display().to_string()));
        let line = format!("{} {name} {}\n", if is_good { "name" } else { "noname" }, exe.unwrap_or_default());
        self.asked.lock().expect("a lock").write_all(line.as_bytes()).expect("a record");
        let id = u16::from_be_bytes([query.message[0], query.message[1]]);
        let instead = if is_good { query.message.clone() } else { harmless_query(id) };
        answer.answer(&answer_to(&query.message, is_good), &instead);
    }
}

fn is_good(name: &str) -> bool {
    name.ends_with(".good.example")
}

/// The name of the first question, if it is written without compression.
fn name_in(message: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut rest = message.get(12..)?;
    while let Some((&length, after)) = rest.split_first().filter(|(length, _)| **length != 0) {
        let (label, after) = after.split_at_checked(length.into())?;
        name.push_str(&String::from_utf8_lossy(label));
        name.push('.');
        rest = after;
    }
    Some(name.trim_end_matches('.').to_owned())
}

/// 203.0.113.7 for every good name, no IPv6 address, and NXDOMAIN for the rest.
fn answer_to(query: &[u8], is_good: bool) -> Vec<u8> {
    let end = query[12..].iter().position(|byte| *byte == 0).map_or(query.len(), |at| 12 + at + 5);
    let question = &query[12..end];
    let wants_v4 = question.ends_with(&[0, 1, 0, 1]);
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if is_good { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(is_good && wants_v4), 0, 0, 0, 0]);
    answer.extend(question);
    if is_good && wants_v4 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7]);
    }
    answer
}

/// A nameserver as there are others: it knows what [`answer_to`] knows, and writes down what it hears.
fn serve_names(socket: &UdpSocket, heard: &mut fs::File) {
    let mut message = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut message) {
        let name = name_in(&message[..length]).unwrap_or_default();
        heard.write_all(format!("{name}\n").as_bytes()).expect("a record");
        let _ = socket.send_to(&answer_to(&message[..length], name.ends_with(".good.example")), peer);
    }
}

/// Says to whoever comes where they wanted to go, and then whatever they say, up to an empty line.
fn serve(listener: &TcpListener, introductions: &Arc<Introductions>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let introductions = Arc::clone(introductions);
        thread::spawn(move || greet(stream, &introductions));
    }
}

fn greet(mut stream: TcpStream, introductions: &Introductions) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut known = introductions.known.lock().expect("a lock");
    let destination = loop {
        match known.remove(&peer) {
            Some(destination) => break destination,
            None => known = introductions.more.wait(known).expect("a lock"),
        }
    };
    drop(known);
    let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
    let _ = stream.write_all(format!("{destination}\n").as_bytes());
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
        if line == "\r\n" || stream.write_all(line.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}

fn read_list(directory: &Path) -> Option<ExecList> {
    let list = fs::read_to_string(directory.join("exec")).ok()?;
    let mut lines = list.lines();
    let enforce = lines.next() == Some("enforce");
    Some(ExecList { enforce, paths: lines.map(PathBuf::from).collect() })
}

/// The supervisor's own process: what each test runs this binary for.
pub(crate) fn supervise() {
    let Some(directory) = std::env::var_os(YARD).map(PathBuf::from) else { return };
    let create = |name: &str| fs::File::create(directory.join(name)).expect("a file");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = listener.local_addr().expect("an address");
    let introductions = Arc::new(Introductions::default());
    let told = Arc::clone(&introductions);
    thread::spawn(move || serve(&listener, &told));
    let command = fs::read_to_string(directory.join("command")).expect("a command");
    let mut words = command.split('\0');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).env("PROXY", proxy.port().to_string()).env("SUPERVISOR", std::process::id().to_string());
    if ground() != Ground::OldKernel {
        // Where scopes keep signals away, nobody makes a group but who wants one.
        command.process_group(0);
    }
    command.stdin(Stdio::null()).stdout(create("stdout")).stderr(create("stderr"));
    let asked = create("asked");
    let nameserver = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let real = nameserver.local_addr().expect("an address");
    command.env("REAL_NAMESERVER", real.port().to_string());
    let mut heard = create("heard");
    thread::spawn(move || serve_names(&nameserver, &mut heard));
    let book = Book { asked: Mutex::new(asked.try_clone().expect("a copy")), real };
    let recorder = Recorder { asked: Mutex::new(asked), introductions, proxy };
    let mut found = probe().expect("a probe");
    if matches!(ground(), Ground::OldKernel | Ground::OldRoot) {
        found.until_killed = Err(Errno::INVAL);
        found.wake_in_step = Err(Errno::INVAL);
        found.answer_with_descriptor = Err(Errno::INVAL);
        found.landlock = Err(Errno::NOSYS);
    }
    let options = Options { exec: read_list(&directory), ..Options::default() };
    let mut confined = match launch(command, options, &found, recorder, book) {
        Ok(confined) => confined,
        Err(error) => return fs::write(directory.join("failed"), error.to_string()).expect("a file"),
    };
    let status = confined.child.wait().expect("an end");
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
    fs::write(directory.join("activity"), format!("{:?}", confined.activity())).expect("a file");
    fs::write(directory.join("status"), code.to_string()).expect("a file");
    confined.finish();
}
