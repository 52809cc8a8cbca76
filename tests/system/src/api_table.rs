//! All of the API, through the component: every request that is understood is answered as the
//! native engine answers it, every write is uploaded, everything else is refused with a reason.
//! `docs/api.md` is what comes out, and nothing of Qdrant's or the engine's API is missing in it.

use std::collections::BTreeMap;

use edge_sync_double::QdrantDouble;
use edge_sync_engine::{CollectionConfig, Request, Shard, parse_request};
use edge_sync_fixtures::all_kinds;
use edge_sync_host::{EdgeSync, Error, QueueLimits};
use serde_json::{Value, json};

use crate::api::examples::{self, Example};
use crate::api::schema::{Bodies, Part};
use crate::api::{engine, table};
use crate::support::{COLLECTION, all_points, component, repository, server, server_points};

/// Whether an answer holds no point, group, hit, pair or value.
fn is_empty(result: &Value) -> bool {
    if let Some(answers) = result.as_array() {
        return answers.is_empty() || answers.iter().any(is_empty);
    }
    let lists = ["points", "groups", "hits", "pairs", "ids"];
    let list = lists.iter().find_map(|name| result[name].as_array());
    list.is_some_and(Vec::is_empty) || result["count"] == 0
}

fn text(body: &Value) -> String {
    if body.is_null() {
        String::new()
    } else {
        body.to_string()
    }
}

/// A device, the native engine, and a server, that are to hold the same.
struct Trio {
    _folder: tempfile::TempDir,
    edge: EdgeSync,
    native: Shard,
    server: QdrantDouble,
    bodies: Bodies,
    problems: Vec<String>,
    uploads: Vec<(String, String)>,
}

impl Trio {
    fn new(config: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let edge = EdgeSync::builder(component(), folder.path().join("device"))
            .create(&config.to_string())
            .expect("a shard");
        let native = CollectionConfig::from_value(config).expect("a configuration");
        let native = Shard::create(&folder.path().join("native"), &native).expect("a native shard");
        let server = server();
        let path = format!("/collections/{COLLECTION}");
        server.client().result("PUT", &path, Some(config));
        Self {
            _folder: folder,
            edge,
            native,
            server,
            bodies: Bodies::load(),
            problems: Vec::new(),
            uploads: Vec::new(),
        }
    }

    fn sent(&self, example: &Example) -> Result<Value, Error> {
        let Example {
            method, path, body, ..
        } = example;
        let result = self.edge.shard().request(method, path, &text(body))?;
        Ok(serde_json::from_str(&result).expect("JSON"))
    }

    fn natively(&self, example: &Example) -> edge_sync_engine::Result<Value> {
        match parse_request(example.method, &example.path, &text(&example.body))? {
            Request::Read(read) => self.native.read(read),
            Request::Write(write) => {
                self.native.validate(&write)?;
                for step in write.steps() {
                    let operations = self.native.prepare(step)?;
                    self.native.apply(operations)?;
                }
                Ok(Value::Null)
            }
            // What the device's indexes are made with is compared nowhere after that.
            Request::Configure(_) => Ok(Value::Null),
        }
    }

    fn write(&mut self, example: &Example) {
        let Example {
            name, method, path, ..
        } = example;
        match self.sent(example) {
            Ok(result) => {
                let update = result
                    .as_array()
                    .and_then(|all| all.first())
                    .unwrap_or(&result);
                if update["status"] != "completed" {
                    self.problems.push(format!("{name}: {result}"));
                }
            }
            Err(error) => self.problems.push(format!("{name}: {error}")),
        }
        if let Err(error) = self.natively(example) {
            self.problems.push(format!("{name}, natively: {error}"));
        }
        let limits = QueueLimits {
            operations: 1000,
            bytes: 16 << 20,
            points: 10_000,
            present_only: false,
        };
        let shard = self.edge.shard();
        while let Some(batch) = shard.next_batch(limits, None, None).expect("a batch") {
            let request = &batch.request;
            let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
            let upload_path = request.path.split('?').next().unwrap_or_default();
            let kinds: Vec<_> = body["operations"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|operation| operation.as_object()?.keys().next().cloned())
                .collect();
            let bare = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
            let write = match self.bodies.template(method, path) {
                Some(template) => format!("{method} {template}"),
                None => format!("{method} {}", bare(path)),
            };
            let mut upload = match self.bodies.template(&request.method, upload_path) {
                Some(template) => format!("{} {template}", request.method),
                None => format!("{} {upload_path}", request.method),
            };
            if !kinds.is_empty() {
                upload = format!("{upload}: {}", kinds.join(", "));
            }
            self.uploads.push((write, upload));
            let path = format!("/collections/{COLLECTION}{}", request.path);
            let body = (!body.is_null()).then_some(&body);
            self.server.client().result(&request.method, &path, body);
            shard.acknowledge(batch.last).expect("acknowledges");
        }
    }

