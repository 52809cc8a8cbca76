//! One shard behind three doors: the engine as an application uses it, the engine behind this
//! project's REST layer, and the component in its host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_sync_engine as engine;
use edge_sync_host as host;
use serde_json::{Map, Value, json};

/// Errors are for a person at a terminal.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A point of the benchmark.
#[derive(Debug, Clone)]
pub struct Record {
    /// Point id.
    pub id: u64,
    /// Its vector, not normalized.
    pub vector: Vec<f32>,
    /// Its payload.
    pub payload: Map<String, Value>,
}

/// What the shards store.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Dimensions of the vectors.
    pub dimensions: usize,
    /// Size at which a segment gets an HNSW index, in KB.
    pub indexing_threshold_kb: usize,
}

impl Shape {
    /// The body of `PUT /collections/{c}`. One segment at most, whatever the number of processors:
    /// the engine would otherwise choose by a number that WASI does not tell.
    fn config(&self) -> Value {
        json!({
            "vectors": {"size": self.dimensions, "distance": "Cosine"},
            "optimizers_config": {
                "default_segment_number": 1,
                "indexing_threshold": self.indexing_threshold_kb,
            },
        })
    }
}

/// What a search found, and how long it took.
#[derive(Debug, Clone)]
pub struct Found {
    /// Time of the call.
    pub elapsed: Duration,
    /// Ids, best first.
    pub ids: Vec<u64>,
}

/// What a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Points.
    pub points: u64,
    /// Vectors that an index covers.
    pub indexed: u64,
    /// Segments.
    pub segments: u64,
}

/// A shard that takes part. Only the calls themselves are timed, not what prepares their
/// arguments.
pub trait Contestant {
    /// Upserts a batch.
    fn upsert(&mut self, batch: &[Record]) -> Result<Duration>;
    /// The `limit` nearest points with payload.
    fn search(&mut self, vector: &[f32], limit: u32, exact: bool) -> Result<Found>;
    /// Makes everything durable in the shard's own files.
    fn flush(&mut self) -> Result<Duration>;
    /// Builds indexes.
    fn optimize(&mut self) -> Result<Duration>;
    /// Closes the shard, and times opening it again.
    fn reopen(&mut self) -> Result<Duration>;
    /// What it holds.
    fn state(&mut self) -> Result<State>;
}

/// The shard in `slot`, which is empty only after a failed reopening.
fn open<T>(slot: &mut Option<T>) -> Result<&mut T> {
    slot.as_mut().ok_or_else(|| "the shard is not open".into())
}

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

    /// Times unpacking a snapshot and loading it.
    pub fn restore(snapshot: &Path, directory: &Path) -> Result<Duration> {
        let started = Instant::now();
        qdrant_edge::EdgeShard::unpack_snapshot(snapshot, directory)?;
        let _shard = qdrant_edge::EdgeShard::load(directory, None)?;
        Ok(started.elapsed())
    }
}

impl Contestant for Raw {
    fn upsert(&mut self, batch: &[Record]) -> Result<Duration> {
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
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.update(operation)?;
        Ok(started.elapsed())
    }

    fn search(&mut self, vector: &[f32], limit: u32, exact: bool) -> Result<Found> {
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
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        let found = shard.query(request)?;
        let elapsed = started.elapsed();
        let ids = found.iter().filter_map(|point| match point.id {
            qdrant_edge::PointId::NumId(id) => Some(id),
            qdrant_edge::PointId::Uuid(_) => None,
        });
        Ok(Found {
            elapsed,
            ids: ids.collect(),
        })
    }

    fn flush(&mut self) -> Result<Duration> {
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.flush()?;
        Ok(started.elapsed())
    }

    fn optimize(&mut self) -> Result<Duration> {
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.optimize()?;
        Ok(started.elapsed())
    }

    fn reopen(&mut self) -> Result<Duration> {
        open(&mut self.shard)?.flush()?;
        self.shard = None;
        let started = Instant::now();
        self.shard = Some(qdrant_edge::EdgeShard::load(&self.directory, None)?);
        Ok(started.elapsed())
    }

    fn state(&mut self) -> Result<State> {
        let info = open(&mut self.shard)?.info()?;
        Ok(State {
            points: info.points_count as u64,
            indexed: info.indexed_vectors_count as u64,
            segments: info.segments_count as u64,
        })
    }
}

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

    /// Writes a snapshot as a server would.
    pub fn snapshot(&mut self, file: &Path) -> Result<()> {
        Ok(open(&mut self.shard)?.create_snapshot(file)?)
    }

    /// Times checking and unpacking a snapshot and loading it.
    pub fn restore(snapshot: &Path, directory: &Path) -> Result<Duration> {
        let started = Instant::now();
        engine::unpack_snapshot(snapshot, directory, engine::SnapshotLimits::default())?;
        let _shard = engine::Shard::load(directory)?;
        Ok(started.elapsed())
    }
}

