//! The way of a write: validated, logged, applied.

use edge_sync_engine::{Operation, Write};
use serde_json::{Value, json};

use super::Store;
use crate::bindings::types::Receipt;
use crate::error::{Error, Result, describe};
use crate::room;

const DEFAULT_FLUSH_AFTER_BYTES: u64 = 32 << 20;

impl Store {
    /// Validates a write, logs what it comes to, applies it.
    ///
    /// A batch in which a filter depends on what comes before it takes several steps, each of
    /// them logged and applied as a whole; all of it is validated before the first.
    pub fn write(&mut self, write: Write) -> Result<Receipt> {
        self.shard()?.validate(&write)?;
        let mut receipt = self.commit(Vec::new())?;
        for step in write.steps() {
            let operations = self.shard()?.prepare(step)?;
            let committed = self.commit(operations)?;
            receipt.sequence = committed.sequence;
            receipt.operations = receipt.operations.saturating_add(committed.operations);
        }
        Ok(receipt)
    }

    /// Logs and applies operations that were prepared by this store's engine.
    pub fn commit(&mut self, operations: Vec<Operation>) -> Result<Receipt> {
        self.shard()?;
        let committed = count(operations.len());
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
            operations: committed,
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
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
