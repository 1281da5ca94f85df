//! The Landlock domain that the app lives in: it may connect no TCP socket itself, and signal nobody outside.
//!
//! Only the app enters it, between fork and exec. A thread of the supervisor must not: whoever lives in the same domain may signal
//! it, and a signal that kills a thread kills its process.
//!
//! It is no first wall: TCP Fast Open, MPTCP and UDP pass by it. It stands behind the filter.

use std::os::fd::OwnedFd;

use landlock::{AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, Scope};

/// The version that knows the right to connect TCP sockets (Linux 6.7).
pub(crate) const CONNECT: u32 = 4;

/// The version that knows scopes of signals and abstract unix sockets (Linux 6.12).
pub(crate) const SCOPES: u32 = 6;

/// The version that can keep refusals out of the host's audit log (Linux 6.15).
pub(crate) const QUIET: u32 = 7;

/// A domain of whatever of it this version knows; what it knows must work. None if that is nothing.
///
/// # Errors
/// The kernel said that it knows it, and refuses it.
pub(crate) fn prepare(version: u32) -> Result<Option<OwnedFd>, RulesetError> {
    if version < CONNECT {
        return Ok(None);
    }
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessNet::ConnectTcp)?;
    if version >= SCOPES {
        rules = rules.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    }
    Ok(rules.create()?.into())
}
