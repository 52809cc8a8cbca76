//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be made, or the tree not be brought back to one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// The journal's log.
    #[error(transparent)]
    Log(#[from] edge_sync_log::Error),
    /// Files are not what any crash leaves.
    #[error("{} is damaged: {message}", file.display())]
    Corrupt {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn corrupt(file: &Path, message: impl Into<String>) -> Self {
        Self::Corrupt {
            file: file.to_path_buf(),
            message: message.into(),
        }
    }

    /// As whoever changes a file sees it.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            // By its number, which is all that gets through the C library's interface.
            Self::Io { source, .. } | Self::Log(edge_sync_log::Error::Io { source, .. }) => source,
            _ => io::Error::from_raw_os_error(libc::EIO),
        }
    }
}