    fn read(&mut self, example: &Example) {
        let name = &example.name;
        let here = match self.sent(example) {
            Ok(result) => result,
            Err(error) => return self.problems.push(format!("{name}: {error}")),
        };
        let native = match self.natively(example) {
            Ok(result) => result,
            Err(error) => return self.problems.push(format!("{name}, natively: {error}")),
        };
        // A sample is another one each time; the matrix of one that holds all points is not.
        if example.body["query"]["sample"].is_null()
            && let Err(difference) = all_kinds::same_result(name, &native, &here)
        {
            self.problems.push(format!("{name}: {difference}"));
        }
        if is_empty(&here) {
            self.problems.push(format!("{name}: nothing found: {here}"));
        }
    }

    /// Points of all three are the same.
    fn compare(&mut self) {
        let device = all_points(&self.edge);
        let server = server_points(&self.server);
        let body = json!({ "limit": 1_000_000, "with_payload": true, "with_vector": true });
        let native = self
            .natively(&Example {
                name: "all points".to_owned(),
                method: "POST",
                path: "/points/scroll".to_owned(),
                body,
            })
            .expect("scrolls");
        let device = json!({ "points": device });
        for (holder, points) in [
            ("server", json!({ "points": server })),
            ("native engine", native),
        ] {
            let points = json!({ "points": points["points"] });
            if let Err(difference) = all_kinds::same_result("all points", &points, &device) {
                self.problems
                    .push(format!("the {holder} holds other points: {difference}"));
            }
        }
    }
}

