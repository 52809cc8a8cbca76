//! How long to wait before a failed exchange is tried again.

use std::time::Duration;

/// Exponential backoff with full jitter: the n-th wait is drawn evenly from zero to
/// `base * 2^n`, at most `cap`. Jitter keeps a fleet of devices from returning in step after an
/// outage.
#[derive(Clone, Debug)]
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

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    options: BackoffOptions,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// `seed` makes the jitter; two devices need two.
    pub fn new(options: BackoffOptions, seed: u64) -> Self {
        Self {
            options,
            failures: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Begins a new row.
    pub fn reset(&mut self) {
        self.failures = 0;
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
        match retry_after {
            Some(asked) => asked.min(self.options.retry_after_cap) + jitter,
            None => jitter,
        }
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
    fn waits_as_long_as_the_server_asks_up_to_the_cap() {
        let mut backoff = Backoff::new(BackoffOptions::default(), 1);
        let asked = Duration::from_secs(7);
        let wait = backoff.next(Some(asked));
        assert!(wait >= asked && wait <= asked + Duration::from_millis(200));
        let wait = backoff.next(Some(Duration::from_secs(u64::MAX)));
        assert!(wait <= Duration::from_secs(3601));
    }
}
