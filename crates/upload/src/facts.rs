//! Looking after a write that the server took without saying that it is applied: what would be true
//! once it is, as facts that a read can check.
//!
//! A reading is the last resort, for a server that never says `completed`. It compares payloads
//! exactly and vectors by direction and length, since a server may store them normalized or with
//! fewer bits.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::answer::Request;
use crate::collection::ServerCollection;

/// How far the length of a stored vector, and its direction from the one that was sent (as one minus
/// the cosine), may be off.
const VECTOR_TOLERANCE: f64 = 0.01;

/// What is true on the server once a request has been applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// Of points, by the text of their ids.
    Points(BTreeMap<String, PointFact>),
    /// Of the collection's description: the payload field has an index, of this type where the
    /// request names one; or has none.
    Index {
        /// The field.
        field: String,
        /// Whether it has an index.
        there: bool,
        /// The type of the index.
        kind: Option<String>,
    },
    /// Of the collection's description: it has the named vector, or has it not.
    Vector {
        /// The name.
        name: String,
        /// Whether it has it.
        there: bool,
    },
}

/// What is true of one point.
#[derive(Clone, Debug, PartialEq)]
pub struct PointFact {
    id: Value,
    /// Changed only if the server has it.
    if_there: bool,
    /// None: it is gone.
    state: Option<PointState>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct PointState {
    /// The payload is this and nothing else.
    whole: bool,
    payload: Map<String, Value>,
    lacks: BTreeSet<String>,
    vectors: Map<String, Value>,
}

impl Facts {
    /// The facts of a request; none where reading cannot tell, as with a conditional write.
    pub fn of(request: &Request) -> Option<Self> {
        let path = request.path.split('?').next().unwrap_or_default();
        let body = || serde_json::from_str::<Value>(&request.body).ok();
        // A name that is escaped in the path is left alone.
        let name = |of: &str| (!of.contains('%')).then(|| of.to_owned());
        match (request.method.as_str(), path) {
            ("POST", "/points/batch") => Self::of_batch(&body()?),
            ("PUT", "/index") => {
                let body = body()?;
                let schema = body.get("field_schema").unwrap_or(&Value::Null);
                let kind = schema.get("type").unwrap_or(schema).as_str();
                Some(Self::Index {
                    field: body.get("field_name")?.as_str()?.to_owned(),
                    there: true,
                    kind: kind.map(str::to_owned),
                })
            }
            (method, path) => {
                if let Some(field) = path.strip_prefix("/index/") {
                    return (method == "DELETE").then_some(Self::Index {
                        field: name(field)?,
                        there: false,
                        kind: None,
                    });
                }
                let there = match method {
                    "PUT" => true,
                    "DELETE" => false,
                    _ => return None,
                };
                let name = name(path.strip_prefix("/vectors/")?)?;
                Some(Self::Vector { name, there })
            }
        }
    }

    fn of_batch(body: &Value) -> Option<Self> {
        let mut points: BTreeMap<String, PointFact> = BTreeMap::new();
        for operation in body.get("operations")?.as_array()? {
            let (kind, arguments) = operation.as_object()?.iter().next()?;
            let present = arguments.pointer("/filter/must/0/has_id");
            for point in present.or(arguments.get("points"))?.as_array()? {
                let id = point.get("id").unwrap_or(point).clone();
                let key = id.to_string();
                let before = points.remove(&key);
                let if_there = present.is_some() && before.as_ref().is_none_or(|it| it.if_there);
                let before = before.and_then(|fact| fact.state);
                let state = after(kind, arguments, point, before.unwrap_or_default())?;
                let fact = PointFact {
                    id,
                    if_there,
                    state,
                };
                points.insert(key, fact);
            }
        }
        (!points.is_empty()).then_some(Self::Points(points))
    }

    /// The request whose answer tells.
    pub fn question(&self) -> Request {
        match self {
            Self::Points(points) => {
                let ids: Vec<&Value> = points.values().map(|fact| &fact.id).collect();
                let body = json!({"ids": ids, "with_payload": true, "with_vector": true});
                Request::new("POST", "/points", body.to_string())
            }
            Self::Index { .. } | Self::Vector { .. } => Request::new("GET", "", ""),
        }
    }

