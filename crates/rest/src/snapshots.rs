//! Snapshots: create, list, download, delete, and the stream of a shard.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use tokio_util::io::ReaderStream;
use tower_http::services::ServeFile;

use crate::app::App;
use crate::points::Params;
use crate::{Backend, Error, Result, SnapshotScope, envelope, manifest};

/// Bytes read from disk at a time.
const CHUNK: usize = 64 * 1024;

const CONTENT_TYPE: &str = "application/octet-stream";

pub(crate) fn routes<B: Backend>() -> Vec<(&'static str, MethodRouter<Arc<App<B>>>)> {
    let all = || get(list::<B>).post(create::<B>);
    let one = || get(download::<B>).delete(delete::<B>);
    vec![
        ("/collections/{collection}/snapshots", all()),
        ("/collections/{collection}/snapshots/{snapshot}", one()),
        ("/collections/{collection}/shards/{shard}/snapshots", all()),
        (
            "/collections/{collection}/shards/{shard}/snapshots/{snapshot}",
            one(),
        ),
        (
            "/collections/{collection}/shards/{shard}/snapshot",
            get(stream::<B>),
        ),
        (
            "/collections/{collection}/shards/{shard}/snapshot/partial/create",
            post(partial::<B>),
        ),
    ]
}

/// The parts of a snapshot's path. `shard` stays text until it is known to be a number, so that
/// the refusal is ours.
#[derive(Deserialize)]
struct Target {
    collection: String,
    shard: Option<String>,
    #[serde(default)]
    snapshot: String,
}

impl Target {
    fn shard(&self) -> Result<Option<u32>> {
        let parse = |shard: &String| {
            shard.parse().map_err(|_| {
                Error::Malformed(format!(
                    "Deserialize error in path parameters: shard id `{shard}` is not a number"
                ))
            })
        };
        self.shard.as_ref().map(parse).transpose()
    }

    fn scope(&self) -> Result<SnapshotScope<'_>> {
        Ok(SnapshotScope {
            collection: &self.collection,
            shard: self.shard()?,
        })
    }
}

type Shared<B> = State<Arc<App<B>>>;

async fn list<B: Backend>(State(app): Shared<B>, Path(target): Path<Target>) -> Response {
    let started = Instant::now();
    let result = app.blocking(move |backend| backend.snapshots(target.scope()?));
    envelope::answer(started, result.await)
}

async fn create<B: Backend>(
    State(app): Shared<B>,
    Path(target): Path<Target>,
    uri: Uri,
) -> Response {
    let started = Instant::now();
    let result = async {
        let wait = Params::of(&uri)?.wait;
        let created = app
            .blocking(move |backend| backend.create_snapshot(target.scope()?))
            .await?;
        Ok((wait, created))
    };
    match result.await {
        Ok((Some(false), _)) => envelope::accepted(started),
        Ok((_, created)) => envelope::answer(started, Ok(created)),
        Err(error) => envelope::failure(started, &error),
    }
}

async fn delete<B: Backend>(
    State(app): Shared<B>,
    Path(target): Path<Target>,
    uri: Uri,
) -> Response {
    let started = Instant::now();
    let result = async {
        let wait = Params::of(&uri)?.wait;
        app.blocking(move |backend| backend.delete_snapshot(target.scope()?, &target.snapshot))
            .await?;
        Ok(wait)
    };
    match result.await {
        Ok(Some(false)) => envelope::accepted(started),
        Ok(_) => envelope::answer(started, Ok(true)),
        Err(error) => envelope::failure(started, &error),
    }
}

/// Sends a stored snapshot, or the range of it that was asked for.
async fn download<B: Backend>(
    State(app): Shared<B>,
    Path(target): Path<Target>,
    request: Request,
) -> Response {
    stored_file(&app, target, request)
        .await
        .unwrap_or_else(|error| envelope::plain_failure(&error))
}

async fn stored_file<B: Backend>(
    app: &App<B>,
    target: Target,
    request: Request,
) -> Result<Response> {
    let name = target.snapshot.clone();
    let stored = app
        .blocking(move |backend| backend.stored_snapshot(target.scope()?, &target.snapshot))
        .await?;
    let Ok(mut response) = ServeFile::new(&stored.path).try_call(request).await else {
        return Err(Error::NotFound(format!("Snapshot {name} not found")));
    };
    if response.status().is_success() {
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static(CONTENT_TYPE),
        );
        if let Ok(value) = format!("attachment; filename=\"{name}\"").parse() {
            headers.insert(header::CONTENT_DISPOSITION, value);
        }
        if let Some(value) = entity_tag(&stored.path).and_then(|tag| tag.parse().ok()) {
            headers.insert(header::ETAG, value);
        }
        headers.insert(
            header::VARY,
            header::HeaderValue::from_static(
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            ),
        );
    }
    Ok(response.map(Body::new))
}

/// As the server makes it, of the file's size and time.
fn entity_tag(file: &std::path::Path) -> Option<String> {
    let metadata = std::fs::metadata(file).ok()?;
    let changed = metadata
        .modified()
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    Some(format!(
        "\"{:x}:{:x}:{:x}\"",
        metadata.len(),
        changed.as_secs(),
        changed.subsec_nanos()
    ))
}

/// Sends a shard as it is now. The length is not announced, as on the server.
async fn stream<B: Backend>(app: Shared<B>, target: Path<Target>) -> Response {
    shard_as_it_is(app, target)
        .await
        .unwrap_or_else(|error| envelope::plain_failure(&error))
}

async fn shard_as_it_is<B: Backend>(
    State(app): Shared<B>,
    Path(target): Path<Target>,
) -> Result<Response> {
    let shard = target.shard()?.unwrap_or_default();
    let file = app
        .blocking(move |backend| backend.stream_snapshot(&target.collection, shard))
        .await?;
    Ok(streamed(file))
}

fn streamed(file: std::fs::File) -> Response {
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK);
    let headers = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    (headers, Body::from_stream(chunks)).into_response()
}

/// What changed since the manifest in the body; 304 if nothing did.
async fn partial<B: Backend>(app: Shared<B>, target: Path<Target>, request: Request) -> Response {
    changed_since(app, target, request)
        .await
        .unwrap_or_else(|error| envelope::plain_failure(&error))
}

async fn changed_since<B: Backend>(
    State(app): Shared<B>,
    Path(target): Path<Target>,
    request: Request,
) -> Result<Response> {
    let shard = target.shard()?.unwrap_or_default();
    let (parts, body) = request.into_parts();
    let manifest = manifest::read(&parts.headers, body, &app.options).await?;
    let changed = app
        .blocking(move |backend| backend.partial_snapshot(&target.collection, shard, &manifest))
        .await?;
    Ok(match changed {
        Some(file) => streamed(file),
        // The server's words, though no client looks for a body after this status.
        None => (
            StatusCode::NOT_MODIFIED,
            format!("Partial snapshot for shard {shard} contains no changes"),
        )
            .into_response(),
    })
}
