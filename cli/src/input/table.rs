//! Points as rows of a table: an id, vectors, and the rest as payload.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::{ReaderBuilder, StringRecord};
use edge_sync_host::{Error, PointId, json_error};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::body::id_json;
use super::columns::{Point, Role, Roles};
use super::incoming::Incoming;
use super::source::{Source, UTF8_MARK, utf16};
use super::spot::Spot;
use crate::arguments::{Columns, Format};

/// How rows are counted.
const UNIT: &str = "line";

/// Points of a CSV file with a header line.
///
/// Errors: as [`Source::open`]; [`Error::InvalidInput`] if the header names no id or no vector.
pub fn csv(source: &Source, format: Format, columns: &Columns) -> Result<Incoming, Error> {
    let delimiter = match format {
        Format::Tsv => b'\t',
        _ => b',',
    };
    let mut rows = Rows {
        input: BufReader::new(source.open()?),
        delimiter,
        line: 1,
        read: Arc::default(),
    };
    let read = Arc::clone(&rows.read);
    let Some((_, header)) = rows.next_row()? else {
        return Ok(Incoming {
            points: Box::new(std::iter::empty()),
            read,
        });
    };
    let plan = Plan::new(&header, columns)?;
    Ok(Incoming {
        points: Box::new(Points {
            rows,
            plan,
            is_over: false,
        }),
        read,
    })
}

/// Rows with the lines that they begin on.
struct Rows {
    input: BufReader<Box<dyn Read + Send>>,
    delimiter: u8,
    /// Of what is read next.
    line: u64,
    read: Arc<AtomicU64>,
}

impl Rows {
    /// The next row that is not empty. Its end is found here, since the reader of CSV counts lines
    /// otherwise than people do where they end in CR LF.
    fn next_row(&mut self) -> Result<Option<(u64, StringRecord)>, Error> {
        let mut text = Vec::new();
        let mut first = self.line;
        loop {
            let before = text.len();
            let count = self
                .input
                .read_until(b'\n', &mut text)
                .map_err(|source| Error::Io {
                    operation: "read",
                    path: "the table".into(),
                    source,
                })?;
            self.read.fetch_add(count as u64, Ordering::Relaxed);
            self.line += text[before..].iter().filter(|byte| **byte == b'\n').count() as u64;
            if before == 0 && first == 1 {
                if let Some(why) = utf16(&text) {
                    return Err(invalid("line 1", why));
                }
                if text.starts_with(UTF8_MARK) {
                    text.drain(..UTF8_MARK.len());
                }
            }
            if text.iter().all(u8::is_ascii_whitespace) && count > 0 {
                text.clear();
                first = self.line;
                continue;
            }
            // Within quotes a row goes on in the next line.
            let is_whole = text.iter().filter(|byte| **byte == b'"').count() % 2 == 0;
            if is_whole || count == 0 {
                if !is_whole {
                    return Err(invalid(&format!("line {first}"), "a quote has no end"));
                }
                break;
            }
        }
        if text.is_empty() {
            return Ok(None);
        }
        let mut row = StringRecord::new();
        ReaderBuilder::new()
            .delimiter(self.delimiter)
            .has_headers(false)
            .buffer_capacity(text.len())
            .from_reader(text.as_slice())
            .read_record(&mut row)
            .map_err(|error| {
                let message = match error.kind() {
                    csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
                    _ => error.to_string(),
                };
                invalid(&format!("line {first}"), message)
            })?;
        Ok(Some((first, row)))
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    /// Of a cell for each number.
    Numbers(Vec<f32>),
    /// Of one cell, as it is there.
    Json(Box<RawValue>),
}

/// What each column is, and its name.
struct Plan {
    names: Vec<String>,
    roles: Roles,
}

impl Plan {
    fn new(header: &StringRecord, columns: &Columns) -> Result<Plan, Error> {
        let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let roles = Roles::new(&names, columns).map_err(|message| invalid("line 1", message))?;
        Ok(Plan { names, roles })
    }

