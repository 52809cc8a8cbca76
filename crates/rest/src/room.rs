//! Room for the bodies of requests, over all connections.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Result};

/// Room is counted in units of so many bytes.
const UNIT: usize = 4096;

/// Parts of the room that are for small bodies alone: one in so many. A body is small up to one in so
/// many of that part.
const SMALL_PART: usize = 4;
const SMALL_BODY: usize = 16;

/// How many bytes of request bodies are held, over all connections.
///
/// A large body has its room before its first byte is read: several that share the room would
/// otherwise stop each other halfway. Small ones have a part of their own, so that a few large ones do
/// not keep everybody out, and take of it what has come.
#[derive(Debug)]
pub(crate) struct Room {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    small_body: usize,
    large_units: usize,
    small_units: usize,
}

/// Room that a body has; dropping it gives it back.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    small: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let small_units = units / SMALL_PART;
        let large_units = units - small_units;
        Self {
            small: Arc::new(Semaphore::new(small_units)),
            large: Arc::new(Semaphore::new(large_units)),
            small_body: small_units * UNIT / SMALL_BODY,
            large_units,
            small_units,
        }
    }

    /// The largest body that there can be room for.
    pub(crate) fn largest(&self) -> usize {
        self.large_units * UNIT
    }

    /// Whether a body has to have its room before its first byte is read.
    pub(crate) fn is_large(&self, bytes: usize) -> bool {
        bytes > self.small_body
    }

    /// Bytes that are taken.
    pub(crate) fn taken(&self) -> usize {
        let free = self.small.available_permits() + self.large.available_permits();
        (self.small_units + self.large_units).saturating_sub(free) * UNIT
    }

    /// Sees to it that `held` is enough for `bytes`, of which all or none have come.
    pub(crate) fn hold(&self, held: &mut Reservation, bytes: usize) -> Result<()> {
        let (part, has) = if bytes <= self.small_body {
            (&self.small, &mut held.small)
        } else {
            (&self.large, &mut held.large)
        };
        let missing = bytes
            .div_ceil(UNIT)
            .saturating_sub(has.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let more = u32::try_from(missing)
            .ok()
            .and_then(|missing| Arc::clone(part).try_acquire_many_owned(missing).ok())
            .ok_or_else(|| {
                Error::Overloaded(
                    "the bodies of other requests take all the room that there is for bodies"
                        .to_owned(),
                )
            })?;
        match has {
            Some(permit) => permit.merge(more),
            None => *has = Some(more),
        }
        if bytes > self.small_body {
            held.small = None;
        }
        Ok(())
    }
}

impl Reservation {
    /// Bytes of a large body that there is room for already.
    pub(crate) fn large_bytes(&self) -> usize {
        self.large
            .as_ref()
            .map_or(0, |permit| permit.num_permits() * UNIT)
    }
}
