//! Operations: single writes as they are logged, applied and uploaded.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::point::{Payload, Point, PointId, Vectors, vectors_to_json};
use crate::request::encode_segment;

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

impl UpdateMode {
    /// The REST name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upsert => "upsert",
            Self::InsertOnly => "insert_only",
            Self::UpdateOnly => "update_only",
        }
    }

    /// The mode of that REST name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Upsert, Self::InsertOnly, Self::UpdateOnly]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
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

impl Operation {
    /// Whether it may add to what the shard holds. The others take away from it.
    pub fn adds(&self) -> bool {
        match self {
            Self::UpsertPoint(_)
            | Self::UpsertPointIf { .. }
            | Self::UpdateVectors { .. }
            | Self::SetPayload { .. }
            | Self::OverwritePayload { .. }
            | Self::CreatePayloadIndex { .. }
            | Self::CreateVectorName { .. } => true,
            Self::DeletePoints { .. }
            | Self::DeleteVectors { .. }
            | Self::DeletePayload { .. }
            | Self::ClearPayload { .. }
            | Self::DeletePayloadIndex { .. }
            | Self::DeleteVectorName { .. } => false,
        }
    }
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
    /// The points it touches; none for operations on the collection.
    pub fn point_ids(&self) -> Vec<&PointId> {
        match self {
            Self::UpsertPoint(point) | Self::UpsertPointIf { point, .. } => vec![&point.id],
            Self::UpdateVectors { id, .. } => vec![id],
            Self::DeletePoints { ids }
            | Self::DeleteVectors { ids, .. }
            | Self::SetPayload { ids, .. }
            | Self::OverwritePayload { ids, .. }
            | Self::DeletePayload { ids, .. }
            | Self::ClearPayload { ids } => ids.iter().collect(),
            Self::CreatePayloadIndex { .. }
            | Self::DeletePayloadIndex { .. }
            | Self::CreateVectorName { .. }
            | Self::DeleteVectorName { .. } => Vec::new(),
        }
    }

    /// Whether the operation can be an element of `points/batch`, and so of [`merge_uploads`].
    pub fn is_batchable(&self) -> bool {
        !matches!(
            self,
            Self::CreatePayloadIndex { .. }
                | Self::DeletePayloadIndex { .. }
                | Self::CreateVectorName { .. }
                | Self::DeleteVectorName { .. }
        )
    }

    /// How the operation goes to the server.
    pub fn upload(&self) -> Upload {
        match self {
            Self::CreatePayloadIndex { field, schema } => Upload::Request {
                method: "PUT",
                path: "/index".to_owned(),
                body: Some(json!({ "field_name": field, "field_schema": schema })),
            },
            Self::DeletePayloadIndex { field } => Upload::Request {
                method: "DELETE",
                path: format!("/index/{}", encode_segment(field)),
                body: None,
            },
            Self::CreateVectorName { name, config } => Upload::Request {
                method: "PUT",
                path: format!("/vectors/{}", encode_segment(name)),
                body: Some(config.clone()),
            },
            Self::DeleteVectorName { name } => Upload::Request {
                method: "DELETE",
                path: format!("/vectors/{}", encode_segment(name)),
                body: None,
            },
            point_operation => Upload::Batch(Element::new(point_operation).into_json()),
        }
    }

    /// The operation on at most `count` of its points, from the `from`-th on. An operation on one
    /// point, or on none, stays whole.
    pub fn piece(&self, from: usize, count: usize) -> Self {
        let mut piece = self.clone();
        if let Self::DeletePoints { ids }
        | Self::DeleteVectors { ids, .. }
        | Self::SetPayload { ids, .. }
        | Self::OverwritePayload { ids, .. }
        | Self::DeletePayload { ids, .. }
        | Self::ClearPayload { ids } = &mut piece
        {
            let from = from.min(ids.len());
            let to = from.saturating_add(count).min(ids.len());
            *ids = ids[from..to].to_vec();
        }
        piece
    }

    /// The element of `points/batch` that changes those of the operation's points that the server
    /// has: it selects them by a filter, so that a missing one is no error. Where REST has no such
    /// form, the plain element.
    pub fn element_for_present(&self) -> Value {
        let element = Element::new(self);
        let by_filter = matches!(
            self,
            Self::DeleteVectors { .. }
                | Self::SetPayload { .. }
                | Self::OverwritePayload { .. }
                | Self::DeletePayload { .. }
                | Self::ClearPayload { .. }
        );
        if !by_filter {
            return element.into_json();
        }
        let mut body = Map::new();
        body.insert(
            "filter".to_owned(),
            json!({ "must": [{ "has_id": element.points }] }),
        );
        body.extend(element.rest);
        json!({ element.kind: body })
    }

