//! A web service with search in it: an axum handler asks the shard, and a worker keeps it in step.
//!
//! ```sh
//! EDGE_SYNC_COMPONENT=edge_sync.wasm cargo run --release -p edge-sync-host --example service
//! curl --json '[0.1, 0.9]' http://127.0.0.1:3000/search
//! ```

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use edge_sync_host::{
    Component, EdgeSync, Error, Point, PointId, SearchRequest, ServerSettings, SyncerOptions,
};
use serde_json::{Value, json};

type Refusal = (StatusCode, String);

/// What the caller can put right, and what only we can.
fn refusal(error: Error) -> Refusal {
    let status = match &error {
        Error::InvalidInput { .. } => StatusCode::BAD_REQUEST,
        Error::NoMemory(_) => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

async fn search(
    State(edge): State<EdgeSync>,
    Json(vector): Json<Vec<f32>>,
) -> Result<Json<Value>, Refusal> {
    let request = SearchRequest::nearest("", vector, 10);
    let hits = edge.shard().search_async(request).await.map_err(refusal)?;
    let hits = hits.into_iter().map(|hit| {
        let id = match hit.id {
            PointId::Num(number) => json!(number),
            PointId::Uuid(uuid) => json!(uuid),
        };
        json!({ "id": id, "score": hit.score })
    });
    Ok(Json(hits.collect()))
}

async fn add(
    State(edge): State<EdgeSync>,
    Json((id, vector)): Json<(u64, Vec<f32>)>,
) -> Result<StatusCode, Refusal> {
    // Durable when it returns; the worker uploads it when the server can be reached.
    let point = Point::dense(id, vector);
    edge.shard()
        .upsert_async(vec![point])
        .await
        .map_err(refusal)?;
    Ok(StatusCode::CREATED)
}

async fn waiting(State(edge): State<EdgeSync>) -> Result<String, Refusal> {
    let queue = edge.shard().queue_status_async().await.map_err(refusal)?;
    Ok(format!("{} operations wait for upload\n", queue.queued))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let directory = std::env::args().nth(2).unwrap_or("service-data".into());
    let component = Component::load(Component::find(None)?)?;
    let mut builder = EdgeSync::builder(component, &directory);
    if let Ok(url) = std::env::var("QDRANT_URL") {
        builder = builder
            .server(ServerSettings::new(url, "service"))
            .background(SyncerOptions::default());
    }
    let edge = builder
        .open_or_create_async(r#"{"vectors": {"size": 2, "distance": "Cosine"}}"#)
        .await?;
    let router = Router::new()
        .route("/search", post(search))
        .route("/points", post(add))
        .route("/waiting", get(waiting))
        .with_state(edge);
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
