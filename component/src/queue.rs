//! What waits for upload, cut into requests.

use edge_sync_engine::{Operation, UploadElement, merge_uploads};

use crate::binding;
use crate::bindings::queue::{
    BatchLimits, Progress, QueueStanding, QueueStatus, RejectedOperation, UploadBatch,
    WaitingOperation,
};
use crate::error::{Error, Result, invalid};
use crate::listing::{self, PAGE_BYTES, PAGE_OPERATIONS};
use crate::store::Store;
use crate::upload_request::{alone, points_batch};

/// The next run of the log that fits one request; see `queue.next-batch`.
pub fn next_batch(
    store: &mut Store,
    limits: BatchLimits,
    until: Option<u64>,
    done: Option<Progress>,
) -> Result<Option<UploadBatch>> {
    for (field, limit) in [
        ("limits.operations", limits.operations),
        ("limits.points", limits.points),
    ] {
        if limit == 0 {
            return Err(invalid(field, "0; at least 1 is needed"));
        }
    }
    // Refuses while the engine is in doubt: what it failed to apply is not to be uploaded.
    store.check()?;
    if let Some(lost) = store.lost_operations() {
        return Err(Error::LostOperations(lost));
    }
    // A power cut must not take from the device what the server has.
    store.sync_log()?;
    let first = store.current().acknowledged + 1;
    let until = until.unwrap_or(u64::MAX);
    let done = done
        .filter(|done| done.sequence == first)
        .map_or(0, |done| done.points as usize);
    let mut writes: Vec<(Operation, UploadElement)> = Vec::new();
    let mut bytes = 0_usize;
    let mut points = 0;
    for record in store.log().read(first) {
        let record = record?;
        if record.sequence > until || writes.len() as u64 >= u64::from(limits.operations) {
            break;
        }
        let operation = Operation::decode(&record.payload)?;
        if !operation.is_batchable() {
            // Not part of `points/batch`, and must not overtake what is before it.
            if writes.is_empty() {
                return Ok(Some(UploadBatch {
                    first,
                    last: first,
                    operations: 1,
                    points: 0,
                    rest: 0,
                    request: alone(&operation)?,
                }));
            }
            break;
        }
        let element = UploadElement::new(&operation)?;
        let size = element.bytes() + 1;
        let count = operation.point_ids().len();
        let too_much = count > limits.points as usize || size as u64 > u64::from(limits.bytes);
        let in_pieces = record.sequence == first && (done > 0 || limits.present_only);
        if in_pieces || (count > 1 && too_much) {
            // It goes out alone, as the first of a request.
            if writes.is_empty() {
                return Ok(Some(piece(first, &operation, size, limits, done)?));
            }
            break;
        }
        bytes = bytes.saturating_add(size);
        if !writes.is_empty() && bytes as u64 > u64::from(limits.bytes) {
            break;
        }
        if writes.is_empty() {
            points = count;
        }
        writes.push((operation, element));
    }
    if writes.is_empty() {
        return Ok(None);
    }
    let count = writes.len() as u64;
    Ok(Some(UploadBatch {
        first,
        last: first + count - 1,
        operations: number(count),
        points: number(points as u64),
        rest: 0,
        request: points_batch(&merge_uploads(writes)?),
    }))
}

/// Some of the points of an operation on many: as many as fit.
fn piece(
    sequence: u64,
    operation: &Operation,
    bytes: usize,
    limits: BatchLimits,
    done: usize,
) -> Result<UploadBatch> {
    let all = operation.point_ids().len();
    let left = all.saturating_sub(done);
    // Ids are of about one size; what they share stands in each piece.
    let bytes_each = (bytes / all.max(1)).max(1);
    let fit = (limits.bytes as usize / bytes_each).max(1);
    let count = left.min(limits.points as usize).min(fit);
    let piece = operation.piece(done, count);
    let element = if limits.present_only {
        piece.element_for_present()?
    } else {
        UploadElement::new(&piece)?.into_text()
    };
    Ok(UploadBatch {
        first: sequence,
        last: sequence,
        operations: 1,
        points: number(count as u64),
        rest: number((left - count) as u64),
        request: points_batch(&format!("[{element}]")),
    })
}

fn number(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What an upload has to know before it begins; see `queue.standing`.
pub fn standing(store: &Store) -> Result<QueueStanding> {
    let current = store.current();
    let binding = binding::load(store.directory())?;
    let refusals = store.rejected().refusals(current.acknowledged)?;
    Ok(QueueStanding {
        acknowledged: current.acknowledged,
        restored: !store.created_here()?,
        refused_in_a_row: refusals.in_a_row,
        refused_words: refusals.words,
        refused_status: refusals.status,
        binding: binding.map(binding::to_wit),
        config: store.config()?.to_json().to_string(),
        creation: store.creation_config()?,
    })
}

/// Names of vectors that queued operations add or drop; see `queue.changing-vectors`.
pub fn changing_vectors(store: &Store) -> Result<Vec<String>> {
    let mut names = Vec::new();
    // What the log no longer holds, `next_batch` tells.
    let first = (store.current().acknowledged + 1).max(store.log().first());
    for record in store.log().read(first) {
        match Operation::decode(&record?.payload)? {
            Operation::CreateVectorName { name, .. } | Operation::DeleteVectorName { name }
                if !names.contains(&name) =>
            {
                names.push(name);
            }
            _ => {}
        }
    }
    Ok(names)
}

/// Where the queue stands; see `queue.status`.
pub fn status(store: &mut Store) -> Result<QueueStatus> {
    store.settle_acknowledged();
    let (log, current) = (store.log(), store.current());
    let refusals = store.rejected().refusals(current.acknowledged)?;
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
