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
use edge_sync_mirror::{Links, Offer, Outcome, Settings};
use edge_sync_rollback::Identity;
use edge_sync_rollback::wasi::{self as rollback, Watch};
use edge_sync_upload::Binding;

use crate::bindings::restore::{Pulled, Staged};
use crate::bindings::shard::Opened;
use crate::bindings::types::Options;
use crate::directory::{self, Directory};
use crate::error::{Error, Result, failed_call, storage};
use crate::pull::Answer;
use crate::store::{
    FIRST_CHECKPOINT, Store, check_options, check_watch, first_checkpoint, load_config, load_shard,
    log_options, mark, or_failed_call, replay,
};
use crate::trial;

/// A generation that is complete but not in force.
pub struct Staging {
    directory: Directory,
    options: Options,
    /// The generation in force when staging began; none if the directory had no shard.
    replaces: Option<u64>,
    generation: u64,
    shard: Option<Shard>,
    /// Over the engine's files; there while the engine is.
    watch: Option<Watch>,
    /// What the snapshot has of records up to here is all that there will be of them.
    barrier: u64,
    replayed_to: u64,
    /// Points that operations above the barrier wrote: they are not the snapshot's any more.
    written: HashSet<PointId>,
    /// Of the operation `replayed_to`, if anything was replayed.
    replayed_mark: Option<u64>,
    /// Files of the engine that are links to the mirror's, which are durable.
    links: HashSet<Identity>,
    promoted: bool,
}

/// What a generation is made of.
enum Source<'a> {
    /// A snapshot of everything.
    Snapshot(&'a Path),
    /// What a pull brought, and the mirror that it was asked with.
    Answer(&'a Answer<'a>),
}

/// What became of an answer.
pub enum Prepared {
    /// A generation.
    Staged(Box<Staging>, Staged),
    /// Nothing, since it is in doubt for these reasons; what to ask with instead.
    Again(Offer, Vec<String>),
}

/// The engine's files of a new generation.
struct Files {
    segments: u64,
    pulled: Option<Pulled>,
}

/// What a new generation's files are, or what is in doubt about them.
type Laid = std::result::Result<Files, (Offer, Vec<String>)>;

