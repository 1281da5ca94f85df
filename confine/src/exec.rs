//! Which files may be executed: a list of directories and files.
//!
//! Enforced, it is a Landlock right on each of them (Linux 5.13), which the app can't get rid of. It denies dropped and stray
//! tools: a binary in a writable directory, a copy of a listed one, a file in memory. It does not deny the execution of code, and
//! nobody should take it for that:
//! - `sh script` and `python -c …` run whatever the interpreter is told; a list with an interpreter on it allows its scripts.
//! - `ld.so program` runs any file that can be read: the loader of each listed program has to be executable for the program to
//!   start. A loader that is started by itself is reported.
//! - Libraries are not executed but mapped, which nobody asks about.
//!
//! Rules are bound to what the paths mean at the start: a listed file that is replaced later is not executable any more, and what
//! is put into a listed directory is. Whoever has a list can't mount anything, and before Linux 5.19 can't rename or link files
//! from one directory to another.
//!
//! With a list of either kind executions are asked about, so that none succeeds once the supervisor has gone.
//!
//! Not enforced, it restricts nothing: executions are told and go on ([`Egress::executes`](crate::Egress::executes)).

mod elf;

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// How many files of listed directories are looked at for their loaders, those that can't be executed included.
pub const MOST_SCANNED: usize = 20_000;

/// How many scripts one interpreter may be that of the other, as in the kernel (`BINPRM` of fs/exec.c).
const MOST_INTERPRETERS: usize = 5;

/// The longest first line of a script that the kernel reads (`BINPRM_BUF_SIZE`).
const LONGEST_LINE: u64 = 256;

/// What may be executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecList {
    /// Whether anything else is refused; if not, it is only told.
    pub enforce: bool,
    /// Directories, with everything below them, and files. What does not exist at the start is left out.
    pub paths: Vec<PathBuf>,
}

/// An execution as it was asked for. It is a report and no proof: the path is read before the kernel reads it, so that another
/// thread may change it in between, and paths of other mount namespaces may look like those of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The process, as numbered in this process's PID namespace.
    pub pid: u32,
    /// The path as called, if it could be read. It is empty for a file that is executed by its descriptor.
    pub path: Option<PathBuf>,
    /// The file, from this process's root, if it could be found out. A file without a name has one in parentheses behind it.
    pub resolved: Option<PathBuf>,
    /// Whether the list has it. Loaders that nobody listed are not on it, though they can be executed.
    pub listed: bool,
}

/// Why a command can't be started with a list.
#[derive(Debug)]
pub enum ExecError {
    /// Landlock is needed to refuse anything.
    NoLandlock(Errno),
    /// The command itself is not to be found.
    NotFound(OsString),
    /// The list does not have what the command needs: itself or its interpreter.
    NotListed {
        /// The command.
        command: PathBuf,
        /// What is not on the list.
        needs: PathBuf,
    },
    /// A path of the list can't be opened.
    Path(PathBuf, io::Error),
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecError::NoLandlock(errno) => {
                write!(f, "executions can't be refused without Landlock ({errno}): have them reported only")
            }
            ExecError::NotFound(command) => write!(f, "{} is not to be found", command.display()),
            ExecError::NotListed { command, needs } if command == needs => {
                write!(f, "{} is not on the list of what may be executed: add it", command.display())
            }
            ExecError::NotListed { command, needs } => {
                write!(
                    f,
                    "{} needs {}, which is not on the list of what may be executed: add it",
                    command.display(),
                    needs.display()
                )
            }
            ExecError::Path(path, error) => write!(f, "{} of the list of what may be executed: {error}", path.display()),
        }
    }
}

impl std::error::Error for ExecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let ExecError::Path(_, error) = self { Some(error) } else { None }
    }
}

/// The list's paths as they are named without links.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    paths: Vec<PathBuf>,
}

