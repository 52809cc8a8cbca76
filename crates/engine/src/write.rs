//! Requests that write, as parsed: shapes are checked, nothing is resolved against a shard yet.

use qdrant_edge::{Filter, JsonPath, PayloadFieldSchema, PayloadSchemaParams, VectorNameConfig};
use serde_json::Value;

use crate::config::vector_name_config;
use crate::error::{Error, Result};
use crate::filter::filter;
use crate::json::{Node, Strictness, check_payload};
use crate::operation::UpdateMode;
use crate::point::{Payload, Point, PointId, Vectors};
use crate::query::{Access, no_shard_key};
use crate::vector;

/// A parsed request that writes: one operation, or the list of `POST /points/batch`.
#[derive(Debug, Clone)]
pub struct Write {
    pub(crate) parts: Vec<Part>,
    pub(crate) strictness: Strictness,
}

/// One operation of a request.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Where its fields stand in the request, with a dot at the end unless it is the whole body.
    pub(crate) at: String,
    pub(crate) kind: WriteKind,
}

#[derive(Debug, Clone)]
pub(crate) enum WriteKind {
    Upsert {
        points: Vec<Point>,
        /// The points came by column (`batch`), which shows in the paths of messages.
        columns: bool,
        mode: UpdateMode,
        condition: Option<Condition>,
    },
    Delete(Selector),
    UpdateVectors {
        points: Vec<(PointId, Vectors)>,
        condition: Option<Condition>,
    },
    DeleteVectors {
        selector: Selector,
        names: Vec<String>,
    },
    SetPayload {
        selector: Selector,
        payload: Payload,
        key: Option<String>,
    },
    OverwritePayload {
        selector: Selector,
        payload: Payload,
        key: Option<String>,
    },
    DeletePayload {
        selector: Selector,
        keys: Vec<String>,
    },
    ClearPayload(Selector),
    CreatePayloadIndex {
        field: String,
        schema: Value,
    },
    DeletePayloadIndex {
        field: String,
    },
    CreateVectorName {
        name: String,
        config: Box<VectorNameConfig>,
        json: Value,
    },
    DeleteVectorName {
        name: String,
        /// A name that is not there is fine, as on the server.
        may_be_missing: bool,
    },
}

/// `update_filter`, as sent and as the engine reads it.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) json: Value,
    pub(crate) filter: Filter,
}

/// Which points: by id, by filter, or both.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    pub(crate) ids: Vec<PointId>,
    pub(crate) filter: Option<Filter>,
}

