//! Random writes to the component, the native engine and a plain model, which must hold the same
//! points and give the same answers: while they are written, after flush, after opening again,
//! after `optimize`, after the two engines exchange their files, after snapshot and restore.

use std::cell::Cell;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use edge_sync_fixtures::all_kinds;
use fastrand::Rng;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::engines::{Component, Engine, Native};
use super::exchange;
use super::kinds::Holds;
use super::oracle::{Metric, Oracle, Refused};

/// What a run takes on average, in CI and in a long run.
const OPERATIONS_A_RUN: usize = 400;
const OPERATIONS_A_LONG_RUN: usize = 10_000;

/// A longer log than this is not replayed onto a snapshot, which would take most of the time.
const REPLAYED: usize = 1_000;

/// Of all runs together; a share of them is enough for CI.
const OPERATIONS: usize = 2_000;

#[test]
fn formats_model_component_and_native_agree() {
    let long = std::env::var("EDGE_SYNC_MODEL_OPERATIONS").ok();
    let operations = long
        .as_ref()
        .map_or(OPERATIONS, |text| text.parse().expect("a number"));
    let a_run = if long.is_some() {
        OPERATIONS_A_LONG_RUN
    } else {
        OPERATIONS_A_RUN
    };
    if let Some(file) = std::env::var_os("EDGE_SYNC_MODEL_STEPS") {
        let steps = read_steps(Path::new(&file));
        return run(&steps).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let runs = operations.div_ceil(a_run);
    let done = AtomicUsize::new(0);
    let agree = |runs: usize| {
        let config = Config {
            cases: u32::try_from(runs).expect("fewer runs"),
            source_file: Some(file!()),
            ..Config::default()
        };
        // A step is made from its number alone, so that others can be left out when a failure is
        // made smaller.
        let step = any::<u64>().no_shrink().prop_map(Step);
        let failed = Cell::new(false);
        TestRunner::new(config)
            .run(&vec(step, 1..2 * a_run), |steps| {
                run(&steps).inspect_err(|why| {
                    if !failed.replace(true) {
                        // Making it smaller takes its time.
                        eprintln!("{why}\nthe steps are in {}", write_steps(&steps).display());
                    }
                })?;
                let done = done.fetch_add(steps.len(), Ordering::Relaxed) + steps.len();
                if long.is_some() && !failed.get() {
                    eprintln!("{done} operations without a difference");
                }
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("{failure}"));
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| agree(runs.div_ceil(threads)));
        }
    });
}

/// Keeps the steps of a failed run for `EDGE_SYNC_MODEL_STEPS`.
fn write_steps(steps: &[Step]) -> PathBuf {
    let (_, path) = tempfile::Builder::new()
        .prefix("edge-sync-model-steps-")
        .tempfile()
        .and_then(|file| Ok(file.keep()?))
        .expect("a file");
    let text: String = steps
        .iter()
        .map(|Step(number)| format!("{number}\n"))
        .collect();
    std::fs::write(&path, text).expect("written");
    path
}

fn read_steps(file: &Path) -> Vec<Step> {
    let text = std::fs::read_to_string(file).expect("the file with the steps");
    text.lines()
        .map(|line| Step(line.parse().expect("a number")))
        .collect()
}

