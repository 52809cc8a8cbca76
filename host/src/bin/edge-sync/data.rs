//! Commands on the shard's data.

use std::path::Path;

use edge_sync_host::{EdgeSync, Error, Info, Mirror, Opened, OptimizeProgress, Receipt};
use serde_json::{Value, json};

use crate::Session;
use crate::arguments::{self, Count, Create, Index, Retrieve, Scroll, Search};
use crate::input::{self, Body, Source, id_json};
use crate::output::{COUNT_BAR, SPINNER, counted, exit, set_style};
use crate::status::mirror_json;

impl Session {
    pub fn create(&self, arguments: &Create) -> Result<u8, Error> {
        let config = match (arguments.size, arguments.distance) {
            (Some(size), Some(distance)) => {
                Body::of(json!({ "vectors": { "size": size, "distance": distance.name() } }))
            }
            _ => Body::read(arguments.config.as_deref())?,
        };
        let directory = self.settings.data_dir();
        let edge = EdgeSync::builder(self.component()?, directory)
            .options(self.shard_options())
            .create(&config.text)
            .map_err(|error| config.locate(error))?;
        self.notes(&edge);
        let generation = edge.shard().info()?.generation;
        let said = self.output.say(
            &json!({ "data_dir": directory, "generation": generation }),
            &format!("created a shard in {}", directory.display()),
        );
        self.close_after(said.map(|()| 0), edge)
    }

    pub fn retrieve(&self, arguments: &Retrieve) -> Result<u8, Error> {
        if let Some(body) = whole_body(&arguments.ids, arguments.body.as_deref(), "ids")? {
            return self.ask("POST", "/points", &body);
        }
        let ids: Vec<Value> = arguments.ids.iter().map(|id| id_json(id)).collect();
        let body = Body::of(json!({
            "ids": ids,
            "with_payload": !arguments.no_payload,
            "with_vector": arguments.with_vector,
        }));
        self.ask("POST", "/points", &body)
    }

