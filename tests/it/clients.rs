//! Real clients as users have them: each reaches what is allowed, and each shows its user why the rest is refused, as
//! far as it shows anything. No name here can be resolved but by egret.

mod scene; // what the clients of the matrix meet
mod table; // the table of the document, written anew where that is asked for
mod matrix; // every client with what `egret env` gives it

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::programs::{Output, node};
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{Ca, DnsServer, Egret, Program, Upstream, nginx};

/// allowed.test over TLS and in the clear, and egret before both; evil.test is the same servers under a name that no
/// rule has.
struct Site {
    egret: Egret,
    dns: DnsServer,
    tls: Upstream,
    web: Upstream,
    home: TempDir,
    ca: PathBuf,
}

impl Site {
    fn new() -> Self {
        let (ca, dns, home) = (Ca::new(), DnsServer::new(), TempDir::new().expect("a temporary directory"));
        dns.answers("allowed.test", &LOCALHOST).answers("evil.test", &LOCALHOST);
        let tls = Upstream::tls(&ca.issue(&["allowed.test", "evil.test"]), "secret hello\n");
        let web = Upstream::http("clear hello\n");
        let rules =
            [local("allowed.test", tls.port(), "as: tls, id: tls"), local("allowed.test", web.port(), "as: http, id: web")];
        let egret = Egret::with_policy(&policy(&dns, &rules)).start();
        let ca = ca.write_pem(home.path());
        Self { egret, dns, tls, web, home, ca }
    }

    fn https(&self, host: &str) -> String {
        format!("https://{host}:{}/", self.tls.port())
    }

    fn http(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.web.port())
    }

    fn proxy(&self) -> String {
        format!("http://{}", self.egret.proxy())
    }

    /// curl that trusts the test's root and tells what it does.
    fn curl(&self) -> Program {
        Program::new("curl").args(["-sSv", "--max-time", "20", "--cacert"]).arg(&self.ca)
    }

    /// Debian's Python with the usual variables.
    fn python(&self, script: &str, url: &str) -> Output {
        let python = Path::new("/usr/bin/python3");
        assert!(python.is_file(), "this test needs {}: install the Debian package python3", python.display());
        let program =
            Program::at(python).args(["-c", script, url]).env("http_proxy", self.proxy()).env("https_proxy", self.proxy());
        let output = program.env("SSL_CERT_FILE", &self.ca).env("REQUESTS_CA_BUNDLE", &self.ca).run();
        let missing = output.stderr.contains("No module named 'requests'");
        assert!(!missing, "this test needs the Debian package python3-requests");
        output
    }

    /// One connection was refused before any of it went out.
    fn refused(&self, via: &str, reason: &str) {
        let record = self.egret.only_record();
        assert_eq!((&record["decision"], &record["via"], &record["reason"]), (&"deny".into(), &via.into(), &reason.into()));
        assert_eq!((self.tls.connections(), self.web.connections()), (0, 0), "a refused request reached the upstream");
        assert!(self.dns.queries_for("evil.test").is_empty(), "a refused name was asked for");
    }

    fn passed(&self, via: &str) {
        let record = self.egret.only_record();
        assert_eq!(
            (&record["decision"], &record["via"], &record["host"]),
            (&"allow".into(), &via.into(), &"allowed.test".into())
        );
    }
}

/// The program ended well and printed this.
fn prints(output: &Output, text: &str) {
    assert!(output.code == 0 && output.stdout.contains(text), "{text:?} expected: {output:#?}");
}

/// The program ended with this code and told its user of all these.
fn fails(output: &Output, code: i32, told: &[&str]) {
    assert_eq!(output.code, code, "{output:#?}");
    for text in told {
        assert!(output.stderr.contains(text), "{text:?} expected: {output:#?}");
    }
}

#[test]
fn curl_fetches_http() {
    let site = Site::new();
    prints(&site.curl().env("http_proxy", site.proxy()).arg(site.http("allowed.test")).run(), "clear hello\n");
    site.passed("forward");
}

#[test]
fn curl_is_told_why_http_is_refused() {
    let site = Site::new();
    let output = site.curl().env("http_proxy", site.proxy()).arg(site.http("evil.test")).run();
    fails(&output, 0, &["403", "evil.test", "no rule", "x-egret-reason: no_rule"]);
    assert!(output.stdout.contains("evil.test"), "the body says it too: {output:#?}");
    site.refused("forward", "no_rule");
}

