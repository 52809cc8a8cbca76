//! Collections over the native engine: what the double serves.
//!
//! One folder a collection, with the shard in `shard/` and stored snapshots in `snapshots/`. The
//! engine's own write-ahead log is off, so a double that is killed (not stopped) forgets what was
//! written since the last flush.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use edge_sync_engine::{
    CollectionConfig, Request, Shard, SnapshotLimits, StorageKind, Write, parse_request,
    unpack_snapshot,
};
use edge_sync_rest::{
    Backend, CollectionState, Error, Result, SnapshotDescription, SnapshotScope, StoredSnapshot,
};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The only shard of every collection.
const SHARD: u32 = 0;

pub(super) struct NativeBackend {
    directory: PathBuf,
    collections: RwLock<BTreeMap<String, Arc<Mutex<Collection>>>>,
    snapshots_made: AtomicU64,
}

struct Collection {
    directory: PathBuf,
    /// None after a write failed half-way, until the next call opens it again.
    shard: Option<Shard>,
    writes: u64,
}

impl Collection {
    fn shard_directory(&self) -> PathBuf {
        self.directory.join("shard")
    }

    fn snapshot_directory(&self) -> PathBuf {
        self.directory.join("snapshots")
    }

    fn shard(&mut self) -> Result<&Shard> {
        let directory = self.shard_directory();
        match &mut self.shard {
            Some(shard) => Ok(shard),
            empty => Ok(empty.insert(Shard::load(&directory).map_err(refusal)?)),
        }
    }

    fn write(&mut self, write: Write, path: &str, body: &str) -> Result<Value> {
        let shard = self.shard()?;
        shard.validate(&write).map_err(refusal)?;
        for step in write.steps() {
            let shard = self.shard()?;
            let operations = shard.prepare(step).map_err(refusal)?;
            if let Err(error) = shard.apply(&operations) {
                if let Some(shard) = self.shard.take() {
                    shard.discard();
                }
                return Err(refusal(error));
            }
        }
        self.writes += 1;
        let receipt = json!({"operation_id": self.writes, "status": "completed"});
        if path != "/points/batch" {
            return Ok(receipt);
        }
        let body: Value = serde_json::from_str(body).map_err(Error::body_format)?;
        let operations = body["operations"].as_array().map_or(0, Vec::len);
        Ok(Value::Array(vec![receipt; operations]))
    }
}

