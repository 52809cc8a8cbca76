//! What a sync, a pull and a restore tell while they run.

use std::time::Duration;

use crate::error::Error;

/// What a sync tells while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// So many operations of so many are with the server or in the rejected log.
    Uploaded {
        /// Operations done with in this sync.
        done: u64,
        /// Operations that the queue held when it began.
        total: u64,
    },
    /// The server refused an operation.
    Rejected {
        /// Its sequence.
        sequence: u64,
        /// Why.
        failure: &'a Error,
    },
    /// An exchange failed in passing and will be tried again.
    Waiting {
        /// How long until then.
        after: Duration,
        /// Why.
        failure: &'a Error,
    },
    /// Everything is uploaded, and what others wrote is fetched.
    Pulling(&'a RestoreProgress<'a>),
}

/// What a restore tells while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreProgress<'a> {
    /// Uploading up to the barrier.
    Uploading(Progress<'a>),
    /// Waiting for the server's optimizer.
    Settling {
        /// How long so far.
        waited: Duration,
        /// How long at most.
        limit: Duration,
    },
    /// The server streams no snapshot, being busy with one for somebody else, and is asked to store
    /// one instead.
    StoredInstead,
    /// Downloading, or copying a local file.
    Downloading {
        /// Bytes on disk so far.
        bytes: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// The download failed in passing and will be tried again.
    Waiting {
        /// How long until then.
        after: Duration,
        /// Why.
        failure: &'a Error,
    },
    /// Unpacking, checking and replaying.
    Staging,
    /// Switching generations.
    Switching,
}
