//! Points, their ids and vectors, as they cross this crate's boundary.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use crate::error::{Error, Result};

/// A JSON object: a point's payload.
pub type Payload = Map<String, Value>;

/// Vectors by name; the empty name is the collection's default vector.
pub type Vectors = BTreeMap<String, Vector>;

/// Identifies a point in a collection. Numbers sort before UUIDs, as the engine sorts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PointId {
    /// An unsigned integer.
    Num(u64),
    /// A UUID; parsed from any form that Qdrant accepts, shown hyphenated.
    Uuid(Uuid),
}

/// One vector of a point.
#[derive(Debug, Clone, PartialEq)]
pub enum Vector {
    /// As many values as the vector's configured size.
    Dense(Vec<f32>),
    /// `values[n]` is the weight of dimension `indices[n]`.
    Sparse {
        /// Dimensions, unique.
        indices: Vec<u32>,
        /// Weights, as many as `indices`.
        values: Vec<f32>,
    },
    /// A multivector: one or more rows, each of the configured size.
    Multi(Vec<Vec<f32>>),
}

/// A point to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Its id.
    pub id: PointId,
    /// Its vectors; names that are left out are absent from the point.
    pub vectors: Vectors,
    /// Its payload; none is the same as an empty one.
    pub payload: Option<Payload>,
}

/// A stored point, with what the request selected of it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPoint {
    /// Its id.
    pub id: PointId,
    /// The vectors that were selected; cosine vectors come back normalized.
    pub vectors: Vectors,
    /// The payload as far as it was selected.
    pub payload: Option<Payload>,
}

/// A search result.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredPoint {
    /// Its id.
    pub id: PointId,
    /// Number of the engine operation that last changed the point.
    pub version: u64,
    /// Similarity or distance, as the vector's distance function defines it.
    pub score: f32,
    /// The vectors that were selected.
    pub vectors: Vectors,
    /// The payload as far as it was selected.
    pub payload: Option<Payload>,
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(num) => num.fmt(f),
            Self::Uuid(uuid) => uuid.hyphenated().fmt(f),
        }
    }
}

impl FromStr for PointId {
    type Err = Error;

    /// Reads an id as it stands in a path: digits, or a UUID.
    fn from_str(text: &str) -> Result<Self> {
        if let Ok(num) = text.parse() {
            return Ok(Self::Num(num));
        }
        Self::parse_uuid(text).ok_or_else(|| Error::invalid("", bad_id(text)))
    }
}

impl PointId {
    /// Reads a UUID in any form that Qdrant accepts (hyphenated, simple, URN, braced).
    pub fn parse_uuid(text: &str) -> Option<Self> {
        Uuid::parse_str(text).ok().map(Self::Uuid)
    }

    /// The REST form: a number, or a hyphenated UUID string.
    pub fn to_json(self) -> Value {
        match self {
            Self::Num(num) => Value::Number(num.into()),
            Self::Uuid(uuid) => Value::String(uuid.hyphenated().to_string()),
        }
    }
}

/// The server's words for an id that is neither kind.
pub(crate) fn bad_id(shown: &str) -> String {
    format!(
        "value {shown} is not a valid point ID, valid values are either an unsigned integer or a UUID"
    )
}

impl Serialize for PointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Num(num) => serializer.serialize_u64(*num),
            Self::Uuid(uuid) => serializer.collect_str(&uuid.hyphenated()),
        }
    }
}

impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(num) if num.is_u64() => Ok(Self::Num(num.as_u64().unwrap_or_default())),
            Value::String(text) => Self::parse_uuid(&text)
                .ok_or_else(|| serde::de::Error::custom(bad_id(&format!("\"{text}\"")))),
            other => Err(serde::de::Error::custom(bad_id(&other.to_string()))),
        }
    }
}

impl Vector {
    /// How many numbers it is made of.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Dense(values) => values.len(),
            Self::Sparse { indices, values } => indices.len() + values.len(),
            Self::Multi(rows) => rows.iter().map(Vec::len).sum(),
        }
    }

    /// The REST form of the vector.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Dense(values) => floats_to_json(values),
            Self::Sparse { indices, values } => {
                let mut map = Map::new();
                map.insert("indices".to_owned(), indices.as_slice().into());
                map.insert("values".to_owned(), floats_to_json(values));
                Value::Object(map)
            }
            Self::Multi(rows) => rows.iter().map(|row| floats_to_json(row)).collect(),
        }
    }
}

/// Something in its REST form, for whoever writes it as text at once: a float gets as few digits as
/// tell it from its neighbours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsRest<'a, T>(pub(crate) &'a T);

impl Serialize for AsRest<'_, Vector> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Vector::Dense(values) => values.serialize(serializer),
            Vector::Multi(rows) => rows.serialize(serializer),
            Vector::Sparse { indices, values } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("indices", indices)?;
                map.serialize_entry("values", values)?;
                map.end()
            }
        }
    }
}

/// The bare vector when there is only the default one, else an object by name.
impl Serialize for AsRest<'_, Vectors> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.first_key_value() {
            // A bare sparse vector would be read as a map of names.
            Some((name, vector))
                if name.is_empty()
                    && self.0.len() == 1
                    && !matches!(vector, Vector::Sparse { .. }) =>
            {
                AsRest(vector).serialize(serializer)
            }
            _ => serializer.collect_map(self.0.iter().map(|(name, it)| (name, AsRest(it)))),
        }
    }
}

/// One element of `points` in `PUT /points`.
impl Serialize for AsRest<'_, Point> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Point {
            id,
            vectors,
            payload,
        } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", id)?;
        map.serialize_entry("vector", &AsRest(vectors))?;
        if let Some(payload) = payload {
            map.serialize_entry("payload", payload)?;
        }
        map.end()
    }
}

fn floats_to_json(values: &[f32]) -> Value {
    values.iter().copied().map(float_to_json).collect()
}

/// A float as JSON with as few digits as tell it from its f32 neighbours, as the server prints
/// it; converting to f64 alone would print 0.1 as 0.10000000149011612.
pub(crate) fn float_to_json(value: f32) -> Value {
    let exact = f64::from(value);
    let short = value
        .to_string()
        .parse::<f64>()
        .ok()
        .filter(|short| *short as f32 == value)
        .unwrap_or(exact);
    Number::from_f64(short).map_or(Value::Null, Value::Number)
}

impl From<PointId> for qdrant_edge::PointId {
    fn from(id: PointId) -> Self {
        match id {
            PointId::Num(num) => Self::NumId(num),
            PointId::Uuid(uuid) => Self::Uuid(uuid),
        }
    }
}

impl From<qdrant_edge::PointId> for PointId {
    fn from(id: qdrant_edge::PointId) -> Self {
        match id {
            qdrant_edge::PointId::NumId(num) => Self::Num(num),
            qdrant_edge::PointId::Uuid(uuid) => Self::Uuid(uuid),
        }
    }
}