    pub fn search(&self, arguments: &Search) -> Result<u8, Error> {
        let body = search_body(arguments)?;
        let path = if body.has("searches") {
            "/points/query/batch"
        } else if body.has("vector") {
            // What Qdrant's API had before; the shard says that, and what took its place.
            "/points/search"
        } else {
            "/points/query"
        };
        self.ask("POST", path, &body)
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
            flags.insert("filter".into(), input::filter(filter)?);
        }
        let body = if flags.is_empty() {
            Body::optional(arguments.file.as_deref())?
        } else {
            Body::of(Value::Object(flags))
        };
        self.ask("POST", "/points/scroll", &body)
    }

    pub fn count(&self, arguments: &Count) -> Result<u8, Error> {
        let body = match &arguments.filter {
            Some(filter) => Body::of(json!({ "filter": input::filter(filter)? })),
            None => Body::optional(arguments.file.as_deref())?,
        };
        self.ask("POST", "/points/count", &body)
    }

    /// A request whose body is read and whose result is printed as they are.
    pub fn request(&self, method: &str, path: &str, body: &arguments::Body) -> Result<u8, Error> {
        let body = match method.to_ascii_uppercase().as_str() {
            "GET" | "DELETE" => Body::optional(body.file.as_deref())?,
            _ => Body::read(body.file.as_deref())?,
        };
        self.ask(method, path, &body)
    }

    /// Prints the REST result of a request.
    fn ask(&self, method: &str, path: &str, body: &Body) -> Result<u8, Error> {
        let edge = self.open()?;
        let result = edge.shard().request(method, path, &body.text);
        let said = result
            .map_err(|error| body.locate(error))
            .and_then(|result| self.output.rest(&result));
        self.close_after(said.map(|()| 0), edge)
    }

    pub fn index(&self, command: &Index) -> Result<u8, Error> {
        let edge = self.open()?;
        let said = match command {
            Index::Create { field, schema } => {
                let schema = match Source::new(Some(Path::new(schema))) {
                    Source::Inline(json) => json,
                    _ => json!(schema).to_string(),
                };
                let receipt = edge.shard().create_payload_index(field, &schema);
                receipt.and_then(|receipt| {
                    self.receipt(receipt, &format!("created the index of `{field}`"))
                })
            }
            Index::Delete { field } => {
                let receipt = edge.shard().delete_payload_index(field);
                receipt.and_then(|receipt| {
                    self.receipt(receipt, &format!("deleted the index of `{field}`"))
                })
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
        let points = edge.shard().info()?.points;
        let bar = self.output.bar(SPINNER);
        bar.set_message(format!("optimizing {}", counted(points, "point")));
        self.stop_on_interrupt()?;
        let report = edge.shard().optimize_with(&self.cancel, |step| match step {
            OptimizeProgress::Indexing { indexed, total } => {
                set_style(&bar, COUNT_BAR);
                bar.set_message("indexing");
                bar.set_length(total);
                bar.set_position(indexed);
            }
            OptimizeProgress::Switching => {
                set_style(&bar, SPINNER);
                bar.set_message("switching");
            }
            _ => {}
        });
        bar.finish_and_clear();
        if let Err(Error::Cancelled) = report {
            self.output.interrupted("the shard is as it was");
            return self.close_after(Ok(exit::CANCELLED), edge);
        }
        let said = report.and_then(|report| {
            let changed = report.changed();
            let info = edge.shard().info()?;
            let shape = format!(
                "{} in {}, {} indexed",
                counted(info.points, "point"),
                counted(info.segments.into(), "segment"),
                counted(info.indexed_vectors, "vector")
            );
            let text = if changed {
                format!("optimized {shape}")
            } else {
                format!("nothing to optimize: {shape}")
            };
            self.output.say(
                &json!({
                    "changed": changed,
                    "points": info.points,
                    "segments": info.segments,
                    "indexed_vectors": info.indexed_vectors,
                    "generation": info.generation,
                    "replayed": report.replayed,
                    "elapsed_ms": u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX),
                }),
                &text,
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
        let said = edge.shard().info().and_then(|info| {
            let mirrors = self.peek()?.status()?.mirrors;
            self.say_info(&info, &mirrors)
        });
        self.close_after(said.map(|()| 0), edge)
    }

    fn say_info(&self, info: &Info, mirrors: &[Mirror]) -> Result<(), Error> {
        let parse = |json: &str| serde_json::from_str(json).unwrap_or(Value::Null);
        let value = json!({
            "points_count": info.points,
            "indexed_vectors_count": info.indexed_vectors,
            "segments_count": info.segments,
            "generation": info.generation,
            "memory_bytes": info.memory_bytes,
            "part": self.settings.part(),
            "mirrors": mirrors.iter().map(mirror_json).collect::<Vec<_>>(),
            "config": parse(&info.config),
            "payload_schema": parse(&info.payload_schema),
        });
        self.output.rest(&value.to_string())
    }

    fn receipt(&self, receipt: Receipt, what: &str) -> Result<u8, Error> {
        let text = match receipt.operations {
            0 => format!("{what}: nothing to change"),
            _ => format!("{what}, up to sequence {}", receipt.sequence),
        };
        self.output.say(&receipt_json(receipt), &text)?;
        Ok(0)
    }
}

/// A body that takes the place of ids: of `--body`, of JSON where the ids stand, or of standard input
/// if there are none. A list of ids as JSON becomes the field `name`.
pub fn whole_body(ids: &[String], file: Option<&Path>, name: &str) -> Result<Option<Body>, Error> {
    let argument = match (ids, file) {
        (_, Some(file)) => Some(file),
        ([], None) => None,
        ([json], None) if input::is_json(json) => Some(Path::new(json)),
        _ => return Ok(None),
    };
    let body = Body::read(argument)?;
    if body.json.is_array() {
        return Ok(Some(Body::of(json!({ name: body.json }))));
    }
    Ok(Some(body))
}

/// The body that `search` reads, with what its flags say in place of what it says.
fn search_body(arguments: &Search) -> Result<Body, Error> {
    let mut body = match &arguments.vector {
        Some(vector) => Body::of(json!({ "query": input::vector(vector)? })),
        None => Body::read(arguments.file.as_deref())?,
    };
    if body.json.is_array() {
        body = Body::of(json!({ "query": body.json }));
    }
    let mut flags = serde_json::Map::new();
    if let Some(limit) = arguments.limit {
        flags.insert("limit".into(), json!(limit));
    }
    if let Some(filter) = &arguments.filter {
        flags.insert("filter".into(), input::filter(filter)?);
    }
    if let Some(name) = &arguments.using {
        flags.insert("using".into(), json!(name));
    }
    if arguments.with_payload {
        flags.insert("with_payload".into(), json!(true));
    }
    if arguments.with_vector {
        flags.insert("with_vector".into(), json!(true));
    }
    if flags.is_empty() {
        return Ok(body);
    }
    let Value::Object(mut fields) = body.json else {
        return Err(Error::InvalidInput {
            field: "body".to_owned(),
            message: "expected an object".to_owned(),
        });
    };
    fields.extend(flags);
    Ok(Body::of(Value::Object(fields)))
}

pub fn receipt_json(receipt: Receipt) -> Value {
    json!({ "sequence": receipt.sequence, "operations": receipt.operations })
}

pub fn opened_json(opened: &Opened) -> Value {
    json!({ "generation": opened.generation, "replayed": opened.replayed })
}
