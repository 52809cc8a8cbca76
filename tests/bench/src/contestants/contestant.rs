//! What every contestant can do, and what it is given and answers.

use std::time::{Duration, Instant};

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
    /// Whatever the number of points, there is something to optimize.
    pub fn of(dimensions: usize) -> Self {
        Self {
            dimensions,
            indexing_threshold_kb: 1,
        }
    }

    /// The body of `PUT /collections/{c}`. One segment at most, whatever the number of processors:
    /// the engine would otherwise choose by a number that WASI does not tell.
    pub fn config(&self) -> Value {
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
    fn upsert(&self, batch: &[Record]) -> Result<Duration>;
    /// Upserts points one by one.
    fn upsert_each(&self, records: &[Record]) -> Result<Duration> {
        records
            .iter()
            .map(|record| self.upsert(std::slice::from_ref(record)))
            .sum()
    }
    /// The `limit` nearest points with payload.
    fn search(&self, vector: &[f32], limit: u32, exact: bool) -> Result<Found>;
    /// Makes everything durable in the shard's own files.
    fn flush(&self) -> Result<Duration>;
    /// Builds indexes.
    fn optimize(&self) -> Result<Duration>;
    /// Closes the shard, and times opening it again.
    fn reopen(&mut self) -> Result<Duration>;
    /// What it holds.
    fn state(&self) -> Result<State>;
    /// Linear memory of its instance, in bytes, if it has one.
    fn linear_memory(&self) -> Result<Option<u64>> {
        Ok(None)
    }
    /// The process that it runs in, if it is not this one.
    fn process(&self) -> Option<u32> {
        None
    }
}

/// The shard in `slot`, which is empty only after a failed reopening.
pub fn open<T>(slot: &Option<T>) -> Result<&T> {
    slot.as_ref().ok_or_else(|| "the shard is not open".into())
}

/// What `work` gives, and how long it took.
pub fn timed<T, E>(work: impl FnOnce() -> std::result::Result<T, E>) -> Result<(T, Duration)>
where
    Box<dyn std::error::Error>: From<E>,
{
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed()))
}
