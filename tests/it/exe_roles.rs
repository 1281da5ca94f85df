//! Who is asking, told by the executable that holds the client's socket: a copy of curl is another program than curl.
//! Where egret cannot see the process it says so, and nobody gets more than the default.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::connect;
use crate::support::http1::Response;
use crate::support::journal::write;
use crate::support::ports::free_port_of;
use crate::support::programs::{Output, require};
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{DnsServer, Egret, Program, Upstream, eventually, run_egret};

const EGRET: &str = env!("CARGO_BIN_EXE_egret");

/// A process namespace in which egret is alone. The network stays the test's.
const ALONE: [&str; 5] = ["-r", "-p", "-f", "--kill-child", "--mount-proc"];

/// O_NONBLOCK of x86-64 and AArch64: with it a pipe that nobody reads can't be opened to be written (open(2)).
const NONBLOCKING: i32 = 0o4000;

/// A web server for each role, and a curl that has one.
struct Site {
    servers: Vec<(&'static str, Upstream)>,
    dns: DnsServer,
    home: TempDir,
}

impl Site {
    fn new() -> Self {
        let (dns, home) = (DnsServer::new(), TempDir::new().expect("a temporary directory"));
        let servers = ["fetch", "worker", "web"].map(|role| {
            dns.answers(&format!("{role}.test"), &LOCALHOST);
            (role, Upstream::http(&format!("for {role}\n")))
        });
        Self { servers: servers.into(), dns, home }
    }

    /// The real path of the test's own directory, as the process table has it.
    fn dir(&self) -> PathBuf {
        self.home.path().canonicalize().expect("the directory is there")
    }

    /// curl as another program: the same bytes at another path.
    fn copy_of_curl(&self, name: &str) -> PathBuf {
        let copy = self.dir().join(name);
        // By another process: what this one has open for writing, a child of another test may hold on to, and then it
        // can't be run (ETXTBSY).
        let copied = Program::new("cp").arg(require("curl")).arg(&copy).run();
        assert_eq!(copied.code, 0, "{copied:#?}");
        copy
    }

    /// `http://fetch.test` is for the role `fetch` and so on; `roles` is that section's content.
    fn policy(&self, roles: &str, used: &[&str]) -> String {
        let servers = self.servers.iter().filter(|(role, _)| used.contains(role));
        let rule = |(role, server): &(&str, Upstream)| {
            local(&format!("{role}.test"), server.port(), &format!("as: http, for: [{role}], id: of-{role}"))
        };
        policy(&self.dns, &servers.map(rule).collect::<Vec<_>>()) + &format!("roles: {{ {roles} }}\n")
    }

    fn url(&self, role: &str) -> String {
        let (_, server) = self.servers.iter().find(|(name, _)| *name == role).expect("the role has a server");
        format!("http://{role}.test:{}/", server.port())
    }

