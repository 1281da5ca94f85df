//! Which trees a command looks at: as somebody named them, or as a manifest has them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow};
use egret_inotify_fim::roots::{How, Roots};
use egret_inotify_fim::view::View;

use crate::files::ignore::Ignored;
use globset::GlobSet;

/// The trees at these paths.
pub(super) fn named(paths: &[PathBuf], ignore: &[String], largest: u64) -> anyhow::Result<Roots> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| in_shortest_form(path)).collect::<Result<_, _>>()?;
    of(paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(), ignore, largest)
}

/// The topmost paths of a manifest.
pub(super) fn of_manifest(view: &View, ignore: &[String], largest: u64) -> anyhow::Result<Roots> {
    let mut above = (Vec::new(), false);
    let topmost = view.entries.keys().filter(|path| {
        let parent =
            Path::new(std::ffi::OsStr::from_bytes(path)).parent().map_or(&[][..], |parent| parent.as_os_str().as_bytes());
        // Most stand where the one before stands.
        if above.0 != parent {
            above = (parent.to_vec(), view.entries.contains_key(parent));
        }
        !above.1
    });
    of(topmost.map(|path| path.to_vec()).collect(), ignore, largest)
}

fn of(paths: Vec<Vec<u8>>, ignore: &[String], largest: u64) -> anyhow::Result<Roots> {
    let (exclude, folders) = ignored(&paths, ignore)?;
    let how = How { exclude, folders, largest, ..How::default() };
    Ok(Roots::new(paths.into_iter().map(|path| (path, how.clone()))))
}

/// Absolute; only where it goes up again are links in it followed, as the way up depends on them.
fn in_shortest_form(path: &Path) -> anyhow::Result<PathBuf> {
    let found = if path.components().any(|part| part == Component::ParentDir) {
        path.canonicalize()
    } else {
        std::path::absolute(path).map(|path| path.components().collect())
    };
    found.with_context(|| format!("no path {}", path.display()))
}

/// The patterns for each of these trees.
fn ignored(trees: &[Vec<u8>], patterns: &[String]) -> anyhow::Result<(GlobSet, GlobSet)> {
    let mut ignored = Ignored::new();
    for pattern in patterns {
        for tree in trees {
            let not_text = || anyhow!("{pattern:?} cannot be below a path that is not UTF-8: begin it with /");
            let tree = if pattern.starts_with('/') { "/" } else { str::from_utf8(tree).map_err(|_| not_text())? };
            ignored.add(pattern, tree).map_err(|error| anyhow!("{pattern:?} is no pattern of paths: {}", error.kind()))?;
        }
    }
    Ok(ignored.build()?)
}
