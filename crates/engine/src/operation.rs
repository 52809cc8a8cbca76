//! Operations: single writes as they are logged, applied and uploaded.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::path::encode_segment;
use crate::point::{AsRest, Payload, Point, PointId, Vectors};

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
    /// One element of `operations` in `POST /points/batch`, as JSON text.
    Batch(String),
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
    ///
    /// Errors: [`crate::Error::Internal`] if it cannot be written as JSON.
    pub fn upload(&self) -> Result<Upload> {
        Ok(match self {
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
            point_operation => Upload::Batch(UploadElement::new(point_operation)?.into_text()),
        })
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
    /// form, the plain element. As JSON text.
    ///
    /// Errors: as [`Operation::upload`].
    pub fn element_for_present(&self) -> Result<String> {
        let element = UploadElement::new(self)?;
        let by_filter = matches!(
            self,
            Self::DeleteVectors { .. }
                | Self::SetPayload { .. }
                | Self::OverwritePayload { .. }
                | Self::DeletePayload { .. }
                | Self::ClearPayload { .. }
        );
        if !by_filter {
            return Ok(element.into_text());
        }
        let UploadElement {
            kind, points, rest, ..
        } = element;
        Ok(format!(
            r#"{{"{kind}":{{"filter":{{"must":[{{"has_id":[{}]}}]}}{rest}}}}}"#,
            points.join(",")
        ))
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
#[derive(Debug)]
pub struct UploadElement {
    kind: &'static str,
    /// The points list: JSON text of each, since a vector is written as text once and no more.
    points: Vec<String>,
    ids: HashSet<PointId>,
    /// Everything but the points: `,"name":value` for each field.
    rest: String,
}

impl UploadElement {
    /// Of an operation that [`Operation::is_batchable`].
    ///
    /// Errors: [`crate::Error::Internal`] if it is not, or cannot be written as JSON.
    pub fn new(operation: &Operation) -> Result<Self> {
        let ids = operation.point_ids();
        let mut points = Vec::new();
        let mut rest = String::new();
        let rest = &mut rest;
        let kind = match operation {
            Operation::UpsertPoint(point) => {
                points.push(text(&AsRest(point))?);
                "upsert"
            }
            Operation::UpsertPointIf {
                point,
                mode,
                condition,
            } => {
                points.push(text(&AsRest(point))?);
                field(rest, "update_mode", Some(mode.name()))?;
                field(rest, "update_filter", condition.as_ref())?;
                "upsert"
            }
            Operation::DeletePoints { .. } => "delete",
            Operation::UpdateVectors {
                id,
                vectors,
                condition,
            } => {
                let vector = text(&AsRest(vectors))?;
                points.push(format!(r#"{{"id":{},"vector":{vector}}}"#, text(id)?));
                field(rest, "update_filter", condition.as_ref())?;
                "update_vectors"
            }
            Operation::DeleteVectors { names, .. } => {
                field(rest, "vector", Some(names))?;
                "delete_vectors"
            }
            Operation::SetPayload { payload, key, .. } => {
                field(rest, "payload", Some(payload))?;
                field(rest, "key", key.as_ref())?;
                "set_payload"
            }
            Operation::OverwritePayload { payload, key, .. } => {
                field(rest, "payload", Some(payload))?;
                field(rest, "key", key.as_ref())?;
                "overwrite_payload"
            }
            Operation::DeletePayload { keys, .. } => {
                field(rest, "keys", Some(keys))?;
                "delete_payload"
            }
            Operation::ClearPayload { .. } => "clear_payload",
            Operation::CreatePayloadIndex { .. }
            | Operation::DeletePayloadIndex { .. }
            | Operation::CreateVectorName { .. }
            | Operation::DeleteVectorName { .. } => {
                return Err(Error::Internal(format!(
                    "not an element of points/batch: {operation:?}"
                )));
            }
        };
        if points.is_empty() {
            points = ids.iter().map(text).collect::<Result<_>>()?;
        }
        Ok(Self {
            kind,
            points,
            ids: ids.into_iter().copied().collect(),
            rest: std::mem::take(rest),
        })
    }

    /// Bytes of it as JSON text.
    pub fn bytes(&self) -> usize {
        let points: usize = self.points.iter().map(|point| point.len() + 1).sum();
        let frame = r#"{"":{"points":[]}}"#.len();
        frame + self.kind.len() + self.rest.len() + points.saturating_sub(1)
    }

    /// Takes the points of `next`, if the two do the same to different points.
    fn join(&mut self, next: Self) -> Result<(), Self> {
        if self.kind == next.kind && self.rest == next.rest && self.ids.is_disjoint(&next.ids) {
            self.points.extend(next.points);
            self.ids.extend(next.ids);
            Ok(())
        } else {
            Err(next)
        }
    }

    /// As JSON text.
    pub fn into_text(self) -> String {
        let Self {
            kind, points, rest, ..
        } = self;
        format!(r#"{{"{kind}":{{"points":[{}]{rest}}}}}"#, points.join(","))
    }
}

fn text<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::Internal(format!("an operation cannot be written: {error}")))
}

/// Adds a field, if it has a value.
fn field<T: Serialize + ?Sized>(fields: &mut String, name: &str, value: Option<&T>) -> Result<()> {
    if let Some(value) = value {
        fields.push_str(&format!(",\"{name}\":{}", text(&value)?));
    }
    Ok(())
}

/// `operations` of `POST /points/batch`, as JSON text, that do what the writes do, in fewer requests:
/// an upsert or deletion of a point replaces what came before it for the same point, neighbours
/// that do the same to different points are joined. Each write comes with its own element.
///
/// Errors: as [`UploadElement::new`].
pub fn merge_uploads(writes: Vec<(Operation, UploadElement)>) -> Result<String> {
    let mut replaced = HashSet::new();
    let mut kept = Vec::with_capacity(writes.len());
    for (operation, element) in writes.into_iter().rev() {
        match operation.without(&replaced) {
            None => {}
            Some(Cow::Borrowed(_)) => kept.push(element),
            Some(Cow::Owned(rest)) => kept.push(UploadElement::new(&rest)?),
        }
        if let Operation::UpsertPoint(_) | Operation::DeletePoints { .. } = operation {
            replaced.extend(operation.point_ids());
        }
    }
    let mut elements: Vec<UploadElement> = Vec::new();
    for next in kept.into_iter().rev() {
        match elements.last_mut() {
            None => elements.push(next),
            Some(last) => {
                if let Err(next) = last.join(next) {
                    elements.push(next);
                }
            }
        }
    }
    let texts: Vec<String> = elements.into_iter().map(UploadElement::into_text).collect();
    Ok(format!("[{}]", texts.join(",")))
}
