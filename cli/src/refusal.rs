//! The host's errors, as the server would put them.

use edge_sync_host::Error as HostError;
use edge_sync_rest::Error;

/// As an answer of the endpoint.
pub fn refusal(error: HostError) -> Error {
    match error {
        HostError::InvalidInput { field, message } => Error::InvalidInput { field, message },
        HostError::NotFound(what) => Error::NotFound(what),
        HostError::AlreadyExists(what) => Error::AlreadyExists(what),
        HostError::Unsupported(why) => Error::Unsupported(why),
        HostError::NeedsReopen(_) | HostError::Closed(_) => Error::Unavailable(error.to_string()),
        HostError::Internal(what) => Error::Internal(what),
        HostError::Unsent { .. } => Error::Conflict(error.to_string()),
        HostError::NotLoaded(_) | HostError::Restoring(_) => Error::Unavailable(error.to_string()),
        error if error.is_no_space() || error.is_no_memory() => {
            Error::InsufficientStorage(error.to_string())
        }
        other => Error::Internal(other.to_string()),
    }
}
