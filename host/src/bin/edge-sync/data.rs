//! Commands on the shard's data.

use edge_sync_host::{EdgeSync, Error, Info, Opened, Point, PointId, Receipt, Shard};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::Session;
use crate::arguments::{Body, Count, Create, Delete, Index, Retrieve, Scroll, Upsert, Vectors};
use crate::input::{self, Points};
use crate::output::{COUNTER, SPINNER, plural};

impl Session {
    pub fn create(&self, arguments: &Create) -> Result<u8, Error> {
        let config = match (arguments.size, arguments.distance) {
            (Some(size), Some(distance)) => {
                json!({ "vectors": { "size": size, "distance": distance.name() } }).to_string()
            }
            _ => input::body(arguments.config.as_deref())?,
        };
        let directory = self.settings.data_dir();
        let edge = EdgeSync::builder(self.settings.component()?, directory)
            .options(self.shard_options())
            .create(&config)?;
        self.notes(&edge);
        let generation = edge.shard().info()?.generation;
        let said = self.output.say(
            &json!({ "data_dir": directory, "generation": generation }),
            &format!("created a shard in {}", directory.display()),
        );
        self.close_after(said.map(|()| 0), edge)
    }

    pub fn upsert(&self, arguments: &Upsert) -> Result<u8, Error> {
        if let Some(file) = &arguments.body {
            return self.send("PUT", "/points", &input::body(Some(file))?);
        }
        let edge = self.open()?;
        // An interrupt may end the process anywhere: what was acknowledged is in the log.
        let points = Points::new(input::open(arguments.file.as_deref())?);
        let bar = self.output.bar(COUNTER);
        bar.set_message("upserting");
        let mut batch = Batch::default();
        let mut total = Total::default();
        let size = arguments.batch_size as usize;
        let mut outcome = Ok(());
        for (line, point) in points {
            match point {
                Ok(point) => batch.push(line, point),
                Err(error) => outcome = Err(error),
            }
            if outcome.is_ok() && batch.points.len() < size {
                continue;
            }
            // What came before a bad line is written; the error is about that line alone.
            outcome = self
                .write(edge.shard(), &mut batch, &mut total)
                .and(outcome);
            bar.set_position(total.points);
            if outcome.is_err() {
                break;
            }
        }
        if outcome.is_ok() {
            outcome = self.write(edge.shard(), &mut batch, &mut total);
        }
        bar.finish_and_clear();
        let said = if self.output.json {
            Ok(())
        } else {
            self.output.say(
                &Value::Null,
                &format!(
                    "upserted {} point{}, up to sequence {}",
                    total.points,
                    plural(total.points),
                    total.sequence
                ),
            )
        };
        self.close_after(outcome.and(said).map(|()| 0), edge)
    }

    /// Writes a batch and, with `--json`, prints its receipt: what is printed is in the log.
    fn write(&self, shard: &Shard, batch: &mut Batch, total: &mut Total) -> Result<(), Error> {
        if batch.points.is_empty() {
            return Ok(());
        }
        let Batch { points, lines } = std::mem::take(batch);
        match shard.upsert(points.clone()) {
            Ok(receipt) => self.wrote(receipt, &lines, total),
            Err(error) => {
                let Some((index, error)) = blame_line(&error, &lines) else {
                    return Err(error);
                };
                // As with a line that cannot be read, what came before it is written.
                if let (Some(points), Some(lines @ [_, ..])) =
                    (points.get(..index), lines.get(..index))
                {
                    let receipt = shard.upsert(points.to_vec())?;
                    self.wrote(receipt, lines, total)?;
                }
                Err(error)
            }
        }
    }

    fn wrote(&self, receipt: Receipt, lines: &[u64], total: &mut Total) -> Result<(), Error> {
        let count = lines.len() as u64;
        total.points += count;
        total.sequence = receipt.sequence;
        if self.output.json {
            let mut value = receipt_json(receipt);
            value["points"] = json!(count);
            value["lines"] = json!([lines.first(), lines.last()]);
            self.output.say(&value, "")?;
        }
        Ok(())
    }

