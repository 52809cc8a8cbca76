//! An optimization beside the work: this instance's shard is copied, and another instance optimizes
//! the copy.
//!
//! ```text
//! generations/N+1/shard/            the copy: links to the files that no write touches
//! generations/N+1/mirror/           the server's files, links all of them
//! generations/N+1/optimized.json    up to which operation of the log the copy is
//! ```
//!
//! What `optimized.json` says has two readers. The builder replays what comes after. And the instance
//! that has the shard open keeps that in the log for as long as the file is there, whatever is flushed
//! and uploaded meanwhile, and whether it is the instance that made the copy or one that was opened
//! after it.

use std::fs;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::directory::{self, Directory};
use crate::error::{Result, describe, storage};
use crate::optimized::Optimized;
use crate::store::Store;
use edge_sync_mirror::{Links, duplicate_mirrors, duplicate_shard};
use edge_sync_rollback::wasi as rollback;

/// How often the building of a graph is told of.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Points between two looks at the clock.
const LOOK_EVERY: u64 = 32;

/// Copies the open shard for another instance; see `restore.begin-optimize`.
pub fn begin(store: &mut Store) -> Result<Option<u64>> {
    if !store.shard()?.has_optimizations() {
        return Ok(None);
    }
    // The files are all that is copied.
    store.checkpoint_anyway()?;
    let (generation, barrier) = (store.current().generation, store.current().applied);
    let noted = Optimized {
        barrier,
        created_here: store.created_here()?,
    };
    let directory = store.directory().clone();
    let copied = rollback::unwatched(|| copy(&directory, generation, noted));
    if copied.is_err()
        && let Err(error) = directory.remove_generation(generation + 1)
    {
        // The next opening removes it.
        eprintln!(
            "edge-sync: a copy that failed was not removed: {}",
            describe(&error)
        );
    }
    copied?;
    store.keep_log_after(Some(barrier));
    Ok(Some(barrier))
}

fn copy(directory: &Directory, generation: u64, noted: Optimized) -> Result<()> {
    let next = generation + 1;
    directory.create_generation(next)?;
    duplicate_shard(
        &directory.shard(generation),
        &directory.shard(next),
        Links::Try,
        &rollback::data_length,
    )?;
    let mirrors = directory.mirrors(next);
    duplicate_mirrors(&directory.mirrors(generation), &mirrors, Links::Try)?
        .unsynced
        .sync()?;
    let config = directory.collection(generation);
    let bytes = fs::read(&config)
        .map_err(|error| storage("read collection configuration", &config, &error))?;
    directory::write_durably(&directory.collection(next), &bytes)?;
    noted.store(directory, next)
}

/// Removes the copy, unless it has come into force; see `restore.end-optimize`.
pub fn end(store: &mut Store) -> Result<()> {
    let directory = store.directory().clone();
    let copy = store.current().generation + 1;
    store.keep_log_after(None);
    rollback::unwatched(|| directory.remove_generation(copy))
}

/// Tells on stderr how far a graph is; see `restore.stage-optimize`.
pub fn tell_indexed(linked: u64, total: u64) {
    thread_local! {
        static TOLD: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
    }
    if linked != total && !linked.is_multiple_of(LOOK_EVERY) {
        return;
    }
    let now = Instant::now();
    let told = TOLD.get();
    if linked != total && told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
        return;
    }
    TOLD.set(Some(now));
    let line = format!("edge-sync: indexed {linked} of {total} points\n");
    // Nobody may be reading.
    let _ = io::stderr().write_all(line.as_bytes());
}
