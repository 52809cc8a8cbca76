//! How far the server has confirmed the log.

use std::time::Duration;

use edge_sync_clock::now_ms;
use edge_sync_log::RejectedOperation;

use super::Store;
use crate::bindings::types::SequenceRange;
use crate::error::{Error, Result, describe, invalid};

/// How long an acknowledgement may stay in memory only. Losing one costs a second upload of
/// operations that are idempotent.
const ACKNOWLEDGE_LAG: Duration = Duration::from_millis(250);

impl Store {
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
}
