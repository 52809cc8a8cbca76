//! The local shard over the engine.

use std::path::Path;

use serde_json::Value;

use crate::config::CollectionConfig;
use crate::error::Result;
use crate::operation::Operation;
use crate::point::{Point, PointId, ScoredPoint, StoredPoint, Vector};
use crate::request::{ReadRequest, Write};

/// What a search compares points with.
#[derive(Debug, Clone)]
pub enum Target {
    /// A vector, of the kind that `name` is configured for.
    Vector {
        /// The vector's name; empty for the default vector.
        name: String,
        /// The vector.
        vector: Vector,
    },
    /// The stored vector `name` of a point, which is left out of the results itself.
    Point {
        /// The vector's name; empty for the default vector.
        name: String,
        /// The point.
        id: PointId,
    },
}

/// Which payload fields and vectors a read returns.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// REST `with_payload`. None: none.
    pub payload: Option<Value>,
    /// REST `with_vector`. None: none.
    pub vectors: Option<Value>,
}

/// A nearest-neighbour search.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What to compare with.
    pub target: Target,
    /// REST `filter`.
    pub filter: Option<Value>,
    /// REST `params`.
    pub params: Option<Value>,
    /// How many results, at least 1.
    pub limit: usize,
    /// How many results to skip.
    pub offset: usize,
    /// Results that score worse are left out.
    pub score_threshold: Option<f32>,
    /// What to return of each point.
    pub selection: Selection,
}

/// A page of a walk over points in order of id.
#[derive(Debug, Clone)]
pub struct ScrollRequest {
    /// The first id of the page; none starts at the beginning.
    pub offset: Option<PointId>,
    /// Points a page, at least 1.
    pub limit: usize,
    /// REST `filter`.
    pub filter: Option<Value>,
    /// What to return of each point.
    pub selection: Selection,
}

/// A page of points.
#[derive(Debug, Clone)]
pub struct ScrollPage {
    /// The points, in order of id.
    pub points: Vec<StoredPoint>,
    /// Where the next page begins; none at the end.
    pub next: Option<PointId>,
}

/// State of a shard.
#[derive(Debug, Clone)]
pub struct Info {
    /// Points that the shard holds.
    pub points: u64,
    /// Vectors that an HNSW or sparse index covers.
    pub indexed_vectors: u64,
    /// Segments.
    pub segments: u32,
    /// Payload indexes, as a collection's `payload_schema`.
    pub payload_schema: Value,
}

/// One open shard in one directory. Dropping it flushes; see [`Shard::discard`].
#[derive(Debug)]
pub struct Shard {}

impl Shard {
    /// Creates a shard in `dir`, which is made if missing.
    ///
    /// Errors: [`crate::Error::AlreadyExists`] if there is one; storage errors.
    pub fn create(_dir: &Path, _config: &CollectionConfig) -> Result<Self> {
        todo!()
    }

    /// Opens the shard in `dir`: one that was created here, or an unpacked snapshot.
    ///
    /// Errors: [`crate::Error::NotFound`], [`crate::Error::Corrupt`], storage errors.
    pub fn load(_dir: &Path) -> Result<Self> {
        todo!()
    }

    /// The configuration in force: as created, or derived from the segments.
    pub fn config(&self) -> CollectionConfig {
        todo!()
    }

    /// Checks a write against the shard as far as that is possible before its earlier steps are
    /// applied: names, kinds, dimensions, values, schemas.
    pub fn validate(&self, _write: &Write) -> Result<()> {
        todo!()
    }

    /// Checks a write, resolves its filters to point ids, and returns the operations to log and
    /// apply. Nothing is changed. If this succeeds, [`Shard::apply`] fails for storage reasons only.
    ///
    /// A write of several [`Write::steps`] is refused.
    ///
    /// Errors: [`crate::Error::InvalidInput`], [`crate::Error::NotFound`] (a point whose payload or
    /// vectors are to be changed), [`crate::Error::AlreadyExists`] (a named vector).
    pub fn prepare(&self, _write: Write) -> Result<Vec<Operation>> {
        todo!()
    }

    /// As [`Shard::prepare`], for typed points.
    pub fn prepare_upsert(&self, _points: Vec<Point>) -> Result<Vec<Operation>> {
        todo!()
    }

    /// Applies prepared operations in order. Applying them again, or replaying a log from an
    /// earlier position, ends in the same state.
    ///
    /// Errors: storage errors; the shard must then be opened again.
    pub fn apply(&self, _ops: &[Operation]) -> Result<()> {
        todo!()
    }

    /// Answers a read with the REST `result`.
    pub fn read(&self, _request: ReadRequest) -> Result<Value> {
        todo!()
    }

    /// Points by id, in the order asked; ids that do not exist are left out.
    pub fn retrieve(&self, _ids: &[PointId], _selection: &Selection) -> Result<Vec<StoredPoint>> {
        todo!()
    }

    /// The nearest points, best first.
    pub fn search(&self, _request: SearchRequest) -> Result<Vec<ScoredPoint>> {
        todo!()
    }

    /// One page of points in order of id.
    pub fn scroll(&self, _request: ScrollRequest) -> Result<ScrollPage> {
        todo!()
    }

    /// How many points match a REST `filter`, exactly; all of them without one.
    pub fn count(&self, _filter: Option<&Value>) -> Result<u64> {
        todo!()
    }

    /// Makes everything applied durable.
    pub fn flush(&self) -> Result<()> {
        todo!()
    }

    /// Merges segments and builds indexes as the configuration asks. True if anything was done.
    pub fn optimize(&self) -> Result<bool> {
        todo!()
    }

    /// Counts and payload schema.
    pub fn info(&self) -> Result<Info> {
        todo!()
    }

    /// Writes a snapshot of the shard to `file`, in the layout that a server streams and restores.
    pub fn create_snapshot(&self, _file: &Path) -> Result<()> {
        todo!()
    }

    /// Drops the shard without flushing, for a shard whose memory is in doubt.
    pub fn discard(self) {
        todo!()
    }
}
