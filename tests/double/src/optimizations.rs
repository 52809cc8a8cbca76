//! What a collection says of optimizations that have ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chrono::{DateTime, SecondsFormat, Utc};
use edge_sync_engine::{Result, Shard};
use serde_json::{Value, json};

/// How many a server remembers.
const REMEMBERED: usize = 16;

/// Ids of a shard's segments, and whether an optimization built them.
pub(super) struct Segments(BTreeMap<String, bool>);

impl Segments {
    /// Those of the shard in `directory`.
    pub(super) fn of(shard: &Shard, directory: &Path) -> Result<Self> {
        let manifest = shard.snapshot_manifest()?;
        let ids = manifest.as_object().into_iter().flatten();
        Ok(Self(
            ids.map(|(id, _)| (id.clone(), is_built(directory, id)))
                .collect(),
        ))
    }
}

/// Such a segment knows the operation that it was built at.
fn is_built(directory: &Path, segment: &str) -> bool {
    let state = directory
        .join("segments")
        .join(segment)
        .join("segment.json");
    fs::read(state)
        .ok()
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
        .is_some_and(|state| !state["initial_version"].is_null())
}

/// The optimizations that have ended, the newest first. Forgotten when the server stops.
#[derive(Default)]
pub(super) struct Optimized(Vec<Value>);

impl Optimized {
    /// Takes note of what has been done since `started`. The id of an optimization is that of the
    /// segment that it built.
    pub(super) fn add(&mut self, before: &Segments, after: &Segments, started: DateTime<Utc>) {
        let ended = Utc::now();
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let seconds = (ended - started).as_seconds_f64();
        let gone: Vec<Value> = before
            .0
            .keys()
            .filter(|id| !after.0.contains_key(*id))
            .map(|id| json!({"uuid": id}))
            .collect();
        let optimizer = if gone.len() > 1 { "merge" } else { "indexing" };
        let built = after.0.iter();
        for (id, _) in built.filter(|(id, built)| **built && !before.0.contains_key(*id)) {
            let done = json!({
                "uuid": id,
                "optimizer": optimizer,
                "status": "done",
                "segments": gone,
                "progress": {
                    "name": "Segment Optimizing",
                    "started_at": time(started),
                    "finished_at": time(ended),
                    "duration_sec": seconds,
                },
            });
            self.0.insert(0, done);
        }
        self.0.truncate(REMEMBERED);
    }

    /// What is told while nothing is under way, of a shard with so many segments.
    pub(super) fn while_idle(&self, segments: u32) -> Value {
        json!({
            "summary": {
                "queued_optimizations": 0,
                "queued_segments": 0,
                "queued_points": 0,
                "idle_segments": segments,
            },
            "running": [],
            "completed": self.0,
        })
    }
}
