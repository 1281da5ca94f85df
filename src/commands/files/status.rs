//! `egret files status`: what a running egret watches.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::files::StatusArgs;
use crate::cli::{Failure, Outcome, Output};
use crate::commands::ask::ask;
use crate::commands::{print, print_json};
use crate::files::status;

/// Prints it; exit 1 if it watches nothing.
pub(super) fn status(args: &StatusArgs) -> Outcome {
    let asked = || {
        let body = ask(args.admin, "/status")?.ok_body()?;
        let status: Value = serde_json::from_slice(&body).context("its status cannot be read")?;
        if status["files"].is_null() {
            bail!("it watches no files: its policy has no `files:`")
        } else {
            Ok(status["files"].clone())
        }
    };
    let files = asked().with_context(|| format!("no report from an egret at {}", args.admin)).map_err(Failure::Environment)?;
    match args.output {
        Output::Text => print(&status::text(&files)),
        Output::Json => print_json(&files),
    }
}
