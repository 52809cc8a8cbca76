//! Commands on the shard's data.

use std::path::Path;

use edge_sync_host::{
    EdgeSync, Error, Info, MOST_BUILDERS, Mirror, Opened, OptimizeProgress, Receipt,
};
use serde_json::{Value, json};

use crate::arguments::{self, Count, Create, Index, Method, Optimize, Retrieve, Scroll, Search};
use crate::input::{self, Body, Source, id_json};
use crate::output::{COUNT_BAR, SPINNER, bytes, counted, exit, set_style};
use crate::session::Session;
use crate::settings::cores;
use crate::status::mirror_json;

impl Session {
    pub fn create(&self, arguments: &Create) -> Result<u8, Error> {
        let config = match (arguments.size, arguments.distance) {
            (Some(size), Some(distance)) => {
                Body::of(json!({ "vectors": { "size": size, "distance": distance.name() } }))
            }
            _ => Body::read_or(
                arguments.config.as_deref(),
                "nothing says what to create: give --size and --distance, or the body of \
                 `PUT /collections/{c}` as --config or on standard input",
            )?,
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
        let ids = arguments.ids.iter().map(|id| input::point_id(id));
        let ids = ids.map(|id| Ok(id_json(&id?)));
        let ids = ids.collect::<Result<Vec<Value>, Error>>()?;
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
            flags.insert("offset".into(), id_json(&input::point_id(id)?));
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
    pub fn request(&self, method: Method, path: &str, body: &arguments::Body) -> Result<u8, Error> {
        if let Some(below) = below_a_collection(path) {
            return Err(Error::InvalidInput {
                field: "path".to_owned(),
                message: format!("begins below the collection: `{below}`"),
            });
        }
        let body = match method {
            Method::Get | Method::Delete => Body::optional(body.file.as_deref())?,
            _ => Body::read(body.file.as_deref())?,
        };
        self.ask(method.name(), path, &body)
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
                let deleted = edge.shard().info().and_then(|info| {
                    let schema: Value = serde_json::from_str(&info.payload_schema)
                        .map_err(|error| Error::Internal(format!("payload schema: {error}")))?;
                    let receipt = edge.shard().delete_payload_index(field)?;
                    Ok((receipt, schema.get(field).is_some()))
                });
                deleted.and_then(|(receipt, was_here)| {
                    let what = match was_here {
                        true => format!("deleted the index of `{field}`"),
                        false => format!(
                            "there is no index of `{field}` here; its deletion is queued for the \
                             server"
                        ),
                    };
                    let mut value = receipt_json(receipt);
                    value["was_here"] = json!(was_here);
                    self.output.say(&value, &told(receipt, &what))?;
                    Ok(0)
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

    pub fn optimize(&self, arguments: &Optimize) -> Result<u8, Error> {
        // Nobody else needs a core of this process meanwhile.
        let builders = arguments.builders.unwrap_or(cores().min(MOST_BUILDERS));
        let edge = self.open_with(self.shard_options().builders(builders))?;
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
                let why = match indexing_threshold(&info.config) {
                    0 => "no segment gets an index".to_owned(),
                    least => format!("a segment gets an index from {} on", bytes(least)),
                };
                format!("nothing to optimize: {shape}; {why} (`indexing_threshold`)")
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
        self.output
            .say(&receipt_json(receipt), &told(receipt, what))?;
        Ok(0)
    }
}

fn told(receipt: Receipt, what: &str) -> String {
    match receipt.operations {
        0 => format!("{what}: nothing to change"),
        _ => format!("{what}, up to sequence {}", receipt.sequence),
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
    let body = Body::read_or(
        argument,
        "no point is named: give ids, or a body as an argument, as --body or on standard input",
    )?;
    if body.json.is_array() {
        return Ok(Some(Body::of(json!({ name: body.json }))));
    }
    Ok(Some(body))
}

/// The body that `search` reads, with what its flags say in place of what it says.
fn search_body(arguments: &Search) -> Result<Body, Error> {
    let mut body = match &arguments.vector {
        Some(vector) => Body::of(json!({ "query": input::vector(vector)? })),
        None => Body::read_or(
            arguments.file.as_deref(),
            "nothing says what to search for: give --vector, or a body as FILE, as an argument or on \
             standard input",
        )?,
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

/// What is below the collection in a path that begins with `/collections/{c}`.
fn below_a_collection(path: &str) -> Option<String> {
    let rest = path.trim_start_matches('/').strip_prefix("collections/")?;
    let below = rest.split_once('/').map_or("", |(_, below)| below);
    Some(format!("/{below}"))
}

/// From which size on a segment gets an index, in bytes: Qdrant counts in KiB, 10,000 if nothing
/// else is configured.
fn indexing_threshold(config: &str) -> u64 {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let threshold = &config["optimizers_config"]["indexing_threshold"];
    threshold.as_u64().unwrap_or(10_000).saturating_mul(1024)
}

pub fn receipt_json(receipt: Receipt) -> Value {
    json!({ "sequence": receipt.sequence, "operations": receipt.operations })
}

pub fn opened_json(opened: &Opened) -> Value {
    json!({ "generation": opened.generation, "replayed": opened.replayed })
}
