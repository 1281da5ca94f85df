//! A question before the first, for programs whose DNS comes through egret: may the addresses of this name be known? It is
//! asked without a port, so it is the three questions for every port that some rule names: what no connection could
//! use is not told. There is no second opinion here.

use std::net::IpAddr;
use std::sync::Arc;

use crate::decide::{Request, UnixTime};
use crate::name::Name;
use crate::policy::{Policy, RoleId};
use crate::target::{Host, Target};
use crate::verdict::{Denial, Permit, Reason};

/// Where no rule speaks of the name, the verdict is that on this port: as where a rule writes none.
const PORT: u16 = 443;
/// The most rules that are asked about one name, and the most ports.
const MOST_ENTRIES: usize = 32;

/// Leave to know the addresses of a name.
#[derive(Clone, Debug)]
pub struct Lookup {
    permits: Vec<Permit>,
}

impl Policy {
    /// Whether a connection of one of these roles to this name could be admitted on any port. No DNS query has been made yet,
    /// and none is made for what is refused here.
    ///
    /// # Errors
    /// The [`Denial`] of the first role at the port that rules name first, or at 443.
    pub fn lookup(self: &Arc<Self>, name: &Name, roles: &[RoleId], now: UnixTime) -> Result<Lookup, Denial> {
        let entries = self.allow.names(name, &self.rules).take(MOST_ENTRIES);
        let mut ports: Vec<u16> = entries.flat_map(|entry| entry.of(&self.rules).1.ends()).take(2 * MOST_ENTRIES).collect();
        ports.push(PORT);
        ports.dedup();
        let (mut permits, mut first_denial) = (Vec::new(), None);
        for (role, port) in roles.iter().flat_map(|role| ports.iter().map(|port| (*role, *port))) {
            let target = Target { host: Host::Name(name.clone()), port };
            match self.admit(&Request::new(target, role, now)) {
                Ok(permit) => permits.push(permit),
                Err(denial) => drop(first_denial.get_or_insert(denial)),
            }
        }
        match first_denial {
            Some(denial) if permits.is_empty() => Err(self.without_port(name, roles, denial)),
            _ => Ok(Lookup { permits }),
        }
    }

    /// Where no rule speaks of the name, nobody asked for a port.
    fn without_port(&self, name: &Name, roles: &[RoleId], denial: Denial) -> Denial {
        if denial.reason != Reason::NoRule {
            return denial;
        }
        let role = self.role_name(roles.first().copied().unwrap_or(self.default_role()));
        let detail = format!("the name {name} is refused for role {role}: no rule names it");
        Denial { detail, ..denial }
    }
}

impl Lookup {
    /// Which of the answers some permitted connection could dial, in their order.
    ///
    /// # Errors
    /// None; the [`Denial`] is that of the first answer.
    pub fn vet(&mut self, answers: &[IpAddr]) -> Result<Vec<IpAddr>, Denial> {
        let (mut passed, mut first_denial) = (Vec::new(), None);
        for permit in &mut self.permits {
            match permit.vet(answers) {
                Ok(vetted) => passed.extend(vetted.iter().map(|vetted| vetted.socket().ip())),
                Err(denial) => drop(first_denial.get_or_insert(denial)),
            }
        }
        match first_denial {
            Some(denial) if passed.is_empty() => Err(denial),
            _ => Ok(answers.iter().copied().filter(|address| passed.contains(address)).collect()),
        }
    }
}

#[cfg(test)]
mod tests;
