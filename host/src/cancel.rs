//! Cancelling a long operation, and waiting that ends when it is cancelled.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::error::{Error, Result};

/// Asks a long operation to stop at the next good moment. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Request>);

#[derive(Debug, Default)]
struct Request {
    state: Mutex<State>,
    changed: Condvar,
    /// Keeps what it follows, whose own followers are told of the cancellation by it.
    _follows: Option<Arc<Request>>,
}

#[derive(Debug, Default)]
struct State {
    is_cancelled: bool,
    /// Those that are cancelled with this one.
    followers: Vec<Weak<Request>>,
}

impl Request {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
        let mut state = self.lock();
        state.is_cancelled = true;
        let followers = std::mem::take(&mut state.followers);
        drop(state);
        self.changed.notify_all();
        for follower in followers.iter().filter_map(Weak::upgrade) {
            follower.cancel();
        }
    }
}

impl Cancel {
    /// Not cancelled yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Asks for the stop; cannot be taken back.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// One that is cancelled with this one, and can be cancelled alone.
    pub(crate) fn follower(&self) -> Cancel {
        let follower = Cancel(Arc::new(Request {
            _follows: Some(Arc::clone(&self.0)),
            ..Request::default()
        }));
        let mut state = self.0.lock();
        if state.is_cancelled {
            drop(state);
            follower.cancel();
        } else {
            state.followers.retain(|other| other.strong_count() > 0);
            state.followers.push(Arc::downgrade(&follower.0));
        }
        follower
    }

    /// True once [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.lock().is_cancelled
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Sleeps; an error if cancelled before or meanwhile.
    pub(crate) fn sleep(&self, duration: Duration) -> Result<()> {
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(self.0.lock(), duration, |state| !state.is_cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        if state.is_cancelled {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_is_cancelled_with_what_it_follows_and_not_the_other_way() {
        let first = Cancel::new();
        let alone = first.follower();
        let second = first.clone().follower().follower();
        alone.cancel();
        assert!(alone.is_cancelled() && !first.is_cancelled() && !second.is_cancelled());
        first.cancel();
        // Although nobody holds the one between.
        assert!(first.is_cancelled() && second.is_cancelled());
        assert!(first.follower().is_cancelled());
    }

    #[test]
    fn a_follower_that_sleeps_wakes() {
        let cancel = Cancel::new();
        let follower = cancel.follower();
        let asleep = std::thread::spawn(move || follower.sleep(Duration::from_secs(600)));
        cancel.cancel();
        assert!(matches!(asleep.join().unwrap(), Err(Error::Cancelled)));
    }
}
