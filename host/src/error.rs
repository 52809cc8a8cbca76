//! Every way in which the host or the component can fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::bindings::exports::edge_sync::shard::types::Error as Guest;
use crate::holder::Holder;
use crate::types::{
    Corruption, FailureClass, MemoryShortage, SequenceRange, ServerFailure, StorageFailure,
    StorageKind,
};

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. The first group mirrors the WIT `error` variant; the second is the host's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's input was refused; nothing was changed.
    #[error("{}{message}", if field.is_empty() { String::new() } else { format!("{field}: ") })]
    InvalidInput {
        /// Path of the field at fault (`points[3].vectors.image`); empty for the whole input.
        field: String,
        /// What is wrong with it and what would be accepted.
        message: String,
    },
    /// There is no such shard, vector, file or rejected operation.
    #[error("not found: {0}")]
    NotFound(String),
    /// There is a shard in the directory already.
    #[error("already exists: {0}")]
    AlreadyExists(String),
    /// The engine, or this build of it, cannot do that.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The file system failed inside the component. Nothing of the failed call was logged, but for
    /// a batch of several steps, of which those before the one that failed stay.
    #[error("cannot {}{}: {}", .0.operation, at(&.0.path), .0.message)]
    Storage(StorageFailure),
    /// Too little memory is free for a write that adds to the shard. Nothing was done; reads, deletes,
    /// uploads and flushes have what they need.
    #[error(
        "too little memory: the write needs {} MiB, with what must be possible after it, and {} MiB of \
         {} MiB are free", .0.needed_bytes >> 20, .0.free_bytes >> 20, .0.limit_bytes >> 20
    )]
    NoMemory(MemoryShortage),
    /// Operations that wait for upload are no longer in the log, so that the upload cannot go on by
    /// itself. What they did is in the shard.
    #[error(
        "operations {} to {} wait for upload and are no longer in the log; what they did is in the \
         shard", .0.first, .0.last
    )]
    LostOperations(SequenceRange),
    /// The shard's data cannot be loaded, for the reason given. What waits for upload can be
    /// uploaded, and the rejected log be read, all the same.
    #[error("the shard cannot be loaded: {0}")]
    NotLoaded(Arc<Error>),
    /// A restore, a pull or an optimization of this shard is under way.
    #[error("a restore, a pull or an optimization of the shard in {} is under way", .0.display())]
    Restoring(PathBuf),
    /// Stored bytes are not what was written.
    #[error("{} is damaged{}: {}", .0.file, .0.offset.map(|at| format!(" at byte {at}")).unwrap_or_default(), .0.message)]
    Corrupt(Corruption),
    /// The snapshot cannot be restored; the shard is as it was before.
    #[error("the snapshot cannot be restored: {0}")]
    BadSnapshot(String),
    /// An exchange with the server failed.
    #[error("{}: {}{}", .0.request, .0.status.map(|status| format!("status {status}: ")).unwrap_or_default(), .0.message)]
    Server(ServerFailure),
    /// An earlier failure left the shard in doubt, and opening it again did not help.
    #[error("the shard must be opened again: {0}")]
    NeedsReopen(String),
    /// A failure that is a bug in the component or the engine.
    #[error("internal error: {0}")]
    Internal(String),

    /// The component trapped. The instance is replaced, and what a write had logged is taken back;
    /// [`Shard::notes`](crate::Shard::notes) says what was recovered.
    #[error("the component trapped in `{call}`: {message}")]
    Trapped {
        /// WIT function that was called.
        call: &'static str,
        /// The trap, the innermost frames, and the last lines the component wrote to stderr.
        message: String,
    },
    /// A call ran past its time limit and was stopped; otherwise as [`Error::Trapped`].
    #[error("`{call}` was stopped after {} s", limit.as_secs_f64())]
    TimedOut {
        /// WIT function that was called.
        call: &'static str,
        /// The limit that applied.
        limit: Duration,
    },
    /// The component needed more memory than it may have; otherwise as [`Error::Trapped`].
    #[error("`{call}` needed more than the memory limit of {} MiB", limit_bytes >> 20)]
    MemoryLimit {
        /// WIT function that was called.
        call: &'static str,
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// Another host has the data directory open.
    #[error(
        "{} is in use by {}", directory.display(),
        holder.as_ref().map_or("another process".to_owned(), ToString::to_string)
    )]
    Locked {
        /// The data directory.
        directory: PathBuf,
        /// The process that has it, where it could be read.
        holder: Option<Holder>,
    },
    /// The shard is not removed, since something in it is nowhere else.
    #[error("{}", unsent(*queued, *rejected))]
    Unsent {
        /// Operations that wait for upload.
        queued: u64,
        /// Operations in the rejected log.
        rejected: u64,
    },
    /// The snapshot holds far fewer points than the shard; nothing was changed.
    #[error(
        "the snapshot holds {} point{} and the shard {}: a restore would drop the difference",
        grouped(*snapshot), if *snapshot == 1 { "" } else { "s" }, grouped(*held)
    )]
    WouldDrop {
        /// Points in the shard.
        held: u64,
        /// Points in the snapshot, with what waits for upload.
        snapshot: u64,
    },
    /// The component file cannot be found or read.
    #[error("cannot load the component {}: {message}", path.display())]
    ComponentMissing {
        /// Where it was looked for.
        path: PathBuf,
        /// What happened, and what to do.
        message: String,
    },
    /// The component is not one that this host can run.
    #[error("cannot use the component: {0}")]
    BadComponent(String),
    /// A setting is wrong.
    #[error("setting `{name}`: {message}")]
    Setting {
        /// Which one.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The host's own file access failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The caller cancelled the operation.
    #[error("cancelled")]
    Cancelled,
    /// The instance's thread has ended.
    #[error("the {0} has been closed")]
    Closed(&'static str),
}

fn unsent(queued: u64, rejected: u64) -> String {
    let mut parts = Vec::new();
    match queued {
        0 => {}
        1 => parts.push("1 operation waits for upload".to_owned()),
        _ => parts.push(format!("{} operations wait for upload", grouped(queued))),
    }
    match rejected {
        0 => {}
        1 => parts.push("1 operation that the server refused is kept".to_owned()),
        _ => parts.push(format!(
            "{} operations that the server refused are kept",
            grouped(rejected)
        )),
    }
    format!("{}; all that would be lost", parts.join(", "))
}

/// `83,100`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(" ({path})")
    }
}

