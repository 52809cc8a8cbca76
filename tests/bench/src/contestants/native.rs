//! The engine as an application uses it, from its crate.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::contestant::{Contestant, Found, Record, Result, Shape, State, open, timed};

/// `qdrant-edge` as an application uses it, its write-ahead log off.
pub struct Raw {
    directory: PathBuf,
    shard: Option<qdrant_edge::EdgeShard>,
}

impl Raw {
    /// Creates a shard.
    pub fn create(directory: &Path, shape: Shape) -> Result<Self> {
        let vectors = qdrant_edge::EdgeVectorParamsBuilder::new(
            shape.dimensions,
            qdrant_edge::Distance::Cosine,
        );
        let config = qdrant_edge::EdgeConfigBuilder::new()
            .vector(qdrant_edge::DEFAULT_VECTOR_NAME, vectors.build())
            .optimizers(qdrant_edge::EdgeOptimizersConfig {
                default_segment_number: Some(1),
                indexing_threshold: Some(shape.indexing_threshold_kb),
                ..Default::default()
            })
            .wal_enabled(false)
            .build();
        Ok(Self {
            directory: directory.to_owned(),
            shard: Some(qdrant_edge::EdgeShard::new(directory, config)?),
        })
    }

    /// Loads a shard.
    pub fn open(directory: &Path) -> Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            shard: Some(qdrant_edge::EdgeShard::load(directory, None)?),
        })
    }

    /// Times unpacking a snapshot and loading it.
    pub fn restore(snapshot: &Path, directory: &Path) -> Result<Duration> {
        let started = Instant::now();
        qdrant_edge::EdgeShard::unpack_snapshot(snapshot, directory)?;
        let _shard = qdrant_edge::EdgeShard::load(directory, None)?;
        Ok(started.elapsed())
    }
}

impl Contestant for Raw {
    fn upsert(&self, batch: &[Record]) -> Result<Duration> {
        let points = batch
            .iter()
            .map(|record| qdrant_edge::PointStructPersisted {
                id: qdrant_edge::PointId::NumId(record.id),
                vector: qdrant_edge::VectorStructPersisted::Single(record.vector.clone()),
                payload: Some(record.payload.clone().into()),
            })
            .collect();
        let operation = qdrant_edge::UpdateOperation::PointOperation(
            qdrant_edge::PointOperations::UpsertPoints(
                qdrant_edge::PointInsertOperations::PointsList(points),
            ),
        );
        let shard = open(&self.shard)?;
        Ok(timed(|| shard.update(operation))?.1)
    }

    fn search(&self, vector: &[f32], limit: u32, exact: bool) -> Result<Found> {
        let query = qdrant_edge::NamedQuery::default_dense(vector.to_vec());
        let request = qdrant_edge::QueryRequestBuilder::new(limit as usize)
            .query(qdrant_edge::ScoringQuery::Vector(
                qdrant_edge::QueryEnum::Nearest(query),
            ))
            .params(qdrant_edge::SearchParams {
                exact,
                ..Default::default()
            })
            .with_payload(true.into())
            .build();
        let shard = open(&self.shard)?;
        let (found, elapsed) = timed(|| shard.query(request))?;
        let ids = found.iter().filter_map(|point| match point.id {
            qdrant_edge::PointId::NumId(id) => Some(id),
            qdrant_edge::PointId::Uuid(_) => None,
        });
        Ok(Found {
            elapsed,
            ids: ids.collect(),
        })
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
        self.shard = Some(qdrant_edge::EdgeShard::load(&self.directory, None)?);
        Ok(started.elapsed())
    }

    fn state(&self) -> Result<State> {
        let info = open(&self.shard)?.info()?;
        Ok(State {
            points: info.points_count as u64,
            indexed: info.indexed_vectors_count as u64,
            segments: info.segments_count as u64,
        })
    }
}
