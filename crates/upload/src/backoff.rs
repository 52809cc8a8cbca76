//! How long to wait before a failed exchange is tried again.

use std::time::Duration;

/// Exponential backoff with full jitter: the n-th wait is drawn evenly from zero to
/// `base * 2^n`, at most `cap`. Jitter keeps a fleet of devices from returning in step after an
/// outage.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackoffOptions {
    /// Longest first wait. Default: 200 ms.
    pub base: Duration,
    /// Longest wait of all. Default: 30 s.
    pub cap: Duration,
    /// Longest `Retry-After` that is honoured; a longer one is cut to this. Default: 1 hour.
    pub retry_after_cap: Duration,
}

impl Default for BackoffOptions {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            cap: Duration::from_secs(30),
            retry_after_cap: Duration::from_secs(3600),
        }
    }
}

impl BackoffOptions {
    /// Sets the longest first wait.
    #[must_use]
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// Sets the longest wait of all.
    #[must_use]
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Sets the longest `Retry-After` that is honoured.
    #[must_use]
    pub fn retry_after_cap(mut self, cap: Duration) -> Self {
        self.retry_after_cap = cap;
        self
    }
}

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    options: BackoffOptions,
    failures: u32,
    /// Those of them that count towards giving up.
    attempts: u32,
    /// What the server asked the last wait to be; zero for nothing.
    asked: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// `seed` makes the jitter; two devices need two.
    pub fn new(options: BackoffOptions, seed: u64) -> Self {
        Self {
            options,
            failures: 0,
            attempts: 0,
            asked: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Begins a new row.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.attempts = 0;
    }

    /// The failures until now no longer count towards giving up: the server was heard in between.
    /// The waits go on growing.
    pub fn pardon(&mut self) {
        self.attempts = 0;
    }

    /// Failures since the last [`Backoff::reset`].
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a failure and says how long to wait. What the server asked for is waited in full, up
    /// to the cap, with the jitter on top.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let jitter = self.ceiling().mul_f64(self.random.f64());
        self.failures = self.failures.saturating_add(1);
        self.attempts = self.attempts.saturating_add(1);
        self.asked = retry_after.unwrap_or_default();
        match retry_after {
            Some(asked) => asked.min(self.options.retry_after_cap) + jitter,
            None => jitter,
        }
    }

    /// Whether somebody who makes so many attempts in a row and waits no longer than `patience` gives
    /// up instead of doing the last wait, which is `after`. The jitter on top of what the server asked
    /// for does not count.
    pub fn gives_up(&self, after: Duration, attempts: u32, patience: Duration) -> bool {
        let asked = if self.asked.is_zero() {
            after
        } else {
            after.min(self.asked)
        };
        self.attempts >= attempts || asked > patience
    }

    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.options
            .base
            .saturating_mul(factor)
            .min(self.options.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_starts_over() {
        let mut backoff = Backoff::new(BackoffOptions::default(), 1);
        let mut ceilings = Vec::new();
        for _ in 0..40 {
            let ceiling = backoff.ceiling();
            assert!(backoff.next(None) <= ceiling);
            ceilings.push(ceiling.as_millis());
        }
        assert_eq!(ceilings[..4], [200, 400, 800, 1600]);
        assert_eq!(ceilings[39], 30_000);
        backoff.reset();
        assert_eq!(backoff.ceiling(), Duration::from_millis(200));
    }

    #[test]
    fn pardoned_failures_lengthen_the_waits_and_end_no_run() {
        let mut backoff = Backoff::new(BackoffOptions::default(), 1);
        let patience = Duration::from_secs(60);
        for _ in 0..10 {
            let after = backoff.next(None);
            assert!(!backoff.gives_up(after, 2, patience));
            backoff.pardon();
        }
        assert_eq!(backoff.ceiling(), Duration::from_secs(30));
        let (_, after) = (backoff.next(None), backoff.next(None));
        assert!(backoff.gives_up(after, 2, patience));
    }

    #[test]
    fn patience_is_for_what_the_server_asked_not_for_the_jitter() {
        let minute = Duration::from_secs(60);
        let mut backoff = Backoff::new(BackoffOptions::default(), 1);
        for _ in 0..7 {
            let after = backoff.next(Some(minute));
            assert!(
                after > minute && !backoff.gives_up(after, 8, minute),
                "{after:?}"
            );
        }
        let after = backoff.next(Some(minute));
        assert!(backoff.gives_up(after, 8, minute));
        assert!(!backoff.gives_up(after, 9, minute));
        let after = backoff.next(Some(minute + Duration::from_secs(1)));
        assert!(backoff.gives_up(after, 100, minute));
        let after = backoff.next(None);
        assert!(!backoff.gives_up(after, 100, minute));
        assert!(backoff.gives_up(after, 100, after / 2));
    }

    #[test]
    fn waits_as_long_as_the_server_asks_up_to_the_cap() {
        let mut backoff = Backoff::new(BackoffOptions::default(), 1);
        let asked = Duration::from_secs(7);
        let wait = backoff.next(Some(asked));
        assert!(wait >= asked && wait <= asked + Duration::from_millis(200));
        let wait = backoff.next(Some(Duration::from_secs(u64::MAX)));
        assert!(wait <= Duration::from_secs(3601));
    }
}
