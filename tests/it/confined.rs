//! `egret run -- CMD` where the app is confined: it knows of no proxy, and each of its connections is judged, made and recorded
//! all the same; its names are egret's to answer. A tap on the only way out says what left, and nothing else may have.
//!
//! Apps write to stderr, as stdout is the journal's. What they find outside stands in `support/outside.rs`.

use std::ffi::OsStr;

use serde_json::Value;

use crate::support::egret::EgretBuilder;
use crate::support::programs::require;
use crate::support::{Egret, Outside, eventually};

mod connects; // literal addresses, errno by errno
mod names; // DNS: what is told, to whom, and what nobody is asked
mod resolvers; // those that the app could ask itself
mod shown; // several names of one address
mod near; // loopback, unix sockets, servers of the app, `direct:`
mod changes; // another policy, other executables, other users, the end of egret
mod loads; // large, many, short
mod learnt; // from what was seen to a policy
mod programs; // real ones, unmodified
mod grounds; // some of them wherever a container may put them
mod told; // names of programs and for DNS that mean to forge a line
mod status; // how far the app is held, said everywhere

/// What most apps here may do.
const POLICY: &str = "
egress:
  allow:
    - { id: good, to: good.test }
    - { id: other, to: other.test }
    - { id: web, to: 'good.test:80' }
    - { id: six, to: 'six.test:80' }
    - { id: db, to: 'db.test:5432' }
";

/// An app in its network.
struct Scene {
    outside: Outside,
    egret: Egret,
}

/// This policy, and this Python program as the app; a few functions are there for it.
fn start(policy: &str, python: &str) -> Option<Scene> {
    let outside = Outside::new()?;
    let egret = app(&outside, outside.egret(policy), &python_words(python)).start();
    Some(Scene { outside, egret })
}

/// The same to its end, which must be a good one.
fn run(policy: &str, python: &str) -> Option<Scene> {
    let scene = start(policy, python)?;
    scene.ended_well();
    Some(scene)
}

/// The records of so many connections in the order in which they began; the journal has them as they ended.
fn begun(egret: &Egret, count: usize) -> Vec<Value> {
    let mut records = egret.wait_records(count);
    records.sort_by_key(|record| record["id"].as_str().and_then(|id| id.rsplit('-').next()?.parse::<u64>().ok()));
    records
}

fn python_words(python: &str) -> [String; 3] {
    ["/usr/bin/python3".to_owned(), "-c".to_owned(), format!("{}\n{python}", include_str!("confined/prelude.py"))]
}

/// Confinement required, and these words as the app's, without any variable of a proxy.
fn app<W: AsRef<OsStr>>(outside: &Outside, egret: EgretBuilder, words: &[W]) -> EgretBuilder {
    app_of(outside, egret.arg("--confine").arg("require"), words)
}

fn app_of<W: AsRef<OsStr>>(outside: &Outside, egret: EgretBuilder, words: &[W]) -> EgretBuilder {
    let home = outside.home().display();
    let authority = format!("{home}/ca.pem");
    let path = format!("PATH={}:/usr/sbin:/sbin", std::env::var("PATH").expect("a PATH"));
    let egret = egret.arg("--").arg(require("env")).arg("-i").arg(path).arg(format!("HOME={home}"));
    let trusted = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"];
    let egret = trusted.iter().fold(egret, |egret, name| egret.arg(format!("{name}={authority}")));
    words.iter().fold(egret, EgretBuilder::arg)
}

impl Scene {
    #[track_caller]
    fn ended_well(&self) -> &Self {
        assert_eq!(self.egret.wait_exit().code(), Some(0), "{}", self.egret.stderr());
        self
    }

    /// The app writes this line; waited for.
    fn said(&self, line: &str) -> &Self {
        eventually(&format!("the app says {line}"), || self.egret.stderr().lines().any(|said| said == line).then_some(()));
        self
    }

    /// The one record of a connection to this address that was asked for by the app, or to this name.
    #[track_caller]
    fn record(&self, host: &str, port: u16) -> Value {
        self.egret.record(|record| record["host"] == host && record["port"] == port);
        let records = self.egret.records();
        let mut matching = records.iter().filter(|record| record["host"] == host && record["port"] == port);
        let (record, others) = (matching.next().cloned(), matching.count());
        assert_eq!(others, 0, "more than one record of {host}:{port}: {records:#?}");
        record.expect("it was waited for")
    }

    /// The one refusal of a connection to this address or name.
    #[track_caller]
    fn refused(&self, host: &str, port: u16, reason: &str) -> Value {
        let record = self.record(host, port);
        let told = ["decision", "reason", "via", "close"].map(|field| record[field].as_str().unwrap_or("-"));
        assert_eq!(told, ["deny", reason, "confined", "denied"], "{record:#}");
        record
    }
}
