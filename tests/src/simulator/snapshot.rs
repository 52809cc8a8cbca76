//! Real shard snapshots for the simulated server, from the native engine.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use edge_sync_engine::{CollectionConfig, Point, PointId, Request, Shard, Vector, parse_request};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::model::State;
use super::server::SnapshotMaker;

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

fn make(config: &Value, state: &State) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
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
        shard.apply(&shard.prepare_upsert(vec![point])?)?;
    }
    for (field, schema) in &state.indexes {
        let body = json!({"field_name": field, "field_schema": schema}).to_string();
        if let Request::Write(write) = parse_request("PUT", "/index", &body)? {
            shard.apply(&shard.prepare(write)?)?;
        }
    }
    shard.flush()?;
    drop(shard);
    settle_names(&shard_folder.join("segments"))?;
    settle_fields(&shard_folder.join("segments"))?;
    let shard = Shard::load_as(&shard_folder, &config)?;
    let file = folder.path().join("snapshot");
    shard.create_snapshot(&file)?;
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

/// The engine writes the indexed fields in the order of a hash map, and builds them in the order in
/// which it reads them.
fn settle_fields(segments: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for entry in fs::read_dir(segments)? {
        let file = entry?.path().join("payload_index/config.json");
        if file.exists() {
            let mut fields: Value = serde_json::from_slice(&fs::read(&file)?)?;
            fields.sort_all_objects();
            fs::write(&file, fields.to_string())?;
        }
    }
    Ok(())
}

/// Of the names and lengths of all files: enough to tell an empty segment from one with points.
fn digest(folder: &Path) -> std::io::Result<Vec<u8>> {
    let mut files: Vec<(PathBuf, u64)> = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                files.push((entry.path(), entry.metadata()?.len()));
            }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for (path, len) in files {
        let name = path.strip_prefix(folder).unwrap_or(&path);
        hash.update(format!("{} {len}\n", name.display()));
    }
    Ok(hash.finalize().to_vec())
}
