//! Logged operations as the interfaces show them: what waits, and what was refused.

use edge_sync_engine::{Operation, Upload};
use edge_sync_log::Record;
use serde_json::json;

use crate::bindings::queue::{RejectedOperation, WaitingOperation};
use crate::error::Result;
use crate::upload_request::alone;

/// Most operations of one answer.
pub const PAGE_OPERATIONS: u32 = 1000;

/// Bytes in the log after which an answer ends. As JSON they may be some times as many.
pub const PAGE_BYTES: u64 = 4 << 20;

/// The first `limit` of `records`, each as the request that it would be alone.
pub fn waiting(
    records: impl Iterator<Item = edge_sync_log::Result<Record>>,
    limit: u32,
) -> Result<Vec<WaitingOperation>> {
    let mut listed = Vec::new();
    let mut sum = 0;
    for record in records.take(limit.min(PAGE_OPERATIONS) as usize) {
        let record = record?;
        let bytes = record.payload.len() as u64;
        sum += bytes;
        if sum > PAGE_BYTES && !listed.is_empty() {
            break;
        }
        listed.push(WaitingOperation {
            sequence: record.sequence,
            logged_ms: record.time_ms,
            bytes,
            request: alone(&Operation::decode(&record.payload)?)?,
        });
    }
    Ok(listed)
}

/// Refused operations, with the request body that carried each.
pub fn rejected(entries: Vec<edge_sync_log::RejectedOperation>) -> Result<Vec<RejectedOperation>> {
    let listed = entries.into_iter().map(|entry| {
        let operation = Operation::decode(&entry.operation)?;
        Ok(RejectedOperation {
            sequence: entry.sequence,
            status: entry.status,
            message: entry.message,
            rejected_ms: entry.rejected_ms,
            operation: match operation.upload()? {
                Upload::Batch(element) => element,
                Upload::Request { method, path, body } => {
                    json!({ "method": method, "path": path, "body": body }).to_string()
                }
            },
        })
    });
    listed.collect()
}