/// A random step by its number.
#[derive(Clone, Copy)]
struct Step(u64);

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.action() {
            Action::Write { method, path, body } => {
                let body: String = body.to_string().chars().take(400).collect();
                write!(f, "{method} {path} {body}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

#[derive(Debug)]
enum Action {
    Write {
        method: &'static str,
        path: String,
        body: Value,
    },
    Flush,
    Reopen,
    Optimize,
    Exchange,
    Snapshot,
}

/// The configuration: one vector of every kind that is stored in its own way.
fn config() -> Value {
    json!({
        "vectors": {
            "dot": { "size": 4, "distance": "Dot", "hnsw_config": { "m": 4 } },
            "euclid": { "size": 3, "distance": "Euclid", "on_disk": true },
            "cosine": { "size": 4, "distance": "Cosine" },
            "half": { "size": 4, "distance": "Manhattan", "datatype": "float16" },
            "byte": { "size": 4, "distance": "Dot", "datatype": "uint8", "on_disk": true },
            "scalar": { "size": 4, "distance": "Euclid",
                "quantization_config": { "scalar": { "type": "int8", "always_ram": true } } },
            "multi": { "size": 2, "distance": "Dot",
                "multivector_config": { "comparator": "max_sim" } },
        },
        "sparse_vectors": { "sparse": {}, "idf": { "modifier": "idf", "index": { "on_disk": true } } },
        "hnsw_config": { "m": 4, "ef_construct": 16, "full_scan_threshold": 10,
            "max_indexing_threads": 1 },
        "optimizers_config": { "default_segment_number": 1, "indexing_threshold": 1,
            "vacuum_min_vector_number": 100, "deleted_threshold": 0.1 },
    })
}

const METRICS: [(&str, Metric); 9] = [
    ("dot", Metric::Dot),
    ("euclid", Metric::Euclid),
    ("cosine", Metric::Cosine),
    ("half", Metric::Manhattan),
    ("byte", Metric::Dot),
    ("scalar", Metric::Euclid),
    ("multi", Metric::MaxSim),
    ("sparse", Metric::Sparse),
    ("idf", Metric::SparseIdf),
];

/// Vectors that come and go.
const PASSING: [(&str, Metric); 2] = [("passing", Metric::Dot), ("words", Metric::SparseIdf)];

/// Payload fields, each with values of one type: an index and the payload itself take values of
/// other types for different things.
const FIELDS: [(&str, Holds, &str); 9] = [
    ("w", Holds::Word, "keyword"),
    ("i", Holds::Integer, "integer"),
    ("f", Holds::Float, "float"),
    ("b", Holds::Bool, "bool"),
    ("t", Holds::Datetime, "datetime"),
    ("g", Holds::Geo, "geo"),
    ("n.k", Holds::Integer, "integer"),
    ("l[].k", Holds::Integer, "integer"),
    ("l[].w", Holds::Word, "keyword"),
];

const IDS: u64 = 90;

fn id(random: &mut Rng) -> Value {
    super::kinds::id(random.u64(0..IDS))
}

fn ids(random: &mut Rng, most: usize) -> Vec<Value> {
    let mut ids: Vec<Value> = (0..random.usize(1..=most)).map(|_| id(random)).collect();
    ids.dedup();
    ids
}

fn vector(name: &str, random: &mut Rng) -> Value {
    // Eighths are exact in 16 bits as well.
    let eighth = |random: &mut Rng| json!(f64::from(random.i32(-40..=40)) / 8.0);
    let dense = |size: usize, random: &mut Rng| -> Value {
        json!((0..size).map(|_| eighth(random)).collect::<Vec<_>>())
    };
    match name {
        "euclid" => dense(3, random),
        "passing" => dense(2, random),
        "byte" => json!((0..4).map(|_| random.u8(..)).collect::<Vec<_>>()),
        "multi" => json!(
            (0..random.usize(1..4))
                .map(|_| dense(2, random))
                .collect::<Vec<_>>()
        ),
        "sparse" | "idf" | "words" => {
            let mut indices: Vec<u32> =
                (0..random.usize(0..6)).map(|_| random.u32(0..12)).collect();
            indices.sort_unstable();
            indices.dedup();
            if random.u8(0..30) == 0 {
                indices.push(u32::MAX);
            }
            let values: Vec<_> = indices
                .iter()
                .map(|_| json!(f64::from(random.i32(1..=40)) / 8.0))
                .collect();
            random.shuffle(&mut indices);
            json!({ "indices": indices, "values": values })
        }
        _ => dense(4, random),
    }
}

fn vectors(random: &mut Rng) -> Value {
    let mut vectors = Map::new();
    for (name, _) in METRICS {
        if random.u8(0..5) > 0 {
            vectors.insert(name.to_owned(), vector(name, random));
        }
    }
    for (name, _) in PASSING {
        if random.u8(0..25) == 0 {
            vectors.insert(name.to_owned(), vector(name, random));
        }
    }
    Value::Object(vectors)
}

fn value(holds: Holds, random: &mut Rng) -> Value {
    match holds {
        Holds::Integer if random.u8(0..20) > 0 => json!(random.i32(-9..9)),
        Holds::Integer => json!((1_i64 << 40) + i64::from(random.i32(0..3))),
        Holds::Float => json!(f64::from(random.i32(-100..100)) / 16.0 + 0.01),
        Holds::Datetime => json!(format!("20{:02}-05-01T12:00:00Z", random.u8(10..30))),
        Holds::Geo => json!({
            "lon": f64::from(random.i32(-300..300)) / 2.0 + 0.1,
            "lat": f64::from(random.i32(-150..150)) / 2.0 + 0.1,
        }),
        other => other.value(random),
    }
}

fn stored(holds: Holds, random: &mut Rng) -> Value {
    match random.u8(0..12) {
        0 => Value::Null,
        1 => json!([]),
        2 | 3 => {
            let mut values: Vec<Value> = (0..random.usize(1..4))
                .map(|_| value(holds, random))
                .collect();
            // A facet counts points, an index may count values.
            let mut seen = Vec::new();
            values.retain(|value| {
                let new = !seen.contains(value);
                seen.push(value.clone());
                new
            });
            json!(values)
        }
        _ => value(holds, random),
    }
}

fn element(random: &mut Rng) -> Value {
    let mut element = Map::new();
    if random.u8(0..4) > 0 {
        element.insert("k".to_owned(), value(Holds::Integer, random));
    }
    if random.u8(0..4) > 0 {
        element.insert("w".to_owned(), value(Holds::Word, random));
    }
    Value::Object(element)
}

fn payload(random: &mut Rng) -> Value {
    let mut payload = Map::new();
    for (field, holds, _) in FIELDS {
        if !field.contains('.') && random.u8(0..3) > 0 {
            payload.insert(field.to_owned(), stored(holds, random));
        }
    }
    if random.bool() {
        payload.insert(
            "n".to_owned(),
            json!({ "k": stored(Holds::Integer, random) }),
        );
    }
    if random.bool() {
        let elements: Vec<_> = (0..random.usize(0..4)).map(|_| element(random)).collect();
        payload.insert("l".to_owned(), json!(elements));
    }
    if random.u8(0..60) == 0 {
        // Many blocks of the payload storage, and nothing that a compressor could shorten.
        let text: String = (0..random.usize(100..20_000))
            .map(|_| random.alphanumeric())
            .collect();
        payload.insert("long".to_owned(), json!(text));
    }
    Value::Object(payload)
}

fn condition(random: &mut Rng, depth: u8) -> Value {
    let (field, holds, _) = FIELDS[random.usize(0..FIELDS.len())];
    match random.u8(0..16) {
        0 => json!({ "is_empty": { "key": field } }),
        1 => json!({ "is_null": { "key": field } }),
        2 if !field.contains("[]") => {
            json!({ "key": field, "values_count": { "gte": random.u8(0..3) } })
        }
        3 => json!({ "has_id": ids(random, 30) }),
        4 => json!({ "has_vector": METRICS[random.usize(0..METRICS.len())].0 }),
        5 => json!({ "nested": { "key": "l", "filter": { "must": [
            { "key": "k", "range": { "gte": random.i32(-9..9) } },
            { "key": "w", "match": { "value": value(Holds::Word, random) } },
        ] } } }),
        6 | 7 if depth > 0 => filter(random, depth - 1),
        _ => match holds {
            Holds::Word | Holds::Integer => {
                let matching = match random.u8(0..4) {
                    0 => json!({ "any": [value(holds, random), value(holds, random)] }),
                    1 => json!({ "except": [value(holds, random), value(holds, random)] }),
                    2 if holds == Holds::Integer => {
                        let low = random.i32(-12..9);
                        return json!({ "key": field, "range": { "gt": low, "lte": low + 6 } });
                    }
                    _ => json!({ "value": value(holds, random) }),
                };
                json!({ "key": field, "match": matching })
            }
            Holds::Float => {
                let low = random.i32(-7..7);
                json!({ "key": field, "range": { "gte": low, "lt": f64::from(low) + 2.5 } })
            }
            Holds::Bool => json!({ "key": field, "match": { "value": random.bool() } }),
            Holds::Datetime => json!({ "key": field, "range": {
                "gte": value(holds, random), "lt": "2026-01-01T00:00:00Z",
            } }),
            _ => {
                let (west, south) = (random.i32(-150..100), random.i32(-70..40));
                json!({ "key": field, "geo_bounding_box": {
                    "top_left": { "lon": west, "lat": south + 40 },
                    "bottom_right": { "lon": west + 60, "lat": south },
                } })
            }
        },
    }
}

fn filter(random: &mut Rng, depth: u8) -> Value {
    let conditions = |random: &mut Rng, most: usize| -> Vec<Value> {
        (0..random.usize(1..=most))
            .map(|_| condition(random, depth))
            .collect()
    };
    match random.u8(0..6) {
        0 => json!({ "should": conditions(random, 3) }),
        1 => json!({ "must": conditions(random, 2), "must_not": conditions(random, 1) }),
        2 => {
            let some = conditions(random, 4);
            // Of more than there are the engine's indexes make all of them, its scans none.
            let count = some.len().min(2);
            json!({ "min_should": { "conditions": some, "min_count": count },
                "must": conditions(random, 1) })
        }
        3 => json!({ "must": conditions(random, 1), "should": conditions(random, 2) }),
        _ => json!({ "must": conditions(random, 2) }),
    }
}

fn key(random: &mut Rng) -> Option<&'static str> {
    let keys = [
        None,
        None,
        None,
        Some("n"),
        Some("o.p.q"),
        Some("l[0]"),
        Some("l[]"),
        Some("m[2].x"),
    ];
    keys[random.usize(0..keys.len())]
}

fn point(random: &mut Rng) -> Value {
    json!({ "id": id(random), "vector": vectors(random), "payload": payload(random) })
}

/// By id mostly, sometimes by filter.
fn selected(mut body: Value, random: &mut Rng) -> Value {
    let (field, selection) = if random.u8(0..5) == 0 {
        ("filter", filter(random, 1))
    } else {
        ("points", json!(ids(random, 3)))
    };
    body[field] = selection;
    body
}

/// A payload to be merged. Null removes a key, but not where there was no payload at all: the
/// engine keeps it there.
fn merged_payload(random: &mut Rng) -> Value {
    let mut payload = payload(random);
    if let Some(payload) = payload.as_object_mut() {
        payload.retain(|_, value| !value.is_null());
    }
    payload
}

fn payload_change(random: &mut Rng) -> Value {
    match key(random) {
        None => json!({ "payload": merged_payload(random) }),
        Some(key @ ("n" | "l[0]" | "l[]")) => json!({ "payload": element(random), "key": key }),
        Some(key) => json!({ "payload": { "z": random.u8(..), "y": null }, "key": key }),
    }
}

fn deleted_keys(random: &mut Rng) -> Vec<&'static str> {
    let keys = [
        "w", "i", "f", "n", "n.k", "l", "l[]", "l[].k", "l[1].w", "l[0]", "o.p", "missing",
    ];
    (0..random.usize(1..3))
        .map(|_| keys[random.usize(0..keys.len())])
        .collect()
}

impl Step {
    fn action(self) -> Action {
        let random = &mut Rng::with_seed(self.0);
        let write = |method: &'static str, path: &str, body: Value| Action::Write {
            method,
            path: path.to_owned(),
            body,
        };
        match random.u32(0..1000) {
            0..400 => {
                let points: Vec<_> = (0..random.usize(1..5)).map(|_| point(random)).collect();
                write("PUT", "/points", json!({ "points": points }))
            }
            400..460 => {
                let mut body = json!({ "points": [point(random)] });
                let modes = ["upsert", "insert_only", "update_only"];
                body["update_mode"] = json!(modes[random.usize(0..3)]);
                if random.bool() {
                    body["update_filter"] = filter(random, 1);
                }
                write("PUT", "/points", body)
            }
            460..530 => {
                let ids = ids(random, 3);
                write("POST", "/points/delete", json!({ "points": ids }))
            }
            530..535 => {
                let filter = json!({ "must": [condition(random, 0), condition(random, 0)] });
                write("POST", "/points/delete", json!({ "filter": filter }))
            }
            535..610 => {
                let mut body =
                    json!({ "points": [{ "id": id(random), "vector": vectors(random) }] });
                if random.u8(0..5) == 0 {
                    body["update_filter"] = filter(random, 1);
                }
                write("PUT", "/points/vectors", body)
            }
            610..660 => {
                // The engine keeps finding a point by the indices of a sparse vector that was deleted
                // by name, until the segment is opened or built anew; so does the server's.
                let names: Vec<_> = (0..random.usize(1..3))
                    .map(|_| METRICS[random.usize(0..METRICS.len())].0)
                    .map(|name| if name == "sparse" { "dot" } else { name })
                    .collect();
                let body = selected(json!({ "vector": names }), random);
                write("POST", "/points/vectors/delete", body)
            }
            660..760 => {
                let body = payload_change(random);
                write("POST", "/points/payload", selected(body, random))
            }
            760..800 => {
                let body = json!({ "payload": payload(random) });
                write("PUT", "/points/payload", selected(body, random))
            }
            800..840 => {
                let body = json!({ "keys": deleted_keys(random) });
                write("POST", "/points/payload/delete", selected(body, random))
            }
            840..860 => write("POST", "/points/payload/clear", selected(json!({}), random)),
            860..885 => {
                let (field, _, kind) = FIELDS[random.usize(0..FIELDS.len())];
                let schema = json!({ "type": kind, "on_disk": random.bool() });
                let body = json!({ "field_name": field, "field_schema": schema });
                write("PUT", "/index", body)
            }
            885..897 => {
                let (field, _, _) = FIELDS[random.usize(0..FIELDS.len())];
                write("DELETE", &format!("/index/{field}"), Value::Null)
            }
            897..912 => {
                let (name, metric) = PASSING[random.usize(0..PASSING.len())];
                let body = if metric == Metric::SparseIdf {
                    json!({ "sparse": { "modifier": "idf" } })
                } else {
                    json!({ "dense": { "size": 2, "distance": "Dot" } })
                };
                write("PUT", &format!("/vectors/{name}"), body)
            }
            912..922 => {
                let (name, _) = PASSING[random.usize(0..PASSING.len())];
                write("DELETE", &format!("/vectors/{name}"), Value::Null)
            }
            922..994 => {
                // Nothing that may fail half-way: ids that are there, names that are known.
                let one = id(random);
                let mut known = point(random);
                known["id"] = one.clone();
                let vectors = known["vector"].as_object_mut().expect("an object");
                vectors.retain(|name, _| METRICS.iter().any(|(known, _)| known == name));
                let operations = json!([
                    { "upsert": { "points": [known] } },
                    { "set_payload": { "points": [one], "payload": merged_payload(random) } },
                    { "delete_vectors": { "points": [one], "vector": ["dot", "multi"] } },
                    { "update_vectors": { "points": [{ "id": one, "vector": {
                        "dot": vector("dot", random) } }] } },
                    { "delete_payload": { "filter": filter(random, 0), "keys": deleted_keys(random) } },
                    { "delete": { "points": ids(random, 2) } },
                ]);
                write("POST", "/points/batch", json!({ "operations": operations }))
            }
            _ => match random.u32(0..60) {
                0..8 => Action::Optimize,
                8..11 => Action::Reopen,
                11 => Action::Exchange,
                12 => Action::Snapshot,
                _ => Action::Flush,
            },
        }
    }
}

