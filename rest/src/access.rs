//! The API key.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

use crate::Error;

/// Paths that need no key, as on the server: they say only that it is there.
const OPEN_PATHS: [&str; 4] = ["/", "/healthz", "/livez", "/readyz"];

/// Turns away requests without the right key.
pub(crate) async fn require_key(
    State(key): State<Arc<str>>,
    request: Request,
    next: Next,
) -> Response {
    if OPEN_PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match presented_key(request.headers()) {
        None => Error::Unauthorized(
            "Must provide an API key or an Authorization bearer token".to_owned(),
        )
        .into_response(),
        Some(presented) if same_secret(presented.as_bytes(), key.as_bytes()) => {
            next.run(request).await
        }
        Some(_) => Error::Unauthorized("Invalid API key or JWT".to_owned()).into_response(),
    }
}

/// `api-key` wins over `Authorization: Bearer`.
fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text("api-key")
        .or_else(|| text(header::AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Bearer ")))
}

/// Compares in time that depends on the presented length only.
fn same_secret(presented: &[u8], secret: &[u8]) -> bool {
    let mut difference = presented.len() ^ secret.len();
    for (index, byte) in presented.iter().enumerate() {
        let expected = secret.get(index).copied().unwrap_or_default();
        difference |= usize::from(byte ^ expected);
    }
    difference == 0
}
