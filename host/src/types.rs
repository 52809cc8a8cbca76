//! The values of the WIT contract under the names that hosts use, and ways to build them.

use serde::Serialize;

use crate::bindings::exports::edge_sync::shard as wit;
use crate::error::{Error, Result};
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

    /// Sets the payload: anything that becomes a JSON object (a struct, a map, `serde_json::json!`).
    ///
    /// Errors: [`Error::InvalidInput`] if it becomes something else.
    pub fn payload(self, value: &impl Serialize) -> Result<Point> {
        let json = to_json("payload", value)?;
        if !json.starts_with('{') {
            return Err(Error::invalid("payload", "must become a JSON object"));
        }
        Ok(self.with_payload(json))
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

/// JSON text of a filter, a configuration or a body, for the calls that take these as text:
/// `shard.count(Some(&to_json("filter", &json!({"must": [...]}))?))`. `field` is what an error names.
///
/// Errors: [`Error::InvalidInput`] for what JSON does not have: a map whose keys are no text.
pub fn to_json(field: &str, value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::invalid(field, error.to_string()))
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

    /// [`SearchRequest::filter`] with anything that becomes a REST filter.
    ///
    /// Errors: as [`to_json`].
    pub fn filter_by(self, filter: &impl Serialize) -> Result<SearchRequest> {
        let json = to_json("filter", filter)?;
        Ok(self.filter(json))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_and_filters_are_anything_that_becomes_json() {
        #[derive(Serialize)]
        struct Colour {
            name: &'static str,
        }
        let point = Point::dense(1, [0.6, 0.8]).payload(&Colour { name: "red" });
        assert_eq!(point.unwrap().payload.unwrap(), r#"{"name":"red"}"#);
        let refused = Point::dense("x", vec![1.0]).payload(&[1]).unwrap_err();
        assert!(refused.to_string().starts_with("payload: "), "{refused}");
        let filter = serde_json::json!({"must": []});
        let request = SearchRequest::nearest("", vec![1.0], 1).filter_by(&filter);
        assert_eq!(request.unwrap().filter.unwrap(), r#"{"must":[]}"#);
    }
}
