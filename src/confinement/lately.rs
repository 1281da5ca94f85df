//! What was told lately. Programs ask for one name several times in a row, for each family and each nameserver, and start one
//! tool again and again; one line in the journal tells of them all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same is not told again.
const QUIET: Duration = Duration::from_secs(60);
/// The most that is remembered; of more, none is told until some are old. The metrics count them all.
const MOST: usize = 512;

/// Who was told of when.
#[derive(Debug, Default)]
pub(crate) struct Lately(Mutex<HashMap<String, Instant>>);

impl Lately {
    /// Whether this is worth a line now.
    pub(crate) fn is_news(&self, name: &str) -> bool {
        self.is_news_at(name, Instant::now())
    }

    fn is_news_at(&self, name: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= QUIET;
        if told.get(name).is_some_and(|at| !is_old(at)) {
            return false;
        }
        if told.len() >= MOST {
            told.retain(|_, at| !is_old(at));
        }
        let has_room = told.len() < MOST;
        if has_room {
            told.insert(name.to_owned(), now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute_and_a_flood_is_not() {
        let (names, start) = (Lately::default(), Instant::now());
        assert!(names.is_news_at("a.test", start) && !names.is_news_at("a.test", start));
        assert!(names.is_news_at("a.test", start + QUIET));
        let told = (0..2 * MOST).filter(|number| names.is_news_at(&format!("n{number}.test"), start + QUIET)).count();
        assert_eq!(told, MOST - 1);
        assert!(names.is_news_at("b.test", start + 2 * QUIET));
    }
}
