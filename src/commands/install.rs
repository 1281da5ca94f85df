//! `egret install`: copies this very program into a folder, for containers that are to be started by it. An image without a
//! shell has no other way to bring it there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;

use crate::cli::{Failure, InstallArgs, Outcome};

const NAME: &str = "egret";

/// Writes beside and renames: whoever starts it meanwhile starts the old one or the new one, never half of one.
pub(crate) fn install(args: &InstallArgs) -> Outcome {
    copy(&args.dir).with_context(|| format!("cannot install into {}", args.dir.display())).map_err(Failure::Environment)
}

fn copy(dir: &Path) -> io::Result<()> {
    let new = dir.join(format!(".{NAME}.{:016x}", random()));
    let mut program = File::open("/proc/self/exe")?;
    // O_EXCL: what is there already is somebody else's, and neither written to nor removed.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&new)?;
    let copied = fill(file, &mut program).and_then(|()| fs::rename(&new, dir.join(NAME)));
    if copied.is_err() {
        // What was not finished is of no use; that it cannot be removed is no second fault.
        drop(fs::remove_file(&new));
    }
    copied
}

/// The process id is no name: it is 1 in every container. The standard library seeds its hashes from the kernel.
fn random() -> u64 {
    RandomState::new().hash_one(NAME)
}

fn fill(mut file: File, program: &mut File) -> io::Result<()> {
    io::copy(program, &mut file)?;
    // The app's user is not the one that copies, and the umask is not asked.
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()
}
