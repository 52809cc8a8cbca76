//! The open shard: engine, log and positions, and the one way that a write takes through them.
//!
//! Invariants:
//! - an operation is in the log before it is in the engine, and in both before a call returns;
//! - `CURRENT.applied` never exceeds what the engine's files hold durably: it moves only in
//!   [`Store::checkpoint`], after the generation was synced as a whole;
//! - whatever the log holds above `applied` is applied again at the next open, in order, and
//!   operations are such that this ends in the same state;
//! - after a failure that leaves the engine's memory in doubt, nothing more is accepted and
//!   nothing in memory reaches the disk: the directory is opened again and replayed.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use edge_sync_engine::{
    CollectionConfig, Operation, Point, PointId, Request, Selection, Shard, Write,
};
use edge_sync_log::{Current, Log, LogOptions, MIN_SEGMENT_BYTES, Rejected, RejectedOperation};
use serde_json::{Value, json};

use crate::bindings::shard::Opened;
use crate::bindings::types::{Durability, Options, Receipt};
use crate::directory::{self, Directory};
use crate::error::{Error, Result, corrupt, invalid, storage};

const DEFAULT_FLUSH_AFTER_BYTES: u64 = 32 << 20;

/// Operations applied to the engine at once while the log is replayed.
const REPLAY_BATCH: usize = 256;

/// How long an acknowledgement may stay in memory only. Losing one costs a second upload of
/// operations that are idempotent.
const ACKNOWLEDGE_LAG: Duration = Duration::from_millis(250);

/// An open shard with everything that belongs to it.
pub struct Store {
    directory: Directory,
    options: Options,
    // Only `None` while the store is being taken apart.
    shard: Option<Shard>,
    log: Log,
    rejected: Rejected,
    current: Current,
    unflushed_bytes: u64,
    acknowledged_stored: Instant,
    doubt: Option<String>,
}

