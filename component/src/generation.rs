//! A generation of the engine's files: loading, replaying the log onto it, its checkpoints, and what is left
//! of generations that are not in force.

use std::collections::HashSet;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;

use edge_sync_engine::{CollectionConfig, Operation, PointId, Shard};
use edge_sync_log::Current;
use edge_sync_rollback::wasi::{self as rollback, Watch};
use edge_sync_rollback::{Identity, Journal};

use crate::directory::Directory;
use crate::error::{Error, Result, corrupt, failed_call, storage};

/// Operations applied to the engine at once while the log is replayed.
const REPLAY_BATCH: usize = 256;

/// The number of a generation's first checkpoint.
pub const FIRST_CHECKPOINT: u64 = 1;

/// The collection configuration that is stored with one generation.
pub fn load_config(directory: &Directory, generation: u64) -> Result<CollectionConfig> {
    load_config_in(&directory.collection(generation))
}

/// The collection configuration in a file.
pub fn load_config_in(path: &Path) -> Result<CollectionConfig> {
    let json = fs::read_to_string(path)
        .map_err(|error| storage("read collection configuration", path, &error))?;
    CollectionConfig::from_json(&json).map_err(|error| {
        corrupt(
            path,
            None,
            format!("not a collection configuration: {error}"),
        )
    })
}

/// Loads the engine of one generation, with its stored configuration.
pub fn load_shard(directory: &Directory, generation: u64) -> Result<Shard> {
    let config = load_config(directory, generation)?;
    Ok(Shard::reopen(&directory.shard(generation), &config)?)
}

/// Loads the engine of the generation in force, as its files were at the last checkpoint, and watches
/// over them.
pub fn load_watched(directory: &Directory, current: &Current) -> Result<(Shard, Watch)> {
    let tree = directory.shard(current.generation);
    let journals = directory.rollback(current.generation);
    let (journal, _) = Journal::roll_back(&tree, &journals, current.checkpoint)?;
    let watch = Watch::over(journal)?;
    let shard = load_shard(directory, current.generation)
        .map_err(|error| or_failed_call(error, &watch, &tree))?;
    Ok((shard, watch))
}

/// Removes generations that are not in force: what a restore, a pull or an optimization left that a
/// crash cut off.
pub fn settle_generations(directory: &Directory, in_force: u64) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for generation in directory.list_generations()? {
        if generation == in_force {
            continue;
        }
        directory.remove_generation(generation)?;
        notes.push(if generation < in_force {
            format!(
                "the change to generation {in_force} had been interrupted after its switch; it \
                 was finished by removing generation {generation}"
            )
        } else {
            format!(
                "the change to generation {generation} had been interrupted before its switch; it \
                 was rolled back, generation {in_force} is in force"
            )
        });
    }
    Ok(notes)
}

/// How far a replay came.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    pub operations: u64,
    /// Sequence of the last operation applied; 0 if there was none.
    pub last: u64,
    /// Points that were written whole.
    pub upserted: HashSet<PointId>,
    /// Tells the last operation applied from another that takes its place in the log.
    pub last_mark: u64,
}

/// Applies logged operations to an engine, in order.
pub fn replay(
    shard: &Shard,
    records: impl Iterator<Item = edge_sync_log::Result<edge_sync_log::Record>>,
) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    let mut batch = Vec::with_capacity(REPLAY_BATCH);
    let mut last = None;
    for record in records {
        let record = record?;
        let operation = Operation::decode(&record.payload)?;
        if let Operation::UpsertPoint(point) | Operation::UpsertPointIf { point, .. } = &operation {
            replayed.upserted.insert(point.id);
        }
        batch.push(operation);
        replayed.operations += 1;
        replayed.last = record.sequence;
        last = Some(record);
        if batch.len() == REPLAY_BATCH {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(REPLAY_BATCH));
            shard.apply(full)?;
        }
    }
    shard.apply(batch)?;
    replayed.last_mark = last.as_ref().map_or(0, mark);
    Ok(replayed)
}

/// Tells a record from another of the same sequence.
pub fn mark(record: &edge_sync_log::Record) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (record.time_ms, &record.payload).hash(&mut hasher);
    hasher.finish()
}

/// Syncs the engine's files and begins the journal of a checkpoint of them, which is in force once
/// `CURRENT` names it.
pub fn begin_checkpoint(
    directory: &Directory,
    generation: u64,
    checkpoint: u64,
    watch: &Watch,
    durable: &HashSet<Identity>,
) -> Result<Journal> {
    let (tree, journals) = (directory.shard(generation), directory.rollback(generation));
    check_watch(watch, "make a checkpoint after a failure in", &tree)?;
    Ok(rollback::unwatched(|| {
        Journal::begin_beside(&tree, &journals, checkpoint, durable)
    })?)
}

/// Makes the first checkpoint of a generation that is not in force yet, and all of it durable.
/// `durable`: files of the engine that are so already.
pub fn first_checkpoint(
    directory: &Directory,
    generation: u64,
    watch: &Watch,
    durable: &HashSet<Identity>,
) -> Result<Journal> {
    let journal = begin_checkpoint(directory, generation, FIRST_CHECKPOINT, watch, durable)?;
    directory.sync_generation(generation)?;
    Ok(journal)
}

/// A failed call on the engine's files, as an error of what cannot be done because of it.
pub fn check_watch(watch: &Watch, operation: &str, tree: &Path) -> Result<()> {
    watch
        .check()
        .map_err(|failure| failed_call(operation, tree, &failure))
}

/// What the engine took for damage may have been a call that failed.
pub fn or_failed_call(error: Error, watch: &Watch, tree: &Path) -> Error {
    if let Error::Corrupt(_) | Error::BadSnapshot(_) = error
        && let Err(failed) = check_watch(watch, "load", tree)
    {
        return failed;
    }
    error
}
