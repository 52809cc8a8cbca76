//! The requests that operations are uploaded as.

use edge_sync_engine::{Operation, Upload};

use crate::bindings::queue::UploadRequest;
use crate::error::Result;

/// The request that an operation is by itself.
pub fn alone(operation: &Operation) -> Result<UploadRequest> {
    Ok(match operation.upload()? {
        Upload::Request { method, path, body } => UploadRequest {
            method: method.to_owned(),
            path: confirmed(&path),
            body: body.map(|body| body.to_string()).unwrap_or_default(),
        },
        Upload::Batch(element) => points_batch(&format!("[{element}]")),
    })
}

/// A batch of `elements`, a JSON list.
pub fn points_batch(elements: &str) -> UploadRequest {
    UploadRequest {
        method: "POST".to_owned(),
        path: confirmed("/points/batch"),
        body: format!(r#"{{"operations":{elements}}}"#),
    }
}

/// Asks the server to answer only once the write is applied, and its replicas to keep the order of
/// requests.
fn confirmed(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}wait=true&ordering=strong")
}
