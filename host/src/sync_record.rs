//! What is known about the sync, kept in the data directory for whoever asks next.

use std::path::Path;

use edge_sync_clock::now_ms;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, failure_class_name};
use crate::reports::{PullReport, RestoreReport};
use crate::types::QueueStatus;

/// The component leaves names that begin with a dot alone.
const FILE_NAME: &str = ".sync-status.json";

/// How the last exchanges with the server went. Times are milliseconds since 1970 (UTC). It
/// informs people; what is queued is in the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct SyncRecord {
    /// When the server last confirmed that nothing waits.
    pub last_sync_ms: Option<u64>,
    /// The failure that the last sync ended with; none after one that succeeded. One that was killed
    /// failed with that.
    pub last_error: Option<FailureNote>,
    /// What is being done since when; what a process left here that is gone was killed on the way.
    pub under_way: Option<UnderWay>,
    /// When the worker tries again.
    pub next_attempt_ms: Option<u64>,
    /// What the worker is doing; none when none runs.
    pub worker: Option<WorkerState>,
    /// When the server last said what it holds: by a pull that ended well.
    pub last_pull_ms: Option<u64>,
    /// The failure that the last pull ended with, as for `last_error`.
    pub last_pull_error: Option<FailureNote>,
    /// Why the shard may not be what the server held at the last pull or restore.
    pub unsettled: Option<String>,
    /// The peer of a cluster that sent what came with it. The next pull looks for that one.
    pub peer: Option<u64>,
    /// When the worker pulls next.
    pub next_pull_ms: Option<u64>,
    /// When the last restore ended well.
    pub last_restore_ms: Option<u64>,
    /// The failure that the last restore ended with, as for `last_error`.
    pub last_restore_error: Option<FailureNote>,
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

/// A sync or a restore that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// Which.
    pub what: Exchange,
    /// Since when.
    pub since_ms: u64,
}

/// What is done with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exchange {
    /// An upload that ends when nothing waits.
    Sync,
    /// A restore.
    Restore,
    /// A download of what changed on the server.
    Pull,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
                .map(|class| failure_class_name(class).to_owned()),
            message: error.to_string(),
            at_ms: now_ms(),
        }
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

    /// Notes that something begins.
    pub(crate) fn begin(&mut self, what: Exchange) {
        self.under_way = Some(UnderWay {
            what,
            since_ms: now_ms(),
        });
    }

    /// Notes how a restore ended.
    pub(crate) fn note_restore(&mut self, outcome: &Result<RestoreReport>) {
        self.under_way = None;
        if outcome.as_ref().err().is_some_and(says_nothing) {
            return;
        }
        self.last_restore_error = outcome.as_ref().err().map(FailureNote::of);
        if let Ok(report) = outcome {
            self.last_restore_ms = Some(now_ms());
            self.peer = report.peer;
            self.unsettled.clone_from(&report.unsettled);
        }
    }

    /// Notes how a pull ended.
    pub(crate) fn note_pull(&mut self, outcome: &Result<PullReport>) {
        self.under_way = None;
        if outcome.as_ref().err().is_some_and(says_nothing) {
            return;
        }
        self.last_pull_error = outcome.as_ref().err().map(FailureNote::of);
        if let Ok(report) = outcome {
            self.last_pull_ms = Some(now_ms());
            self.peer = report.peer;
            self.unsettled.clone_from(&report.unsettled);
        }
    }

    /// For whoever has the directory now: what another process said of itself is over, and if it did
    /// not say so, it was killed. True if there was something of that kind.
    pub(crate) fn settle(&mut self) -> bool {
        let killed = |what: &str, at_ms: u64| FailureNote {
            kind: "killed".to_owned(),
            class: None,
            message: format!("the process was ended in the middle of the {what}"),
            at_ms,
        };
        let under_way = self.under_way.take();
        match under_way.map(|under_way| (under_way.what, under_way.since_ms)) {
            Some((Exchange::Sync, since)) => self.last_error = Some(killed("sync", since)),
            Some((Exchange::Restore, since)) => {
                self.last_restore_error = Some(killed("restore", since));
            }
            Some((Exchange::Pull, since)) => self.last_pull_error = Some(killed("pull", since)),
            None => {}
        }
        let worker = self.worker.take();
        (self.next_attempt_ms, self.next_pull_ms) = (None, None);
        // The worker stores what it does now and then, and that it ends.
        if worker.is_some() && self.queued > 0 && self.last_error.is_none() {
            self.last_error = Some(killed("upload", self.written_ms));
        }
        under_way.is_some() || worker.is_some()
    }

    /// Notes how a sync ended that exchanged something with the server.
    pub(crate) fn note(&mut self, failure: Option<&Error>) {
        self.under_way = None;
        if failure.is_some_and(says_nothing) {
            return;
        }
        self.last_error = failure.map(FailureNote::of);
        if failure.is_none() {
            self.last_sync_ms = Some(now_ms());
        }
    }

    /// Notes what waits now.
    pub(crate) fn note_queue(&mut self, queue: Option<&QueueStatus>) {
        self.written_ms = now_ms();
        if let Some(queue) = queue {
            self.queued = queue.queued;
            self.oldest_queued_ms = queue.oldest_queued_ms;
            self.rejected = queue.rejected;
        }
    }
}