    /// The operation without the points in `ids`; none if nothing is left of it.
    pub fn without(&self, ids: &HashSet<PointId>) -> Option<Cow<'_, Self>> {
        let gone = |id: &PointId| ids.contains(id);
        if !self.point_ids().into_iter().any(gone) {
            return Some(Cow::Borrowed(self));
        }
        if let Self::UpsertPoint(_) | Self::UpsertPointIf { .. } | Self::UpdateVectors { .. } = self
        {
            return None;
        }
        let mut rest = self.clone();
        match &mut rest {
            Self::DeletePoints { ids }
            | Self::DeleteVectors { ids, .. }
            | Self::SetPayload { ids, .. }
            | Self::OverwritePayload { ids, .. }
            | Self::DeletePayload { ids, .. }
            | Self::ClearPayload { ids } => {
                ids.retain(|id| !gone(id));
                (!ids.is_empty()).then_some(Cow::Owned(rest))
            }
            _ => None,
        }
    }
}

/// An element of `points/batch` while it grows.
struct Element {
    kind: &'static str,
    /// The points list.
    points: Vec<Value>,
    ids: HashSet<PointId>,
    /// Everything but the points.
    rest: Map<String, Value>,
}

impl Element {
    fn new(operation: &Operation) -> Self {
        let ids = operation.point_ids();
        let mut points: Vec<_> = ids.iter().map(|id| id.to_json()).collect();
        let mut rest = Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                rest.insert(key.to_owned(), value);
            }
        };
        let kind = match operation {
            Operation::UpsertPoint(point) => {
                points = vec![point.to_json()];
                "upsert"
            }
            Operation::UpsertPointIf {
                point,
                mode,
                condition,
            } => {
                points = vec![point.to_json()];
                set("update_mode", Some(mode.name().into()));
                set("update_filter", condition.clone());
                "upsert"
            }
            Operation::DeletePoints { .. } => "delete",
            Operation::UpdateVectors {
                id,
                vectors,
                condition,
            } => {
                points = vec![json!({ "id": id, "vector": vectors_to_json(vectors) })];
                set("update_filter", condition.clone());
                "update_vectors"
            }
            Operation::DeleteVectors { names, .. } => {
                set("vector", Some(names.as_slice().into()));
                "delete_vectors"
            }
            Operation::SetPayload { payload, key, .. } => {
                set("payload", Some(Value::Object(payload.clone())));
                set("key", key.clone().map(Value::String));
                "set_payload"
            }
            Operation::OverwritePayload { payload, key, .. } => {
                set("payload", Some(Value::Object(payload.clone())));
                set("key", key.clone().map(Value::String));
                "overwrite_payload"
            }
            Operation::DeletePayload { keys, .. } => {
                set("keys", Some(keys.as_slice().into()));
                "delete_payload"
            }
            Operation::ClearPayload { .. } => "clear_payload",
            Operation::CreatePayloadIndex { .. }
            | Operation::DeletePayloadIndex { .. }
            | Operation::CreateVectorName { .. }
            | Operation::DeleteVectorName { .. } => "",
        };
        Self {
            kind,
            points,
            ids: operation.point_ids().into_iter().copied().collect(),
            rest,
        }
    }

    /// Takes the points of `next`, if the two do the same to different points.
    #[expect(
        clippy::result_large_err,
        reason = "the element is handed back, not reported"
    )]
    fn join(&mut self, next: Self) -> Result<(), Self> {
        if self.kind == next.kind && self.rest == next.rest && self.ids.is_disjoint(&next.ids) {
            self.points.extend(next.points);
            self.ids.extend(next.ids);
            Ok(())
        } else {
            Err(next)
        }
    }

    fn into_json(self) -> Value {
        let mut body = Map::new();
        body.insert("points".to_owned(), Value::Array(self.points));
        body.extend(self.rest);
        json!({ self.kind: body })
    }
}

/// The elements of `operations` in `POST /points/batch` that do what `ops` do, in fewer requests:
/// an upsert or deletion of a point replaces what came before it for the same point, neighbours
/// that do the same to different points are joined.
///
/// Errors: [`crate::Error::Internal`] if one is not [`Operation::is_batchable`].
pub fn merge_uploads(ops: &[Operation]) -> Result<Vec<Value>> {
    if let Some(other) = ops.iter().find(|op| !op.is_batchable()) {
        return Err(Error::Internal(format!(
            "not an element of points/batch: {other:?}"
        )));
    }
    let mut replaced = HashSet::new();
    let mut kept = Vec::with_capacity(ops.len());
    for op in ops.iter().rev() {
        kept.extend(op.without(&replaced));
        if let Operation::UpsertPoint(_) | Operation::DeletePoints { .. } = op {
            replaced.extend(op.point_ids());
        }
    }
    let mut elements: Vec<Element> = Vec::new();
    for op in kept.iter().rev() {
        let next = Element::new(op);
        match elements.last_mut() {
            None => elements.push(next),
            Some(last) => {
                if let Err(next) = last.join(next) {
                    elements.push(next);
                }
            }
        }
    }
    Ok(elements.into_iter().map(Element::into_json).collect())
}
