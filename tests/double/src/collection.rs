//! One collection over the native engine. Requests are read, and writes applied, as a server does it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edge_sync_engine::{
    Changes, CollectionConfig, Request, Selection, Shard, StorageKind, Strictness, Write,
    parse_request_as,
};
use edge_sync_rest::{Error, Result};
use serde_json::{Map, Value, json};

use crate::history::History;
use crate::optimizations::Optimized;
use crate::parts::Parts;
use crate::strict_mode::{CollectionSize, StrictMode, WriteRate, WriteSummary};

/// The bodies of `PATCH /collections/{c}` since the creation, as a list of texts.
const CHANGES_FILE: &str = "changes.json";

/// Points of a list that a server changes before it looks whether all of them were there.
const CHANGED_AT_ONCE: usize = 32;

/// A collection, without the shards of keys that may be behind it.
pub(super) struct Collection {
    pub(super) directory: PathBuf,
    /// None after a write failed half-way, until the next call opens it again.
    shard: Option<Shard>,
    /// Beside the shard above if there are several.
    pub(super) parts: Parts,
    pub(super) history: History,
    /// What was changed of the configuration since the creation.
    changes: Vec<(String, Changes)>,
    pub(super) rate: Option<WriteRate>,
    /// What a test says that the optimizers do; null for the truth.
    pub(super) optimizations: Value,
    pub(super) optimized: Optimized,
}

impl Collection {
    pub(super) fn new(directory: PathBuf, shard: Shard, parts: Parts) -> Self {
        let mut collection = Self {
            directory,
            shard: Some(shard),
            parts,
            history: History::default(),
            changes: Vec::new(),
            rate: None,
            optimizations: Value::Null,
            optimized: Optimized::default(),
        };
        collection.rate = collection
            .config()
            .ok()
            .and_then(|config| WriteRate::of(&StrictMode::of(&config)));
        collection
    }

    /// Makes a collection in `directory`.
    pub(super) fn create(directory: PathBuf, config: &CollectionConfig) -> Result<Self> {
        fs::create_dir_all(&directory).map_err(|error| internal("create", &directory, &error))?;
        let shard = Shard::create(&directory.join("shard"), config).map_err(refusal)?;
        let parts = Parts::create(&directory, config).map_err(refusal)?;
        Ok(Self::new(directory, shard, parts))
    }

    /// Closes it without storing what is in memory.
    pub(super) fn discard(&mut self) {
        if let Some(shard) = self.shard.take() {
            shard.discard();
        }
        self.parts.discard();
    }

    /// Points in it.
    pub(super) fn points(&mut self) -> Result<u64> {
        Ok(self.shard()?.info().map_err(refusal)?.points)
    }

    /// Answers a request on points or of the collection.
    pub(super) fn answer(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
        whole_writes: bool,
    ) -> Result<Value> {
        let request = parse_request_as(Strictness::Server, method, path, body);
        match request.map_err(refusal)? {
            Request::Read(read) => self.shard()?.read(read).map_err(refusal),
            Request::Configure(_) => {
                let what = "a change of parameters among requests on points".to_owned();
                Err(Error::Internal(what))
            }
            Request::Write(write) if whole_writes => self.write_whole(write, path),
            Request::Write(write) => self.write(write, method, path, body),
        }
    }

    /// Takes up a collection that an earlier double left.
    pub(super) fn load(directory: PathBuf) -> io::Result<Self> {
        let shard = Shard::load(&directory.join("shard")).map_err(io::Error::other)?;
        let parts = Parts::load(&directory).map_err(io::Error::other)?;
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        let history = History::load(&directory)?;
        let changes: Option<Vec<String>> =
            read(CHANGES_FILE).and_then(|text| serde_json::from_str(&text).ok());
        let mut collection = Self::new(directory, shard, parts);
        collection.history = history;
        for body in changes.unwrap_or_default() {
            let change = parse_change(&body).map_err(io::Error::other)?;
            collection.changes.push((body, change));
        }
        collection.rate = collection
            .config()
            .ok()
            .and_then(|config| WriteRate::of(&StrictMode::of(&config)));
        Ok(collection)
    }

