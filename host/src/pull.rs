//! Following the server: the files that changed there since the last time.
//!
//! What the server holds, and above it what this device wrote and has not uploaded, becomes the next
//! generation, as in a restore. `docs/pull.md` has the steps and the invariants.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_sync_upload::{Binding, Uploader};

use crate::cancel::Cancel;
use crate::courier::Courier;
use crate::error::{Error, Result};
use crate::restore::{
    Exchange, Fetched, Generation, RestoreProgress, RestoreSource, SourceShard, Staging, Wanted,
    check,
};
use crate::shard::Shard;
use crate::sync::{SyncOptions, wit_binding};
use crate::types::{Opened, Pulled, SnapshotSource};

/// What is called after each switch to what the server holds.
pub(crate) type OnPull = Arc<dyn Fn(&PullReport) + Send + Sync>;

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

/// Runs the pull. Uploads by others must be held back by the caller.
///
/// What waits for upload stays as it is: everything up to the acknowledged position is in what the
/// server sends, and everything above is applied onto it.
pub(crate) fn pull(
    shard: &Shard,
    courier: &Courier,
    uploader: &mut Uploader,
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<PullReport> {
    let started = Instant::now();
    let points_before = shard.info()?.points;
    // Of a server's own snapshot, nothing in the folder is the user's.
    let source = RestoreSource::Server(SnapshotSource::Stream);
    let staging = Staging::clear(shard.directory(), &source)?;
    let binding = check(shard, true, courier, uploader, false, cancel, progress)?;
    let mut queue = shard;
    uploader.accept(&mut queue, &binding)?;
    let barrier = shard.queue_status()?.acknowledged;
    let exchange = Exchange {
        shard,
        courier,
        options,
        cancel,
    };
    let generation = match exchange.fetch(&staging, Wanted::Changes, barrier, progress)? {
        Fetched::NothingNew { unsettled, from } => {
            return Ok(PullReport {
                opened: None,
                points_before,
                points: points_before,
                replayed: 0,
                bytes: 0,
                shards: from.shards,
                peer: from.peer,
                elsewhere: 0,
                pulled: None,
                reasons: Vec::new(),
                duplicates_removed: 0,
                deletes_applied: 0,
                unsettled,
                elapsed: started.elapsed(),
            });
        }
        Fetched::Staged(generation) => *generation,
    };
    if cancel.is_cancelled() {
        generation.stager.abandon();
        return Err(Error::Cancelled);
    }
    // Some of it is replayed at the switch only.
    let above = shard.queue_status()?.logged.saturating_sub(barrier);
    // What is gone from a collection that is known to have gone on was deleted there.
    if !uploader.is_proven()
        && let Some(refused) = generation.would_drop(points_before, above)
    {
        generation.stager.abandon();
        return Err(refused);
    }

    progress(RestoreProgress::Switching);
    let points = generation.points();
    let binding = Binding {
        points,
        ..uploader.binding().clone()
    };
    let Generation {
        staged,
        stager,
        bytes,
        deletes_applied,
        unsettled,
        reasons,
        elsewhere,
        from,
        ..
    } = generation;
    let opened = shard.promote(stager.into_inner()?, Some(wit_binding(&binding)))?;
    uploader.restored(&binding);
    let replayed = shard.queue_status()?.logged.saturating_sub(barrier);
    Ok(PullReport {
        opened: Some(opened),
        points_before,
        points: shard.info()?.points,
        replayed,
        bytes,
        shards: from.shards,
        peer: from.peer,
        elsewhere,
        pulled: staged.pulled,
        reasons,
        duplicates_removed: staged.duplicates_removed,
        deletes_applied,
        unsettled,
        elapsed: started.elapsed(),
    })
}
