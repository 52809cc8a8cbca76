//! A Qdrant as strict as the real one, as far as uploads go: operations of a batch are applied one by
//! one up to the first that fails; a change of a point that is not there is a 404; every operation
//! gets a number, also one that fails.

use std::collections::{BTreeMap, BTreeSet};

use edge_sync_upload::{Answer, Request};
use serde_json::{Map, Value, json};

pub type Point = (Value, Map<String, Value>);

/// What uploads change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Vector and payload by id.
    pub points: BTreeMap<u64, Point>,
    pub indexes: BTreeSet<String>,
    pub vectors: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub struct Collection {
    pub state: State,
    pub metadata: Value,
    pub next_operation: u64,
    pub shards: u64,
    pub replicas: u64,
    pub custom_sharding: bool,
    /// Requests of data writes that were applied, the probe's left out.
    pub writes: u32,
    pub pending: Vec<Request>,
    pub reads_since: u32,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            state: State::default(),
            metadata: Value::Null,
            next_operation: 0,
            shards: 1,
            replicas: 1,
            custom_sharding: false,
            writes: 0,
            pending: Vec::new(),
            reads_since: 0,
        }
    }
}

/// The server. The fields that are public are its settings.
#[derive(Debug, Default)]
pub struct Qdrant {
    pub collections: BTreeMap<String, Collection>,
    pub aliases: BTreeMap<String, String>,
    /// An older server has no place for metadata.
    pub forgets_metadata: bool,
    /// The key may write points and not change collections.
    pub may_not_manage: bool,
    /// Answers to updates have no numbers.
    pub no_numbers: bool,
    /// Strict mode: upserts are refused above so many points.
    pub max_points: Option<usize>,
    /// Strict mode: points that one operation may have.
    pub capacity: Option<usize>,
    /// Strict mode: ids that a filter may have.
    pub condition_max_size: Option<usize>,
    /// Strict mode: longest time limit of a request, in seconds.
    pub max_timeout: Option<u64>,
    /// Longest body.
    pub max_bytes: Option<usize>,
    /// Upserts are refused in one of these words, by the point's id.
    pub refuse_upserts: Vec<String>,
    /// The next writes are taken and applied later.
    pub slow: u32,
    /// Writes are applied, and never confirmed as such.
    pub never_confirms: bool,
    pub created: u32,
    /// Operation and point (0 for none) that were applied.
    pub applied: BTreeSet<(u64, u64)>,
}

type Refusal = (u16, String);

/// The operations that a request carries.
pub fn tags(request: &Request) -> BTreeSet<u64> {
    if let Some((_, tag)) = request.path.split_once("tag=") {
        let digits = tag.split('&').next().unwrap();
        return BTreeSet::from([digits.parse().unwrap()]);
    }
    let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
    body["operations"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|element| element.as_object().unwrap().values())
        .flat_map(|arguments| arguments["tag"].as_array().cloned().unwrap_or_default())
        .map(|tag| tag.as_u64().unwrap())
        .collect()
}

impl Qdrant {
    pub fn collection(&mut self, name: &str) -> Option<&mut Collection> {
        let name = self
            .aliases
            .get(name)
            .map_or(name, String::as_str)
            .to_owned();
        self.collections.get_mut(&name)
    }

    pub fn state(&mut self, name: &str) -> State {
        self.collection(name).expect("no collection").state.clone()
    }

    /// What was taken is applied, in the order of the server's own log.
    pub fn settle(&mut self, name: &str) {
        let Some(collection) = self.collection(name) else {
            return;
        };
        collection.reads_since = 0;
        for request in std::mem::take(&mut collection.pending) {
            let _ = self.apply(name, &request);
        }
    }

    /// The server takes the request and nobody reads the answer: it is applied at once, or with the
    /// next write.
    pub fn take(&mut self, name: &str, request: &Request, at_once: bool) {
        let is_read = request.method == "GET" || request.path == "/points";
        if is_read || request.path.is_empty() {
            if at_once {
                self.answer(name, request);
            }
            return;
        }
        if let Some(collection) = self.collection(name) {
            collection.pending.push(request.clone());
            if at_once {
                self.settle(name);
            }
        }
    }

