//! Cancelling a long operation, and waiting that ends when it is cancelled.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// Asks a long operation to stop at the next good moment. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Cancel(CancellationToken);

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
        Cancel(self.0.child_token())
    }

    /// True once [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns once it is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Sleeps; an error if cancelled before or meanwhile. Without a runtime, because callers may be
    /// within one, which cannot be entered again.
    pub(crate) fn sleep(&self, duration: Duration) -> Result<()> {
        let begun = Instant::now();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cancelled = pin!(self.0.cancelled());
        loop {
            let polled = cancelled.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                return Err(Error::Cancelled);
            }
            match duration.checked_sub(begun.elapsed()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ => return Ok(()),
            }
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
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
