//! What threads share and wait for changes of.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A value behind a lock; whoever waits is woken when [`Watched::change`] has changed it.
#[derive(Debug, Default)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Watched<T> {
        Watched {
            value: Mutex::new(value),
            changed: Condvar::new(),
        }
    }

    /// For a look, or a change that nobody waits for.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits for a change. It may wake for nothing.
    pub(crate) fn wait<'a>(&self, value: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.changed
            .wait(value)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, and so long at most.
    pub(crate) fn wait_for<'a>(
        &self,
        value: MutexGuard<'a, T>,
        longest: Duration,
    ) -> MutexGuard<'a, T> {
        self.changed
            .wait_timeout(value, longest)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}