#[test]
fn c13_curl_fetches_https() {
    let site = Site::new();
    prints(&site.curl().env("https_proxy", site.proxy()).arg(site.https("allowed.test")).run(), "secret hello\n");
    site.passed("connect");
}

#[test]
fn curl_is_told_why_https_is_refused() {
    let site = Site::new();
    let output = site.curl().env("https_proxy", site.proxy()).arg(site.https("evil.test")).run();
    fails(&output, 56, &["403", &format!("evil.test:{} is refused", site.tls.port()), "x-egret-reason: no_rule"]);
    site.refused("connect", "no_rule");
}

#[test]
fn curl_by_socks_with_the_name() {
    for (option, via) in [("--socks5-hostname", "socks5"), ("--socks4a", "socks4")] {
        let site = Site::new();
        let proxy = site.egret.proxy().to_string();
        prints(&site.curl().args([option, &proxy]).arg(site.https("allowed.test")).run(), "secret hello\n");
        site.passed(via);
        let site = Site::new();
        let proxy = site.egret.proxy().to_string();
        fails(&site.curl().args([option, &proxy]).arg(site.https("evil.test")).run(), 97, &[]);
        site.refused(via, "no_rule");
    }
}

#[test]
fn curl_by_socks_with_an_address_is_judged_by_its_sni() {
    let site = Site::new();
    let local = |host: &str| format!("{host}:{}:127.0.0.1", site.tls.port());
    let curl = |host: &str| {
        let proxy = site.egret.proxy().to_string();
        site.curl().args(["--resolve", &local(host), "--socks5", &proxy]).arg(site.https(host)).run()
    };
    let refused = curl("evil.test");
    assert!([35, 56].contains(&refused.code), "{refused:#?}");
    site.refused("socks5", "no_rule");
    prints(&curl("allowed.test"), "secret hello\n");
    let records = site.egret.wait_records(2);
    assert_eq!((&records[1]["sni"], &records[1]["decision"]), (&"allowed.test".into(), &"allow".into()));
}

const URLLIB: &str = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())";
const REQUESTS: &str = "import sys, requests; r = requests.get(sys.argv[1], timeout=20); print(r.status_code, r.reason, r.text)";

#[test]
fn python_urllib() {
    for (scheme, via, text) in [("http", "forward", "clear hello"), ("https", "connect", "secret hello")] {
        let url = |site: &Site, host| if scheme == "http" { site.http(host) } else { site.https(host) };
        let site = Site::new();
        prints(&site.python(URLLIB, &url(&site, "allowed.test")), text);
        site.passed(via);
        let site = Site::new();
        fails(&site.python(URLLIB, &url(&site, "evil.test")), 1, &["403", "evil.test", "is refused"]);
        site.refused(via, "no_rule");
    }
}

#[test]
fn c13_python_requests() {
    let site = Site::new();
    prints(&site.python(REQUESTS, &site.http("allowed.test")), "200 OK clear hello");
    site.passed("forward");
    let site = Site::new();
    prints(&site.python(REQUESTS, &site.https("allowed.test")), "200 OK secret hello");
    site.passed("connect");
    let site = Site::new();
    prints(&site.python(REQUESTS, &site.http("evil.test")), "403 evil.test:");
    site.refused("forward", "no_rule");
    let site = Site::new();
    fails(&site.python(REQUESTS, &site.https("evil.test")), 1, &["ProxyError", "403", "evil.test", "is refused"]);
    site.refused("connect", "no_rule");
}

/// One GET by `openssl s_client` to allowed.test, with this server name or none.
fn s_client(site: &Site, name: &[&str]) -> Output {
    let (proxy, target) = (site.egret.proxy().to_string(), format!("allowed.test:{}", site.tls.port()));
    let openssl = Program::new("openssl").args(["s_client", "-proxy", &proxy, "-connect", &target]).args(name);
    let openssl = openssl.args(["-quiet", "-verify_return_error", "-CAfile"]).arg(&site.ca);
    openssl.stdin(b"GET / HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n").run()
}

#[test]
fn openssl_with_the_right_server_name() {
    let site = Site::new();
    prints(&s_client(&site, &["-servername", "allowed.test"]), "secret hello");
    site.passed("connect");
}

#[test]
fn openssl_with_another_server_name_or_none() {
    for (name, reason) in [(&["-servername", "evil.test"][..], "sni_mismatch"), (&["-noservername"], "sni_missing")] {
        let site = Site::new();
        let output = s_client(&site, name);
        assert!(output.code != 0 && !output.stdout.contains("hello"), "{reason}: {output:#?}");
        assert_eq!(site.egret.only_record()["reason"], reason);
        assert_eq!(site.tls.final_bytes(), 0, "{reason}: nothing reaches the upstream");
    }
}

