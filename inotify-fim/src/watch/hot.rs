//! Files whose reading takes long, and how long they are left alone then, so that a file that is written all the time does
//! not keep others from being looked at. A comparison of its whole tree reads it all the same. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::marks::Marks;
use crate::fingerprint::Device;
use crate::view::Path;

/// A file is not read again before so many times what reading it took have passed.
const REST: u32 = 20;

/// No file rests longer: what changed must be seen some time.
const LONGEST: Duration = Duration::from_secs(60);

/// So many files are remembered; the others are read as if they were quick.
const MOST: usize = 4_096;

/// Another file in its place does not rest.
type Which = Option<(Device, u64)>;

#[derive(Default)]
pub(super) struct Hot {
    ready: HashMap<Vec<u8>, (Instant, Which)>,
    /// What is marked and rests.
    pub(super) resting: Marks,
}

impl Hot {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// A file was read just now, and it took so long.
    pub(super) fn read(&mut self, path: &Path, which: Which, took: Duration, now: Instant) {
        if self.ready.len() >= MOST {
            self.ready.retain(|_, (ready, _)| *ready > now);
        }
        if self.ready.len() < MOST {
            self.ready.insert(path.to_vec(), (now + took.saturating_mul(REST).min(LONGEST), which));
        }
    }

    /// Whether some file there may rest.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.ready.contains_key(path)
    }

    /// Whether the file that stands there should not be read yet.
    pub(super) fn rests(&self, path: &[u8], which: Which, now: Instant) -> bool {
        self.ready.get(path).is_some_and(|(ready, slow)| *ready > now && *slow == which)
    }

    /// All that is marked, rested or not.
    pub(super) fn wake(&mut self, marks: &mut Marks) {
        marks.append(std::mem::take(&mut self.resting));
        self.ready.clear();
    }

    /// When the first of what is marked has rested.
    pub(super) fn next(&self) -> Option<Instant> {
        self.resting.iter().filter_map(|(path, _)| self.ready.get(path)).map(|(ready, _)| *ready).min()
    }

    /// What is marked and has rested.
    pub(super) fn rested(&mut self, now: Instant) -> Marks {
        let ready = &self.ready;
        let marks = self.resting.take(|path, _| ready.get(path).is_none_or(|(ready, _)| *ready <= now));
        self.ready.retain(|_, (ready, _)| *ready > now);
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::super::marks::Mark;
    use super::*;

    #[test]
    fn a13_what_is_slow_to_read_rests_and_its_mark_stays() {
        let (mut hot, start) = (Hot::default(), Instant::now());
        let slow: Path = b"/a/log".as_slice().into();
        let one = Some((Device { major: 1, minor: 2 }, 3));
        hot.read(&slow, one, Duration::from_millis(50), start);
        assert!(!hot.rests(&slow, None, start), "another file stands there");
        assert!(hot.rests(&slow, one, start + Duration::from_millis(999)));
        assert!(!hot.rests(b"/a/other", one, start));
        hot.resting.add(slow.to_vec(), Mark { seen: true, ..Mark::default() });
        assert_eq!(hot.next(), Some(start + Duration::from_secs(1)));
        assert!(hot.rested(start + Duration::from_millis(999)).is_empty());
        assert_eq!(hot.rested(start + Duration::from_secs(1)).len(), 1);
        assert!(hot.next().is_none() && !hot.rests(&slow, one, start + Duration::from_secs(1)));
    }
}
