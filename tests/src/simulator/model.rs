//! What must be there: a shard as a plain map.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The payload field that tells every write of a point from all others.
pub const STAMP: &str = "n";

/// Length of the vectors.
pub const DIMENSIONS: usize = 4;

/// A point with its default vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Dense, under the empty name.
    pub vector: Vec<f32>,
    /// A JSON object.
    pub payload: Map<String, Value>,
}

impl Point {
    /// The point that write number `stamp` makes.
    pub fn stamped(stamp: u64) -> Point {
        let vector = (0..DIMENSIONS as u64)
            .map(|dimension| ((stamp * 31 + dimension * 7) % 97) as f32 / 8.0)
            .collect();
        let Value::Object(payload) = json!({
            STAMP: stamp,
            "kind": if stamp.is_multiple_of(2) { "even" } else { "odd" },
        }) else {
            unreachable!("the macro makes an object");
        };
        Point { vector, payload }
    }
}

/// What a shard, or the server's collection, holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Points by id.
    pub points: BTreeMap<u64, Point>,
    /// Payload indexes: field name to type.
    pub indexes: BTreeMap<String, String>,
}

impl State {
    /// How `self` differs from `expected`, in a few lines; none if it does not.
    pub fn difference(&self, expected: &State) -> Option<String> {
        let mut lines = Vec::new();
        for (id, point) in &expected.points {
            match self.points.get(id) {
                None => lines.push(format!("point {id} is missing: {point:?}")),
                Some(found) if found != point => {
                    lines.push(format!("point {id} is {found:?}, expected {point:?}"));
                }
                Some(_) => {}
            }
        }
        for (id, point) in &self.points {
            if !expected.points.contains_key(id) {
                lines.push(format!("point {id} should not be there: {point:?}"));
            }
        }
        if self.indexes != expected.indexes {
            lines.push(format!(
                "payload indexes are {:?}, expected {:?}",
                self.indexes, expected.indexes
            ));
        }
        lines.truncate(8);
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// One write, as the component is asked for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// `shard.upsert`.
    Upsert(Vec<(u64, Point)>),
    /// `shard.delete`.
    Delete(Vec<u64>),
    /// `shard.request`, `POST /points/payload`, of points that exist.
    SetPayload(Vec<u64>, Map<String, Value>),
    /// `shard.batch`: upserts, then deletes, in one call that is all or nothing.
    Batch(Vec<(u64, Point)>, Vec<u64>),
    /// `shard.create-payload-index`.
    CreateIndex(String, String),
    /// `shard.delete-payload-index`.
    DeleteIndex(String),
}

impl Write {
    /// Does to `state` what the write does to a shard.
    pub fn apply(&self, state: &mut State) {
        match self {
            Write::Upsert(points) => state.points.extend(points.iter().cloned()),
            Write::Delete(ids) => state.points.retain(|id, _| !ids.contains(id)),
            Write::SetPayload(ids, payload) => {
                for id in ids {
                    if let Some(point) = state.points.get_mut(id) {
                        point.payload.extend(payload.clone());
                    }
                }
            }
            Write::Batch(points, ids) => {
                state.points.extend(points.iter().cloned());
                state.points.retain(|id, _| !ids.contains(id));
            }
            Write::CreateIndex(field, schema) => {
                state.indexes.insert(field.clone(), schema.clone());
            }
            Write::DeleteIndex(field) => {
                state.indexes.remove(field);
            }
        }
    }

    /// The points that it upserts, by stamp.
    pub fn stamps(&self) -> Vec<(u64, u64)> {
        match self {
            Write::Upsert(points) | Write::Batch(points, _) => points
                .iter()
                .filter_map(|(id, point)| Some((*id, point.payload.get(STAMP)?.as_u64()?)))
                .collect(),
            _ => Vec::new(),
        }
    }
}
