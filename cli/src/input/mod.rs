//! What the command reads: bodies, filters and points, from files, standard input and arguments.

mod body;
#[cfg(any(feature = "csv", feature = "parquet"))]
mod columns;
mod locate;
#[cfg(feature = "parquet")]
mod parquet;
mod points;
mod source;
#[cfg(feature = "csv")]
mod table;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use edge_sync_host::{Error, Point};

pub use body::{Body, filter, id_json, point_id, vector};
pub use points::point_index;
pub use source::{Source, is_json, not_opened};

use crate::arguments::{Format, Upsert};

/// Points as they come, with where they stand.
pub struct Incoming {
    pub points: Box<dyn Iterator<Item = (Spot, Result<Point, Error>)> + Send>,
    /// Bytes read so far.
    pub read: Arc<AtomicU64>,
}

/// Where a point stands in its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// What `line` counts: `line`, `row`.
    pub unit: &'static str,
    /// The line that it begins on, from 1.
    pub line: u64,
    /// Bytes on that line before it.
    pub column: u64,
    /// Its place in a list, from 0, where it is in one.
    pub element: Option<u64>,
}

impl Spot {
    /// Of a point that has the line for itself.
    pub fn line(unit: &'static str, line: u64) -> Spot {
        Spot {
            unit,
            line,
            column: 0,
            element: None,
        }
    }

    /// Says where an input error is.
    pub fn blame(&self, error: Error) -> Error {
        let Error::InvalidInput { field, message } = error else {
            return error;
        };
        // A position of JSON's parser counts from the beginning of the value.
        let (message, position) = split_position(&message);
        let Spot { unit, line, .. } = self;
        let place = match position {
            Some((lines, column)) if !message.starts_with("missing field") => {
                let before = if lines == 1 { self.column } else { 0 };
                format!("{unit} {}, column {}", line + lines - 1, before + column)
            }
            _ => format!("{unit} {line}"),
        };
        let element = self.element.map(|element| format!("points[{element}]"));
        let path = match (element, field.as_str()) {
            (None, field) => field.to_owned(),
            (Some(element), "") => element,
            (Some(element), field) => format!("{element}.{field}"),
        };
        Error::InvalidInput {
            field: match path.as_str() {
                "" => place,
                path => format!("{place}: {path}"),
            },
            message: message.to_owned(),
        }
    }
}

/// Where a field stands that a message names: `line 3, column 7: points[2].id`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Placed<'a> {
    pub line: Option<u64>,
    pub row: Option<u64>,
    pub column: Option<u64>,
    pub field: &'a str,
}

/// Takes apart what [`Spot::blame`] and [`Body`] put together.
pub fn placed(text: &str) -> Placed<'_> {
    let read = || {
        let (place, field) = text.split_once(": ").unwrap_or((text, ""));
        let (unit, numbers) = place.split_once(' ')?;
        let (number, column) = match numbers.split_once(", column ") {
            Some((number, column)) => (number, Some(column.parse().ok()?)),
            None => (numbers, None),
        };
        let number = Some(number.parse().ok()?);
        let none = Placed::default();
        Some(match unit {
            "line" => Placed {
                line: number,
                column,
                field,
                ..none
            },
            "row" => Placed {
                row: number,
                field,
                ..none
            },
            "column" => Placed {
                column: number,
                field,
                ..none
            },
            _ => return None,
        })
    };
    read().unwrap_or(Placed {
        field: text,
        ..Placed::default()
    })
}

/// The points in `source`, in the form that the flags say, or else the name of the file.
///
/// Errors: as [`Source::open`].
pub fn incoming(source: &Source, arguments: &Upsert) -> Result<Incoming, Error> {
    let format = arguments.format.unwrap_or_else(|| source.format());
    match format {
        Format::Json => {
            let points = points::Points::open(source)?;
            let read = points.progress();
            Ok(Incoming {
                points: Box::new(points),
                read,
            })
        }
        #[cfg(feature = "csv")]
        Format::Csv | Format::Tsv => table::csv(source, format, &arguments.columns),
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::parquet(source, &arguments.columns),
        #[cfg(not(all(feature = "csv", feature = "parquet")))]
        _ => Err(Error::Unsupported(format!(
            "this build reads no {format:?} files; one with `--features {}` does",
            match format {
                Format::Parquet => "parquet",
                _ => "csv",
            }
        ))),
    }
}

/// Takes ` at line 3 column 7` off the end of a message of JSON's parser.
fn split_position(message: &str) -> (&str, Option<(u64, u64)>) {
    let split = || {
        let (text, position) = message.rsplit_once(" at line ")?;
        let (line, column) = position.split_once(" column ")?;
        Some((text, (line.parse().ok()?, column.parse().ok()?)))
    };
    match split() {
        Some((text, position)) => (text, Some(position)),
        None => (message, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_line_number_and_counts_from_the_file() {
        let error = |message: &str| Error::InvalidInput {
            field: "vector[2]".into(),
            message: message.into(),
        };
        let at = |column, element| Spot {
            unit: "line",
            line: 7,
            column,
            element,
        };
        let text = |message, spot: Spot| spot.blame(error(message)).to_string();
        assert_eq!(
            text("expected a number at line 1 column 20", at(0, None)),
            "line 7, column 20: vector[2]: expected a number"
        );
        assert_eq!(
            text("expected a number at line 1 column 20", at(100, Some(36))),
            "line 7, column 120: points[36].vector[2]: expected a number"
        );
        assert_eq!(
            text("expected a number at line 3 column 5", at(100, Some(0))),
            "line 9, column 5: points[0].vector[2]: expected a number"
        );
        assert_eq!(
            text("expected 3 values", at(0, None)),
            "line 7: vector[2]: expected 3 values"
        );
    }

    #[test]
    fn where_something_stands_is_taken_apart_again() {
        let none = Placed::default;
        for (text, whole) in [
            (
                "line 7, column 120: points[36].vector[2]",
                Placed {
                    line: Some(7),
                    column: Some(120),
                    field: "points[36].vector[2]",
                    ..none()
                },
            ),
            (
                "line 3",
                Placed {
                    line: Some(3),
                    ..none()
                },
            ),
            (
                "row 2: id",
                Placed {
                    row: Some(2),
                    field: "id",
                    ..none()
                },
            ),
            (
                "column 5",
                Placed {
                    column: Some(5),
                    ..none()
                },
            ),
            (
                "filter.must[0]",
                Placed {
                    field: "filter.must[0]",
                    ..none()
                },
            ),
            (
                "line of sight: x",
                Placed {
                    field: "line of sight: x",
                    ..none()
                },
            ),
        ] {
            assert_eq!(placed(text), whole);
        }
    }
}
