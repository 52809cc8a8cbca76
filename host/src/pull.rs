//! Following the server: the files that changed there since the last time.
//!
//! What the server holds, and above it what this device wrote and has not uploaded, becomes the next
//! generation, as in a restore. `docs/pull.md` has the steps and the invariants.

use std::sync::Arc;
use std::time::Instant;

use edge_sync_upload::{Binding, Uploader};

use crate::cancel::Cancel;
use crate::courier::Courier;
use crate::error::{Error, Result};
use crate::progress::RestoreProgress;
use crate::reports::PullReport;
use crate::restore::{Exchange, Fetched, Generation, RestoreSource, Staging, Wanted, check};
use crate::shard::Shard;
use crate::sync::{SyncOptions, wit_binding};
use crate::types::SnapshotSource;

/// What is called after each switch to what the server holds.
pub(crate) type OnPull = Arc<dyn Fn(&PullReport) + Send + Sync>;

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
