//! `egret files`: manifests at an image's build, and what has become of the files since.

mod baseline;
mod expect;
mod output;
mod status;
mod told;
mod trees;
mod verify;

use std::path::Path;

use egret_inotify_fim::view::View;

use crate::cli::files::FilesCommand;
use crate::cli::{Failure, Outcome};
use crate::files::signature::PublicKey;
use crate::files::trusted::Trusted;
use crate::replay::counted;

pub(crate) fn files(command: &FilesCommand) -> Outcome {
    match command {
        FilesCommand::Baseline(args) => baseline::baseline(args),
        FilesCommand::Verify(args) => verify::verify(args),
        FilesCommand::Diff(args) => verify::diff(args),
        FilesCommand::Expect(args) => expect::expect(args),
        FilesCommand::Status(args) => status::status(args),
    }
}

/// Reads a manifest, and what is expected to change, by the key if there is one.
fn load(manifest: &Path, key: Option<&str>, expected: Option<&Path>) -> Result<Trusted, Failure> {
    let key = key.map(PublicKey::find).transpose().map_err(Failure::Usage)?;
    Trusted::load(manifest, key.as_ref(), expected).map_err(|refused| Failure::Usage(refused.into()))
}

/// How much a manifest holds.
fn counts(view: &View) -> String {
    counted(view.entries.len() as u64, "path")
}