    /// A curl at this path asks for what this role may have, with these arguments before the URL.
    fn fetch<A: AsRef<OsStr>>(&self, curl: &Path, args: impl IntoIterator<Item = A>, role: &str) -> Output {
        Program::at(curl).args(["-sS", "--max-time", "20"]).args(args).arg(self.url(role)).run()
    }
}

fn exe(path: &Path) -> String {
    format!("fetch: {{ exe: {path:?} }}")
}

/// The proxy as curl's arguments.
fn proxy(egret: &Egret) -> [String; 2] {
    ["--proxy".to_owned(), format!("http://{}", egret.proxy())]
}

#[track_caller]
fn assert_passed(output: &Output, record: &Value, role: &str) {
    assert_eq!((output.code, output.stdout.as_str()), (0, &*format!("for {role}\n")), "{output:#?}\n{record:#}");
    let found = (record["decision"].as_str(), record["role"].as_str(), record["rule"].as_str());
    assert_eq!(found, (Some("allow"), Some(role), Some(&*format!("of-{role}"))), "{record:#}");
}

#[track_caller]
fn assert_refused(record: &Value, role: &str) {
    let found = (record["decision"].as_str(), record["reason"].as_str(), record["role"].as_str());
    assert_eq!(found, (Some("deny"), Some("role_not_listed"), Some(role)), "{record:#}");
}

#[test]
fn an_executable_has_its_role_by_every_road_and_the_same_bytes_elsewhere_do_not() {
    let site = Site::new();
    let (fetch, ordinary) = (site.copy_of_curl("fetch"), require("curl"));
    let egret = Egret::with_policy(&site.policy(&exe(&fetch), &["fetch"])).start();
    let at = egret.proxy();
    let roads = [
        ["--proxy".to_owned(), format!("http://{at}")].to_vec(),
        ["--proxytunnel".to_owned(), "--proxy".to_owned(), format!("http://{at}")].to_vec(),
        ["--proxy".to_owned(), format!("socks5h://{at}")].to_vec(),
        ["--proxy".to_owned(), format!("socks4a://{at}")].to_vec(),
    ];
    for (count, road) in roads.iter().enumerate() {
        let output = site.fetch(&fetch, road, "fetch");
        let records = egret.wait_records(2 * count + 1);
        assert_passed(&output, &records[2 * count], "fetch");
        let output = site.fetch(&ordinary, road, "fetch");
        let records = egret.wait_records(2 * count + 2);
        assert_refused(&records[2 * count + 1], "default");
        assert_ne!(output.stdout, "for fetch\n", "{output:#?}");
    }
    assert!(egret.events("coverage").is_empty(), "every executable could be told: {:#?}", egret.events("coverage"));
}

#[test]
fn a_link_to_an_executable_is_that_executable_and_a_role_is_told_by_the_real_path() {
    let site = Site::new();
    let (fetch, link) = (site.copy_of_curl("fetch"), site.dir().join("link"));
    symlink(&fetch, &link).expect("the directory is writable");
    let by_path = Egret::with_policy(&site.policy(&exe(&fetch), &["fetch"])).start();
    let output = site.fetch(&link, proxy(&by_path), "fetch");
    assert_passed(&output, &by_path.only_record(), "fetch");
    let by_link = Egret::with_policy(&site.policy(&exe(&link), &["fetch"])).start();
    for curl in [&link, &fetch] {
        site.fetch(curl, proxy(&by_link), "fetch");
    }
    for record in by_link.wait_records(2) {
        assert_refused(&record, "default");
    }
}

#[test]
fn a_proxy_user_goes_before_the_executable_and_that_before_the_port() {
    const HERE: [u8; 4] = [127, 42, 0, 1];
    let site = Site::new();
    let (fetch, ordinary) = (site.copy_of_curl("fetch"), require("curl"));
    let roles = format!("{}, worker: {{ proxy-user: worker }}, web: {{ port: {} }}", exe(&fetch), free_port_of(HERE.into()));
    let policy = site.policy(&roles, &["fetch", "worker", "web"]);
    let egret = Egret::with_policy(&policy).listen(&format!("{}:0", Ipv4Addr::from(HERE))).start();
    let [first, of_web] = egret.proxies()[..] else { panic!("two proxy ports: {}", egret.started()) };
    let cases = [
        ("no port of a role, no user", &fetch, first.to_string(), "fetch"),
        ("the port of another role", &fetch, of_web.to_string(), "fetch"),
        ("another program there", &ordinary, of_web.to_string(), "web"),
        ("a user", &fetch, format!("worker:x@{first}"), "worker"),
        ("a user at the port of a role", &fetch, format!("worker:x@{of_web}"), "worker"),
        ("a user who is none", &fetch, format!("nobody:x@{of_web}"), "fetch"),
    ];
    let mut count = 0;
    for (case, curl, at, role) in cases {
        // As a request, and as a SOCKS5 dialogue: the user is told in other ways.
        for scheme in ["http", "socks5h"] {
            let output = site.fetch(curl, ["--proxy", &format!("{scheme}://{at}")], role);
            count += 1;
            let record = egret.wait_records(count).pop().expect("at least one record");
            assert_eq!(record["role"], role, "{case} by {scheme}: {output:#?}\n{record:#}");
            assert_passed(&output, &record, role);
        }
    }
}

#[test]
fn a_reload_brings_and_takes_roles_by_executable() {
    let site = Site::new();
    let fetch = site.copy_of_curl("fetch");
    let (with, without) = (site.policy(&exe(&fetch), &["fetch"]), site.policy("fetch: { proxy-user: fetch }", &["fetch"]));
    let egret = Egret::with_policy(&without).start();
    site.fetch(&fetch, proxy(&egret), "fetch");
    assert_refused(&egret.only_record(), "default");
    egret.rewrite_policy(&with);
    let loaded = egret.event("policy", |event| event["result"] == "loaded");
    let output = site.fetch(&fetch, proxy(&egret), "fetch");
    assert_passed(&output, &egret.wait_records(2)[1], "fetch");
    egret.rewrite_policy(&without);
    egret.event("policy", |event| event["result"] == "loaded" && event["policy"] != loaded["policy"]);
    site.fetch(&fetch, proxy(&egret), "fetch");
    assert_refused(&egret.wait_records(3)[2], "default");
}

#[test]
fn a_connection_held_through_a_reload_has_its_role_from_the_next_request_on() {
    let site = Site::new();
    let me = std::env::current_exe().and_then(fs::canonicalize).expect("this test has an executable");
    let server = site.servers[0].1.port();
    let others = policy(&site.dns, &[local("fetch.test", server, "as: http, for: [default]")]);
    let egret = Egret::with_policy(&others).start();
    let mut held = connect(egret.proxy());
    let mut ask = || {
        write!(held, "GET http://fetch.test:{server}/ HTTP/1.1\r\nHost: fetch.test:{server}\r\n\r\n")
            .expect("a request is taken");
        Response::read(&mut held).expect("an answer")
    };
    assert_eq!(ask().status, 200);
    egret.rewrite_policy(&format!("{others}roles: {{ me: {{ exe: {} }} }}\n", me.display()));
    egret.event("policy", |event| event["result"] == "loaded");
    let refused = ask();
    assert_eq!((refused.status, refused.header("x-egret-reason")), (403, Some("role_not_listed")), "{}", refused.head);
    assert_eq!(egret.event("request", |event| event["decision"] == "deny")["role"], "me");
}

#[test]
fn an_executable_that_was_replaced_has_no_role() {
    let site = Site::new();
    let fetch = site.copy_of_curl("fetch");
    let egret = Egret::with_policy(&site.policy(&exe(&fetch), &["fetch"])).start();
    let (other, pipe, url) = (site.copy_of_curl("other"), site.dir().join("config"), site.url("fetch"));
    let made = Program::new("mkfifo").arg(&pipe).run();
    assert_eq!(made.code, 0, "{made:#?}");
    let curl = Program::at(&fetch).args(["-sS", "--max-time", "20"]).args(proxy(&egret)).arg("--config").arg(&pipe);
    let output = thread::scope(|scope| {
        let curl = scope.spawn(|| curl.run());
        let open = || File::options().write(true).custom_flags(NONBLOCKING).open(&pipe).ok();
        let mut config = eventually("curl runs, and reads the pipe", open);
        fs::rename(&other, &fetch).expect("the directory is writable");
        writeln!(config, "url = \"{url}\"").expect("the pipe takes a line");
        drop(config);
        curl.join().expect("curl ends")
    });
    assert_ne!(output.stdout, "for fetch\n", "{output:#?}");
    assert_refused(&egret.only_record(), "default");
    let told = egret.event("coverage", |event| event["section"] == "roles");
    assert!(told["why"].as_str().is_some_and(|why| why.contains("deleted or replaced")), "{told:#}");
}

#[test]
fn where_the_process_cannot_be_seen_the_role_is_the_default_and_it_is_said_once() {
    let site = Site::new();
    let fetch = site.copy_of_curl("fetch");
    let unshare = require("unshare").display().to_string();
    let builder = Egret::with_policy(&site.policy(&exe(&fetch), &["fetch"]));
    let egret = builder.under([&unshare[..]].into_iter().chain(ALONE)).start();
    for count in 1..=3 {
        site.fetch(&fetch, proxy(&egret), "fetch");
        for record in egret.wait_records(count) {
            assert_refused(&record, "default");
        }
    }
    let told: Vec<Value> = egret.events("coverage").into_iter().filter(|event| event["section"] == "roles").collect();
    let [event] = &told[..] else { panic!("said once: {told:#?}") };
    assert_eq!(event["served"], false, "{event:#}");
    assert!(event["why"].as_str().is_some_and(|why| !why.is_empty()), "{event:#}");
}

#[test]
fn check_warns_where_executables_cannot_be_seen() {
    let site = Site::new();
    let fetch = site.copy_of_curl("fetch");
    let file = write(&site.dir(), "policy.yaml", site.policy(&exe(&fetch), &["fetch"]));
    let path = file.to_str().expect("the test's directory has a name in UTF-8");
    let here = run_egret(["check", "--strict", path], "");
    assert_eq!((here.code, here.stderr.as_str()), (0, ""), "the test itself can be seen here: {here:#?}");
    let alone = || Program::new("unshare").args(ALONE).arg(EGRET).args(["check", path]);
    let warned = alone().run();
    assert_eq!(warned.code, 0, "{warned:#?}");
    for words in ["warning[exe-not-visible]: ", "fetch", "= help: ", ", 1 warning)"] {
        assert!(format!("{}{}", warned.stderr, warned.stdout).contains(words), "{words:?}: {warned:#?}");
    }
    assert_eq!(alone().arg("--strict").run().code, 1);
    let others = write(&site.dir(), "others.yaml", site.policy("fetch: { proxy-user: fetch }", &["fetch"]));
    let silent = Program::new("unshare").args(ALONE).arg(EGRET).args(["check", "--strict"]).arg(&others).run();
    assert_eq!((silent.code, silent.stderr.as_str()), (0, ""), "no executable is asked for: {silent:#?}");
}
