//! Operations that were put aside: moved there by hand, queued again, forgotten.

use std::collections::{BTreeSet, HashMap, HashSet};

use edge_sync_clock::now_ms;
use edge_sync_engine::{Operation, Point, PointId, Selection};
use edge_sync_log::{RejectedOperation, SKIPPED_BY_HAND};
use serde_json::Value;

use crate::bindings::queue::{Retried, RetryFailure};
use crate::error::{Error, Result};
use crate::listing::{PAGE_BYTES, PAGE_OPERATIONS};
use crate::store::Store;

/// Bytes after which what is gathered goes to the log.
const WRITE_BYTES: usize = 4 << 20;

/// Points that are restated at once: at first, and at most. In between, so many as make half of
/// [`WRITE_BYTES`].
const FIRST_POINTS: usize = 32;
const MOST_POINTS: usize = 1024;

impl Store {
    /// Moves up to `count` operations from the head of the queue to the rejected log. After an error
    /// some may have been moved.
    pub fn skip(&mut self, count: u32) -> Result<u32> {
        self.check()?;
        let mut moved = 0;
        while moved < count {
            let most = (count - moved).min(PAGE_OPERATIONS);
            let page = self.head(most)?;
            let Some(last) = page.last().map(|entry| entry.sequence) else {
                break;
            };
            self.rejected.add_all(&page)?;
            self.current.acknowledged = last;
            self.store_current()?;
            moved += u32::try_from(page.len()).unwrap_or(u32::MAX);
        }
        Ok(moved)
    }

