//! What can go wrong, and what it means for the caller.

use std::fmt;
use std::path::Path;

use qdrant_edge::OperationError;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way in which the engine can fail.
///
/// [`Error::InvalidInput`], [`Error::NotFound`], [`Error::AlreadyExists`], [`Error::Unsupported`]
/// and [`Error::Refused`] mean that nothing was changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The caller's input is at fault; `field` is a path from the request body
    /// (`points[3].vector.image`), empty for the body as a whole.
    #[error("{}{message}", FieldPrefix(.field))]
    InvalidInput {
        /// Where in the input.
        field: String,
        /// What is wrong there and what would be accepted.
        message: String,
    },
    /// No point, shard, vector or file of that name.
    #[error("Not found: {0}")]
    NotFound(String),
    /// There is a shard, or a vector with other parameters, of that name.
    #[error("Already exists: {0}")]
    AlreadyExists(String),
    /// The engine cannot do that; the text says what and why.
    #[error("Not supported: {0}")]
    Unsupported(String),
    /// A request that was read as a server reads it ([`crate::Strictness::Server`]) is refused with
    /// this status and these words, which are the server's.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// `status.error` of the answer.
        message: String,
    },
    /// The file system failed.
    #[error("{operation} {path}: {message}")]
    Storage {
        /// The class of the failure.
        kind: StorageKind,
        /// What was being done ("flush the shard").
        operation: String,
        /// To which path; empty where the engine did not say.
        path: String,
        /// What the file system or the engine reported.
        message: String,
    },
    /// Stored bytes are not what was written.
    #[error("{file} is damaged{}: {message}", AtOffset(.offset))]
    Corrupt {
        /// Which file, or what the bytes are.
        file: String,
        /// Byte offset of the damage, where known.
        offset: Option<u64>,
        /// What was found.
        message: String,
    },
    /// A snapshot that cannot be restored: damaged, hostile, or of another configuration.
    #[error("bad snapshot: {0}")]
    BadSnapshot(String),
    /// The engine failed in a way that is none of the above.
    #[error("internal: {0}")]
    Internal(String),
}

/// Why storage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    /// The disk or the quota is full.
    NoSpace,
    /// Access is not granted.
    Permission,
    /// The file or directory is not there.
    NotFound,
    /// Anything else that the file system reported.
    Io,
}

impl StorageKind {
    /// Classifies an IO error.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::NoSpace
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::Permission,
            ErrorKind::NotFound => Self::NotFound,
            _ => Self::Io,
        }
    }

    /// Classifies an IO error by its words, for where nothing else is left of it. None if they are
    /// not those of an IO error.
    pub fn in_words(description: &str) -> Option<Self> {
        let has = |words: &[&str]| words.iter().any(|word| description.contains(word));
        if has(&[
            "No space left on device",
            "quota exceeded",
            "Quota exceeded",
            "File too large",
        ]) {
            Some(Self::NoSpace)
        } else if has(&[
            "Permission denied",
            "Read-only file system",
            "not permitted",
        ]) {
            Some(Self::Permission)
        } else if has(&["No such file or directory"]) {
            Some(Self::NotFound)
        } else if has(&[OS_ERROR, "IO Error", "I/O error"]) {
            Some(Self::Io)
        } else {
            None
        }
    }
}

impl Error {
    /// Input at `field` that is refused.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidInput {
            field: field.into(),
            message: message.into(),
        }
    }

    pub(crate) fn bad_snapshot(message: impl Into<String>) -> Self {
        Self::BadSnapshot(message.into())
    }

    pub(crate) fn refused(status: u16, message: impl Into<String>) -> Self {
        Self::Refused {
            status,
            message: message.into(),
        }
    }

    /// The status and the words with which a server refuses what this error is about; none if the
    /// error is a failure and not a refusal.
    pub fn as_refusal(&self) -> Option<(u16, String)> {
        match self {
            Self::InvalidInput { .. } => Some((400, format!("Wrong input: {self}"))),
            Self::NotFound(_) => Some((404, self.to_string())),
            // A collection is 409, a vector is not.
            Self::AlreadyExists(what) => Some((400, format!("Wrong input: {what}"))),
            Self::Unsupported(_) => Some((501, self.to_string())),
            Self::Refused { status, message } => Some((*status, message.clone())),
            Self::Storage { .. }
            | Self::Corrupt { .. }
            | Self::BadSnapshot(_)
            | Self::Internal(_) => None,
        }
    }

    /// A file operation that failed.
    pub fn storage(operation: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Storage {
            kind: StorageKind::of(error),
            operation: operation.to_owned(),
            path: path.display().to_string(),
            message: error.to_string(),
        }
    }
}

struct FieldPrefix<'a>(&'a str);

impl fmt::Display for FieldPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.0)
        }
    }
}

struct AtOffset<'a>(&'a Option<u64>);

impl fmt::Display for AtOffset<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at byte {offset}"),
            None => Ok(()),
        }
    }
}

/// What it means that the shard in `dir` does not load: a file operation failed, or the files are
/// not what the engine takes for a shard.
pub(crate) fn from_loading(dir: &Path, error: OperationError) -> Error {
    match error {
        OperationError::ServiceError { description, .. } if !description.contains(OS_ERROR) => {
            Error::Corrupt {
                file: dir.display().to_string(),
                offset: None,
                message: description,
            }
        }
        other => from_engine("load the shard in", dir, other),
    }
}

/// What an error of the engine means, given what was being done to which path.
pub(crate) fn from_engine(operation: &str, path: &Path, error: OperationError) -> Error {
    use OperationError as E;
    let message = error.to_string();
    match error {
        E::PointIdError { missed_point_id } => {
            Error::NotFound(format!("No point with id {missed_point_id} found"))
        }
        E::WrongVectorDimension { .. }
        | E::MalformedVectorBlob { .. }
        | E::MalformedPayloadBlob { .. }
        | E::VectorNameNotExists { .. }
        | E::TypeError { .. }
        | E::TypeInferenceError { .. }
        | E::WrongSparse
        | E::WrongMulti
        | E::MissingRangeIndexForOrderBy { .. }
        | E::MissingMapIndexForFacet { .. }
        | E::VariableTypeError { .. }
        | E::NonFiniteNumber { .. } => Error::invalid("", message),
        E::ValidationError { description } => Error::invalid("", description),
        E::FileNotFound { path } => Error::Storage {
            kind: StorageKind::NotFound,
            operation: operation.to_owned(),
            path: path.display().to_string(),
            message,
        },
        E::InconsistentStorage { description } => Error::Corrupt {
            file: path.display().to_string(),
            offset: None,
            message: description,
        },
        E::ServiceError { description, .. } => match kind_in(&description) {
            Some(kind) => Error::Storage {
                kind,
                operation: operation.to_owned(),
                path: path.display().to_string(),
                message: description,
            },
            None => Error::Internal(format!("{operation} {}: {description}", path.display())),
        },
        // Nothing cancels a request here but the engine itself: where a formula fails for a point of
        // one segment, it stops the others, and may report that.
        E::Cancelled { .. } => Error::invalid(
            "",
            "a formula has no value for some point: a variable is missing and has no default, or \
             the result is not a finite number",
        ),
        E::OutOfMemory { .. } | E::Timeout { .. } | E::OutOfAppendableCapacity { .. } => {
            Error::Internal(format!("{operation}: {message}"))
        }
    }
}

/// How the standard library shows an error that the system reported.
const OS_ERROR: &str = "(os error ";

/// The engine turns IO errors into text; this finds them again.
pub(crate) fn kind_in(description: &str) -> Option<StorageKind> {
    StorageKind::in_words(description)
}
