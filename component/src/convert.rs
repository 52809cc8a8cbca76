//! WIT values and the engine's own, both ways.

use std::collections::BTreeMap;

use edge_sync_engine as engine;
use edge_sync_upload as upload;

use crate::bindings::courier::Answer;
use crate::bindings::queue::UploadRequest;
use crate::bindings::restore::PlannedOptimization;
use crate::bindings::shard::{
    ScoredPoint, ScrollRequest, SearchRequest, Selection, StoredPoint, Target,
};
use crate::bindings::types::{NamedVector, Point, PointId, SparseVector, Vector};
use crate::error::{Result, invalid};

pub fn points_in(points: Vec<Point>) -> Result<Vec<engine::Point>> {
    points
        .into_iter()
        .enumerate()
        .map(|(index, point)| point_in(index, point))
        .collect()
}

/// The names of fields are made for errors only: this is on the way of every point.
fn point_in(index: usize, point: Point) -> Result<engine::Point> {
    let mut vectors = BTreeMap::new();
    for NamedVector { name, vector } in point.vectors {
        if vectors.insert(name.clone(), vector_in(vector)).is_some() {
            return Err(invalid(
                format!("points[{index}].vectors"),
                format!("there are two vectors of the name `{name}`"),
            ));
        }
    }
    let payload = point
        .payload
        .map(|json| {
            serde_json::from_str(&json).map_err(|error| {
                invalid(
                    format!("points[{index}].payload"),
                    format!("not a JSON object: {error}"),
                )
            })
        })
        .transpose()?;
    Ok(engine::Point {
        id: id_in(|| format!("points[{index}].id"), point.id)?,
        vectors,
        payload,
    })
}

pub fn ids_in(field: &str, ids: Vec<PointId>) -> Result<Vec<engine::PointId>> {
    ids.into_iter()
        .enumerate()
        .map(|(index, id)| id_in(|| format!("{field}[{index}]"), id))
        .collect()
}

fn id_in(field: impl Fn() -> String, id: PointId) -> Result<engine::PointId> {
    match id {
        PointId::Num(number) => Ok(engine::PointId::Num(number)),
        PointId::Uuid(text) => engine::PointId::parse_uuid(&text).ok_or_else(|| {
            let message =
                format!("`{text}` is no point id; expected an unsigned integer or a UUID");
            invalid(field(), message)
        }),
    }
}

pub fn id_out(id: engine::PointId) -> PointId {
    match id {
        engine::PointId::Num(number) => PointId::Num(number),
        engine::PointId::Uuid(uuid) => PointId::Uuid(uuid.hyphenated().to_string()),
    }
}

fn vector_in(vector: Vector) -> engine::Vector {
    match vector {
        Vector::Dense(values) => engine::Vector::Dense(values),
        Vector::Sparse(SparseVector { indices, values }) => {
            engine::Vector::Sparse { indices, values }
        }
        Vector::Multi(rows) => engine::Vector::Multi(rows),
    }
}

fn vectors_out(vectors: BTreeMap<String, engine::Vector>) -> Vec<NamedVector> {
    vectors
        .into_iter()
        .map(|(name, vector)| NamedVector {
            name,
            vector: match vector {
                engine::Vector::Dense(values) => Vector::Dense(values),
                engine::Vector::Sparse { indices, values } => {
                    Vector::Sparse(SparseVector { indices, values })
                }
                engine::Vector::Multi(rows) => Vector::Multi(rows),
            },
        })
        .collect()
}

fn payload_out(payload: Option<serde_json::Map<String, serde_json::Value>>) -> Option<String> {
    payload.map(|payload| serde_json::Value::Object(payload).to_string())
}

pub fn stored_out(point: engine::StoredPoint) -> StoredPoint {
    StoredPoint {
        id: id_out(point.id),
        payload: payload_out(point.payload),
        vectors: vectors_out(point.vectors),
    }
}

pub fn scored_out(point: engine::ScoredPoint) -> ScoredPoint {
    ScoredPoint {
        id: id_out(point.id),
        version: point.version,
        score: point.score,
        payload: payload_out(point.payload),
        vectors: vectors_out(point.vectors),
    }
}

pub fn selection_in(selection: &Selection) -> Result<engine::Selection> {
    Ok(engine::Selection {
        payload: json_in("selection.payload", selection.payload.clone())?,
        vectors: json_in("selection.vectors", selection.vectors.clone())?,
    })
}

/// Parses an optional JSON argument.
pub fn json_in(field: &str, json: Option<String>) -> Result<Option<serde_json::Value>> {
    Ok(json
        .map(|json| engine::parse_json(field, &json))
        .transpose()?)
}

pub fn search_in(request: SearchRequest) -> Result<engine::SearchRequest> {
    let target = match request.target {
        Target::Vector(NamedVector { name, vector }) => engine::Target::Vector {
            name,
            vector: vector_in(vector),
        },
        Target::Point(point) => engine::Target::Point {
            id: id_in(|| "target.id".to_owned(), point.id)?,
            name: point.name,
        },
    };
    Ok(engine::SearchRequest {
        target,
        filter: json_in("filter", request.filter)?,
        params: json_in("params", request.params)?,
        limit: limit_in(request.limit)?,
        offset: request.offset as usize,
        score_threshold: request.score_threshold,
        selection: selection_in(&request.selection)?,
    })
}

pub fn scroll_in(request: ScrollRequest) -> Result<engine::ScrollRequest> {
    Ok(engine::ScrollRequest {
        offset: request
            .offset
            .map(|id| id_in(|| "offset".to_owned(), id))
            .transpose()?,
        limit: limit_in(request.limit)?,
        filter: json_in("filter", request.filter)?,
        selection: selection_in(&request.selection)?,
    })
}

fn limit_in(limit: u32) -> Result<usize> {
    if limit == 0 {
        return Err(invalid("limit", "0 results; at least 1 must be asked for"));
    }
    Ok(limit as usize)
}

pub fn planned_in(planned: PlannedOptimization) -> engine::PlannedOptimization {
    engine::PlannedOptimization {
        optimizer: planned.optimizer,
        segments: planned.segments,
    }
}

pub fn planned_out(planned: engine::PlannedOptimization) -> PlannedOptimization {
    PlannedOptimization {
        optimizer: planned.optimizer,
        segments: planned.segments,
    }
}

impl From<UploadRequest> for upload::Request {
    fn from(request: UploadRequest) -> Self {
        Self::new(&request.method, request.path, request.body)
    }
}

impl From<Answer> for upload::Answer {
    fn from(answer: Answer) -> Self {
        Self {
            status: answer.status,
            request: answer.request,
            host: answer.host,
            retry_after: answer.retry_after,
            location: answer.location,
            content_encoding: answer.content_encoding,
            body: answer.body,
        }
    }
}

impl From<upload::Answer> for Answer {
    fn from(answer: upload::Answer) -> Self {
        Self {
            status: answer.status,
            request: answer.request,
            host: answer.host,
            retry_after: answer.retry_after,
            location: answer.location,
            content_encoding: answer.content_encoding,
            body: answer.body,
        }
    }
}
