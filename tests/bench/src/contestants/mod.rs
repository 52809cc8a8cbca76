//! One shard behind four doors: the engine as an application uses it, the engine behind this
//! project's REST layer, the component in its host, and the engine's Python package.

pub mod engine;
pub mod hosted;
mod native;
mod python;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use edge_sync_host::{Component, ShardOptions};
use serde_json::{Map, Value, json};

pub use engine::Engine;
pub use hosted::Hosted;
pub use native::Raw;
pub use python::Python;

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

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// [`Raw`].
    Native,
    /// [`Engine`].
    Engine,
    /// [`Hosted`].
    Component,
    /// [`Python`].
    Python,
}

impl Kind {
    /// As the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native qdrant-edge",
            Self::Engine => "native, behind the REST layer",
            Self::Component => "component in its host",
            Self::Python => "qdrant-edge-py",
        }
    }
}

/// What contestants are made with.
pub struct Contestants {
    /// The component, compiled.
    pub component: Option<Component>,
    /// A Python that has the package.
    pub python: Option<PathBuf>,
}

impl Contestants {
    /// Without Python there is one contestant less, and a message says why.
    pub fn find(component: Component) -> Self {
        Self {
            component: Some(component),
            python: python(),
        }
    }

    /// What one of them needs, and nothing else, so that only that takes time and memory.
    ///
    /// # Errors
    /// The component does not load, or there is no Python.
    pub fn only(kind: Kind, component: Option<&Path>) -> Result<Self> {
        Ok(Self {
            component: match kind {
                Kind::Component => Some(Component::load(Component::find(component)?)?),
                _ => None,
            },
            python: match kind {
                Kind::Python => Some(Python::find()?),
                _ => None,
            },
        })
    }

    /// Who can take part here.
    pub fn kinds(&self) -> Vec<Kind> {
        kinds(self.python.is_some())
    }

    /// The same, and nothing is loaded.
    pub fn find_kinds() -> Vec<Kind> {
        kinds(python().is_some())
    }

    /// A new shard. `options` are for the component.
    ///
    /// # Errors
    /// Whatever its engine says.
    pub fn create(
        &self,
        kind: Kind,
        directory: &Path,
        shape: Shape,
        options: &ShardOptions,
    ) -> Result<Box<dyn Contestant>> {
        Ok(match kind {
            Kind::Native => Box::new(Raw::create(directory, shape)?),
            Kind::Engine => Box::new(Engine::create(directory, shape)?),
            Kind::Component => Box::new(Hosted::create(
                self.component()?,
                directory,
                shape,
                options.clone(),
            )?),
            Kind::Python => Box::new(Python::create(self.python()?, directory, shape)?),
        })
    }

    /// A shard that is there.
    ///
    /// # Errors
    /// Whatever its engine says.
    pub fn open(
        &self,
        kind: Kind,
        directory: &Path,
        options: &ShardOptions,
    ) -> Result<Box<dyn Contestant>> {
        Ok(match kind {
            Kind::Native => Box::new(Raw::open(directory)?),
            Kind::Engine => Box::new(Engine::open(directory)?),
            Kind::Component => {
                Box::new(Hosted::open(self.component()?, directory, options.clone())?)
            }
            Kind::Python => Box::new(Python::open(self.python()?, directory)?),
        })
    }

    /// Times a restore of a snapshot file into an empty directory.
    ///
    /// # Errors
    /// Whatever its engine says.
    pub fn restore(&self, kind: Kind, snapshot: &Path, directory: &Path) -> Result<Duration> {
        match kind {
            Kind::Native => Raw::restore(snapshot, directory),
            Kind::Engine => Engine::restore(snapshot, directory),
            Kind::Component => Hosted::restore(self.component()?, snapshot, directory),
            Kind::Python => Python::restore(self.python()?, snapshot, directory),
        }
    }

    /// The component.
    ///
    /// # Errors
    /// It was not asked for.
    pub fn component(&self) -> Result<&Component> {
        self.component
            .as_ref()
            .ok_or_else(|| "the component is not loaded".into())
    }

    fn python(&self) -> Result<&Path> {
        self.python
            .as_deref()
            .ok_or_else(|| "there is no Python".into())
    }
}

/// A Python that has the package; a message says why there is none.
fn python() -> Option<PathBuf> {
    Python::find()
        .inspect_err(|why| eprintln!("without {}: {why}", Kind::Python.name()))
        .ok()
}

fn kinds(has_python: bool) -> Vec<Kind> {
    let mut kinds = vec![Kind::Native, Kind::Engine, Kind::Component];
    kinds.extend(has_python.then_some(Kind::Python));
    kinds
}

/// The shard in `slot`, which is empty only after a failed reopening.
fn open<T>(slot: &Option<T>) -> Result<&T> {
    slot.as_ref().ok_or_else(|| "the shard is not open".into())
}

/// What `work` gives, and how long it took.
fn timed<T, E>(work: impl FnOnce() -> std::result::Result<T, E>) -> Result<(T, Duration)>
where
    Box<dyn std::error::Error>: From<E>,
{
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed()))
}
