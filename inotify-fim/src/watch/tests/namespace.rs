//! Tests that need mounts or limits of their own run themselves again in a user and mount namespace.

use std::env;
use std::process::Command;

const INSIDE: &str = "EGRET_TEST_NAMESPACE";

/// Set where namespaces must be had: their refusal is a failure.
const ALL: &str = "EGRET_TEST_ALL";

/// A user and mount namespace of its own.
pub(super) const UNSHARE: [&str; 5] = ["--user", "--map-root-user", "--mount", "--propagation", "private"];

/// Whether the kernel gives this user a namespace. That nothing else fails is for the tests.
pub(super) fn has_namespaces() -> bool {
    Command::new("unshare").args(UNSHARE).arg("true").status().is_ok_and(|status| status.success())
}

/// Says loudly what is not tested for want of a namespace.
pub(super) fn not_tested(test: &str) {
    assert!(env::var_os(ALL).is_none_or(|value| value != "1"), "{test} needs a user namespace, and {ALL} is set");
    eprintln!("NOT TESTED: {test}: no user namespace");
}

/// Whether this is the namespace. If not, runs the test of this name in one, after `script` as its root, and says loudly if
/// that cannot be done. In the script `$0` is the program.
pub(super) fn is_inside(module: &str, test: &str, script: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    if !has_namespaces() {
        not_tested(test);
        return false;
    }
    let (_, module) = module.split_once("::").unwrap();
    let script = format!("{script} || exit 9; exec \"$0\" --exact \"$1\" --nocapture");
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(["sh", "-c", &script]);
    command.arg(env::current_exe().unwrap()).arg(format!("{module}::{test}")).env(INSIDE, "1");
    match command.output() {
        Ok(output) if output.status.success() => {
            let text = [output.stdout.clone(), output.stderr.clone()].map(|text| String::from_utf8_lossy(&text).into_owned());
            assert!(text[0].contains("1 passed"), "{output:?}");
            text.iter()
                .flat_map(|text| text.lines())
                .filter(|line| line.contains("NOT TESTED"))
                .for_each(|line| eprintln!("{line}"));
        }
        Ok(output) => panic!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{test}: {error}"),
    }
    false
}

/// Runs a command of util-linux; whether it could be done.
pub(super) fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> bool {
    let output = Command::new(program).args(arguments).output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("NOT TESTED: {program} {arguments:?}: {output:?}");
    }
    done
}