    /// Up to `most` operations from the head of the queue, as entries of the rejected log.
    fn head(&self, most: u32) -> Result<Vec<RejectedOperation>> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let from = self.current.acknowledged + 1;
        for record in self.log().read(from).take(most as usize) {
            let record = record?;
            bytes += record.payload.len() as u64;
            page.push(RejectedOperation {
                sequence: record.sequence,
                status: 0,
                message: SKIPPED_BY_HAND.to_owned(),
                rejected_ms: now_ms(),
                operation: record.payload,
            });
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        Ok(page)
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

    /// Forgets the rejected operations up to `last`. How many there were.
    pub fn drop_rejected_up_to(&mut self, last: u64) -> Result<u64> {
        self.check()?;
        let mut sequences = self.rejected.after(0);
        sequences.retain(|sequence| *sequence <= last);
        Ok(self.rejected.remove_all(&sequences)?)
    }

    /// Queues a rejected operation again.
    pub fn retry_rejected(&mut self, sequence: u64) -> Result<()> {
        let Some(entry) = self.rejected.get(sequence)? else {
            return Err(no_such_rejected(sequence));
        };
        match self.retry(vec![entry])?.failures.pop() {
            Some(failure) => Err(failure.why),
            None => Ok(()),
        }
    }

    /// Queues a page of rejected operations again.
    pub fn retry_rejected_after(&mut self, after: u64, limit: u32) -> Result<Retried> {
        let limit = limit.min(PAGE_OPERATIONS);
        let entries = self.rejected.page(after, limit, PAGE_BYTES)?;
        let next = entries
            .last()
            .map(|last| last.sequence)
            .filter(|last| !self.rejected.after(*last).is_empty());
        let retried = self.retry(entries)?;
        Ok(Retried { next, ..retried })
    }

    /// Queues rejected operations again, as the shard would write them now. Of what was refused
    /// before a restore the shard holds nothing, so that is written anew, but for points that were
    /// refused since: what those are now is newer.
    ///
    /// A crash on the way leaves them in the rejected log as well, and a second retry does no harm.
    fn retry(&mut self, entries: Vec<RejectedOperation>) -> Result<Retried> {
        self.check()?;
        let barrier = self.current.barrier;
        let newer = if entries
            .first()
            .is_some_and(|entry| entry.sequence <= barrier)
        {
            self.points_refused_after(barrier)?
        } else {
            HashSet::new()
        };
        let mut retry = Retry::default();
        let mut of_points = Vec::new();
        for entry in &entries {
            let sequence = entry.sequence;
            let operation = match Operation::decode(&entry.operation) {
                Ok(operation) => operation,
                Err(error) => {
                    retry.fail(sequence, error.into());
                    continue;
                }
            };
            if sequence > barrier && operation.point_ids().is_empty() {
                retry.gathered.push(operation);
            } else if sequence > barrier {
                of_points.push((sequence, operation));
            } else if let Some(operation) = operation.without(&newer) {
                match self.anew(operation.into_owned()) {
                    Ok(operations) => retry.gathered.extend(operations),
                    Err(error) => retry.fail(sequence, error),
                }
            }
            if retry.is_full() {
                self.write_gathered(&mut retry)?;
            }
        }
        self.write_gathered(&mut retry)?;
        self.restate(&of_points, &mut retry)?;
        let sequences: Vec<u64> = entries
            .iter()
            .map(|entry| entry.sequence)
            .filter(|sequence| !retry.failed.contains(sequence))
            .collect();
        self.rejected.remove_all(&sequences)?;
        Ok(Retried {
            sequences,
            failures: retry.failures,
            next: None,
        })
    }

    /// An operation that the shard holds nothing of.
    fn anew(&self, operation: Operation) -> Result<Vec<Operation>> {
        Ok(match operation {
            Operation::UpsertPoint(point) => self.shard()?.prepare_upsert(vec![point])?,
            other => vec![other],
        })
    }

    fn points_refused_after(&self, barrier: u64) -> Result<HashSet<PointId>> {
        let mut ids = HashSet::new();
        let mut after = barrier;
        loop {
            let page = self.rejected.page(after, PAGE_OPERATIONS, PAGE_BYTES)?;
            let Some(last) = page.last() else {
                return Ok(ids);
            };
            after = last.sequence;
            for entry in &page {
                // One that cannot be read says so when its own turn comes.
                if let Ok(operation) = Operation::decode(&entry.operation) {
                    ids.extend(operation.point_ids());
                }
            }
        }
    }

    /// Writes the operations that bring the server's points to what this shard holds now, where
    /// `operations` once changed them: each point once.
    fn restate(&mut self, operations: &[(u64, Operation)], retry: &mut Retry) -> Result<()> {
        let mut seen = HashSet::new();
        let ids: Vec<PointId> = operations
            .iter()
            .flat_map(|(_, operation)| operation.point_ids())
            .filter(|id| seen.insert(**id))
            .copied()
            .collect();
        drop(seen);
        let most = self.shard()?.points_an_answer().min(MOST_POINTS);
        let mut count = FIRST_POINTS.min(most);
        let mut unfit = HashMap::new();
        let mut rest = ids.as_slice();
        while !rest.is_empty() {
            let (some, others) = rest.split_at(count.min(rest.len()));
            rest = others;
            let before = retry.gathered_bytes();
            unfit.extend(self.held_now(some, &mut retry.gathered)?);
            let bytes = retry.gathered_bytes() - before;
            count = if bytes < WRITE_BYTES / 4 {
                (count * 2).min(most)
            } else if bytes > WRITE_BYTES / 2 {
                (count / 2).max(1)
            } else {
                count
            };
            if retry.is_full() {
                self.write_gathered(retry)?;
            }
        }
        self.write_gathered(retry)?;
        for (sequence, operation) in operations {
            if let Some(why) = operation
                .point_ids()
                .into_iter()
                .find_map(|id| unfit.get(id))
            {
                retry.fail(*sequence, why.clone());
            }
        }
        Ok(())
    }

    /// Adds the operations that make points what this shard holds: upserts, or a deletion of those
    /// that it does not hold. Answers those that do not fit it any more, and why.
    fn held_now(
        &self,
        ids: &[PointId],
        operations: &mut Vec<Operation>,
    ) -> Result<Vec<(PointId, Error)>> {
        let shard = self.shard()?;
        let everything = Selection {
            payload: Some(Value::Bool(true)),
            vectors: Some(Value::Bool(true)),
        };
        let held = shard.retrieve(ids, &everything)?;
        let found: HashSet<PointId> = held.iter().map(|point| point.id).collect();
        let mut unfit = Vec::new();
        for point in held {
            let id = point.id;
            let point = Point {
                id,
                vectors: point.vectors,
                payload: point.payload,
            };
            match shard.prepare_upsert(vec![point]) {
                Ok(prepared) => operations.extend(prepared),
                Err(error) => unfit.push((id, error.into())),
            }
        }
        let gone: Vec<PointId> = ids
            .iter()
            .filter(|id| !found.contains(*id))
            .copied()
            .collect();
        if !gone.is_empty() {
            operations.push(Operation::DeletePoints { ids: gone });
        }
        Ok(unfit)
    }

    fn write_gathered(&mut self, retry: &mut Retry) -> Result<()> {
        let gathered = std::mem::take(&mut retry.gathered);
        retry.counted = (0, 0);
        self.commit(gathered).map(drop)
    }
}

/// A retry under way.
#[derive(Default)]
struct Retry {
    /// What goes to the log next.
    gathered: Vec<Operation>,
    /// How many of these have been counted, and their bytes.
    counted: (usize, usize),
    failed: BTreeSet<u64>,
    failures: Vec<RetryFailure>,
}

impl Retry {
    fn fail(&mut self, sequence: u64, why: Error) {
        if self.failed.insert(sequence) {
            self.failures.push(RetryFailure { sequence, why });
        }
    }

    fn gathered_bytes(&mut self) -> usize {
        let (count, bytes) = self.counted;
        let added: usize = self
            .gathered
            .iter()
            .skip(count)
            .map(|one| one.encode().len())
            .sum();
        self.counted = (self.gathered.len(), bytes + added);
        bytes + added
    }

    fn is_full(&mut self) -> bool {
        self.gathered_bytes() >= WRITE_BYTES
    }
}

fn no_such_rejected(sequence: u64) -> Error {
    Error::NotFound(format!("no rejected operation has the sequence {sequence}"))
}
