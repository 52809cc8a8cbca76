//! Points in the form that Qdrant's REST API has them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::types::{NamedVector, Point, PointId, SparseVector, Vector};

/// A REST `PointStruct`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestPoint<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    vector: &'a RawValue,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestSparseVector {
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Point {
    /// Reads a REST point: `{"id": 1, "vector": [0.1, 0.2], "payload": {"a": 1}}`, where `vector`
    /// may be a list of rows (multivector) or an object of named vectors, sparse ones among them.
    /// The payload's text is kept as it is. Whether the vectors fit the collection is for the
    /// shard to say.
    ///
    /// Errors: [`Error::InvalidInput`] names the field.
    pub fn from_json(json: &str) -> Result<Point> {
        let point: RestPoint<'_> = parse("", json)?;
        let payload = point.payload.map(RawValue::get);
        if let Some(payload) = payload
            && !payload.starts_with('{')
        {
            return Err(Error::invalid("payload", "must be an object"));
        }
        Ok(Point {
            id: point_id(point.id.get())?,
            vectors: vectors(point.vector.get())?,
            payload: payload.map(str::to_owned),
        })
    }
}

impl PointId {
    /// An id as people write it: digits, or else a UUID, whose form the shard checks.
    pub fn from_text(text: &str) -> PointId {
        match text.parse() {
            Ok(number) => PointId::Num(number),
            Err(_) => PointId::Uuid(text.to_owned()),
        }
    }
}

fn point_id(json: &str) -> Result<PointId> {
    if let Ok(number) = json.parse() {
        return Ok(PointId::Num(number));
    }
    match serde_json::from_str::<Cow<'_, str>>(json) {
        Ok(text) => Ok(PointId::Uuid(text.into_owned())),
        Err(_) => Err(Error::invalid(
            "id",
            format!("must be an unsigned integer or a UUID, not {json}"),
        )),
    }
}

fn vectors(json: &str) -> Result<Vec<NamedVector>> {
    if !json.starts_with('{') {
        return Ok(vec![NamedVector {
            name: String::new(),
            vector: vector("vector", json)?,
        }]);
    }
    let named: BTreeMap<String, &RawValue> = parse("vector", json)?;
    named
        .into_iter()
        .map(|(name, json)| {
            let vector = vector(&format!("vector.{name}"), json.get())?;
            Ok(NamedVector { name, vector })
        })
        .collect()
}

fn vector(field: &str, json: &str) -> Result<Vector> {
    let Some(list) = json.strip_prefix('[') else {
        if json.starts_with('{') {
            let RestSparseVector { indices, values } = parse(field, json)?;
            return Ok(Vector::Sparse(SparseVector { indices, values }));
        }
        return Err(Error::invalid(
            field,
            "must be a list of numbers, a list of such lists, or {\"indices\", \"values\"}",
        ));
    };
    if list.trim_start().starts_with('[') {
        return Ok(Vector::Multi(parse(field, json)?));
    }
    Ok(Vector::Dense(parse(field, json)?))
}

fn parse<'a, T: Deserialize<'a>>(field: &str, json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::invalid(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_vector() {
        let point = Point::from_json(
            r#"{"id": 7, "vector": {"d": [1, 0.5], "m": [ [1, 2], [3, 4] ],
                "s": {"indices": [1, 9], "values": [0.5, 2]}}, "payload": {"b": 1, "a": [1e2]}}"#,
        )
        .unwrap();
        assert_eq!(point.id, PointId::Num(7));
        let kinds: Vec<(&str, &Vector)> = point
            .vectors
            .iter()
            .map(|named| (named.name.as_str(), &named.vector))
            .collect();
        assert_eq!(
            kinds,
            [
                ("d", &Vector::Dense(vec![1.0, 0.5])),
                ("m", &Vector::Multi(vec![vec![1.0, 2.0], vec![3.0, 4.0]])),
                (
                    "s",
                    &Vector::Sparse(SparseVector {
                        indices: vec![1, 9],
                        values: vec![0.5, 2.0]
                    })
                ),
            ]
        );
        assert_eq!(point.payload.as_deref(), Some(r#"{"b": 1, "a": [1e2]}"#));

        let point = Point::from_json(r#"{"id": "x", "vector": [1], "payload": null}"#).unwrap();
        assert_eq!(point.id, PointId::Uuid("x".into()));
        assert_eq!(point.vectors[0].name, "");
        assert_eq!(point.payload, None);
    }

    #[test]
    fn errors_name_the_field() {
        for (json, at) in [
            ("", ""),
            ("[]", ""),
            (r#"{"id": 1}"#, ""),
            (r#"{"id": 1, "vector": [1], "vectro": 1}"#, ""),
            (r#"{"id": -1, "vector": [1]}"#, "id"),
            (r#"{"id": 1.5, "vector": [1]}"#, "id"),
            (r#"{"id": [1], "vector": [1]}"#, "id"),
            (r#"{"id": 1, "vector": "text"}"#, "vector"),
            (r#"{"id": 1, "vector": [1, null]}"#, "vector"),
            (r#"{"id": 1, "vector": {"a": [1, "b"]}}"#, "vector.a"),
            (
                r#"{"id": 1, "vector": {"a": {"indices": [1]}}}"#,
                "vector.a",
            ),
            (r#"{"id": 1, "vector": [1], "payload": [1]}"#, "payload"),
        ] {
            match Point::from_json(json) {
                Err(Error::InvalidInput { field, .. }) => assert_eq!(field, at, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
    }
}
