//! Which names led to which addresses: what the app's DNS queries were answered with. An address keeps its latest names; the
//! address that was told longest ago goes first.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use egret_policy::Name;

/// The most addresses that are remembered: a few hundred KiB at worst. An app that talks to more of them at a time is known
/// again by what it shows, or asks again.
const MOST_ADDRESSES: usize = 4096;
/// The most names of one address; servers of content share them among many more.
const MOST_NAMES: usize = 8;

/// The table. It is filled with answers of allowed names only.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    names: HashMap<IpAddr, Entry>,
    /// The addresses by when they were told last.
    told: BTreeMap<u64, IpAddr>,
    turn: u64,
}

#[derive(Debug)]
struct Entry {
    /// The latest first.
    names: Vec<Name>,
    turn: u64,
}

impl Known {
    /// These addresses were told for this name.
    pub(crate) fn learn(&self, name: &Name, addresses: &[IpAddr]) {
        let mut table = self.table();
        for address in addresses {
            table.learn(name, *address);
        }
    }

    /// The names of an address, the latest first.
    pub(super) fn names_of(&self, address: IpAddr) -> Vec<Name> {
        self.table().names.get(&address).map(|entry| entry.names.clone()).unwrap_or_default()
    }

    /// Whether this address was told for this name.
    pub(super) fn has(&self, name: &Name, address: IpAddr) -> bool {
        self.table().names.get(&address).is_some_and(|entry| entry.names.contains(name))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn learn(&mut self, name: &Name, address: IpAddr) {
        self.turn += 1;
        let turn = self.turn;
        let entry = self.names.entry(address).or_insert_with(|| Entry { names: Vec::new(), turn });
        self.told.remove(&std::mem::replace(&mut entry.turn, turn));
        self.told.insert(turn, address);
        entry.names.retain(|known| known != name);
        entry.names.insert(0, name.clone());
        entry.names.truncate(MOST_NAMES);
        while self.names.len() > MOST_ADDRESSES {
            let Some((_, oldest)) = self.told.pop_first() else { break };
            self.names.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn the_latest_name_comes_first_and_stands_once() {
        let known = Known::default();
        for text in ["a.test", "b.test", "a.test"] {
            known.learn(&name(text), &[address(1)]);
        }
        assert_eq!(known.names_of(address(1)), [name("a.test"), name("b.test")]);
        assert!(known.has(&name("b.test"), address(1)) && !known.has(&name("b.test"), address(2)));
    }

    #[test]
    fn what_was_told_longest_ago_is_forgotten_first() {
        let known = Known::default();
        let most = u32::try_from(MOST_ADDRESSES).unwrap();
        for number in 0..most {
            known.learn(&name("a.test"), &[address(number)]);
        }
        known.learn(&name("a.test"), &[address(0)]);
        known.learn(&name("b.test"), &[address(most)]);
        assert!(known.names_of(address(1)).is_empty(), "it was told longest ago");
        assert!(known.has(&name("a.test"), address(0)), "it was told again");
        for number in 0..64 {
            known.learn(&name(&format!("n{number}.test")), &[address(7)]);
        }
        assert_eq!(known.names_of(address(7)).len(), MOST_NAMES);
        let table = known.table();
        assert_eq!((table.names.len(), table.told.len()), (MOST_ADDRESSES, MOST_ADDRESSES));
    }
}
