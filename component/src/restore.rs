//! How a snapshot, or an optimized copy, becomes the generation in force.
//!
//! A new generation is unpacked, loaded, checked and brought up to the log beside the one in
//! force. Replacing `CURRENT` is the switch; until then everything done here is in folders that
//! the next open removes.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use edge_sync_engine::{
    CollectionConfig, Operation, PointId, ScrollRequest, Selection, Shard, SnapshotLimits,
};
use edge_sync_log::{Current, Log};
use edge_sync_mirror::{Links, Mirror, Offer, Outcome, Settings};
use edge_sync_rollback::Identity;
use edge_sync_rollback::wasi::{self as rollback, Watch};
use edge_sync_upload::Binding;

use crate::bindings::restore::{Pulled, Staged};
use crate::bindings::shard::Opened;
use crate::bindings::types::Options;
use crate::directory::{self, Directory};
use crate::error::{Error, Result, describe, failed_call, invalid, storage};
use crate::generation::{
    FIRST_CHECKPOINT, check_watch, first_checkpoint, load_config, load_shard, mark, or_failed_call,
    replay,
};
use crate::optimize;
use crate::optimized;
use crate::pulled_shard::{Answer, PulledShard};
use crate::share;
use crate::store::{Store, check_options, load_current, log_options};
use crate::tenant::PointsFile;
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
    /// Records up to here are not replayed: what the snapshot lacks of them stays away.
    barrier: u64,
    replayed_to: u64,
    /// Points that operations above the barrier wrote: they are not the snapshot's any more.
    written: HashSet<PointId>,
    /// Of the operation `replayed_to`, if anything was replayed.
    replayed_mark: Option<u64>,
    /// Files of the engine that are links to the mirror's, which are durable.
    links: HashSet<Identity>,
    /// It holds what the generation in force holds, and not what a server does.
    optimized: bool,
    promoted: bool,
}

/// What a generation is made of.
enum Source<'a> {
    /// Snapshots of everything, one of each shard.
    Snapshots(&'a [PathBuf]),
    /// What a pull brought for each shard, and the mirror that it was asked with.
    Answers(&'a [Answer<'a>]),
    /// A tenant's points.
    Points(&'a Path),
}

/// What became of an answer.
pub enum Prepared {
    /// A generation.
    Staged(Box<Staging>, Staged),
    /// Nothing, since the answer at this place is in doubt for these reasons; what to ask with
    /// instead.
    Again(usize, Offer, Vec<String>),
}

/// The engine's files of a new generation.
struct Files {
    segments: u64,
    pulled: Option<Pulled>,
}

/// What a new generation's files are, or what is in doubt about them.
type Laid = std::result::Result<Files, Doubted>;

/// Which answer is in doubt, what to ask with instead, and why.
type Doubted = (usize, Offer, Vec<String>);

/// Points of a page while all are listed.
const SCROLLED: usize = 10_000;

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
            eprintln!(
                "edge-sync: a given-up restore was not removed: {}",
                describe(&error)
            );
        }
    }
}

impl Staging {
    /// Unpacks, loads, checks, and replays what the log holds above `barrier` by now.
    pub fn stage(
        directory: Directory,
        snapshots: &[PathBuf],
        barrier: u64,
        options: Options,
    ) -> Result<(Self, Staged)> {
        Self::stage_whole(directory, &Source::Snapshots(snapshots), barrier, options)
    }

    /// As [`Staging::stage`], of a file of a tenant's points.
    pub fn stage_points(
        directory: Directory,
        points: &Path,
        barrier: u64,
        options: Options,
    ) -> Result<(Self, Staged)> {
        Self::stage_whole(directory, &Source::Points(points), barrier, options)
    }

    fn stage_whole(
        directory: Directory,
        source: &Source<'_>,
        barrier: u64,
        options: Options,
    ) -> Result<(Self, Staged)> {
        match Self::prepare(directory, source, barrier, options)? {
            Prepared::Staged(staging, staged) => Ok((*staging, staged)),
            Prepared::Again(..) => Err(Error::Internal(
                "a snapshot of everything was asked for again".to_owned(),
            )),
        }
    }

