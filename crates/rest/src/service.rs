//! Endpoints about the service itself, and those of Qdrant's API that are not offered.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, get};
use serde_json::{Value, json};

use crate::app::App;
use crate::{Backend, CollectionState, Error, Gauge, Result, ShardState, envelope};

/// What the server says about itself, path by path.
pub(crate) fn routes<B: Backend>() -> Vec<(&'static str, MethodRouter<Arc<App<B>>>)> {
    let mut routes = vec![
        ("/", get(version::<B>)),
        ("/healthz", get(async || "healthz check passed")),
        ("/livez", get(async || "healthz check passed")),
        ("/readyz", get(async || "all shards are ready")),
        ("/cluster", get(cluster::<B>)),
        ("/metrics", get(metrics_text::<B>)),
        (
            "/issues",
            get(async || envelope::answer(Instant::now(), Ok(json!({"issues": []}))))
                .delete(async || envelope::answer(Instant::now(), Ok(true))),
        ),
    ];
    for (path, what) in NOT_OFFERED {
        routes.push((path, any(async move || unsupported(what))));
    }
    routes
}

const NOT_OFFERED: [(&str, &str); 11] = [
    ("/telemetry", "telemetry"),
    ("/quotas", "quotas"),
    ("/cluster/telemetry", "cluster operations"),
    ("/cluster/recover", "cluster operations"),
    ("/cluster/peer/{peer_id}", "cluster operations"),
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

pub(crate) fn unsupported(what: &str) -> Error {
    Error::Unsupported(format!("this endpoint has no {what}"))
}

async fn version<B: Backend>(State(app): State<Arc<App<B>>>) -> Json<Value> {
    let identity = &app.options.identity;
    Json(json!({"title": identity.title, "version": identity.version}))
}

async fn cluster<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    let told = match app.backend.peer_of_cluster() {
        None => json!({"status": "disabled"}),
        Some(peer) => json!({
            "status": "enabled",
            "peer_id": peer,
            "peers": {peer.to_string(): {"uri": "http://127.0.0.1:6335/"}},
            "raft_info": {
                "term": 1, "commit": 1, "pending_operations": 0, "leader": peer, "role": "Leader",
                "is_voter": true,
            },
            // There is no consensus to be late with.
            "consensus_thread_status": {
                "consensus_thread_status": "working", "last_update": "1970-01-01T00:00:00Z",
            },
            "message_send_failures": {},
        }),
    };
    envelope::answer(Instant::now(), Ok(told))
}

/// The shards of a collection, as `GET /collections/{collection}/cluster` lists them.
pub(crate) fn shards_of(state: &CollectionState) -> Vec<Value> {
    let is_keyed = state.config["sharding_method"] == "custom";
    let one = [ShardState {
        number: 0,
        key: None,
        points: state.points,
    }];
    let shards = match state.shards.is_empty() && !is_keyed {
        true => &one[..],
        false => &state.shards,
    };
    shards
        .iter()
        .map(|shard| {
            let mut told = json!({
                "shard_id": shard.number,
                "points_count": shard.points,
                "state": "Active",
            });
            if let Some(key) = &shard.key {
                told["shard_key"] = key.clone();
            }
            told
        })
        .collect()
}

/// Answers `GET /metrics`.
async fn metrics_text<B: Backend>(State(app): State<Arc<App<B>>>) -> Result<Response> {
    let mut gauges = vec![Gauge {
        name: "app_info",
        help: "information about qdrant server",
        label: Some(("version", app.options.identity.version.clone())),
        value: 1.0,
    }];
    gauges.push(Gauge {
        name: "app_status_recovery_mode",
        help: "features enabled in qdrant server",
        label: None,
        value: 0.0,
    });
    gauges.extend(app.blocking(|backend| backend.gauges()).await?);
    let text = app
        .metrics
        .text(&gauges, app.options.load())
        .map_err(|error| Error::Internal(format!("metrics: {error}")))?;
    let content_type = HeaderValue::from_static(prometheus::TEXT_FORMAT);
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
