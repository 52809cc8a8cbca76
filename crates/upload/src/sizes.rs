//! How much goes into one request: as much as the link and the server bear.
//!
//! The first request is small. While full requests are answered quickly, the next is twice as large; if
//! one is answered slowly, or fails, the next is half as large.

use std::time::Duration;

/// After this many accepted requests in a row, a limit that a refusal lowered is doubled, to see
/// whether the server takes more again.
const PROBE_AFTER: u32 = 64;

/// A request that is answered sooner could have been larger.
const QUICK: Duration = Duration::from_secs(1);

/// A request that is answered later should have been smaller: whatever cuts it off then costs that
/// much work.
const SLOW: Duration = Duration::from_secs(5);

/// How much one request may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Operations, at least 1. A point that is upserted counts as one.
    pub operations: u32,
    /// Bytes of body; a single larger operation still goes out alone.
    pub bytes: u32,
    /// Points of one operation, at least 1; an operation on more goes out in pieces.
    pub points: u32,
    /// Of the first operation, change only the points that the server has.
    pub present_only: bool,
}

/// The limits as they are learnt from the server.
#[derive(Debug)]
pub(crate) struct Sizes {
    /// What the settings allow.
    most: Limits,
    /// Operations of the first request.
    first: u32,
    now: Limits,
    /// Operations that were answered quickly enough.
    pace: u32,
    /// The most operations that the server took lately, where it refused more.
    operations_cap: u32,
    /// The same for points of one operation.
    points_cap: u32,
    accepted: u32,
}

impl Sizes {
    /// `most_operations`: how far the operations of `first` may grow.
    pub(crate) fn new(first: Limits, most_operations: u32) -> Self {
        let now = Limits {
            operations: first.operations.max(1),
            bytes: first.bytes.max(1),
            points: first.points.max(1),
            ..first
        };
        let most = Limits {
            operations: most_operations.max(now.operations),
            ..now
        };
        Self {
            now,
            first: now.operations,
            pace: now.operations,
            operations_cap: most.operations,
            points_cap: most.points,
            most,
            accepted: 0,
        }
    }

    /// What the settings allow.
    pub(crate) fn most(&self) -> Limits {
        self.most
    }

    pub(crate) fn now(&self) -> Limits {
        self.now
    }

    /// A request of so many operations was accepted: grow. `took`: how long that was, if it is known.
    pub(crate) fn grow(&mut self, operations: u32, took: Option<Duration>) {
        self.accepted += 1;
        if self.accepted >= PROBE_AFTER {
            self.accepted = 0;
            self.operations_cap = double(self.operations_cap, self.most.operations);
            self.points_cap = double(self.points_cap, self.most.points);
            self.now.bytes = double(self.now.bytes, self.most.bytes);
        }
        match took {
            // What was not full tells nothing of a fuller one.
            Some(took) if took < QUICK && operations >= self.pace => {
                self.pace = double(self.pace, self.most.operations);
            }
            Some(took) if took > SLOW => {
                self.pace = (self.pace / 2).max(self.first);
                self.now.operations = self.now.operations.min(self.pace);
            }
            _ => {}
        }
        self.now.operations = double(self.now.operations, self.pace.min(self.operations_cap));
        self.now.points = double(self.now.points, self.points_cap);
    }

    /// The operation at fault is out of the way.
    pub(crate) fn restart(&mut self) {
        self.now.operations = self.pace.min(self.operations_cap);
        self.now.points = self.points_cap;
    }

    /// Sends less at once, by `divisor`: fewer operations, or fewer points of one operation. False
    /// if it cannot be less.
    pub(crate) fn shrink(&mut self, operations: u32, points: u32, divisor: u32) -> bool {
        if operations > 1 {
            self.now.operations = (operations / divisor).max(1);
            self.fell_at(operations);
            return true;
        }
        if points > 1 {
            self.now.points = (points / divisor).max(1);
            return true;
        }
        false
    }

    /// A request of so many operations failed in passing: the next is no larger than the first.
    pub(crate) fn fall_back(&mut self, operations: u32) {
        if operations > self.first {
            self.now.operations = self.now.operations.min(self.first);
            self.fell_at(operations);
        }
    }

