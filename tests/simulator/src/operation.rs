//! What a write request asks of the simulated server, and what that does to points.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::model::{Point, PointChange, State};

/// Points of a list that the server changes before it looks whether all of them were there.
const CHANGED_AT_ONCE: usize = 32;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) words: String,
    pub(super) retry_after: Option<u64>,
    /// Points that are not there.
    pub(super) missing: Vec<u64>,
}

impl Fault {
    pub(super) fn new(status: u16, words: impl Into<String>) -> Fault {
        Fault {
            status,
            words: words.into(),
            retry_after: None,
            missing: Vec::new(),
        }
    }

    fn format(what: &str) -> Fault {
        Fault::new(400, format!("Format error in JSON body: {what}"))
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operation {
    Upsert(Vec<(Id, Point)>),
    Delete(Selector),
    Change(Selector, PointChange),
    CreateIndex(String, String),
    DeleteIndex(String),
}

/// A number, or a UUID, of which there are no points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Id {
    Number(u64),
    Uuid(String),
}

impl Id {
    fn of(id: &Value) -> Result<Id, Fault> {
        match (id.as_u64(), id.as_str()) {
            (Some(number), _) => Ok(Id::Number(number)),
            (None, Some(text)) if text.len() == 36 => Ok(Id::Uuid(text.to_owned())),
            _ => Err(Fault::format(&format!(
                "value {id} is not a valid point ID, valid values are either an unsigned integer \
                 or a UUID"
            ))),
        }
    }

    fn shown(&self) -> String {
        match self {
            Id::Number(number) => number.to_string(),
            Id::Uuid(text) => text.clone(),
        }
    }
}

/// Which points: those of a list, which have to be there to be changed, or those that a filter finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selector {
    Listed(Vec<Id>),
    Found(Vec<u64>),
}

/// The operations of a write request; none if it is not one.
pub(super) fn of_request(
    method: &str,
    path: &[&str],
    body: &Value,
) -> Option<Result<Vec<Operation>, Fault>> {
    let single = |name: &str| Some(of_points(name, body).map(|operation| vec![operation]));
    match (method, path) {
        ("POST", ["points", "batch"]) => Some(of_batch(body)),
        ("PUT", ["points"]) => single("upsert"),
        ("POST", ["points", "delete"]) => single("delete"),
        ("POST", ["points", "payload"]) => single("set_payload"),
        ("PUT", ["points", "payload"]) => single("overwrite_payload"),
        ("POST", ["points", "payload", "delete"]) => single("delete_payload"),
        ("POST", ["points", "payload", "clear"]) => single("clear_payload"),
        ("PUT", ["index"]) => Some(of_index(body).map(|operation| vec![operation])),
        ("DELETE", ["index", field]) => Some(Ok(vec![Operation::DeleteIndex((*field).to_owned())])),
        _ => None,
    }
}

fn of_batch(body: &Value) -> Result<Vec<Operation>, Fault> {
    body["operations"]
        .as_array()
        .ok_or_else(|| Fault::format("missing field `operations`"))?
        .iter()
        .map(|operation| {
            let (name, body) = operation
                .as_object()
                .filter(|operation| operation.len() == 1)
                .and_then(|operation| operation.iter().next())
                .ok_or_else(|| no_variant("UpdateOperation"))?;
            of_points(name, body)
        })
        .collect()
}

fn no_variant(of: &str) -> Fault {
    Fault::format(&format!(
        "data did not match any variant of untagged enum {of}"
    ))
}

fn of_index(body: &Value) -> Result<Operation, Fault> {
    let field = body["field_name"]
        .as_str()
        .ok_or_else(|| Fault::format("missing field `field_name`"))?;
    let schema = &body["field_schema"];
    let kind = schema["type"].as_str().or(schema.as_str());
    let kind = kind.ok_or_else(|| {
        Fault::new(
            400,
            "Bad request: Can't auto-detect field type, please specify `field_schema` in the \
             request",
        )
    })?;
    Ok(Operation::CreateIndex(field.to_owned(), kind.to_owned()))
}

fn of_points(name: &str, body: &Value) -> Result<Operation, Fault> {
    let object = |value: &Value| -> Result<Map<String, Value>, Fault> {
        value
            .as_object()
            .cloned()
            .ok_or_else(|| Fault::format("expected a map"))
    };
    Ok(match name {
        "upsert" => Operation::Upsert(points(body)?),
        "delete" => Operation::Delete(selector(body)?),
        "set_payload" => {
            Operation::Change(selector(body)?, PointChange::Set(object(&body["payload"])?))
        }
        "overwrite_payload" => Operation::Change(
            selector(body)?,
            PointChange::Overwrite(object(&body["payload"])?),
        ),
        "delete_payload" => {
            let keys = body["keys"].as_array().into_iter().flatten();
            let keys = keys.filter_map(|key| key.as_str().map(str::to_owned));
            Operation::Change(selector(body)?, PointChange::Remove(keys.collect()))
        }
        "clear_payload" => Operation::Change(selector(body)?, PointChange::Overwrite(Map::new())),
        _ => return Err(no_variant("UpdateOperation")),
    })
}