    /// Whether the `result` of the question shows that the request has been applied.
    pub fn hold(&self, result: &Value) -> bool {
        match self {
            Self::Points(facts) => {
                let Some(found) = result.as_array() else {
                    return false;
                };
                let found: BTreeMap<String, &Value> = found
                    .iter()
                    .filter_map(|point| Some((point.get("id")?.to_string(), point)))
                    .collect();
                facts
                    .iter()
                    .all(|(key, fact)| match (&fact.state, found.get(key)) {
                        (None, point) => point.is_none(),
                        (Some(state), Some(point)) => state.is_of(point),
                        (Some(_), None) => fact.if_there,
                    })
            }
            Self::Index { field, there, kind } => {
                let index = result.get("payload_schema").and_then(|it| it.get(field));
                let has = index.and_then(|index| index.get("data_type"));
                ServerCollection::read(result).is_ok_and(|it| it.indexes.contains(field) == *there)
                    && (kind.is_none() || has.and_then(Value::as_str) == kind.as_deref())
            }
            Self::Vector { name, there } => {
                ServerCollection::read(result).is_ok_and(|it| it.has_vector(name) == *there)
            }
        }
    }
}

impl PointState {
    fn is_of(&self, point: &Value) -> bool {
        let none = Map::new();
        let payload = point
            .get("payload")
            .and_then(Value::as_object)
            .unwrap_or(&none);
        let has = |(key, value): (&String, &Value)| payload.get(key) == Some(value);
        self.payload.iter().all(has)
            && (!self.whole || payload.len() == self.payload.len())
            && !self.lacks.iter().any(|key| payload.contains_key(key))
            && self.vectors.iter().all(|(name, sent)| {
                let vectors = point.get("vector").unwrap_or(&Value::Null);
                let stored = if name.is_empty() && !vectors.is_object() {
                    Some(vectors)
                } else {
                    vectors.get(name)
                };
                stored.is_some_and(|stored| alike(sent, stored))
            })
    }
}

/// What is true of a point after one more operation: `Some(None)`: it is gone; none: reading cannot
/// tell.
fn after(
    kind: &str,
    arguments: &Value,
    point: &Value,
    mut state: PointState,
) -> Option<Option<PointState>> {
    if arguments.get("update_filter").is_some()
        || arguments.get("update_mode").is_some()
        || arguments.get("key").is_some()
    {
        return None;
    }
    let payload = |of: &Value| of.get("payload").and_then(Value::as_object).cloned();
    match kind {
        "delete" => return Some(None),
        "upsert" => {
            state = PointState {
                whole: true,
                payload: payload(point).unwrap_or_default(),
                lacks: BTreeSet::new(),
                vectors: vectors_of(point),
            };
        }
        "overwrite_payload" => {
            (state.whole, state.payload) = (true, payload(arguments)?);
            state.lacks.clear();
        }
        "set_payload" => {
            for (key, value) in payload(arguments)? {
                // The engine merges null in ways that depend on what is there.
                if value.is_null() {
                    return None;
                }
                state.lacks.remove(&key);
                state.payload.insert(key, value);
            }
        }
        "delete_payload" => {
            for key in arguments.get("keys")?.as_array()? {
                let key = key.as_str()?;
                // A path into an object.
                if key.contains(['.', '[', '"']) {
                    return None;
                }
                state.payload.remove(key);
                state.lacks.insert(key.to_owned());
            }
        }
        "clear_payload" => {
            (state.whole, state.payload) = (true, Map::new());
            state.lacks.clear();
        }
        "update_vectors" => state.vectors.extend(vectors_of(point)),
        "delete_vectors" => {
            for name in arguments.get("vector")?.as_array()? {
                state.vectors.remove(name.as_str()?);
            }
        }
        _ => return None,
    }
    Some(Some(state))
}

fn vectors_of(point: &Value) -> Map<String, Value> {
    match point.get("vector") {
        Some(Value::Object(named)) if !named.contains_key("indices") => named.clone(),
        Some(Value::Null) | None => Map::new(),
        Some(vector) => Map::from_iter([(String::new(), vector.clone())]),
    }
}

/// Whether a stored vector may be the one that was sent.
fn alike(sent: &Value, stored: &Value) -> bool {
    match (sent, stored) {
        (Value::Array(rows), Value::Array(stored_rows))
            if rows.first().is_some_and(Value::is_array) =>
        {
            rows.len() == stored_rows.len()
                && rows.iter().zip(stored_rows).all(|(a, b)| alike(a, b))
        }
        (Value::Array(_), Value::Array(_)) => {
            let (Some(a), Some(b)) = (numbers(sent), numbers(stored)) else {
                return false;
            };
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let (long_a, long_b) = (dot(&a, &a).sqrt(), dot(&b, &b).sqrt());
            if a.len() != b.len() {
                return false;
            }
            if long_a == 0.0 || long_b == 0.0 {
                return long_a == long_b;
            }
            let same_length = (long_a / long_b - 1.0).abs() < VECTOR_TOLERANCE;
            let normalized = (long_b - 1.0).abs() < VECTOR_TOLERANCE;
            1.0 - dot(&a, &b) / (long_a * long_b) < VECTOR_TOLERANCE && (same_length || normalized)
        }
        // Sparse: indices in any order.
        (Value::Object(a), Value::Object(b)) => {
            let indices = |of: &Map<String, Value>| {
                let mut indices: Vec<u64> = numbers(of.get("indices")?)?
                    .into_iter()
                    .map(|index| index as u64)
                    .collect();
                indices.sort_unstable();
                Some(indices)
            };
            indices(a).is_some() && indices(a) == indices(b)
        }
        _ => false,
    }
}

fn numbers(of: &Value) -> Option<Vec<f64>> {
    of.as_array()?.iter().map(Value::as_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(operations: Value) -> Option<Facts> {
        let body = json!({ "operations": operations }).to_string();
        Facts::of(&Request::new("POST", "/points/batch?wait=true", body))
    }

    #[test]
    fn the_last_of_several_writes_counts() {
        let facts = batch(json!([
            {"upsert": {"points": [{"id": 1, "vector": [3, 4], "payload": {"a": 1}}]}},
            {"set_payload": {"points": [1], "payload": {"b": 2}}},
            {"delete": {"points": [2, "00000000-0000-0000-0000-000000000001"]}},
        ]))
        .unwrap();
        assert!(facts.question().body.contains("00000000-0000"));
        let point =
            |vector: Value, payload: Value| json!({"id": 1, "vector": vector, "payload": payload});
        let both = json!({"b": 2, "a": 1});
        assert!(facts.hold(&json!([point(json!([3, 4]), both.clone())])));
        assert!(facts.hold(&json!([point(json!([0.6, 0.8]), both.clone())])));
        // The payload of an earlier write, its vector, or a point that should be gone.
        assert!(!facts.hold(&json!([point(json!([3, 4]), json!({"a": 1}))])));
        assert!(!facts.hold(&json!([point(json!([4, 3]), both.clone())])));
        assert!(!facts.hold(&json!([point(json!([3, 4]), both), {"id": 2}])));
        assert!(!facts.hold(&json!([])));
        assert!(!facts.hold(&json!(true)));
    }

    #[test]
    fn changes_of_payloads_and_vectors_are_facts_of_their_own() {
        let facts = batch(json!([
            {"delete_payload": {"points": [1], "keys": ["old"]}},
            {"update_vectors": {"points": [{"id": 1, "vector": {"v": [1, 0]}}]}},
        ]))
        .unwrap();
        let point = json!({"id": 1, "vector": {"v": [1, 0], "w": [9]}, "payload": {"x": 1}});
        assert!(facts.hold(&json!([point])));
        let point = json!({"id": 1, "vector": {"v": [1, 0]}, "payload": {"old": 1}});
        assert!(!facts.hold(&json!([point])));
        let point = json!({"id": 1, "vector": {"w": [1, 0]}, "payload": {}});
        assert!(!facts.hold(&json!([point])));
    }

    #[test]
    fn what_reading_cannot_tell_is_no_fact() {
        for operations in [
            json!([{"upsert": {"points": [{"id": 1, "vector": [1]}], "update_mode": "insert_only"}}]),
            json!([{"set_payload": {"points": [1], "payload": {"a": null}}}]),
            json!([{"delete_payload": {"points": [1], "keys": ["a.b"]}}]),
            json!([]),
        ] {
            assert_eq!(batch(operations.clone()), None, "{operations}");
        }
    }

    #[test]
    fn a_change_of_present_points_holds_without_the_missing_ones() {
        let facts = batch(json!([{"set_payload": {
            "payload": {"a": 1}, "filter": {"must": [{"has_id": [1, 2]}]}
        }}]))
        .unwrap();
        assert!(facts.hold(&json!([{"id": 2, "payload": {"a": 1}}])));
        assert!(!facts.hold(&json!([{"id": 2, "payload": {"a": 2}}])));
    }

    #[test]
    fn indexes_and_vectors_are_in_the_description() {
        let facts = |method: &str, path: &str, body: Value| {
            Facts::of(&Request::new(method, path, body.to_string())).unwrap()
        };
        let info = |vectors: Value, schema: Value| json!({"config": {"params": {"vectors": vectors}}, "payload_schema": schema});
        let with = info(
            json!({"v": {"size": 1, "distance": "Dot"}}),
            json!({"a": {"data_type": "keyword"}}),
        );
        let without = info(json!({}), json!({}));
        let any = json!({"field_name": "a"});
        let index = facts("PUT", "/index?wait=true", any);
        assert!(index.hold(&with) && !index.hold(&without));
        for (schema, holds) in [
            (json!("keyword"), true),
            (json!("integer"), false),
            (json!({"type": "keyword", "is_tenant": true}), true),
            (json!({"type": "uuid"}), false),
        ] {
            let body = json!({"field_name": "a", "field_schema": schema});
            assert_eq!(facts("PUT", "/index", body).hold(&with), holds, "{schema}");
        }
        let drop = facts("DELETE", "/index/a?wait=true", json!(null));
        assert!(!drop.hold(&with) && drop.hold(&without));
        let create = facts("PUT", "/vectors/v?wait=true", json!({}));
        assert!(create.hold(&with) && !create.hold(&without));
        let drop = facts("DELETE", "/vectors/v?wait=true", json!(null));
        assert!(!drop.hold(&with) && drop.hold(&without));
    }
}
