//! Decides when to look: the second thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

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

/// How long events alone may be attended to.
const ENDLESS: Duration = Duration::from_secs(1);

pub(super) struct Planner<F> {
    messages: Receiver<Message>,
    shared: Arc<Shared>,
    reconciler: Reconciler,
    options: Options,
    schedule: Schedule,
    clock: Clock,
    /// When the first and the last event came that were not looked at yet.
    waiting: Option<(Instant, Instant)>,
    /// When nothing waited, or large files were read all the same.
    idle: Instant,
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
        let mut reconciler = Reconciler::new(roots, baseline, &options, shared.inotify().cloned());
        reconciler.deadline = Arc::clone(&shared.deadline);
        Self { messages, shared, reconciler, options, schedule, clock, waiting: None, idle: now, repair_from: now, tell }
    }

    /// Until the last message; gives the last view, and whether all was compared with it. A fault is told before it goes on
    /// to whoever waits for the end.
    pub(super) fn run(mut self) -> (View, bool) {
        // Nothing but `tell` is used after a fault.
        match catch_unwind(AssertUnwindSafe(|| self.work())) {
            Ok(complete) => (self.reconciler.view, complete),
            Err(fault) => {
                let why = text(&*fault);
                // If it is `tell` that fails, nobody can be told.
                let _ = catch_unwind(AssertUnwindSafe(|| (self.tell)(Event::Ended { why })));
                resume_unwind(fault)
            }
        }
    }

    fn work(&mut self) -> bool {
        self.shared.ledger().looking_since = Some(SystemTime::now());
        let looked = self.reconciler.start(&mut self.tell);
        self.schedule.done(looked.source, Instant::now());
        self.tell_last(looked);
        self.go_on();
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
        if self.options.suspects && self.shared.deadline.get().is_none() {
            self.reconciler.look_for_writers(batch);
        }
        batch.iter().for_each(|note| self.reconciler.take(note, &mut self.tell));
        self.shared.waiting.fetch_sub(batch.len(), Ordering::AcqRel);
        if self.reconciler.is_noted() {
            self.wait();
        }
    }

    /// Something is to be looked at, soon.
    fn wait(&mut self) {
        let now = Instant::now();
        self.waiting = Some((self.waiting.map_or(now, |(first, _)| first), now));
    }

    /// When what waits is looked at.
    fn due(&self) -> Option<Instant> {
        match self.waiting {
            Some((first, last)) => Some((first + self.options.patience).min(last + self.options.settle)),
            None => self.reconciler.needs_repair().then_some(self.repair_from),
        }
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
        if self.shared.waiting.load(Ordering::Acquire) == 0 {
            self.idle = now;
            if self.reconciler.tick(now, &mut self.tell) {
                self.wait();
            }
        } else if now >= self.idle + ENDLESS {
            // Large files are read and told though events never end.
            self.idle = now;
            if self.reconciler.read_on(now) {
                self.wait();
            }
        }
        if self.due().is_some_and(|due| due <= now) {
            self.waiting = None;
            self.look();
        }
        if let Some(looked) = self.reconciler.end_round() {
            self.schedule.done(looked.source, Instant::now());
            self.tell_last(looked);
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
        let start = Instant::now();
        let repairs = self.reconciler.needs_repair() && start >= self.repair_from;
        if repairs {
            self.reconciler.begin_repair();
        }
        if !self.reconciler.is_dirty() {
            return;
        }
        self.shared.ledger().looking_since = Some(SystemTime::now());
        let looked = self.reconciler.reconcile(&mut self.tell);
        let end = Instant::now();
        self.schedule.done(looked.source, end);
        self.tell_last(looked);
        self.go_on();
        if repairs {
            self.repair_from = end + end.duration_since(start).saturating_mul(BACK_OFF).min(LONGEST);
        }
    }

    /// What a look itself marked is looked at soon.
    fn go_on(&mut self) {
        if self.reconciler.is_dirty() {
            self.wait();
        }
    }

    fn end(&mut self) -> bool {
        if self.shared.lost.swap(false, Ordering::Acquire) {
            self.reconciler.lost(Cause::Queue, &mut self.tell);
        }
        self.reconciler.wake_all();
        self.reconciler.begin_repair();
        let looked = self.reconciler.reconcile(&mut self.tell);
        self.tell_last(looked);
        self.reconciler.compare(Source::End, &mut self.tell);
        let looked = self.reconciler.reconcile(&mut self.tell);
        let complete = looked.complete;
        self.tell_last(looked);
        complete
    }

    fn tell_last(&mut self, looked: Looked) {
        self.publish();
        looked.last.into_iter().for_each(&mut self.tell);
    }

    fn publish(&mut self) {
        let mut ledger = self.shared.ledger();
        self.reconciler.write(&mut ledger);
        ledger.looking_since = None;
        ledger.high_water = self.shared.high_water.load(Ordering::Acquire);
    }
}

/// What a panic says.
fn text(fault: &(dyn Any + Send)) -> String {
    let text = fault.downcast_ref::<&str>().copied().or_else(|| fault.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a word").to_owned()
}
