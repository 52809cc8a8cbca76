//! The server: one collection, kept as the REST requests say, in memory and without time.
//!
//! It knows what the sync uses: the collection, writes of points, payload indexes, shard snapshots.
//! Whatever else it is asked is a violation that it notes, as is a write without `wait=true`. It
//! refuses what a Qdrant 1.19 refuses, in its words (`tests/fixtures/real-server/`), and is no kinder:
//! what stands before a refused operation of a batch stays, a change of a point that is not there is
//! 404, a collection that is made anew counts its operations anew, and a snapshot that is taken while
//! the optimizer runs has points in it that were deleted since.
//!
//! One that was made by [`Server::new`] is of before Qdrant 1.14.1 and knows no partial snapshots;
//! [`Server::following`] makes one that does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use edge_sync_snapshots::Layout;
use serde_json::{Map, Value, json};

use crate::exchange::{Answer, Request};
use crate::front::Front;
use crate::model::{Point, PointChange, STAMP, State};
use crate::operation::{self, Fault, Operation};
use crate::partial;
use crate::shard::{Files, History, Maker, ShardChange, Shown};

/// Makes a shard snapshot of a collection: its creation request and what it holds.
pub type SnapshotMaker = Arc<dyn Fn(&Value, &State) -> Vec<u8> + Send + Sync>;

/// One write of a point that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The point.
    pub id: u64,
    /// The stamp in its payload.
    pub stamp: u64,
}

/// What every write to the collection runs into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Strict mode's `max_points_count`.
    pub points: Option<usize>,
    /// Strict mode's `write_rate_limit`, as if no time passed: so many points until it is set again.
    pub rate: Option<Rate>,
    /// The collection has shard keys, and a write without one is refused.
    pub keyed: bool,
}

/// A limit on what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The most that one operation may write.
    pub capacity: usize,
    /// What is left of it.
    pub left: usize,
}

/// What somebody was sent.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What the collection held.
    pub state: Arc<State>,
    /// What was deleted while the optimizer ran: each of these may be in the files.
    pub ghosts: Arc<BTreeMap<u64, Point>>,
    /// The files, if they came with manifests.
    pub files: Option<Arc<Files>>,
    /// Not sent, since the client has them all.
    pub nothing_new: bool,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// Something that happens on the server by itself, or that somebody else does there.
#[derive(Clone, Debug)]
pub enum Happening {
    /// An optimization begins. Nothing, if one runs.
    OptimizationBegins,
    /// It ends.
    OptimizationEnds,
    /// The server is started again; what it did goes on from the beginning, and it forgets what it has
    /// done. Between two looks at the optimizer nothing would tell of that, and of one that began
    /// after the first; so this happens between steps only.
    Restart,
    /// What stands before it loses answers of 304 from now on, or lets them pass.
    Loses304(bool),
    /// Another device writes points and deletes some.
    Others(Vec<(u64, Point)>, Vec<u64>),
}

/// An optimization that runs.
#[derive(Clone)]
struct Optimizing {
    /// What the collection was when it began.
    history: History,
    state: Arc<State>,
}

/// How snapshots are made.
#[derive(Clone)]
enum Snapshots {
    /// Of what the collection holds.
    OfState(SnapshotMaker),
    /// Of all that was done to it.
    OfHistory(Arc<Maker>),
}

/// Who writes what no simulated device writes.
const OTHERS: usize = usize::MAX;

/// What one request did, point by point.
pub type Effects = Arc<Vec<(u64, PointChange)>>;

