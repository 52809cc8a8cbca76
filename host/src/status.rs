//! What is known about the sync, kept in the data directory for whoever asks next.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::{FailureClass, QueueStatus};

/// The component leaves names that begin with a dot alone.
const FILE_NAME: &str = ".sync-status.json";

/// How the last exchanges with the server went. Times are milliseconds since 1970 (UTC). It
/// informs people and decides nothing; what is queued is in the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct SyncRecord {
    /// When the server last confirmed that nothing waits.
    pub last_sync_ms: Option<u64>,
    /// The failure that the last sync ended with; none after one that succeeded.
    pub last_error: Option<FailureNote>,
    /// When the worker tries again.
    pub next_attempt_ms: Option<u64>,
    /// What the worker is doing; none when none runs.
    pub worker: Option<WorkerState>,
    /// When the last restore ended well.
    pub last_restore_ms: Option<u64>,
    /// Operations that waited when this was written, so that a status can be given while another
    /// process has the directory.
    pub queued: u64,
    /// When the oldest of these was logged.
    pub oldest_queued_ms: Option<u64>,
    /// Operations in the rejected log then.
    pub rejected: u64,
    /// When this was written.
    pub written_ms: u64,
}

/// What the background worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// Nothing waits for upload.
    Idle,
    /// Uploading.
    Uploading,
    /// Waiting to try again after a passing failure.
    Waiting,
    /// The server refuses the settings; tried again now and then.
    Stopped,
    /// Paused by the host, or for a restore.
    Paused,
}

/// A failure, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureNote {
    /// [`Error::kind`].
    pub kind: String,
    /// `retry`, `unclear`, `stop`, `reject`, `too-large` or `missing` for a failed exchange.
    pub class: Option<String>,
    /// What the error says.
    pub message: String,
    /// When.
    pub at_ms: u64,
}

impl FailureNote {
    pub(crate) fn of(error: &Error) -> FailureNote {
        FailureNote {
            kind: error.kind().to_owned(),
            class: error
                .failure_class()
                .map(|class| class_name(class).to_owned()),
            message: error.to_string(),
            at_ms: now_ms(),
        }
    }
}

pub(crate) fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Retry => "retry",
        FailureClass::Stop => "stop",
        FailureClass::Reject => "reject",
        FailureClass::TooLarge => "too-large",
        FailureClass::Unclear => "unclear",
        FailureClass::Missing => "missing",
    }
}

impl SyncRecord {
    /// The record in `directory`; empty if there is none that can be read.
    pub fn load(directory: &Path) -> SyncRecord {
        std::fs::read(directory.join(FILE_NAME))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    pub(crate) fn store(&mut self, directory: &Path) -> Result<()> {
        self.written_ms = now_ms();
        let path = directory.join(FILE_NAME);
        let new = directory.join(format!("{FILE_NAME}.new"));
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Internal(format!("sync status: {error}")))?;
        std::fs::write(&new, bytes).map_err(Error::io("write", &new))?;
        std::fs::rename(&new, &path).map_err(Error::io("replace", &path))
    }

    /// Notes how a sync ended that exchanged something with the server.
    pub(crate) fn note(&mut self, failure: Option<&Error>) {
        self.last_error = failure.map(FailureNote::of);
        if failure.is_none() {
            self.last_sync_ms = Some(now_ms());
        }
    }

    /// Notes what waits now.
    pub(crate) fn note_queue(&mut self, queue: Option<&QueueStatus>) {
        if let Some(queue) = queue {
            self.queued = queue.queued;
            self.oldest_queued_ms = queue.oldest_queued_ms;
            self.rejected = queue.rejected;
        }
    }
}

/// Milliseconds since 1970 (UTC).
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_process_and_damage_is_an_empty_record() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(SyncRecord::load(directory.path()), SyncRecord::default());
        let mut record = SyncRecord::default();
        record.note(Some(&Error::Cancelled));
        record.store(directory.path()).unwrap();
        assert_eq!(SyncRecord::load(directory.path()), record);
        record.note(None);
        assert!(record.last_error.is_none() && record.last_sync_ms.is_some());
        std::fs::write(directory.path().join(FILE_NAME), "{").unwrap();
        assert_eq!(SyncRecord::load(directory.path()), SyncRecord::default());
    }
}
