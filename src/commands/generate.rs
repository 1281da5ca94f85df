//! What is generated from the program itself: the schema of the policy file, completions, manual pages.

use std::path::Path;

use anyhow::Context;
use clap_complete::Shell;

use super::print;
use crate::cli::{Failure, Outcome};

/// The JSON Schema of the policy file, as it is shipped for editors.
pub(crate) const SCHEMA: &str = include_str!("../../docs/policy.schema.json");

pub(crate) fn schema() -> Outcome {
    print(SCHEMA)
}

pub(crate) fn completions(mut command: clap::Command, shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "egret", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// egret(1) on stdout, or a page for each command in a folder.
pub(crate) fn man(command: clap::Command, folder: Option<&Path>) -> Outcome {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).context("cannot render").map_err(Failure::Environment)?;
        return print(&String::from_utf8_lossy(&page));
    };
    let written = clap_mangen::generate_to(command, folder);
    written.with_context(|| format!("cannot write manual pages into {}", folder.display())).map_err(Failure::Environment)
}
