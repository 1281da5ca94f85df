//! Reading between looks, a slice at a time and within its share: what was too large for a look, and all content for a full
//! comparison. Each has its turn, so that neither keeps the other from ending.

use std::time::{Instant, SystemTime};

use super::{Looked, Reconciler};
use crate::ledger::Reading;
use crate::watch::event::{Event, Source};
use crate::watch::marks::Marks;
use crate::watch::round::Round;

/// What is read between looks, and when it may go on.
#[derive(Default)]
pub(super) struct Slices {
    /// All content is to be read after the next look at everything.
    pub(super) wanted: bool,
    round: Option<Round>,
    /// Whose turn it is: the round's, or that of what waits.
    turn: bool,
    /// Not before: what was worked is rested from, so that it stays within the share.
    from: Option<Instant>,
}

impl Reconciler {
    /// Reads on. Whether anything is to be looked at.
    pub(crate) fn read_on(&mut self, now: Instant) -> bool {
        let mut marks = self.later.overdue(now);
        if self.slices.from.is_none_or(|from| from <= now) {
            let start = Instant::now();
            marks.append(self.read_slice(now));
            let (spent, share) = (start.elapsed(), u32::from(self.options.share.clamp(1, 100)));
            self.slices.from = (share < 100).then(|| now + spent * 100 / share);
        }
        let any = !marks.is_empty();
        self.dirty.append(marks);
        any
    }

    fn read_slice(&mut self, now: Instant) -> Marks {
        let waits = self.later.from().is_some_and(|from| from <= now);
        let round = self.slices.round.as_mut().filter(|round| !round.has_ended());
        match round.filter(|_| self.slices.turn || !waits) {
            Some(round) => {
                self.slices.turn = false;
                round.read(&self.roots, &self.view, |content| self.later.add_known(content))
            }
            None => {
                self.slices.turn = true;
                self.later.read(&self.roots, &self.view, now)
            }
        }
    }

    /// When [`Self::read_on`] has something to do.
    pub(super) fn reads_from(&self, now: Instant) -> Option<Instant> {
        let round = self.slices.round.as_ref().filter(|round| !round.has_ended()).map(|_| now);
        let read = [self.later.from(), round].into_iter().flatten().min();
        let read = read.map(|read| self.slices.from.map_or(read, |from| from.max(read)));
        [self.later.told_by(), read].into_iter().flatten().min()
    }

    /// Whether all content is being read, or is to be.
    pub(super) fn rereads(&self) -> bool {
        self.slices.wanted || self.slices.round.is_some()
    }

    /// Begins to read all content if that is wanted, after a look at everything that found so much. Whether it does.
    pub(super) fn begin_round(&mut self, start: Instant, began: SystemTime, found: usize) -> bool {
        let begins = std::mem::take(&mut self.slices.wanted);
        if begins {
            self.slices.round = Some(Round::new(&self.view, (start, began), found));
        }
        begins
    }

    /// One more that only reading found.
    pub(super) fn found_by_reading(&mut self) {
        if let Some(round) = &mut self.slices.round {
            round.found += 1;
        }
    }

    /// What is to be told once all content was read, and looked at where it is another one.
    pub(crate) fn end_round(&mut self) -> Option<Looked> {
        let dirty = &self.dirty;
        let has_ended = |round: &mut Round| round.has_ended() && !dirty.iter().any(|(_, mark)| mark.reread);
        let Round { start, began, found, .. } = self.slices.round.take_if(has_ended)?;
        self.tally.compared(Source::Full);
        self.read = Some(began);
        let (entries, watched, took) = (self.view.entries.len(), self.armed.len(), start.elapsed());
        let last = vec![Event::Compared { source: Source::Full, entries, watched, found, took, complete: true }];
        Some(Looked { source: Source::Full, complete: true, last })
    }

    /// How far it is.
    pub(super) fn reading(&self) -> Option<Reading> {
        let round = self.slices.round.as_ref()?;
        Some(Reading { since: round.began, octets: round.octets(), of: round.of })
    }
}