impl NativeBackend {
    /// Opens the collections in `directory`, which is made if missing.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut collections = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name
                && path.join("shard").is_dir()
            {
                let shard = Shard::load(&path.join("shard")).map_err(io::Error::other)?;
                let collection = Collection {
                    directory: path.clone(),
                    shard: Some(shard),
                    writes: 0,
                };
                collections.insert(name.to_owned(), Arc::new(Mutex::new(collection)));
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            collections: RwLock::new(collections),
            snapshots_made: AtomicU64::new(0),
        })
    }

    fn with<T>(&self, name: &str, call: impl FnOnce(&mut Collection) -> Result<T>) -> Result<T> {
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
        if !collection.directory.exists() {
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

    /// Does what the server's optimizers do by themselves.
    pub(super) fn optimize(&self, name: &str) -> Result<bool> {
        self.with(name, |collection| {
            collection.shard()?.optimize().map_err(refusal)
        })
    }

    fn insert(&self, name: &str, directory: PathBuf, shard: Shard) {
        let collection = Collection {
            directory,
            shard: Some(shard),
            writes: 0,
        };
        let mut collections = self
            .collections
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        collections.insert(name.to_owned(), Arc::new(Mutex::new(collection)));
    }

    /// A name that no snapshot of this double has had.
    fn snapshot_name(&self, collection: &str, now: DateTime<Utc>) -> String {
        let number = self.snapshots_made.fetch_add(1, Ordering::SeqCst);
        let time = now.format("%Y-%m-%d-%H-%M-%S-%f");
        format!("{collection}-shard-{SHARD}-{number}-{time}.snapshot")
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
            let shard = collection.shard()?;
            let info = shard.info().map_err(refusal)?;
            Ok(CollectionState {
                config: shard.config().to_json(),
                payload_schema: info.payload_schema,
                points: info.points,
                indexed_vectors: info.indexed_vectors,
                segments: u64::from(info.segments),
            })
        })
    }

    fn create_collection(&self, collection: &str, body: &str) -> Result<()> {
        let config = CollectionConfig::from_json(body).map_err(refusal)?;
        // Held throughout, so that two requests cannot create the same folder.
        let mut collections = self
            .collections
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if collections.contains_key(collection) {
            return Err(Error::collection_exists(collection));
        }
        let directory = self.directory.join(collection);
        let shard = fs::create_dir_all(&directory)
            .map_err(|error| internal("create", &directory, &error))
            .and_then(|()| Shard::create(&directory.join("shard"), &config).map_err(refusal));
        match shard {
            Ok(shard) => {
                let created = Collection {
                    directory,
                    shard: Some(shard),
                    writes: 0,
                };
                collections.insert(collection.to_owned(), Arc::new(Mutex::new(created)));
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
        if let Some(shard) = removed.shard.take() {
            shard.discard();
        }
        fs::remove_dir_all(&removed.directory)
            .map_err(|error| internal("remove", &removed.directory, &error))?;
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
            match parse_request(method, path, body).map_err(refusal)? {
                Request::Read(read) => collection.shard()?.read(read).map_err(refusal),
                Request::Write(write) => collection.write(write, path, body),
            }
        })?;
        to_raw_value(&result).map_err(|error| Error::Internal(format!("result: {error}")))
    }

    fn optimize(&self, collection: &str) -> Result<()> {
        NativeBackend::optimize(self, collection).map(drop)
    }

    fn create_snapshot(&self, scope: SnapshotScope<'_>) -> Result<SnapshotDescription> {
        one_shard(scope)?;
        self.with(scope.collection, |collection| {
            let directory = collection.snapshot_directory();
            fs::create_dir_all(&directory)
                .map_err(|error| internal("create", &directory, &error))?;
            let name = self.snapshot_name(scope.collection, Utc::now());
            let path = directory.join(&name);
            collection
                .shard()?
                .create_snapshot(&path)
                .map_err(refusal)?;
            let checksum = sha256(&path).map_err(|error| internal("read", &path, &error))?;
            let beside = checksum_file(&path);
            fs::write(&beside, checksum).map_err(|error| internal("write", &beside, &error))?;
            Self::describe(collection, &name)
        })
    }

    fn snapshots(&self, scope: SnapshotScope<'_>) -> Result<Vec<SnapshotDescription>> {
        if scope.shard.is_none() {
            // There are none, since none can be made.
            return self.with(scope.collection, |_| Ok(Vec::new()));
        }
        one_shard(scope)?;
        self.with(scope.collection, |collection| {
            let names = snapshot_names(collection);
            names
                .iter()
                .map(|name| Self::describe(collection, name))
                .collect()
        })
    }

    fn stored_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<StoredSnapshot> {
        self.with(scope.collection, |collection| {
            let path = existing_snapshot(collection, scope, name)?;
            Ok(StoredSnapshot { path })
        })
    }

    fn delete_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<()> {
        self.with(scope.collection, |collection| {
            let path = existing_snapshot(collection, scope, name)?;
            let _ = fs::remove_file(checksum_file(&path));
            fs::remove_file(&path).map_err(|error| internal("remove", &path, &error))
        })
    }

    fn stream_snapshot(&self, collection: &str, shard: u32) -> Result<File> {
        one_shard(SnapshotScope {
            collection,
            shard: Some(shard),
        })?;
        self.with(collection, |collection| {
            let folder = tempfile::tempdir_in(&self.directory)
                .map_err(|error| internal("create a folder in", &self.directory, &error))?;
            let path = folder.path().join("shard.snapshot");
            collection
                .shard()?
                .create_snapshot(&path)
                .map_err(refusal)?;
            // The open file outlives its name.
            File::open(&path).map_err(|error| internal("open", &path, &error))
        })
    }
}

fn lock(collection: &Mutex<Collection>) -> MutexGuard<'_, Collection> {
    collection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one_shard(scope: SnapshotScope<'_>) -> Result<()> {
    match scope.shard {
        Some(SHARD) => Ok(()),
        Some(other) => Err(Error::NotFound(format!("Shard {other} not found"))),
        None => Err(Error::Unsupported(
            "the double makes snapshots of shards only: POST /collections/{collection}/shards/0/snapshots"
                .to_owned(),
        )),
    }
}

/// Oldest first.
fn snapshot_names(collection: &Collection) -> Vec<String> {
    let Ok(entries) = fs::read_dir(collection.snapshot_directory()) else {
        return Vec::new();
    };
    let mut names: Vec<(SystemTime, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let modified = entry.metadata().ok()?.modified().ok()?;
            name.ends_with(".snapshot").then_some((modified, name))
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
    let there = scope.shard == Some(SHARD) && snapshot_names(collection).iter().any(|n| n == name);
    if !there {
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

fn internal(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::Internal(format!("{doing} {}: {error}", path.display()))
}

/// The engine's errors, as the server would put them.
fn refusal(error: edge_sync_engine::Error) -> Error {
    use edge_sync_engine::Error as Engine;
    match error {
        Engine::InvalidInput { field, message } => Error::InvalidInput { field, message },
        Engine::NotFound(what) => Error::NotFound(what),
        Engine::AlreadyExists(what) => Error::AlreadyExists(what),
        Engine::Unsupported(why) => Error::Unsupported(why),
        Engine::BadSnapshot(why) => Error::invalid("snapshot", why),
        Engine::Storage {
            kind: StorageKind::NoSpace,
            ..
        } => Error::InsufficientStorage(error.to_string()),
        Engine::Internal(what) => Error::Internal(what),
        other => Error::Internal(other.to_string()),
    }
}
