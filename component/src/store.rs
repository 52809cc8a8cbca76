//! The open shard: engine, log and positions, and the one way that a write takes through them.
//!
//! Invariants:
//! - an operation is in the log before it is in the engine, and in both before a call returns;
//! - `CURRENT.applied` never exceeds what the engine's files hold durably: it moves only in
//!   [`Store::checkpoint`], after the generation was synced as a whole;
//! - what is opened is the engine's files as they were at the checkpoint that `CURRENT` names, byte
//!   for byte, whatever was done to them since (`edge_sync_rollback`);
//! - whatever the log holds above `applied` is applied again at the next open, in order, and
//!   operations are such that this ends in the same state;
//! - after a failure that leaves the engine's memory in doubt, nothing more is accepted and
//!   nothing in memory reaches the disk: the directory is opened again and replayed;
//! - what is logged has room, in memory and on the disk, to be applied and flushed ([`room`]).
//!
//! Where the engine cannot be loaded, the log, the positions and the rejected log can be opened
//! without it, so that what waits for upload is not lost with it ([`Store::open_queue`]).

mod positions;
mod write;

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use edge_sync_engine::{CollectionConfig, Shard};
use edge_sync_log::{Current, Log, LogOptions, MIN_SEGMENT_BYTES, Rejected};
use edge_sync_rollback::wasi::{self as rollback, Watch};
use edge_sync_upload::refusal_fingerprint;

use crate::bindings::shard::Opened;
use crate::bindings::types::{Durability, Options};
use crate::directory::{self, Directory};
use crate::error::{Error, Result, describe, invalid, is_no_space, storage};
use crate::generation::{
    FIRST_CHECKPOINT, begin_checkpoint, check_watch, first_checkpoint, load_config, load_watched,
    replay, settle_generations,
};
use crate::optimized::{self, Optimized};
use crate::reserve::Reserve;
use crate::trial;

/// An open shard with everything that belongs to it.
pub struct Store {
    directory: Directory,
    options: Options,
    /// `None` if only the queue is open, and while the store is being taken apart.
    shard: Option<Shard>,
    /// Over the engine's files, for as long as the engine lives.
    watch: Option<Watch>,
    log: Log,
    pub(crate) rejected: Rejected,
    pub(crate) current: Current,
    /// What `CURRENT` says.
    stored: Current,
    /// Whether the engine's files changed in ways that the log does not tell.
    reorganized: bool,
    unflushed_bytes: u64,
    acknowledged_stored: Instant,
    /// The log keeps what comes after this operation, for an optimization that is under way.
    kept_after: Option<u64>,
    /// The directory says that something was confirmed.
    contact_noted: bool,
    reserve: Reserve,
    /// Free bytes of the disk, as the host told them for the next write.
    free_disk: Option<u64>,
    doubt: Option<String>,
}

impl Drop for Store {
    fn drop(&mut self) {
        // Dropping the engine flushes it, which would write a state in doubt to disk.
        if self.check().is_err()
            && let Some(shard) = self.shard.take()
        {
            shard.discard();
            rollback::abandon_changes();
        }
    }
}

impl Store {
    /// Creates a shard. The directory has one once `CURRENT` is there; what a crash left before
    /// that is cleared away by the next attempt.
    pub fn create(directory: Directory, config: &str, options: Options) -> Result<(Self, Opened)> {
        check_options(&options)?;
        let config = CollectionConfig::from_json(config)?;
        fs::create_dir_all(directory.root())
            .map_err(|error| storage("create data directory", directory.root(), &error))?;
        if Current::load(directory.root())?.is_some() {
            return Err(Error::AlreadyExists(format!(
                "there is a shard in {} already",
                directory.root().display()
            )));
        }
        trial::run(&directory)?;
        for generation in directory.list_generations()? {
            directory.remove_generation(generation)?;
        }
        directory.remove_logs()?;
        crate::binding::remove(&directory)?;

        let current = Current {
            generation: 1,
            checkpoint: FIRST_CHECKPOINT,
            ..Current::default()
        };
        directory.create_generation(current.generation)?;
        directory::write_durably(
            &directory.collection(current.generation),
            config.to_json().to_string().as_bytes(),
        )?;
        let watch = Watch::over_new(&directory.shard(current.generation))?;
        let shard = Shard::create(&directory.shard(current.generation), &config)?;
        shard.flush()?;
        let journal = first_checkpoint(&directory, current.generation, &watch, &HashSet::new())?;
        current.store(directory.root())?;
        watch.advance(journal);
        let engine = Some((shard, watch));
        Self::assemble(directory, options, engine, current, Vec::new())
    }

