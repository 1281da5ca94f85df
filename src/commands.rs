//! The commands that print and end. stdout is theirs.
#![allow(clippy::print_stdout, reason = "printing is what these commands are for")]

pub(crate) mod check;
pub(crate) mod env;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod report;
mod ask;

use std::time::{SystemTime, UNIX_EPOCH};

use egret_policy::UnixTime;

/// The time by which rules expire.
fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