/// One server with one collection, `/collections/c`.
#[derive(Clone)]
pub struct Server {
    config: Option<Value>,
    state: Arc<State>,
    /// Number of the last operation on the collection that is there.
    operations: u64,
    history: History,
    optimizing: Option<Optimizing>,
    /// Optimizations that have ended, and those of them that the server has forgotten since.
    optimized: u64,
    forgotten: u64,
    /// What happens at the so-many-th request from now.
    agenda: Vec<(u32, Happening)>,
    /// What each snapshot held when it was made, the last at the end.
    pub snapshots: Vec<Arc<Snapshot>>,
    stored: BTreeMap<String, Arc<Vec<u8>>>,
    /// Whose requests these are.
    device: usize,
    arrivals: BTreeMap<usize, Vec<Arc<Vec<Arrived>>>>,
    effects: BTreeMap<usize, Vec<Effects>>,
    /// Who has written or deleted each point.
    writers: BTreeMap<u64, BTreeSet<usize>>,
    missed: BTreeMap<usize, BTreeSet<u64>>,
    /// What no client should have asked.
    pub violations: Vec<String>,
    refused_ids: Vec<u64>,
    limits: Limits,
    /// The collection that `c` is an alias of; none if `c` is a collection.
    alias_of: Option<&'static str>,
    /// How often the collection was made.
    pub made: u64,
    /// What stands before the server.
    pub front: Front,
    /// An exchange whose answer is 304 fails on the way: a client takes the words behind that head,
    /// which have no length, for something else.
    pub loses_304: bool,
    maker: Snapshots,
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
    /// A server without the collection, as before Qdrant 1.14.1.
    pub fn new(maker: SnapshotMaker) -> Server {
        Server::with(Snapshots::OfState(maker))
    }

    /// A server without the collection, that makes partial snapshots.
    pub fn following(maker: Arc<Maker>) -> Server {
        Server::with(Snapshots::OfHistory(maker))
    }