impl Write {
    /// How many operations the request has; 1 unless it is a batch.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a write has at least one operation"
    )]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Splits the write where an operation selects points by what earlier operations of the same
    /// batch left behind (filters, conditional upserts). Prepare and apply each step before
    /// preparing the next; most writes are a single step.
    pub fn steps(self) -> Vec<Write> {
        let mut steps: Vec<Write> = Vec::new();
        for part in self.parts {
            match steps.last_mut() {
                Some(step) if !part.kind.reads_points() => step.parts.push(part),
                _ => steps.push(Write {
                    parts: vec![part],
                    strictness: self.strictness,
                }),
            }
        }
        steps
    }

    /// Splits a batch into its operations, which is how a server applies it: one that is refused
    /// leaves those before it applied.
    pub fn operations(self) -> impl Iterator<Item = Write> {
        let strictness = self.strictness;
        self.parts.into_iter().map(move |part| Write {
            parts: vec![part],
            strictness,
        })
    }

    /// The write without the points that are not in `held`, for a write of one operation that
    /// changes listed points and inserts none; none if that leaves nothing. A server does so: it
    /// changes the points that are there and then refuses the operation for the others.
    pub fn only_points(mut self, held: impl Fn(&PointId) -> bool) -> Option<Write> {
        let [part] = self.parts.as_mut_slice() else {
            return None;
        };
        let left = match &mut part.kind {
            WriteKind::UpdateVectors { points, .. } => {
                points.retain(|(id, _)| held(id));
                points.len()
            }
            WriteKind::DeleteVectors { selector, .. }
            | WriteKind::SetPayload { selector, .. }
            | WriteKind::OverwritePayload { selector, .. }
            | WriteKind::DeletePayload { selector, .. }
            | WriteKind::ClearPayload(selector) => {
                selector.ids.retain(held);
                selector.ids.len()
            }
            WriteKind::Upsert { .. }
            | WriteKind::Delete(_)
            | WriteKind::CreatePayloadIndex { .. }
            | WriteKind::DeletePayloadIndex { .. }
            | WriteKind::CreateVectorName { .. }
            | WriteKind::DeleteVectorName { .. } => 0,
        };
        (left > 0).then_some(self)
    }

    /// The points that the write lists and that have to be there, in order; empty for one that
    /// inserts, deletes or selects by a filter.
    pub fn required_points(&self) -> Vec<PointId> {
        self.parts
            .iter()
            .flat_map(|part| match &part.kind {
                WriteKind::UpdateVectors { points, .. } => {
                    points.iter().map(|(id, _)| *id).collect()
                }
                WriteKind::DeleteVectors { selector, .. }
                | WriteKind::SetPayload { selector, .. }
                | WriteKind::OverwritePayload { selector, .. }
                | WriteKind::DeletePayload { selector, .. }
                | WriteKind::ClearPayload(selector) => selector.ids.clone(),
                _ => Vec::new(),
            })
            .collect()
    }

    /// Whether the write is about payload indexes or named vectors, and so about the collection and
    /// not about points.
    pub fn is_of_the_collection(&self) -> bool {
        self.parts.iter().any(|part| {
            matches!(
                part.kind,
                WriteKind::CreatePayloadIndex { .. }
                    | WriteKind::DeletePayloadIndex { .. }
                    | WriteKind::CreateVectorName { .. }
                    | WriteKind::DeleteVectorName { .. }
            )
        })
    }

    /// The part that would begin a second step.
    pub(crate) fn second_step(&self) -> Option<&Part> {
        self.parts
            .iter()
            .skip(1)
            .find(|part| part.kind.reads_points())
    }
}

impl WriteKind {
    /// Whether it names no point at all, which a server refuses.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Upsert { points, .. } => points.is_empty(),
            Self::UpdateVectors { points, .. } => points.is_empty(),
            Self::Delete(selector)
            | Self::ClearPayload(selector)
            | Self::DeleteVectors { selector, .. }
            | Self::SetPayload { selector, .. }
            | Self::OverwritePayload { selector, .. }
            | Self::DeletePayload { selector, .. } => {
                selector.filter.is_none() && selector.ids.is_empty()
            }
            Self::CreatePayloadIndex { .. }
            | Self::DeletePayloadIndex { .. }
            | Self::CreateVectorName { .. }
            | Self::DeleteVectorName { .. } => false,
        }
    }

    /// Whether it selects points by what they hold.
    fn reads_points(&self) -> bool {
        match self {
            Self::Upsert {
                mode, condition, ..
            } => *mode != UpdateMode::Upsert || condition.is_some(),
            Self::UpdateVectors { condition, .. } => condition.is_some(),
            Self::Delete(selector)
            | Self::ClearPayload(selector)
            | Self::DeleteVectors { selector, .. }
            | Self::SetPayload { selector, .. }
            | Self::OverwritePayload { selector, .. }
            | Self::DeletePayload { selector, .. } => selector.filter.is_some(),
            Self::CreatePayloadIndex { .. }
            | Self::DeletePayloadIndex { .. }
            | Self::CreateVectorName { .. }
            | Self::DeleteVectorName { .. } => false,
        }
    }
}

