//! `egret install`: copies this very program into a folder, for containers that are to be started by it. An image without a
//! shell has no other way to bring it there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::cli::{Failure, InstallArgs, Outcome};

const NAME: &str = "egret";

/// Writes beside and renames: whoever starts it meanwhile starts the old one or the new one, never half of one.
pub(crate) fn install(args: &InstallArgs) -> Outcome {
    copy(&args.dir).with_context(|| format!("cannot install into {}", args.dir.display())).map_err(Failure::Environment)
}

fn copy(dir: &Path) -> io::Result<()> {
    let new = dir.join(format!(".{NAME}.{}", std::process::id()));
    let copied = write(&new).and_then(|()| fs::rename(&new, dir.join(NAME)));
    if copied.is_err() {
        // What was not finished is of no use; that it may not be there is no second fault.
        drop(fs::remove_file(&new));
    }
    copied
}

fn write(new: &Path) -> io::Result<()> {
    let mut program = File::open("/proc/self/exe")?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(new)?;
    io::copy(&mut program, &mut file)?;
    file.sync_all()
}
