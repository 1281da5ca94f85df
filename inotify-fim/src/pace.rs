//! Work that takes no more than its share of one processor, however many threads do it.
//!
//! Time is taken for busy from one call to the next, also while another program had the processor or a disk was waited
//! for: so the share is never exceeded, and on a busy machine not reached.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// No sleep is longer, so that whoever wants the work to end need not wait.
const LONGEST: Duration = Duration::from_millis(50);

/// What is owed is slept off from here on: sleeping less is not exact, and costs more than it saves.
const LEAST: Duration = Duration::from_millis(1);

/// What all threads of one piece of work may take together, and took.
#[derive(Debug)]
pub(crate) struct Share {
    percent: u8,
    start: Instant,
    busy: AtomicU64,
}

impl Share {
    /// Percent of one processor: at least 1, and no limit from 100 on.
    pub(crate) fn new(percent: u8) -> Self {
        Self { percent: percent.max(1), start: Instant::now(), busy: AtomicU64::new(0) }
    }

    fn is_limited(&self) -> bool {
        self.percent < 100
    }

    /// Adds what was worked, and sleeps until the sum is within the share.
    fn spend(&self, worked: Duration) {
        let worked = u64::try_from(worked.as_nanos()).unwrap_or(u64::MAX);
        let busy = self.busy.fetch_add(worked, Ordering::Relaxed).saturating_add(worked);
        loop {
            let owed = owed(busy, self.percent, self.start.elapsed());
            if owed < LEAST {
                return;
            }
            thread::sleep(owed.min(LONGEST));
        }
    }
}

/// How long to rest so that this much work, in nanoseconds, is no more than its share of the time since the start.
fn owed(busy: u64, percent: u8, elapsed: Duration) -> Duration {
    Duration::from_nanos(busy.saturating_mul(100) / u64::from(percent)).saturating_sub(elapsed)
}

/// One thread of the work.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    share: &'a Share,
    mark: Instant,
    worked: Duration,
}

impl<'a> Pace<'a> {
    /// Work begins now.
    pub(crate) fn new(share: &'a Share) -> Self {
        Self { share, mark: Instant::now(), worked: Duration::ZERO }
    }

    /// Something was done since the last call: rests, if it must.
    pub(crate) fn rest(&mut self) {
        if self.share.is_limited() {
            let worked = self.mark.elapsed();
            self.worked += worked;
            self.share.spend(worked);
            self.mark = Instant::now();
        }
    }

    /// What was before was not work but waiting.
    pub(crate) fn resume(&mut self) {
        self.mark = Instant::now();
        self.worked = Duration::ZERO;
    }

    /// How long was worked since the last call of this or of [`Self::resume`]; rests not counted.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let since = now - self.mark;
        let worked = std::mem::take(&mut self.worked) + since;
        if self.share.is_limited() {
            self.share.spend(since);
            self.mark = Instant::now();
        } else {
            self.mark = now;
        }
        worked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e13_work_is_slept_off_in_proportion() {
        let ms = Duration::from_millis;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
        assert_eq!(owed(nanos(ms(10)), 25, ms(10)), ms(30));
        assert_eq!(owed(nanos(ms(10)), 25, ms(40)), Duration::ZERO);
        assert_eq!(owed(nanos(ms(10)), 1, ms(10)), ms(990));
        assert_eq!(owed(u64::MAX, 1, Duration::ZERO), Duration::from_nanos(u64::MAX), "and does not overflow");
    }

    #[test]
    fn e13_several_threads_stay_within_one_share() {
        let share = Share::new(20);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..5).for_each(|_| share.spend(Duration::from_millis(2))));
            }
        });
        // 3 times 5 times 2 ms of work said to be done, at a fifth.
        assert!(share.start.elapsed() >= Duration::from_millis(149), "{:?}", share.start.elapsed());
        let unlimited = Share::new(100);
        let mut pace = Pace::new(&unlimited);
        pace.rest();
        assert_eq!(unlimited.busy.load(Ordering::Relaxed), 0);
    }
}
