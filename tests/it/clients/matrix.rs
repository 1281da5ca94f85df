//! The client matrix: each client with the variables of `egret env` and nothing else fetches what is allowed, in the clear and
//! over TLS, and is refused what is not; how it goes, and what it then tells its user, is the table in docs/clients.md.
//!
//! Needs beside the rest Debian's libio-socket-ssl-perl, liblwp-protocol-https-perl, php-cli, php-curl, python3-aiohttp,
//! python3-httpx and ruby, libraries for Node, boto3 with moto, and reqwest (`.ci/run` has the commands).

use std::path::Path;
use std::process::{Command, Stdio};

use super::scene::Scene;
use crate::support::programs::{Output, node, require};
use crate::support::{Program, moto};

/// How a client goes, and what it says when it is refused a TLS connection.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// For `egret env --runtime`; empty for none.
    pub(super) runtime: &'static str,
    pub(super) http: &'static str,
    pub(super) https: &'static str,
    pub(super) told: &'static str,
}

/// As the table has them; `around` is a client that no variable reaches.
pub(super) const ROWS: &[Row] = &[
    Row { name: "curl", runtime: "", http: "forward", https: "connect", told: "CONNECT tunnel failed, response 403" },
    Row { name: "wget", runtime: "", http: "forward", https: "connect", told: "Proxy tunneling failed: evil.test" },
    Row { name: "git", runtime: "", http: "forward", https: "connect", told: "CONNECT tunnel failed, response 403" },
    Row {
        name: "Python urllib",
        runtime: "python",
        http: "forward",
        https: "connect",
        told: "Tunnel connection failed: 403 evil.test",
    },
    Row {
        name: "Python requests",
        runtime: "python",
        http: "forward",
        https: "connect",
        told: "Tunnel connection failed: 403 evil.test",
    },
    Row { name: "Python httpx", runtime: "python", http: "forward", https: "connect", told: "ProxyError: 403 evil.test" },
    Row { name: "Python aiohttp", runtime: "python", http: "around", https: "around", told: "" },
    Row {
        name: "Python aiohttp, trust_env=True",
        runtime: "python",
        http: "forward",
        https: "connect",
        told: "403, message='evil.test",
    },
    Row { name: "boto3, S3", runtime: "python", http: "forward", https: "connect", told: "Failed to connect to proxy URL" },
    Row { name: "Node fetch", runtime: "node", http: "connect", https: "connect", told: "fetch failed" },
    Row { name: "undici, EnvHttpProxyAgent", runtime: "node", http: "connect", https: "connect", told: "Request was cancelled" },
    Row { name: "axios", runtime: "node", http: "forward", https: "connect", told: "403" },
    Row { name: "AWS SDK for JavaScript v3, S3", runtime: "node", http: "around", https: "around", told: "" },
    Row {
        name: "AWS SDK for JavaScript v3, S3, node-agents",
        runtime: "node-agents",
        http: "forward",
        https: "connect",
        told: "403",
    },
    Row { name: "Go net/http", runtime: "go", http: "forward", https: "connect", told: "evil.test" },
    Row { name: "Java HttpURLConnection", runtime: "java", http: "forward", https: "connect", told: "403 evil.test" },
    Row { name: "Java HttpClient", runtime: "java", http: "forward", https: "connect", told: "Tunnel failed, got: 403" },
    Row { name: "Ruby Net::HTTP", runtime: "ruby", http: "forward", https: "connect", told: "403 \"evil.test" },
    Row { name: "PHP curl", runtime: "php", http: "forward", https: "connect", told: "CONNECT tunnel failed, response 403" },
    Row { name: "PHP streams", runtime: "php", http: "around", https: "around", told: "" },
    Row { name: "Perl LWP", runtime: "perl", http: "forward", https: "connect", told: "403" },
    Row { name: "Perl HTTP::Tiny", runtime: "perl", http: "forward", https: "connect", told: "403" },
    Row { name: "Rust reqwest", runtime: "rust", http: "forward", https: "connect", told: "TunnelUnsuccessful" },
];