    /// The text of the point that the row is.
    fn point(&self, row: &StringRecord) -> Result<String, Error> {
        if row.len() != self.names.len() {
            return Err(invalid(
                "",
                format!(
                    "expected {} cells, as in the header, got {}",
                    self.names.len(),
                    row.len()
                ),
            ));
        }
        let mut id = None;
        let mut vectors: BTreeMap<&str, Vector> = BTreeMap::new();
        let mut payload = Map::new();
        let columns = self.names.iter().zip(self.roles.of_columns());
        for ((column, role), cell) in columns.zip(row) {
            let cell = cell.trim();
            match role {
                Role::Id if cell.is_empty() => {
                    return Err(invalid(column, "is empty; expected an id"));
                }
                Role::Id => id = Some(PointId::from_text(cell)),
                Role::Vector {
                    name,
                    dimension: Some(_),
                } => {
                    let number: f32 = cell
                        .parse()
                        .map_err(|_| invalid(column, format!("expected a number, got `{cell}`")))?;
                    if !number.is_finite() {
                        return Err(invalid(column, format!("`{cell}` is no finite number")));
                    }
                    // Columns are in order of dimension.
                    let vector = vectors.entry(name);
                    if let Vector::Numbers(numbers) =
                        vector.or_insert_with(|| Vector::Numbers(Vec::new()))
                    {
                        numbers.push(number);
                    }
                }
                Role::Vector { name, .. } => {
                    // A point may lack a vector.
                    if let Some(json) = in_one_cell(cell) {
                        vectors.insert(name, Vector::Json(raw(column, &json)?));
                    }
                }
                Role::Payload { is_text } => {
                    if !cell.is_empty() {
                        payload.insert(column.clone(), value(cell, *is_text));
                    }
                }
            }
        }
        let id = id.ok_or_else(|| invalid("", "has no id"))?;
        let point = Point {
            id: id_json(&id),
            vector: vectors,
            payload,
        };
        point.text()
    }
}

/// The vector in the cell of `column`, which the shard reads.
fn raw(column: &str, json: &str) -> Result<Box<RawValue>, Error> {
    serde_json::from_str(json).map_err(|error| invalid(column, json_error(json, &error)))
}

/// A vector's JSON; none for an empty cell.
fn in_one_cell(cell: &str) -> Option<String> {
    match cell {
        "" => None,
        json if json.starts_with(['[', '{']) => Some(json.to_owned()),
        numbers => Some(format!("[{numbers}]")),
    }
}

/// What a cell of the payload means: a number, true or false if it is written as JSON has them, a list
/// or an object likewise, and text otherwise.
fn value(cell: &str, is_text: bool) -> Value {
    if !is_text
        && let Ok(value) = serde_json::from_str::<Value>(cell)
        && !value.is_string()
        && !value.is_null()
        && is_exact(cell, &value)
    {
        return value;
    }
    Value::from(cell)
}

/// A number of more digits than a float holds stays text.
fn is_exact(cell: &str, value: &Value) -> bool {
    match value.as_f64() {
        Some(_) if value.is_f64() => cell.bytes().filter(u8::is_ascii_digit).count() <= 17,
        _ => true,
    }
}

fn invalid(column: &str, message: impl Into<String>) -> Error {
    Error::InvalidInput {
        field: column.to_owned(),
        message: message.into(),
    }
}

struct Points {
    rows: Rows,
    plan: Plan,
    is_over: bool,
}

impl Iterator for Points {
    type Item = (Spot, Result<String, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match self.rows.next_row() {
            Ok(None) => None,
            Ok(Some((line, row))) => {
                let spot = Spot::row(UNIT, line);
                let point = self.plan.point(&row);
                Some((spot, point.map_err(|error| spot.blame(error))))
            }
            Err(error) => {
                self.is_over = true;
                Some((Spot::row(UNIT, self.rows.line), Err(error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: &Columns) -> Result<Vec<(u64, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("points.csv");
        std::fs::write(&file, text).unwrap();
        let incoming = csv(&Source::File(file), Format::Csv, columns);
        incoming
            .map_err(|error| error.to_string())?
            .points
            .map(|(spot, point)| Ok((spot.line, point.map_err(|error| error.to_string())?)))
            .collect()
    }

    fn columns() -> Columns {
        Columns {
            id_column: "id".into(),
            text_columns: vec!["zip".into()],
        }
    }

    #[test]
    fn a_row_is_a_point() {
        let text = "\u{feff}id,vector,name,year,warm,zip,note,tags\r\n\
                    1,\"[1, 0.5]\",\"red, \"\"dark\"\"\",1999,true,08001,,\"[\"\"a\"\"]\"\r\n\
                    2,\"3,4\",007,1.50,no,12345,\"two\nlines\",\r\n\
                    5b1d2f4e-0000-4000-8000-000000000000,\"[5,6]\",,,,,,\r\n";
        let points = read(text, &columns()).unwrap();
        assert_eq!(
            points.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [2, 3, 5]
        );
        let texts = [
            r#"{"id":1,"vector":{"":[1, 0.5]},"payload":{"name":"red, \"dark\"","year":1999,"warm":true,"zip":"08001","tags":["a"]}}"#,
            r#"{"id":2,"vector":{"":[3,4]},"payload":{"name":"007","year":1.5,"warm":"no","zip":"12345","note":"two\nlines"}}"#,
            r#"{"id":"5b1d2f4e-0000-4000-8000-000000000000","vector":{"":[5,6]}}"#,
        ];
        assert_eq!(points.len(), texts.len());
        for ((_, point), text) in points.iter().zip(texts) {
            assert_eq!(point, text);
        }
    }

    #[test]
    fn vectors_stand_in_one_cell_or_in_many() {
        let text = "id,vector[0],vector[1],vector.s,vector.m[0]\n\
                    1,1,0.1,\"{\"\"indices\"\":[3],\"\"values\"\":[0.5]}\",+9\n2,3,.4,,8\n\
                    3,1,1,\"{\"\"text\"\": \"\"red stones\"\", \"\"model\"\": \"\"qdrant/bm25\"\"}\",8\n";
        let columns = Columns {
            text_columns: vec![],
            ..columns()
        };
        let points = read(text, &columns).unwrap();
        let texts = [
            r#"{"id":1,"vector":{"":[1.0,0.1],"m":[9.0],"s":{"indices":[3],"values":[0.5]}}}"#,
            // A point may lack a vector.
            r#"{"id":2,"vector":{"":[3.0,0.4],"m":[8.0]}}"#,
            // The shard embeds a text.
            r#"{"id":3,"vector":{"":[1.0,1.0],"m":[8.0],"s":{"text": "red stones", "model": "qdrant/bm25"}}}"#,
        ];
        assert_eq!(points.len(), texts.len());
        for ((_, point), text) in points.iter().zip(texts) {
            assert_eq!(point, text);
        }
        // What a vector is, the shard says.
        let of_anything = read("id,vector\n1,\"[1,null]\"\n", &columns).unwrap();
        assert_eq!(of_anything[0].1, r#"{"id":1,"vector":{"":[1,null]}}"#);
    }

    #[test]
    fn a_mistake_has_its_line_and_its_column() {
        let columns = Columns {
            text_columns: vec![],
            ..columns()
        };
        for (text, words) in [
            ("key,vector\n", "line 1: no column `id`"),
            ("id,name\n1,x\n", "line 1: no column `vector`"),
            (
                "id,vector\n1,\"[1,2] 3\"\n",
                "line 2: vector: trailing characters",
            ),
            (
                "id,vector\n1,\"[1,x]\"\n",
                "line 2: vector: `x` is no JSON value",
            ),
            (
                "id,vector\r\n1,\"1,2\"\r\n\r\n2,\"1,2\r\n",
                "line 4: a quote has no end",
            ),
            (
                "id,vector[0],vector[1]\n\n1,2,x\n",
                "line 3: vector[1]: expected a number, got `x`",
            ),
            ("id,vector[0],vector[2]\n", "without a gap"),
            (
                "id,vector\n1,\"[1,NaN]\"\n",
                "line 2: vector: `NaN` is no number",
            ),
            (
                "id,vector[0]\n1,nan\n",
                "line 2: vector[0]: `nan` is no finite number",
            ),
            (
                "id,vector\n1,\"[1]\",7\n",
                "line 2: expected 2 cells, as in the header, got 3",
            ),
            ("id,vector\n,\"[1]\"\n", "line 2: id: is empty"),
        ] {
            let error = read(text, &columns).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert_eq!(error.matches("line ").count(), 1, "{error}");
        }
        assert!(read("", &columns).unwrap().is_empty());
        let text = Columns {
            text_columns: vec!["x".into()],
            ..columns
        };
        assert!(
            read("id,vector\n", &text)
                .unwrap_err()
                .contains("no column `x`")
        );
    }
}