    /// The creation body as it would be now.
    pub(super) fn config(&mut self) -> Result<Value> {
        Ok(self.changed()?.to_json())
    }

    /// Its configuration as it would be now.
    fn changed(&mut self) -> Result<CollectionConfig> {
        let mut config = self.shard()?.config();
        for (_, change) in &self.changes {
            // A vector that it names may be gone by now.
            if let Ok(changed) = config.changed(change, Strictness::Server) {
                config = changed;
            }
        }
        Ok(config)
    }

    /// Carries out the body of `PATCH /collections/{c}`.
    pub(super) fn change(&mut self, body: &str) -> Result<()> {
        let change = parse_change(body)?;
        let config = self.changed()?;
        let changed = config
            .changed(&change, Strictness::Server)
            .map_err(refusal)?;
        self.changes.push((body.to_owned(), change));
        let bodies: Vec<&str> = self.changes.iter().map(|(body, _)| body.as_str()).collect();
        let path = self.directory.join(CHANGES_FILE);
        fs::write(&path, json!(bodies).to_string())
            .map_err(|error| internal("write", &path, &error))?;
        let (before, now) = (config.to_json(), changed.to_json());
        if before["strict_mode_config"] != now["strict_mode_config"] {
            self.rate = WriteRate::of(&StrictMode::of(&now));
        }
        Ok(())
    }

    pub(super) fn shard_directory(&self) -> PathBuf {
        self.directory.join("shard")
    }

    pub(super) fn snapshot_directory(&self) -> PathBuf {
        self.directory.join("snapshots")
    }

    pub(super) fn shard(&mut self) -> Result<&Shard> {
        let directory = self.shard_directory();
        match &mut self.shard {
            Some(shard) => Ok(shard),
            empty => Ok(empty.insert(Shard::load(&directory).map_err(refusal)?)),
        }
    }

