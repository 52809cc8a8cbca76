//! Points as rows of a Parquet file.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use edge_sync_host::Error;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Number, Value, json};

use super::columns::{Point, Role, Roles};
use super::incoming::Incoming;
use super::source::Source;
use super::spot::Spot;
use crate::arguments::Columns;

/// How rows are counted.
const UNIT: &str = "row";

/// Points of a Parquet file, one a row.
///
/// Errors: as [`Source::open`]; [`Error::InvalidInput`] if it is no Parquet file, or has no column for
/// ids or vectors.
pub fn parquet(source: &Source, columns: &Columns) -> Result<Incoming, Error> {
    let refused = |error: ParquetError| Error::InvalidInput {
        field: source.name(),
        message: format!("cannot be read as Parquet: {error}"),
    };
    let reader: Box<dyn FileReader> = match source {
        Source::File(path) => {
            // With the words for a folder and a file that is not there.
            drop(source.open()?);
            let file = File::open(path).map_err(|error| source.read_error(error))?;
            Box::new(SerializedFileReader::new(file).map_err(refused)?)
        }
        // The index of the file is at its end.
        Source::Stdin | Source::Inline(_) => {
            let mut bytes = Vec::new();
            let mut input = source.open()?;
            input
                .read_to_end(&mut bytes)
                .map_err(|error| source.read_error(error))?;
            Box::new(SerializedFileReader::new(Bytes::from(bytes)).map_err(refused)?)
        }
    };
    let metadata = reader.metadata().file_metadata();
    let fields = metadata.schema().get_fields();
    let names: Vec<String> = fields.iter().map(|field| field.name().to_owned()).collect();
    let roles = Roles::new(&names, columns).map_err(|message| Error::InvalidInput {
        field: source.name(),
        message,
    })?;
    let all = u64::try_from(metadata.num_rows())
        .unwrap_or_default()
        .max(1);
    let read = Arc::<AtomicU64>::default();
    let rows = Rows {
        rows: RowIter::from_file_into(reader),
        roles,
        row: 0,
        all,
        bytes: source.bytes().unwrap_or_default(),
        read: Arc::clone(&read),
        is_over: false,
    };
    Ok(Incoming {
        points: Box::new(rows),
        read,
    })
}

struct Rows {
    rows: RowIter<'static>,
    roles: Roles,
    row: u64,
    all: u64,
    bytes: u64,
    read: Arc<AtomicU64>,
    is_over: bool,
}

impl Iterator for Rows {
    type Item = (Spot, Result<String, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let row = self.rows.next()?;
        self.row += 1;
        let share = self.row as f64 / self.all as f64;
        self.read
            .store((self.bytes as f64 * share) as u64, Ordering::Relaxed);
        let point = row
            .map_err(|error| invalid("", format!("cannot be read: {error}")))
            .and_then(|row| point(&row, &self.roles));
        self.is_over = point.is_err();
        let spot = Spot::row(UNIT, self.row);
        Some((spot, point.map_err(|error| spot.blame(error))))
    }
}

/// The text of the point that a row is.
fn point(row: &Row, roles: &Roles) -> Result<String, Error> {
    let mut vectors = Map::new();
    let mut payload = Map::new();
    let mut id = Value::Null;
    for ((name, field), role) in row.get_column_iter().zip(roles.of_columns()) {
        match role {
            Role::Id => id = value(field),
            Role::Vector { name, dimension } => match (value(field), dimension) {
                // A point may lack a vector.
                (Value::Null, _) => {}
                (whole, None) => {
                    vectors.insert(name.clone(), whole);
                }
                (number, Some(_)) => {
                    // Columns are in order of dimension.
                    if let Value::Array(numbers) =
                        vectors.entry(name.clone()).or_insert_with(|| json!([]))
                    {
                        numbers.push(number);
                    }
                }
            },
            Role::Payload { .. } => {
                let value = value(field);
                if !value.is_null() {
                    payload.insert(name.clone(), value);
                }
            }
        }
    }
    let point = Point {
        id,
        vector: vectors,
        payload,
    };
    point.text()
}

