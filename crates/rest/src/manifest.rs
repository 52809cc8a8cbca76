//! What a client says that it has of a shard: the body that asks for what changed.
//!
//! The server (1.19) reads this body by other means than any other: it wants a content type, has a
//! limit of its own, and refuses in words without the envelope.

use std::collections::HashMap;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::Options;
use crate::{Error, Result};

/// The default of the server's web framework, which is not changed for this body.
const LIMIT: usize = 2 * 1024 * 1024;

#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct SnapshotManifest(HashMap<String, SegmentManifest>);

/// By name in errors as on the server.
#[derive(Deserialize, Serialize)]
struct SegmentManifest {
    segment_id: String,
    segment_version: u64,
    file_versions: HashMap<PathBuf, FileVersion>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum FileVersion {
    Version(u64),
    Unversioned,
}

/// Reads the body: segment manifests by segment, without fields that are not known.
pub(crate) async fn read(headers: &HeaderMap, body: Body, options: &Options) -> Result<Value> {
    let limit = options.body_limit.min(LIMIT);
    if !is_json(headers) {
        return Err(Error::Malformed("Content type error".to_owned()));
    }
    let too_large = |message| Error::Refused {
        status: StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
        message,
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if let Some(length) = announced
        && length > limit
    {
        return Err(too_large(format!(
            "JSON payload ({length} bytes) is larger than allowed (limit: {limit} bytes)."
        )));
    }
    let _held = match options.load() {
        Some(load) => Some(load.hold_body(limit)?),
        None => None,
    };
    let bytes = axum::body::to_bytes(body, limit);
    let bytes = match options.load() {
        Some(load) => load.in_body_time(bytes).await?,
        None => bytes.await,
    };
    let bytes = bytes.map_err(|error| {
        let over_limit = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if over_limit {
            too_large(format!("JSON payload has exceeded limit ({limit} bytes)."))
        } else {
            Error::Malformed(format!("Error that occur during reading payload: {error}"))
        }
    })?;
    let refuse = |error| Error::Malformed(format!("Json deserialize error: {error}"));
    let manifest: SnapshotManifest = serde_json::from_slice(&bytes).map_err(refuse)?;
    serde_json::to_value(manifest).map_err(refuse)
}

/// Any type whose subtype is `json`, or ends in `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let subtype = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .and_then(|mime| mime.trim().split_once('/'))
        .map(|(_, subtype)| subtype.to_ascii_lowercase());
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}
