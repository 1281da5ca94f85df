//! The approved changes of a running watch: their file may come, change and go while it runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use egret_inotify_fim::expected::Expected;
use egret_inotify_fim::view::Difference;

use super::signature::{PublicKey, beside};
use super::trusted::{Refused, read_expected};

/// What is approved at the moment: nothing, where the file is missing or refused.
pub(crate) struct Approvals {
    file: PathBuf,
    key: PublicKey,
    /// Which file was read, and which signature.
    read: Option<[Which; 2]>,
    expected: Option<Expected>,
}

/// Tells one state of a file from another: device, inode, size, and when it last changed.
type Which = (u64, u64, u64, i64, i64);

impl Approvals {
    /// Nothing is read yet.
    pub(crate) fn new(file: PathBuf, key: PublicKey) -> Self {
        Self { file, key, read: None, expected: None }
    }

    /// Whether a change that is seen at this time (seconds since 1970) was approved.
    pub(crate) fn allow(&self, difference: &Difference, now: i64) -> bool {
        self.expected.as_ref().is_some_and(|expected| expected.allows(difference, now))
    }

    /// Reads the file if it is another than before, or its signature is; tells how many paths it has, or why it is refused.
    pub(crate) fn read_again(&mut self) -> Option<Result<usize, Refused>> {
        let which = self.which();
        if which == self.read {
            return None;
        }
        self.read = which;
        self.expected = None;
        if which.is_none() {
            return Some(Ok(0));
        }
        Some(read_expected(&self.file, Some(&self.key)).map(|expected| self.expected.insert(expected).entries.len()))
    }

    /// `None` if one of the two is missing.
    fn which(&self) -> Option<[Which; 2]> {
        let which = |path: &Path| {
            let file = fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
        };
        Some([which(&self.file)?, which(&beside(&self.file))?])
    }
}
