//! egret: an egress gateway for containers that have no host.

use std::process::ExitCode;

fn main() -> ExitCode {
    egret::cli::main()
}
