//! The Landlock domain that the app lives in: it may connect no TCP socket itself, and signal nobody outside.
//!
//! It is no first wall: TCP Fast Open, MPTCP and UDP pass by it. It stands behind the filter.

use landlock::{AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope};

/// The version that knows the right to connect TCP sockets (Linux 6.7).
pub(crate) const CONNECT: u32 = 4;

/// The version that knows scopes of signals and abstract unix sockets (Linux 6.12).
pub(crate) const SCOPES: u32 = 6;

/// Restricts the calling thread by whatever of it this version knows; what it knows must work.
///
/// # Errors
/// The kernel said that it knows it, and refuses it.
pub(crate) fn enter(version: u32) -> Result<(), RulesetError> {
    if version < CONNECT {
        return Ok(());
    }
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessNet::ConnectTcp)?;
    if version >= SCOPES {
        rules = rules.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    }
    // Refusals are for the supervisor to tell, not for the host's audit log, which version 7 would write by default.
    rules.create()?.set_compatibility(CompatLevel::BestEffort).log_same_exec(false)?.restrict_self().map(drop)
}