    pub fn answer(&mut self, name: &str, request: &Request) -> Answer {
        match self.judge(name, request) {
            Ok(result) => Answer {
                status: 200,
                body: json!({"result": result, "status": "ok", "time": 0.0}).to_string(),
                ..Answer::default()
            },
            Err((status, words)) => Answer {
                status,
                body: json!({"status": {"error": words}, "time": 0.0}).to_string(),
                ..Answer::default()
            },
        }
    }

    fn judge(&mut self, name: &str, request: &Request) -> Result<Value, Refusal> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if let Some(most) = self.max_bytes
            && request.body.len() > most
        {
            let words = format!(
                "JSON payload ({} bytes) is larger than allowed (limit: {most} bytes).",
                request.body.len()
            );
            return Err((400, words));
        }
        if let (Some(most), Some((_, seconds))) = (self.max_timeout, query.split_once("timeout=")) {
            let seconds: u64 = seconds.split('&').next().unwrap().parse().unwrap();
            if seconds > most {
                let words =
                    format!("Bad request: Limit exceeded {seconds} > {most} for \"timeout\"");
                return Err((400, words));
            }
        }
        match (request.method.as_str(), path) {
            ("GET", "/aliases") if request.server_wide => {
                let aliases: Vec<Value> = self
                    .aliases
                    .iter()
                    .map(|(alias, to)| json!({"alias_name": alias, "collection_name": to}))
                    .collect();
                Ok(json!({ "aliases": aliases }))
            }
            ("PUT", "") => self.create(name, &request.body),
            (method, path) => {
                let keeps_metadata = !self.forgets_metadata;
                if self.collection(name).is_none() {
                    let words = format!("Not found: Collection `{name}` doesn't exist!");
                    return Err((404, words));
                }
                let may_manage = !self.may_not_manage;
                let collection = self.collection(name).unwrap();
                match (method, path) {
                    ("PATCH", "") if !may_manage => {
                        let words = "Forbidden: Global manage access is required";
                        Err((403, words.to_owned()))
                    }
                    ("PATCH", "") => {
                        collection.patch(&request.body);
                        Ok(json!(true))
                    }
                    ("GET", "") => {
                        collection.reads_since += 1;
                        let description = collection.describe(keeps_metadata);
                        if collection.reads_since > 2 {
                            self.settle(name);
                        }
                        Ok(description)
                    }
                    ("POST", "/points") => {
                        collection.reads_since += 1;
                        let found = collection.retrieve(&request.body);
                        if collection.reads_since > 2 {
                            self.settle(name);
                        }
                        Ok(found)
                    }
                    _ => self.write(name, request),
                }
            }
        }
    }

    fn create(&mut self, name: &str, body: &str) -> Result<Value, Refusal> {
        if self.collection(name).is_some() {
            let words = format!("Wrong input: Collection `{name}` already exists!");
            return Err((409, words));
        }
        let body: Value = serde_json::from_str(body).unwrap();
        let collection = Collection {
            metadata: body["metadata"].clone(),
            shards: body["shard_number"].as_u64().unwrap_or(3),
            ..Collection::default()
        };
        self.collections.insert(name.to_owned(), collection);
        self.created += 1;
        Ok(json!(true))
    }

    fn write(&mut self, name: &str, request: &Request) -> Result<Value, Refusal> {
        if self.slow > 0 {
            self.slow -= 1;
            let no_numbers = self.no_numbers;
            let collection = self.collection(name).unwrap();
            collection.pending.push(request.clone());
            collection.reads_since = 0;
            // Numbers are given when an operation is taken; the later ones when it is applied are
            // above them.
            collection.next_operation += 1;
            let mut update = json!({"status": "wait_timeout"});
            if !no_numbers {
                update["operation_id"] = json!(collection.next_operation);
            }
            let count = match serde_json::from_str::<Value>(&request.body) {
                Ok(body) if request.path.starts_with("/points/batch") => {
                    body["operations"].as_array().unwrap().len()
                }
                _ => return Ok(update),
            };
            return Ok(json!(vec![update; count]));
        }
        self.settle(name);
        let mut result = self.apply(name, request)?;
        if self.never_confirms || request.path.contains("wait=false") {
            let acknowledge = |update: &mut Value| update["status"] = json!("acknowledged");
            match &mut result {
                Value::Array(updates) => updates.iter_mut().for_each(acknowledge),
                update => acknowledge(update),
            }
        }
        Ok(result)
    }

    fn apply(&mut self, name: &str, request: &Request) -> Result<Value, Refusal> {
        let path = request.path.split('?').next().unwrap().to_owned();
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let tag = tags(request).first().copied().unwrap_or_default();
        let custom = self.collection(name).is_some_and(|it| it.custom_sharding);
        if custom {
            return Err((400, "Wrong input: Shard key not specified".to_owned()));
        }
        if path == "/points/batch" {
            let mut updates = Vec::new();
            if !tags(request).is_empty() {
                self.collection(name).unwrap().writes += 1;
            }
            for element in body["operations"].as_array().unwrap() {
                let (kind, arguments) = element.as_object().unwrap().iter().next().unwrap();
                let number = self.number(name);
                self.apply_element(name, kind, arguments)?;
                updates.push(number);
            }
            return Ok(json!(updates));
        }
        self.collection(name).unwrap().writes += 1;
        let number = self.number(name);
        let state = &mut self.collection(name).unwrap().state;
        let last = path.rsplit('/').next().unwrap().to_owned();
        match (request.method.as_str(), path.split('/').nth(1)) {
            ("PUT", Some("index")) => {
                let field = body["field_name"].as_str().unwrap();
                state.indexes.insert(field.to_owned());
            }
            ("DELETE", Some("index")) => {
                state.indexes.remove(&last);
            }
            ("PUT", Some("vectors")) => {
                state.vectors.insert(last);
            }
            ("DELETE", Some("vectors")) => {
                if !state.vectors.remove(&last) {
                    let words = format!("Wrong input: Not existing vector name error: {last}");
                    return Err((400, words));
                }
            }
            other => panic!("{other:?}"),
        }
        self.applied.insert((tag, 0));
        Ok(number)
    }

    fn number(&mut self, name: &str) -> Value {
        let collection = self.collection(name).unwrap();
        collection.next_operation += 1;
        let number = collection.next_operation;
        if self.no_numbers {
            json!({"status": "completed"})
        } else {
            json!({"operation_id": number, "status": "completed"})
        }
    }

    fn apply_element(&mut self, name: &str, kind: &str, arguments: &Value) -> Result<(), Refusal> {
        let tags: Vec<u64> = arguments["tag"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|tag| tag.as_u64().unwrap())
            .collect();
        let by_filter = arguments.pointer("/filter/must/0/has_id");
        let selected = by_filter.unwrap_or(&arguments["points"]);
        let selected = selected.as_array().unwrap();
        if let Some(most) = self.condition_max_size
            && by_filter.is_some()
            && selected.len() > most
        {
            let words = format!(
                "Bad request: Limit exceeded {} > {most} for \"condition limit\"",
                selected.len()
            );
            return Err((400, words));
        }
        if let Some(most) = self.capacity
            && selected.len() > most
        {
            let words = "Rate limiting exceeded: Write rate limit exceeded, request larger than \
                         rate limiter capacity, please try to split your request";
            return Err((429, words.to_owned()));
        }
        if kind == "upsert" {
            let id = selected[0]["id"].as_u64().unwrap() as usize;
            if let Some(which) = id.checked_rem(self.refuse_upserts.len()) {
                return Err((400, self.refuse_upserts[which].clone()));
            }
            if let Some(most) = self.max_points
                && self.collection(name).unwrap().state.points.len() >= most
            {
                let words = format!("Bad request: Max points count exceeded: {most}");
                return Err((400, words));
            }
        }
        let refused = |id: u64| (404, format!("Not found: No point with id {id} found"));
        let state = &mut self.collection(name).unwrap().state;
        let mut changed = Vec::new();
        for point in selected {
            let Some(id) = point.get("id").unwrap_or(point).as_u64() else {
                // The probe's.
                assert_eq!(point, edge_sync_upload::uploader::PROBE_POINT);
                continue;
            };
            let there = state.points.contains_key(&id);
            match kind {
                "upsert" if point["vector"].as_array().unwrap().len() != 2 => {
                    let words = "Wrong input: Vector dimension error: expected dim: 2, got 3";
                    return Err((400, words.to_owned()));
                }
                "upsert" | "delete" => {}
                _ if by_filter.is_some() && !there => {
                    changed.push(id);
                    continue;
                }
                _ if !there => return Err(refused(id)),
                _ => {}
            }
            changed.push(id);
        }
        for point in selected {
            let Some(id) = point.get("id").unwrap_or(point).as_u64() else {
                continue;
            };
            match kind {
                "upsert" => {
                    let payload = point["payload"].as_object().cloned().unwrap_or_default();
                    state.points.insert(id, (point["vector"].clone(), payload));
                }
                "delete" => {
                    state.points.remove(&id);
                }
                "set_payload" => {
                    if let Some((_, payload)) = state.points.get_mut(&id) {
                        payload.extend(arguments["payload"].as_object().unwrap().clone());
                    }
                }
                "update_vectors" => {
                    state.points.get_mut(&id).unwrap().0 = point["vector"].clone();
                }
                other => panic!("{other}"),
            }
        }
        for tag in tags {
            self.applied.extend(changed.iter().map(|id| (tag, *id)));
        }
        Ok(())
    }
}