impl Listed {
    /// What of the list there is.
    pub(crate) fn new(list: &ExecList) -> Result<Self, ExecError> {
        let mut paths = Vec::new();
        for path in &list.paths {
            match fs::canonicalize(path) {
                Ok(path) => paths.push(path),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(ExecError::Path(path.clone(), error)),
            }
        }
        Ok(Listed { paths })
    }

    /// Whether this file, named without links, is on it.
    pub(crate) fn has(&self, file: &Path) -> bool {
        self.paths.iter().any(|listed| file.starts_with(listed))
    }

    /// Everything that the kernel has to let execute: what is listed, and its loaders.
    pub(crate) fn executables(&self) -> Result<Vec<OwnedFd>, ExecError> {
        let loaders = loaders_of(&self.paths);
        self.paths.iter().chain(&loaders).filter_map(|path| open(path).transpose()).collect()
    }

    /// Fails unless the command, and the interpreter if it is a script, are listed.
    pub(crate) fn check(&self, command: &Command) -> Result<(), ExecError> {
        let found = find(command).ok_or_else(|| ExecError::NotFound(command.get_program().to_owned()))?;
        let mut needs = found.clone();
        for _ in 0..MOST_INTERPRETERS {
            let file = fs::canonicalize(&needs).map_err(|error| ExecError::Path(needs.clone(), error))?;
            if !self.has(&file) {
                return Err(ExecError::NotListed { command: found, needs });
            }
            match interpreter_of(&file) {
                Some(interpreter) => needs = interpreter,
                None => break,
            }
        }
        Ok(())
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// None for what has gone meanwhile, or is neither a directory nor a file.
fn open(path: &Path) -> Result<Option<OwnedFd>, ExecError> {
    match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(opened) => Ok(Some(opened)),
        Err(errno) if is_missing(&errno.into()) => Ok(None),
        Err(errno) => Err(ExecError::Path(path.to_owned(), errno.into())),
    }
}

/// The loaders of these files, and of those in these directories; of the first so many that there are.
fn loaders_of(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut loaders = BTreeSet::new();
    let mut folders: VecDeque<PathBuf> = VecDeque::new();
    let mut scanned = 0;
    for path in paths {
        if path.is_dir() { folders.push_back(path.clone()) } else { loaders.extend(loader_of(path)) }
    }
    while let Some(folder) = folders.pop_front() {
        for entry in fs::read_dir(folder).into_iter().flatten().map_while(Result::ok) {
            scanned += 1;
            if scanned > MOST_SCANNED {
                return loaders;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push_back(entry.path()),
                // A link leads to what is listed by itself, or is not.
                Ok(kind) if kind.is_file() => loaders.extend(loader_of(&entry.path())),
                _ => {}
            }
        }
    }
    loaders
}

/// The file that the kernel starts in place of this one, if it can be executed and names one.
fn loader_of(file: &Path) -> Option<PathBuf> {
    let is_program = fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    let loader = elf::loader(&File::open(file).ok().filter(|_| is_program)?)?;
    fs::canonicalize(loader).ok()
}

/// The interpreter in the first line of a script.
fn interpreter_of(file: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    File::open(file).ok()?.take(LONGEST_LINE).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// The file that a command would start, as execvp(3) looks for it.
pub(crate) fn find(command: &Command) -> Option<PathBuf> {
    let program = Path::new(command.get_program());
    let directory = command.get_current_dir().unwrap_or(Path::new("."));
    if program.as_os_str().as_bytes().contains(&b'/') {
        return Some(directory.join(program)).filter(|path| path.exists());
    }
    let own = command.get_envs().find(|(name, _)| *name == "PATH").map(|(_, path)| path.map(OsStr::to_owned));
    let path = own.unwrap_or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| "/bin:/usr/bin".into());
    let can_be_executed =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).map(|folder| directory.join(folder).join(program)).find(can_be_executed)
}

#[cfg(test)]
mod tests;
