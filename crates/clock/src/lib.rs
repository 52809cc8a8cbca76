//! The time of day, as everything here writes it down.

use std::time::SystemTime;

/// Milliseconds since 1970 (UTC); 0 where the clock stands before that.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