impl Contestant for Engine {
    fn upsert(&mut self, batch: &[Record]) -> Result<Duration> {
        let points = batch
            .iter()
            .map(|record| engine::Point {
                id: engine::PointId::Num(record.id),
                vectors: [(String::new(), engine::Vector::Dense(record.vector.clone()))].into(),
                payload: Some(record.payload.clone()),
            })
            .collect();
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        let operations = shard.prepare_upsert(points)?;
        shard.apply(&operations)?;
        Ok(started.elapsed())
    }

    fn search(&mut self, vector: &[f32], limit: u32, exact: bool) -> Result<Found> {
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
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        let found = shard.search(request)?;
        let elapsed = started.elapsed();
        let ids = found.iter().filter_map(|point| match point.id {
            engine::PointId::Num(id) => Some(id),
            engine::PointId::Uuid(_) => None,
        });
        Ok(Found {
            elapsed,
            ids: ids.collect(),
        })
    }

    fn flush(&mut self) -> Result<Duration> {
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.flush()?;
        Ok(started.elapsed())
    }

    fn optimize(&mut self) -> Result<Duration> {
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.optimize()?;
        Ok(started.elapsed())
    }

    fn reopen(&mut self) -> Result<Duration> {
        open(&mut self.shard)?.flush()?;
        self.shard = None;
        let started = Instant::now();
        self.shard = Some(engine::Shard::load(&self.directory)?);
        Ok(started.elapsed())
    }

    fn state(&mut self) -> Result<State> {
        let info = open(&mut self.shard)?.info()?;
        Ok(State {
            points: info.points,
            indexed: info.indexed_vectors,
            segments: info.segments.into(),
        })
    }
}

/// The component through the host library, with its log.
pub struct Hosted {
    component: host::Component,
    directory: PathBuf,
    options: host::ShardOptions,
    shard: Option<host::Shard>,
}

impl Hosted {
    /// Creates a shard.
    pub fn create(
        component: &host::Component,
        directory: &Path,
        shape: Shape,
        durability: host::Durability,
    ) -> Result<Self> {
        let options = host::ShardOptions::default().durability(durability);
        let config = shape.config().to_string();
        let shard = host::Shard::create(component, directory, &config, options.clone())?;
        Ok(Self {
            component: component.clone(),
            directory: directory.to_owned(),
            options,
            shard: Some(shard),
        })
    }

    /// Times a restore into an empty directory, the instances and the switch included.
    pub fn restore(
        component: &host::Component,
        snapshot: &Path,
        directory: &Path,
    ) -> Result<Duration> {
        let source = host::RestoreSource::File(snapshot.to_owned());
        let started = Instant::now();
        let edge = host::EdgeSync::builder(component.clone(), directory).attach()?;
        edge.restore(&source, &host::Cancel::new(), |_| {})?;
        Ok(started.elapsed())
    }

    /// Linear memory of the instance, in bytes.
    pub fn memory_bytes(&mut self) -> Result<u64> {
        Ok(open(&mut self.shard)?.info()?.memory_bytes)
    }
}

impl Contestant for Hosted {
    fn upsert(&mut self, batch: &[Record]) -> Result<Duration> {
        let points = batch
            .iter()
            .map(|record| {
                host::Point::new(host::PointId::Num(record.id))
                    .with_vector("", record.vector.clone())
                    .with_payload(Value::Object(record.payload.clone()).to_string())
            })
            .collect();
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.upsert(points)?;
        Ok(started.elapsed())
    }

    fn search(&mut self, vector: &[f32], limit: u32, exact: bool) -> Result<Found> {
        let mut request = host::SearchRequest::nearest("", vector.to_vec(), limit);
        request.params = Some(json!({"exact": exact}).to_string());
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        let found = shard.search(request)?;
        let elapsed = started.elapsed();
        let ids = found.iter().filter_map(|point| match &point.id {
            host::PointId::Num(id) => Some(*id),
            host::PointId::Uuid(_) => None,
        });
        Ok(Found {
            elapsed,
            ids: ids.collect(),
        })
    }

    fn flush(&mut self) -> Result<Duration> {
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.flush()?;
        Ok(started.elapsed())
    }

    fn optimize(&mut self) -> Result<Duration> {
        let shard = open(&mut self.shard)?;
        let started = Instant::now();
        shard.optimize()?;
        Ok(started.elapsed())
    }

    fn reopen(&mut self) -> Result<Duration> {
        open(&mut self.shard)?.close()?;
        self.shard = None;
        let started = Instant::now();
        let shard = host::Shard::open(&self.component, &self.directory, self.options.clone())?;
        let elapsed = started.elapsed();
        self.shard = Some(shard);
        Ok(elapsed)
    }

    fn state(&mut self) -> Result<State> {
        let info = open(&mut self.shard)?.info()?;
        Ok(State {
            points: info.points,
            indexed: info.indexed_vectors,
            segments: info.segments.into(),
        })
    }
}
