//! One error type inside the component: the WIT `error` itself, so that nothing is lost between
//! where a failure is known and the host that acts on it.

use std::io;
use std::path::Path;

use crate::bindings::types::{Corruption, InvalidInput, StorageFailure, StorageKind};

pub use crate::bindings::types::Error;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the field at fault and what would be accepted.
pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Error {
    Error::InvalidInput(InvalidInput {
        field: field.into(),
        message: message.into(),
    })
}

/// A failed file operation: what was being done, and to which path.
pub fn storage(operation: &str, path: &Path, error: &io::Error) -> Error {
    Error::Storage(StorageFailure {
        kind: storage_kind(error.kind()),
        operation: operation.to_owned(),
        path: path.display().to_string(),
        message: error.to_string(),
    })
}

fn storage_kind(kind: io::ErrorKind) -> StorageKind {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StorageKind::NoSpace
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StorageKind::Permission
        }
        io::ErrorKind::NotFound => StorageKind::NotFound,
        _ => StorageKind::Io,
    }
}

/// Damaged bytes in a file.
pub fn corrupt(file: &Path, offset: Option<u64>, message: impl Into<String>) -> Error {
    Error::Corrupt(Corruption {
        file: file.display().to_string(),
        offset,
        message: message.into(),
    })
}

impl From<edge_sync_engine::Error> for Error {
    fn from(error: edge_sync_engine::Error) -> Self {
        use edge_sync_engine::Error as Engine;
        match error {
            Engine::InvalidInput { field, message } => invalid(field, message),
            Engine::NotFound(what) => Error::NotFound(what),
            Engine::AlreadyExists(what) => Error::AlreadyExists(what),
            Engine::Unsupported(what) => Error::Unsupported(what),
            // Only requests that are read as a server reads them, and those answer with a refusal.
            Engine::Refused { message, .. } => invalid("", message),
            Engine::Storage {
                kind,
                operation,
                path,
                message,
            } => Error::Storage(StorageFailure {
                kind: match kind {
                    edge_sync_engine::StorageKind::NoSpace => StorageKind::NoSpace,
                    edge_sync_engine::StorageKind::Permission => StorageKind::Permission,
                    edge_sync_engine::StorageKind::NotFound => StorageKind::NotFound,
                    edge_sync_engine::StorageKind::Io => StorageKind::Io,
                },
                operation,
                path,
                message,
            }),
            Engine::Corrupt {
                file,
                offset,
                message,
            } => Error::Corrupt(Corruption {
                file,
                offset,
                message,
            }),
            Engine::BadSnapshot(what) => Error::BadSnapshot(what),
            Engine::Internal(what) => Error::Internal(what),
        }
    }
}

impl From<edge_sync_log::Error> for Error {
    fn from(error: edge_sync_log::Error) -> Self {
        use edge_sync_log::Error as Log;
        match error {
            Log::Io {
                operation,
                path,
                source,
            } => storage(operation, &path, &source),
            Log::Corrupt {
                file,
                offset,
                message,
            } => corrupt(&file, Some(offset), message),
            Log::UnknownVersion { .. } => Error::Unsupported(error.to_string()),
            Log::RecordTooLarge { bytes, limit, .. } => invalid(
                "operation",
                format!("it has {bytes} bytes when logged; the limit is {limit}"),
            ),
            Log::Poisoned { .. } => Error::NeedsReopen(error.to_string()),
            // The position in `CURRENT` is older than the log, as after a backup that took the two
            // at different times.
            Log::Reclaimed { asked, first } => Error::NotFound(format!(
                "operation {asked}, which the server has not confirmed, is no longer in the log, \
                 which begins at {first}; `sync --resend` queues everything that the shard holds \
                 again"
            )),
            // `InsideCall`, `Invalid`: this crate asked for what cannot be.
            _ => Error::Internal(error.to_string()),
        }
    }
}

impl From<edge_sync_rollback::Error> for Error {
    fn from(error: edge_sync_rollback::Error) -> Self {
        use edge_sync_rollback::Error as Rollback;
        match error {
            Rollback::Io {
                operation,
                path,
                source,
            } => storage(operation, &path, &source),
            Rollback::Log(error) => error.into(),
            Rollback::Corrupt { file, message } => corrupt(&file, None, message),
            _ => Error::Internal(error.to_string()),
        }
    }
}
