//! How a snapshot becomes the generation in force.
//!
//! A new generation is unpacked, loaded, checked and brought up to the log beside the one in
//! force. Replacing `CURRENT` is the switch; until then everything done here is in folders that
//! the next open removes.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use edge_sync_engine::{CollectionConfig, Operation, PointId, Shard, SnapshotLimits};
use edge_sync_log::{Current, Log};
use edge_sync_rollback::wasi::{self as rollback, Watch};
use edge_sync_upload::Binding;

use crate::bindings::restore::Staged;
use crate::bindings::shard::Opened;
use crate::bindings::types::Options;
use crate::directory::{self, Directory};
use crate::error::{Error, Result, storage};
use crate::store::{
    FIRST_CHECKPOINT, Store, check_options, check_watch, first_checkpoint, load_shard, log_options,
    or_failed_call, replay,
};

/// A generation that is complete but not in force.
pub struct Staging {
    directory: Directory,
    options: Options,
    /// Positions as the generation in force has them; none if the directory has no shard.
    current: Option<Current>,
    generation: u64,
    shard: Option<Shard>,
    /// Over the engine's files; there while the engine is.
    watch: Option<Watch>,
    /// What the snapshot has of records up to here is all that there will be of them.
    barrier: u64,
    replayed_to: u64,
    /// Points that operations above the barrier wrote: they are not the snapshot's any more.
    written: HashSet<PointId>,
    promoted: bool,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            shard.discard();
            rollback::abandon_changes();
        }
        self.watch = None;
        if !self.promoted
            && let Err(error) = self.directory.remove_generation(self.generation)
        {
            // The next open removes it.
            eprintln!("edge-sync: a given-up restore was not removed: {error:?}");
        }
    }
}

impl Staging {
    /// Unpacks, loads, checks, and replays what the log holds above `barrier` by now.
    pub fn stage(
        directory: Directory,
        snapshot: &Path,
        barrier: u64,
        options: Options,
    ) -> Result<(Self, Staged)> {
        check_options(&options)?;
        fs::create_dir_all(directory.root())
            .map_err(|error| storage("create data directory", directory.root(), &error))?;
        let current = Current::load(directory.root())?;
        let generation = current.as_ref().map_or(0, |current| current.generation) + 1;
        let mut staging = Self {
            directory,
            options,
            current,
            generation,
            shard: None,
            watch: None,
            barrier,
            replayed_to: barrier,
            written: HashSet::new(),
            promoted: false,
        };
        let built = staging.build(snapshot);
        let tree = staging.directory.shard(staging.generation);
        let staged = match &staging.watch {
            Some(watch) => built.map_err(|error| or_failed_call(error, watch, &tree))?,
            None => built?,
        };
        Ok((staging, staged))
    }

    fn build(&mut self, snapshot: &Path) -> Result<Staged> {
        self.directory.create_generation(self.generation)?;
        let target = self.directory.shard(self.generation);
        self.watch = Some(Watch::over_new(&target)?);
        edge_sync_engine::unpack_snapshot(snapshot, &target, SnapshotLimits::default())?;
        let shard = Shard::load(&target).map_err(unloadable)?;
        let duplicates_removed = shard.remove_duplicates().map_err(unloadable)?;
        let points = shard.read_through().map_err(unreadable)?;
        let config = self.settle_config(&shard)?;
        directory::write_durably(
            &self.directory.collection(self.generation),
            config.to_json().to_string().as_bytes(),
        )?;
        // Loaded again as it will be from now on: with the configuration that is in force.
        shard.flush()?;
        drop(shard);
        let shard = self
            .shard
            .insert(load_shard(&self.directory, self.generation)?);

        let mut replayed = 0;
        if self.current.is_some() {
            let records = edge_sync_log::follow(&self.directory.log(), self.replayed_to + 1);
            let done = replay(shard, records)?;
            replayed = done.operations;
            self.replayed_to = self.replayed_to.max(done.last);
            self.written = done.upserted;
        }
        // A failure that the engine took lightly, so that a part of the snapshot may be missing.
        if let Some(watch) = &self.watch {
            check_watch(watch, "stage a restore after a failure in", &target)?;
        }
        Ok(Staged {
            points,
            replayed,
            duplicates_removed,
        })
    }

    /// Those of the points that are the snapshot's; see `restore.held`.
    pub fn held(&self, ids: &[PointId]) -> Result<Vec<PointId>> {
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        let mut held = shard.held(ids)?;
        held.retain(|id| !self.written.contains(id));
        Ok(held)
    }

    /// Deletes points that the snapshot holds by mistake; see `restore.delete-again`.
    pub fn delete_again(&self, ids: &[PointId]) -> Result<u64> {
        let held = self.held(ids)?;
        let count = held.len() as u64;
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        shard.apply(&[Operation::DeletePoints { ids: held }])?;
        Ok(count)
    }

    /// The snapshot must be of the same collection. Other devices may have created or deleted named
    /// vectors there; those of the snapshot count.
    fn settle_config(&self, shard: &Shard) -> Result<CollectionConfig> {
        let found = shard.config();
        let Some(current) = &self.current else {
            return Ok(found);
        };
        let path = self.directory.collection(current.generation);
        let json = fs::read_to_string(&path)
            .map_err(|error| storage("read collection configuration", &path, &error))?;
        let stated = CollectionConfig::from_json(&json)?;
        let expected = Shard::config_in(&self.directory.shard(current.generation), &stated)?;
        expected.check_same_collection(&found).map_err(|error| {
            Error::BadSnapshot(format!(
                "it is of another collection configuration: {error}"
            ))
        })?;
        Ok(Shard::config_in(
            &self.directory.shard(self.generation),
            &expected,
        )?)
    }

