//! Processes as `/proc` shows them: who holds a socket, and what it runs.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{Owner, Unknown};

/// What the kernel adds to the name of an executable that is no longer there.
const DELETED: &[u8] = b" (deleted)";

/// "No such process" (errno(3)), for which std has no name.
const ESRCH: i32 = 3;

/// The one executable whose processes hold any of these sockets.
pub(crate) fn holder_in(proc: &Path, inodes: &[u64]) -> Result<Owner, Unknown> {
    let sockets: Vec<PathBuf> = inodes.iter().map(|inode| format!("socket:[{inode}]").into()).collect();
    let user_namespace = user_namespace(&proc.join("self"));
    let mut owner: Option<Owner> = None;
    for pid in pids(proc)? {
        let process = proc.join(pid.to_string());
        let Some(exe) = exe_of_holder(&process, &sockets, user_namespace.as_deref())? else { continue };
        match &owner {
            None => owner = Some(Owner { pid, exe }),
            Some(first) if first.exe == exe => {}
            Some(first) => return Err(Unknown::Several(first.exe.clone(), exe)),
        }
    }
    owner.ok_or(Unknown::NotVisible)
}

/// Whether any process but this one shows its descriptors and executable.
pub(crate) fn others_visible_in(proc: &Path) -> bool {
    let this = fs::read_link(proc.join("self")).ok();
    let others = pids(proc).unwrap_or_default().into_iter().map(|pid| PathBuf::from(pid.to_string()));
    others.filter(|pid| this.as_ref() != Some(pid)).map(|pid| proc.join(pid)).any(|process| {
        // The kernel lists the descriptors of some processes whose links it refuses; this link is guarded as theirs are.
        fs::read_link(process.join("exe")).is_ok() && fs::read_dir(process.join("fd")).is_ok()
    })
}

/// Every process, in order.
pub(crate) fn pids(proc: &Path) -> Result<Vec<u32>, Unknown> {
    let names =
        fs::read_dir(proc).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>());
    let names = names.map_err(|e| Unknown::procfs(proc, &e))?;
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// What this process runs, if it holds one of the sockets.
fn exe_of_holder(process: &Path, sockets: &[PathBuf], user_namespace_here: Option<&Path>) -> Result<Option<PathBuf>, Unknown> {
    let Some(descriptor) = descriptor_of(&process.join("fd"), sockets)? else { return Ok(None) };
    let exe = fs::read_link(process.join("exe"));
    // After the executable: nobody gets out of a user namespace again.
    let user_namespace = user_namespace(process);
    // Asked once more, and last: the process may have ended and its number gone to another.
    if !is_one_of(sockets, &descriptor) {
        return Ok(None);
    }
    let exe = exe.map_err(|_| Unknown::NotVisible)?;
    if user_namespace.as_deref() != user_namespace_here {
        return Err(Unknown::UserNamespace);
    }
    match exe.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(path) => Err(Unknown::Deleted(OsStr::from_bytes(path).into())),
        None => Ok(Some(exe)),
    }
}

/// The descriptor in this folder that is one of the sockets.
fn descriptor_of(folder: &Path, sockets: &[PathBuf]) -> Result<Option<PathBuf>, Unknown> {
    let Some(entries) = seen(folder, fs::read_dir(folder))? else { return Ok(None) };
    for entry in entries {
        let Some(entry) = seen(folder, entry)? else { return Ok(None) };
        let path = entry.path();
        if is_one_of(sockets, &path) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// An unreadable link is none: closed meanwhile, refused, or a file whose path is too long.
fn is_one_of(sockets: &[PathBuf], descriptor: &Path) -> bool {
    fs::read_link(descriptor).is_ok_and(|target| sockets.contains(&target))
}

/// `None` if the process is gone or not ours to look at. Any other error, such as no descriptor left for the look itself,
/// must not pass for a process that holds nothing.
fn seen<T>(path: &Path, looked: io::Result<T>) -> Result<Option<T>, Unknown> {
    match looked {
        Ok(it) => Ok(Some(it)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(e) if e.raw_os_error() == Some(ESRCH) => Ok(None),
        Err(e) => Err(Unknown::procfs(path, &e)),
    }
}

/// `None` on a kernel without user namespaces, or if it cannot be read (user_namespaces(7)).
fn user_namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/user")).ok()
}

#[cfg(test)]
mod tests;
