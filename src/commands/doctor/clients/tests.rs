//! What a client leaves behind.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::wait;

#[test]
fn what_a_late_client_has_started_ends_with_it() {
    let script = "(echo started; sleep 60; echo left) & wait";
    let mut child = Command::new("sh").args(["-c", script]).process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut started = [0; 8];
    output.read_exact(&mut started).unwrap();
    assert_eq!(wait(child, Duration::ZERO), None);
    // The end of the pipe comes once nobody has it open.
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
