//! A device that begins with nothing: it restores from the server, then follows it, and searches what it
//! has whenever it likes. Async, on tokio; any executor would do.
//!
//! ```sh
//! EDGE_SYNC_COMPONENT=edge_sync.wasm QDRANT_URL=http://127.0.0.1:6333 \
//!     cargo run --release -p edge-sync-host --example follow -- colours
//! ```

use std::time::Duration;

use edge_sync_host::{
    Cancel, Component, EdgeSync, RestoreSource, Secret, ServerSettings, SnapshotSource,
};

/// How often it asks for what is new.
const EVERY: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let collection = std::env::args().nth(1).unwrap_or("colours".into());
    let directory = std::env::args().nth(2).unwrap_or("follow-data".into());
    let rounds = std::env::args()
        .nth(3)
        .map_or(Ok(u32::MAX), |text| text.parse())?;
    let mut server = ServerSettings::new(std::env::var("QDRANT_URL")?, collection);
    server.api_key = std::env::var("QDRANT_API_KEY").ok().map(Secret::new);

    let component = Component::load_async(Component::find(None)?).await?;
    let edge = EdgeSync::builder(component, &directory)
        .server(server)
        .attach_async()
        .await?;
    if !edge.shard().is_present_async().await? {
        let source = RestoreSource::Server(SnapshotSource::Stream);
        let report = edge.restore_async(&source, &Cancel::new(), |_| {}).await?;
        println!("restored {} points", report.points);
    }
    for round in 0..rounds {
        if round > 0 {
            tokio::time::sleep(EVERY).await;
        }
        match edge.pull_async().await {
            Ok(report) if report.changed() => println!("{} points now", report.points),
            Ok(_) => println!("nothing new"),
            // The shard is as it was, and answers all the same.
            Err(why) => println!("not fetched: {why}"),
        }
        println!("{} points here", edge.shard().count_async(None).await?);
    }
    Ok(())
}
