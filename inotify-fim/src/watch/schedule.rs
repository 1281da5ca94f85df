//! When what is compared. Pure: time is an argument, and monotonic, so that nobody moves a comparison by setting a clock.

use std::time::{Duration, Instant, SystemTime};

use super::Source;

/// A difference between the two clocks that is told.
const JUMP: Duration = Duration::from_secs(60);

pub(super) struct Schedule {
    every: Duration,
    full: Duration,
    poll: Duration,
    compared: Instant,
    read: Instant,
    polled: Instant,
}

impl Schedule {
    pub(super) fn new(every: Duration, full: Duration, poll: Duration, now: Instant) -> Self {
        Self { every, full, poll, compared: now, read: now, polled: now }
    }

    /// When the next comparison is due.
    pub(super) fn next(&self, polls: bool) -> Instant {
        let whole = (self.compared + self.every).min(self.read + self.full);
        if polls { whole.min(self.polled + self.poll) } else { whole }
    }

    /// The comparison that is due, if any. It counts as done now; see [`Self::done`].
    pub(super) fn due(&mut self, now: Instant, polls: bool) -> Option<Source> {
        let source = if now >= self.read + self.full {
            Source::Full
        } else if now >= self.compared + self.every {
            Source::Schedule
        } else if polls && now >= self.polled + self.poll {
            Source::Poll
        } else {
            return None;
        };
        self.done(source, now);
        Some(source)
    }

    /// A comparison is done: the time to the next counts from here, so that long ones leave time for others.
    pub(super) fn done(&mut self, source: Source, now: Instant) {
        match source {
            Source::Event => return,
            Source::Poll => {}
            Source::Full | Source::Start => (self.compared, self.read) = (now, now),
            Source::Schedule | Source::Repair | Source::End => self.compared = now,
        }
        self.polled = now;
    }
}

/// Notes when the wall clock went another way than the monotonic one.
pub(super) struct Clock {
    wall: SystemTime,
    steady: Instant,
}

impl Clock {
    pub(super) fn new(wall: SystemTime, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// By how many seconds the wall clock jumped since the last call, if by more than a minute.
    pub(super) fn jumped(&mut self, wall: SystemTime, steady: Instant) -> Option<i64> {
        let expected = self.wall.checked_add(steady.saturating_duration_since(self.steady))?;
        let (size, sign) = match wall.duration_since(expected) {
            Ok(forward) => (forward, 1),
            Err(back) => (back.duration(), -1),
        };
        // A clock that is slowly put right is no jump, however long that goes on.
        (self.wall, self.steady) = (wall, steady);
        (size > JUMP).then(|| i64::try_from(size.as_secs()).unwrap_or(i64::MAX) * sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_widest_comparison_that_is_due_comes_and_stands_for_the_others() {
        let start = Instant::now();
        let mut schedule = Schedule::new(10 * SECOND, 25 * SECOND, 3 * SECOND, start);
        let mut at = |second: u32, polls| schedule.due(start + second * SECOND, polls);
        assert_eq!(at(2, true), None);
        assert_eq!(at(3, false), None, "nothing to poll");
        assert_eq!(at(4, true), Some(Source::Poll));
        assert_eq!(at(6, true), None);
        assert_eq!(at(10, true), Some(Source::Schedule), "it is a poll as well");
        assert_eq!(at(12, true), None);
        assert_eq!(at(25, true), Some(Source::Full));
        assert_eq!(at(27, true), None);
        assert_eq!(schedule.next(true), start + 28 * SECOND);
        assert_eq!(schedule.next(false), start + 35 * SECOND);
    }

    #[test]
    fn g04_a_day_on_the_wall_clock_is_a_jump_and_a_slow_correction_is_none() {
        let (wall, steady) = (SystemTime::UNIX_EPOCH + 1_000_000_000 * SECOND, Instant::now());
        let mut clock = Clock::new(wall, steady);
        assert_eq!(clock.jumped(wall + 100 * SECOND, steady + 100 * SECOND), None);
        assert_eq!(clock.jumped(wall + 86_500 * SECOND, steady + 100 * SECOND), Some(86_400));
        assert_eq!(clock.jumped(wall + 86_600 * SECOND, steady + 200 * SECOND), None, "told once");
        assert_eq!(clock.jumped(wall + 200 * SECOND, steady + 200 * SECOND), Some(-86_400));
        for minute in 1..100 {
            let drift = minute * SECOND * 2;
            assert_eq!(
                clock.jumped(wall + 200 * SECOND + minute * 60 * SECOND + drift, steady + (200 + minute * 60) * SECOND),
                None
            );
        }
    }
}
