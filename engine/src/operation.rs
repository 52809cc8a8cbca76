//! Operations: single writes as they are logged, applied and uploaded.

use serde_json::Value;

use crate::error::Result;
use crate::point::{Payload, Point, PointId, Vectors};

/// How an upsert treats points that exist or do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpdateMode {
    /// Inserts new points, replaces existing ones.
    #[default]
    Upsert,
    /// Inserts new points, leaves existing ones alone.
    InsertOnly,
    /// Replaces existing points, inserts none.
    UpdateOnly,
}

/// One write, by point id: applying it to the same shard gives the same shard, and applying it
/// again changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Inserts the point, or replaces it.
    UpsertPoint(Point),
    /// An upsert with a condition, which held locally when it was prepared. Applied as a plain
    /// upsert; uploaded with its condition, for the server to judge by what it holds.
    UpsertPointIf {
        /// The point.
        point: Point,
        /// REST `update_mode`.
        mode: UpdateMode,
        /// REST `update_filter`.
        condition: Option<Value>,
    },
    /// Deletes points; ids that do not exist are fine.
    DeletePoints {
        /// Their ids.
        ids: Vec<PointId>,
    },
    /// Replaces the named vectors of a point, keeps its others.
    UpdateVectors {
        /// The point.
        id: PointId,
        /// The vectors.
        vectors: Vectors,
        /// REST `update_filter`; it held locally when the operation was prepared.
        condition: Option<Value>,
    },
    /// Removes the named vectors from points.
    DeleteVectors {
        /// The points.
        ids: Vec<PointId>,
        /// The vectors' names.
        names: Vec<String>,
    },
    /// Sets keys of the payload, keeps the others.
    SetPayload {
        /// The points.
        ids: Vec<PointId>,
        /// The keys and values.
        payload: Payload,
        /// Path of the nested object to set them in, e.g. `a.b[0]`; none: the whole payload.
        key: Option<String>,
    },
    /// Replaces the payload (or, with `key`, the object at that path).
    OverwritePayload {
        /// The points.
        ids: Vec<PointId>,
        /// The new payload.
        payload: Payload,
        /// As in [`Operation::SetPayload`].
        key: Option<String>,
    },
    /// Removes keys from the payload.
    DeletePayload {
        /// The points.
        ids: Vec<PointId>,
        /// Paths of the keys.
        keys: Vec<String>,
    },
    /// Removes the whole payload.
    ClearPayload {
        /// The points.
        ids: Vec<PointId>,
    },
    /// Creates a payload index, or replaces it if its schema differs.
    CreatePayloadIndex {
        /// Path of the payload field.
        field: String,
        /// REST `field_schema`.
        schema: Value,
    },
    /// Removes a payload index.
    DeletePayloadIndex {
        /// Path of the payload field.
        field: String,
    },
    /// Adds a named vector to the collection.
    CreateVectorName {
        /// Its name.
        name: String,
        /// REST `VectorNameConfig`: `{"dense": {...}}` or `{"sparse": {...}}`.
        config: Value,
    },
    /// Removes a named vector, with what points hold of it.
    DeleteVectorName {
        /// Its name.
        name: String,
    },
}

/// How an operation goes to the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Upload {
    /// One element of `operations` in `POST /points/batch`.
    Batch(Value),
    /// A request of its own, below `/collections/{c}`.
    Request {
        /// HTTP method.
        method: &'static str,
        /// Path, without query.
        path: String,
        /// JSON body; none for `DELETE`.
        body: Option<Value>,
    },
}

impl Operation {
    /// Encodes the operation for the log.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Decodes what [`Operation::encode`] wrote; refuses anything else, trailing bytes included.
    ///
    /// Errors: [`crate::Error::Corrupt`].
    pub fn decode(_bytes: &[u8]) -> Result<Self> {
        todo!()
    }

    /// The points it touches; none for operations on the collection.
    pub fn point_ids(&self) -> Vec<&PointId> {
        todo!()
    }

    /// Whether the operation can be an element of `points/batch`, and so of [`merge_uploads`].
    pub fn is_batchable(&self) -> bool {
        todo!()
    }

    /// How the operation goes to the server.
    pub fn upload(&self) -> Upload {
        todo!()
    }
}

/// The elements of `operations` in `POST /points/batch` that do what `ops` do, in fewer requests:
/// an upsert or deletion of a point replaces what came before it for the same point, neighbours of
/// one kind are joined.
///
/// Errors: [`crate::Error::Internal`] if one is not [`Operation::is_batchable`].
pub fn merge_uploads(_ops: &[Operation]) -> Result<Vec<Value>> {
    todo!()
}
