//! Files whose reading takes long, and how long they are left alone then, so that a file that is written all the time does
//! not keep others from being looked at. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::marks::Marks;
use crate::view::Path;

/// A file is not read again before so many times what reading it took have passed.
const REST: u32 = 20;

/// No file rests longer: what changed must be seen some time.
const LONGEST: Duration = Duration::from_secs(300);

/// So many files are remembered; the others are read as if they were quick.
const MOST: usize = 4_096;

#[derive(Default)]
pub(super) struct Hot {
    ready: HashMap<Vec<u8>, Instant>,
    /// What is marked and rests.
    pub(super) resting: Marks,
}

impl Hot {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// A file was read just now, and it took so long.
    pub(super) fn read(&mut self, path: &Path, took: Duration, now: Instant) {
        if self.ready.len() >= MOST {
            self.ready.retain(|_, ready| *ready > now);
        }
        if self.ready.len() < MOST {
            self.ready.insert(path.to_vec(), now + took.saturating_mul(REST).min(LONGEST));
        }
    }

    /// Whether a file should not be read yet.
    pub(super) fn rests(&self, path: &[u8], now: Instant) -> bool {
        self.ready.get(path).is_some_and(|ready| *ready > now)
    }

    /// All that is marked, rested or not.
    pub(super) fn wake(&mut self, marks: &mut Marks) {
        marks.append(std::mem::take(&mut self.resting));
        self.ready.clear();
    }

    /// When the first of what is marked has rested.
    pub(super) fn next(&self) -> Option<Instant> {
        self.resting.iter().filter_map(|(path, _)| self.ready.get(path)).min().copied()
    }

    /// What is marked and has rested.
    pub(super) fn rested(&mut self, now: Instant) -> Marks {
        let ready = &self.ready;
        let marks = self.resting.take(|path, _| ready.get(path).is_none_or(|ready| *ready <= now));
        self.ready.retain(|_, ready| *ready > now);
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
        hot.read(&slow, Duration::from_millis(50), start);
        assert!(hot.rests(&slow, start + Duration::from_millis(999)));
        assert!(!hot.rests(b"/a/other", start));
        hot.resting.add(slow.to_vec(), Mark { seen: true, ..Mark::default() });
        assert_eq!(hot.next(), Some(start + Duration::from_secs(1)));
        assert!(hot.rested(start + Duration::from_millis(999)).is_empty());
        assert_eq!(hot.rested(start + Duration::from_secs(1)).len(), 1);
        assert!(hot.next().is_none() && !hot.rests(&slow, start + Duration::from_secs(1)));
    }
}
