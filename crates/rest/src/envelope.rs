//! The shape of every JSON answer: `{"result", "status", "time"}`.

use std::time::Instant;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::{Error, Result};

/// Serialized as it is, so that a backend's text is not parsed again.
#[derive(Serialize)]
struct Answered<T> {
    result: T,
    status: &'static str,
    time: f64,
}

/// Wraps a result, or an error, with the seconds it took since `started`.
pub(crate) fn answer<T: Serialize>(started: Instant, result: Result<T>) -> Response {
    match result {
        Ok(result) => {
            let time = started.elapsed().as_secs_f64();
            let status = "ok";
            Json(Answered {
                result,
                status,
                time,
            })
            .into_response()
        }
        Err(error) => failure(started, &error),
    }
}

/// The answer to `wait=false` where Qdrant promises nothing but that it will happen.
pub(crate) fn accepted(started: Instant) -> Response {
    let time = started.elapsed().as_secs_f64();
    let body = Json(json!({"status": "accepted", "time": time}));
    (StatusCode::ACCEPTED, body).into_response()
}

pub(crate) fn failure(started: Instant, error: &Error) -> Response {
    if error.status().is_server_error() {
        tracing::warn!(%error, "request failed");
    }
    let time = started.elapsed().as_secs_f64();
    let body = Json(json!({"status": {"error": error.to_string()}, "time": time}));
    with_retry_after(error, (error.status(), body).into_response())
}

/// A refusal without the envelope, as the server answers wherever a success would be a file.
pub(crate) fn plain_failure(error: &Error) -> Response {
    with_retry_after(error, (error.status(), error.to_string()).into_response())
}

fn with_retry_after(error: &Error, mut response: Response) -> Response {
    if let Some(seconds) = error.retry_after() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        failure(Instant::now(), &self)
    }
}
