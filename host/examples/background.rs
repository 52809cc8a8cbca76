//! An application that writes and searches while a worker keeps it in step with a server. It shows
//! what happens, and never waits for a network.
//!
//! ```sh
//! EDGE_SYNC_COMPONENT=edge_sync.wasm QDRANT_URL=http://127.0.0.1:6333 \
//!     cargo run --release -p edge-sync-host --example background
//! ```

use std::time::Duration;

use edge_sync_host::{
    Component, EdgeSync, Event, Point, SearchRequest, Secret, ServerSettings, SyncerOptions,
};
use serde::Serialize;

#[derive(Serialize)]
struct Note {
    text: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or("background-data".into());
    let component = Component::load(Component::find(None)?)?;
    let mut builder = EdgeSync::builder(component, &directory);
    if let Ok(url) = std::env::var("QDRANT_URL") {
        let mut server = ServerSettings::new(url, "notes");
        server.api_key = std::env::var("QDRANT_API_KEY").ok().map(Secret::new);
        // Uploads what is written, and fetches what others wrote once a minute.
        builder = builder.server(server).background(SyncerOptions::default());
    }
    let edge = builder.open_or_create(r#"{"vectors": {"size": 2, "distance": "Dot"}}"#)?;

    // Ends when the last handle to `edge` is gone.
    let events = edge.events();
    let shown = std::thread::spawn(move || {
        for event in events {
            match event {
                Event::Queued => println!("a write waits for upload"),
                Event::Uploaded { operations } => println!("{operations} operations uploaded"),
                Event::Rejected { sequence, message } => {
                    println!("the server refuses operation {sequence}: {message}");
                }
                Event::Pulled { points, .. } => println!("fetched: {points} points now"),
                Event::Waiting(why) => println!("trying again later: {}", why.message),
                Event::Stopped(why) => println!("somebody has to look: {}", why.message),
                _ => {}
            }
        }
    });

    for (id, text) in (1_u64..).zip(["buy bread", "call Ada", "read on"]) {
        let vector = [id as f32, 1.0];
        let note = Note { text: text.into() };
        edge.shard()
            .upsert(vec![Point::dense(id, vector).payload(&note)?])?;
    }
    let nearest = SearchRequest::nearest("", vec![1.0, 0.0], 1);
    for hit in edge.shard().search(nearest)? {
        println!("found {}", hit.payload.unwrap_or_default());
    }

    // An application runs on here; this one gives the worker a moment.
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while edge.has_server() && std::time::Instant::now() < end {
        if edge.shard().queue_status()?.queued == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{} operations wait", edge.shard().queue_status()?.queued);
    drop(edge);
    let _ = shown.join();
    Ok(())
}
