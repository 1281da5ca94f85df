//! The one door by which manifests come in: read once, within a limit, and parsed from the very octets whose signature was
//! checked. What is refused here is refused; nothing is learned in its place.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use egret_inotify_fim::expected::Expected;
use egret_inotify_fim::manifest;
use egret_inotify_fim::view::View;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use super::signature::PublicKey;

/// Octets that a manifest may have: a million entries with long names. It takes three times as much memory.
pub(crate) const LONGEST: u64 = 256 * 1024 * 1024;

/// A manifest that may be believed, as far as whoever put it there may be.
#[derive(Clone, Debug)]
pub(crate) struct Trusted {
    /// What it says.
    pub(crate) view: View,
    /// The SHA-256 of its text, in hexadecimal: which manifest it is.
    pub(crate) id: String,
    /// Whether a signature was asked for, and held.
    pub(crate) signed: bool,
    /// The changes to it that somebody approved.
    pub(crate) expected: Option<Expected>,
}

impl Trusted {
    /// Reads a manifest, and what is expected to change. With a key both must be signed with it.
    ///
    /// # Errors
    /// [`Refused`]: what, why, and what to do.
    pub(crate) fn load(manifest: &Path, key: Option<&PublicKey>, expected: Option<&Path>) -> Result<Self, Refused> {
        let text = vouched_for(manifest, key)?;
        let view = manifest::read(&text).map_err(|why| {
            let help = "make it again with `egret files baseline`, and keep the text as it is";
            Refused { file: manifest.to_owned(), why: anyhow!("{why}\n{help}") }
        })?;
        if view.entries.is_empty() {
            let why = anyhow!("it names no file, so everything would be as it says");
            return Err(Refused { file: manifest.to_owned(), why });
        }
        let expected = expected.map(|file| read_expected(file, key)).transpose()?;
        Ok(Self { view, id: id(&text), signed: key.is_some(), expected })
    }

    /// What it says, which is not kept twice.
    pub(crate) fn take_view(&mut self) -> View {
        std::mem::take(&mut self.view)
    }
}

/// Reads what is expected to change; with a key it must be signed with it.
///
/// # Errors
/// [`Refused`]: what, why, and what to do.
pub(crate) fn read_expected(file: &Path, key: Option<&PublicKey>) -> Result<Expected, Refused> {
    let text = vouched_for(file, key)?;
    Expected::read(&text).map_err(|why| {
        let help = "make it again with `egret files expect`, and keep the text as it is";
        Refused { file: file.to_owned(), why: anyhow!("{why}\n{help}") }
    })
}

/// The text of a file, whose signature holds.
fn vouched_for(file: &Path, key: Option<&PublicKey>) -> Result<Vec<u8>, Refused> {
    let refused = |why| Refused { file: file.to_owned(), why };
    let text = read_bounded(file, LONGEST).map_err(refused)?;
    key.map_or(Ok(()), |key| key.verify(file, &text)).map_err(refused)?;
    Ok(text)
}

/// A file that is not believed.
#[derive(Debug)]
pub(crate) struct Refused {
    file: PathBuf,
    why: anyhow::Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused: {:#}", self.file.display(), self.why)
    }
}

impl Error for Refused {}

/// The whole of a regular file that is not longer than `limit` octets. It waits for nobody: a pipe is none.
pub(super) fn read_bounded(file: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let named = |error: io::Error| anyhow!("cannot read {}: {error}", file.display());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = File::from(rustix::fs::open(file, flags, Mode::empty()).map_err(|error| named(error.into()))?);
    if !opened.metadata().map_err(named)?.is_file() {
        return Err(named(io::Error::other("not a regular file")));
    }
    let mut content = Vec::new();
    opened.take(limit + 1).read_to_end(&mut content).map_err(named)?;
    if content.len() as u64 > limit {
        return Err(named(io::Error::other(format!("longer than {limit} octets"))));
    }
    Ok(content)
}

fn id(text: &[u8]) -> String {
    egret_inotify_fim::escape::hex(&Sha256::digest(text))
}