    /// As [`Staging::stage`], of the answers to a pull.
    pub fn stage_pull(
        directory: Directory,
        answers: &[Answer<'_>],
        barrier: u64,
        options: Options,
    ) -> Result<Prepared> {
        Self::prepare(directory, &Source::Answers(answers), barrier, options)
    }

    /// Opens the copy that was made of the generation in force, optimizes it, and replays what the
    /// log holds by now that it lacks. None, and nothing is staged, if there was nothing to do.
    pub fn stage_optimized(
        directory: Directory,
        options: Options,
    ) -> Result<Option<(Self, Staged)>> {
        check_options(&options)?;
        let in_force = load_current(&directory)?.generation;
        let barrier = optimized::begun(&directory, in_force)?.barrier;
        let mut staging = Self::new(directory, options, Some(in_force), barrier);
        staging.optimized = true;
        let is_built = share::settle(&staging.directory, staging.generation)?;
        let tree = staging.directory.shard(staging.generation);
        staging.watch = Some(Watch::over_new(&tree)?);
        let built = staging.optimize(is_built);
        let built = match &staging.watch {
            Some(watch) => built.map_err(|error| or_failed_call(error, watch, &tree))?,
            None => built?,
        };
        Ok(built.map(|staged| (staging, staged)))
    }

    /// `is_built`: others have done a part of it.
    fn optimize(&mut self, is_built: bool) -> Result<Option<Staged>> {
        let shard = load_shard(&self.directory, self.generation)?;
        let shard = self.shard.insert(shard);
        if !shard.optimize_observed(optimize::tell_indexed)? && !is_built {
            return Ok(None);
        }
        let points = shard.info()?.points;
        let replayed = self.follow()?;
        let tree = self.directory.shard(self.generation);
        if let Some(watch) = &self.watch {
            check_watch(watch, "optimize after a failure in", &tree)?;
        }
        Ok(Some(Staged {
            points,
            replayed,
            duplicates_removed: 0,
            pulled: None,
        }))
    }

    /// Replays what the log of the shard that is to be replaced holds by now; answers how many
    /// operations that was.
    fn follow(&mut self) -> Result<u64> {
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        let records = edge_sync_log::follow(&self.directory.log(), self.replayed_to + 1);
        let done = replay(shard, records)?;
        if done.operations > 0 {
            self.replayed_to = done.last;
            self.replayed_mark = Some(done.last_mark);
        }
        self.written = done.upserted;
        Ok(done.operations)
    }

    /// Of the generation after the one that is replaced, without anything in it yet.
    fn new(directory: Directory, options: Options, replaces: Option<u64>, barrier: u64) -> Self {
        Self {
            directory,
            options,
            replaces,
            generation: replaces.unwrap_or(0) + 1,
            shard: None,
            watch: None,
            barrier,
            replayed_to: barrier,
            written: HashSet::new(),
            replayed_mark: None,
            links: HashSet::new(),
            optimized: false,
            promoted: false,
        }
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
        let mut staging = Self::new(directory, options, replaces, barrier);
        staging.directory.create_generation(staging.generation)?;
        let laid = match source {
            Source::Snapshots(snapshots) => staging.unpack(snapshots).map(Ok),
            Source::Answers(answers) => staging.lay_out(answers),
            Source::Points(points) => staging.insert(points).map(Ok),
        };
        let built = match laid {
            Ok(Err((at, offer, doubts))) => return Ok(Prepared::Again(at, offer, doubts)),
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

    fn unpack(&mut self, snapshots: &[PathBuf]) -> Result<Files> {
        let target = self.directory.shard(self.generation);
        let limits = SnapshotLimits::default();
        let (first, others) = snapshots
            .split_first()
            .ok_or_else(|| invalid("snapshots", "there is none"))?;
        self.watch = Some(Watch::over_new(&target)?);
        let mut segments = edge_sync_engine::unpack_snapshot(first, &target, limits)?;
        for other in others {
            // The shard's own files are those of the first; all have the same configuration.
            let beside = self.directory.generation(self.generation).join("unpacking");
            segments += edge_sync_engine::unpack_snapshot(other, &beside, limits)?;
            move_segments(&beside.join("segments"), &target.join("segments"))?;
            fs::remove_dir_all(&beside).map_err(|error| storage("remove", &beside, &error))?;
        }
        Ok(Files {
            segments,
            pulled: None,
        })
    }

    /// Writes a tenant's points into a shard of their own.
    fn insert(&mut self, points: &Path) -> Result<Files> {
        let target = self.directory.shard(self.generation);
        self.watch = Some(Watch::over_new(&target)?);
        let shard = PointsFile::open(points)?.build(&target)?;
        shard.flush()?;
        Ok(Files {
            segments: shard.segments()?,
            pulled: None,
        })
    }

    /// The mirrors, durable, and the engine's files of all of them.
    fn lay_out(&mut self, answers: &[Answer<'_>]) -> Result<Laid> {
        let target = self.directory.shard(self.generation);
        let mut files = Files {
            segments: 0,
            pulled: None,
        };
        let mut total = no_pull();
        let mut seen = BTreeSet::new();
        for (at, answer) in answers.iter().enumerate() {
            let mirror = match self.lay_out_one(answer, &target, &mut total)? {
                Ok(mirror) => mirror,
                Err((offer, doubts)) => return Ok(Err((at, offer, doubts))),
            };
            for segment in mirror.segments().keys() {
                if !seen.insert(segment.clone()) {
                    return Err(Error::BadSnapshot(format!(
                        "segment {segment} came from two shards"
                    )));
                }
            }
            files.segments += mirror.segments().len() as u64;
        }
        // The name of the mirrors' folder.
        directory::sync_path(&self.directory.generation(self.generation))?;
        directory::sync_path(&self.directory.mirrors(self.generation))?;
        self.watch = Some(Watch::over_new(&target)?);
        files.pulled = Some(total);
        Ok(Ok(files))
    }

    /// The mirror of one shard, and the engine's files of it beside those of others.
    fn lay_out_one(
        &mut self,
        answer: &Answer<'_>,
        target: &Path,
        total: &mut Pulled,
    ) -> Result<std::result::Result<Mirror, (Offer, Vec<String>)>> {
        let PulledShard { origin, offer, .. } = answer.shard;
        let folder = self.directory.mirror(self.generation, origin.shard);
        fs::create_dir_all(&folder)
            .map_err(|error| storage("create the mirror's folder", &folder, &error))?;
        let outcome = match answer.archive {
            Some(archive) => {
                let settings = Settings {
                    origin: origin.clone(),
                    settled: answer.settled,
                    links: Links::Try,
                };
                edge_sync_mirror::apply(offer, archive, &folder, &settings)?
            }
            None => edge_sync_mirror::carry(offer, &folder, answer.settled, Links::Try)?,
        };
        let (mirror, report, unsynced) = match outcome {
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
        let working = match edge_sync_mirror::build(&mirror, &target.join("segments"), Links::Try) {
            Ok(working) => working,
            Err(edge_sync_mirror::Error::Damaged {
                segment,
                file,
                message,
            }) => {
                let why = format!("{file}: {message}");
                let doubts = vec![doubt(&segment, &why)];
                return match offer.without([(segment, why)]) {
                    Some(offer) => Ok(Err((offer, doubts))),
                    None => Err(Error::BadSnapshot(doubts.concat())),
                };
            }
            Err(error) => return Err(error.into()),
        };
        unsynced.sync()?;
        for link in &working.links {
            let status = edge_sync_rollback::status(link)
                .map_err(|error| storage("look at", link, &error))?;
            self.links.extend(status.map(|status| status.identity));
        }
        total.received_bytes += report.received_bytes;
        total.received_files += report.received_files;
        total.kept_files += report.kept_files;
        total.kept_bytes += report.kept_bytes;
        total.segments_kept += report.segments_kept;
        total.segments_fetched += report.segments_fetched;
        total.segments_removed += report.segments_removed;
        total.linked_files += working.linked_files;
        total.copied_bytes += working.copied_bytes;
        Ok(Ok(mirror))
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
        let loaded = shard.segments()?;
        if loaded < segments {
            return Err(failed_call(
                "load what was unpacked to",
                &target,
                &format!("the snapshot has {segments} segments, and {loaded} are there"),
            ));
        }
        let duplicates_removed = shard.remove_duplicates().map_err(unloadable)?;
        let points = match &files.pulled {
            // Reading every point would take longer than what came.
            // No point is in two segments by now.
            Some(pulled) if pulled.received_bytes < pulled.kept_bytes => shard.copies()?,
            _ => shard.read_through().map_err(unreadable)?,
        };
        let shard = if self.replaces.is_some() {
            shard
        } else {
            self.keep_config(&shard.config())?;
            let kept = load_config(&self.directory, self.generation)?;
            if shard.runs_as(&kept)? {
                shard
            } else {
                // As it will be from now on.
                shard.flush()?;
                drop(shard);
                Shard::reopen(&target, &kept)?
            }
        };
        self.shard = Some(shard);
        let replayed = match self.replaces {
            Some(_) => self.follow()?,
            None => 0,
        };
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

    /// Those of the points that are not there; see `restore.lacking`.
    pub fn lacking(&self, ids: &[PointId]) -> Result<Vec<PointId>> {
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        let held: HashSet<PointId> = shard.held(ids)?.into_iter().collect();
        Ok(ids
            .iter()
            .filter(|id| !held.contains(id))
            .copied()
            .collect())
    }

    /// Deletes points that the snapshot holds by mistake; see `restore.delete-again`.
    pub fn delete_again(&self, ids: &[PointId]) -> Result<u64> {
        let held = self.held(ids)?;
        let count = held.len() as u64;
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        shard.apply(vec![Operation::DeletePoints { ids: held }])?;
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
            None if self.optimized => {}
            None => crate::binding::note_contact(&self.directory)?,
        }
        let known = previous.clone().unwrap_or_default();
        let (log, report) = Log::open(&self.directory.log(), log_options(&self.options, &known))?;
        if let Some(expected) = self.replayed_mark {
            let record = log.read(self.replayed_to).next().transpose()?;
            if record.as_ref().map(mark) != Some(expected) {
                return Err(Error::NeedsReopen(
                    "a write that was replayed onto the staged generation has been taken back; \
                     begin again"
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
            barrier: match &previous {
                Some(previous) if self.optimized => previous.barrier,
                _ => self.barrier,
            },
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
                "generation {} was replaced but could not be removed yet: {}",
                previous.generation,
                describe(&error)
            ));
        }
        let shard = self.shard.take().ok_or(Error::NotOpen)?;
        let (directory, optimized) = (self.directory.clone(), self.optimized);
        let (store, mut opened) = Store::assemble(
            directory,
            self.options,
            Some((shard, watch)),
            switched,
            notes,
        )?;
        if !optimized {
            opened.notes.extend(refused_only(&store)?);
        }
        Ok((store, opened))
    }
}

/// All points of the open shard, by id.
pub fn all_points(store: &Store) -> Result<Vec<PointId>> {
    let mut ids = Vec::new();
    let mut offset = None;
    loop {
        let page = store.shard()?.scroll(ScrollRequest {
            offset,
            limit: SCROLLED,
            filter: None,
            selection: Selection::default(),
        })?;
        ids.extend(page.points.into_iter().map(|point| point.id));
        match page.next {
            Some(next) => offset = Some(next),
            None => return Ok(ids),
        }
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

fn no_pull() -> Pulled {
    Pulled {
        received_bytes: 0,
        received_files: 0,
        kept_files: 0,
        kept_bytes: 0,
        segments_kept: 0,
        segments_fetched: 0,
        segments_removed: 0,
        linked_files: 0,
        copied_bytes: 0,
    }
}

/// Moves the folders of segments to those of other shards.
fn move_segments(from: &Path, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| storage("move segments from", from, &error);
    for entry in fs::read_dir(from).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if to.join(&name).exists() {
            return Err(Error::BadSnapshot(format!(
                "segment {} came from two shards",
                name.display()
            )));
        }
        fs::rename(from.join(&name), to.join(&name)).map_err(failed)?;
    }
    Ok(())
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

/// Where a download of a shard's snapshot for `restore` goes.
pub fn download_path(directory: &Directory, shard: u32) -> Result<PathBuf> {
    let staging = directory.staging();
    fs::create_dir_all(&staging)
        .map_err(|error| storage("create staging folder", &staging, &error))?;
    Ok(staging.join(format!("shard-{shard}.snapshot")))
}