/// The three of them.
struct Three {
    folder: TempDir,
    native: Option<Native>,
    component: Option<Component>,
    oracle: Oracle,
    /// Frequencies of terms count deleted points as well. The component's segments have others
    /// than those of the native engine once its log was replayed onto a snapshot, or segments were
    /// merged: which ones may depend on their names, which are random.
    frequencies_differ: bool,
    /// Writes in the component's log.
    logged: usize,
}

/// In memory where there is such a folder: nothing here is about power cuts.
fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

impl Three {
    fn new() -> Self {
        let folder = temporary();
        let native = Native::create(&folder.path().join("native"), &config());
        let component = Component::create(&folder.path().join("data"), &config());
        let vectors = METRICS.map(|(name, metric)| (name.to_owned(), metric));
        Self {
            folder,
            native: Some(native),
            component: Some(component),
            oracle: Oracle {
                vectors: vectors.into_iter().collect(),
                ..Oracle::default()
            },
            frequencies_differ: false,
            logged: 0,
        }
    }

    fn native(&self) -> &Native {
        self.native.as_ref().expect("open")
    }

    fn component(&self) -> &Component {
        self.component.as_ref().expect("open")
    }

    fn both(&self, path: &str, body: &Value) -> Result<(Value, Value), TestCaseError> {
        let native = self.native().request("POST", path, body);
        let component = self.component().request("POST", path, body);
        match (native, component) {
            (Ok(native), Ok(component)) => Ok((native, component)),
            (native, component) => Err(TestCaseError::fail(format!(
                "{path} {body}: native {native:?}, component {component:?}"
            ))),
        }
    }

