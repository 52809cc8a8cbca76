//! A plugin host in small: a shard that answers offline and keeps in step with a server.
//!
//! ```sh
//! EDGE_SYNC_COMPONENT=edge_sync.wasm QDRANT_URL=http://127.0.0.1:6333 \
//!     cargo run --release -p edge-sync-host --example embed
//! ```

use edge_sync_host::{
    Component, EdgeSync, Point, SearchRequest, Secret, ServerSettings, SyncReport,
};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or("embed-data".to_owned());
    let component = Component::load(Component::find(None)?)?;

    let mut builder = EdgeSync::builder(component, &directory);
    if let Ok(url) = std::env::var("QDRANT_URL") {
        let mut server = ServerSettings::new(url, "embed");
        server.api_key = std::env::var("QDRANT_API_KEY").ok().map(Secret::new);
        builder = builder.server(server);
    }
    let edge = builder.open_or_create(r#"{"vectors": {"size": 3, "distance": "Cosine"}}"#)?;
    for note in edge.shard().notes() {
        eprintln!("note: {note}");
    }

    // Durable when it returns, and queued for upload.
    let colours = [
        ("red", [1.0, 0.0, 0.0]),
        ("green", [0.0, 1.0, 0.0]),
        ("orange", [1.0, 0.5, 0.0]),
    ];
    let points: Result<Vec<Point>, _> = (1_u64..)
        .zip(colours)
        .map(|(id, (name, rgb))| Point::dense(id, rgb).payload(&json!({ "name": name })))
        .collect();
    edge.shard().upsert(points?)?;

    for hit in edge
        .shard()
        .search(SearchRequest::nearest("", vec![1.0, 0.2, 0.0], 2))?
    {
        println!("{:.3} {}", hit.score, hit.payload.unwrap_or_default());
    }

    // Offline is no reason to fail: what was written waits on disk.
    match edge.sync().and_then(SyncReport::into_result) {
        Ok(report) => println!("{} operations uploaded", report.uploaded),
        Err(why) => println!("not synced: {why}"),
    }
    edge.shard().close()?;
    Ok(())
}