/// Fetches `url` by `program`, which is made anew each time, and holds what happens to the row of this name.
fn check(name: &str, scene: &Scene, program: &dyn Fn() -> Program) {
    let row = ROWS.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"));
    for (scheme, way) in [("http", row.http), ("https", row.https)] {
        let (answered, before) = (scene.answered(), scene.egret.records().len());
        let output = scene.fetch(program(), row.runtime, &scene.url(scheme, scene.allowed));
        if way == "around" {
            // The name exists for egret alone: whoever goes around it cannot get anywhere here.
            assert!(!output.stdout.contains("hello"), "{name} {scheme}: {output:#?}");
            assert_eq!(scene.egret.records().len(), before, "{name} {scheme} came to egret: {output:#?}");
            continue;
        }
        // git asks for a repository, which this is not.
        assert!(output.stdout.contains("hello") || name == "git", "{name} {scheme}: {output:#?}");
        assert!(scene.answered() > answered, "{name} {scheme}: {output:#?}");
        let record = scene.record(before, "allow", way);
        assert!(record["host"].as_str().is_some_and(|host| host.ends_with(scene.allowed)), "{record}");
        let (answered, before) = (scene.answered(), scene.egret.records().len());
        let refused = scene.fetch(program(), row.runtime, &scene.url(scheme, scene.refused));
        assert!(!refused.stdout.contains("hello"), "{name} {scheme}: {refused:#?}");
        assert_eq!(scene.record(before, "deny", way)["reason"], "no_rule");
        assert_eq!(scene.answered(), answered, "{name} {scheme}: a refused request reached the upstream");
        for name in [scene.refused.to_owned(), format!("bucket.{}", scene.refused)] {
            assert!(scene.dns.queries_for(&name).is_empty(), "{name} was asked for");
        }
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(scheme == "http" || said.contains(row.told), "{name} says, and not {:?}: {said}", row.told);
    }
}

/// A script for an interpreter, which is given the address as its last argument.
fn script(program: &Path, args: &[&str]) -> impl Fn() -> Program {
    move || Program::at(program).args(args)
}

fn missing(output: &Output, package: &str) {
    assert_eq!(output.code, 0, "this test needs {package}: {output:?}");
}

#[test]
fn command_line_programs() {
    let scene = Scene::new();
    check("curl", &scene, &|| Program::new("curl").args(["-sS", "--max-time", "20"]));
    let certificate = format!("--ca-certificate={}", scene.ca.display());
    check("wget", &scene, &|| Program::new("wget").args(["-O", "-", "--tries=1", "--timeout=20", &certificate]));
    check("git", &scene, &|| Program::new("git").env("GIT_CONFIG_NOSYSTEM", "1").args(["ls-remote"]));
}

const URLLIB: &str = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())";
const REQUESTS: &str = "import sys, requests; print(requests.get(sys.argv[1], timeout=20).text)";
const HTTPX: &str = "import sys, httpx; print(httpx.get(sys.argv[1], timeout=20).text)";
const AIOHTTP: &str = "import sys, ssl, asyncio, aiohttp
async def get():
    async with aiohttp.ClientSession(trust_env=TRUST) as s:
        async with s.get(sys.argv[1]) as r: print(await r.text())
asyncio.run(get())";
/// The bucket is a label of the host, as with S3 itself; it is made, filled, listed and read.
const BOTO3: &str = "import sys, boto3, botocore.config as c
from urllib.parse import urlsplit
url = urlsplit(sys.argv[1])
bucket, _, endpoint = url.netloc.partition('.')
config = c.Config(s3={'addressing_style': 'virtual'}, retries={'total_max_attempts': 1})
s3 = boto3.client('s3', endpoint_url=f'{url.scheme}://{endpoint}', region_name='eu-west-1', aws_access_key_id='a', aws_secret_access_key='b', config=config)
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'})
s3.put_object(Bucket=bucket, Key='a/key', Body=b'hello')
[there] = s3.list_objects_v2(Bucket=bucket)['Contents']
print(s3.get_object(Bucket=bucket, Key=there['Key'])['Body'].read().decode())";

