//! Where something stands in JSON text, so that a message about `filter.must[0].key` can say where that
//! is.

use std::collections::BTreeMap;

use edge_sync_host::json_error;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: u64,
    /// From 1, in bytes.
    pub column: u64,
}

/// Why a text is no JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Path of the value at fault; empty for the whole text.
    pub field: String,
    pub message: String,
    pub at: Position,
}

/// The first mistake in a text that has to be JSON.
pub fn mistake(text: &str) -> Option<Mistake> {
    let error = serde_json::from_str::<IgnoredAny>(text).err()?;
    // Once more, for the path.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let (field, error) = match serde_path_to_error::deserialize::<_, Value>(&mut deserializer) {
        // Something stands behind the value.
        Ok(_) => (String::new(), error),
        Err(error) => match error.path().to_string().as_str() {
            "." | "?" => (String::new(), error.into_inner()),
            path => (path.to_owned(), error.into_inner()),
        },
    };
    Some(Mistake {
        field,
        message: json_error(text, &error),
        at: Position {
            line: error.line() as u64,
            column: error.column() as u64,
        },
    })
}

/// Takes ` at line 3 column 7` off the end of a message of JSON's parser.
pub fn split_position(message: &str) -> (&str, Option<Position>) {
    let split = || {
        let (text, position) = message.rsplit_once(" at line ")?;
        let (line, column) = position.split_once(" column ")?;
        let at = Position {
            line: line.parse().ok()?,
            column: column.parse().ok()?,
        };
        Some((text, at))
    };
    match split() {
        Some((text, at)) => (text, Some(at)),
        None => (message, None),
    }
}

/// Where what `path` names begins; the innermost part of it that is there, if the rest is missing.
/// None if nothing of it is there.
pub fn position_of(text: &str, path: &str) -> Option<Position> {
    let mut value: &RawValue = serde_json::from_str(text).ok()?;
    let mut rest = path;
    let mut found = None;
    while !rest.is_empty()
        && let Some((inner, left)) = step(value.get(), rest)
    {
        found = Some(inner);
        value = inner;
        rest = left;
    }
    // Slices of one text: their distance is the place.
    let at = (found?.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let before = text.get(..at)?;
    let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some(Position {
        line: 1 + before.bytes().filter(|byte| *byte == b'\n').count() as u64,
        column: 1 + (at - line_begins) as u64,
    })
}

/// The member or element that the path begins with, and the rest of the path.
fn step<'a, 'p>(value: &'a str, path: &'p str) -> Option<(&'a RawValue, &'p str)> {
    // A member without a name looks like an element.
    if let Some(indexed) = path.strip_prefix('[')
        && value.starts_with('[')
    {
        let (index, rest) = indexed.split_once(']')?;
        let elements: Vec<&RawValue> = serde_json::from_str(value).ok()?;
        let element = elements.get(index.parse::<usize>().ok()?)?;
        return Some((element, rest.strip_prefix('.').unwrap_or(rest)));
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(value).ok()?;
    // A key may hold dots itself; the longest that fits is meant.
    let (key, value) = members
        .into_iter()
        .filter(|(key, _)| {
            path.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
        .max_by_key(|(key, _)| key.len())?;
    let rest = &path[key.len()..];
    Some((value, rest.strip_prefix('.').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"query\": [1, 2],\n  \"filter\": {\n    \"must\": [\n      \
                        {\"key\": \"a\"},\n      {\"a.b\": 1}\n    ]\n  },\n  \"\": [3, 4]\n}";

    #[test]
    fn fields_have_positions() {
        for (path, position) in [
            ("query", Some((2, 12))),
            ("query[1]", Some((2, 16))),
            ("filter.must[0].key", Some((5, 15))),
            ("filter.must[1].a.b", Some((6, 15))),
            // Missing: where it would have to be.
            ("filter.must[0].match", Some((5, 7))),
            ("filter.must[7]", Some((4, 13))),
            ("limit", None),
            // Of the member without a name.
            ("[1]", Some((9, 11))),
            // Of the whole.
            ("", None),
        ] {
            let position = position.map(|(line, column)| Position { line, column });
            assert_eq!(position_of(TEXT, path), position, "{path}");
        }
        assert_eq!(position_of("{", "query"), None);
    }

    #[test]
    fn a_mistake_has_its_path_and_its_position() {
        for (text, field, message, (line, column)) in [
            (
                "{\"a\": [1, NaN]}",
                "a[1]",
                "`NaN` is no number in JSON",
                (1, 11),
            ),
            (
                "{\"a\": {\n\"b\": x}}",
                "a.b",
                "`x` is no JSON value",
                (2, 6),
            ),
            ("{\"a\": [1,2}", "a", "expected `,` or `]`", (1, 11)),
            ("{} x", "", "trailing characters", (1, 4)),
            ("{\"a\": 1", "", "EOF while parsing an object", (1, 7)),
        ] {
            let found = mistake(text).unwrap();
            let at = Position { line, column };
            assert_eq!((found.field.as_str(), found.at), (field, at), "{text}");
            assert_eq!(found.message, message, "{text}");
        }
        assert_eq!(mistake(TEXT), None);
    }

    #[test]
    fn a_position_is_taken_off_a_message() {
        let at = Position {
            line: 3,
            column: 20,
        };
        assert_eq!(
            split_position("number out of range at line 3 column 20"),
            ("number out of range", Some(at))
        );
        let without = "expected one at line of sight";
        assert_eq!(split_position(without), (without, None));
    }
}