    /// Opens the generation in force, as it was at its last checkpoint, and brings it up to the end
    /// of the log.
    pub fn open(directory: Directory, options: Options) -> Result<(Self, Opened)> {
        check_options(&options)?;
        if Current::load(directory.root())?.is_some() {
            trial::run(&directory)?;
        }
        let current = load_current(&directory)?;
        let notes = settle_generations(&directory, current.generation)?;
        directory.remove_readers()?;
        with_reserve(&directory, || {
            Self::load(directory.clone(), options, current.clone(), notes.clone())
        })
    }

    /// [`Store::open`] after an instance of this host that had the directory open was lost. What it
    /// logged after `returned` was never answered and is taken back; generations that another
    /// instance may be staging stay.
    pub fn reopen(directory: Directory, options: Options, returned: u64) -> Result<(Self, Opened)> {
        check_options(&options)?;
        let current = load_current(&directory)?;
        // Before the engine is loaded, which may be what cannot be done because of it.
        let notes = with_reserve(&directory, || {
            take_back_after(&directory, &options, &current, returned)
        })?;
        with_reserve(&directory, || {
            Self::load(directory.clone(), options, current.clone(), notes.clone())
        })
    }

    /// Opens the log, the positions and the rejected log, without the engine.
    pub fn open_queue(directory: Directory, options: Options) -> Result<(Self, Opened)> {
        check_options(&options)?;
        let current = load_current(&directory)?;
        with_reserve(&directory, || {
            let (directory, current) = (directory.clone(), current.clone());
            Self::assemble(directory, options, None, current, Vec::new())
        })
    }

    fn load(
        directory: Directory,
        options: Options,
        current: Current,
        notes: Vec<String>,
    ) -> Result<(Self, Opened)> {
        let engine = load_watched(&directory, &current)?;
        Self::assemble(directory, options, Some(engine), current, notes)
    }

    /// Puts an open engine, if there is one, and the log together, and replays what the engine has
    /// not flushed.
    pub fn assemble(
        directory: Directory,
        options: Options,
        // Dropped in this order if something fails.
        engine: Option<(Shard, Watch)>,
        current: Current,
        mut notes: Vec<String>,
    ) -> Result<(Self, Opened)> {
        let (log, report) = Log::open(&directory.log(), log_options(&options, &current))?;
        notes.extend(report.notes());
        let (mut rejected, report) = Rejected::open(&directory.rejected(), refusal_fingerprint)?;
        notes.extend(report.notes());
        // A crash came between moving it there and moving on: it is uploaded again, and the server
        // decides again.
        for undecided in rejected.after(current.acknowledged) {
            rejected.remove(undecided)?;
        }
        let (shard, watch) = engine.unzip();
        let mut store = Self {
            reserve: Reserve::of(&directory),
            kept_after: optimized::kept_after(&directory, current.generation),
            free_disk: None,
            directory,
            options,
            shard,
            watch,
            log,
            rejected,
            stored: current.clone(),
            current,
            reorganized: false,
            unflushed_bytes: 0,
            acknowledged_stored: Instant::now(),
            contact_noted: false,
            doubt: None,
        };
        let replayed = store.catch_up()?;
        if replayed == 0 {
            // Otherwise a flush is due, which may need the room.
            store.reserve.fill();
        }
        let opened = Opened {
            generation: store.current.generation,
            replayed,
            notes,
        };
        Ok((store, opened))
    }

