//! Collections over the native engine: what the double serves.
//!
//! One folder a collection, with the shard in `shard/` (and beside it one folder for each shard of a
//! collection of several), stored snapshots in `snapshots/` and what was changed of the
//! configuration. The engine's own write-ahead log is off, so a double that is killed (not stopped) forgets
//! what was written since the last flush.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use edge_sync_engine::{CollectionConfig, Shard, SnapshotLimits, Strictness, unpack_snapshot};
use edge_sync_rest::{
    Backend, CollectionState, Error, Result, SnapshotDescription, SnapshotScope, StoredSnapshot,
};
use edge_sync_snapshots::{self as snapshots, Layout, Lineage};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::collection::{Collection, internal, refusal};
use crate::keys::Keys;
use crate::optimizations::Segments;
use crate::parts::{self, Parts};

/// Holds the server's number in a cluster.
const PEER_FILE: &str = "peer";

/// Numbers of servers are below this: clients read them as doubles.
const PEERS: u64 = 1 << 53;

pub(super) struct NativeBackend {
    directory: PathBuf,
    collections: RwLock<BTreeMap<String, Arc<Mutex<Served>>>>,
    whole_writes: bool,
    /// This server's number in a cluster.
    peer: u64,
    /// It is one node of a cluster.
    in_cluster: bool,
}

/// What clients see as one collection.
struct Served {
    own: Collection,
    /// Behind its shard, which holds nothing then, if the collection is sharded by keys.
    keys: Keys,
}

impl Served {
    fn new(own: Collection) -> Self {
        let keys = Keys::default();
        Self { own, keys }
    }

    /// Takes up a collection that an earlier double left.
    fn load(directory: PathBuf) -> io::Result<Self> {
        let keys = Keys::load(&directory)?;
        let own = Collection::load(directory)?;
        Ok(Self { own, keys })
    }

    /// Closes it without storing what is in memory.
    fn discard(&mut self) {
        self.own.discard();
        self.keys.all().for_each(Collection::discard);
    }

    /// Points in it, whatever their keys.
    fn points(&mut self) -> Result<u64> {
        let own = self.own.points()?;
        let keyed = self.keys.states()?.into_iter().map(|shard| shard.points);
        Ok(own + keyed.sum::<u64>())
    }

    fn is_keyed(&mut self) -> Result<bool> {
        Ok(self.own.config()?["sharding_method"] == "custom")
    }

    /// Answers a request on points or of the collection.
    fn answer(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
        whole_writes: bool,
    ) -> Result<Value> {
        if self.is_keyed()? {
            if path.starts_with("/points") || path.starts_with("/facet") {
                let answer = self.keys.answer(method, path, body, whole_writes)?;
                if let Some(answer) = answer {
                    return Ok(answer);
                }
            } else if !path.is_empty() {
                for shard in self.keys.all() {
                    shard.answer(method, path, body, whole_writes)?;
                }
            }
        }
        self.own.answer(method, path, body, whole_writes)
    }

    /// The shard of which snapshots with this number are made.
    fn numbered(&mut self, number: u32) -> Result<&Shard> {
        let missing = || refusal(parts::no_shard(number));
        if self.is_keyed()? {
            return self.keys.get(number).ok_or_else(missing)?.shard();
        }
        if !self.own.parts.is_empty() {
            return self.own.parts.get(number).ok_or_else(missing);
        }
        if number > 0 {
            return Err(missing());
        }
        self.own.shard()
    }

    /// The moment that a snapshot of the shard with this number is of.
    fn lineage(&mut self, number: u32, peer: u64) -> Lineage {
        match self.keys.get(number) {
            Some(keyed) => keyed.history.lineage(peer),
            None => self.own.history.lineage(peer),
        }
    }
}

