//! When a download that failed is tried again.

use std::time::Duration;

use crate::backoff::{Backoff, BackoffOptions};
use crate::verdict::{Class, Failure};

/// Counts the attempts of one download.
#[derive(Debug)]
pub struct DownloadAttempts {
    backoff: Backoff,
    attempts: u32,
    patience: Duration,
    /// The furthest that it came. A streamed snapshot begins anew each time, and one that is always
    /// cut at the same place would never end otherwise.
    furthest: u64,
}

impl DownloadAttempts {
    /// Gives up at `attempts` failures without any new byte, and if the server asks for a wait of
    /// more than `patience`. `seed` makes the jitter.
    pub fn new(backoff: BackoffOptions, attempts: u32, patience: Duration, seed: u64) -> Self {
        Self {
            backoff: Backoff::new(backoff, seed),
            attempts,
            patience,
            furthest: 0,
        }
    }

    /// So many bytes are there.
    pub fn progressed(&mut self, bytes: u64) {
        if bytes > self.furthest {
            self.furthest = bytes;
            self.backoff.reset();
        }
    }

    /// It failed: how long to wait before the next attempt; none to give up.
    pub fn failed(&mut self, failure: &Failure) -> Option<Duration> {
        match failure.class {
            Class::Retry | Class::Unclear => self.broke(failure.retry_after),
            _ => None,
        }
    }

    /// As [`DownloadAttempts::failed`], for a failure on our side that another attempt may heal.
    pub fn broke(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        let after = self.backoff.next(retry_after);
        let gives_up = self.backoff.gives_up(after, self.attempts, self.patience);
        (!gives_up).then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut() -> Failure {
        Failure::stop("GET", "cut").with_class(Class::Unclear)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn attempts(most: u32) -> DownloadAttempts {
        DownloadAttempts::new(BackoffOptions::default(), most, MINUTE, 1)
    }

    #[test]
    fn a_wait_that_the_server_asks_for_is_done_up_to_the_patience() {
        let asked = |retry_after| Failure {
            retry_after: Some(retry_after),
            ..cut()
        };
        let mut attempts = attempts(8);
        // With its jitter it is longer.
        assert!(attempts.failed(&asked(MINUTE)).unwrap() > MINUTE);
        assert_eq!(attempts.failed(&asked(2 * MINUTE)), None);
    }

    #[test]
    fn a_download_that_is_always_cut_at_one_place_ends() {
        let mut attempts = attempts(5);
        let mut failures = 0;
        loop {
            // From the start each time, up to the same byte.
            attempts.progressed(1);
            attempts.progressed(1000);
            failures += 1;
            if attempts.failed(&cut()).is_none() {
                break;
            }
            assert!(failures < 10);
        }
        assert_eq!(failures, 5);
    }

    #[test]
    fn one_that_comes_further_goes_on() {
        let mut attempts = attempts(2);
        for bytes in 1..100 {
            attempts.progressed(bytes);
            assert!(attempts.failed(&cut()).is_some());
        }
        assert!(attempts.failed(&cut().with_class(Class::Stop)).is_none());
    }
}
