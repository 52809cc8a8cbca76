//! What the columns of a table are, and the point that a row is.

use std::collections::BTreeMap;

use edge_sync_host::Error;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::arguments::Columns;

/// What the default vector's column is called, and how the names of others begin.
const VECTOR: &str = "vector";

/// What a column is.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    Id,
    /// A vector, or one dimension of it; the empty name is the default vector's.
    Vector {
        name: String,
        dimension: Option<usize>,
    },
    Payload {
        /// Cells are text, whatever they look like.
        is_text: bool,
    },
}

/// What each column of a table is, in order.
#[derive(Debug)]
pub struct Roles {
    roles: Vec<Role>,
}

impl Roles {
    /// The error is the message.
    pub fn new(names: &[String], columns: &Columns) -> Result<Roles, String> {
        let found = names.join(", ");
        if !names.contains(&columns.id_column) {
            return Err(format!(
                "no column `{}` for the ids (--id-column names another); the columns are: {found}",
                columns.id_column
            ));
        }
        let twice = names
            .iter()
            .enumerate()
            .find(|(at, name)| names[..*at].contains(name));
        if let Some((_, name)) = twice {
            return Err(format!(
                "the column `{name}` is there twice; the columns are: {found}"
            ));
        }
        for text in &columns.text_columns {
            if !names.contains(text) {
                return Err(format!("no column `{text}`; the columns are: {found}"));
            }
        }
        let roles: Vec<Role> = names
            .iter()
            .map(|name| match vector_column(name) {
                _ if *name == columns.id_column => Role::Id,
                Some((vector, dimension)) => Role::Vector {
                    name: vector.to_owned(),
                    dimension,
                },
                None => Role::Payload {
                    is_text: columns.text_columns.contains(name),
                },
            })
            .collect();
        // Dimensions by vector, as they stand.
        let mut vectors: BTreeMap<&str, Vec<Option<usize>>> = BTreeMap::new();
        for role in &roles {
            if let Role::Vector { name, dimension } = role {
                vectors.entry(name).or_default().push(*dimension);
            }
        }
        if vectors.is_empty() {
            return Err(format!(
                "no column `{VECTOR}`, `{VECTOR}[0]`, ... or `{VECTOR}.NAME` for vectors; the \
                 columns are: {found}"
            ));
        }
        for dimensions in vectors.values() {
            let is_one = dimensions.as_slice() == [None];
            let is_row = dimensions
                .iter()
                .copied()
                .eq((0..dimensions.len()).map(Some));
            if !is_one && !is_row {
                return Err(format!(
                    "the columns of a vector are one `{VECTOR}`, or `{VECTOR}[0]`, `{VECTOR}[1]`, ... \
                     in order and without a gap; the columns are: {found}"
                ));
            }
        }
        Ok(Roles { roles })
    }

    pub fn of_columns(&self) -> &[Role] {
        &self.roles
    }
}

/// A row as REST has points.
#[derive(Serialize)]
pub struct Point<V> {
    pub id: Value,
    /// Vectors by name; the default vector's is empty.
    pub vector: V,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub payload: Map<String, Value>,
}

impl<V: Serialize> Point<V> {
    /// Errors: [`Error::Internal`] if it cannot be written as JSON.
    pub fn text(&self) -> Result<String, Error> {
        serde_json::to_string(self)
            .map_err(|error| Error::Internal(format!("a row as JSON: {error}")))
    }
}

/// The vector and the dimension that a column is for: `vector`, `vector[3]`, `vector_3`,
/// `vector.image`, `vector.image[3]`.
fn vector_column(column: &str) -> Option<(&str, Option<usize>)> {
    let rest = column.strip_prefix(VECTOR)?;
    if let Some(dimension) = rest.strip_prefix('_') {
        return Some(("", Some(dimension.parse().ok()?)));
    }
    let (name, dimension) = match rest
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
    {
        Some((name, dimension)) => (name, Some(dimension.parse().ok()?)),
        None => (rest, None),
    };
    match name.strip_prefix('.') {
        Some(name) => Some((name, dimension)),
        None if name.is_empty() => Some(("", dimension)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_columns_are() {
        assert_eq!(vector_column("vector"), Some(("", None)));
        assert_eq!(vector_column("vector_12"), Some(("", Some(12))));
        assert_eq!(vector_column("vector.image[0]"), Some(("image", Some(0))));
        assert_eq!(vector_column("vectors"), None);
        assert_eq!(vector_column("vector_name"), None);
        let columns = Columns {
            id_column: "key".into(),
            text_columns: vec!["zip".into()],
        };
        let roles = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Roles::new(&names, &columns)
        };
        let found = roles(&["key", "vector", "zip", "id"]).unwrap();
        assert_eq!(found.of_columns()[2], Role::Payload { is_text: true });
        assert_eq!(found.of_columns()[3], Role::Payload { is_text: false });
        for (names, words) in [
            (&["vector", "zip"][..], "no column `key`"),
            (&["key", "vector"], "no column `zip`"),
            (&["key", "zip"], "no column `vector`"),
            (&["key", "zip", "vector[0]", "vector[2]"], "without a gap"),
            (&["key", "zip", "vector[1]", "vector[0]"], "in order"),
            (&["key", "zip", "vector", "vector[0]"], "one `vector`, or"),
            (&["key", "zip", "vector", "a", "a"], "`a` is there twice"),
        ] {
            let refused = roles(names).unwrap_err();
            assert!(refused.contains(words), "{names:?}: {refused}");
        }
    }
}
