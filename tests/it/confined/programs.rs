//! Real programs, none of which was told of a proxy: each reaches what is allowed and nothing else, by name and by address.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Scene, app};
use crate::support::Outside;
use crate::support::programs::{node, require};

pub(super) const POLICY: &str = "
egress:
  allow:
    - good.test
    - 'good.test:80'
    - 'good.test:2222'
    - 'db.test:5433'
    - 'db.test:6379'
";

/// Runs this as the app to its end; what it writes to stdout is on stderr then.
fn ran(outside: Outside, words: &[&str]) -> (Scene, i32, String) {
    if !words[0].contains('/') {
        require(words[0]);
    }
    let shell = ["/bin/sh", "-c", "exec \"$@\" >&2", "sh"];
    let words = [&shell[..], words].concat();
    let egret = app(&outside, outside.egret(POLICY), &words).start();
    let code = egret.wait_exit().code().expect("a code");
    let said = egret.stderr();
    (Scene { outside, egret }, code, said)
}

/// This program ends well and says this.
#[track_caller]
fn reaches(words: &[&str], says: &str, connections: &[&str], names: &[&str]) {
    let Some(outside) = Outside::new() else { return };
    let (scene, code, said) = ran(outside, words);
    assert_eq!(code, 0, "{words:?}: {said}");
    assert!(said.contains(says), "{words:?}: {said}");
    assert_eq!(scene.egret.wait_records(connections.len()).len(), connections.len());
    scene.outside.only(connections, names);
}

/// This program fails with this code, and nothing leaves.
#[track_caller]
fn fails(words: &[&str], fails: i32) {
    let Some(outside) = Outside::new() else { return };
    let (scene, code, said) = ran(outside, words);
    assert_eq!(code, fails, "{words:?}: {said}");
    scene.outside.only(&[], &[]);
    let told = scene.egret.events("name").len() + scene.egret.records().len();
    assert!(told > 0, "{words:?}: nothing was refused: {said}");
}

#[test]
fn curl() {
    reaches(&["curl", "-sS", "https://good.test/"], "hello from 44.0.0.7:443 as good.test", &["44.0.0.7:443"], &["good.test"]);
    reaches(&["curl", "-sS", "http://good.test/"], "hello from 44.0.0.7:80 as good.test", &["44.0.0.7:80"], &["good.test"]);
    fails(&["curl", "-sS", "https://evil.test/"], 6);
    fails(&["curl", "-sS", "http://45.0.0.66/"], 7);
}

#[test]
fn wget() {
    require("wget");
    let get = |url| ["sh", "-c", "exec wget -qO- --tries=1 --ca-certificate=\"$SSL_CERT_FILE\" $0", url];
    reaches(&get("https://good.test/"), "hello from 44.0.0.7:443 as good.test", &["44.0.0.7:443"], &["good.test"]);
    fails(&get("https://evil.test/"), 4);
    fails(&get("http://45.0.0.66/"), 4);
}

#[test]
fn git() {
    let refs = "0123456789abcdef0123456789abcdef01234567\trefs/heads/main";
    reaches(&["git", "ls-remote", "https://good.test/repo.git"], refs, &["44.0.0.7:443"], &["good.test"]);
    fails(&["git", "ls-remote", "https://evil.test/repo.git"], 128);
    fails(&["git", "ls-remote", "http://45.0.0.66/repo.git"], 128);
}

#[test]
fn python() {
    let requests =
        "import sys, requests; print(requests.get(sys.argv[1], verify=__import__('os').environ['SSL_CERT_FILE']).text)";
    let asyncio = "
import asyncio, sys
async def get(host):
    reader, writer = await asyncio.open_connection(host, 443, ssl=True)
    writer.write(f'GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n'.encode())
    print((await reader.read()).decode())
asyncio.run(get(sys.argv[1].split('/')[2]))
";
    for script in [requests, asyncio] {
        let get = |url| ["/usr/bin/python3", "-c", script, url];
        reaches(&get("https://good.test/"), "hello from 44.0.0.7:443 as good.test", &["44.0.0.7:443"], &["good.test"]);
        fails(&get("https://evil.test/"), 1);
    }
    fails(&["/usr/bin/python3", "-c", requests, "http://45.0.0.66/"], 1);
}