    fn with(maker: Snapshots) -> Server {
        Server {
            config: None,
            state: Arc::default(),
            operations: 0,
            history: History::default(),
            optimizing: None,
            optimized: 0,
            forgotten: 0,
            agenda: Vec::new(),
            snapshots: Vec::new(),
            stored: BTreeMap::new(),
            device: 0,
            arrivals: BTreeMap::new(),
            effects: BTreeMap::new(),
            writers: BTreeMap::new(),
            missed: BTreeMap::new(),
            violations: Vec::new(),
            refused_ids: Vec::new(),
            limits: Limits::default(),
            alias_of: None,
            made: 0,
            front: Front::Open,
            loses_304: false,
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

    /// Whether it makes partial snapshots.
    pub fn is_followed(&self) -> bool {
        matches!(self.maker, Snapshots::OfHistory(_))
    }

    /// Whether the collection is there.
    pub fn has_collection(&self) -> bool {
        self.config.is_some()
    }

    /// From now on requests are this device's.
    pub fn serve(&mut self, device: usize) {
        self.device = device;
    }

    /// The upserts of each of this device's write requests that were applied, in order of arrival.
    pub fn arrivals(&self) -> &[Arc<Vec<Arrived>>] {
        self.arrivals.get(&self.device).map_or(&[], Vec::as_slice)
    }

    /// What this device's writes did to points, request by request, in order.
    pub fn effects(&self) -> &[Effects] {
        self.effects.get(&self.device).map_or(&[], Vec::as_slice)
    }

    /// Points that other devices have written or deleted.
    pub fn shared(&self) -> BTreeSet<u64> {
        let by_others = |writers: &BTreeSet<usize>| writers.iter().any(|one| *one != self.device);
        let points = self.writers.iter();
        points
            .filter(|(_, writers)| by_others(writers))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Points that were not there when a change of them by this device arrived.
    pub fn missed(&self) -> BTreeSet<u64> {
        self.missed.get(&self.device).cloned().unwrap_or_default()
    }

    /// Lets another device write points and delete others.
    pub fn write(&mut self, points: &[(u64, Point)], deleted: &[u64]) {
        self.version += 1;
        let upserts = points
            .iter()
            .map(|(id, point)| (*id, PointChange::Upsert(Arc::new(point.clone()))));
        let deletions = deleted.iter().map(|id| (*id, PointChange::Delete));
        for effects in [upserts.collect::<Vec<_>>(), deletions.collect()] {
            self.operations += 1;
            for (id, effect) in effects {
                self.writers.entry(id).or_default().insert(OTHERS);
                effect.apply(&mut Arc::make_mut(&mut self.state).points, id);
                self.history.push(ShardChange::Point(id, effect));
            }
            self.history.tick();
        }
    }

    /// Lets somebody make a payload index of a type, or, without one, remove it.
    pub fn index(&mut self, field: &str, schema: Option<&str>) {
        let operation = match schema {
            Some(schema) => Operation::CreateIndex(field.to_owned(), schema.to_owned()),
            None => Operation::DeleteIndex(field.to_owned()),
        };
        self.version += 1;
        self.operations += 2;
        // An operation on the collection misses no point.
        let _ = self.change(&operation, &mut Vec::new());
    }

    /// Lets something happen at the so-many-th request from now; 0 is at once.
    pub fn expect(&mut self, after: u32, happening: Happening) {
        self.version += 1;
        match after {
            0 => self.happen(happening),
            after => self.agenda.push((after, happening)),
        }
    }

    /// Nothing more happens by itself, and no optimization runs.
    pub fn rest(&mut self) {
        self.version += 1;
        self.agenda.clear();
        self.happen(Happening::OptimizationEnds);
    }

    fn happen(&mut self, happening: Happening) {
        // Of no collection there is nothing to optimize.
        if self.config.is_none()
            && !matches!(happening, Happening::Others(..) | Happening::Loses304(_))
        {
            return;
        }
        self.version += 1;
        match happening {
            Happening::OptimizationBegins if self.optimizing.is_none() => {
                self.optimizing = Some(Optimizing {
                    history: self.history.clone(),
                    state: Arc::clone(&self.state),
                });
            }
            Happening::OptimizationBegins => {}
            Happening::OptimizationEnds => {
                if self.optimizing.take().is_some() {
                    self.optimized += 1;
                    self.history.push(ShardChange::Optimize);
                }
            }
            Happening::Restart => {
                self.optimizing = None;
                self.forgotten = self.optimized;
                self.history.push(ShardChange::Restart);
            }
            Happening::Loses304(loses) => self.loses_304 = loses,
            Happening::Others(points, deleted) => self.write(&points, &deleted),
        }
    }

    fn proceed(&mut self) {
        let mut due = Vec::new();
        for (after, _) in &mut self.agenda {
            *after -= 1;
        }
        self.agenda.retain(|(after, happening)| {
            if *after == 0 {
                due.push(happening.clone());
            }
            *after > 0
        });
        for happening in due {
            self.happen(happening);
        }
    }

    /// From now on, upserts of points with these ids, and no others, are refused with 400.
    pub fn refuse(&mut self, ids: &[u64]) {
        self.version += 1;
        self.refused_ids = ids.to_vec();
    }

    /// From now on, every write runs into these.
    pub fn limit(&mut self, limits: Limits) {
        self.version += 1;
        self.limits = limits;
    }

    /// Somebody deletes the collection, and makes it anew with the same configuration if `again`.
    pub fn drop_collection(&mut self, again: bool) {
        self.version += 1;
        self.state = Arc::default();
        self.operations = 0;
        self.history = History::default();
        self.optimizing = None;
        self.stored.clear();
        if again {
            self.made += u64::from(self.config.is_some());
            if let Some(config) = self.config.as_mut().and_then(Value::as_object_mut) {
                // Whoever makes it knows nothing of what this device has put there.
                config.shift_remove("metadata");
            }
        } else {
            // Its aliases go with it.
            self.config = None;
            self.alias_of = None;
        }
    }

    /// Somebody has made a collection, of which `c` is an alias.
    pub fn found_by_alias(&mut self, config: Value) {
        self.version += 1;
        self.made += 1;
        self.config = Some(config);
        self.alias_of = Some("made");
    }

    /// Somebody makes `c` an alias of another collection, without points. If `c` was an alias before,
    /// the name of the collection is all that tells.
    pub fn move_alias(&mut self) {
        if self.alias_of.is_none() {
            self.drop_collection(true);
        } else {
            self.version += 1;
            self.made += 1;
            self.state = Arc::default();
            self.history = History::default();
            self.optimizing = None;
            self.stored.clear();
        }
        self.alias_of = Some("moved");
    }

    /// Answers one request.
    pub fn answer(&mut self, asked: &Request<'_>) -> Answer {
        let Request {
            method,
            uri,
            range_from,
            body,
            ..
        } = *asked;
        self.proceed();
        if let Some(answer) = self.front.answer(body) {
            return answer;
        }
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        if (method, path) == ("GET", "/aliases") {
            let alias = |name| json!({"alias_name": "c", "collection_name": name});
            let aliases: Vec<Value> = self.alias_of.map(alias).into_iter().collect();
            return success(json!({"aliases": aliases}));
        }
        let Some(path) = path.strip_prefix("/collections/c") else {
            return self.unexpected(method, uri);
        };
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if let ("POST", ["shards", "0", "snapshot", "partial", "create"]) = (method, &parts[..]) {
            return self.changes(asked);
        }
        let body: Value = if body.is_empty() {
            Value::Null
        } else {
            match serde_json::from_slice(body) {
                Ok(body) => body,
                Err(error) => {
                    return refusal(400, &format!("Format error in JSON body: {error}"));
                }
            }
        };
        if let ("GET", ["exists"]) = (method, parts.as_slice()) {
            return success(json!({"exists": self.config.is_some()}));
        }
        if self.config.is_none() && !(parts.is_empty() && method == "PUT") {
            let words = "Not found: Collection `c` doesn't exist!";
            // Where a success would be a file, the server answers without its envelope.
            return match (method, parts.as_slice()) {
                ("GET", ["shards", _, "snapshot"] | ["shards", _, "snapshots", _]) => {
                    plain(404, words)
                }
                _ => refusal(404, words),
            };
        }
        let waits = query.split('&').any(|pair| pair == "wait=true");
        if let Some(operations) = operation::of_request(method, &parts, &body) {
            // Whether writes pass, and how far they are numbered, is asked with a point that nobody
            // has.
            let probe = body["operations"]
                == json!([{"delete": {"points": [edge_sync_upload::uploader::PROBE_POINT]}}]);
            if !waits && !probe {
                self.violations
                    .push(format!("{method} {uri} without wait=true"));
                return refusal(500, "see the violations");
            }
            return match operations {
                Ok(operations) => self.writes(&operations, parts.as_slice() == ["points", "batch"]),
                Err(fault) => refusal(fault.status, &fault.words),
            };
        }
        match (method, parts.as_slice()) {
            ("GET", []) => self.info(),
            ("PUT", []) if self.alias_of.is_some() => refusal(
                400,
                "Wrong input: Can't create collection with name c. Alias with the same name \
                 already exists",
            ),
            ("PUT", []) => {
                if self.config.is_some() {
                    return refusal(409, "Wrong input: Collection `c` already exists!");
                }
                self.version += 1;
                self.made += 1;
                self.operations = 0;
                self.config = Some(body);
                success(json!(true))
            }
            ("PATCH", []) => self.patch(&body),
            ("GET", ["cluster"]) => success(json!({
                "peer_id": 1,
                "shard_count": 1,
                "local_shards": [{
                    "shard_id": 0,
                    "points_count": self.state.points.len(),
                    "state": "Active",
                }],
                "remote_shards": [],
                "shard_transfers": [],
            })),
            ("GET", ["optimizations"]) => self.optimizations(),
            ("POST", ["points"]) => self.retrieve(&body),
            ("POST", ["points", "count"]) => self.count(&body),
            ("GET", ["shards", "0", "snapshot"]) => {
                let bytes = self.make_snapshot(Layout::Streamed);
                // Made while it is sent, so its length is not known.
                let mut answer = file(&bytes, None);
                answer.headers.retain(|(name, _)| *name != "content-length");
                answer
            }
            ("GET", ["shards", "0", "snapshots"]) => {
                let stored = self.stored.iter();
                success(
                    stored
                        .map(|(name, bytes)| description(name, bytes))
                        .collect(),
                )
            }
            ("POST", ["shards", "0", "snapshots"]) => {
                let bytes = self.make_snapshot(Layout::Stored);
                let name = format!("c-shard-0-{}.snapshot", self.snapshots.len());
                let answer = success(description(&name, &bytes));
                self.stored.insert(name, Arc::new(bytes));
                answer
            }
            ("GET", ["shards", "0", "snapshots", name]) => match self.stored.get(*name) {
                Some(bytes) => file(bytes, range_from),
                None => plain(404, &format!("Not found: Snapshot {name} not found")),
            },
            ("DELETE", ["shards", "0", "snapshots", name]) => {
                self.version += 1;
                match self.stored.remove(*name) {
                    Some(_) => success(json!(true)),
                    None => refusal(404, &format!("Not found: Snapshot {name} not found")),
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

    fn make_snapshot(&mut self, layout: Layout) -> Vec<u8> {
        let config = self.config.as_ref().unwrap_or(&Value::Null);
        let bytes = match &self.maker {
            Snapshots::OfState(maker) => maker(config, &self.state),
            Snapshots::OfHistory(maker) => maker
                .files(&self.shown(config))
                .snapshot(layout)
                .expect("the engine writes a snapshot"),
        };
        self.note_snapshot(None, false);
        bytes
    }

    fn shown<'a>(&'a self, config: &'a Value) -> Shown<'a> {
        Shown {
            config,
            made: self.made,
            now: &self.history,
            frozen: self.optimizing.as_ref().map(|it| &it.history),
        }
    }

    fn note_snapshot(&mut self, files: Option<Arc<Files>>, nothing_new: bool) {
        self.version += 1;
        let mut ghosts = BTreeMap::new();
        if let (Some(optimizing), Snapshots::OfHistory(_)) = (&self.optimizing, &self.maker) {
            let then = optimizing.state.points.iter();
            ghosts.extend(
                then.filter(|(id, _)| !self.state.points.contains_key(id))
                    .map(|(id, point)| (*id, point.clone())),
            );
        }
        self.snapshots.push(Arc::new(Snapshot {
            state: Arc::clone(&self.state),
            ghosts: Arc::new(ghosts),
            files,
            nothing_new,
        }));
    }

    /// A partial snapshot.
    fn changes(&mut self, asked: &Request<'_>) -> Answer {
        let Snapshots::OfHistory(maker) = &self.maker else {
            // What follows is a request for a snapshot of everything.
            return plain(404, "");
        };
        let Some(config) = &self.config else {
            return plain(404, "Not found: Collection `c` doesn't exist!");
        };
        let files = maker.files(&self.shown(config));
        let lineage = self.history.lineage(self.operations + 1);
        let answer = partial::answer(&files, lineage, asked);
        if matches!(answer.status, 200 | 304) {
            self.note_snapshot(Some(files), answer.status == 304);
        }
        answer
    }

    fn optimizations(&self) -> Answer {
        let uuid = |number: u64| format!("00000000-0000-4000-9000-{number:012}");
        let running: Vec<Value> = self
            .optimizing
            .iter()
            .map(|_| json!({"uuid": uuid(self.optimized + 1), "status": "optimizing"}))
            .collect();
        let mut told = json!({
            "summary": {
                "queued_optimizations": 0,
                "queued_segments": 0,
                "queued_points": 0,
                "idle_segments": 1,
            },
            "running": running,
        });
        if let Snapshots::OfHistory(_) = self.maker {
            let completed = (self.forgotten + 1..=self.optimized).rev().take(16);
            told["completed"] = completed
                .map(|number| json!({"uuid": uuid(number)}))
                .collect();
        }
        success(told)
    }

    /// Metadata is all that a client changes.
    fn patch(&mut self, body: &Value) -> Answer {
        self.version += 1;
        if let (Some(config), Some(changes)) = (&mut self.config, body["metadata"].as_object()) {
            if !config["metadata"].is_object() {
                config["metadata"] = json!({});
            }
            for (key, value) in changes {
                config["metadata"][key] = value.clone();
            }
        }
        success(json!(true))
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
        let mut params = json!({
            "vectors": part("vectors", json!({})),
            "shard_number": part("shard_number", json!(1)),
            "replication_factor": 1,
            "write_consistency_factor": 1,
            "on_disk_payload": part("on_disk_payload", json!(true)),
        });
        if self.limits.keyed {
            params["sharding_method"] = json!("custom");
        }
        let mut described = json!({
            "params": params,
            "hnsw_config": {
                "m": 16, "ef_construct": 100, "full_scan_threshold": 10000,
                "max_indexing_threads": 0, "on_disk": false,
            },
            "optimizer_config": {
                "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                "default_segment_number": 0, "max_segment_size": null,
                "memmap_threshold": null, "indexing_threshold": 10000,
                "flush_interval_sec": 5, "max_optimization_threads": null,
                "prevent_unoptimized": null,
            },
            "wal_config": {
                "wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1,
            },
            "quantization_config": null,
        });
        if config["metadata"].is_object() {
            described["metadata"] = config["metadata"].clone();
        }
        success(json!({
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": 0,
            "points_count": self.state.points.len(),
            "segments_count": 1,
            "config": described,
            "payload_schema": indexes,
            "update_queue": {"length": 0},
        }))
    }

    fn retrieve(&mut self, body: &Value) -> Answer {
        let Some(ids) = body["ids"].as_array() else {
            return refusal(400, "Format error in JSON body: missing field `ids`");
        };
        // Nothing but the ids, unless it is asked for.
        let (with_payload, with_vector) = (
            body["with_payload"] != json!(false) && !body["with_payload"].is_null(),
            body["with_vector"] == json!(true),
        );
        let found = ids.iter().filter_map(|id| {
            let point = self.state.points.get(&id.as_u64()?)?;
            let mut record = json!({"id": id});
            if with_payload {
                record["payload"] = Value::Object(point.payload.clone());
            }
            if with_vector {
                record["vector"] = json!(point.vector);
            }
            Some(record)
        });
        success(found.collect())
    }

    fn count(&mut self, body: &Value) -> Answer {
        let count = match &body["filter"] {
            Value::Null => self.state.points.len(),
            filter => match operation::ids_of_filter(filter) {
                Some(ids) => ids
                    .iter()
                    .filter(|id| self.state.points.contains_key(id))
                    .count(),
                None => {
                    self.violations
                        .push(format!("a filter that the server does not know: {filter}"));
                    return refusal(501, "the simulated server does not know that filter");
                }
            },
        };
        success(json!({"count": count}))
    }

    /// Applies operation by operation, until one is refused. What was applied stays.
    fn writes(&mut self, operations: &[Operation], is_batch: bool) -> Answer {
        self.version += 1;
        if let Some(limit) = self.limits.points
            && operations.iter().any(Operation::stores)
            && self.state.points.len() >= limit
        {
            // Checked for all operations, before the first is applied.
            return refusal(
                400,
                &format!("Bad request: Max points count limit of {limit} reached!"),
            );
        }
        let mut results = Vec::new();
        let mut effects = Vec::new();
        let mut outcome = Ok(());
        for operation in operations {
            outcome = self.apply(operation, &mut effects);
            if outcome.is_err() {
                break;
            }
            results.push(json!({"operation_id": self.operations, "status": "completed"}));
        }
        for (id, _) in &effects {
            self.writers.entry(*id).or_default().insert(self.device);
        }
        let arrived: Vec<Arrived> = effects
            .iter()
            .filter_map(|(id, effect)| {
                let PointChange::Upsert(point) = effect else {
                    return None;
                };
                let stamp = point
                    .payload
                    .get(STAMP)
                    .and_then(Value::as_u64)
                    .unwrap_or(0);
                Some(Arrived { id: *id, stamp })
            })
            .collect();
        if !effects.is_empty() {
            let arrivals = self.arrivals.entry(self.device).or_default();
            arrivals.push(Arc::new(arrived));
            let all = self.effects.entry(self.device).or_default();
            all.push(Arc::new(effects));
        }
        match outcome {
            Ok(()) if is_batch => success(Value::Array(results)),
            Ok(()) => success(results.pop().unwrap_or_default()),
            Err(fault) => {
                let mut answer = refusal(fault.status, &fault.words);
                if let Some(seconds) = fault.retry_after {
                    answer.headers.push(("retry-after", seconds.to_string()));
                }
                answer
            }
        }
    }

    fn apply(
        &mut self,
        operation: &Operation,
        effects: &mut Vec<(u64, PointChange)>,
    ) -> Result<(), Fault> {
        if operation.names_no_point() {
            return Err(Fault::new(400, "Bad request: Empty update request"));
        }
        if self.limits.keyed && !operation.is_of_the_collection() {
            return Err(Fault::new(400, "Wrong input: Shard key not specified"));
        }
        self.charge(operation)?;
        if let Some(id) = operation.upserts(&self.refused_ids) {
            return Err(Fault::new(
                400,
                format!("Wrong input: point {id} is refused"),
            ));
        }
        self.operations += if operation.is_of_the_collection() {
            2
        } else {
            1
        };
        let outcome = self.change(operation, effects);
        outcome.inspect_err(|fault| {
            let missed = self.missed.entry(self.device).or_default();
            missed.extend(&fault.missing);
        })
    }

    /// Does it to what the collection holds and to its shard.
    fn change(
        &mut self,
        operation: &Operation,
        effects: &mut Vec<(u64, PointChange)>,
    ) -> Result<(), Fault> {
        let before = effects.len();
        let outcome = operation.apply(Arc::make_mut(&mut self.state), effects);
        for (id, effect) in &effects[before..] {
            self.history.push(ShardChange::Point(*id, effect.clone()));
        }
        match operation {
            Operation::CreateIndex(field, schema) => {
                let change = ShardChange::CreateIndex(field.clone(), schema.clone());
                self.history.push(change);
            }
            Operation::DeleteIndex(field) => {
                self.history.push(ShardChange::DeleteIndex(field.clone()))
            }
            Operation::Upsert(_) | Operation::Delete(_) | Operation::Change(..) => {}
        }
        self.history.tick();
        outcome
    }

    /// Takes what an operation costs.
    fn charge(&mut self, operation: &Operation) -> Result<(), Fault> {
        let Some(rate) = &mut self.limits.rate else {
            return Ok(());
        };
        let cost = operation.points().max(1);
        if cost > rate.capacity {
            return Err(Fault::new(
                429,
                "Rate limiting exceeded: Write rate limit exceeded, request larger than rate \
                 limiter capacity, please try to split your request",
            ));
        }
        match rate.left.checked_sub(cost) {
            Some(left) => {
                rate.left = left;
                Ok(())
            }
            None => {
                let words = format!(
                    "Rate limiting exceeded: Write rate limit exceeded: Operation requires {cost} \
                     tokens but only {}.0 were available. Retry after 1s",
                    rate.left
                );
                // By the next request a second has passed, and more than that.
                rate.left = rate.capacity;
                Err(Fault {
                    retry_after: Some(1),
                    ..Fault::new(429, words)
                })
            }
        }
    }
}

fn description(name: &str, bytes: &[u8]) -> Value {
    json!({
        "name": name,
        "creation_time": "2026-01-01T00:00:00",
        "size": bytes.len(),
        "checksum": sha256(bytes),
    })
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

/// The server's words without its envelope.
pub(super) fn plain(status: u16, words: &str) -> Answer {
    Answer {
        status,
        headers: vec![
            ("content-type", "text/plain; charset=utf-8".to_owned()),
            ("content-length", words.len().to_string()),
        ],
        body: words.as_bytes().to_vec(),
    }
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
fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}
