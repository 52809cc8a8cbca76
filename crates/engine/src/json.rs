//! A cursor over parsed JSON that knows its path, so that every complaint names its field.

use std::cell::RefCell;
use std::fmt;

use qdrant_edge::JsonPath;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::point::{PointId, bad_id};

/// How deep filters, prefetches and formulas may nest; a WebAssembly stack is small.
pub(crate) const MAX_NESTING: usize = 32;

/// How deep payloads and the paths into them may nest. Parsers of JSON stop at 128, the server's and
/// most clients' among them, and a payload stands some levels deep in a request or an answer.
pub(crate) const MAX_PAYLOAD_NESTING: usize = 96;

/// The server's default bound on the size of a request (`max_request_size_mb`). JSON in memory is
/// some ten times as large as its text.
const MAX_BODY: usize = 32 << 20;

/// Parses JSON text that was given as the argument `field`.
///
/// Errors: [`Error::InvalidInput`] with line and column, or for more than 32 MiB.
pub fn parse_json(field: &str, text: &str) -> Result<Value> {
    if text.len() > MAX_BODY {
        return Err(Error::invalid(
            field,
            format!(
                "JSON payload ({} bytes) is larger than allowed (limit: {MAX_BODY} bytes)",
                text.len()
            ),
        ));
    }
    serde_json::from_str(text).map_err(|error| Error::invalid(field, format!("not JSON: {error}")))
}

/// How a request is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// An unknown field is an error that names the field: people misspell.
    #[default]
    Strict,
    /// As a Qdrant 1.19 server reads: unknown fields are ignored, values out of range and shard keys
    /// are refused in the server's words ([`Error::Refused`]), and the server's defaults hold.
    Server,
}

/// The fields that a server ignores in one document.
#[derive(Debug, Default)]
pub(crate) struct Ignored(RefCell<Vec<Vec<Step>>>);

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Ignored {
    fn note(&self, path: &Path<'_>, key: &str) {
        let mut steps = Vec::new();
        path.steps(&mut steps);
        steps.push(Step::Key(key.to_owned()));
        self.0.borrow_mut().push(steps);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Takes the ignored fields out of their document, so that nobody who reads it later (a log, a
    /// stored configuration, another server) has to ignore them again.
    pub(crate) fn remove_from(&self, document: &mut Value) {
        for steps in self.0.borrow().iter() {
            let Some((Step::Key(last), parents)) = steps.split_last() else {
                continue;
            };
            let mut at = Some(&mut *document);
            for step in parents {
                at = at.and_then(|value| match step {
                    Step::Key(key) => value.get_mut(key),
                    Step::Index(index) => value.get_mut(index),
                });
            }
            if let Some(map) = at.and_then(Value::as_object_mut) {
                map.shift_remove(last);
            }
        }
    }
}

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

impl Path<'_> {
    /// The steps from the root, without the root's name.
    fn steps(&self, into: &mut Vec<Step>) {
        match self {
            Self::Root(_) => {}
            Self::Key(parent, key) => {
                parent.steps(into);
                into.push(Step::Key((*key).to_owned()));
            }
            Self::Index(parent, index) => {
                parent.steps(into);
                into.push(Step::Index(*index));
            }
        }
    }
}

/// One value of the document and its path.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value,
    path: Path<'a>,
    /// Where ignored fields are noted if the document is read as a server reads it.
    ignored: Option<&'a Ignored>,
}

impl<'a> Node<'a> {
    /// The top of a document; `name` is empty for a request body.
    pub(crate) fn root(name: &'a str, value: &'a Value) -> Self {
        Self {
            value,
            path: Path::Root(name),
            ignored: None,
        }
    }

    /// The top of a request body that is read as a server reads it.
    pub(crate) fn as_server(value: &'a Value, ignored: &'a Ignored) -> Self {
        Self {
            value,
            path: Path::Root(""),
            ignored: Some(ignored),
        }
    }

    /// How the document is read.
    pub(crate) fn strictness(&self) -> Strictness {
        match self.ignored {
            None => Strictness::Strict,
            Some(_) => Strictness::Server,
        }
    }

    pub(crate) fn is_read_as_server(&self) -> bool {
        self.ignored.is_some()
    }

    /// An error about a value of the right type that is out of range. A server answers 422 to that.
    pub(crate) fn out_of_range(&self, message: impl Into<String>) -> Error {
        let message = message.into();
        if self.is_read_as_server() {
            Error::refused(
                422,
                format!("Validation error in JSON body: [{}: {message}]", self.path),
            )
        } else {
            self.error(message)
        }
    }