    fn write(&mut self, method: &str, path: &str, body: &Value) -> Result<(), TestCaseError> {
        let before = self.oracle.clone();
        let expected = self.oracle.write(method, path, body);
        if expected == Err(Refused) {
            self.oracle = before;
        }
        let native = self.native().request(method, path, body);
        let component = self.component().request(method, path, body);
        self.logged += 1;
        prop_assert!(
            native.is_ok() == expected.is_ok() && component.is_ok() == expected.is_ok(),
            "{method} {path} {body}: the model says {expected:?}, native {native:?}, the component \
             {component:?}"
        );
        Ok(())
    }

    /// A filter, what it counts and selects, and what is nearest within it.
    fn query(&self, random: &mut Rng) -> Result<(), TestCaseError> {
        let filter = filter(random, 2);
        let body = json!({ "filter": filter, "limit": 1000, "with_payload": false });
        let (native, component) = self.both("/points/scroll", &body)?;
        let expected: Vec<_> = self
            .oracle
            .matching(&filter)
            .into_iter()
            .map(|id| json!({ "id": id.json() }))
            .collect();
        let expected = json!(expected);
        prop_assert_eq!(&native["points"], &expected, "native, {}", filter);
        prop_assert_eq!(&component["points"], &expected, "component, {}", filter);

        let names: Vec<_> = self.oracle.vectors.iter().collect();
        let (name, metric) = names[random.usize(0..names.len())];
        let query = vector(name, random);
        let filter = if random.bool() { filter } else { Value::Null };
        let mut body = json!({ "query": query, "using": name, "limit": 10,
            "params": { "exact": true } });
        if !filter.is_null() {
            body["filter"] = filter.clone();
        }
        let (native, component) = self.both("/points/query", &body)?;
        if *metric != Metric::SparseIdf {
            let expected = self.oracle.nearest(name, &query, &filter, 10);
            same("model and native", &body, &expected, &native)?;
            same("model and component", &body, &expected, &component)?;
        }
        if *metric != Metric::SparseIdf || !self.frequencies_differ {
            same("native and component", &body, &native, &component)?;
        }
        if self.oracle.indexes.contains("w") && random.u8(0..4) == 0 {
            let body = json!({ "key": "w", "limit": 1000, "exact": true });
            let expected = self.oracle.facet("w");
            let (mut native, mut component) = self.both("/facet", &body)?;
            // The engine may show values of points that are gone, of which it counts none.
            for hits in [&mut native["hits"], &mut component["hits"]] {
                if let Some(hits) = hits.as_array_mut() {
                    hits.retain(|hit| hit["count"] != 0);
                }
            }
            same("model and native", &body, &expected, &native)?;
            same("model and component", &body, &expected, &component)?;
        }
        Ok(())
    }