    /// Replays what the engine has not flushed; answers how many operations that was.
    fn catch_up(&mut self) -> Result<u64> {
        let Some(watch) = &self.watch else {
            return Ok(0);
        };
        // The engine may have gone on after a write that failed while it was loaded: then its memory and
        // its files differ.
        let tree = self.directory.shard(self.current.generation);
        check_watch(watch, "open after a failure in", &tree)?;
        let replayed = match replay(self.shard()?, self.log.read(self.current.applied + 1)) {
            Ok(replayed) => replayed,
            Err(error) => {
                self.doubt = Some("replay failed".to_owned());
                return Err(error);
            }
        };
        check_watch(watch, "replay after a failure in", &tree)?;
        self.unflushed_bytes = self.log.bytes_after(self.current.applied)?;
        Ok(replayed.operations)
    }

    /// Syncs the log, flushes, stores the positions and closes. Answers what could not be done once
    /// the log was synced. In doubt there is nothing to flush: all that was returned is in the log.
    pub fn close(mut self) -> Result<Vec<String>> {
        if let Err(error) = self.check() {
            self.doubt.get_or_insert_with(|| describe(&error));
            return Ok(Vec::new());
        }
        self.log.sync()?;
        // What loading has changed would be taken back by the next opening, and changed again.
        if let Some(watch) = &self.watch
            && self.log.last() == self.current.applied
            && watch.has_changed()?
        {
            self.reorganized = true;
        }
        Ok(match self.checkpoint() {
            Ok(()) => Vec::new(),
            Err(error) => vec![format!(
                "the shard was closed without a flush, everything is in its log: {}",
                describe(&error)
            )],
        })
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn current(&self) -> &Current {
        &self.current
    }

    pub fn rejected(&self) -> &Rejected {
        &self.rejected
    }

    /// The collection configuration of the generation in force.
    pub fn config(&self) -> Result<CollectionConfig> {
        if let Some(shard) = &self.shard {
            return Ok(shard.config());
        }
        let generation = self.current.generation;
        let stated = load_config(&self.directory, generation)?;
        Ok(Shard::config_in(
            &self.directory.shard(generation),
            &stated,
        )?)
    }

    /// Takes note of what is free of the disk, for the next write; answers the log's last sequence.
    pub fn before_write(&mut self, free_disk: Option<u64>) -> u64 {
        self.free_disk = free_disk;
        self.log.last()
    }

    /// The engine, unless it is in doubt.
    pub fn shard(&self) -> Result<&Shard> {
        self.check()?;
        self.shard.as_ref().ok_or(Error::NotOpen)
    }

    /// A failed call on the engine's files is as bad as a failure that the engine reports: it may
    /// have taken it lightly, and its files be other than it thinks.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(reason) = &self.doubt {
            return Err(Error::NeedsReopen(reason.clone()));
        }
        let Some(watch) = &self.watch else {
            return Ok(());
        };
        watch.check().map_err(|failure| {
            Error::NeedsReopen(format!("a call on the shard's files failed: {failure}"))
        })
    }

    /// Does `run`, and does it again once the reserve is given up, if the disk is full.
    fn with_room<T>(&mut self, mut run: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        match run(self) {
            Err(error) if is_no_space(&error) && self.reserve.release() => run(self),
            outcome => outcome,
        }
    }

    /// Makes everything applied durable in the engine's own files, moves `applied`, and lets the
    /// log forget what both readers have passed. Does nothing if there is nothing to do.
    ///
    /// After a failure nobody knows what the engine's files hold, so it leaves the store in doubt:
    /// opening it again goes back to the checkpoint in force and replays the log.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.check()?;
        if self.log.last() == self.current.applied && !self.reorganized {
            return self.store_current();
        }
        // Put back whatever comes of it: without the watch, changes of the engine's files are not saved.
        let Some(watch) = self.watch.take() else {
            return self.store_current();
        };
        let made = self.make_checkpoint(&watch);
        self.watch = Some(watch);
        made.inspect_err(|error| {
            self.doubt = Some(format!("an earlier flush failed: {}", describe(error)));
            if is_no_space(error) {
                // For the flush that follows the next opening.
                self.reserve.release();
            }
        })?;
        self.reserve.fill();
        Ok(())
    }

    /// A checkpoint, also where the log says that there is nothing to flush.
    pub fn checkpoint_anyway(&mut self) -> Result<()> {
        self.reorganized = true;
        self.checkpoint()
    }

    fn make_checkpoint(&mut self, watch: &Watch) -> Result<()> {
        if !self.reserve.is_whole() {
            // The disk was full before. A flush that fails for that cannot be tried again.
            self.reserve.release();
        }
        let applied = self.log.last();
        let (generation, checkpoint) = (self.current.generation, self.current.checkpoint + 1);
        rollback::save_ahead().map_err(|error| {
            let path = self.directory.rollback(generation);
            storage("save what is overwritten to", &path, &error)
        })?;
        self.shard()?.flush()?;
        let journal = begin_checkpoint(
            &self.directory,
            generation,
            checkpoint,
            watch,
            &HashSet::new(),
        )?;
        self.current.applied = applied;
        self.current.checkpoint = checkpoint;
        self.store_current()?;
        self.log.begin_segment_if_worth_it()?;
        if let Err(error) = rollback::unwatched(|| journal.remove_others()) {
            // The next checkpoint or the next opening removes it.
            eprintln!("edge-sync: the journal of an old checkpoint was not removed: {error}");
        }
        watch.advance(journal);
        self.reorganized = false;
        self.unflushed_bytes = 0;
        Ok(())
    }

    /// `CURRENT` is durable before the log's tail may be, but must never be ahead of it.
    pub(crate) fn store_current(&mut self) -> Result<()> {
        self.log.sync()?;
        if self.current != self.stored {
            self.with_room(|store| Ok(store.current.store(store.directory.root())?))?;
            self.stored = self.current.clone();
        }
        self.acknowledged_stored = Instant::now();
        let passed = self.current.applied.min(self.current.acknowledged);
        self.log
            .reclaim(self.kept_after.map_or(passed, |kept| kept.min(passed)))?;
        Ok(())
    }

    /// From now on the log keeps what comes after this operation, whatever is flushed and uploaded.
    pub fn keep_log_after(&mut self, sequence: Option<u64>) {
        self.kept_after = sequence;
    }

    /// Whether the shard was created here, and never restored or pulled.
    pub fn created_here(&self) -> Result<bool> {
        let generation = self.current.generation;
        if self.current.barrier > 0 {
            return Ok(false);
        }
        Ok(generation == 1
            || Optimized::load(&self.directory, generation)?
                .is_some_and(|noted| noted.created_here))
    }

    /// Makes all logged operations durable, whatever the durability setting.
    pub fn sync_log(&mut self) -> Result<()> {
        Ok(self.log.sync()?)
    }

    /// The configuration that the shard was made from: the body of `PUT /collections/{c}`.
    pub fn creation_config(&self) -> Result<String> {
        let path = self.directory.collection(self.current.generation);
        fs::read_to_string(&path)
            .map_err(|error| storage("read collection configuration", &path, &error))
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where the shard is.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Changes the collection's parameters to those of `config`, whose vectors are the shard's: the
    /// engine is loaded again with them. If that fails, they are as before.
    pub fn configure(&mut self, config: &CollectionConfig) -> Result<()> {
        // So that the files need nothing of the log, whichever parameters they are loaded with.
        self.checkpoint()?;
        let path = self.directory.collection(self.current.generation);
        let before = self.creation_config()?;
        let json = config.to_json().to_string();
        self.with_room(|_| directory::replace_durably(&path, json.as_bytes()))?;
        let Err(error) = self.load_again() else {
            return Ok(());
        };
        directory::replace_durably(&path, before.as_bytes())?;
        self.load_again()?;
        Err(error)
    }

    /// Loads the engine from its files, which are those of the last checkpoint.
    fn load_again(&mut self) -> Result<()> {
        self.doubt = Some("the shard could not be loaded again".to_owned());
        if let Some(shard) = self.shard.take() {
            shard.discard();
            rollback::abandon_changes();
        }
        self.watch = None;
        let (shard, watch) = load_watched(&self.directory, &self.current)?;
        (self.shard, self.watch) = (Some(shard), Some(watch));
        self.doubt = None;
        Ok(())
    }

    /// Merges segments and builds indexes. True if anything was done.
    pub fn optimize(&mut self) -> Result<bool> {
        self.reorganized = true;
        let done = self.shard()?.optimize().map_err(|error| {
            self.doubt = Some(format!("optimizing failed: {error}"));
            Error::from(error)
        })?;
        self.reorganized = done;
        self.checkpoint()?;
        Ok(done)
    }
}

