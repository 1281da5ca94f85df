//! `egret health`: the probe for images without a shell.

use anyhow::anyhow;

use super::ask::ask;
use crate::cli::{Failure, HealthArgs, Outcome};
use crate::stderr;

/// Exit 0 if egret is ready; 1 if it drains, is not there, or does not answer.
pub(crate) fn health(args: &HealthArgs) -> Outcome {
    let ready = ask(args.admin, "/readyz").and_then(|answer| match answer.status.as_u16() {
        200 => Ok(()),
        503 => Err(anyhow!("{}", String::from_utf8_lossy(&answer.body).trim_end())),
        other => Err(anyhow!("it answered {other}")),
    });
    ready.map_err(|error| {
        stderr::say(format_args!("not ready at {}: {error:#}", args.admin));
        Failure::Negative
    })
}
