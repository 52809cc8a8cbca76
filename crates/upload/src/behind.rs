//! What the queue itself deletes behind an operation.
//!
//! A request of several operations may be applied, as a whole or up to one that is refused, and yet
//! be sent again. A change to a point then meets the deletion that stands behind it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::answer::Request;

/// Ids that a request deletes, as text.
pub(crate) fn deleted(request: &Request) -> BTreeSet<String> {
    elements(request)
        .iter()
        .filter_map(|element| element.pointer("/delete/points")?.as_array())
        .flatten()
        .map(text)
        .collect()
}

/// The id that a refusal of Qdrant names: "Not found: No point with id 7 found".
pub(crate) fn missing(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("No point with id ")?;
    rest.split_whitespace().next()
}

/// The question whether the points of a request are there, those in `without` left out; none if
/// there are no others.
pub(crate) fn question(request: &Request, without: &BTreeSet<String>) -> Option<(Request, usize)> {
    let elements = elements(request);
    let arguments = elements.first()?.as_object()?.values().next()?;
    let ids: Vec<&Value> = arguments
        .get("points")?
        .as_array()?
        .iter()
        .filter(|id| !without.contains(&text(id)))
        .collect();
    let body = serde_json::json!({"ids": ids, "with_payload": false, "with_vector": false});
    let count = ids.len();
    (count > 0).then(|| (Request::new("POST", "/points", body.to_string()), count))
}

fn elements(request: &Request) -> Vec<Value> {
    let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
    match body.get("operations") {
        Some(Value::Array(operations)) => operations.clone(),
        _ => Vec::new(),
    }
}

fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_or_text() {
        let uuid = "550e8400-e29b-41d4-a716-446655440000";
        let body = serde_json::json!({"operations": [
            {"set_payload": {"payload": {}, "points": [1, uuid, 3]}},
            {"delete": {"points": [1, uuid]}},
            {"upsert": {"points": [{"id": 9, "vector": [1]}]}},
        ]});
        let request = Request::new("POST", "/points/batch", body.to_string());
        let deleted = deleted(&request);
        assert_eq!(deleted, BTreeSet::from(["1".to_owned(), uuid.to_owned()]));
        let words = format!("Not found: No point with id {uuid} found");
        assert_eq!(missing(&words), Some(uuid));
        assert_eq!(missing("Not found: Shard 1"), None);
        let (question, count) = question(&request, &deleted).unwrap();
        assert!(count == 1 && question.body.contains("[3]"));
    }
}