    /// Everything that is stored: bit for bit between the engines, and as the model has it.
    fn everything(&self, when: &str) -> Result<(), TestCaseError> {
        let body = json!({ "limit": 100_000, "with_payload": true, "with_vector": true });
        let (native, component) = self.both("/points/scroll", &body)?;
        let list = |value: &Value| value["points"].as_array().cloned().unwrap_or_default();
        let (native, component) = (list(&native), list(&component));
        let expected = self.oracle.scroll();
        for ((expected, native), component) in expected.iter().zip(&native).zip(&component) {
            prop_assert_eq!(native, component, "{}", when);
            prop_assert_eq!(&expected["id"], &native["id"], "{}", when);
            prop_assert_eq!(
                &expected["payload"],
                &native["payload"],
                "{}: {}",
                when,
                &expected["id"]
            );
            if let Err(why) = all_kinds::same_result("", &expected["vector"], &native["vector"]) {
                return Err(TestCaseError::fail(format!(
                    "{when}: {}: {why}",
                    expected["id"]
                )));
            }
        }
        prop_assert_eq!(expected.len(), native.len(), "{}", when);
        prop_assert_eq!(expected.len(), component.len(), "{}", when);
        Ok(())
    }

    fn close(&mut self) -> (PathBuf, PathBuf) {
        let native = self.native.take().expect("open").close();
        let component = self.component.take().expect("open").close();
        (native, component)
    }

