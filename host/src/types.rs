//! The values of the WIT contract under the names that hosts use, and ways to build them.

use crate::bindings::exports::edge_sync::shard as wit;
use crate::setters::setters;

pub use wit::courier::SnapshotSource;
pub use wit::peek::{Mirror, Peeked};
pub use wit::queue::{
    BatchLimits as QueueLimits, Binding, Progress as QueueProgress, QueueStanding, QueueStatus,
    RejectedOperation, UploadBatch, UploadRequest, WaitingOperation,
};
pub use wit::restore::{Difference, Pulled};
pub use wit::shard::{
    Opened, PointTarget, Refusal, ScrollPage, ScrollRequest, SearchRequest, Selection,
    ShardInfo as Info, Target,
};
pub use wit::types::{
    Corruption, Durability, FailureClass, MemoryShortage, NamedVector, Point, PointId, Receipt,
    ScoredPoint, SequenceRange, ServerFailure, SparseVector, StorageFailure, StorageKind,
    StoredPoint, Vector,
};

impl Point {
    /// A point without vectors and payload.
    pub fn new(id: PointId) -> Point {
        Point {
            id,
            vectors: Vec::new(),
            payload: None,
        }
    }

    /// A point with the collection's default vector: `Point::dense(1, [0.6, 0.8])`.
    pub fn dense(id: impl Into<PointId>, vector: impl Into<Vec<f32>>) -> Point {
        Point::new(id.into()).with_vector("", vector.into())
    }

    /// Adds a vector; the empty `name` is the collection's default vector.
    #[must_use]
    pub fn with_vector(mut self, name: &str, vector: impl Into<Vector>) -> Point {
        self.vectors.push(NamedVector {
            name: name.to_owned(),
            vector: vector.into(),
        });
        self
    }

    /// Sets the payload: the text of a JSON object.
    #[must_use]
    pub fn with_payload(mut self, json: impl Into<String>) -> Point {
        self.payload = Some(json.into());
        self
    }
}

impl PointId {
    /// An id as people write it: digits, or else a UUID, whose form the shard checks.
    pub fn from_text(text: &str) -> PointId {
        match text.parse() {
            Ok(number) => PointId::Num(number),
            Err(_) => PointId::Uuid(text.to_owned()),
        }
    }
}

impl From<u64> for PointId {
    fn from(number: u64) -> PointId {
        PointId::Num(number)
    }
}

impl From<&str> for PointId {
    /// As [`PointId::from_text`].
    fn from(text: &str) -> PointId {
        PointId::from_text(text)
    }
}

impl From<Vec<f32>> for Vector {
    fn from(values: Vec<f32>) -> Vector {
        Vector::Dense(values)
    }
}

impl From<Vec<Vec<f32>>> for Vector {
    fn from(rows: Vec<Vec<f32>>) -> Vector {
        Vector::Multi(rows)
    }
}

impl From<SparseVector> for Vector {
    fn from(vector: SparseVector) -> Vector {
        Vector::Sparse(vector)
    }
}

impl Selection {
    /// The whole payload and no vectors, which is what most readers want.
    pub fn payload() -> Selection {
        Selection {
            payload: Some("true".to_owned()),
            vectors: None,
        }
    }

    /// Ids (and scores) only.
    pub fn none() -> Selection {
        Selection {
            payload: None,
            vectors: None,
        }
    }
}

impl SearchRequest {
    /// The `limit` points nearest to `vector` under the vector name `name` (empty: default), with
    /// their payloads.
    pub fn nearest(name: &str, vector: impl Into<Vector>, limit: u32) -> SearchRequest {
        SearchRequest {
            target: Target::Vector(NamedVector {
                name: name.to_owned(),
                vector: vector.into(),
            }),
            filter: None,
            params: None,
            limit,
            offset: 0,
            score_threshold: None,
            selection: Selection::payload(),
        }
    }

    /// The points nearest to the stored vector `name` of the point `id`, itself left out.
    pub fn like_point(name: &str, id: PointId, limit: u32) -> SearchRequest {
        SearchRequest {
            target: Target::Point(PointTarget {
                id,
                name: name.to_owned(),
            }),
            ..SearchRequest::nearest(name, Vec::<f32>::new(), limit)
        }
    }

    /// Only points that match this REST filter.
    #[must_use]
    pub fn filter(mut self, json: impl Into<String>) -> SearchRequest {
        self.filter = Some(json.into());
        self
    }
}

/// How much to send at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchLimits {
    /// Operations of the first request. A point that is upserted counts as one.
    pub operations: u32,
    /// Most operations of a request, to which the first grows while answers come quickly.
    pub most_operations: u32,
    /// Most bytes of a request's body; a single larger operation still goes out alone.
    pub bytes: u32,
}

impl Default for BatchLimits {
    /// 10 operations, as Qdrant's own examples of edge sync use, then up to 1,000, and 8 MiB, a quarter of
    /// what a server accepts by default.
    fn default() -> BatchLimits {
        BatchLimits {
            operations: 10,
            most_operations: 1000,
            bytes: 8 << 20,
        }
    }
}

setters!(BatchLimits {
    operations: u32,
    most_operations: u32,
    bytes: u32,
});
