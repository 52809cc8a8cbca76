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

use std::collections::HashSet;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use edge_sync_engine::{CollectionConfig, Operation, PointId, Shard, Write};
use edge_sync_log::{Current, Log, LogOptions, MIN_SEGMENT_BYTES, Rejected, RejectedOperation};
use edge_sync_rollback::wasi::{self as rollback, Watch};
use edge_sync_rollback::{Identity, Journal};
use edge_sync_upload::refusal_fingerprint;
use serde_json::{Value, json};

use crate::bindings::shard::Opened;
use crate::bindings::types::{Durability, Options, Receipt, SequenceRange};
use crate::directory::{self, Directory};
use crate::error::{Error, Result, corrupt, describe, failed_call, invalid, is_no_space, storage};
use crate::optimize::{self, Optimized};
use crate::reserve::Reserve;
use crate::room;
use crate::trial;

const DEFAULT_FLUSH_AFTER_BYTES: u64 = 32 << 20;

/// Operations applied to the engine at once while the log is replayed.
const REPLAY_BATCH: usize = 256;

/// The number of a generation's first checkpoint.
pub const FIRST_CHECKPOINT: u64 = 1;

/// How long an acknowledgement may stay in memory only. Losing one costs a second upload of
/// operations that are idempotent.
const ACKNOWLEDGE_LAG: Duration = Duration::from_millis(250);

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
            kept_after: optimize::kept_after(&directory, current.generation),
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
        // A failure that the engine took lightly while it was loaded: what it holds is not what the
        // files do.
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

    /// Validates a write, logs what it comes to, applies it.
    ///
    /// A batch in which a filter depends on what comes before it takes several steps, each of
    /// them logged and applied as a whole; all of it is validated before the first.
    pub fn write(&mut self, write: Write) -> Result<Receipt> {
        self.shard()?.validate(&write)?;
        let mut receipt = self.commit(&[])?;
        for step in write.steps() {
            let operations = self.shard()?.prepare(step)?;
            let committed = self.commit(&operations)?;
            receipt.sequence = committed.sequence;
            receipt.operations = receipt.operations.saturating_add(committed.operations);
        }
        Ok(receipt)
    }

    /// Logs and applies operations that were prepared by this store's engine.
    pub fn commit(&mut self, operations: &[Operation]) -> Result<Receipt> {
        self.shard()?;
        if !operations.is_empty() {
            let before = self.log.last();
            let payloads: Vec<Vec<u8>> = operations.iter().map(Operation::encode).collect();
            let bytes: usize = payloads.iter().map(Vec::len).sum();
            if operations.iter().any(Operation::adds) {
                self.admit(bytes as u64)?;
                self.log.append(&payloads)?;
            } else {
                self.with_room(|store| Ok(store.log.append(&payloads)?))?;
            }
            if let Err(error) = self.shard()?.apply(operations) {
                return Err(self.take_back(before, error.into()));
            }
            self.unflushed_bytes += bytes as u64;
            self.flush_if_due();
        }
        Ok(Receipt {
            sequence: self.log.last(),
            operations: count(operations.len()),
        })
    }

    /// Refuses a write that adds `bytes`, as logged, to the shard, if there is not room for it and
    /// for what must be possible afterwards.
    fn admit(&mut self, bytes: u64) -> Result<()> {
        room::check_memory(self.options.memory_bytes, bytes)?;
        if !self.reserve.is_whole() {
            self.reserve.fill();
            self.reserve.check()?;
        }
        let Some(free) = self.free_disk.take() else {
            return Ok(());
        };
        let root = self.directory.root().to_path_buf();
        let unflushed = self.unflushed_bytes;
        if room::check_disk(&root, Some(free), unflushed, bytes).is_ok() || unflushed == 0 {
            return room::check_disk(&root, Some(free), unflushed, bytes);
        }
        // A flush takes some room, and needs less afterwards. How much is free then is not known
        // before the next write.
        self.checkpoint()?;
        let free = free.saturating_sub(unflushed.saturating_mul(2));
        room::check_disk(&root, Some(free), 0, bytes)
    }

    /// The engine failed on operations that are in the log: they must not be there when the call
    /// has failed, and the engine may hold a part of them.
    fn take_back(&mut self, before: u64, error: Error) -> Error {
        let mut doubt = format!("an earlier write failed: {}", describe(&error));
        if let Err(log_error) = self.log.truncate_after(before) {
            doubt = format!("{doubt}; taking it back from the log failed too: {log_error}");
        }
        self.doubt = Some(doubt);
        error
    }

    /// The write that made a flush due is durable in the log already, so a failing flush is not
    /// its failure.
    fn flush_if_due(&mut self) {
        let limit = self
            .options
            .flush_after_bytes
            .unwrap_or(DEFAULT_FLUSH_AFTER_BYTES);
        if self.unflushed_bytes >= limit
            && let Err(error) = self.checkpoint()
        {
            eprintln!("edge-sync: a flush failed: {}", describe(&error));
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

    /// The server has confirmed everything up to `last`.
    pub fn acknowledge(&mut self, last: u64) -> Result<()> {
        self.check()?;
        if last > self.log.last() {
            return Err(invalid(
                "last",
                format!(
                    "{last} is beyond the last logged operation {}",
                    self.log.last()
                ),
            ));
        }
        if last <= self.current.acknowledged {
            return Ok(());
        }
        if !self.contact_noted {
            self.with_room(|store| crate::binding::note_contact(&store.directory))?;
            self.contact_noted = true;
        }
        self.current.acknowledged = last;
        if last == self.log.last() || self.acknowledged_stored.elapsed() >= ACKNOWLEDGE_LAG {
            self.store_current()?;
        }
        Ok(())
    }

    /// Stores the acknowledged position if only memory has it, so that whoever looks in from outside
    /// finds it. A failure leaves it to the next store; all that it can cost is a second upload.
    pub fn settle_acknowledged(&mut self) {
        if self.current.acknowledged != self.stored.acknowledged
            && self.check().is_ok()
            && let Err(error) = self.store_current()
        {
            eprintln!(
                "edge-sync: the acknowledged position was not stored: {}",
                describe(&error)
            );
        }
    }

    /// Everything up to `last` is queued again behind it, so that it need not be sent by itself. Also
    /// where the position lies before the log's first record.
    pub fn acknowledge_before_resend(&mut self, last: u64) -> Result<()> {
        self.check()?;
        self.current.acknowledged = last.max(self.current.acknowledged);
        self.store_current()
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

    /// Moves the first operation that is not acknowledged to the rejected log.
    pub fn reject(&mut self, sequence: u64, status: u16, message: &str) -> Result<()> {
        self.check()?;
        if sequence != self.current.acknowledged + 1 || sequence > self.log.last() {
            return Err(invalid(
                "sequence",
                format!(
                    "{sequence} is not the first operation that waits for upload ({})",
                    self.current.acknowledged + 1
                ),
            ));
        }
        let Some(record) = self.log.read(sequence).next().transpose()? else {
            return Err(Error::Internal(format!(
                "operation {sequence} is not in the log"
            )));
        };
        let rejected = RejectedOperation {
            sequence,
            status,
            message: message.to_owned(),
            rejected_ms: now_ms(),
            operation: record.payload,
        };
        self.with_room(|store| Ok(store.rejected.add(&rejected)?))?;
        self.current.acknowledged = sequence;
        self.store_current()
    }

    /// Operations that wait for upload and are no longer in the log.
    pub fn lost_operations(&self) -> Option<SequenceRange> {
        let (first, last) = (self.current.acknowledged + 1, self.log.first() - 1);
        (first <= last).then_some(SequenceRange { first, last })
    }

    /// Carries a write out that came as a request for `path`; answers the REST `result`.
    pub fn write_request(&mut self, path: &str, write: Write) -> Result<Value> {
        let parts = write.len();
        let receipt = self.write(write)?;
        let update = json!({
            "operation_id": receipt.sequence,
            "status": "completed",
        });
        // A batch is answered operation by operation.
        Ok(if path.starts_with("/points/batch") {
            Value::Array(vec![update; parts])
        } else {
            update
        })
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

/// Syncs the engine's files and begins the journal of a checkpoint of them, which is in force once
/// `CURRENT` names it.
fn begin_checkpoint(
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

/// Tells a record from another of the same sequence.
pub fn mark(record: &edge_sync_log::Record) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (record.time_ms, &record.payload).hash(&mut hasher);
    hasher.finish()
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
            shard.apply(&batch)?;
            batch.clear();
        }
    }
    shard.apply(&batch)?;
    replayed.last_mark = last.as_ref().map_or(0, mark);
    Ok(replayed)
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
fn load_watched(directory: &Directory, current: &Current) -> Result<(Shard, Watch)> {
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
fn settle_generations(directory: &Directory, in_force: u64) -> Result<Vec<String>> {
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

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
