//! The commands that print and end. stdout is theirs.

pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod explain;
pub(crate) mod files;
pub(crate) mod flows;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod inject;
pub(crate) mod install;
pub(crate) mod learn;
pub(crate) mod report;
mod ask;

use std::io::Write;

use anyhow::Context;

use crate::cli::{Failure, Outcome};
use crate::stream::Patient;

/// Prints what a command has to say. A reader that has read enough is no error.
pub(crate) fn print(text: &str) -> Outcome {
    match Patient(std::io::stdout()).write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print").map_err(Failure::Environment)
        }
        _ => Ok(()),
    }
}

/// Prints one JSON value on a line.
fn print_json(value: &serde_json::Value) -> Outcome {
    print(&format!("{value}\n"))
}