impl NativeBackend {
    /// Opens the collections in `directory`, which is made if missing.
    pub(super) fn open(directory: &Path, whole_writes: bool, in_cluster: bool) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut collections = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name
                && path.join("shard").is_dir()
            {
                let collection = Served::load(path.clone())?;
                collections.insert(name.to_owned(), Arc::new(Mutex::new(collection)));
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            collections: RwLock::new(collections),
            whole_writes,
            peer: peer(directory)?,
            in_cluster,
        })
    }

    /// The server makes shards and moves them only as one of a cluster.
    fn check_in_cluster(&self) -> Result<()> {
        if self.in_cluster {
            return Ok(());
        }
        Err(Error::Refused {
            status: 405,
            message: "Qdrant is running in standalone mode".to_owned(),
        })
    }

    fn with<T>(&self, name: &str, call: impl FnOnce(&mut Served) -> Result<T>) -> Result<T> {
        let found = {
            let collections = self
                .collections
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            collections.get(name).map(Arc::clone)
        };
        let collection = found.ok_or_else(|| Error::no_collection(name))?;
        let mut collection = lock(&collection);
        // Deleted while this call waited for it.
        if !collection.own.directory.exists() {
            return Err(Error::no_collection(name));
        }
        call(&mut collection)
    }

    /// Makes a collection out of a shard snapshot, in place of one of that name.
    pub(super) fn restore(&self, name: &str, snapshot: &Path) -> Result<()> {
        self.delete_collection(name)?;
        let directory = self.directory.join(name);
        let shard_directory = directory.join("shard");
        let loaded = fs::create_dir_all(&directory)
            .map_err(|error| internal("create", &directory, &error))
            .and_then(|()| {
                unpack_snapshot(snapshot, &shard_directory, SnapshotLimits::default())
                    .and_then(|_| Shard::load(&shard_directory))
                    .map_err(refusal)
            });
        match loaded {
            Ok(shard) => {
                self.insert(name, directory, shard);
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_dir_all(&directory);
                Err(error)
            }
        }
    }

    /// Fills the collection's write rate limit, as a minute does.
    pub(super) fn refill_rate_limit(&self, name: &str) -> Result<()> {
        self.with(name, |collection| {
            if let Some(rate) = &mut collection.own.rate {
                rate.refill();
            }
            Ok(())
        })
    }

    /// What the optimizers are said to do from now on; null for nothing.
    pub(super) fn set_optimizations(&self, name: &str, optimizations: Value) -> Result<()> {
        self.with(name, |collection| {
            collection.own.optimizations = optimizations;
            Ok(())
        })
    }

    /// Does what the server's optimizers do by themselves.
    pub(super) fn optimize(&self, name: &str) -> Result<bool> {
        self.with(name, |collection| {
            let collection = &mut collection.own;
            let directory = collection.shard_directory();
            let started = Utc::now();
            let shard = collection.shard()?;
            let before = Segments::of(shard, &directory).map_err(refusal)?;
            if !shard.optimize().map_err(refusal)? {
                return Ok(false);
            }
            collection.parts.optimize().map_err(refusal)?;
            let shard = collection.shard()?;
            let after = Segments::of(shard, &directory).map_err(refusal)?;
            collection.optimized.add(&before, &after, started);
            Ok(true)
        })
    }

    pub(super) fn promote(
        &self,
        name: &str,
        filter: &Value,
        from: &Value,
        to: &Value,
    ) -> Result<()> {
        self.create_shard_key(name, &json!({ "shard_key": to }).to_string())?;
        self.with(name, |collection| {
            let mut ask = |path: &str, body: Value| {
                collection.answer("POST", path, &body.to_string(), self.whole_writes)
            };
            let found = ask(
                "/points/scroll",
                json!({"filter": filter, "shard_key": from, "limit": 100_000,
                       "with_payload": true, "with_vector": true}),
            )?;
            let mut points = found["points"].clone();
            for point in points.as_array_mut().into_iter().flatten() {
                if let Some(point) = point.as_object_mut() {
                    point.remove("shard_key");
                }
            }
            let operations = json!([
                {"upsert": {"points": points, "shard_key": to}},
                {"delete": {"filter": filter, "shard_key": from}},
            ]);
            ask("/points/batch", json!({ "operations": operations })).map(drop)
        })
    }

    fn insert(&self, name: &str, directory: PathBuf, shard: Shard) {
        let own = Collection::new(directory, shard, Parts::default());
        let mut collections = self
            .collections
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        collections.insert(name.to_owned(), Arc::new(Mutex::new(Served::new(own))));
    }

    /// The server's name for a snapshot, by the second. A second in which there is one already, in
    /// which the server would write over it, is left to that one.
    fn snapshot_name(folder: &Path, collection: &str, shard: u32, now: DateTime<Utc>) -> String {
        let mut time = now;
        loop {
            let stamp = time.format("%Y-%m-%d-%H-%M-%S");
            let name = format!("{collection}-shard-{shard}-{stamp}.snapshot");
            if !folder.join(&name).exists() {
                return name;
            }
            time += chrono::Duration::seconds(1);
        }
    }

    fn describe(collection: &Collection, name: &str) -> Result<SnapshotDescription> {
        let path = collection.snapshot_directory().join(name);
        let metadata = fs::metadata(&path).map_err(|error| internal("read", &path, &error))?;
        let made: DateTime<Utc> = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH).into();
        Ok(SnapshotDescription {
            name: name.to_owned(),
            creation_time: Some(made.format("%Y-%m-%dT%H:%M:%S").to_string()),
            size: metadata.len(),
            checksum: fs::read_to_string(checksum_file(&path)).ok(),
        })
    }
}