impl Error {
    /// A stable name of the kind, for programs: `invalid-input`, `not-found`, `server`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Error::InvalidInput { .. } => "invalid-input",
            Error::NotFound(_) => "not-found",
            Error::AlreadyExists(_) => "already-exists",
            Error::Unsupported(_) => "unsupported",
            Error::Storage(_) => "storage",
            Error::NoMemory(_) => "no-memory",
            Error::LostOperations(_) => "lost-operations",
            Error::NotLoaded(cause) => cause.kind(),
            Error::Restoring(_) => "restoring",
            Error::Corrupt(_) => "corrupt",
            Error::BadSnapshot(_) => "bad-snapshot",
            Error::Server(_) => "server",
            Error::NeedsReopen(_) => "needs-reopen",
            Error::Internal(_) => "internal",
            Error::Trapped { .. } => "trapped",
            Error::TimedOut { .. } => "timed-out",
            Error::MemoryLimit { .. } => "memory-limit",
            Error::Locked { .. } => "locked",
            Error::Unsent { .. } => "unsent",
            Error::WouldDrop { .. } => "would-drop",
            Error::ComponentMissing { .. } => "component-missing",
            Error::BadComponent(_) => "bad-component",
            Error::Setting { .. } => "setting",
            Error::Io { .. } => "io",
            Error::Cancelled => "cancelled",
            Error::Closed(_) => "closed",
        }
    }

    /// What to do about it, if it is a failed exchange with the server.
    pub fn failure_class(&self) -> Option<FailureClass> {
        match self {
            Error::Server(failure) => Some(failure.class),
            _ => None,
        }
    }

    /// True if the disk or the quota is full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Error::Storage(failure) => failure.kind == StorageKind::NoSpace,
            Error::Io { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::QuotaExceeded
                    | std::io::ErrorKind::FileTooLarge
            ),
            Error::NotLoaded(cause) => cause.is_no_space(),
            _ => false,
        }
    }

    /// True if there is too little memory.
    pub fn is_no_memory(&self) -> bool {
        match self {
            Error::NoMemory(_) | Error::MemoryLimit { .. } => true,
            Error::NotLoaded(cause) => cause.is_no_memory(),
            _ => false,
        }
    }

    /// True if the instance that failed is no longer usable.
    pub(crate) fn ends_instance(&self) -> bool {
        matches!(
            self,
            Error::Trapped { .. } | Error::TimedOut { .. } | Error::MemoryLimit { .. }
        )
    }

    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Error {
        Error::InvalidInput {
            field: field.into(),
            message: message.into(),
        }
    }

    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            operation,
            path,
            source,
        }
    }

    /// Replaces the guest's name of a granted folder by the host's in paths meant for people.
    pub(crate) fn with_host_paths(mut self, guest: &str, host: &Path) -> Error {
        let translate = |path: &mut String| {
            if let Some(rest) = path.strip_prefix(guest)
                && (rest.is_empty() || rest.starts_with('/'))
            {
                let rest = rest.trim_start_matches('/');
                let path_here = match rest {
                    "" => host.to_owned(),
                    rest => host.join(rest),
                };
                *path = path_here.display().to_string();
            }
        };
        match &mut self {
            Error::Storage(failure) => translate(&mut failure.path),
            Error::Corrupt(corruption) => translate(&mut corruption.file),
            _ => {}
        }
        self
    }
}

impl From<Guest> for Error {
    fn from(error: Guest) -> Error {
        match error {
            Guest::InvalidInput(input) => Error::InvalidInput {
                field: input.field,
                message: input.message,
            },
            // The host tracks what is open; either means that it lost track.
            Guest::NotOpen => Error::Internal("no shard is open in the instance".into()),
            Guest::AlreadyOpen => Error::Internal("a shard is already open in the instance".into()),
            Guest::NotFound(what) => Error::NotFound(what),
            Guest::AlreadyExists(what) => Error::AlreadyExists(what),
            Guest::Unsupported(what) => Error::Unsupported(what),
            Guest::Storage(failure) => Error::Storage(failure),
            Guest::NoMemory(shortage) => Error::NoMemory(shortage),
            Guest::LostOperations(lost) => Error::LostOperations(lost),
            Guest::Corrupt(corruption) => Error::Corrupt(corruption),
            Guest::BadSnapshot(why) => Error::BadSnapshot(why),
            Guest::Server(failure) => Error::Server(failure),
            Guest::NeedsReopen(why) => Error::NeedsReopen(why),
            Guest::Internal(why) => Error::Internal(why),
        }
    }
}

/// What a program reads of a failure: `retry`, `stop`, `reject`, `too-large`, `unclear` or `missing`.
pub fn failure_class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Retry => "retry",
        FailureClass::Stop => "stop",
        FailureClass::Reject => "reject",
        FailureClass::TooLarge => "too-large",
        FailureClass::Unclear => "unclear",
        FailureClass::Missing => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(count), text);
        }
    }
}