/// `CURRENT`, or the error that there is no shard.
pub fn load_current(directory: &Directory) -> Result<Current> {
    Current::recover(directory.root())?.ok_or_else(|| {
        Error::NotFound(format!(
            "there is no shard in {}",
            directory.root().display()
        ))
    })
}

/// Takes back what a call logged that never returned: all after `returned`, but for what has been
/// flushed or uploaded since, or is part of a call that was. Answers what there is to tell.
fn take_back_after(
    directory: &Directory,
    options: &Options,
    current: &Current,
    returned: u64,
) -> Result<Vec<String>> {
    let (mut log, report) = Log::open(&directory.log(), log_options(options, current))?;
    let mut notes = report.notes();
    let keep = returned.max(current.applied).max(current.acknowledged);
    let count = log.records_after(keep);
    match log.truncate_after(keep) {
        Ok(()) if count > 0 => notes.push(format!(
            "{count} operation{} of a call that ended without an answer were taken back",
            if count == 1 { "" } else { "s" }
        )),
        Ok(()) | Err(edge_sync_log::Error::InsideCall { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(notes)
}

/// Does `run`, and does it again once the reserve of `directory` is given up, if the disk is full.
fn with_reserve<T>(directory: &Directory, run: impl Fn() -> Result<T>) -> Result<T> {
    match run() {
        Err(error) if is_no_space(&error) && Reserve::of(directory).release() => run(),
        outcome => outcome,
    }
}

/// Refuses options outside of their documented range.
pub fn check_options(options: &Options) -> Result<()> {
    if let Some(bytes) = options.log_segment_bytes
        && bytes < MIN_SEGMENT_BYTES
    {
        return Err(invalid(
            "options.log-segment-bytes",
            format!("{bytes} is too small, at least {MIN_SEGMENT_BYTES} are needed"),
        ));
    }
    Ok(())
}

/// The log's side of the options, and what `current` tells of its end.
pub fn log_options(options: &Options, current: &Current) -> LogOptions {
    LogOptions {
        durability: match options.durability {
            Durability::Always => edge_sync_log::Durability::Always,
            Durability::Interval(milliseconds) => {
                edge_sync_log::Durability::Interval(Duration::from_millis(milliseconds.into()))
            }
            Durability::Os => edge_sync_log::Durability::Os,
        },
        segment_bytes: options
            .log_segment_bytes
            .unwrap_or_else(|| LogOptions::default().segment_bytes),
        durable_to: current.applied.max(current.acknowledged),
    }
}
