//! The engine behind this project's REST layer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_sync_engine as engine;
use edge_sync_snapshots::{Layout, create};
use serde_json::json;

use super::contestant::{Contestant, Found, Record, Result, Shape, State, open, timed};

/// The engine behind this project's REST layer, natively: what the component runs, without WASM,
/// log and host.
pub struct Engine {
    directory: PathBuf,
    shard: Option<engine::Shard>,
}

impl Engine {
    /// Creates a shard.
    pub fn create(directory: &Path, shape: Shape) -> Result<Self> {
        let config = engine::CollectionConfig::from_value(&shape.config())?;
        Ok(Self {
            directory: directory.to_owned(),
            shard: Some(engine::Shard::create(directory, &config)?),
        })
    }

    /// Loads a shard.
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            shard: Some(engine::Shard::load(directory)?),
        })
    }

    /// Writes a snapshot as a server would.
    pub fn snapshot(&self, file: &Path) -> Result<()> {
        Ok(create(open(&self.shard)?, file, Layout::Streamed)?)
    }

    /// Times checking and unpacking a snapshot and loading it.
    pub fn restore(snapshot: &Path, directory: &Path) -> Result<Duration> {
        let started = Instant::now();
        engine::unpack_snapshot(snapshot, directory, engine::SnapshotLimits::default())?;
        let _shard = engine::Shard::load(directory)?;
        Ok(started.elapsed())
    }
}

/// Times a search.
///
/// # Errors
/// The engine's.
pub fn search(shard: &engine::Shard, request: engine::SearchRequest) -> Result<Found> {
    let (found, elapsed) = timed(|| shard.search(request))?;
    let ids = found.iter().filter_map(|point| match point.id {
        engine::PointId::Num(id) => Some(id),
        engine::PointId::Uuid(_) => None,
    });
    Ok(Found {
        elapsed,
        ids: ids.collect(),
    })
}

impl Contestant for Engine {
    fn upsert(&self, batch: &[Record]) -> Result<Duration> {
        let points = batch
            .iter()
            .map(|record| engine::Point {
                id: engine::PointId::Num(record.id),
                vectors: [(String::new(), engine::Vector::Dense(record.vector.clone()))].into(),
                payload: Some(record.payload.clone()),
            })
            .collect();
        let shard = open(&self.shard)?;
        let started = Instant::now();
        let operations = shard.prepare_upsert(points)?;
        shard.apply(operations)?;
        Ok(started.elapsed())
    }

    fn search(&self, vector: &[f32], limit: u32, exact: bool) -> Result<Found> {
        let request = engine::SearchRequest {
            target: engine::Target::Vector {
                name: String::new(),
                vector: engine::Vector::Dense(vector.to_vec()),
            },
            filter: None,
            params: Some(json!({"exact": exact})),
            limit: limit as usize,
            offset: 0,
            score_threshold: None,
            selection: engine::Selection {
                payload: Some(json!(true)),
                vectors: None,
            },
        };
        search(open(&self.shard)?, request)
    }

    fn flush(&self) -> Result<Duration> {
        let shard = open(&self.shard)?;
        Ok(timed(|| shard.flush())?.1)
    }

    fn optimize(&self) -> Result<Duration> {
        let shard = open(&self.shard)?;
        Ok(timed(|| shard.optimize())?.1)
    }

    fn reopen(&mut self) -> Result<Duration> {
        open(&self.shard)?.flush()?;
        self.shard = None;
        let started = Instant::now();
        self.shard = Some(engine::Shard::load(&self.directory)?);
        Ok(started.elapsed())
    }

    fn state(&self) -> Result<State> {
        let info = open(&self.shard)?.info()?;
        Ok(State {
            points: info.points,
            indexed: info.indexed_vectors,
            segments: info.segments.into(),
        })
    }
}