impl Collection {
    /// A collection in which others have written: its operations are numbered up to `operations`.
    pub fn used(operations: u64, points: u64) -> Self {
        let point = || (json!([1, 1]), Map::new());
        let points = (1_000_000..1_000_000 + points).map(|id| (id, point()));
        Self {
            state: State {
                points: points.collect(),
                ..State::default()
            },
            next_operation: operations,
            ..Self::default()
        }
    }

    /// The top level of metadata is merged.
    fn patch(&mut self, body: &str) {
        let body: Value = serde_json::from_str(body).unwrap();
        if self.metadata.is_null() {
            self.metadata = json!({});
        }
        let metadata = self.metadata.as_object_mut().unwrap();
        metadata.extend(body["metadata"].as_object().unwrap().clone());
    }

    fn describe(&self, keeps_metadata: bool) -> Value {
        let mut vectors = json!({"size": 2, "distance": "Dot", "on_disk": true});
        if !self.state.vectors.is_empty() {
            vectors = json!({"": vectors});
            for name in &self.state.vectors {
                vectors[name] = json!({"size": 2, "distance": "Dot"});
            }
        }
        let mut params = json!({
            "vectors": vectors, "shard_number": self.shards, "replication_factor": self.replicas,
        });
        if self.custom_sharding {
            params["sharding_method"] = json!("custom");
        }
        let mut config = json!({ "params": params, "strict_mode_config": {"enabled": true} });
        if keeps_metadata && !self.metadata.is_null() {
            config["metadata"] = self.metadata.clone();
        }
        let schema: Map<String, Value> = self
            .state
            .indexes
            .iter()
            .map(|field| (field.clone(), json!({"data_type": "keyword"})))
            .collect();
        json!({
            "status": "green", "points_count": self.state.points.len(), "config": config,
            "payload_schema": schema,
        })
    }

    fn retrieve(&self, body: &str) -> Value {
        let body: Value = serde_json::from_str(body).unwrap();
        let found: Vec<Value> = body["ids"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|id| {
                let (vector, payload) = self.state.points.get(&id.as_u64()?)?;
                Some(json!({"id": id, "vector": vector, "payload": payload}))
            })
            .collect();
        json!(found)
    }
}
