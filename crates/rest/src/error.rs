//! Failures, with the status and the words that Qdrant uses for them.

use axum::http::StatusCode;

/// Why a request was not served. The `Display` text is what the client reads as `status.error`;
/// the prefixes are Qdrant's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is well formed but asks for something impossible. 400.
    #[error("Wrong input: {}", labelled(field, message))]
    InvalidInput {
        /// The field at fault, as a path from the body (`points[3].vector`); may be empty.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The body, the path or the query string cannot be parsed; the text says which. 400.
    #[error("{0}")]
    Malformed(String),
    /// A value is of the right type and out of range; the text says where. 422.
    #[error("Validation error in {0}")]
    OutOfRange(String),
    /// The request makes no sense to the collection as it is. 400.
    #[error("Bad request: {0}")]
    BadRequest(String),
    /// Refused with this status and these words, which are complete.
    #[error("{message}")]
    Refused {
        /// The status.
        status: u16,
        /// What the client reads.
        message: String,
    },
    /// Too much in too short a time. 429.
    #[error("Rate limiting exceeded: {message}")]
    RateLimited {
        /// Which limit.
        message: String,
        /// `Retry-After`, in seconds; none if it is no use to wait.
        retry_after: Option<u64>,
    },
    /// No API key, or a wrong one. 401.
    #[error("{0}")]
    Unauthorized(String),
    /// The key does not permit this. 403.
    #[error("Forbidden: {0}")]
    Forbidden(String),
    /// No such collection, point, vector, shard, snapshot or endpoint. 404.
    #[error("Not found: {0}")]
    NotFound(String),
    /// The collection, index or vector is there already. 409.
    #[error("Wrong input: {0}")]
    AlreadyExists(String),
    /// The collection is in a state that does not allow this. 409.
    #[error("Wrong input: {0}")]
    Conflict(String),
    /// Qdrant's API has this, the backend does not; the text says why. 501.
    #[error("Not supported: {0}")]
    Unsupported(String),
    /// The backend cannot serve right now. 503.
    #[error("Shard temporarily unavailable: {0}")]
    Unavailable(String),
    /// More is asked than can be done at once; a moment later there may be room. 503.
    #[error("Service overloaded: {0}")]
    Overloaded(String),
    /// The disk, the quota or the memory is full. 507.
    #[error("Insufficient storage: {0}")]
    InsufficientStorage(String),
    /// Anything else. 500.
    #[error("Service internal error: {0}")]
    Internal(String),
}

fn labelled(field: &str, message: &str) -> String {
    if field.is_empty() {
        message.to_owned()
    } else {
        format!("{field}: {message}")
    }
}

impl Error {
    /// Input at fault, with the field it is in (may be empty).
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidInput {
            field: field.into(),
            message: message.into(),
        }
    }

    /// A body that is not what it should be.
    pub fn body_format(detail: impl std::fmt::Display) -> Self {
        Self::Malformed(format!("Format error in JSON body: {detail}"))
    }

    /// The `Retry-After` that goes with the error, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after, .. } => *retry_after,
            Self::Overloaded(_) => Some(1),
            _ => None,
        }
    }

    /// The answer to any request on a collection that is not there.
    pub fn no_collection(name: &str) -> Self {
        Self::NotFound(format!("Collection `{name}` doesn't exist!"))
    }

    /// The answer to creating a collection twice.
    pub fn collection_exists(name: &str) -> Self {
        Self::AlreadyExists(format!("Collection `{name}` already exists!"))
    }

    /// The HTTP status that goes with the error.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidInput { .. } | Self::Malformed(_) | Self::BadRequest(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::OutOfRange(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Refused { status, .. } => {
                StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::AlreadyExists(_) | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable(_) | Self::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::InsufficientStorage(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