    /// What failed is not tried again soon, however quickly less is answered.
    fn fell_at(&mut self, operations: u32) {
        self.accepted = 0;
        self.pace = self.pace.min(self.now.operations).max(self.first);
        self.operations_cap = self.operations_cap.min((operations / 2).max(self.first));
    }

    /// The server does not take so many bytes. What can be divided is: a single operation that
    /// cannot says nothing about half of it.
    pub(crate) fn too_many_bytes(&mut self, sent: usize, divisible: bool) {
        self.accepted = 0;
        let sent = u32::try_from(sent).unwrap_or(u32::MAX).min(self.now.bytes);
        self.now.bytes = if divisible { sent.div_ceil(2) } else { sent }.max(1);
    }

    /// The server does not take so much in one request, and counts points: upserts are one each, an
    /// operation on many points is many.
    pub(crate) fn too_many_points(&mut self, operations: u32, points: u32) {
        self.accepted = 0;
        if operations > 1 {
            self.operations_cap = (operations / 2).max(1);
        } else if points > 1 {
            self.points_cap = (points / 2).max(1);
        }
    }
}

fn double(now: u32, most: u32) -> u32 {
    now.saturating_mul(2).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(first: u32, most: u32) -> Sizes {
        let first = Limits {
            operations: first,
            bytes: 1 << 20,
            points: 100,
            present_only: false,
        };
        Sizes::new(first, most)
    }

    fn quick(sizes: &mut Sizes) {
        sizes.grow(sizes.now().operations, Some(Duration::from_millis(30)));
    }

    #[test]
    fn requests_grow_from_the_first_while_they_are_answered_quickly() {
        let mut sizes = sizes(10, 100);
        let mut sent = Vec::new();
        for _ in 0..6 {
            sent.push(sizes.now().operations);
            quick(&mut sizes);
        }
        assert_eq!(sent, [10, 20, 40, 80, 100, 100]);
        // Neither quick nor slow, or nobody knows.
        sizes.grow(100, Some(Duration::from_secs(2)));
        sizes.grow(100, None);
        assert_eq!(sizes.now().operations, 100);
        sizes.grow(100, Some(Duration::from_secs(9)));
        assert_eq!(sizes.now().operations, 50);
        for _ in 0..9 {
            sizes.grow(sizes.now().operations, Some(Duration::from_secs(9)));
        }
        assert_eq!(sizes.now().operations, 10, "no less than the first");
    }

    #[test]
    fn what_was_not_full_tells_nothing() {
        let mut sizes = sizes(10, 1000);
        for _ in 0..5 {
            sizes.grow(3, Some(Duration::from_millis(1)));
        }
        assert_eq!(sizes.now().operations, 10);
    }

    #[test]
    fn after_a_failure_growth_begins_below_it() {
        let mut sizes = sizes(10, 1000);
        for _ in 0..7 {
            quick(&mut sizes);
        }
        assert_eq!(sizes.now().operations, 1000);
        assert!(sizes.shrink(1000, 1, 8));
        assert_eq!(sizes.now().operations, 125);
        quick(&mut sizes);
        assert_eq!(sizes.now().operations, 250);
        // Down to one, and back to the first at once if that passes.
        while sizes.shrink(sizes.now().operations, 1, 2) {}
        assert_eq!(sizes.now().operations, 1);
        sizes.restart();
        assert_eq!(sizes.now().operations, 10);
    }

    #[test]
    fn what_failed_is_not_tried_again_soon() {
        let mut sizes = sizes(10, 1000);
        quick(&mut sizes);
        assert_eq!(sizes.now().operations, 20);
        // Passing, as a server that sheds load answers what is large.
        sizes.fall_back(20);
        for _ in 0..PROBE_AFTER - 1 {
            assert_eq!(sizes.now().operations, 10);
            quick(&mut sizes);
        }
        quick(&mut sizes);
        assert_eq!(sizes.now().operations, 20);
        // What was no larger than the first is not at fault for its size.
        sizes.fall_back(5);
        assert_eq!(sizes.now().operations, 20);
    }

    #[test]
    fn a_first_above_the_most_stays() {
        let mut sizes = sizes(50, 1);
        quick(&mut sizes);
        assert_eq!(sizes.now().operations, 50);
    }
}
