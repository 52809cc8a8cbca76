//! What waits for upload, cut into requests.

use edge_sync_engine::{Operation, Upload, merge_uploads};
use serde_json::json;

use crate::bindings::queue::{
    BatchLimits, QueueStatus, RejectedOperation, UploadBatch, UploadRequest,
};
use crate::error::{Result, invalid};
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
            Upload::Request { method, path, body } => {
                return Ok(Some(UploadBatch {
                    first,
                    last: first,
                    operations: 1,
                    request: UploadRequest {
                        method: method.to_owned(),
                        path: with_wait(&path),
                        body: body.map(|body| body.to_string()).unwrap_or_default(),
                    },
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

/// Where the queue stands; see `queue.status`.
pub fn status(store: &Store) -> Result<QueueStatus> {
    let (log, current) = (store.log(), store.current());
    let queued = log.last() - current.acknowledged;
    Ok(QueueStatus {
        logged: log.last(),
        applied: current.applied,
        acknowledged: current.acknowledged,
        queued,
        queued_bytes: log.bytes_after(current.acknowledged)?,
        oldest_queued_ms: log.time_of(current.acknowledged + 1)?,
        rejected: store.rejected().len(),
    })
}

/// The rejected log, oldest first.
pub fn rejected(store: &Store) -> Result<Vec<RejectedOperation>> {
    let entries = store.rejected().list()?;
    let listed = entries.into_iter().map(|entry| {
        let operation = Operation::decode(&entry.operation)?;
        Ok(RejectedOperation {
            sequence: entry.sequence,
            status: entry.status,
            message: entry.message,
            rejected_ms: entry.rejected_ms,
            operation: match operation.upload() {
                Upload::Batch(element) => element.to_string(),
                Upload::Request { method, path, body } => {
                    json!({ "method": method, "path": path, "body": body }).to_string()
                }
            },
        })
    });
    listed.collect()
}
