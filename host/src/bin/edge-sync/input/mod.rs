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

pub use body::{Body, filter, id_json, vector};
pub use points::point_index;
pub use source::{Source, is_json};

use crate::arguments::{Format, Upsert};

/// Points as they come, with the lines that they begin on.
pub struct Incoming {
    pub points: Box<dyn Iterator<Item = (u64, Result<Point, Error>)> + Send>,
    /// Bytes read so far.
    pub read: Arc<AtomicU64>,
    /// What the numbers beside the points count: `line`, `row`.
    pub unit: &'static str,
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
                unit: "line",
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

/// Says which line an input error is about.
/// `unit`: what `line` counts, lines or rows.
pub fn on_line(error: Error, unit: &str, line: u64) -> Error {
    match error {
        Error::InvalidInput { field, message } => {
            // A position of JSON's parser counts from the beginning of the value.
            let (message, position) = split_position(&message);
            let place = match position {
                Some((lines, column)) if !message.starts_with("missing field") => {
                    format!("{unit} {}, column {column}", line + lines - 1)
                }
                _ => format!("{unit} {line}"),
            };
            Error::InvalidInput {
                field: match field.as_str() {
                    "" => place,
                    field => format!("{place}: {field}"),
                },
                message: message.to_owned(),
            }
        }
        other => other,
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
        let text = |message, line| on_line(error(message), "line", line).to_string();
        assert_eq!(
            text("expected f32 at line 1 column 20", 7),
            "line 7, column 20: vector[2]: expected f32"
        );
        assert_eq!(
            text("expected f32 at line 3 column 5", 7),
            "line 9, column 5: vector[2]: expected f32"
        );
        assert_eq!(
            text("expected 3 values", 7),
            "line 7: vector[2]: expected 3 values"
        );
    }
}
