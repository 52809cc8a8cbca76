//! A cursor over parsed JSON that knows its path, so that every complaint names its field.

use std::fmt;

use qdrant_edge::JsonPath;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::point::{PointId, bad_id};

/// How deep filters, prefetches and formulas may nest; a WebAssembly stack is small.
pub(crate) const MAX_NESTING: usize = 32;

/// Where in the document a node stands.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Key(Path::Root(""), key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// One value of the document and its path.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value,
    path: Path<'a>,
}

impl<'a> Node<'a> {
    /// The top of a document; `name` is empty for a request body.
    pub(crate) fn root(name: &'a str, value: &'a Value) -> Self {
        Self {
            value,
            path: Path::Root(name),
        }
    }

    pub(crate) fn path(&self) -> String {
        self.path.to_string()
    }

    /// An error about this node.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::invalid(self.path(), message)
    }

    fn expected(&self, what: &str) -> Error {
        self.error(format!("expected {what}, got {}", kind(self.value)))
    }

    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value
            .as_object()
            .ok_or_else(|| self.expected("an object"))
    }

    /// The object, once it is sure that it has no keys but `known`.
    pub(crate) fn fields(&self, known: &[&str]) -> Result<&'a Map<String, Value>> {
        let map = self.object()?;
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(map),
            Some(unknown) => Err(self.unknown(unknown, known)),
        }
    }

    /// The error for a key that is not one of `known`.
    pub(crate) fn unknown(&self, key: &str, known: &[&str]) -> Error {
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let field = Path::Key(&self.path, key).to_string();
        Error::invalid(
            field,
            format!(
                "unknown field `{key}`, expected one of {}",
                known.join(", ")
            ),
        )
    }

    /// The member `key`, whatever it is.
    pub(crate) fn child<'c>(&'c self, key: &'c str, value: &'c Value) -> Node<'c> {
        Node {
            value,
            path: Path::Key(&self.path, key),
        }
    }

    /// The member `key`, unless it is missing or null.
    pub(crate) fn get<'c>(&'c self, key: &'c str) -> Option<Node<'c>> {
        let value = self.value.as_object()?.get(key)?;
        (!value.is_null()).then(|| self.child(key, value))
    }

    /// The member `key`, which must be there.
    pub(crate) fn required<'c>(&'c self, key: &'c str) -> Result<Node<'c>> {
        self.get(key).ok_or_else(|| {
            Error::invalid(
                Path::Key(&self.path, key).to_string(),
                format!("missing field `{key}`"),
            )
        })
    }

    /// The members of an object, with their nodes.
    pub(crate) fn entries<'c>(&'c self) -> Result<impl Iterator<Item = (&'c str, Node<'c>)>> {
        let map = self.object()?;
        Ok(map
            .iter()
            .map(move |(key, value)| (key.as_str(), self.child(key, value))))
    }

    /// The elements of an array.
    pub(crate) fn items<'c>(&'c self) -> Result<impl ExactSizeIterator<Item = Node<'c>>> {
        let list = self
            .value
            .as_array()
            .ok_or_else(|| self.expected("an array"))?;
        Ok(list.iter().enumerate().map(move |(index, value)| Node {
            value,
            path: Path::Index(&self.path, index),
        }))
    }

    pub(crate) fn string(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    pub(crate) fn bool(&self) -> Result<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.expected("a boolean"))
    }

    /// An integer of at least `min` that fits the machine's `usize`.
    pub(crate) fn size(&self, min: usize) -> Result<usize> {
        let number = self
            .value
            .as_u64()
            .ok_or_else(|| self.expected("an unsigned integer"))?;
        let size = usize::try_from(number)
            .map_err(|_| self.error(format!("value {number} is too large for this machine")))?;
        if size < min {
            return Err(self.error(format!("value {size} invalid, must be {min} or larger")));
        }
        Ok(size)
    }

    /// A number that is finite as an f32.
    pub(crate) fn f32(&self) -> Result<f32> {
        finite_f32(self.value).ok_or_else(|| self.expected("a finite 32-bit number"))
    }

    /// As the engine's own type reads it; its complaint is put to this path.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(self.value).map_err(|error| self.error(error.to_string()))
    }

    pub(crate) fn point_id(&self) -> Result<PointId> {
        match self.value {
            Value::Number(number) => number.as_u64().map(PointId::Num),
            Value::String(text) => PointId::parse_uuid(text),
            _ => None,
        }
        .ok_or_else(|| self.error(bad_id(&abridged(self.value))))
    }

    pub(crate) fn point_ids(&self) -> Result<Vec<PointId>> {
        self.items()?.map(|item| item.point_id()).collect()
    }

    pub(crate) fn strings(&self) -> Result<Vec<String>> {
        self.items()?
            .map(|item| item.string().map(str::to_owned))
            .collect()
    }

    /// A path into payloads, e.g. `a.b[0]`.
    pub(crate) fn json_path(&self) -> Result<JsonPath> {
        parse_json_path(self.string()?).ok_or_else(|| self.error("not a valid payload path"))
    }
}

pub(crate) fn parse_json_path(text: &str) -> Option<JsonPath> {
    text.parse().ok()
}

/// A JSON number as an f32, if it is finite as one.
pub(crate) fn finite_f32(value: &Value) -> Option<f32> {
    value
        .as_f64()
        .map(|number| number as f32)
        .filter(|number| number.is_finite())
}

/// The value as it may stand in a message, however long it is.
fn abridged(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => abridged(value),
        Value::String(_) => format!("the string {}", abridged(value)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
