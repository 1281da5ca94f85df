//! moto: S3 as AWS's clients know it, on loopback (`.ci/run` installs it by pip).

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;
use super::pki::Identity;

/// Python with moto and boto3.
pub(crate) fn python() -> PathBuf {
    const DIR: &str = "target/tools/moto";
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(DIR);
    assert!(
        installed.join("lib").is_dir() && installed.join("bin/moto_server").is_file(),
        "this test needs moto and boto3: python3 -m venv {DIR} && {DIR}/bin/pip install 'moto[s3]==5.2.5' flask==3.1.3 \
         flask-cors==6.0.5 boto3==1.44.5"
    );
    installed.join("bin/python3")
}

/// A server of buckets on 127.0.0.1 until dropped. What is in them is in its memory.
pub(crate) struct Moto {
    child: Child,
    home: TempDir,
}

impl Moto {
    /// In the clear, or over TLS.
    pub(crate) fn start(identity: Option<&Identity>) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let log = |name: &str| File::create(home.path().join(name)).expect("the test's directory is writable");
        let mut command = Command::new(python());
        // It takes a port from the kernel, and says which.
        command.args(["-m", "moto.server", "-H", &Ipv4Addr::LOCALHOST.to_string(), "-p", "0"]).current_dir(home.path());
        if let Some(identity) = identity {
            let (certificate, key) = identity.write_pem(home.path());
            command.arg("--ssl-cert").arg(certificate).arg("--ssl-key").arg(key);
        }
        let child = command.stdin(Stdio::null()).stdout(log("out")).stderr(log("log")).spawn().expect("python starts");
        Self { child, home }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Waits until it listens.
    pub(crate) fn port(&self) -> u16 {
        eventually("moto listens", || {
            let log = self.log();
            let (_, rest) = log.split_once("://127.0.0.1:")?;
            rest.lines().next()?.trim().parse().ok()
        })
    }

    /// How many requests it has answered; it logs each before it answers.
    pub(crate) fn answered(&self) -> usize {
        self.log().matches(" HTTP/1.1\"").count()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Either fails only if it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