fn git(dir: &Path) -> Program {
    let program = Program::new("git").dir(dir).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    let people = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    people.iter().fold(program, |program, name| program.env(name, "a@allowed.test"))
}

/// A bare repository with one file, as a plain web server can serve it.
fn repository(dir: &Path) {
    let work = dir.join("work");
    fs::create_dir(&work).expect("the test's directory is writable");
    fs::write(work.join("README"), "cloned through egret\n").expect("the test's directory is writable");
    let steps: [(&Path, &[&str]); 5] = [
        (&work, &["init", "--quiet"]),
        (&work, &["add", "README"]),
        (&work, &["commit", "--quiet", "--message", "one"]),
        (dir, &["clone", "--quiet", "--bare", "work", "repo.git"]),
        (&dir.join("repo.git"), &["update-server-info"]),
    ];
    for (dir, step) in steps {
        let output = git(dir).args(step).run();
        assert_eq!(output.code, 0, "{step:?}: {output:#?}");
    }
}

#[test]
fn git_clones_from_nginx() {
    let (ca, dns, home) = (Ca::new(), DnsServer::new(), TempDir::new().expect("a temporary directory"));
    dns.answers("allowed.test", &LOCALHOST).answers("evil.test", &LOCALHOST);
    repository(home.path());
    let server = nginx(&ca.issue(&["allowed.test", "evil.test"]), home.path());
    let egret = Egret::with_policy(&policy(&dns, &[local("allowed.test", server.port(), "as: tls")])).start();
    let ca = ca.write_pem(home.path());
    let clone = |host: &str| {
        let url = format!("https://{host}:{}/repo.git", server.port());
        let program = git(home.path()).args(["clone", "--quiet", &url, "cloned"]);
        program.env("https_proxy", format!("http://{}", egret.proxy())).env("GIT_SSL_CAINFO", &ca).run()
    };
    let refused = clone("evil.test");
    fails(&refused, 128, &["403"]);
    let cloned = clone("allowed.test");
    assert_eq!(cloned.code, 0, "{cloned:#?}");
    let file = fs::read_to_string(home.path().join("cloned/README")).expect("the clone has its file");
    assert_eq!(file, "cloned through egret\n");
    assert!(server.wait_access_log(1)[0].contains("GET /repo.git/info/refs"));
    let address = server.addr().to_string();
    egret.record(|record| record["decision"] == "allow" && record["address"] == address.as_str());
    egret.record(|record| record["decision"] == "deny" && record["host"] == "evil.test");
}

const FETCH: &str = "fetch(process.argv[1]).then(async r => console.log(r.status, await r.text()))";
const HTTP_GET: &str = "require('http').get(process.argv[1], r => { console.log(r.statusCode); r.pipe(process.stdout) })";

fn run_node(site: &Site, script: &str, url: &str) -> Output {
    let program = Program::at(&node()).args(["-e", script, url]).env("HOME", site.home.path()).env("NODE_USE_ENV_PROXY", "1");
    program.env("HTTP_PROXY", site.proxy()).env("HTTPS_PROXY", site.proxy()).env("NODE_EXTRA_CA_CERTS", &site.ca).run()
}

#[test]
fn c13_node_fetch_uses_connect_for_https() {
    let site = Site::new();
    prints(&run_node(&site, FETCH, &site.https("allowed.test")), "200 secret hello");
    site.passed("connect");
    let site = Site::new();
    fails(&run_node(&site, FETCH, &site.https("evil.test")), 1, &["fetch failed", "403"]);
    site.refused("connect", "no_rule");
}

#[test]
fn node_fetch_uses_connect_for_http_too() {
    let site = Site::new();
    prints(&run_node(&site, FETCH, &site.http("allowed.test")), "200 clear hello");
    site.passed("connect");
    let site = Site::new();
    fails(&run_node(&site, FETCH, &site.http("evil.test")), 1, &["fetch failed", "403"]);
    site.refused("connect", "no_rule");
}

#[test]
fn node_http_forwards() {
    let site = Site::new();
    prints(&run_node(&site, HTTP_GET, &site.http("allowed.test")), "200\nclear hello");
    site.passed("forward");
    let site = Site::new();
    prints(&run_node(&site, HTTP_GET, &site.http("evil.test")), "403\negret: evil.test");
    site.refused("forward", "no_rule");
}
