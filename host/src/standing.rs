//! Up to where a shard is, for those who read it beside its own instance.

use std::sync::{Mutex, PoisonError};

/// What a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Counts the openings of the shard; a copy that an earlier one lent is of another state.
    pub(crate) opening: u64,
    /// The last operation of a call that has returned.
    pub(crate) last: u64,
}

/// Where the shard is, as its actor tells; none while it cannot lend copies.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<Option<Position>>);

impl Standing {
    pub(crate) fn set(&self, position: Option<Position>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    pub(crate) fn get(&self) -> Option<Position> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
