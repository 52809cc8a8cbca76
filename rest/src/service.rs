//! Endpoints about the service itself, and those of Qdrant's API that are not offered.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, any, get, post};
use serde_json::{Value, json};

use crate::router::App;
use crate::{Backend, Error, envelope};

/// What the server says about itself, path by path.
pub(crate) fn routes<B: Backend>() -> Vec<(&'static str, MethodRouter<Arc<App<B>>>)> {
    let mut routes = vec![
        ("/", get(version::<B>)),
        ("/healthz", get(async || "healthz check passed")),
        ("/livez", get(async || "healthz check passed")),
        ("/readyz", get(async || "all shards are ready")),
        (
            "/cluster",
            get(async || envelope::answer(Instant::now(), Ok(json!({"status": "disabled"})))),
        ),
        ("/aliases", get(no_aliases)),
        ("/collections/{collection}/aliases", get(no_aliases)),
        (
            "/collections/aliases",
            post(async || unsupported("collection aliases")),
        ),
    ];
    // The API description gives these two no answer but 200 and 4XX.
    for (path, what) in [("/metrics", "metrics"), ("/issues", "issue reports")] {
        routes.push((
            path,
            any(async move || Error::NotFound(format!("this endpoint has no {what}"))),
        ));
    }
    for path in REMOVED {
        routes.push((path, any(removed)));
    }
    for (path, what) in NOT_OFFERED {
        routes.push((path, any(async move || unsupported(what))));
    }
    routes
}

const NOT_OFFERED: [(&str, &str); 15] = [
    ("/telemetry", "telemetry"),
    ("/quotas", "quotas"),
    ("/cluster/telemetry", "cluster operations"),
    ("/cluster/recover", "cluster operations"),
    ("/cluster/peer/{peer_id}", "cluster operations"),
    ("/collections/{collection}/cluster", "cluster operations"),
    (
        "/collections/{collection}/optimizations",
        "optimizer reports",
    ),
    ("/collections/{collection}/shards", "shard keys"),
    ("/collections/{collection}/shards/delete", "shard keys"),
    (
        "/collections/{collection}/snapshots/upload",
        "restore over REST",
    ),
    (
        "/collections/{collection}/snapshots/recover",
        "restore over REST",
    ),
    (
        "/collections/{collection}/shards/{shard}/snapshots/upload",
        "restore over REST",
    ),
    (
        "/collections/{collection}/shards/{shard}/snapshots/recover",
        "restore over REST",
    ),
    ("/snapshots", "snapshots of the whole storage"),
    ("/snapshots/{snapshot}", "snapshots of the whole storage"),
];

/// Endpoints of earlier versions, which Qdrant 1.19 answers with 404.
const REMOVED: [&str; 8] = [
    "/collections/{collection}/points/search",
    "/collections/{collection}/points/search/batch",
    "/collections/{collection}/points/search/groups",
    "/collections/{collection}/points/recommend",
    "/collections/{collection}/points/recommend/batch",
    "/collections/{collection}/points/recommend/groups",
    "/collections/{collection}/points/discover",
    "/collections/{collection}/points/discover/batch",
];

async fn removed(method: Method, uri: Uri) -> Error {
    Error::NotFound(format!(
        "{method} {}: Qdrant removed this from its API; use POST /collections/{{collection}}/points/query",
        uri.path()
    ))
}

fn unsupported(what: &str) -> Error {
    Error::Unsupported(format!("this endpoint has no {what}"))
}

async fn version<B: Backend>(State(app): State<Arc<App<B>>>) -> Json<Value> {
    let identity = &app.options.identity;
    Json(json!({"title": identity.title, "version": identity.version}))
}

/// There are none, since none can be made.
async fn no_aliases() -> Response {
    envelope::answer(Instant::now(), Ok(json!({"aliases": []})))
}

pub(crate) async fn no_such_endpoint(method: Method, uri: Uri) -> Error {
    Error::NotFound(format!("no endpoint {method} {}", uri.path()))
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Error {
    Error::MethodNotAllowed(format!("{} does not take {method}", uri.path()))
}
