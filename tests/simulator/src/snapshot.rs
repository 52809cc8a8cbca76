//! Real shard snapshots for the simulated server, from the native engine.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use edge_sync_engine::{CollectionConfig, Point, PointId, Request, Shard, Vector, parse_request};
use edge_sync_snapshots::{Layout, create};
use serde_json::{Value, json};

use crate::model::State;
use crate::server::SnapshotMaker;
use crate::shard::{digest, settle_fields};

/// How many snapshots are kept. Random schedules hardly ever ask for one again.
const KEPT: usize = 100;

/// Makes snapshots, each once: a sweep asks for the same ones again and again.
pub fn maker() -> SnapshotMaker {
    let made: Mutex<HashMap<String, Vec<u8>>> = Mutex::default();
    Arc::new(move |config, state| {
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() > KEPT {
            made.clear();
        }
        made.entry(format!("{config} {state:?}"))
            .or_insert_with(|| make(config, state).expect("the native engine makes a snapshot"))
            .clone()
    })
}

fn make(
    config: &Value,
    state: &State,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let folder = tempfile::tempdir()?;
    let shard_folder = folder.path().join("shard");
    fs::create_dir(&shard_folder)?;
    let config = CollectionConfig::from_value(config)?;
    let shard = Shard::create(&shard_folder, &config)?;
    // One by one: the engine applies an operation's points in the order of a hash map.
    for (id, point) in &state.points {
        let point = Point {
            id: PointId::Num(*id),
            vectors: [(String::new(), Vector::Dense(point.vector.clone()))].into(),
            payload: Some(point.payload.clone()),
        };
        shard.apply(shard.prepare_upsert(vec![point])?)?;
    }
    for (field, schema) in &state.indexes {
        let body = json!({"field_name": field, "field_schema": schema}).to_string();
        if let Request::Write(write) = parse_request("PUT", "/index", &body)? {
            shard.apply(shard.prepare(write)?)?;
        }
    }
    shard.flush()?;
    drop(shard);
    settle_names(&shard_folder.join("segments"))?;
    settle_fields(&shard_folder.join("segments"))?;
    let shard = Shard::load_as(&shard_folder, &config)?;
    let file = folder.path().join("snapshot");
    create(&shard, &file, Layout::Streamed)?;
    Ok(fs::read(&file)?)
}

/// Segments have random names. A run that is to be repeated exactly needs them to be the same, and
/// in the same order.
fn settle_names(segments: &Path) -> std::io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(segments)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push((digest(&path)?, path));
        }
    }
    found.sort();
    for (number, (_, path)) in found.into_iter().enumerate() {
        fs::rename(
            path,
            segments.join(format!("00000000-0000-4000-8000-{number:012}")),
        )?;
    }
    Ok(())
}
