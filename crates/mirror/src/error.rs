//! What can go wrong with a mirror, and what was being done when it did.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a mirror or an answer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the server sent cannot be applied: damaged, cut off, hostile, or not a snapshot of a
    /// shard. Nothing was changed.
    #[error("bad snapshot: {0}")]
    BadSnapshot(String),
    /// The file system refused. `source.kind()` tells a full disk
    /// ([`io::ErrorKind::StorageFull`]) from missing permission and the rest.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done, as in "copy to".
        operation: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// `mirror.json` is not what was written. The mirror is of no use; without it everything is
    /// fetched.
    #[error("{} is damaged: {message}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// `mirror.json` was written by a later version of this program. As
    /// [`Error::Corrupt`]: without it everything is fetched.
    #[error("{} has format version {found}; this program reads {supported}", file.display())]
    UnknownVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads and writes.
        supported: u32,
    },
    /// A file of the mirror is not what its record says. [`crate::Offer::without`] the segment
    /// fetches it again.
    #[error("segment {segment}: {file} in the mirror is damaged: {message}")]
    Damaged {
        /// The segment.
        segment: String,
        /// The file, by its name in the segment.
        file: String,
        /// What was found.
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

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::BadSnapshot(message.into())
    }

    pub(crate) fn corrupt(file: &Path, message: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_path_buf(),
            message: message.into(),
        }
    }
}
