//! What waits for upload, cut into requests.

use edge_sync_engine::{Operation, Upload, merge_uploads};
use serde_json::json;

use crate::bindings::queue::{
    BatchLimits, QueueStatus, RejectedOperation, UploadBatch, UploadRequest, WaitingOperation,
};
use crate::error::{Result, invalid};
use crate::listing::{self, PAGE_BYTES, PAGE_OPERATIONS};
use crate::store::Store;

/// The next run of the log that fits one request; see `queue.next-batch`.
pub fn next_batch(
    store: &mut Store,
    limits: BatchLimits,
    until: Option<u64>,
) -> Result<Option<UploadBatch>> {
    if limits.operations == 0 {
        return Err(invalid(
            "limits.operations",
            "0 operations; at least 1 is needed",
        ));
    }
    // Refuses while the engine is in doubt: what it failed to apply is not to be uploaded.
    store.shard()?;
    // A power cut must not take from the device what the server has.
    store.sync_log()?;
    let first = store.current().acknowledged + 1;
    let until = until.unwrap_or(u64::MAX);
    let mut operations: Vec<Operation> = Vec::new();
    let mut bytes = 0_usize;
    for record in store.log().read(first) {
        let record = record?;
        if record.sequence > until || operations.len() as u64 >= u64::from(limits.operations) {
            break;
        }
        let operation = Operation::decode(&record.payload)?;
        match operation.upload() {
            Upload::Batch(element) => {
                bytes = bytes.saturating_add(element.to_string().len() + 1);
                if !operations.is_empty() && bytes as u64 > u64::from(limits.bytes) {
                    break;
                }
                operations.push(operation);
            }
            // Not part of `points/batch`, and must not overtake what is before it.
            Upload::Request { .. } if !operations.is_empty() => break,
            Upload::Request { .. } => {
                return Ok(Some(UploadBatch {
                    first,
                    last: first,
                    operations: 1,
                    request: alone(&operation)?,
                }));
            }
        }
    }
    if operations.is_empty() {
        return Ok(None);
    }
    let count = operations.len() as u64;
    Ok(Some(UploadBatch {
        first,
        last: first + count - 1,
        operations: u32::try_from(count).unwrap_or(u32::MAX),
        request: points_batch(&operations)?,
    }))
}

fn points_batch(operations: &[Operation]) -> Result<UploadRequest> {
    Ok(UploadRequest {
        method: "POST".to_owned(),
        path: with_wait("/points/batch"),
        body: json!({ "operations": merge_uploads(operations)? }).to_string(),
    })
}

/// Asks the server to answer only once the write is applied.
fn with_wait(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}wait=true")
}

/// The request that an operation is by itself.
pub fn alone(operation: &Operation) -> Result<UploadRequest> {
    match operation.upload() {
        Upload::Batch(_) => points_batch(std::slice::from_ref(operation)),
        Upload::Request { method, path, body } => Ok(UploadRequest {
            method: method.to_owned(),
            path: with_wait(&path),
            body: body.map(|body| body.to_string()).unwrap_or_default(),
        }),
    }
}

/// Where the queue stands; see `queue.status`.
pub fn status(store: &mut Store) -> Result<QueueStatus> {
    store.settle_acknowledged();
    let (log, current) = (store.log(), store.current());
    let refusals = store.rejected().refusals(current.acknowledged);
    Ok(QueueStatus {
        logged: log.last(),
        applied: current.applied,
        acknowledged: current.acknowledged,
        queued: log.last() - current.acknowledged,
        queued_bytes: log.bytes_after(current.acknowledged)?,
        oldest_queued_ms: log.time_of(current.acknowledged + 1)?,
        rejected: store.rejected().len(),
        refused_in_a_row: refusals.in_a_row,
        refused_words: refusals.words,
    })
}

/// What waits; see `queue.waiting`.
pub fn waiting(store: &Store, after: u64, limit: u32) -> Result<Vec<WaitingOperation>> {
    let from = after.max(store.current().acknowledged).saturating_add(1);
    listing::waiting(store.log().read(from), limit)
}

/// What was refused; see `queue.rejected`.
pub fn rejected(store: &Store, after: u64, limit: u32) -> Result<Vec<RejectedOperation>> {
    let limit = limit.min(PAGE_OPERATIONS);
    listing::rejected(store.rejected().page(after, limit, PAGE_BYTES)?)
}