    pub fn delete(&self, arguments: &Delete) -> Result<u8, Error> {
        if let Some(file) = &arguments.body {
            return self.send("POST", "/points/delete", &input::body(Some(file))?);
        }
        let filter = arguments
            .filter
            .as_deref()
            .map(input::argument)
            .transpose()?;
        let edge = self.open()?;
        let receipt = match filter {
            Some(filter) => edge.shard().delete_by_filter(&filter),
            None => {
                let ids = arguments.ids.iter().map(|id| PointId::from_text(id));
                edge.shard().delete(ids.collect())
            }
        };
        let said = receipt.and_then(|receipt| self.receipt(receipt, "deleted"));
        self.close_after(said, edge)
    }

    pub fn retrieve(&self, arguments: &Retrieve) -> Result<u8, Error> {
        if let Some(file) = &arguments.body {
            return self.send("POST", "/points", &input::body(Some(file))?);
        }
        let ids: Vec<Value> = arguments.ids.iter().map(|id| id_json(id)).collect();
        let body = json!({
            "ids": ids,
            "with_payload": !arguments.no_payload,
            "with_vector": arguments.with_vector,
        });
        self.send("POST", "/points", &body.to_string())
    }

    pub fn search(&self, arguments: &Body) -> Result<u8, Error> {
        let body = input::body(arguments.file.as_deref())?;
        // What Qdrant's API had before; the shard says that, and what took its place.
        let path = if has_field(&body, "vector") {
            "/points/search"
        } else {
            "/points/query"
        };
        self.send("POST", path, &body)
    }

    pub fn query(&self, arguments: &Body) -> Result<u8, Error> {
        let body = input::body(arguments.file.as_deref())?;
        let path = if has_field(&body, "searches") {
            "/points/query/batch"
        } else {
            "/points/query"
        };
        self.send("POST", path, &body)
    }

    pub fn vectors(&self, command: &Vectors) -> Result<u8, Error> {
        match command {
            Vectors::Update(body) => self.request("PUT", "/points/vectors", body),
            Vectors::Delete(body) => self.request("POST", "/points/vectors/delete", body),
            Vectors::Create { name, body } => {
                self.request("PUT", &format!("/vectors/{}", encoded(name)), body)
            }
            Vectors::Drop { name } => {
                self.send("DELETE", &format!("/vectors/{}", encoded(name)), "")
            }
        }
    }

    pub fn scroll(&self, arguments: &Scroll) -> Result<u8, Error> {
        let mut flags = serde_json::Map::new();
        if let Some(limit) = arguments.limit {
            flags.insert("limit".into(), json!(limit));
        }
        if let Some(id) = &arguments.offset {
            flags.insert("offset".into(), id_json(id));
        }
        if let Some(filter) = &arguments.filter {
            flags.insert("filter".into(), filter_json(filter)?);
        }
        let body = if flags.is_empty() {
            input::optional_body(arguments.file.as_deref())?
        } else {
            Value::Object(flags).to_string()
        };
        self.send("POST", "/points/scroll", &body)
    }

    pub fn count(&self, arguments: &Count) -> Result<u8, Error> {
        let body = match &arguments.filter {
            Some(filter) => json!({ "filter": filter_json(filter)? }).to_string(),
            None => input::optional_body(arguments.file.as_deref())?,
        };
        self.send("POST", "/points/count", &body)
    }

