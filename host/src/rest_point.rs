//! Points in the form that Qdrant's REST API has them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::json_words::json_error;
use crate::types::{NamedVector, Point, PointId, SparseVector, Vector};

/// A REST `PointStruct`.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a point, as {\"id\": 1, \"vector\": [0.1, 0.2], \"payload\": {}}"
)]
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
    /// Errors: [`Error::InvalidInput`] names the field (`vector.image[3]`); where the text is not as it
    /// should be, the message ends with the place in `json`: ` at line 1 column 20`.
    pub fn from_json(json: &str) -> Result<Point> {
        let reader = Reader { text: json };
        let point: RestPoint<'_> = reader.parse("", json)?;
        let payload = point.payload.map(RawValue::get);
        if let Some(payload) = payload
            && !payload.starts_with('{')
        {
            return Err(Error::invalid("payload", "must be an object"));
        }
        Ok(Point {
            id: point_id(point.id.get())?,
            vectors: reader.vectors(point.vector.get())?,
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
            format!("`{json}` is no point id; expected an unsigned integer or a UUID"),
        )),
    }
}

/// Reads parts of a text, and knows where in it they are.
struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    fn vectors(&self, json: &'a str) -> Result<Vec<NamedVector>> {
        if !json.starts_with('{') {
            return Ok(vec![NamedVector {
                name: String::new(),
                vector: self.vector("vector", json)?,
            }]);
        }
        let named: BTreeMap<String, &RawValue> = self.parse("vector", json)?;
        named
            .into_iter()
            .map(|(name, json)| {
                let vector = self.vector(&format!("vector.{name}"), json.get())?;
                Ok(NamedVector { name, vector })
            })
            .collect()
    }

    fn vector(&self, field: &str, json: &'a str) -> Result<Vector> {
        let Some(list) = json.strip_prefix('[') else {
            if json.starts_with('{') {
                let RestSparseVector { indices, values } = self.parse(field, json)?;
                return Ok(Vector::Sparse(SparseVector { indices, values }));
            }
            return Err(Error::invalid(
                field,
                "must be a list of numbers, a list of such lists, or {\"indices\", \"values\"}",
            ));
        };
        if list.trim_start().starts_with('[') {
            return Ok(Vector::Multi(self.parse(field, json)?));
        }
        Ok(Vector::Dense(self.parse(field, json)?))
    }

    /// `json` is a part of the text; what is wrong in it is blamed on a path that begins with `field`.
    fn parse<T: Deserialize<'a>>(&self, field: &str, json: &'a str) -> Result<T> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            let field = match path.as_str() {
                "." | "?" => field.to_owned(),
                path if field.is_empty() || path.starts_with('[') => format!("{field}{path}"),
                path => format!("{field}.{path}"),
            };
            Error::invalid(field, self.placed(json, error.inner()))
        })?;
        deserializer
            .end()
            .map_err(|error| Error::invalid(field, self.placed(json, &error)))?;
        Ok(value)
    }

    /// The error's message with its place in the whole text.
    fn placed(&self, part: &str, error: &serde_json::Error) -> String {
        let message = json_error(part, error);
        if error.line() == 0 {
            return message;
        }
        // A slice of the text: their distance is its place.
        let at = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let before = self.text.get(..at).unwrap_or_default();
        let lines = before.matches('\n').count();
        let column = match (error.line(), before.rfind('\n')) {
            (1, Some(newline)) => error.column() + at - newline - 1,
            (1, None) => error.column() + at,
            _ => error.column(),
        };
        format!("{message} at line {} column {column}", error.line() + lines)
    }
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
            (r#"{"id": 1, "vector": [1], "vectro": 1}"#, "vectro"),
            (r#"{"id": -1, "vector": [1]}"#, "id"),
            (r#"{"id": 1.5, "vector": [1]}"#, "id"),
            (r#"{"id": [1], "vector": [1]}"#, "id"),
            (r#"{"id": 1, "vector": "text"}"#, "vector"),
            (r#"{"id": 1, "vector": [1, null]}"#, "vector[1]"),
            (r#"{"id": 1, "vector": [[1], [2, "x"]]}"#, "vector[1][1]"),
            (r#"{"id": 1, "vector": {"a": [1, "b"]}}"#, "vector.a[1]"),
            (
                r#"{"id": 1, "vector": {"a": {"indices": [1]}}}"#,
                "vector.a",
            ),
            (
                r#"{"id": 1, "vector": {"a": {"indices": [-1], "values": [1]}}}"#,
                "vector.a.indices[0]",
            ),
            (r#"{"id": 1, "vector": [1], "payload": [1]}"#, "payload"),
        ] {
            match Point::from_json(json) {
                Err(Error::InvalidInput { field, .. }) => assert_eq!(field, at, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
    }

    #[test]
    fn errors_say_where_in_the_whole_text() {
        let text = "{\"id\": 1,\n \"vector\": {\"a\": [1],\n  \"b\": [1, null]}}";
        let error = Point::from_json(text).unwrap_err().to_string();
        assert!(error.starts_with("vector.b[1]: "), "{error}");
        assert!(error.ends_with(" at line 3 column 15"), "{error}");
        let error = Point::from_json(r#"{"id": 1, "vector": [1, nul]}"#).unwrap_err();
        assert!(error.to_string().contains(" at line 1 column "), "{error}");
    }
}