impl Drop for Store {
    fn drop(&mut self) {
        // Dropping the engine flushes it, which would write a state in doubt to disk.
        if self.doubt.is_some()
            && let Some(shard) = self.shard.take()
        {
            shard.discard();
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
        for generation in directory.list_generations()? {
            directory.remove_generation(generation)?;
        }
        directory.remove_logs()?;

        let current = Current {
            generation: 1,
            ..Current::default()
        };
        directory.create_generation(current.generation)?;
        directory::write_durably(
            &directory.collection(current.generation),
            config.to_json().to_string().as_bytes(),
        )?;
        let shard = Shard::create(&directory.shard(current.generation), &config)?;
        shard.flush()?;
        directory.sync_generation(current.generation)?;
        current.store(directory.root())?;
        Self::assemble(directory, options, shard, current, Vec::new())
    }

    /// Opens the generation in force and brings it up to the end of the log.
    pub fn open(directory: Directory, options: Options) -> Result<(Self, Opened)> {
        check_options(&options)?;
        let current = load_current(&directory)?;
        let notes = settle_generations(&directory, current.generation)?;
        let shard = load_shard(&directory, current.generation)?;
        Self::assemble(directory, options, shard, current, notes)
    }

    /// Puts an open engine and the log together, and replays what the engine has not flushed.
    pub fn assemble(
        directory: Directory,
        options: Options,
        shard: Shard,
        current: Current,
        mut notes: Vec<String>,
    ) -> Result<(Self, Opened)> {
        let (log, report) = Log::open(&directory.log(), log_options(&options, &current))?;
        notes.extend(report.notes());
        let (rejected, report) = Rejected::open(&directory.rejected())?;
        notes.extend(report.notes());
        let mut store = Self {
            directory,
            options,
            shard: Some(shard),
            log,
            rejected,
            current,
            unflushed_bytes: 0,
            acknowledged_stored: Instant::now(),
            doubt: None,
        };
        let replayed = match replay(store.shard()?, store.log.read(store.current.applied + 1)) {
            Ok(replayed) => replayed,
            Err(error) => {
                store.doubt = Some("replay failed".to_owned());
                return Err(error);
            }
        };
        store.unflushed_bytes = store.log.bytes_after(store.current.applied)?;
        let opened = Opened {
            generation: store.current.generation,
            replayed: replayed.operations,
            notes,
        };
        Ok((store, opened))
    }

    /// Flushes, stores the positions and closes.
    pub fn close(mut self) -> Result<()> {
        if self.doubt.is_some() {
            return Ok(());
        }
        self.checkpoint()
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

    /// The engine, unless it is in doubt.
    pub fn shard(&self) -> Result<&Shard> {
        self.check()?;
        self.shard.as_ref().ok_or(Error::NotOpen)
    }

    fn check(&self) -> Result<()> {
        match &self.doubt {
            Some(reason) => Err(Error::NeedsReopen(reason.clone())),
            None => Ok(()),
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
        self.check()?;
        if !operations.is_empty() {
            let before = self.log.last();
            let payloads: Vec<Vec<u8>> = operations.iter().map(Operation::encode).collect();
            let bytes: usize = payloads.iter().map(Vec::len).sum();
            if let Err(error) = self.log.append(&payloads) {
                return Err(error.into());
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

    /// The engine failed on operations that are in the log: they must not be there when the call
    /// has failed, and the engine may hold a part of them.
    fn take_back(&mut self, before: u64, error: Error) -> Error {
        let mut doubt = format!("an earlier write failed: {error:?}");
        if let Err(log_error) = self.log.truncate_after(before) {
            doubt = format!("{doubt}; taking it back from the log failed too: {log_error}");
        }
        self.doubt = Some(doubt);
        error
    }

    /// The write that made a flush due is durable in the log already, so a failing flush is not
    /// its failure; the next write tries again, and an explicit flush reports it.
    fn flush_if_due(&mut self) {
        let limit = self
            .options
            .flush_after_bytes
            .unwrap_or(DEFAULT_FLUSH_AFTER_BYTES);
        if self.unflushed_bytes >= limit
            && let Err(error) = self.checkpoint()
        {
            eprintln!("edge-sync: flush failed, will be tried again: {error:?}");
            self.unflushed_bytes = 0;
        }
    }

    /// Makes everything applied durable in the engine's own files, moves `applied`, and lets the
    /// log forget what both readers have passed.
    pub fn checkpoint(&mut self) -> Result<()> {
        let applied = self.log.last();
        self.shard()?.flush()?;
        self.directory.sync_generation(self.current.generation)?;
        self.current.applied = applied;
        self.store_current()?;
        self.unflushed_bytes = 0;
        Ok(())
    }

    /// `CURRENT` is durable before the log's tail may be, but must never be ahead of it.
    fn store_current(&mut self) -> Result<()> {
        self.log.sync()?;
        self.current.store(self.directory.root())?;
        self.acknowledged_stored = Instant::now();
        self.log
            .reclaim(self.current.applied.min(self.current.acknowledged))?;
        Ok(())
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
        self.current.acknowledged = last;
        if last == self.log.last() || self.acknowledged_stored.elapsed() >= ACKNOWLEDGE_LAG {
            self.store_current()?;
        }
        Ok(())
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
        self.rejected.add(&RejectedOperation {
            sequence,
            status,
            message: message.to_owned(),
            rejected_ms: now_ms(),
            operation: record.payload,
        })?;
        self.current.acknowledged = sequence;
        self.store_current()
    }

    /// Forgets a rejected operation.
    pub fn drop_rejected(&mut self, sequence: u64) -> Result<()> {
        self.check()?;
        if self.rejected.remove(sequence)? {
            Ok(())
        } else {
            Err(no_such_rejected(sequence))
        }
    }

    /// Queues a rejected operation again, as the shard would write it now.
    pub fn retry_rejected(&mut self, sequence: u64) -> Result<()> {
        let Some(entry) = self.rejected.get(sequence)? else {
            return Err(no_such_rejected(sequence));
        };
        let operation = Operation::decode(&entry.operation)?;
        let again = self.restate(operation)?;
        self.commit(&again)?;
        self.drop_rejected(sequence)
    }

    /// The operations that bring the server's points to what this shard holds now, where
    /// `operation` once changed them. One that concerns no points stays as it is.
    fn restate(&self, operation: Operation) -> Result<Vec<Operation>> {
        let shard = self.shard()?;
        let ids: Vec<PointId> = operation.point_ids().into_iter().copied().collect();
        if ids.is_empty() {
            return Ok(vec![operation]);
        }
        let everything = Selection {
            payload: Some(Value::Bool(true)),
            vectors: Some(Value::Bool(true)),
        };
        let held = shard.retrieve(&ids, &everything)?;
        let gone: Vec<PointId> = ids
            .into_iter()
            .filter(|id| held.iter().all(|point| point.id != *id))
            .collect();
        let points = held
            .into_iter()
            .map(|point| Point {
                id: point.id,
                vectors: point.vectors,
                payload: point.payload,
            })
            .collect();
        let mut operations = shard.prepare_upsert(points)?;
        if !gone.is_empty() {
            operations.push(Operation::DeletePoints { ids: gone });
        }
        Ok(operations)
    }

    /// Runs a REST request: reads answer at once, writes take the way of every write.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> Result<Value> {
        match edge_sync_engine::parse_request(method, path, body)? {
            Request::Read(read) => Ok(self.shard()?.read(read)?),
            Request::Write(write) => {
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
        }
    }

    /// Merges segments and builds indexes. True if anything was done.
    pub fn optimize(&mut self) -> Result<bool> {
        let done = self.shard()?.optimize()?;
        self.checkpoint()?;
        Ok(done)
    }
}

fn no_such_rejected(sequence: u64) -> Error {
    Error::NotFound(format!("no rejected operation has the sequence {sequence}"))
}

/// How far a replay came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replayed {
    pub operations: u64,
    /// Sequence of the last operation applied; 0 if there was none.
    pub last: u64,
}

/// Applies logged operations to an engine, in order.
pub fn replay(
    shard: &Shard,
    records: impl Iterator<Item = edge_sync_log::Result<edge_sync_log::Record>>,
) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    let mut batch = Vec::with_capacity(REPLAY_BATCH);
    for record in records {
        let record = record?;
        batch.push(Operation::decode(&record.payload)?);
        replayed.operations += 1;
        replayed.last = record.sequence;
        if batch.len() == REPLAY_BATCH {
            shard.apply(&batch)?;
            batch.clear();
        }
    }
    shard.apply(&batch)?;
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

/// Loads the engine of one generation, with its stored configuration.
pub fn load_shard(directory: &Directory, generation: u64) -> Result<Shard> {
    let path = directory.collection(generation);
    let json = fs::read_to_string(&path)
        .map_err(|error| storage("read collection configuration", &path, &error))?;
    let config = CollectionConfig::from_json(&json).map_err(|error| {
        corrupt(
            &path,
            None,
            format!("not a collection configuration: {error}"),
        )
    })?;
    Ok(Shard::reopen(&directory.shard(generation), &config)?)
}

/// Removes generations that are not in force: what a restore left that a crash cut off.
fn settle_generations(directory: &Directory, in_force: u64) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for generation in directory.list_generations()? {
        if generation == in_force {
            continue;
        }
        directory.remove_generation(generation)?;
        notes.push(if generation < in_force {
            format!(
                "a restore to generation {in_force} had been interrupted after its switch; it \
                 was finished by removing generation {generation}"
            )
        } else {
            format!(
                "a restore to generation {generation} had been interrupted before its switch; it \
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

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