#[test]
fn node_by_fetch_and_by_http() {
    let fetch = "fetch(process.argv[1]).then(r => r.text()).then(console.log, e => { console.log(e.cause); process.exit(9) })";
    let http = "
const url = process.argv[1], get = require(url.split(':')[0]).get;
get(url, r => r.on('data', d => console.log(String(d)))).on('error', e => { console.log(e); process.exit(9) })
";
    let node = node().display().to_string();
    for script in [fetch, http] {
        let get = |url| [&node, "-e", script, url];
        reaches(&get("https://good.test/"), "hello from 44.0.0.7:443 as good.test", &["44.0.0.7:443"], &["good.test"]);
        fails(&get("https://evil.test/"), 9);
        fails(&get("http://45.0.0.66/"), 9);
    }
}

/// `dns.resolve` asks by c-ares, with datagrams of its own; `dns.lookup` above by the system's resolver.
#[test]
fn node_by_c_ares() {
    let resolve =
        "require('dns').resolve4(process.argv[1], (e, all) => { console.log(e ? e.code : all); process.exit(e ? 9 : 0) })";
    let node = node().display().to_string();
    let ask = |name| [&node, "-e", resolve, name];
    reaches(&ask("good.test"), "[ '44.0.0.7' ]", &[], &["good.test"]);
    fails(&ask("evil.test"), 9);
}

/// The resolver of an egret that knows nothing of the egret around it.
#[test]
fn hickory() {
    for (name, code, says, asked) in [("good.test", 0, "44.0.0.7", &["good.test"][..]), ("evil.test", 3, "dns_failed", &[])] {
        let Some(outside) = Outside::new() else { return };
        let policy = outside.home().join("explained.yaml");
        std::fs::write(&policy, "version: 1\negress: { allow: [good.test, evil.test] }\n").expect("the directory is writable");
        let policy = policy.display().to_string();
        let explain = [env!("CARGO_BIN_EXE_egret"), "explain", "--resolve", "--policy", &policy, name];
        let (scene, ended, said) = ran(outside, &explain);
        assert_eq!(ended, code, "{said}");
        assert!(said.contains(says), "{said}");
        let left = scene.outside.left();
        assert!(left.iter().all(|line| asks_about(line, asked)), "{left:#?}");
    }
}

#[test]
fn java() {
    let source = r#"
import java.net.URI;
import java.net.http.*;

public class Get {
    public static void main(String[] words) throws Exception {
        for (String word : words) {
            try {
                HttpRequest request = HttpRequest.newBuilder(URI.create(word)).version(HttpClient.Version.HTTP_1_1).build();
                System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
            } catch (java.io.IOException refused) {
                System.out.println("refused " + word);
            }
        }
    }
}
"#;
    let Some(outside) = Outside::new() else { return };
    let file = outside.home().join("Get.java");
    std::fs::write(&file, source).expect("the directory is writable");
    let words = ["java", &file.display().to_string(), "http://good.test/", "http://evil.test/", "http://45.0.0.66/"];
    let (scene, code, said) = ran(outside, &words);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("hello from 44.0.0.7:80 as good.test\nrefused http://evil.test/\nrefused http://45.0.0.66/"), "{said}");
    scene.outside.only(&["44.0.0.7:80"], &["good.test"]);
}

/// Fetches each URL.
pub(super) fn in_go(outside: &Outside) -> String {
    let source = r#"package main

import ("fmt"; "io"; "net/http"; "os")

func main() {
	for _, url := range os.Args[1:] {
		answer, err := http.Get(url)
		if err != nil { fmt.Println("refused", url); continue }
		body, _ := io.ReadAll(answer.Body)
		fmt.Print(string(body))
	}
}
"#;
    compiled(outside, "get.go", source, |from, to| {
        let mut go = Command::new(require("go"));
        let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/go");
        go.env("CGO_ENABLED", "0").env("GOCACHE", cache).env("GO111MODULE", "off").arg("build").arg("-o").arg(to).arg(from);
        go
    })
}

/// Its resolver is its own, and asks by itself.
#[test]
fn go_linked_statically() {
    let Some(outside) = Outside::new() else { return };
    let program = in_go(&outside);
    let (scene, code, said) = ran(outside, &[&program, "https://good.test/", "https://evil.test/", "http://45.0.0.66/"]);
    assert_eq!(code, 0, "{said}");
    let expected = "hello from 44.0.0.7:443 as good.test\nrefused https://evil.test/\nrefused http://45.0.0.66/";
    assert!(said.contains(expected), "{said}");
    scene.outside.only(&["44.0.0.7:443"], &["good.test"]);
}