#[test]
fn api_table() {
    let mut bodies = Bodies::load();
    let mut outcome = table::Outcome::default();
    let mut problems = engine::check();

    let mut trio = Trio::new(&examples::collection());
    let writes = examples::writes();
    for example in &writes {
        trio.write(example);
    }
    let mut second = Trio::new(&examples::multivector_collection());
    let second_writes = examples::multivector_writes();
    for example in &second_writes {
        second.write(example);
    }
    second.compare();
    problems.append(&mut second.problems);
    for example in examples::newer_writes() {
        trio.write(&example);
        outcome.newer.push(shown(&example));
    }
    trio.compare();
    for round in 0..2 {
        for example in examples::reads().iter().chain(&examples::newer_reads()) {
            trio.read(example);
        }
        if round == 0 {
            // Again with HNSW graphs and quantized vectors.
            trio.edge.shard().optimize().expect("optimizes");
            trio.native.optimize().expect("optimizes");
            let info = trio.edge.shard().info().expect("info");
            if info.indexed_vectors == 0 {
                problems.push("nothing was indexed".to_owned());
            }
        }
    }
    outcome
        .newer
        .extend(examples::newer_reads().iter().map(shown));
    problems.append(&mut trio.problems);
    outcome.uploads = trio.uploads.clone();

    let mut used: BTreeMap<Part, Value> = BTreeMap::new();
    let mut understood: Vec<(String, String)> = Vec::new();
    let reads = examples::reads();
    for example in writes.iter().chain(&second_writes).chain(&reads) {
        let template = bodies
            .template(example.method, &example.path)
            .unwrap_or_else(|| panic!("{}: no such request", example.name));
        let request = (example.method.to_owned(), template);
        if !understood.contains(&request) {
            understood.push(request);
        }
        for (part, value) in bodies.used(example.method, &example.path, &example.body) {
            used.entry(part).or_insert(value);
        }
    }
    for (name, config) in examples::collections() {
        if let Err(error) = created(&config) {
            problems.push(format!("{name}: {error}"));
        }
        for (part, value) in bodies.used("PUT", "", &config) {
            used.entry(part).or_insert(value);
        }
    }
    for (name, config) in examples::newer_collections() {
        match created(&config) {
            Ok(()) => outcome
                .newer
                .push((name, String::new(), table::abridged(&config))),
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }

    understood.push(("PATCH".to_owned(), String::new()));
    for change in examples::changes() {
        let shard = trio.edge.shard();
        match shard.request("PATCH", "", &change.to_string()) {
            Ok(result) if result == "true" => {}
            other => problems.push(format!("{change}: {other:?}")),
        }
        for (part, value) in bodies.used("PATCH", "", &change) {
            used.entry(part).or_insert(value);
        }
    }
    // Loaded with these, and indexed again.
    trio.edge.shard().optimize().expect("optimizes");
    for example in examples::reads() {
        if let Err(error) = trio.sent(&example) {
            problems.push(format!("{} after the changes: {error}", example.name));
        }
    }

    for refusal in examples::refusals() {
        let part = Part {
            schema: refusal.schema.to_owned(),
            name: refusal.part.to_owned(),
        };
        let uses = bodies.used(refusal.method, refusal.path, &refusal.body);
        if !uses.iter().any(|(used, _)| *used == part) {
            problems.push(format!(
                "the refused {} does not use {part:?}",
                refusal.body
            ));
        }
        let answer =
            trio.edge
                .shard()
                .request(refusal.method, refusal.path, &refusal.body.to_string());
        match answer {
            Err(Error::Unsupported(why)) => {
                outcome.refused.insert(part, why);
            }
            other => problems.push(format!("{part:?} is not refused: {other:?}")),
        }
    }
    for (method, path) in bodies.requests() {
        let request = (method.clone(), path.clone());
        if understood.contains(&request) {
            outcome.requests.push((method, path, None));
            continue;
        }
        let concrete = path.replace(['{', '}'], "");
        match trio.edge.shard().request(&method, &concrete, "{}") {
            Err(Error::Unsupported(why)) => {
                let why = why.split_once(": ").map_or(why.as_str(), |(_, why)| why);
                outcome.requests.push((method, path, Some(why.to_owned())));
            }
            other => problems.push(format!("{method} {path} is not refused: {other:?}")),
        }
    }

    understood.push(("PUT".to_owned(), String::new()));
    outcome.parts = bodies.all(&understood);
    for (part, _) in &outcome.parts {
        if !used.contains_key(part) && !outcome.refused.contains_key(part) {
            // Of what a refused part is made of, nothing has to be shown.
            let inside = [
                "Image",
                "InferenceObject",
                "LookupLocation",
                "WithLookup",
                "ShardKey",
            ];
            if !inside.iter().any(|name| part.schema.starts_with(name)) {
                problems.push(format!("no request uses {} `{}`", part.schema, part.name));
            }
        }
    }
    outcome
        .parts
        .retain(|(part, _)| used.contains_key(part) || outcome.refused.contains_key(part));
    outcome.used = used;

    let file = repository().join("docs/api.md");
    let written = table::markdown(&outcome);
    if std::env::var_os("EDGE_SYNC_BLESS").is_some() {
        std::fs::write(&file, &written).expect("docs/api.md");
    } else if std::fs::read_to_string(&file).unwrap_or_default() != written {
        problems
            .push("docs/api.md is not what came out; EDGE_SYNC_BLESS=1 writes it anew".to_owned());
    }
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

fn shown(example: &Example) -> (String, String, String) {
    (
        example.name.clone(),
        format!("{} {}", example.method, example.path),
        table::abridged(&example.body),
    )
}

/// A shard of that configuration takes a point.
fn created(config: &Value) -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = EdgeSync::builder(component(), folder.path()).create(&config.to_string())?;
    let body = r#"{ "points": [{ "id": 1, "vector": {} }] }"#;
    edge.shard().request("PUT", "/points", body)?;
    edge.shard().count(None).map(drop)
}
