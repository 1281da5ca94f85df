//! What every client of the matrix meets: egret, servers that only it can find, and the variables of `egret env`.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::support::egret::egret_program;
use crate::support::moto::Moto;
use crate::support::programs::Output;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{Ca, DnsServer, Egret, Identity, Program, Upstream, eventually};

/// Two names on the same servers, and names of buckets below them. Only egret can resolve any of these.
pub(super) struct Scene {
    pub(super) egret: Egret,
    pub(super) dns: DnsServer,
    servers: Servers,
    pub(super) home: tempfile::TempDir,
    pub(super) ca: PathBuf,
    pub(super) allowed: &'static str,
    pub(super) refused: &'static str,
}

/// One in the clear and one over TLS.
struct Servers {
    http: u16,
    https: u16,
    /// How often they were asked anything.
    answered: Box<dyn Fn() -> usize>,
}

impl Scene {
    pub(super) fn new() -> Self {
        let (allowed, refused) = (["allowed.test", "bucket.allowed.test"], ["evil.test", "bucket.evil.test"]);
        Self::before(&allowed, &refused, |identity| {
            let (tls, web) = (Upstream::tls(identity, "hello\n"), Upstream::http("hello\n"));
            let (http, https) = (web.port(), tls.port());
            Servers { http, https, answered: Box::new(move || tls.connections() + web.connections()) }
        })
    }

    /// S3, of which one bucket is allowed.
    pub(super) fn s3() -> Self {
        let (allowed, refused) = (["reports.s3.eu-west-1.amazonaws.com"], ["elsewhere.s3.eu-west-1.amazonaws.com"]);
        Self::before(&allowed, &refused, |identity| {
            let (web, tls) = (Moto::start(None), Moto::start(Some(identity)));
            Servers { http: web.port(), https: tls.port(), answered: Box::new(move || web.answered() + tls.answered()) }
        })
    }

    fn before(allowed: &[&'static str], refused: &[&'static str], serve: impl FnOnce(&Identity) -> Servers) -> Self {
        let (ca, dns, home) = (Ca::new(), DnsServer::new(), tempfile::TempDir::new().expect("a temporary directory"));
        let names = [allowed, refused].concat();
        for name in &names {
            dns.answers(name, &LOCALHOST);
        }
        let servers = serve(&ca.issue(&names));
        let rules: Vec<String> = allowed
            .iter()
            .flat_map(|name| [local(name, servers.https, "as: tls"), local(name, servers.http, "as: http")])
            .collect();
        let egret = Egret::with_policy(&policy(&dns, &rules)).start();
        let ca = ca.write_pem(home.path());
        Self { egret, dns, servers, home, ca, allowed: allowed[0], refused: refused[0] }
    }

    /// With what `egret env` gives for this runtime, and the test's root of trust in every form.
    fn with_variables(&self, mut program: Program, runtime: &str) -> Program {
        let listen = self.egret.proxy().to_string();
        let runtime = if runtime.is_empty() { vec![] } else { vec!["--runtime", runtime] };
        let told = egret_program().args(["env", "--output", "dotenv", "--listen", &listen]).args(runtime).run();
        for (name, value) in told.stdout.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')) {
            program = program.env(name, value);
        }
        let roots = [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "AWS_CA_BUNDLE",
            "GIT_SSL_CAINFO",
            "NODE_EXTRA_CA_CERTS",
            "PERL_LWP_SSL_CA_FILE",
        ];
        let program = roots.iter().fold(program, |program, name| program.env(name, &self.ca));
        program.env("HOME", self.home.path()).env("AWS_EC2_METADATA_DISABLED", "true").dir(self.home.path())
    }

    /// One client at a time: virtual machines that start side by side would only wait for one another.
    pub(super) fn fetch(&self, program: Program, runtime: &str, url: &str) -> Output {
        static ONE: Mutex<()> = Mutex::new(());
        let program = self.with_variables(program, runtime).arg(url).patience(Duration::from_secs(120));
        let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        program.run()
    }

    pub(super) fn url(&self, scheme: &str, host: &str) -> String {
        let port = if scheme == "http" { self.servers.http } else { self.servers.https };
        format!("{scheme}://{host}:{port}/")
    }

    /// The record of this decision that came after so many others; waits for it.
    pub(super) fn record(&self, before: usize, decision: &str, via: &str) -> Value {
        eventually(&format!("a record of {decision} by {via}"), || {
            let fits = |record: &Value| record["decision"] == decision && record["via"] == via;
            self.egret.records().into_iter().skip(before).find(fits)
        })
    }

    pub(super) fn answered(&self) -> usize {
        (self.servers.answered)()
    }

    /// A Java program's root of trust is a store of its own.
    pub(super) fn java_store(&self) -> PathBuf {
        let store = self.home.path().join("roots.p12");
        let keytool =
            Program::new("keytool").args(["-importcert", "-noprompt", "-alias", "test", "-storepass", "changeit", "-file"]);
        let made = keytool.arg(&self.ca).arg("-keystore").arg(&store).run();
        assert_eq!(made.code, 0, "{made:?}");
        store
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, text).expect("the test's directory is writable");
        path
    }
}
