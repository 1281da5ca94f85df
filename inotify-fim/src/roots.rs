//! Which trees are looked at, and how. Pure.

mod differences;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use globset::GlobSet;

#[cfg(doc)]
use crate::fingerprint::HashState;
use crate::fingerprint::Kind;
use crate::view::below;

/// Bits of the mode of what somebody can run: with its owner's or group's rights, or at all.
const RUNS: u16 = 0o6111;

/// How one tree is looked at.
#[derive(Clone, Debug)]
pub struct How {
    /// What of its files counts.
    pub content: Content,
    /// Absolute paths of what is left out, but for directories. A file is still looked at if it can be executed by anybody.
    /// One that came and went before that is only counted, unless it was seen to be executable.
    pub exclude: GlobSet,
    /// Absolute paths of directories that are left out: they are themselves looked at, and not entered. What they hold is
    /// neither read nor watched.
    pub folders: GlobSet,
    /// Go on into other file systems that are mounted below the root. What the kernel makes up (proc, sysfs, cgroup and
    /// the like) is never entered.
    pub cross: bool,
    /// Octets up to which a file is hashed.
    pub largest: u64,
    /// Hash what a symbolic link leads to even outside the root. What it leads to inside is always hashed, but for what
    /// is left out there or is looked at in another way than [`Content::Whole`].
    pub follow: bool,
    /// Trees with a higher number are watched before others, for when there are fewer watches than directories.
    pub priority: u8,
    /// Files that are met for the first time are read once nothing else is to be done, and no comparison waits for that. A
    /// watch does so; a scan alone leaves them [`HashState::NotRead`].
    pub later: bool,
}

/// All of every file, in other file systems too, nothing excluded, files up to 1 GiB, no link followed out of the tree.
impl Default for How {
    fn default() -> Self {
        Self {
            content: Content::Whole,
            exclude: GlobSet::empty(),
            folders: GlobSet::empty(),
            cross: true,
            largest: 1 << 30,
            follow: false,
            priority: 0,
            later: false,
        }
    }
}

impl How {
    /// Whether an entry is no part of a view, though it is there: what is excluded, and of [`Content::Executables`] what
    /// nobody can execute. A name alone must not hide what can be run.
    pub(crate) fn leaves_out(&self, excluded: bool, kind: Kind, mode: u16) -> bool {
        (excluded || self.content == Content::Executables)
            && match kind {
                Kind::Directory => false,
                Kind::File => mode & RUNS == 0,
                _ => true,
            }
    }

    /// Whether what stands at an absolute path is left out, if it is no directory.
    pub(crate) fn excludes(&self, path: &[u8]) -> bool {
        self.exclude.is_match(Path::new(OsStr::from_bytes(path)))
    }

    /// Whether the directory at an absolute path is left out.
    pub(crate) fn excludes_folder(&self, path: &[u8]) -> bool {
        self.folders.is_match(Path::new(OsStr::from_bytes(path)))
    }
}

/// What of a file counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    #[default]
    Whole,
    /// What was there must stay; more may be added at the end, as to a log. A file that was renamed is followed, and is held
    /// to its own past.
    Append,
    /// Not its content, size and time: they may change at will, are not read, and are zero in every view.
    Attributes,
    /// Files that nobody can execute are left out, for places where an app writes what it likes, and so is all that is
    /// neither a file nor a directory. A file is made, to whoever looks, when it becomes executable.
    Executables,
}

/// Trees by their path. A tree inside another is looked at in its own way, and is no part of the other.
#[derive(Clone, Debug, Default)]
pub struct Roots(BTreeMap<Vec<u8>, Arc<How>>);

impl Roots {
    /// Each tree once, by its absolute path in its shortest form, as a manifest wants it: a directory or a single file.
    /// Of two with one path the later is taken.
    #[must_use]
    pub fn new(trees: impl IntoIterator<Item = (Vec<u8>, How)>) -> Self {
        Self(trees.into_iter().map(|(path, how)| (path, Arc::new(how))).collect())
    }

    /// All, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<How>)> {
        self.0.iter().map(|(path, how)| (path.as_slice(), how))
    }

    /// The tree that a path belongs to: of those around it the innermost.
    #[must_use]
    pub fn of(&self, path: &[u8]) -> Option<(&[u8], &Arc<How>)> {
        ancestors(path).find_map(|at| self.0.get_key_value(at)).map(|(path, how)| (path.as_slice(), how))
    }

    /// Whether a tree begins here.
    #[must_use]
    pub fn begins_at(&self, path: &[u8]) -> bool {
        self.0.contains_key(path)
    }

    /// Whether a scan would have this in its view. Outside all trees everything counts.
    pub(crate) fn counts(&self, path: &[u8], kind: Kind, mode: u16) -> bool {
        self.of(path).is_none_or(|(_, how)| !how.leaves_out(how.excludes(path), kind, mode) && self.reaches(path))
    }

    /// Whether a path is in a tree, and in no excluded directory of it.
    pub(crate) fn reaches(&self, path: &[u8]) -> bool {
        let Some((root, how)) = self.of(path) else { return false };
        how.folders.is_empty()
            || !ancestors(path).skip(1).take_while(|above| above.len() >= root.len()).any(|at| how.excludes_folder(at))
    }

    /// The trees that lie below this path.
    pub(crate) fn inside<'a>(&'a self, path: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let below = below(path);
        let from = self.0.range(below.clone()..).map(|(path, _)| path.as_slice());
        from.take_while(move |path| path.starts_with(&below)).filter(|path| *path != b"/")
    }
}

/// Trees that are looked at as a whole.
impl FromIterator<Vec<u8>> for Roots {
    fn from_iter<I: IntoIterator<Item = Vec<u8>>>(paths: I) -> Self {
        Self::new(paths.into_iter().map(|path| (path, How::default())))
    }
}

/// A path and all that it is below, up to `/`.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |path| {
        let slash = path.iter().rposition(|byte| *byte == b'/')?;
        match slash {
            0 if path.len() > 1 => Some(&path[..1]),
            0 => None,
            _ => Some(&path[..slash]),
        }
    })
}

#[cfg(test)]
mod tests;
