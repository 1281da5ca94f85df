//! Where the journal's file stands. Whoever may write into its directory can rename it, remove it, or put another in its place, and
//! a descriptor that is open tells nothing of that (unlink(2), rename(2)): so the place is looked at too.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::process::geteuid;

use crate::stream::Patient;

/// What lines are written to.
pub(super) trait Sink: Write {
    /// Whether it has a place that is to be looked at from time to time.
    fn has_place(&self) -> bool {
        false
    }

    /// What became of its place since the last look. If another file can be written to there, that is done from now on.
    fn look(&mut self) -> Found {
        Found::Kept
    }
}

/// What became of the place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The file stands where it stood.
    Kept,
    /// It was renamed and is whole, and an empty one stands in its place, or nothing did: as logs are rotated.
    Rotated,
    /// Another file stands there, or none can.
    Lost {
        /// For people.
        why: String,
        /// Whether what was written last is gone with the file.
        is_removed: bool,
        /// Whether what comes is written to what stands there now.
        goes_on: bool,
    },
}

/// The journal's file, or whatever else the operator named.
pub(super) struct Target {
    file: Patient<OwnedFd>,
    place: Option<Place>,
}

/// A name in a directory. The directory is kept open, so that no other one is ever written to.
struct Place {
    path: PathBuf,
    directory: File,
    name: OsString,
}

impl Target {
    /// What is written to whatever becomes of its name.
    pub(super) fn open(file: OwnedFd) -> Self {
        Self { file: Patient(file), place: None }
    }

    /// What the operator named; only a regular file has a place.
    pub(super) fn at(path: &str) -> io::Result<Self> {
        let file: OwnedFd = fs::OpenOptions::new().create(true).append(true).open(path)?.into();
        // stdout by another name may be a file that was removed, or is in a directory that cannot be entered: it is shared anyway.
        let place = if is_file(&fstat(&file)?) { Place::of(Path::new(path)).ok() } else { None };
        Ok(Self { file: Patient(file), place })
    }
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let nowhere = || io::Error::from(io::ErrorKind::InvalidInput);
        let real = fs::canonicalize(path)?;
        let name = real.file_name().ok_or_else(nowhere)?.to_owned();
        let directory = File::open(real.parent().ok_or_else(nowhere)?)?;
        Ok(Self { path: path.to_owned(), directory, name })
    }

    /// Whether this file is what the path leads to, and stands under the name itself.
    fn holds(&self, file: &Stat) -> bool {
        let named = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let led_to = fs::metadata(&self.path).ok().map(|end| (end.dev(), end.ino()));
        named.is_some_and(|named| (named.st_dev, named.st_ino) == (file.st_dev, file.st_ino))
            && led_to == Some((file.st_dev, file.st_ino))
    }

    /// Another file to write to in place of the `old` one. No link is followed, and nothing that has a second name is taken:
    /// whoever may write into the directory shall not choose what egret writes to.
    fn renew(&self, old: &Stat) -> io::Result<(OwnedFd, Stat)> {
        let how = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        // A pipe must not be waited for.
        let safely = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = openat(&self.directory, &self.name, how | safely, Mode::from_raw_mode(old.st_mode & 0o666))?;
        let new = fstat(&file)?;
        if !is_file(&new) || new.st_nlink != 1 || !self.holds(&new) {
            return Err(io::Error::other("what stands there is no file of its own"));
        }
        Ok((file, new))
    }

    fn why(&self, old: &Stat, renewed: &io::Result<(OwnedFd, Stat)>) -> String {
        let what = if old.st_nlink == 0 { "was removed" } else { "has another file in its place" };
        let then = renewed.as_ref().err().map(|error| format!(", and none can be written to there: {error}"));
        format!("the journal {} {what}{}", self.path.display(), then.unwrap_or_default())
    }
}

fn is_file(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
}

/// Whether one took the place of the other as a rotation does it: the old one is still somewhere, and the new one begins anew.
fn is_rotation(old: &Stat, new: &Stat) -> bool {
    let is_owned = new.st_uid == old.st_uid || new.st_uid == geteuid().as_raw();
    old.st_nlink > 0 && new.st_size == 0 && is_owned
}

impl Write for Target {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.file.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for Target {
    fn has_place(&self) -> bool {
        self.place.is_some()
    }

    fn look(&mut self) -> Found {
        let (Some(place), Ok(old)) = (&self.place, fstat(&self.file.0)) else { return Found::Kept };
        if place.holds(&old) {
            return Found::Kept;
        }
        let renewed = place.renew(&old);
        let why = place.why(&old, &renewed);
        let goes_on = renewed.is_ok();
        let is_rotated = renewed.as_ref().is_ok_and(|(_, new)| is_rotation(&old, new));
        if let Ok((file, _)) = renewed {
            self.file = Patient(file);
        }
        if is_rotated { Found::Rotated } else { Found::Lost { why, is_removed: old.st_nlink == 0, goes_on } }
    }
}