    /// Replays the rest of the log, switches, and opens the new generation for use.
    /// `binding`: the collection that the snapshot came from; stored before the switch, since what it
    /// says of positions only makes later checks more or less careful.
    pub fn promote(mut self, binding: Option<&Binding>) -> Result<(Store, Opened)> {
        if self.current.is_none() {
            // What an interrupted `create` may have left; no shard means no operation.
            self.directory.remove_logs()?;
            crate::binding::remove(&self.directory)?;
        }
        if let Some(binding) = binding {
            crate::binding::store(&self.directory, binding)?;
        }
        let known = self.current.clone().unwrap_or_default();
        let (log, report) = Log::open(&self.directory.log(), log_options(&self.options, &known))?;
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        replay(shard, log.read(self.replayed_to + 1))?;
        let applied = log.last();
        shard.flush()?;
        let watch = self.watch.take().ok_or(Error::NotOpen)?;
        let journal = first_checkpoint(&self.directory, self.generation, &watch)?;
        drop(log);
        let previous = self.current.take();
        let switched = Current {
            generation: self.generation,
            checkpoint: FIRST_CHECKPOINT,
            applied,
            barrier: self.barrier,
            ..previous.clone().unwrap_or(Current {
                acknowledged: applied,
                ..Current::default()
            })
        };
        // From here on only `CURRENT` itself can tell which generation is in force.
        self.promoted = true;
        switched.store(self.directory.root())?;
        watch.advance(journal);

        let mut notes: Vec<String> = report.notes();
        if let Some(previous) = previous
            && let Err(error) = self.directory.remove_generation(previous.generation)
        {
            notes.push(format!(
                "generation {} was replaced but could not be removed yet: {error:?}",
                previous.generation
            ));
        }
        let shard = self.shard.take().ok_or(Error::NotOpen)?;
        let directory = self.directory.clone();
        let (store, mut opened) =
            Store::assemble(directory, self.options, shard, watch, switched, notes)?;
        opened.notes.extend(refused_only(&store)?);
        Ok((store, opened))
    }
}

/// Points that the log deleted last; see `restore.deleted-here`.
pub fn deleted_here(store: &Store, until: u64) -> Result<Vec<PointId>> {
    let mut deleted = HashSet::new();
    for record in store.log().read(0) {
        let record = record?;
        if record.sequence > until {
            break;
        }
        match Operation::decode(&record.payload)? {
            Operation::DeletePoints { ids } => deleted.extend(ids),
            Operation::UpsertPoint(point) | Operation::UpsertPointIf { point, .. } => {
                deleted.remove(&point.id);
            }
            _ => {}
        }
    }
    let mut deleted: Vec<PointId> = deleted.into_iter().collect();
    deleted.sort_unstable();
    Ok(deleted)
}

/// Tells of points that the server refused and the new generation lacks: they are nowhere else.
fn refused_only(store: &Store) -> Result<Option<String>> {
    let mut refused = HashSet::new();
    // Above 0: all of them. One in memory at a time, since they may be large.
    for sequence in store.rejected().after(0) {
        let Some(entry) = store.rejected().get(sequence)? else {
            continue;
        };
        if let Operation::UpsertPoint(point) | Operation::UpsertPointIf { point, .. } =
            Operation::decode(&entry.operation)?
        {
            refused.insert(point.id);
        }
    }
    let refused: Vec<PointId> = refused.into_iter().collect();
    let lost = refused.len() - store.shard()?.held(&refused)?.len();
    Ok(match lost {
        0 => None,
        1 => Some("1 refused point is only in the rejected log now".to_owned()),
        _ => Some(format!(
            "{lost} refused points are only in the rejected log now"
        )),
    })
}

/// What is read through after it was unpacked is the snapshot's, and so is what is wrong with it.
fn unreadable(error: edge_sync_engine::Error) -> Error {
    use edge_sync_engine::{Error as Engine, StorageKind};
    match error {
        Engine::Storage {
            kind: StorageKind::NoSpace | StorageKind::Permission,
            ..
        } => error.into(),
        error => Error::BadSnapshot(format!("a point is not readable: {error}")),
    }
}

/// What was just unpacked does not load, or a file is missing: that is the snapshot's fault.
fn unloadable(error: edge_sync_engine::Error) -> Error {
    use edge_sync_engine::{Error as Engine, StorageKind};
    match error {
        Engine::Corrupt { message, .. }
        | Engine::Storage {
            kind: StorageKind::NotFound,
            message,
            ..
        } => Error::BadSnapshot(format!("it does not load: {message}")),
        other => other.into(),
    }
}

/// Where a download for `restore` goes.
pub fn download_path(directory: &Directory) -> Result<PathBuf> {
    let staging = directory.staging();
    fs::create_dir_all(&staging)
        .map_err(|error| storage("create staging folder", &staging, &error))?;
    Ok(staging.join("shard.snapshot"))
}
