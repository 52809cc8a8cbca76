//! What a sync, a pull and a restore did.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::types::{Opened, Pulled};

/// What a sync did. One that gave up has a `failure`, and everything it did before that.
#[derive(Debug, Default)]
#[must_use = "a sync that gave up is no error: look at `failure`, or make one of it by `into_result`"]
#[non_exhaustive]
pub struct SyncReport {
    /// Operations that the server confirmed.
    pub uploaded: u64,
    /// Requests that carried them.
    pub requests: u64,
    /// Operations that the server refused, moved to the rejected log.
    pub rejected: u64,
    /// Operations that still wait.
    pub remaining: u64,
    /// True if the collection was not there and has been created.
    pub created_collection: bool,
    /// What came from the server; none if only uploads were asked for, or the sync gave up before.
    pub pulled: Option<PullReport>,
    /// Why the sync gave up, if it did. The queue is kept.
    pub failure: Option<Error>,
}

impl SyncReport {
    /// What was done by a sync that did all it should.
    ///
    /// Errors: what the sync gave up for.
    pub fn into_result(self) -> Result<Synced> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(Synced {
                uploaded: self.uploaded,
                requests: self.requests,
                rejected: self.rejected,
                remaining: self.remaining,
                created_collection: self.created_collection,
                pulled: self.pulled,
            }),
        }
    }
}

/// What a sync did that did not give up. The fields are those of [`SyncReport`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Synced {
    /// Operations that the server confirmed.
    pub uploaded: u64,
    /// Requests that carried them.
    pub requests: u64,
    /// Operations that the server refused, moved to the rejected log.
    pub rejected: u64,
    /// Operations that wait: those that were written meanwhile.
    pub remaining: u64,
    /// True if the collection was not there and has been created.
    pub created_collection: bool,
    /// What came from the server; none if only uploads were asked for.
    pub pulled: Option<PullReport>,
}

/// What a pull did.
#[derive(Debug)]
#[non_exhaustive]
pub struct PullReport {
    /// The generation now in force, and what opening it found; none if the server had nothing new.
    pub opened: Option<Opened>,
    /// Points in the shard before.
    pub points_before: u64,
    /// Points in the shard after, with what waits for upload.
    pub points: u64,
    /// Operations that the server does not have yet, applied onto what it has.
    pub replayed: u64,
    /// Bytes downloaded.
    pub bytes: u64,
    /// The shards that it came from; none for a tenant whose points lie among those of others.
    pub shards: Vec<SourceShard>,
    /// The peer of the cluster that sent them; none if it was not asked.
    pub peer: Option<u64>,
    /// Points that the server has and the shard lost, because they belong to other shards of the
    /// collection than the one that the settings name.
    pub elsewhere: u64,
    /// What came and what was kept; none if nothing is new, and if the server sends snapshots of
    /// everything only (before Qdrant 1.14.1).
    pub pulled: Option<Pulled>,
    /// Why more was fetched than changed.
    pub reasons: Vec<String>,
    /// Old copies of points that came beside newer ones, and were removed.
    pub duplicates_removed: u64,
    /// Points that this device had deleted, that came all the same and the server does not hold, and
    /// that were deleted again.
    pub deletes_applied: u64,
    /// Why the shard may not be what the server held; the next pull gets it.
    pub unsettled: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl PullReport {
    /// False if the server had nothing new.
    pub fn changed(&self) -> bool {
        self.opened.is_some()
    }
}

/// What a restore did.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The generation now in force, and what opening it found.
    pub opened: Opened,
    /// Points in it before what was written meanwhile was replayed.
    pub points: u64,
    /// Operations after the barrier that were replayed before the switch.
    pub replayed: u64,
    /// Size of the snapshot, in bytes.
    pub snapshot_bytes: u64,
    /// Operations uploaded first.
    pub uploaded: u64,
    /// Old copies of points that the snapshot held beside newer ones, and that were removed.
    pub duplicates_removed: u64,
    /// Points that this device had deleted, that the snapshot held all the same and the server does
    /// not, and that were deleted again.
    pub deletes_applied: u64,
    /// The shards that it came from.
    pub shards: Vec<SourceShard>,
    /// The peer of the cluster that sent them; none if it was not asked.
    pub peer: Option<u64>,
    /// Points that the server has and the shard lost, because they belong to other shards of the
    /// collection than the one that the settings name.
    pub elsewhere: u64,
    /// Why the generation may not be what the server held: points that others deleted may be in it
    /// until the next restore. None for a snapshot that is sound, and for a file.
    pub unsettled: Option<String>,
}

/// A shard of a collection on a server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SourceShard {
    /// Its number.
    pub shard: u32,
    /// Its shard key, in a collection that is sharded by keys.
    pub shard_key: Option<String>,
}