    /// The error for what the reader refuses as unsupported and a server in words of its own.
    pub(crate) fn unsupported(
        &self,
        message: impl Into<String>,
        status: u16,
        server: String,
    ) -> Error {
        if self.is_read_as_server() {
            Error::refused(status, server)
        } else {
            Error::Unsupported(message.into())
        }
    }

    pub(crate) fn path(&self) -> String {
        self.path.to_string()
    }

    /// An error about this node.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::invalid(self.path(), message)
    }

    pub(crate) fn expected(&self, what: &str) -> Error {
        self.error(format!("expected {what}, got {}", kind(self.value)))
    }

    pub(crate) fn object(&self) -> Result<&'a Map<String, Value>> {
        self.value
            .as_object()
            .ok_or_else(|| self.expected("an object"))
    }

    /// The object, once it is sure that it has no keys but `known`. A server ignores others.
    pub(crate) fn fields(&self, known: &[&str]) -> Result<&'a Map<String, Value>> {
        let Some(ignored) = self.ignored else {
            return self.only_fields(known);
        };
        let map = self.object()?;
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            ignored.note(&self.path, key);
        }
        Ok(map)
    }

    /// As [`Node::fields`], where a server refuses unknown keys as well.
    pub(crate) fn only_fields(&self, known: &[&str]) -> Result<&'a Map<String, Value>> {
        let map = self.object()?;
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(map),
            Some(unknown) => Err(self.unknown(unknown, known)),
        }
    }

    /// The one member of an object that is an alternative among `known`. Of several, a server takes
    /// the one that comes first in `known`.
    pub(crate) fn one_of<'c>(&'c self, known: &[&'c str]) -> Result<Option<(&'c str, Node<'c>)>> {
        let map = self.fields(known)?;
        let mut members = known
            .iter()
            .filter_map(|key| Some((*key, self.child(key, map.get(*key)?))));
        let first = members.next();
        for (key, _) in members {
            match self.ignored {
                None => return Ok(None),
                Some(ignored) => ignored.note(&self.path, key),
            }
        }
        Ok(first)
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
            ignored: self.ignored,
        }
    }

    /// The path that the member `key` has, whether it is there or not.
    pub(crate) fn member_path(&self, key: &str) -> String {
        Path::Key(&self.path, key).to_string()
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
            ignored: self.ignored,
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

    /// An integer of at least `min` that fits 32 bits: a component has no larger sizes, and the
    /// native engine is to answer as it does.
    pub(crate) fn size(&self, min: usize) -> Result<usize> {
        self.size_within(min, u32::MAX as usize)
    }

    /// An integer from `min` to `max`.
    pub(crate) fn size_within(&self, min: usize, max: usize) -> Result<usize> {
        match self.unsigned(min)? {
            number if number <= max as u64 => Ok(number as usize),
            number => {
                Err(self.out_of_range(format!("value {number} invalid, must be {max} or smaller")))
            }
        }
    }

    /// How many results at most: an integer of at least `min`, of which more than `cap` means `cap`.
    pub(crate) fn limit(&self, min: usize, cap: usize) -> Result<usize> {
        Ok(self.unsigned(min)?.min(cap as u64) as usize)
    }

    fn unsigned(&self, min: usize) -> Result<u64> {
        let number = self
            .value
            .as_u64()
            .ok_or_else(|| self.expected("an unsigned integer"))?;
        if number < min as u64 {
            return Err(
                self.out_of_range(format!("value {number} invalid, must be {min} or larger"))
            );
        }
        Ok(number)
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
    // The engine's parser takes a stack frame's worth of time and memory for each level.
    let path: JsonPath = text.parse().ok()?;
    (path.rest.len() < MAX_PAYLOAD_NESTING).then_some(path)
}

/// How many levels of objects and arrays a value has; none for a plain one.
fn nesting(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

/// Checks that a payload is not too deep once it stands `below` levels deep in another.
///
/// The error is the message.
pub(crate) fn check_payload(payload: &Map<String, Value>, below: usize) -> Result<(), String> {
    let deepest = payload.values().map(nesting).max().unwrap_or(0) + 1;
    if below + deepest > MAX_PAYLOAD_NESTING {
        return Err(format!("nested more than {MAX_PAYLOAD_NESTING} deep"));
    }
    Ok(())
}

/// How many values a document is made of.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(weight).sum::<usize>(),
        _ => 1,
    }
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
