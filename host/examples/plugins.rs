//! A plugin host with two plugins, each on instances of the component of its own: with a directory and
//! a memory limit that the other cannot touch. The component is compiled once. A call that traps, or
//! runs past its limits, costs that call and nothing else.
//!
//! ```sh
//! EDGE_SYNC_COMPONENT=edge_sync.wasm cargo run --release -p edge-sync-host --example plugins
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use edge_sync_host::{Component, EdgeSync, Error, Point, SearchRequest, ShardOptions};

/// What the host knows of a plugin.
struct Plugin {
    name: &'static str,
    size: usize,
    memory_bytes: usize,
}

const PLUGINS: [Plugin; 2] = [
    Plugin {
        name: "notes",
        size: 2,
        memory_bytes: 64 << 20,
    },
    Plugin {
        name: "images",
        size: 3,
        memory_bytes: 256 << 20,
    },
];

fn open(component: &Component, root: &Path, plugin: &Plugin) -> Result<EdgeSync, Error> {
    let options = ShardOptions::default()
        .memory_bytes(plugin.memory_bytes)
        .process_name(Some(format!("plugin host, for {}", plugin.name)));
    let config = format!(
        r#"{{"vectors": {{"size": {}, "distance": "Dot"}}}}"#,
        plugin.size
    );
    EdgeSync::builder(component.clone(), root.join(plugin.name))
        .options(options)
        .open_or_create(&config)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::args().nth(1).unwrap_or("plugins-data".into());
    let component = Component::load(Component::find(None)?)?;
    let mut shards = BTreeMap::new();
    for plugin in &PLUGINS {
        let edge = open(&component, Path::new(&root), plugin)?;
        shards.insert(plugin.name, edge);
    }
    let notes = shards["notes"].shard();
    let images = shards["images"].shard();
    notes.upsert(vec![Point::dense(1, [1.0, 0.0])])?;
    images.upsert(vec![Point::dense(1, [0.0, 0.0, 1.0])])?;

    // What does not fit the one is refused, and the other does not notice.
    match notes.upsert(vec![Point::dense(2, [1.0, 0.0, 0.0])]) {
        Err(Error::InvalidInput { field, message }) => println!("notes: {field}: {message}"),
        other => println!("notes: {other:?}"),
    }
    for (name, edge) in &shards {
        let size = if *name == "notes" { 2 } else { 3 };
        let found = edge
            .shard()
            .search(SearchRequest::nearest("", vec![1.0; size], 10))?;
        println!("{name}: {} point found", found.len());
        edge.shard().close()?;
    }
    Ok(())
}
