//! Whether the app could change what a path leads to: what egret itself may write, it may write too, as it begins with the same
//! user and no more rights.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

/// How many links one after the other are followed by the kernel (`MAXSYMLINKS` of linux/namei.h).
const MOST_LINKS: usize = 40;
/// Only owners may rename or remove what is in a folder (S_ISVTX of inode(7)).
const STICKY: u32 = 0o1000;

/// Whether the file, a link on the way to it, or a folder above any of them can be changed. What can't be looked at can.
pub(crate) fn can_change(path: &Path) -> bool {
    changes(path, &may_write)
}

/// Whether it can be written, if need be after its owner has changed its mode. What is mounted to be read only can't be, by root
/// either.
fn may_write(path: &Path) -> bool {
    match access(path, Access::WRITE_OK) {
        Ok(()) => true,
        Err(Errno::ROFS) => false,
        Err(_) => fs::metadata(path).map_or(true, |found| found.uid() == rustix::process::geteuid().as_raw()),
    }
}

fn changes(path: &Path, can_write: &impl Fn(&Path) -> bool) -> bool {
    let Ok(mut way) = std::path::absolute(path) else { return true };
    for _ in 0..=MOST_LINKS {
        if replaces(&way, can_write) {
            return true;
        }
        let Some(next) = past_first_link(&way) else { return !way.exists() || can_write(&way) };
        way = next;
    }
    true
}

/// The same way with the first link on it replaced by what that leads to; none if there is no link.
fn past_first_link(way: &Path) -> Option<PathBuf> {
    let mut entries: Vec<&Path> = way.ancestors().collect();
    entries.reverse();
    let (link, to) = entries.into_iter().find_map(|entry| Some((entry, fs::read_link(entry).ok()?)))?;
    let rest = way.strip_prefix(link).ok()?;
    Some(link.parent()?.join(to).components().chain(rest.components()).collect())
}

/// Whether something else can be put in the place of it, or of a folder above it.
fn replaces(path: &Path, can_write: &impl Fn(&Path) -> bool) -> bool {
    path.ancestors().zip(path.ancestors().skip(1)).any(|(entry, folder)| can_write(folder) && !keeps(folder, entry))
}

/// Whether a folder that everybody may write keeps this entry from being replaced.
fn keeps(folder: &Path, entry: &Path) -> bool {
    let own = rustix::process::geteuid();
    let is_other = |owner: u32| !own.is_root() && owner != own.as_raw();
    let (Ok(folder), Ok(entry)) = (fs::metadata(folder), fs::symlink_metadata(entry)) else { return false };
    folder.mode() & STICKY != 0 && is_other(folder.uid()) && is_other(entry.uid())
}

#[cfg(test)]
mod tests;
