//! A task as ECS runs it: containers with processes and mounts of their own, on one network; the app waits for egret's health, and
//! both are told to end, in the order that `dependsOn` gives or at once.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::egret::{egret_program, follow};
use crate::support::outside::untested;
use crate::support::programs::require;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::seen::Seen;
use crate::support::{Ca, DnsServer, Egret, Program, Upstream, eventually, free_port};

/// Asks through the variables; on SIGTERM once more, as an app that flushes what it has.
const APP: &str = "get() { curl -sS --max-time 20 --cacert \"$CA\" \"$URL\"; }
get || exit 9
trap 'get && exit 0; exit 8' TERM
echo up
sleep 1000 & wait $!";
const TERMINATE: &str = "TERM";

/// What makes a container of the command that follows: process 1 of its own processes, with its own mounts.
fn container() -> Vec<String> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let map = (!root).then_some("--map-root-user");
    let words = ["unshare"].into_iter().chain(map).chain(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]);
    // Nobody: without a right, and without a way to one.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"];
    words.chain(if root { &nobody[..] } else { &[] }.iter().copied()).map(str::to_owned).collect()
}

/// Process 1 of a container.
fn first(unshare: u32) -> String {
    eventually("the container has a process", || {
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap_or_default();
        children.split_whitespace().next().map(str::to_owned)
    })
}

fn signal(pid: &str, signal: &str) {
    let sent = Program::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).run();
    assert_eq!(sent.code, 0, "{sent:?}");
}

/// An app on one allowed name, and egret in a folder that both containers have.
struct Task {
    dns: DnsServer,
    server: Upstream,
    home: TempDir,
    ca: PathBuf,
}

impl Task {
    /// `None`, said loudly, where no container can be made.
    fn new() -> Option<Self> {
        let words = container();
        let tried = Program::new("unshare").args(&words[1..]).arg("true").run();
        if tried.code != 0 && !untested(&format!("no namespaces: {}", tried.stderr)) {
            return None;
        }
        let (ca, dns, home) = (Ca::new(), DnsServer::new(), TempDir::new().expect("a temporary directory"));
        dns.answers("allowed.test", &LOCALHOST);
        let server = Upstream::tls(&ca.issue(&["allowed.test"]), "answered\n");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("the test's own folder");
        assert_eq!(egret_program().arg("install").arg(home.path()).run().code, 0);
        let ca = ca.write_pem(home.path());
        fs::set_permissions(&ca, fs::Permissions::from_mode(0o644)).expect("the test's own file");
        Some(Self { dns, server, home, ca })
    }

    /// egret's container, its admin port known beforehand as a task definition has it.
    fn egret(&self, admin: u16) -> Egret {
        let copy = format!("shift; exec {}/egret \"$@\"", self.home.path().display());
        let mut words = container();
        words.extend(["sh", "-ec", &copy, "sh"].map(str::to_owned));
        let policy = policy(&self.dns, &[local("allowed.test", self.server.port(), "as: tls")]);
        Egret::without_policy().env("EGRET_POLICY", policy).admin(&format!("127.0.0.1:{admin}")).under(words).spawn()
    }

    /// What the platform asks every few seconds.
    fn health(admin: u16) -> i32 {
        egret_program().args(["health", "--admin", &format!("127.0.0.1:{admin}")]).run().code
    }

    fn app(&self, egret: &Egret) -> App {
        let words = container();
        let mut command = Command::new(require("unshare"));
        command.args(&words[1..]).args(["bash", "-c", APP]);
        let told = egret_program().args(["env", "--output", "dotenv", "--listen", &egret.proxy().to_string()]).run();
        command.envs(told.stdout.lines().filter_map(|line| line.split_once('=')));
        command.env("CA", &self.ca).env("URL", format!("https://allowed.test:{}/", self.server.port()));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare starts");
        let told = follow(child.stdout.take());
        App { child, told }
    }
}

struct App {
    child: Child,
    told: Arc<Seen<String>>,
}

impl App {
    /// Waits for this many lines.
    fn says(&self, lines: &[&str]) {
        let seen = self.told.wait_for(|told| (told.len() >= lines.len()).then(|| told.to_vec()));
        assert_eq!(seen.expect("the app says more"), lines);
    }

    fn end(&mut self) -> ExitStatus {
        eventually("the app ends", || self.child.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Either fails only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_app_waits_for_health_and_ends_before_egret() {
    let Some(task) = Task::new() else { return };
    let admin = free_port();
    assert_eq!(Task::health(admin), 1, "nothing is healthy before it runs");
    let egret = task.egret(admin);
    eventually("egret is healthy", || (Task::health(admin) == 0).then_some(()));
    let mut app = task.app(&egret);
    app.says(&["answered", "up"]);
    signal(&first(app.child.id()), TERMINATE);
    assert_eq!(app.end().code(), Some(0), "the app's last request goes through");
    app.says(&["answered", "up", "answered"]);
    signal(&first(egret.pid()), TERMINATE);
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    let records = egret.wait_records(2);
    assert!(records.iter().all(|record| record["decision"] == "allow" && record["host"] == "allowed.test"), "{records:?}");
    let phases: Vec<_> = egret.events("lifecycle").iter().map(|event| event["phase"].as_str().map(str::to_owned)).collect();
    assert_eq!(phases.last(), Some(&Some("stopped".to_owned())));
    assert_eq!(Task::health(admin), 1);
}

#[test]
fn both_end_at_once_and_the_app_is_still_served() {
    let Some(task) = Task::new() else { return };
    let admin = free_port();
    let egret = task.egret(admin);
    egret.started();
    let mut app = task.app(&egret);
    app.says(&["answered", "up"]);
    signal(&first(egret.pid()), TERMINATE);
    egret.event("lifecycle", |event| event["phase"] == "draining");
    assert_eq!(Task::health(admin), 1, "no more work is to be sent here");
    signal(&first(app.child.id()), TERMINATE);
    assert_eq!(app.end().code(), Some(0), "what drains is served");
    assert_eq!(egret.wait_exit().code(), Some(0), "{}", egret.stderr());
    egret.wait_records(2);
}

#[test]
fn an_app_that_egret_starts_gives_the_container_its_exit_code() {
    let Some(task) = Task::new() else { return };
    let words = container();
    let copy = task.home.path().join("egret");
    let run = |script: &str| {
        let program = Program::new("unshare").args(&words[1..]).arg(&copy).args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        program.env("EGRET_ALLOW", "allowed.test").args(["--", "sh", "-c", script]).run()
    };
    let ended = run("exit 7");
    assert_eq!(ended.code, 7, "{ended:?}");
    let killed = run("kill -KILL $$");
    assert_eq!(killed.code, 128 + 9, "{killed:?}");
}