#[test]
fn python() {
    let python = Path::new("/usr/bin/python3");
    let found = Program::at(python).args(["-c", "import requests, httpx, aiohttp"]).run();
    missing(&found, "Debian's python3-requests, python3-httpx and python3-aiohttp");
    let scene = Scene::new();
    check("Python urllib", &scene, &script(python, &["-c", URLLIB]));
    check("Python requests", &scene, &script(python, &["-c", REQUESTS]));
    check("Python httpx", &scene, &script(python, &["-c", HTTPX]));
    let (plain, trusting) = (AIOHTTP.replace("TRUST", "False"), AIOHTTP.replace("TRUST", "True"));
    check("Python aiohttp", &scene, &script(python, &["-c", &plain]));
    check("Python aiohttp, trust_env=True", &scene, &script(python, &["-c", &trusting]));
}

#[test]
fn aws_sdk_of_python() {
    let scene = Scene::s3();
    check("boto3, S3", &scene, &script(&moto::python(), &["-c", BOTO3]));
}

const FETCH: &str = "fetch(process.argv[1]).then(async r => console.log(await r.text()))";
const UNDICI: &str = "const { fetch, EnvHttpProxyAgent } = require('undici');
fetch(process.argv[1], { dispatcher: new EnvHttpProxyAgent() }).then(async r => console.log(await r.text())).catch(e => console.log(String(e.cause)))";
const AXIOS: &str =
    "require('axios').get(process.argv[1]).then(r => console.log(r.data)).catch(e => console.log(e.message, e.response?.status))";
const SDK: &str = "const { S3Client, GetObjectCommand } = require('@aws-sdk/client-s3');
const s3 = new S3Client({ endpoint: process.argv[1], region: 'eu-west-1', maxAttempts: 1, credentials: { accessKeyId: 'a', secretAccessKey: 'b' } });
s3.send(new GetObjectCommand({ Bucket: 'bucket', Key: 'key' })).then(async r => console.log(await r.Body.transformToString()))
    .catch(e => console.log(e.message, e.$metadata?.httpStatusCode, String(e.cause)))";

/// Node with libraries.
fn node_script(script: &str) -> impl Fn() -> Program {
    const DIR: &str = "target/tools/clients";
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIR).join("node_modules");
    for library in ["undici", "axios", "@aws-sdk/client-s3"] {
        assert!(
            modules.join(library).is_dir(),
            "this test needs {library}: npm install --prefix {DIR} --no-save --no-audit --no-fund --ignore-scripts undici@7.30.2 \
             axios@1.21.1 @aws-sdk/client-s3@3.1169.0"
        );
    }
    move || Program::at(&node()).env("NODE_PATH", &modules).args(["-e", script])
}

#[test]
fn node_and_its_libraries() {
    let scene = Scene::new();
    check("Node fetch", &scene, &node_script(FETCH));
    check("undici, EnvHttpProxyAgent", &scene, &node_script(UNDICI));
    check("axios", &scene, &node_script(AXIOS));
}

#[test]
fn aws_sdk_of_node() {
    let scene = Scene::new();
    check("AWS SDK for JavaScript v3, S3", &scene, &node_script(SDK));
    check("AWS SDK for JavaScript v3, S3, node-agents", &scene, &node_script(SDK));
}

const GO: &str = "package main

import (
	\"fmt\"
	\"io\"
	\"net/http\"
	\"os\"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	text, _ := io.ReadAll(answer.Body)
	fmt.Print(string(text))
}
";

