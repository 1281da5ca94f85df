//! A list that one thread fills while a test waits for what will be in it. It knows nothing of what it holds.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::DEADLINE;

/// Items in order of arrival, and whether more can come.
pub(crate) struct Seen<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: Vec<T>,
    complete: bool,
}

impl<T: Clone> Seen<T> {
    pub(crate) fn new() -> Self {
        let state = State { items: Vec::new(), complete: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn push(&self, item: T) {
        self.lock().items.push(item);
        self.changed.notify_all();
    }

    /// Says that nothing more will come, which ends every wait at once.
    pub(crate) fn complete(&self) {
        self.lock().complete = true;
        self.changed.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.lock().items.clone()
    }

    /// Waits until `find` finds something in the list so far. `None` when the deadline passed or nothing more
    /// will come.
    pub(crate) fn wait_for<R>(&self, find: impl Fn(&[T]) -> Option<R>) -> Option<R> {
        let waiting = |state: &mut State<T>| !state.complete && find(&state.items).is_none();
        let (state, _) = self.changed.wait_timeout_while(self.lock(), DEADLINE, waiting).unwrap_or_else(PoisonError::into_inner);
        find(&state.items)
    }

    /// Waits until nothing more will come; `false` when the deadline passed first.
    pub(crate) fn wait_complete(&self) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), DEADLINE, |state| !state.complete)
            .unwrap_or_else(PoisonError::into_inner);
        state.complete
    }

    // A test thread that panicked inside `find` leaves the list whole, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