fn points(body: &Value) -> Result<Vec<(Id, Point)>, Fault> {
    body["points"]
        .as_array()
        .ok_or_else(|| Fault::format("Invalid PointInsertOperations format"))?
        .iter()
        .map(|point| {
            let id = Id::of(&point["id"])?;
            let vector = point["vector"].get("").unwrap_or(&point["vector"]);
            let vector: Vec<f32> =
                serde_json::from_value(vector.clone()).map_err(|_| no_variant("VectorStruct"))?;
            let payload = point["payload"].as_object().cloned().unwrap_or_default();
            Ok((id, Point { vector, payload }))
        })
        .collect()
}

fn selector(body: &Value) -> Result<Selector, Fault> {
    match (&body["points"], &body["filter"]) {
        (Value::Array(ids), _) => Ok(Selector::Listed(
            ids.iter().map(Id::of).collect::<Result<_, _>>()?,
        )),
        (_, filter @ Value::Object(_)) => ids_of_filter(filter)
            .map(Selector::Found)
            .ok_or_else(|| Fault::new(501, "the simulated server does not know that filter")),
        _ => Err(Fault::format(
            "Either list of point ids or filter must be provided",
        )),
    }
}

/// The ids that a filter of nothing but `has_id` lists.
pub(super) fn ids_of_filter(filter: &Value) -> Option<Vec<u64>> {
    let must = filter["must"].as_array()?;
    let [condition] = must.as_slice() else {
        return None;
    };
    let ids = condition["has_id"].as_array()?;
    Some(ids.iter().filter_map(Value::as_u64).collect())
}

impl Operation {
    /// How many points it lists.
    pub(super) fn points(&self) -> usize {
        match self {
            Operation::Upsert(points) => points.len(),
            Operation::Delete(selector) | Operation::Change(selector, _) => match selector {
                Selector::Listed(ids) => ids.len(),
                Selector::Found(ids) => ids.len(),
            },
            Operation::CreateIndex(..) | Operation::DeleteIndex(_) => 0,
        }
    }

    pub(super) fn names_no_point(&self) -> bool {
        match self {
            Operation::Delete(Selector::Found(_)) | Operation::Change(Selector::Found(_), _) => {
                false
            }
            operation => !operation.is_of_the_collection() && operation.points() == 0,
        }
    }

    pub(super) fn is_of_the_collection(&self) -> bool {
        matches!(self, Operation::CreateIndex(..) | Operation::DeleteIndex(_))
    }

    /// Whether it adds to what is stored.
    pub(super) fn stores(&self) -> bool {
        matches!(self, Operation::Upsert(_))
    }

    /// The first of these ids that it upserts.
    pub(super) fn upserts(&self, ids: &[u64]) -> Option<u64> {
        let Operation::Upsert(points) = self else {
            return None;
        };
        points.iter().find_map(|(id, _)| match id {
            Id::Number(id) => ids.contains(id).then_some(*id),
            Id::Uuid(_) => None,
        })
    }

    /// Does it, and notes what it did to points.
    pub(super) fn apply(
        &self,
        state: &mut State,
        effects: &mut Vec<(u64, PointChange)>,
    ) -> Result<(), Fault> {
        match self {
            Operation::Upsert(points) => {
                for (id, point) in points {
                    if let Id::Number(id) = id {
                        effect(
                            state,
                            *id,
                            PointChange::Upsert(Arc::new(point.clone())),
                            effects,
                        );
                    }
                }
            }
            Operation::Delete(Selector::Found(ids)) => {
                for id in ids.iter().filter(|id| state.points.contains_key(id)) {
                    effects.push((*id, PointChange::Delete));
                }
                state.points.retain(|id, _| !ids.contains(id));
            }
            Operation::Delete(Selector::Listed(ids)) => {
                for id in ids {
                    if let Id::Number(id) = id {
                        effect(state, *id, PointChange::Delete, effects);
                    }
                }
            }
            Operation::Change(Selector::Found(ids), change) => {
                for id in ids {
                    if state.points.contains_key(id) {
                        effect(state, *id, change.clone(), effects);
                    }
                }
            }
            Operation::Change(Selector::Listed(ids), change) => {
                for ids in ids.chunks(CHANGED_AT_ONCE) {
                    let mut missing = Vec::new();
                    for id in ids {
                        match id {
                            Id::Number(number) if state.points.contains_key(number) => {
                                effect(state, *number, change.clone(), effects);
                            }
                            id => missing.push(id),
                        }
                    }
                    if let Some(id) = missing.first() {
                        let words = format!("Not found: No point with id {} found", id.shown());
                        let numbers = missing.iter().filter_map(|id| match id {
                            Id::Number(number) => Some(*number),
                            Id::Uuid(_) => None,
                        });
                        return Err(Fault {
                            missing: numbers.collect(),
                            ..Fault::new(404, words)
                        });
                    }
                }
            }
            Operation::CreateIndex(field, schema) => {
                state.indexes.insert(field.clone(), schema.clone());
            }
            Operation::DeleteIndex(field) => {
                state.indexes.remove(field);
            }
        }
        Ok(())
    }
}

fn effect(state: &mut State, id: u64, effect: PointChange, effects: &mut Vec<(u64, PointChange)>) {
    effect.apply(&mut state.points, id);
    effects.push((id, effect));
}