    /// A request whose body is read and whose result is printed as they are.
    pub fn request(&self, method: &str, path: &str, body: &Body) -> Result<u8, Error> {
        let body = match method.to_ascii_uppercase().as_str() {
            "GET" | "DELETE" => input::optional_body(body.file.as_deref())?,
            _ => input::body(body.file.as_deref())?,
        };
        self.send(method, path, &body)
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<u8, Error> {
        let edge = self.open()?;
        let result = edge.shard().request(method, path, body);
        let said = result.and_then(|result| self.output.rest(&result));
        self.close_after(said.map(|()| 0), edge)
    }

    pub fn index(&self, command: &Index) -> Result<u8, Error> {
        let edge = self.open()?;
        let said = match command {
            Index::Create { field, schema } => {
                let schema = if schema.starts_with('{') {
                    input::argument(schema)?
                } else {
                    json!(schema).to_string()
                };
                let receipt = edge.shard().create_payload_index(field, &schema);
                receipt.and_then(|receipt| self.receipt(receipt, "created the index"))
            }
            Index::Delete { field } => {
                let receipt = edge.shard().delete_payload_index(field);
                receipt.and_then(|receipt| self.receipt(receipt, "deleted the index"))
            }
            Index::List => {
                let info = edge.shard().info();
                let said = info.and_then(|info| self.output.rest(&info.payload_schema));
                said.map(|()| 0)
            }
        };
        self.close_after(said, edge)
    }

    pub fn optimize(&self) -> Result<u8, Error> {
        let edge = self.open()?;
        let bar = self.output.bar(SPINNER);
        bar.set_message("optimizing");
        let changed = edge.shard().optimize();
        bar.finish_and_clear();
        let said = changed.and_then(|changed| {
            self.output.say(
                &json!({ "changed": changed }),
                if changed {
                    "optimized"
                } else {
                    "nothing to optimize"
                },
            )
        });
        self.close_after(said.map(|()| 0), edge)
    }

    pub fn flush(&self) -> Result<u8, Error> {
        let edge = self.open()?;
        let flushed = edge.shard().flush();
        let said = flushed.and_then(|()| self.output.say(&json!({ "flushed": true }), "flushed"));
        self.close_after(said.map(|()| 0), edge)
    }

    pub fn info(&self) -> Result<u8, Error> {
        let edge = self.open()?;
        let said = edge.shard().info().and_then(|info| self.say_info(&info));
        self.close_after(said.map(|()| 0), edge)
    }

    fn say_info(&self, info: &Info) -> Result<(), Error> {
        let parse = |json: &str| serde_json::from_str(json).unwrap_or(Value::Null);
        let value = json!({
            "points_count": info.points,
            "indexed_vectors_count": info.indexed_vectors,
            "segments_count": info.segments,
            "generation": info.generation,
            "memory_bytes": info.memory_bytes,
            "config": parse(&info.config),
            "payload_schema": parse(&info.payload_schema),
        });
        self.output.rest(&value.to_string())
    }

    fn receipt(&self, receipt: Receipt, what: &str) -> Result<u8, Error> {
        self.output.say(
            &receipt_json(receipt),
            &format!(
                "{what}: {} operation{}, up to sequence {}",
                receipt.operations,
                plural(receipt.operations.into()),
                receipt.sequence
            ),
        )?;
        Ok(0)
    }
}

/// Points on their way, and the lines they came from.
#[derive(Default)]
struct Batch {
    points: Vec<Point>,
    lines: Vec<u64>,
}

impl Batch {
    fn push(&mut self, line: u64, point: Point) {
        self.points.push(point);
        self.lines.push(line);
    }
}

#[derive(Default)]
struct Total {
    points: u64,
    sequence: u64,
}

/// Turns `points[3].vectors.a` into the line that the point came from; also its index.
fn blame_line(error: &Error, lines: &[u64]) -> Option<(usize, Error)> {
    let Error::InvalidInput { field, message } = error else {
        return None;
    };
    let (index, rest) = input::point_index(field)?;
    let inner = Error::InvalidInput {
        field: rest.to_owned(),
        message: message.clone(),
    };
    Some((index, input::on_line(inner, *lines.get(index)?)))
}

fn receipt_json(receipt: Receipt) -> Value {
    json!({ "sequence": receipt.sequence, "operations": receipt.operations })
}

pub fn opened_json(opened: &Opened) -> Value {
    json!({ "generation": opened.generation, "replayed": opened.replayed })
}

/// True if the body is an object that has the field.
fn has_field(body: &str, name: &str) -> bool {
    serde_json::from_str::<Value>(body).is_ok_and(|body| body.get(name).is_some())
}

/// As a segment of a path.
fn encoded(segment: &str) -> PercentEncode<'_> {
    utf8_percent_encode(segment, NON_ALPHANUMERIC)
}

fn id_json(text: &str) -> Value {
    match PointId::from_text(text) {
        PointId::Num(number) => json!(number),
        PointId::Uuid(uuid) => json!(uuid),
    }
}

fn filter_json(argument: &str) -> Result<Value, Error> {
    let text = input::argument(argument)?;
    serde_json::from_str(&text).map_err(|error| Error::InvalidInput {
        field: "filter".to_owned(),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_point_is_blamed_on_its_line() {
        let refused = |field: &str| Error::InvalidInput {
            field: field.into(),
            message: "expected 4 values, got 3".into(),
        };
        let (index, error) = blame_line(&refused("points[1].vectors.a"), &[10, 12, 13]).unwrap();
        assert_eq!(index, 1);
        assert_eq!(
            error.to_string(),
            "line 12: vectors.a: expected 4 values, got 3"
        );
        assert!(blame_line(&refused("points[9]"), &[10]).is_none());
        assert!(blame_line(&refused("filter"), &[10]).is_none());
    }
}