    fn open(&mut self) {
        self.native = Some(Native::open(&self.folder.path().join("native"), &config()));
        self.component = Some(Component::open(&self.folder.path().join("data")));
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let action = step.action();
        let Action::Write { method, path, body } = action else {
            return self.reorganize(&action, step.0);
        };
        self.write(method, &path, &body)?;
        // Reads are drawn from the step's number as well.
        let random = &mut Rng::with_seed(!step.0);
        match random.u8(0..100) {
            0 => self.everything("after a write"),
            1..8 => self.query(random),
            _ => Ok(()),
        }
    }

    /// Anything but a write: what is held stays the same.
    fn reorganize(&mut self, action: &Action, seed: u64) -> Result<(), TestCaseError> {
        let when = match action {
            Action::Write { .. } => "after a write",
            Action::Flush => {
                self.native().flush();
                self.component().flush();
                "after flush"
            }
            Action::Reopen => {
                self.close();
                self.open();
                "after opening again"
            }
            Action::Optimize => {
                self.native().optimize();
                self.component().optimize();
                self.frequencies_differ = true;
                "after optimize"
            }
            Action::Exchange => {
                let (native, component) = self.close();
                exchange(&native, &component);
                self.open();
                "after exchanging files"
            }
            Action::Snapshot => {
                self.snapshot();
                "after snapshot and restore"
            }
        };
        self.everything(when)?;
        for number in 0..3 {
            self.query(&mut Rng::with_seed(seed ^ number))?;
        }
        Ok(())
    }