#[test]
fn go() {
    let scene = Scene::new();
    let (source, program) = (scene.write("get.go", GO), scene.home.path().join("get"));
    // The standard library is compiled once for all tests, which may take longer than any program may run.
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/go");
    let mut build = Command::new(require("go"));
    build
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", cache)
        .env("GO111MODULE", "off")
        .arg("build")
        .arg("-o")
        .arg(&program)
        .arg(source);
    assert!(build.stdin(Stdio::null()).status().expect("go runs").success());
    check("Go net/http", &scene, &script(&program, &[]));
}

const JAVA: &str = "import java.net.*;
import java.net.http.*;
public class Get {
    public static void main(String[] args) throws Exception {
        URI uri = URI.create(args[1]);
        if (args[0].equals(\"old\")) {
            System.out.println(new String(uri.toURL().openStream().readAllBytes()));
        } else {
            System.out.println(HttpClient.newHttpClient().send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString()).body());
        }
    }
}
";

#[test]
fn java() {
    let scene = Scene::new();
    let (source, store) = (scene.write("Get.java", JAVA), format!("-Djavax.net.ssl.trustStore={}", scene.java_store().display()));
    let compiled = Program::new("javac").arg("-d").arg(scene.home.path()).arg(source).run();
    assert_eq!(compiled.code, 0, "{compiled:?}");
    let classes = scene.home.path().display().to_string();
    let kind = ["-Djavax.net.ssl.trustStorePassword=changeit", &store, "-cp", &classes, "Get"];
    check("Java HttpURLConnection", &scene, &|| Program::new("java").args(kind).arg("old"));
    check("Java HttpClient", &scene, &|| Program::new("java").args(kind).arg("new"));
}

const RUBY: &str = "u = URI(ARGV[0]); h = Net::HTTP.new(u.host, u.port); h.use_ssl = u.scheme == 'https'; puts h.get('/').body";
const PHP_CURL: &str =
    "$c = curl_init($argv[1]); curl_setopt($c, CURLOPT_CAINFO, getenv('SSL_CERT_FILE')); curl_exec($c); echo curl_error($c);";
const PHP_STREAMS: &str = "echo @file_get_contents($argv[1]);";
const LWP: &str = "my $r = LWP::UserAgent->new(timeout => 20)->get($ARGV[0]); print $r->status_line, $r->content";
const TINY: &str = "my $r = HTTP::Tiny->new(timeout => 20, verify_SSL => 1)->get($ARGV[0]); print $r->{status}, $r->{content}";

#[test]
fn ruby_php_and_perl() {
    missing(&Program::new("php").args(["-r", "curl_init();"]).run(), "Debian's php-cli and php-curl");
    missing(&Program::new("perl").args(["-MLWP::Protocol::https", "-e", "1"]).run(), "Debian's liblwp-protocol-https-perl");
    let scene = Scene::new();
    check("Ruby Net::HTTP", &scene, &|| Program::new("ruby").args(["-rnet/http", "-e", RUBY]));
    check("PHP curl", &scene, &|| Program::new("php").args(["-r", PHP_CURL, "--"]));
    check("PHP streams", &scene, &|| Program::new("php").args(["-r", PHP_STREAMS, "--"]));
    check("Perl LWP", &scene, &|| Program::new("perl").args(["-MLWP::UserAgent", "-e", LWP]));
    check("Perl HTTP::Tiny", &scene, &|| Program::new("perl").args(["-MHTTP::Tiny", "-e", TINY]));
}

#[test]
fn rust() {
    const TARGET: &str = "target/tools/reqwest";
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(TARGET).join("debug/egret-test-reqwest");
    let build = format!("cargo build --locked --manifest-path tests/reqwest/Cargo.toml --target-dir {TARGET}");
    assert!(program.is_file(), "this test needs {}: {build}", program.display());
    check("Rust reqwest", &Scene::new(), &script(&program, &[]));
}