impl Backend for NativeBackend {
    fn collections(&self) -> Result<Vec<String>> {
        let collections = self
            .collections
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(collections.keys().cloned().collect())
    }

    fn collection(&self, collection: &str) -> Result<CollectionState> {
        self.with(collection, |collection| {
            let points = collection.points()?;
            let keyed = collection.keys.states()?;
            let collection = &mut collection.own;
            let config = collection.config()?;
            let mut shards = collection.parts.states().map_err(refusal)?;
            shards.extend(keyed);
            let info = collection.shard()?.info().map_err(refusal)?;
            let optimizations = match &collection.optimizations {
                Value::Null => collection.optimized.while_idle(info.segments),
                told => told.clone(),
            };
            Ok(CollectionState {
                config,
                payload_schema: info.payload_schema,
                points,
                indexed_vectors: info.indexed_vectors,
                segments: u64::from(info.segments),
                shards,
                optimizations,
                peer: Some(self.peer),
            })
        })
    }

    fn create_collection(&self, collection: &str, body: &str) -> Result<()> {
        let config = CollectionConfig::from_json_as(Strictness::Server, body).map_err(refusal)?;
        // Held throughout, so that two requests cannot create the same folder.
        let mut collections = self
            .collections
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if collections.contains_key(collection) {
            return Err(Error::collection_exists(collection));
        }
        let directory = self.directory.join(collection);
        match Collection::create(directory.clone(), &config) {
            Ok(created) => {
                collections.insert(
                    collection.to_owned(),
                    Arc::new(Mutex::new(Served::new(created))),
                );
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_dir_all(&directory);
                Err(error)
            }
        }
    }

    fn delete_collection(&self, collection: &str) -> Result<bool> {
        let removed = {
            let mut collections = self
                .collections
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            collections.remove(collection)
        };
        let Some(removed) = removed else {
            return Ok(false);
        };
        let mut removed = lock(&removed);
        removed.discard();
        let directory = &removed.own.directory;
        fs::remove_dir_all(directory).map_err(|error| internal("remove", directory, &error))?;
        Ok(true)
    }