    /// Both go on with what a native snapshot holds.
    fn snapshot(&mut self) {
        let file = self.folder.path().join("shard.snapshot");
        self.native().snapshot(&file);
        let (native, _) = self.close();
        std::fs::remove_dir_all(&native).expect("removed");
        self.native = Some(Native::restore(&native, &file, &config()));
        let data = self.folder.path().join("data");
        // Nothing is uploaded here, so all that was written is replayed.
        self.frequencies_differ = self.logged < REPLAYED;
        if !self.frequencies_differ {
            std::fs::remove_dir_all(&data).expect("removed");
            self.logged = 0;
        }
        self.component = Some(Component::restore(&data, &file));
    }
}

fn same(who: &str, body: &Value, one: &Value, other: &Value) -> Result<(), TestCaseError> {
    all_kinds::same_result("", one, other)
        .map_err(|why| TestCaseError::fail(format!("{who}: {body}: {why}: {one}, {other}")))
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut three = Three::new();
    for (number, step) in steps.iter().enumerate() {
        three.step(*step).map_err(|error| match error {
            TestCaseError::Fail(why) => TestCaseError::fail(format!("step {number}: {why}")),
            other => other,
        })?;
    }
    // Whatever the steps were, all of these come once. Optimizing comes after the rest too: what
    // was restored is merged.
    for (number, action) in [
        Action::Flush,
        Action::Reopen,
        Action::Optimize,
        Action::Exchange,
        Action::Snapshot,
        Action::Optimize,
    ]
    .into_iter()
    .enumerate()
    {
        three
            .reorganize(&action, number as u64)
            .map_err(|error| TestCaseError::fail(format!("at the end: {error}")))?;
    }
    Ok(())
}