/// A pull that brought at least this share of the data has its points read through as after a
/// restore; one that brought less would cost more than it brought.
const READ_THROUGH_SHARE: u64 = 4;

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            shard.discard();
            rollback::abandon_changes();
        }
        self.watch = None;
        // Another shard may have come into force under this number.
        let in_force = match Current::load(self.directory.root()) {
            Ok(current) => current.is_some_and(|current| current.generation == self.generation),
            Err(_) => true,
        };
        if !self.promoted
            && !in_force
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
        match Self::prepare(directory, &Source::Snapshot(snapshot), barrier, options)? {
            Prepared::Staged(staging, staged) => Ok((*staging, staged)),
            Prepared::Again(..) => Err(Error::Internal(
                "a snapshot of everything was asked for again".to_owned(),
            )),
        }
    }

    /// As [`Staging::stage`], of the answer to a pull.
    pub fn stage_pull(
        directory: Directory,
        answer: &Answer<'_>,
        barrier: u64,
        options: Options,
    ) -> Result<Prepared> {
        Self::prepare(directory, &Source::Answer(answer), barrier, options)
    }

    fn prepare(
        directory: Directory,
        source: &Source<'_>,
        barrier: u64,
        options: Options,
    ) -> Result<Prepared> {
        check_options(&options)?;
        fs::create_dir_all(directory.root())
            .map_err(|error| storage("create data directory", directory.root(), &error))?;
        let replaces = Current::load(directory.root())?.map(|current| current.generation);
        if replaces.is_none() {
            // Where there is a shard, its opening has tried it.
            trial::run(&directory)?;
        }
        let generation = replaces.unwrap_or(0) + 1;
        let mut staging = Self {
            directory,
            options,
            replaces,
            generation,
            shard: None,
            watch: None,
            barrier,
            replayed_to: barrier,
            written: HashSet::new(),
            replayed_mark: None,
            links: HashSet::new(),
            promoted: false,
        };
        staging.directory.create_generation(staging.generation)?;
        let laid = match source {
            Source::Snapshot(snapshot) => staging.unpack(snapshot).map(Ok),
            Source::Answer(answer) => staging.lay_out(answer),
        };
        let built = match laid {
            Ok(Err((offer, doubts))) => return Ok(Prepared::Again(offer, doubts)),
            Ok(Ok(files)) => staging.build(&files),
            Err(error) => Err(error),
        };
        let tree = staging.directory.shard(staging.generation);
        let staged = match &staging.watch {
            Some(watch) => built.map_err(|error| or_failed_call(error, watch, &tree))?,
            None => built?,
        };
        Ok(Prepared::Staged(Box::new(staging), staged))
    }

    fn unpack(&mut self, snapshot: &Path) -> Result<Files> {
        let target = self.directory.shard(self.generation);
        self.watch = Some(Watch::over_new(&target)?);
        let segments =
            edge_sync_engine::unpack_snapshot(snapshot, &target, SnapshotLimits::default())?;
        Ok(Files {
            segments,
            pulled: None,
        })
    }

    /// The mirror, durable, and the engine's files of it.
    fn lay_out(&mut self, answer: &Answer<'_>) -> Result<Laid> {
        let folder = self.directory.mirror(self.generation, answer.origin.shard);
        fs::create_dir_all(&folder)
            .map_err(|error| storage("create the mirror's folder", &folder, &error))?;
        let settings = Settings {
            origin: answer.origin.clone(),
            settled: answer.settled,
            links: Links::Try,
        };
        let (mirror, report, unsynced) =
            match edge_sync_mirror::apply(answer.offer, answer.archive, &folder, &settings)? {
                Outcome::Applied {
                    mirror,
                    report,
                    unsynced,
                } => (mirror, report, unsynced),
                Outcome::Again { offer, why } => {
                    let doubts = why.iter().map(|(segment, why)| doubt(segment, why));
                    return Ok(Err((offer, doubts.collect())));
                }
                Outcome::Everything { offer, why } => return Ok(Err((offer, vec![why]))),
            };
        let target = self.directory.shard(self.generation);
        let working = match edge_sync_mirror::build(&mirror, &target.join("segments"), Links::Try) {
            Ok(working) => working,
            Err(edge_sync_mirror::Error::Damaged {
                segment,
                file,
                message,
            }) => {
                let why = format!("{file}: {message}");
                let doubts = vec![doubt(&segment, &why)];
                return match answer.offer.without([(segment, why)]) {
                    Some(offer) => Ok(Err((offer, doubts))),
                    None => Err(Error::BadSnapshot(doubts.concat())),
                };
            }
            Err(error) => return Err(error.into()),
        };
        unsynced.sync()?;
        // The names of the mirror's folder and of its parent.
        for folder in folder.ancestors().skip(1).take(2) {
            directory::sync_path(folder)?;
        }
        for link in &working.links {
            let status = edge_sync_rollback::status(link)
                .map_err(|error| storage("look at", link, &error))?;
            self.links.extend(status.map(|status| status.identity));
        }
        self.watch = Some(Watch::over_new(&target)?);
        Ok(Ok(Files {
            segments: mirror.segments().len() as u64,
            pulled: Some(Pulled {
                received_bytes: report.received_bytes,
                received_files: report.received_files,
                kept_files: report.kept_files,
                kept_bytes: report.kept_bytes,
                segments_kept: report.segments_kept,
                segments_fetched: report.segments_fetched,
                segments_removed: report.segments_removed,
                linked_files: working.linked_files,
                copied_bytes: working.copied_bytes,
            }),
        }))
    }

    fn build(&mut self, files: &Files) -> Result<Staged> {
        let target = self.directory.shard(self.generation);
        let segments = files.segments;
        // Over a shard the configuration is known before the engine loads what came, which is read
        // once then.
        let shard = match self.replaces {
            Some(replaced) => {
                let found = Shard::config_shown(&target).map_err(unloadable)?;
                let config = self.settle_config(replaced, &found)?;
                self.keep_config(&config)?;
                Shard::reopen(&target, &config).map_err(unloadable)?
            }
            None => Shard::load(&target).map_err(unloadable)?,
        };
        let loaded = u64::from(shard.info()?.segments);
        if loaded < segments {
            return Err(failed_call(
                "load what was unpacked to",
                &target,
                &format!("the snapshot has {segments} segments, and {loaded} are there"),
            ));
        }
        let duplicates_removed = shard.remove_duplicates().map_err(unloadable)?;
        let points = match &files.pulled {
            Some(pulled) if pulled.received_bytes < pulled.kept_bytes / READ_THROUGH_SHARE => {
                shard.info()?.points
            }
            _ => shard.read_through().map_err(unreadable)?,
        };
        let shard = if self.replaces.is_some() {
            shard
        } else {
            self.keep_config(&shard.config())?;
            // Loaded again as it will be from now on: with the configuration that is in force.
            shard.flush()?;
            drop(shard);
            load_shard(&self.directory, self.generation)?
        };
        let shard = self.shard.insert(shard);

        let mut replayed = 0;
        if self.replaces.is_some() {
            let records = edge_sync_log::follow(&self.directory.log(), self.replayed_to + 1);
            let done = replay(shard, records)?;
            replayed = done.operations;
            if done.operations > 0 {
                self.replayed_to = done.last;
                self.replayed_mark = Some(done.last_mark);
            }
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
            pulled: files.pulled,
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
    fn settle_config(&self, replaced: u64, found: &CollectionConfig) -> Result<CollectionConfig> {
        let stated = load_config(&self.directory, replaced)?;
        let expected = Shard::config_in(&self.directory.shard(replaced), &stated)?;
        expected.check_same_collection(found).map_err(|error| {
            Error::BadSnapshot(format!(
                "it is of another collection configuration: {error}"
            ))
        })?;
        Ok(Shard::config_in(
            &self.directory.shard(self.generation),
            &expected,
        )?)
    }

    fn keep_config(&self, config: &CollectionConfig) -> Result<()> {
        directory::write_durably(
            &self.directory.collection(self.generation),
            config.to_json().to_string().as_bytes(),
        )
    }

    /// Replays the rest of the log, switches, and opens the new generation for use.
    /// `binding`: the collection that the snapshot came from; stored before the switch, since what it
    /// says of positions only makes later checks more or less careful.
    pub fn promote(mut self, binding: Option<&Binding>) -> Result<(Store, Opened)> {
        // Positions as they are now: since staging began, uploads may have gone on, and the log may
        // have forgotten what they confirmed.
        let previous = Current::recover(self.directory.root())?;
        let in_force = previous.as_ref().map(|current| current.generation);
        if in_force != self.replaces {
            return Err(Error::AlreadyExists(format!(
                "since this restore began, another shard has come into force in {}",
                self.directory.root().display()
            )));
        }
        if previous.is_none() {
            // What an interrupted `create` may have left; no shard means no operation.
            self.directory.remove_logs()?;
            crate::binding::remove(&self.directory)?;
        }
        match binding {
            Some(binding) => crate::binding::store(&self.directory, binding)?,
            None => crate::binding::note_contact(&self.directory)?,
        }
        let known = previous.clone().unwrap_or_default();
        let (log, report) = Log::open(&self.directory.log(), log_options(&self.options, &known))?;
        if let Some(expected) = self.replayed_mark {
            let record = log.read(self.replayed_to).next().transpose()?;
            if record.as_ref().map(mark) != Some(expected) {
                return Err(Error::NeedsReopen(
                    "a write that was replayed onto the staged generation has been taken back; \
                     restore again"
                        .to_owned(),
                ));
            }
        }
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        replay(shard, log.read(self.replayed_to + 1))?;
        let applied = log.last();
        shard.flush()?;
        let watch = self.watch.take().ok_or(Error::NotOpen)?;
        let journal = first_checkpoint(&self.directory, self.generation, &watch, &self.links)?;
        drop(log);
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
        let (store, mut opened) = Store::assemble(
            directory,
            self.options,
            Some((shard, watch)),
            switched,
            notes,
        )?;
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

fn doubt(segment: &str, why: &str) -> String {
    format!("segment {segment}: {why}")
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