    fn request(
        &self,
        collection: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Box<RawValue>> {
        let result = self.with(collection, |collection| {
            collection.answer(method, path, body, self.whole_writes)
        })?;
        to_raw_value(&result).map_err(|error| Error::Internal(format!("result: {error}")))
    }

    fn optimize(&self, collection: &str) -> Result<()> {
        NativeBackend::optimize(self, collection).map(drop)
    }

    fn update_collection(&self, collection: &str, body: &str) -> Result<()> {
        self.with(collection, |collection| collection.own.change(body))
    }

    fn create_snapshot(&self, scope: SnapshotScope<'_>) -> Result<SnapshotDescription> {
        let shard = one_shard(scope)?;
        self.with(scope.collection, |collection| {
            collection.numbered(shard)?;
            let directory = collection.own.snapshot_directory();
            fs::create_dir_all(&directory)
                .map_err(|error| internal("create", &directory, &error))?;
            let name = Self::snapshot_name(&directory, scope.collection, shard, Utc::now());
            let path = directory.join(&name);
            let shard = collection.numbered(shard)?;
            snapshots::create(shard, &path, Layout::Stored).map_err(refusal)?;
            let checksum = sha256(&path).map_err(|error| internal("read", &path, &error))?;
            let beside = checksum_file(&path);
            fs::write(&beside, checksum).map_err(|error| internal("write", &beside, &error))?;
            Self::describe(&collection.own, &name)
        })
    }

    fn snapshots(&self, scope: SnapshotScope<'_>) -> Result<Vec<SnapshotDescription>> {
        if scope.shard.is_none() {
            // There are none, since none can be made.
            return self.with(scope.collection, |_| Ok(Vec::new()));
        }
        let shard = one_shard(scope)?;
        self.with(scope.collection, |collection| {
            collection.numbered(shard)?;
            let names = snapshot_names(&collection.own, shard);
            names
                .iter()
                .map(|name| Self::describe(&collection.own, name))
                .collect()
        })
    }

    fn stored_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<StoredSnapshot> {
        self.with(scope.collection, |collection| {
            let path = existing_snapshot(&collection.own, scope, name)?;
            Ok(StoredSnapshot { path })
        })
    }

    fn delete_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<()> {
        self.with(scope.collection, |collection| {
            let path = existing_snapshot(&collection.own, scope, name)?;
            let _ = fs::remove_file(checksum_file(&path));
            fs::remove_file(&path).map_err(|error| internal("remove", &path, &error))
        })
    }

    fn stream_snapshot(&self, collection: &str, shard: u32) -> Result<File> {
        self.with(collection, |collection| {
            let folder = tempfile::tempdir_in(&self.directory)
                .map_err(|error| internal("create a folder in", &self.directory, &error))?;
            let path = folder.path().join("shard.snapshot");
            let shard = collection.numbered(shard)?;
            snapshots::create(shard, &path, Layout::Streamed).map_err(refusal)?;
            // The open file outlives its name.
            File::open(&path).map_err(|error| internal("open", &path, &error))
        })
    }

    fn peer_of_cluster(&self) -> Option<u64> {
        self.in_cluster.then_some(self.peer)
    }

    fn create_shard_key(&self, collection: &str, body: &str) -> Result<()> {
        self.check_in_cluster()?;
        self.with(collection, |found| {
            if !found.is_keyed()? {
                return Err(Error::BadRequest(
                    "Shard Key cannot be created with Auto sharding method".to_owned(),
                ));
            }
            let schema = found.own.shard()?.info().map_err(refusal)?.payload_schema;
            let mut config = found.own.shard()?.config().to_json();
            if let Some(config) = config.as_object_mut() {
                config.remove("sharding_method");
            }
            let config = CollectionConfig::from_value(&config).map_err(refusal)?;
            let directory = found.own.directory.clone();
            let keys = &mut found.keys;
            keys.create(&directory, collection, &config, &schema, body)
        })
    }

    fn delete_shard_key(&self, collection: &str, body: &str) -> Result<()> {
        self.check_in_cluster()?;
        self.with(collection, |found| {
            let directory = found.own.directory.clone();
            found.keys.delete(&directory, body)
        })
    }

    fn partial_snapshot(
        &self,
        collection: &str,
        shard: u32,
        manifest: &Value,
    ) -> Result<Option<File>> {
        self.with(collection, |collection| {
            let folder = tempfile::tempdir_in(&self.directory)
                .map_err(|error| internal("create a folder in", &self.directory, &error))?;
            let path = folder.path().join("shard.snapshot");
            let lineage = collection.lineage(shard, self.peer);
            let shard = collection.numbered(shard)?;
            let changed =
                snapshots::create_partial(shard, manifest, &path, lineage).map_err(refusal)?;
            if !changed {
                return Ok(None);
            }
            let file = File::open(&path).map_err(|error| internal("open", &path, &error))?;
            Ok(Some(file))
        })
    }
}

/// The number of the server whose collections are in `directory`, drawn when there is none.
fn peer(directory: &Path) -> io::Result<u64> {
    let path = directory.join(PEER_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => text.parse().map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let peer = fastrand::u64(1..PEERS);
            fs::write(&path, peer.to_string())?;
            Ok(peer)
        }
        Err(error) => Err(error),
    }
}

fn lock(collection: &Mutex<Served>) -> MutexGuard<'_, Served> {
    collection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one_shard(scope: SnapshotScope<'_>) -> Result<u32> {
    match scope.shard {
        Some(shard) => Ok(shard),
        None => Err(Error::Unsupported(
            "the double makes snapshots of shards only: POST /collections/{collection}/shards/0/snapshots"
                .to_owned(),
        )),
    }
}

/// Oldest first.
fn snapshot_names(collection: &Collection, shard: u32) -> Vec<String> {
    let of_the_shard = format!("-shard-{shard}-");
    let Ok(entries) = fs::read_dir(collection.snapshot_directory()) else {
        return Vec::new();
    };
    let mut names: Vec<(SystemTime, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let modified = entry.metadata().ok()?.modified().ok()?;
            (name.ends_with(".snapshot") && name.contains(&of_the_shard))
                .then_some((modified, name))
        })
        .collect();
    names.sort_unstable();
    names.into_iter().map(|(_, name)| name).collect()
}

/// Looks the name up among those that there are, so that it cannot lead elsewhere.
fn existing_snapshot(
    collection: &Collection,
    scope: SnapshotScope<'_>,
    name: &str,
) -> Result<PathBuf> {
    let Some(shard) = scope.shard else {
        return Err(Error::NotFound(format!(
            "Snapshot directory: ./snapshots/{} not found",
            scope.collection
        )));
    };
    if !snapshot_names(collection, shard).iter().any(|n| n == name) {
        return Err(Error::NotFound(format!("Snapshot {name} not found")));
    }
    Ok(collection.snapshot_directory().join(name))
}

fn checksum_file(snapshot: &Path) -> PathBuf {
    let mut name = snapshot.as_os_str().to_owned();
    name.push(".checksum");
    PathBuf::from(name)
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}