/// As REST has it. Numbers of 32 bits are written with the digits that they need.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => json!(value),
        Field::Byte(value) => json!(value),
        Field::Short(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Long(value) => json!(value),
        Field::UByte(value) => json!(value),
        Field::UShort(value) => json!(value),
        Field::UInt(value) => json!(value),
        Field::ULong(value) => json!(value),
        Field::Float16(value) => float(&value.to_f32().to_string()),
        Field::Float(value) => float(&value.to_string()),
        Field::Double(value) => json!(value),
        Field::Str(text) => json!(text),
        Field::Group(row) => {
            let members = row.get_column_iter();
            members
                .map(|(name, field)| (name.clone(), value(field)))
                .collect()
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            entries
                .map(|(key, field)| (plain(key), value(field)))
                .collect()
        }
        // Dates, times and decimals, as people write them.
        other => json!(plain(other)),
    }
}

fn plain(field: &Field) -> String {
    match field {
        Field::Str(text) => text.clone(),
        other => other.to_string(),
    }
}

/// JSON has no numbers that are not finite; the shard says so of those in a vector.
fn float(digits: &str) -> Value {
    digits
        .parse::<f64>()
        .ok()
        .and_then(Number::from_f64)
        .map_or(Value::Null, Value::Number)
}

fn invalid(field: &str, message: impl Into<String>) -> Error {
    Error::InvalidInput {
        field: field.to_owned(),
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::{ByteArrayType, FloatType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    /// Two rows: an id, a vector as a list, a name that the second lacks.
    fn file(folder: &std::path::Path, second: f32) -> Source {
        let schema = "message points {
            REQUIRED INT64 id;
            REQUIRED GROUP vector (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
            OPTIONAL BYTE_ARRAY name (UTF8);
        }";
        let path = folder.join("points.parquet");
        let mut writer = SerializedFileWriter::new(
            File::create(&path).unwrap(),
            Arc::new(parse_message_type(schema).unwrap()),
            Arc::new(WriterProperties::builder().build()),
        )
        .unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids = column.typed::<Int64Type>();
        ids.write_batch(&[7, 8], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let numbers = column.typed::<FloatType>();
        numbers
            .write_batch(&[0.1, 2.0, second, 4.0], Some(&[1; 4]), Some(&[0, 1, 0, 1]))
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let names = column.typed::<ByteArrayType>();
        names
            .write_batch(&["red".into()], Some(&[1, 0]), None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        Source::File(path)
    }

    fn columns() -> Columns {
        Columns {
            id_column: "id".into(),
            text_columns: Vec::new(),
        }
    }

    #[test]
    fn a_row_is_a_point() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = parquet(&file(folder.path(), 3.0), &columns()).unwrap();
        let points: Vec<(u64, String)> = incoming
            .points
            .map(|(spot, point)| (spot.line, point.unwrap()))
            .collect();
        let texts = [
            r#"{"id":7,"vector":{"":[0.1,2.0]},"payload":{"name":"red"}}"#,
            r#"{"id":8,"vector":{"":[3.0,4.0]}}"#,
        ];
        assert_eq!(points, [(1, texts[0].to_owned()), (2, texts[1].to_owned())]);
        // The shard says what is wrong there.
        let incoming = parquet(&file(folder.path(), f32::NAN), &columns()).unwrap();
        let (spot, point) = incoming.points.last().unwrap();
        assert_eq!(spot, Spot::row("row", 2));
        let text = r#"{"id":8,"vector":{"":[null,4.0]}}"#;
        assert_eq!(point.unwrap(), text);
    }

    #[test]
    fn what_is_no_table_of_points_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let other = Columns {
            id_column: "key".into(),
            ..columns()
        };
        let error = parquet(&file(folder.path(), 3.0), &other).err().unwrap();
        assert!(error.to_string().contains("no column `key`"), "{error}");
        let path = folder.path().join("text.parquet");
        std::fs::write(&path, "id,vector").unwrap();
        let error = parquet(&Source::File(path), &columns()).err().unwrap();
        assert!(
            error.to_string().contains("cannot be read as Parquet"),
            "{error}"
        );
    }
}
