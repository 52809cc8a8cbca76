//! The server: one collection, kept as the REST requests say, in memory and without time.
//!
//! It knows what the sync uses: the collection, `points/batch`, payload indexes, shard snapshots.
//! Whatever else it is asked is a violation that it notes, as is a write without `wait=true`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::model::{Point, STAMP, State};

/// Makes a shard snapshot of a collection: its creation request and what it holds.
pub type SnapshotMaker = Arc<dyn Fn(&Value, &State) -> Vec<u8> + Send + Sync>;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// One write of a point that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The point.
    pub id: u64,
    /// The stamp in its payload.
    pub stamp: u64,
}

/// One server with one collection, `/collections/c`.
#[derive(Clone)]
pub struct Server {
    config: Option<Value>,
    state: State,
    /// What each snapshot held when it was made, the last at the end.
    pub snapshots: Vec<Arc<State>>,
    stored: BTreeMap<String, Arc<Vec<u8>>>,
    /// The upserts of each write request, in order of arrival.
    pub arrivals: Vec<Arc<Vec<Arrived>>>,
    /// What no client should have asked.
    pub violations: Vec<String>,
    refused_ids: Vec<u64>,
    maker: SnapshotMaker,
    version: u64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("state", &self.state)
            .field("violations", &self.violations)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server without the collection.
    pub fn new(maker: SnapshotMaker) -> Server {
        Server {
            config: None,
            state: State::default(),
            snapshots: Vec::new(),
            stored: BTreeMap::new(),
            arrivals: Vec::new(),
            violations: Vec::new(),
            refused_ids: Vec::new(),
            maker,
            version: 0,
        }
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What it holds.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Lets another device write.
    pub fn write(&mut self, change: impl FnOnce(&mut State)) {
        self.version += 1;
        change(&mut self.state);
    }

    /// From now on, upserts of points with these ids, and no others, are refused with 400.
    pub fn refuse(&mut self, ids: &[u64]) {
        self.version += 1;
        self.refused_ids = ids.to_vec();
    }

    /// Answers one request.
    pub fn answer(
        &mut self,
        method: &str,
        uri: &str,
        range_from: Option<u64>,
        body: &[u8],
    ) -> Answer {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let Some(path) = path.strip_prefix("/collections/c") else {
            return self.unexpected(method, uri);
        };
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let body: Value = if body.is_empty() {
            Value::Null
        } else {
            match serde_json::from_slice(body) {
                Ok(body) => body,
                Err(error) => return refusal(400, &format!("not JSON: {error}")),
            }
        };
        if self.config.is_none() && !(parts.is_empty() && method == "PUT") {
            return refusal(404, "Not found: Collection `c` doesn't exist!");
        }
        let waits = query.split('&').any(|pair| pair == "wait=true");
        match (method, parts.as_slice()) {
            ("GET", []) => self.info(),
            ("PUT", []) => {
                if self.config.is_some() {
                    return refusal(409, "Wrong input: Collection `c` already exists!");
                }
                self.version += 1;
                self.config = Some(body);
                success(json!(true))
            }
            ("POST", ["points", "batch"]) | ("PUT", ["index"]) | ("DELETE", ["index", _])
                if !waits =>
            {
                self.violations
                    .push(format!("{method} {uri} without wait=true"));
                refusal(500, "see the violations")
            }
            ("POST", ["points", "batch"]) => self.batch(&body),
            ("PUT", ["index"]) => {
                let (Some(field), Some(schema)) =
                    (body["field_name"].as_str(), body.get("field_schema"))
                else {
                    return self.unexpected(method, uri);
                };
                self.version += 1;
                let schema = schema["type"]
                    .as_str()
                    .or(schema.as_str())
                    .unwrap_or("?")
                    .to_owned();
                self.state.indexes.insert(field.to_owned(), schema);
                success(json!({"operation_id": self.version, "status": "completed"}))
            }
            ("DELETE", ["index", field]) => {
                self.version += 1;
                self.state.indexes.remove(*field);
                success(json!({"operation_id": self.version, "status": "completed"}))
            }
            ("GET", ["optimizations"]) => success(json!({
                "summary": {"queued_optimizations": 0, "queued_segments": 0, "queued_points": 0},
                "running": [],
                "completed": [],
            })),
            ("POST", ["points"]) => {
                let asked = body["ids"].as_array().cloned().unwrap_or_default();
                let found: Vec<Value> = asked
                    .into_iter()
                    .filter(|id| {
                        id.as_u64()
                            .is_some_and(|id| self.state.points.contains_key(&id))
                    })
                    .map(|id| json!({ "id": id }))
                    .collect();
                success(json!(found))
            }
            ("GET", ["shards", "0", "snapshots"]) => {
                let listed: Vec<Value> = self
                    .stored
                    .iter()
                    .map(|(name, bytes)| described(name, bytes))
                    .collect();
                success(json!(listed))
            }
            ("GET", ["shards", "0", "snapshot"]) => {
                let bytes = self.make_snapshot();
                // Made while it is sent, so its length is not known.
                let mut answer = file(&bytes, None);
                answer.headers.retain(|(name, _)| *name != "content-length");
                answer
            }
            ("POST", ["shards", "0", "snapshots"]) => {
                let bytes = self.make_snapshot();
                let name = format!("shard-0-{}.snapshot", self.snapshots.len());
                let answer = success(described(&name, &bytes));
                self.stored.insert(name, Arc::new(bytes));
                answer
            }
            ("GET", ["shards", "0", "snapshots", name]) => match self.stored.get(*name) {
                Some(bytes) => file(bytes, range_from),
                None => refusal(404, "Not found: no such snapshot"),
            },
            ("DELETE", ["shards", "0", "snapshots", name]) => {
                self.version += 1;
                match self.stored.remove(*name) {
                    Some(_) => success(json!(true)),
                    None => refusal(404, "Not found: no such snapshot"),
                }
            }
            _ => self.unexpected(method, uri),
        }
    }

    fn unexpected(&mut self, method: &str, uri: &str) -> Answer {
        self.violations
            .push(format!("unexpected request {method} {uri}"));
        refusal(501, "the simulated server does not know that")
    }

    fn make_snapshot(&mut self) -> Vec<u8> {
        self.version += 1;
        let bytes = (self.maker)(self.config.as_ref().unwrap_or(&Value::Null), &self.state);
        self.snapshots.push(Arc::new(self.state.clone()));
        bytes
    }

    fn info(&self) -> Answer {
        let config = self.config.clone().unwrap_or_default();
        let part = |name: &str, otherwise: Value| match &config[name] {
            Value::Null => otherwise,
            value => value.clone(),
        };
        let indexes: Map<String, Value> = self
            .state
            .indexes
            .iter()
            .map(|(field, schema)| (field.clone(), json!({"data_type": schema, "points": 0})))
            .collect();
        success(json!({
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": self.state.points.len(),
            "segments_count": 1,
            "config": {
                "params": {
                    "vectors": part("vectors", json!({})),
                    "shard_number": 1,
                    "replication_factor": 1,
                    "write_consistency_factor": 1,
                    "on_disk_payload": part("on_disk_payload", json!(true)),
                },
                "hnsw_config": {
                    "m": 16, "ef_construct": 100, "full_scan_threshold": 10000,
                    "max_indexing_threads": 0, "on_disk": false,
                },
                "optimizer_config": {
                    "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0, "max_segment_size": null,
                    "memmap_threshold": null, "indexing_threshold": 10000,
                    "flush_interval_sec": 5, "max_optimization_threads": null,
                },
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
                "quantization_config": null,
            },
            "payload_schema": indexes,
        }))
    }

    fn batch(&mut self, body: &Value) -> Answer {
        let Some(operations) = body["operations"].as_array() else {
            return refusal(400, "no operations");
        };
        let mut state = self.state.clone();
        let mut arrived = Vec::new();
        for operation in operations {
            if let Err(message) = self.apply(&mut state, operation, &mut arrived) {
                // Qdrant stops at the operation at fault; what was before it stays.
                self.version += 1;
                self.state = state;
                return refusal(400, &message);
            }
        }
        self.version += 1;
        self.state = state;
        self.arrivals.push(Arc::new(arrived));
        let results: Vec<Value> = operations
            .iter()
            .map(|_| json!({"operation_id": self.version, "status": "completed"}))
            .collect();
        success(json!(results))
    }

    fn apply(
        &self,
        state: &mut State,
        operation: &Value,
        arrived: &mut Vec<Arrived>,
    ) -> Result<(), String> {
        let Some((name, arguments)) = operation
            .as_object()
            .filter(|operation| operation.len() == 1)
            .and_then(|operation| operation.iter().next())
        else {
            return Err("an operation that is not one".to_owned());
        };
        let ids = || -> Result<Vec<u64>, String> {
            arguments["points"]
                .as_array()
                .and_then(|ids| ids.iter().map(Value::as_u64).collect())
                .ok_or_else(|| format!("{name} without point ids: {arguments}"))
        };
        let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
        match name.as_str() {
            "upsert" => {
                let points = arguments["points"]
                    .as_array()
                    .ok_or("upsert without points")?;
                for point in points {
                    let id = point["id"].as_u64().ok_or("a point without id")?;
                    if self.refused_ids.contains(&id) {
                        return Err(format!("Wrong input: point {id} is refused"));
                    }
                    let vector = point["vector"].get("").unwrap_or(&point["vector"]);
                    let vector: Vec<f32> = serde_json::from_value(vector.clone())
                        .map_err(|error| format!("vector of point {id}: {error}"))?;
                    let payload = object(&point["payload"]);
                    let stamp = payload.get(STAMP).and_then(Value::as_u64).unwrap_or(0);
                    arrived.push(Arrived { id, stamp });
                    state.points.insert(id, Point { vector, payload });
                }
            }
            "delete" => {
                for id in ids()? {
                    state.points.remove(&id);
                }
            }
            "set_payload" => {
                for id in ids()? {
                    if let Some(point) = state.points.get_mut(&id) {
                        point.payload.extend(object(&arguments["payload"]));
                    }
                }
            }
            "overwrite_payload" => {
                for id in ids()? {
                    if let Some(point) = state.points.get_mut(&id) {
                        point.payload = object(&arguments["payload"]);
                    }
                }
            }
            "delete_payload" => {
                for id in ids()? {
                    for key in arguments["keys"].as_array().into_iter().flatten() {
                        if let (Some(point), Some(key)) = (state.points.get_mut(&id), key.as_str())
                        {
                            point.payload.remove(key);
                        }
                    }
                }
            }
            "clear_payload" => {
                for id in ids()? {
                    if let Some(point) = state.points.get_mut(&id) {
                        point.payload.clear();
                    }
                }
            }
            other => return Err(format!("an operation it does not know: {other}")),
        }
        Ok(())
    }
}

fn success(result: Value) -> Answer {
    json_answer(200, &json!({"result": result, "status": "ok", "time": 0.0}))
}

fn json_answer(status: u16, body: &Value) -> Answer {
    let body = body.to_string().into_bytes();
    Answer {
        status,
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("content-length", body.len().to_string()),
        ],
        body,
    }
}

/// Qdrant's error shape.
pub(super) fn refusal(status: u16, message: &str) -> Answer {
    json_answer(status, &json!({"status": {"error": message}, "time": 0.0}))
}

fn file(bytes: &[u8], range_from: Option<u64>) -> Answer {
    let from = range_from.and_then(|from| usize::try_from(from).ok());
    let (status, body) = match from.and_then(|from| bytes.get(from..)) {
        Some(rest) => (206, rest),
        None => (200, bytes),
    };
    Answer {
        status,
        headers: vec![
            ("content-type", "application/octet-stream".to_owned()),
            ("content-length", body.len().to_string()),
        ],
        body: body.to_vec(),
    }
}

/// A stored snapshot, as it is listed.
fn described(name: &str, bytes: &[u8]) -> Value {
    json!({
        "name": name,
        "creation_time": "2026-01-01T00:00:00",
        "size": bytes.len(),
        "checksum": sha256(bytes),
    })
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}
