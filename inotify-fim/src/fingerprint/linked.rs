//! Files with several names, each read once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Device, HashState, Inode};

/// What is known of one inode: as what it was read, its size, and the hash.
type Slot = Arc<Mutex<Option<(Inode, u64, HashState)>>>;

/// Hashes by inode, for as long as one scan takes.
#[derive(Debug, Default)]
pub(crate) struct Linked(Mutex<HashMap<(Device, u64), Slot>>);

impl Linked {
    /// The hash of an inode with several names: that of another name, if nothing changed since, or what `read` gives.
    /// Whoever asks for the same inode meanwhile waits for it.
    pub(super) fn hash(&self, inode: Inode, size: u64, read: impl FnOnce() -> HashState) -> HashState {
        let slot = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry((inode.device, inode.number)).or_default())
        };
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((was, length, hash)) if (was, length) == (inode, size) => hash,
            _ => {
                let hash = read();
                // Only with a time of change that is proof: any change since then has a later one.
                *known = inode.changed.map(|_| (inode, size, hash));
                hash
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Stamp;

    #[test]
    fn e14_an_inode_is_read_again_only_if_it_changed_or_may_have() {
        let (linked, reads) = (Linked::default(), std::cell::Cell::new(0));
        let ask = |changed: Option<i64>, size| {
            let changed = changed.map(|seconds| Stamp { seconds, nanos: 0 });
            let inode = Inode { device: Device { major: 1, minor: 2 }, number: 3, links: 2, born: None, changed };
            linked.hash(inode, size, || {
                reads.set(reads.get() + 1);
                HashState::Done([u8::try_from(reads.get()).unwrap(); 32])
            })
        };
        assert_eq!((ask(Some(7), 5), ask(Some(7), 5)), (HashState::Done([1; 32]), HashState::Done([1; 32])));
        assert_eq!((ask(Some(8), 5), ask(Some(8), 6)), (HashState::Done([2; 32]), HashState::Done([3; 32])));
        assert_eq!((ask(None, 5), ask(None, 5)), (HashState::Done([4; 32]), HashState::Done([5; 32])));
    }
}
