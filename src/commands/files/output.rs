//! Where a manifest goes: whole or not at all, with its signature beside it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::cli::files::Destination;
use crate::cli::{Failure, Outcome};
use crate::commands::print;
use crate::files::signature::{Signer, beside};
use crate::stderr;

/// Where a text is to go.
pub(super) struct Output {
    /// `None` is stdout.
    file: Option<PathBuf>,
    signer: Option<Signer>,
}

impl Output {
    /// Reads the key, so that a wrong password is told before any work.
    pub(super) fn new(to: &Destination) -> Result<Self, Failure> {
        let file = Some(to.output.clone()).filter(|file| file.as_os_str() != "-");
        if to.sign.is_some() && file.is_none() {
            return Err(Failure::Usage(anyhow!("a signature stands beside a file: name one with -o FILE")));
        }
        let signer = to.sign.as_deref().map(Signer::read).transpose().map_err(Failure::Usage)?;
        Ok(Self { file, signer })
    }

    /// What is written, as paths in a manifest are.
    pub(super) fn own(&self) -> Vec<Vec<u8>> {
        self.file.iter().flat_map(|file| own(file)).collect()
    }

    /// Writes, and says so on stderr.
    pub(super) fn write(&self, text: &str, what: &str) -> Outcome {
        let Some(file) = &self.file else { return print(text) };
        self.to_file(file, text).map_err(Failure::Environment)?;
        let signed = if self.signer.is_some() { ", signed" } else { "" };
        stderr::say(format_args!("{}: {what}{signed}", file.display()));
        Ok(())
    }

    fn to_file(&self, file: &Path, text: &str) -> anyhow::Result<()> {
        // The signature first: until the text follows it, what stands there is refused.
        if let Some(signer) = &self.signer {
            let comment = format!("file:{}", file.file_name().unwrap_or_default().to_string_lossy().escape_default());
            let signature = signer.sign(text, &comment).context("cannot sign")?;
            replace(&beside(file), &signature)?;
        }
        replace(file, text)
    }
}

/// A file and its signature, by their absolute paths, through links and as they were given.
pub(super) fn own(file: &Path) -> Vec<Vec<u8>> {
    let absolute = std::path::absolute(file).ok();
    let resolved = absolute.as_deref().and_then(|path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)));
    let both = absolute.into_iter().chain(resolved);
    both.flat_map(|path| [beside(&path), path]).map(|path| path.as_os_str().as_bytes().to_vec()).collect()
}

/// Puts a file of this text in the place of what is there, which stays as it is if that fails.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let name = file.file_name().ok_or_else(|| anyhow!("{} is no name of a file", file.display()))?;
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = file.with_file_name(unfinished);
    let written = write_new(&unfinished, text).and_then(|()| fs::rename(&unfinished, file));
    if written.is_err() {
        // What could not be made need not be taken away.
        let _ = fs::remove_file(&unfinished);
    }
    written.with_context(|| format!("cannot write {}", file.display()))
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
