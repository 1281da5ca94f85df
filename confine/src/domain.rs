//! The Landlock domain that the app lives in: it may bind and connect no TCP socket itself, signal nobody outside, and execute
//! nothing but what is on a list, if there is one.
//!
//! Only the app enters it, between fork and exec. A thread of the supervisor must not: whoever lives in the same domain may signal
//! it, and a signal that kills a thread kills its process.
//!
//! It is no first wall: TCP Fast Open, MPTCP and UDP pass by it. It stands behind the filter.

use std::fs::File;
use std::os::fd::OwnedFd;

use landlock::{
    AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

/// The first version, which knows the right to execute (Linux 5.13).
pub(crate) const EXECUTE: u32 = 1;

/// The version that knows the right to move files from one directory to another, which every domain that is about files denies
/// otherwise (Linux 5.19).
pub(crate) const REFER: u32 = 2;

/// The version that knows the rights to bind and to connect TCP sockets (Linux 6.7).
pub(crate) const CONNECT: u32 = 4;

/// The version that knows scopes of signals and abstract unix sockets (Linux 6.12).
pub(crate) const SCOPES: u32 = 6;

/// The version that can keep refusals out of the host's audit log (Linux 6.15).
pub(crate) const QUIET: u32 = 7;

/// A domain of whatever of it this version knows; what it knows must work. None if that is nothing. With a list, nothing but
/// these files, and what is below these directories, can be executed.
///
/// # Errors
/// The kernel said that it knows it, and refuses it.
pub(crate) fn prepare(version: u32, executable: Option<&[OwnedFd]>) -> Result<Option<OwnedFd>, RulesetError> {
    if version < CONNECT && executable.is_none() {
        return Ok(None);
    }
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if version >= CONNECT {
        rules = rules.handle_access(AccessNet::ConnectTcp | AccessNet::BindTcp)?;
    }
    if version >= SCOPES {
        rules = rules.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    }
    let Some(executable) = executable else { return Ok(rules.create()?.into()) };
    rules = rules.handle_access(AccessFs::Execute)?;
    if version >= REFER {
        rules = rules.handle_access(AccessFs::Refer)?;
    }
    let mut rules = rules.create()?;
    for path in executable {
        rules = rules.add_rule(PathBeneath::new(path, AccessFs::Execute))?;
    }
    if let (true, Ok(root)) = (version >= REFER, File::open("/")) {
        rules = rules.add_rule(PathBeneath::new(root, AccessFs::Refer))?;
    }
    Ok(rules.into())
}