/// The body of `POST /points/batch`.
pub(crate) fn batch(node: &Node<'_>) -> Result<Write> {
    node.fields(&["operations"])?;
    let parts = node
        .required("operations")?
        .items()?
        .map(|item| {
            const KINDS: &[&str] = &[
                "upsert",
                "delete",
                "set_payload",
                "overwrite_payload",
                "delete_payload",
                "clear_payload",
                "update_vectors",
                "delete_vectors",
            ];
            let (kind, inner) = item
                .one_of(KINDS)?
                .ok_or_else(|| item.error("expected exactly one operation"))?;
            let parsed = match kind {
                "upsert" => upsert(&inner)?,
                "delete" => WriteKind::Delete(points_selector(&inner)?),
                "set_payload" => set_payload(&inner)?,
                "overwrite_payload" => overwrite_payload(&inner)?,
                "delete_payload" => delete_payload(&inner)?,
                "clear_payload" => WriteKind::ClearPayload(points_selector(&inner)?),
                "update_vectors" => update_vectors(&inner)?,
                _ => delete_vectors(&inner)?,
            };
            Ok(Part {
                at: format!("{}.", inner.path()),
                kind: parsed,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Write {
        parts,
        strictness: node.strictness(),
    })
}

pub(crate) fn single(kind: WriteKind, strictness: Strictness) -> Write {
    Write {
        strictness,
        parts: vec![Part {
            at: String::new(),
            kind,
        }],
    }
}

/// The body of `PUT /points`: a list of points, or columns.
pub(crate) fn upsert(node: &Node<'_>) -> Result<WriteKind> {
    node.fields(&[
        "points",
        "batch",
        "shard_key",
        "update_filter",
        "update_mode",
    ])?;
    no_shard_key(node, Access::Write)?;
    let (points, columns) = match (node.get("points"), node.get("batch")) {
        (Some(points), None) => (
            points
                .items()?
                .map(|item| point(&item))
                .collect::<Result<_>>()?,
            false,
        ),
        (None, Some(columns)) => (columns_to_points(&columns)?, true),
        _ => return Err(node.error("expected exactly one of `points`, `batch`")),
    };
    let mode = match node.get("update_mode") {
        None => UpdateMode::Upsert,
        Some(mode) => UpdateMode::from_name(mode.string()?).ok_or_else(|| {
            mode.error("unknown mode, expected `upsert`, `insert_only` or `update_only`")
        })?,
    };
    Ok(WriteKind::Upsert {
        points,
        columns,
        mode,
        condition: condition(node)?,
    })
}

fn condition(node: &Node<'_>) -> Result<Option<Condition>> {
    node.get("update_filter")
        .map(|node| {
            Ok(Condition {
                json: node.value.clone(),
                filter: filter(&node)?,
            })
        })
        .transpose()
}

fn point(node: &Node<'_>) -> Result<Point> {
    node.fields(&["id", "vector", "payload"])?;
    Ok(Point {
        id: node.required("id")?.point_id()?,
        vectors: vector::vectors(&node.required("vector")?)?,
        payload: payload(node)?,
    })
}

/// The member `payload`, an object if it is there.
fn payload(node: &Node<'_>) -> Result<Option<Payload>> {
    node.get("payload")
        .map(|payload| payload_of(&payload, 0))
        .transpose()
}

/// A payload that will stand `below` levels deep in another.
fn payload_of(node: &Node<'_>, below: usize) -> Result<Payload> {
    let payload = node.object()?;
    check_payload(payload, below).map_err(|message| node.error(message))?;
    Ok(payload.clone())
}

fn columns_to_points(node: &Node<'_>) -> Result<Vec<Point>> {
    node.fields(&["ids", "vectors", "payloads"])?;
    let ids = node.required("ids")?.point_ids()?;
    let same_length = |node: &Node<'_>, length: usize| {
        if length == ids.len() {
            Ok(())
        } else {
            Err(node.out_of_range(format!(
                "number of ids and elements must be equal, got {} and {length}",
                ids.len()
            )))
        }
    };
    let mut points: Vec<_> = ids
        .iter()
        .map(|id| Point {
            id: *id,
            vectors: Vectors::new(),
            payload: None,
        })
        .collect();
    let vectors = node.required("vectors")?;
    if vectors.value.is_object() {
        for (name, column) in vectors.entries()? {
            let items = column.items()?;
            same_length(&column, items.len())?;
            for (item, point) in items.zip(&mut points) {
                let vector = vector::vector(&item, vector::Embed::Document)?;
                point.vectors.insert(name.to_owned(), vector);
            }
        }
    } else {
        let items = vectors.items()?;
        same_length(&vectors, items.len())?;
        for (item, point) in items.zip(&mut points) {
            let vector = vector::vector(&item, vector::Embed::Document)?;
            point.vectors.insert(String::new(), vector);
        }
    }
    if let Some(payloads) = node.get("payloads") {
        let items = payloads.items()?;
        same_length(&payloads, items.len())?;
        for (item, point) in items.zip(&mut points) {
            if !item.value.is_null() {
                point.payload = Some(payload_of(&item, 0)?);
            }
        }
    }
    Ok(points)
}

/// REST `PointsSelector`: `points` or `filter`.
pub(crate) fn points_selector(node: &Node<'_>) -> Result<Selector> {
    node.fields(&["points", "filter", "shard_key"])?;
    selector(node)
}

fn selector(node: &Node<'_>) -> Result<Selector> {
    no_shard_key(node, Access::Write)?;
    match (node.get("points"), node.get("filter")) {
        (None, None) => Err(node.error("either list of point ids or filter must be provided")),
        (Some(_), Some(_)) if !node.is_read_as_server() => {
            Err(node.error("list of point ids and filter cannot be combined, give one of them"))
        }
        // Of both, a server takes the list.
        (Some(points), _) => Ok(Selector {
            ids: points.point_ids()?,
            filter: None,
        }),
        (None, Some(node)) => Ok(Selector {
            ids: Vec::new(),
            filter: Some(filter(&node)?),
        }),
    }
}

/// The body of `PUT /points/vectors`.
pub(crate) fn update_vectors(node: &Node<'_>) -> Result<WriteKind> {
    node.fields(&["points", "shard_key", "update_filter"])?;
    no_shard_key(node, Access::Write)?;
    let list = node.required("points")?;
    if node.is_read_as_server() && list.items()?.len() == 0 {
        return Err(list.out_of_range("must specify points to update"));
    }
    let points = list
        .items()?
        .map(|item| {
            item.fields(&["id", "vector"])?;
            Ok((
                item.required("id")?.point_id()?,
                vector::vectors(&item.required("vector")?)?,
            ))
        })
        .collect::<Result<_>>()?;
    Ok(WriteKind::UpdateVectors {
        points,
        condition: condition(node)?,
    })
}

/// The body of `POST /points/vectors/delete`.
pub(crate) fn delete_vectors(node: &Node<'_>) -> Result<WriteKind> {
    node.fields(&["points", "filter", "vector", "vectors", "shard_key"])?;
    // As older clients spell it.
    let list = match node.get("vectors") {
        Some(list) if node.get("vector").is_none() => list,
        _ => node.required("vector")?,
    };
    let names = list.strings()?;
    if names.is_empty() {
        return Err(list.out_of_range("must specify vector names to delete"));
    }
    Ok(WriteKind::DeleteVectors {
        selector: selector(node)?,
        names,
    })
}

/// The body of `POST /points/payload`.
pub(crate) fn set_payload(node: &Node<'_>) -> Result<WriteKind> {
    let (selector, payload, key) = payload_change(node)?;
    Ok(WriteKind::SetPayload {
        selector,
        payload,
        key,
    })
}

/// The body of `PUT /points/payload`.
pub(crate) fn overwrite_payload(node: &Node<'_>) -> Result<WriteKind> {
    let (selector, payload, key) = payload_change(node)?;
    Ok(WriteKind::OverwritePayload {
        selector,
        payload,
        key,
    })
}

fn payload_change(node: &Node<'_>) -> Result<(Selector, Payload, Option<String>)> {
    node.fields(&["payload", "points", "filter", "shard_key", "key"])?;
    let (key, below) = match node.get("key") {
        None => (None, 0),
        Some(key) => {
            let path = key.json_path()?;
            (Some(key.string()?.to_owned()), path.rest.len() + 1)
        }
    };
    let payload = payload_of(&node.required("payload")?, below)?;
    Ok((selector(node)?, payload, key))
}

/// The body of `POST /points/payload/delete`.
pub(crate) fn delete_payload(node: &Node<'_>) -> Result<WriteKind> {
    node.fields(&["keys", "points", "filter", "shard_key"])?;
    let list = node.required("keys")?;
    list.items()?
        .try_for_each(|key| key.json_path().map(drop))?;
    Ok(WriteKind::DeletePayload {
        selector: selector(node)?,
        keys: list.strings()?,
    })
}

/// The body of `PUT /index`.
pub(crate) fn create_index(node: &Node<'_>) -> Result<WriteKind> {
    node.fields(&["field_name", "field_schema"])?;
    let name = node.required("field_name")?;
    let path = name.json_path()?;
    if node.is_read_as_server() && node.get("field_schema").is_none() {
        return Err(Error::refused(
            400,
            "Bad request: Can't auto-detect field type, please specify `field_schema` in the \
             request",
        ));
    }
    let schema = node.required("field_schema")?;
    field_schema(&schema, &path)?;
    Ok(WriteKind::CreatePayloadIndex {
        field: name.string()?.to_owned(),
        schema: schema.value.clone(),
    })
}

/// Types of payload indexes.
const INDEX_TYPES: [&str; 8] = [
    "keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid",
];

fn unknown_index_type(kind: &Node<'_>) -> Error {
    let types = INDEX_TYPES.map(|known| format!("`{known}`")).join(", ");
    kind.error(format!("unknown index type, expected one of {types}"))
}

/// REST `field_schema`: a type name, or an object with `type` and parameters.
pub(crate) fn field_schema(node: &Node<'_>, field: &JsonPath) -> Result<PayloadFieldSchema> {
    if let Some(kind) = node.value.as_str()
        && !node.is_read_as_server()
        && !INDEX_TYPES.contains(&kind)
    {
        return Err(unknown_index_type(node));
    }
    if node.value.is_object() {
        let kind = node.required("type")?;
        // `nested` and `scoring` are of Qdrant 1.20: the engine has them, a server of 1.19 leaves
        // them out.
        let common = ["type", "on_disk", "memory", "enable_hnsw", "nested"];
        let own: &[&str] = match kind.string()? {
            "keyword" => &["is_tenant", "prefix"],
            "integer" => &["lookup", "range", "is_principal"],
            "float" | "datetime" => &["is_principal"],
            "uuid" => &["is_tenant"],
            "geo" | "bool" => &[],
            "text" => &[
                "tokenizer",
                "min_token_len",
                "max_token_len",
                "lowercase",
                "ascii_folding",
                "phrase_matching",
                "stopwords",
                "stemmer",
                "scoring",
            ],
            _ => return Err(unknown_index_type(&kind)),
        };
        node.fields(&[&common, own].concat())?;
        if let Some(stopwords) = node.get("stopwords")
            && stopwords.value.is_object()
        {
            stopwords.fields(&["languages", "custom"])?;
        }
        if let Some(stemmer) = node.get("stemmer") {
            stemmer.fields(&["type", "language"])?;
        }
        if let Some(scoring) = node.get("scoring")
            && scoring.value.is_object()
        {
            scoring.fields(&["type"])?;
        }
        if let Some(nested) = node.get("nested") {
            nested.json_path()?;
        }
        for length in ["min_token_len", "max_token_len"] {
            if let Some(length) = node.get(length) {
                length.size(0)?;
            }
        }
    }
    let schema: PayloadFieldSchema = node.parse()?;
    if let PayloadFieldSchema::FieldParams(params) = &schema {
        match params {
            PayloadSchemaParams::Integer(params)
                if params.lookup == Some(false) && params.range == Some(false) =>
            {
                return Err(node
                    .out_of_range("the `lookup` and `range` capabilities can't be both disabled"));
            }
            PayloadSchemaParams::Text(params)
                if params.min_token_len.is_some()
                    && params.max_token_len.is_some()
                    && params.min_token_len > params.max_token_len =>
            {
                return Err(node.error("min_token_len can't be greater than max_token_len"));
            }
            _ => {}
        }
    }
    let schema = schema.normalized();
    schema
        .validate_for_field(field)
        .map_err(|message| node.error(message))?;
    Ok(schema)
}

/// The body of `PUT /vectors/{name}`.
pub(crate) fn create_vector_name(node: &Node<'_>, name: String) -> Result<WriteKind> {
    Ok(WriteKind::CreateVectorName {
        name,
        config: Box::new(vector_name_config(node)?),
        json: node.value.clone(),
    })
}

/// `DELETE /index/{field}`.
pub(crate) fn delete_index(field: String) -> Result<WriteKind> {
    if crate::json::parse_json_path(&field).is_none() {
        return Err(Error::invalid("field_name", "not a valid payload path"));
    }
    Ok(WriteKind::DeletePayloadIndex { field })
}
