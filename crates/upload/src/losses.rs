//! How many of its points a shard may lose to a restore.

/// A restore that would leave less than this share of the points is refused unless forced.
const KEPT_SHARE: f64 = 0.75;

/// Whether a snapshot with `snapshot` points may take the place of a shard that holds `held`, unless a
/// person forces it. `replayed`: operations that were applied onto the snapshot; they may have added
/// that many points.
pub fn keeps_enough(held: u64, snapshot: u64, replayed: u64) -> bool {
    snapshot.saturating_add(replayed) as f64 >= held as f64 * KEPT_SHARE
}

#[cfg(test)]
mod tests {
    use super::keeps_enough;

    #[test]
    fn three_quarters_are_enough() {
        assert!(keeps_enough(0, 0, 0));
        assert!(keeps_enough(4, 3, 0));
        assert!(keeps_enough(4, 2, 1));
        assert!(!keeps_enough(4, 2, 0));
        assert!(!keeps_enough(1, 0, 0));
        assert!(keeps_enough(u64::MAX, u64::MAX, u64::MAX));
    }
}
