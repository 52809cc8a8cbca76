//! How much goes into one request.

/// After this many accepted requests in a row, a limit that a refusal lowered is doubled, to see
/// whether the server takes more again.
const PROBE_AFTER: u32 = 64;

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
    now: Limits,
    /// The most operations that the server took lately, where it refused more.
    operations_cap: u32,
    /// The same for points of one operation.
    points_cap: u32,
    accepted: u32,
}

impl Sizes {
    pub(crate) fn new(mut most: Limits) -> Self {
        most.operations = most.operations.max(1);
        most.bytes = most.bytes.max(1);
        most.points = most.points.max(1);
        Self {
            now: most,
            operations_cap: most.operations,
            points_cap: most.points,
            most,
            accepted: 0,
        }
    }

    pub(crate) fn now(&self) -> Limits {
        self.now
    }

    /// A request was accepted: grow.
    pub(crate) fn grow(&mut self) {
        self.accepted += 1;
        if self.accepted >= PROBE_AFTER {
            self.accepted = 0;
            self.operations_cap = double(self.operations_cap, self.most.operations);
            self.points_cap = double(self.points_cap, self.most.points);
            self.now.bytes = double(self.now.bytes, self.most.bytes);
        }
        self.now.operations = double(self.now.operations, self.operations_cap);
        self.now.points = double(self.now.points, self.points_cap);
    }

    /// The operation at fault is out of the way.
    pub(crate) fn restart(&mut self) {
        self.now.operations = self.operations_cap;
        self.now.points = self.points_cap;
    }

    /// Sends less at once, by `divisor`: fewer operations, or fewer points of one operation. False
    /// if it cannot be less.
    pub(crate) fn shrink(&mut self, operations: u32, points: u32, divisor: u32) -> bool {
        if operations > 1 {
            self.now.operations = (operations / divisor).max(1);
            return true;
        }
        if points > 1 {
            self.now.points = (points / divisor).max(1);
            return true;
        }
        false
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
