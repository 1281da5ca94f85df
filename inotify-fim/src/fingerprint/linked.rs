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
