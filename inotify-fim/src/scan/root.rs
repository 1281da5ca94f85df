//! A root as it is looked at: its directory, held open, and which file systems are gone into from there.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::Uncovered;
use crate::beneath;
use crate::fingerprint::{self, Device};
use crate::roots::How;

/// File systems without files: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, mqueue, pstore,
/// configfs, efivarfs, fusectl, binfmt_misc, selinuxfs (statfs(2), linux/magic.h).
const KERNEL: [u64; 16] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1980_0202,
    0x6165_676c,
    0x6265_6570,
    0xde5e_81e4,
    0x6573_5543,
    0x4249_4e4d,
    0xf97c_ff8c,
];

/// A root and the file system that it is on.
pub(super) struct Root {
    pub(super) path: Vec<u8>,
    pub(super) how: Arc<How>,
    /// Its directory; an error of which NOTDIR may mean that it is one file.
    pub(super) top: Result<OwnedFd, Errno>,
    device: Option<Device>,
    /// That file system holds files, and not the kernel's own state.
    is_files: bool,
}

impl Root {
    pub(super) fn new(path: Vec<u8>, how: Arc<How>) -> Self {
        let top = beneath::open(&path, &path);
        let device = top.as_ref().ok().and_then(device_of);
        let is_files = top.as_ref().is_ok_and(|top| matches!(is_kernel(top), Ok(false)));
        Self { path, how, top, device, is_files }
    }

    /// Why a directory is not gone into. What is on the root's own file system need not be asked for its type again.
    pub(super) fn bars(&self, directory: &OwnedFd, stat: &Statx) -> Result<Option<Uncovered>, Errno> {
        if self.is_files && self.device == Some(device(stat)) {
            return Ok(None);
        }
        barred(directory, self.device, self.how.cross)
    }

    /// A directory below it, or its own.
    pub(super) fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let top = self.top.as_ref().map_err(|error| *error)?;
        beneath::open_in(top, &path[self.path.len()..])
    }
}

/// Why a directory that is open is not gone into.
pub(crate) fn barred(directory: &OwnedFd, root: Option<Device>, cross: bool) -> Result<Option<Uncovered>, Errno> {
    if device_of(directory) != root && !cross {
        return Ok(Some(Uncovered::OtherFileSystem));
    }
    Ok(is_kernel(directory)?.then_some(Uncovered::Kernel))
}

/// Whether a file is none but the kernel's own state.
pub(super) fn is_kernel(file: &OwnedFd) -> Result<bool, Errno> {
    // Its width and sign differ between machines; the numbers all fit in 32 bits.
    let kind = rustix::fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff;
    Ok(KERNEL.contains(&kind))
}

/// The device of the file system that a directory is on.
pub(crate) fn device_of(directory: &OwnedFd) -> Option<Device> {
    fingerprint::stat(directory.as_fd()).ok().as_ref().map(device)
}

fn device(stat: &Statx) -> Device {
    Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }
}
