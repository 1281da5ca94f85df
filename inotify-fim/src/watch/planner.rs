//! Decides when to look: the second thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Instant, SystemTime};

use super::event::{Cause, Event, Source};
use super::reader::Note;
use super::reconcile::{Looked, Reconciler};
use super::schedule::{Clock, Schedule};
use super::shared::{Message, Shared};
use super::{LONGEST, Options};
use crate::roots::Roots;
use crate::view::View;

/// A comparison that repairs comes no sooner than so many times what the last one took: events that are lost all the time
/// must not have everything compared all the time.
const BACK_OFF: u32 = 4;

pub(super) struct Planner<F> {
    messages: Receiver<Message>,
    shared: Arc<Shared>,
    reconciler: Reconciler,
    options: Options,
    schedule: Schedule,
    clock: Clock,
    /// When the first and the last event came that were not looked at yet.
    waiting: Option<(Instant, Instant)>,
    /// No repair before this.
    repair_from: Instant,
    tell: F,
}

impl<F: FnMut(Event)> Planner<F> {
    pub(super) fn new(
        roots: Roots,
        baseline: View,
        options: Options,
        messages: Receiver<Message>,
        shared: Arc<Shared>,
        tell: F,
    ) -> Self {
        let now = Instant::now();
        let schedule = Schedule::new(options.every, options.full, options.poll, now);
        let clock = Clock::new(SystemTime::now(), now);
        let reconciler = Reconciler::new(roots, baseline, &options, shared.inotify().cloned());
        Self { messages, shared, reconciler, options, schedule, clock, waiting: None, repair_from: now, tell }
    }

    /// Until the last message; gives the last view.
    pub(super) fn run(mut self) -> View {
        let looked = self.reconciler.start(&mut self.tell);
        self.schedule.done(looked.source, Instant::now());
        self.tell_last(looked);
        loop {
            self.publish();
            let left = self.next().saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(Message::Notes(batch)) => self.take(&batch),
                Ok(Message::Mounts) => {
                    // What changes from here on is another message.
                    self.shared.mounts.store(false, Ordering::Release);
                    self.reconciler.mounts_changed(&mut self.tell);
                    self.wait();
                }
                Ok(Message::Compare) => {
                    self.shared.answer();
                    self.compare(Source::Schedule);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            self.step();
        }
    }

    fn take(&mut self, batch: &[Note]) {
        if self.options.suspects {
            self.reconciler.look_for_writers(batch);
        }
        batch.iter().for_each(|note| self.reconciler.take(note, &mut self.tell));
        self.shared.waiting.fetch_sub(batch.len(), Ordering::AcqRel);
        self.wait();
    }

    /// Something is to be looked at, soon.
    fn wait(&mut self) {
        let now = Instant::now();
        self.waiting = Some((self.waiting.map_or(now, |(first, _)| first), now));
    }

    /// When what waits is looked at.
    fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        let due = (first + self.options.patience).min(last + self.options.settle);
        Some(if self.reconciler.has_gap() { due.max(self.repair_from) } else { due })
    }

    fn next(&self) -> Instant {
        let schedule = self.schedule.next(self.reconciler.polls());
        [self.due(), self.reconciler.next()].into_iter().flatten().fold(schedule, Instant::min)
    }

    fn step(&mut self) {
        if self.shared.lost.swap(false, Ordering::Acquire) {
            self.reconciler.lost(Cause::Queue, &mut self.tell);
            self.wait();
        }
        let now = Instant::now();
        if let Some(by) = self.clock.jumped(SystemTime::now(), now) {
            self.reconciler.tally.clock_jumps += 1;
            (self.tell)(Event::ClockJumped { by });
        }
        if let Some(source) = self.schedule.due(now, self.reconciler.polls()) {
            self.compare(source);
        }
        // What waits may be what is waited for.
        if self.shared.waiting.load(Ordering::Acquire) == 0 && self.reconciler.tick(now, &mut self.tell) {
            self.wait();
        }
        if self.due().is_some_and(|due| due <= now) {
            self.waiting = None;
            self.look();
        }
    }

    fn compare(&mut self, source: Source) {
        if let Ok(inotify) = self.shared.make_inotify() {
            self.reconciler.use_inotify(inotify);
        }
        self.reconciler.compare(source, &mut self.tell);
        self.wait();
    }

    fn look(&mut self) {
        if !self.reconciler.is_dirty() {
            return;
        }
        let (start, repairs) = (Instant::now(), self.reconciler.has_gap());
        let looked = self.reconciler.reconcile(&mut self.tell);
        let end = Instant::now();
        self.schedule.done(looked.source, end);
        self.tell_last(looked);
        if repairs {
            self.repair_from = end + end.duration_since(start).saturating_mul(BACK_OFF).min(LONGEST);
        }
    }

    fn end(mut self) -> View {
        if self.shared.lost.swap(false, Ordering::Acquire) {
            self.reconciler.lost(Cause::Queue, &mut self.tell);
        }
        self.reconciler.wake_all();
        let looked = self.reconciler.reconcile(&mut self.tell);
        self.tell_last(looked);
        self.reconciler.compare(Source::End, &mut self.tell);
        let looked = self.reconciler.reconcile(&mut self.tell);
        self.tell_last(looked);
        self.reconciler.view
    }

    fn tell_last(&mut self, looked: Looked) {
        self.publish();
        looked.last.into_iter().for_each(&mut self.tell);
    }

    fn publish(&mut self) {
        let mut ledger = self.shared.ledger();
        self.reconciler.write(&mut ledger);
        ledger.high_water = self.shared.high_water.load(Ordering::Acquire);
    }
}