/// Somebody stopped it, or gave it wrong settings: what was known before is as true as it was.
fn says_nothing(failure: &Error) -> bool {
    matches!(failure, Error::Cancelled) || is_setting(failure)
}

/// The settings were refused before anything was asked of the server: that concerns whoever gave
/// them, and not the next sync with others.
fn is_setting(failure: &Error) -> bool {
    match failure {
        Error::Setting { .. } => true,
        Error::Server(failure) => failure.request == edge_sync_upload::SETTINGS,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FailureClass, ServerFailure};

    fn failure() -> Error {
        Error::Internal("a failure".into())
    }

    #[test]
    fn survives_the_process_and_damage_is_an_empty_record() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(SyncRecord::load(directory.path()), SyncRecord::default());
        let mut record = SyncRecord::default();
        record.note(Some(&failure()));
        record.store(directory.path()).unwrap();
        assert_eq!(SyncRecord::load(directory.path()), record);
        record.note(None);
        assert!(record.last_error.is_none() && record.last_sync_ms.is_some());
        std::fs::write(directory.path().join(FILE_NAME), "{").unwrap();
        assert_eq!(SyncRecord::load(directory.path()), SyncRecord::default());
    }

    #[test]
    fn what_was_killed_is_told_by_the_next_process_and_what_ended_is_not() {
        let mut record = SyncRecord::default();
        assert!(!record.settle());
        record.begin(Exchange::Sync);
        record.note(None);
        record.begin(Exchange::Restore);
        record.note_restore(&Err(failure()));
        record.last_restore_error = None;
        assert!(!record.settle());
        assert!(record.last_error.is_none() && record.last_restore_error.is_none());

        record.begin(Exchange::Restore);
        assert!(record.settle());
        let killed = record.last_restore_error.clone().unwrap();
        assert_eq!(killed.kind, "killed");
        assert!(killed.message.contains("restore"));
        assert!(record.last_error.is_none() && !record.settle());

        // A worker that found nothing to do leaves nothing to tell.
        record.worker = Some(WorkerState::Idle);
        assert!(record.settle() && record.worker.is_none() && record.last_error.is_none());
        record.worker = Some(WorkerState::Idle);
        record.queued = 1;
        assert!(record.settle() && record.last_error.is_some());
        // Why it could not upload says more than how it ended.
        record.note(Some(&failure()));
        record.worker = Some(WorkerState::Waiting);
        assert!(record.settle());
        assert_eq!(record.last_error.unwrap().kind, "internal");
    }

    #[test]
    fn what_somebody_stopped_has_not_failed() {
        let mut record = SyncRecord::default();
        record.begin(Exchange::Sync);
        record.note(Some(&Error::Cancelled));
        record.note_pull(&Err(Error::Cancelled));
        record.note_restore(&Err(Error::Cancelled));
        assert_eq!(record, SyncRecord::default());
        let mut settings = ServerFailure {
            class: FailureClass::Stop,
            status: None,
            request: edge_sync_upload::SETTINGS.to_owned(),
            message: "another collection".to_owned(),
            retry_after_ms: None,
        };
        record.note(Some(&Error::Server(settings.clone())));
        assert_eq!(record, SyncRecord::default());
        settings.request = "GET /collections/c".to_owned();
        record.note(Some(&Error::Server(settings)));
        assert!(record.last_error.is_some());
        // And does not make good what failed before.
        record.note(Some(&failure()));
        record.note(Some(&Error::Cancelled));
        assert!(record.last_error.is_some());
    }
}
