//! What can go wrong with a log, and what was being done when it did.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on the log, the positions file or the rejected log failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused. `source.kind()` tells a full disk
    /// ([`io::ErrorKind::StorageFull`]) from missing permission and the rest.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done, as in "append to".
        operation: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// Stored bytes are not what was written, and not the mark of a crash either.
    #[error("{} is damaged at byte {offset}: {message}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the first damaged record, or the damaged header, begins.
        offset: u64,
        /// What is wrong.
        message: String,
    },
    /// A file was written by a later version of this program.
    #[error("{} has format version {found}; this program reads {supported}", file.display())]
    UnknownVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads and writes.
        supported: u32,
    },
    /// A payload is longer than a record may be. Nothing was written.
    #[error("record {index} of the call has {bytes} bytes; the limit is {limit}")]
    RecordTooLarge {
        /// Which payload of the call, counted from 0.
        index: usize,
        /// Its length.
        bytes: u64,
        /// The longest that is accepted: [`crate::MAX_RECORD_BYTES`].
        limit: u64,
    },
    /// An earlier failure left open what is on the disk. The log takes no more changes until it
    /// is opened again; reading goes on.
    #[error("the log in {} must be reopened: {reason}", directory.display())]
    Poisoned {
        /// The log's directory.
        directory: PathBuf,
        /// The failure.
        reason: String,
    },
    /// The records asked for are no longer in the log.
    #[error("sequence {asked} is no longer in the log, which begins at {first}")]
    Reclaimed {
        /// The sequence asked for.
        asked: u64,
        /// The oldest sequence there is.
        first: u64,
    },
    /// A log can be cut only between two calls of `append`.
    #[error("cannot cut after {sequence}: one call appended {first} to {last}")]
    InsideCall {
        /// Where the cut was asked for.
        sequence: u64,
        /// First sequence of the call around it.
        first: u64,
        /// Last sequence of that call.
        last: u64,
    },
    /// A setting or argument that cannot be used.
    #[error("invalid {field}: {message}")]
    Invalid {
        /// The setting or argument.
        field: &'static str,
        /// What is wrong with it and what would be accepted.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, message: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_path_buf(),
            offset,
            message: message.into(),
        }
    }
}