/// Fetches from port 80 of each host.
pub(super) fn with_musl(outside: &Outside) -> String {
    let source = r#"
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
    for (int at = 1; at < count; at++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
        if (getaddrinfo(words[at], "80", &hints, &found)) { printf("unknown %s\n", words[at]); continue; }
        int s = socket(found->ai_family, SOCK_STREAM, 0);
        if (connect(s, found->ai_addr, found->ai_addrlen)) { perror(words[at]); continue; }
        dprintf(s, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", words[at]);
        char answer[4096] = "";
        for (size_t had = 0, more; (more = read(s, answer + had, sizeof answer - 1 - had)) > 0 && more < sizeof answer; ) had += more;
        printf("%s\n", strstr(answer, "hello") ? strstr(answer, "hello") : answer);
        fflush(stdout);
    }
}
"#;
    compiled(outside, "get.c", source, |from, to| {
        let mut gcc = Command::new(require("musl-gcc"));
        gcc.args(["-static", "-o"]).arg(to).arg(from);
        gcc
    })
}

/// musl asks on a socket that is not connected and believes the nameserver only.
#[test]
fn musl_linked_statically() {
    let Some(outside) = Outside::new() else { return };
    let program = with_musl(&outside);
    let (scene, code, said) = ran(outside, &[&program, "good.test", "evil.test", "45.0.0.66"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("hello from 44.0.0.7:80 as good.test"), "{said}");
    assert!(said.contains("unknown evil.test") && said.contains("45.0.0.66: Permission denied"), "{said}");
    let left = scene.outside.left();
    let (connects, asks): (Vec<_>, Vec<_>) = left.iter().partition(|line| line.starts_with("connect"));
    assert_eq!(connects, ["connect 44.0.0.7:80"], "{left:#?}");
    assert!(asks.iter().all(|line| asks_about(line, &["good.test"])), "{left:#?}");
}

/// Whether this left on behalf of a program that asks on a socket that is not connected: the nameserver that it chose, and egret's
/// own, are asked about an allowed name, or the former about nothing.
pub(super) fn asks_about(line: &str, names: &[&str]) -> bool {
    let about =
        |name: &&str| ["44.0.0.53", "44.0.0.54"].iter().any(|server| line.starts_with(&format!("query {server} {name} ")));
    line == "query 44.0.0.53 invalid A" || names.iter().any(about)
}

fn compiled(outside: &Outside, name: &str, source: &str, compiler: impl Fn(&Path, &Path) -> Command) -> String {
    let (file, program): (PathBuf, PathBuf) = (outside.home().join(name), outside.home().join(format!("{name}.out")));
    std::fs::write(&file, source).expect("the directory is writable");
    let output = compiler(&file, &program).output().expect("the compiler runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program.display().to_string()
}

/// The server speaks first.
#[test]
fn ssh() {
    let to = |host| {
        let options = ["-oBatchMode=yes", "-oUserKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=no"];
        [&["ssh", "-F/dev/null", "-p2222"], &options[..], &[host, "true"]].concat()
    };
    let Some(outside) = Outside::new() else { return };
    let (scene, code, said) = ran(outside, &to("good.test"));
    assert_eq!(code, 255, "{said}");
    let ended = scene.outside.event("ended", |ended| ended["at"] == "44.0.0.7:2222");
    assert!(ended["said"].as_str().is_some_and(|said| said.starts_with("SSH-2.0-OpenSSH")), "{ended:#}");
    assert!(scene.record("good.test", 2222)["bytes_down"].as_u64() >= Some(17), "the banner");
    scene.outside.only(&["44.0.0.7:2222"], &["good.test"]);
    fails(&to("evil.test"), 255);
    fails(&to("45.0.0.66"), 255);
}

#[test]
fn psql() {
    let to = |host| ["psql", "-w", "-h", host, "-p", "5433", "-U", "somebody", "-c", "select 1"];
    let Some(outside) = Outside::new() else { return };
    let (scene, code, said) = ran(outside, &to("db.test"));
    assert!(code == 2 && said.contains("hello from the outside"), "{said}");
    assert_eq!(scene.record("db.test", 5433)["decision"], "allow");
    fails(&to("evil.test"), 2);
}

/// The client speaks first, and neither TLS nor HTTP.
#[test]
fn redis_cli() {
    let to = |host| ["redis-cli", "-h", host, "GET", "greeting"];
    reaches(&to("db.test"), "hello from the outside", &["44.0.0.8:6379"], &["db.test"]);
    fails(&to("evil.test"), 1);
    fails(&to("45.0.0.66"), 1);
}
