//! Capabilities that lead around the confinement, taken from the app for good.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

/// Each with the way around that it opens.
#[rustfmt::skip]
const DANGEROUS: [(CapabilitySet, &str); 9] = [
    (CapabilitySet::NET_RAW, "packets of any form, and a device for a socket that has another"),
    (CapabilitySet::NET_ADMIN, "addresses, routes and rules of the network; TCP repair"),
    (CapabilitySet::SYS_PTRACE, "memory and sockets of the supervisor"),
    (CapabilitySet::SYS_ADMIN, "namespaces, mounts, and filters without no_new_privs"),
    (CapabilitySet::SYS_MODULE, "the kernel itself"),
    (CapabilitySet::SYS_RAWIO, "the machine's memory"),
    (CapabilitySet::BPF, "programs that send"),
    (CapabilitySet::PERFMON, "what other processes do"),
    (CapabilitySet::CHECKPOINT_RESTORE, "memory maps of others"),
];

/// Takes them from the calling thread. With no_new_privs set, nothing that it executes gets them back (capabilities(7)).
///
/// # Errors
/// The kernel refuses what it never refuses: to give up a capability.
pub(crate) fn drop_dangerous() -> Result<(), Errno> {
    let dangerous = DANGEROUS.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    let mut sets = capabilities(None)?;
    if !(sets.permitted | sets.inheritable).intersects(dangerous) {
        return Ok(());
    }
    for (capability, _) in DANGEROUS {
        // Needs CAP_SETPCAP. Without it the other sets still keep the app from ever having it, given no_new_privs.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let _ = clear_ambient_capability_set();
    sets.effective -= dangerous;
    sets.permitted -= dangerous;
    sets.inheritable -= dangerous;
    set_capabilities(None, sets)
}