    /// Applies operation by operation: one that is refused leaves those before it applied.
    fn write(&mut self, write: Write, method: &str, path: &str, body: &str) -> Result<Value> {
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(body).map_err(Error::body_format)?
        };
        let config = self.config()?;
        let summaries = WriteSummary::of(method, path, &body);
        let mode = StrictMode::of(&config);
        {
            let shard = self.shard()?;
            for summary in &summaries {
                mode.check(summary, || collection_size(shard, &config))?;
            }
        }
        let is_keyed = config["sharding_method"] == "custom";
        let mut receipts = Vec::new();
        for (operation, summary) in write.operations().zip(&summaries) {
            if !operation.is_of_the_collection() {
                // Wrong dimensions of a new point are found before anything else.
                if summary.is_upsert() {
                    self.check_dimensions(&operation)?;
                }
                if is_keyed {
                    return Err(Error::invalid("", "Shard key not specified"));
                }
            }
            let points = match &summary.filter {
                None => summary.listed as u64,
                Some(filter) => self.shard()?.count(Some(filter)).map_err(refusal)?,
            };
            if let Some(rate) = &mut self.rate {
                rate.take(points)?;
            }
            let result = self.apply(operation);
            self.history.store(&self.directory)?;
            result?;
            receipts.push(self.receipt());
        }
        if path == "/points/batch" {
            return Ok(Value::Array(receipts));
        }
        Ok(receipts.pop().unwrap_or_default())
    }

    /// Applies all of it, or nothing of what is refused before anything is applied.
    fn write_whole(&mut self, write: Write, path: &str) -> Result<Value> {
        self.shard()?.validate(&write).map_err(refusal)?;
        let operations = write.len();
        for step in write.steps() {
            self.apply_whole(step)?;
        }
        self.history.count();
        self.history.store(&self.directory)?;
        let receipt = self.receipt();
        if path == "/points/batch" {
            return Ok(Value::Array(vec![receipt; operations]));
        }
        Ok(receipt)
    }

    fn check_dimensions(&mut self, operation: &Write) -> Result<()> {
        match self.shard()?.validate(operation) {
            Err(error) if error.to_string().contains("Vector dimension error") => {
                Err(refusal(error))
            }
            Err(error @ edge_sync_engine::Error::Refused { .. }) => Err(refusal(error)),
            _ => Ok(()),
        }
    }

    /// Applies one operation and counts it. One on points is counted if it is refused as well: the
    /// server has logged it then.
    fn apply(&mut self, operation: Write) -> Result<()> {
        if operation.is_of_the_collection() {
            self.apply_whole(operation)?;
            self.history.count_of_the_collection();
            return Ok(());
        }
        // What names no point reaches no shard.
        if let Err(error @ edge_sync_engine::Error::Refused { .. }) =
            self.shard()?.validate(&operation)
        {
            return Err(refusal(error));
        }
        self.history.count();
        self.shard()?.validate(&operation).map_err(refusal)?;
        let required = operation.required_points();
        let held: BTreeSet<_> = self
            .shard()?
            .retrieve(&required, &Selection::default())
            .map_err(refusal)?
            .into_iter()
            .map(|point| point.id)
            .collect();
        for (number, ids) in required.chunks(CHANGED_AT_ONCE).enumerate() {
            let Some(missing) = ids.iter().find(|id| !held.contains(id)) else {
                continue;
            };
            let reached = required.iter().take((number + 1) * CHANGED_AT_ONCE);
            let there: BTreeSet<_> = reached.filter(|id| held.contains(id)).collect();
            if let Some(rest) = operation.only_points(|id| there.contains(id)) {
                self.apply_whole(rest)?;
            }
            return Err(Error::NotFound(format!("No point with id {missing} found")));
        }
        self.apply_whole(operation)
    }

    fn apply_whole(&mut self, operation: Write) -> Result<()> {
        let shard = self.shard()?;
        let operations = shard.prepare(operation).map_err(refusal)?;
        if let Err(error) = shard
            .apply(operations.clone())
            .and_then(|()| self.parts.apply(&operations))
        {
            if let Some(shard) = self.shard.take() {
                shard.discard();
            }
            return Err(refusal(error));
        }
        Ok(())
    }

    fn receipt(&self) -> Value {
        json!({"operation_id": self.history.operations(), "status": "completed"})
    }
}

/// What a collection holds, for its limits.
fn collection_size(shard: &Shard, config: &Value) -> Result<CollectionSize> {
    let info = shard.info().map_err(refusal)?;
    let vectors = match &config["vectors"] {
        Value::Object(one) if one.contains_key("size") => vec![&config["vectors"]],
        Value::Object(named) => named.values().collect(),
        _ => Vec::new(),
    };
    let dimensions: u64 = vectors
        .into_iter()
        .filter_map(|vector| vector["size"].as_u64())
        .sum();
    Ok(CollectionSize {
        points: info.points,
        vector_bytes: info.points * dimensions * 4,
        payload_indexes: info.payload_schema.as_object().map_or(0, Map::len),
    })
}

pub(super) fn internal(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::Internal(format!("{doing} {}: {error}", path.display()))
}

fn parse_change(body: &str) -> Result<Changes> {
    let request = parse_request_as(Strictness::Server, "PATCH", "", body);
    match request.map_err(refusal)? {
        Request::Configure(changes) => Ok(changes),
        _ => Err(Error::Internal("a PATCH is not a change".to_owned())),
    }
}

/// The engine's errors, as the server would put them.
pub(super) fn refusal(error: edge_sync_engine::Error) -> Error {
    use edge_sync_engine::Error as Engine;
    if let Some((status, message)) = error.as_refusal() {
        return Error::Refused { status, message };
    }
    match error {
        Engine::BadSnapshot(why) => Error::invalid("snapshot", why),
        Engine::Storage {
            kind: StorageKind::NoSpace,
            ..
        } => Error::InsufficientStorage(error.to_string()),
        Engine::Internal(what) => Error::Internal(what),
        other => Error::Internal(other.to_string()),
    }
}
