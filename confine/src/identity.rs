//! Who a thread is to the file system and to whoever it connects to (credentials(7), SO_PEERCRED of unix(7)).
//!
//! What the supervisor does in a caller's stead by name, it does as the caller: with its users, groups and rights of passing by
//! permissions. A thread that took an identity keeps it and ends. Its real and saved user stay the supervisor's, by which the
//! kernel decides who may signal or trace it.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::caller::Caller;

/// What passes by the permissions of files.
const PASSES: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH);

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    user: u32,
    group: u32,
    groups: Vec<u32>,
    passes: CapabilitySet,
}

impl Identity {
    /// Who the caller is.
    ///
    /// # Errors
    /// ACCESS: it can't be learnt.
    pub(crate) fn of(caller: Caller) -> Result<Self, Errno> {
        let status = caller.status().ok_or(Errno::ACCESS)?;
        let mut identity = parse(&status).ok_or(Errno::ACCESS)?;
        // Elsewhere, capabilities are over other things.
        if !identity.passes.is_empty() && !caller.shares_users() {
            identity.passes = CapabilitySet::empty();
        }
        Ok(identity)
    }

    /// Who this process is.
    fn own() -> Result<Self, Errno> {
        let mut groups: Vec<u32> = rustix::process::getgroups()?.into_iter().map(Gid::as_raw).collect();
        groups.sort_unstable();
        Ok(Identity {
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            groups,
            passes: capabilities(None)?.effective & PASSES,
        })
    }

    /// Whether the supervisor may do as it is what this identity may.
    ///
    /// # Errors
    /// The kernel does not tell who this process is.
    pub(crate) fn is_own(&self) -> Result<bool, Errno> {
        let own = Self::own()?;
        Ok(own.user == self.user && own.group == self.group && own.groups == self.groups && self.passes.contains(own.passes))
    }

    /// Makes the calling thread be so, for the rest of its life.
    ///
    /// # Errors
    /// PERM: the supervisor lacks CAP_SETUID or CAP_SETGID.
    pub(crate) fn take(&self) -> Result<(), Errno> {
        let own = Self::own()?;
        if self.groups != own.groups {
            let groups: Vec<Gid> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
            rustix::thread::set_thread_groups(&groups)?;
        }
        if self.group != own.group {
            rustix::thread::set_thread_res_gid(None, Gid::from_raw(self.group), None)?;
        }
        if self.user != own.user {
            rustix::thread::set_thread_res_uid(None, Uid::from_raw(self.user), None)?;
        }
        let mut sets = capabilities(None)?;
        sets.effective = own.passes & self.passes & sets.permitted;
        set_capabilities(None, sets)?;
        // With another user the kernel falls back to the machine's own idea of who may look (`suid_dumpable`, proc_sys_fs(5)).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
    }
}

/// From `/proc/<tid>/status` (proc_pid_status(5)).
fn parse(status: &str) -> Option<Identity> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let effective = |name: &str| field(name)?.split_whitespace().nth(1)?.parse().ok();
    let mut groups: Vec<u32> = field("Groups:")?.split_whitespace().map_while(|group| group.parse().ok()).collect();
    groups.sort_unstable();
    let passes = CapabilitySet::from_bits_retain(u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?) & PASSES;
    Some(Identity { user: effective("Uid:")?, group: effective("Gid:")?, groups, passes })
}

#[cfg(test)]
mod tests;
