//! The shard as the one collection of a Qdrant server: what `serve` answers from.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::metrics;
use crate::operator::ShardOperator;
use crate::refusal::refusal;
use edge_sync_host::{Cancel, EdgeSync, Error as HostError, Progress, Syncer};
use edge_sync_rest::{
    Backend, CollectionState, Error, Gauge, Operator, Result, SnapshotDescription, SnapshotScope,
    StoredSnapshot,
};
use serde_json::Value;
use serde_json::value::RawValue;

/// Holds the collection's name in the data directory. The component leaves names that begin with
/// a dot alone.
const NAME_FILE: &str = ".collection-name.json";

/// What `serve` needs besides of what it answers from.
pub trait Devices: Backend {
    /// Handles to the shards that are open, each with the name of its collection where there are
    /// several.
    fn open_shards(&self) -> Vec<(Option<String>, EdgeSync)>;

    /// Gives back what nobody has needed for a while. Called now and then.
    fn give_back(&self) {}

    /// Collections that are there, open or not.
    fn ready(&self) -> Vec<String>;

    /// Where the data lies: a data directory, or a folder of several.
    fn folder(&self) -> &Path;
}

impl Devices for ShardBackend {
    fn open_shards(&self) -> Vec<(Option<String>, EdgeSync)> {
        vec![(None, self.edge.clone())]
    }

    fn ready(&self) -> Vec<String> {
        self.collection_name().into_iter().collect()
    }

    fn folder(&self) -> &Path {
        self.edge.shard().directory()
    }
}

/// A shard under a collection's name.
pub struct ShardBackend {
    edge: EdgeSync,
    /// The name that is set, if one is: the collection can have no other.
    fixed: Option<String>,
    /// Whether there is a server to upload to, now or at another time.
    has_server: bool,
    /// The collection's name while there is a shard; locked while one is created or removed.
    collection: RwLock<Option<String>>,
}

impl ShardBackend {
    /// Serves `edge` under the name that is set, else the one that it had before, else that of its
    /// folder; it keeps that name.
    pub fn new(
        edge: EdgeSync,
        fixed: Option<String>,
        has_server: bool,
    ) -> Result<ShardBackend, HostError> {
        let collection = if edge.shard().is_present()? {
            let directory = edge.shard().directory();
            let stored = stored_name(directory)?;
            let name = fixed
                .clone()
                .or_else(|| stored.clone())
                .unwrap_or_else(|| folder_name(directory));
            if stored.as_ref() != Some(&name) {
                store_name(directory, &name)?;
            }
            Some(name)
        } else {
            None
        };
        Ok(ShardBackend {
            edge,
            fixed,
            has_server,
            collection: RwLock::new(collection),
        })
    }

    pub fn edge(&self) -> &EdgeSync {
        &self.edge
    }

    pub fn into_edge(self) -> EdgeSync {
        self.edge
    }

    /// The collection's name, if there is one.
    pub fn collection_name(&self) -> Option<String> {
        self.read().clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<String>> {
        self.collection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<String>> {
        self.collection
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, name: &str) -> Result<()> {
        if self.read().as_deref() == Some(name) {
            Ok(())
        } else {
            Err(Error::no_collection(name))
        }
    }

    fn no_snapshots(&self, scope: SnapshotScope<'_>) -> Error {
        if let Err(error) = self.check(scope.collection) {
            return error;
        }
        Error::Unsupported(format!(
            "this endpoint makes no snapshots of `{}`: a shard on a device is restored from a \
             server's snapshot (`edge-sync restore`), a server is not restored from a device",
            scope.collection
        ))
    }

    /// True if the shard has never had to do with a server: what waits in its log then waits for
    /// nobody.
    fn is_local_only(&self) -> Result<bool, HostError> {
        let record = self.edge.sync_record();
        Ok(!self.has_server
            && record.last_sync_ms.is_none()
            && record.last_restore_ms.is_none()
            && self.edge.shard().queue_status()?.acknowledged == 0)
    }

    /// Uploads what waits, without patience for a server that cannot be reached. Why it did not
    /// work out, if it did not.
    fn upload_now(&self) -> Result<Option<String>, HostError> {
        let cancel = Cancel::new();
        let mut why = None;
        let report = self.edge.sync_with(&cancel, |step| {
            if let Progress::Waiting { failure, .. } = step {
                why = Some(failure.to_string());
                cancel.cancel();
            }
        })?;
        Ok(why.or(report.failure.map(|failure| failure.to_string())))
    }
}

impl Backend for ShardBackend {
    fn operator(&self, collection: Option<&str>) -> Result<Option<Box<dyn Operator>>> {
        if let Some(collection) = collection {
            self.check(collection)?;
        }
        Ok(Some(Box::new(ShardOperator {
            edge: self.edge.clone(),
            collection: self.collection_name(),
        })))
    }

    fn gauges(&self) -> Result<Vec<Gauge>> {
        let collection = self.collection_name();
        let mut gauges = vec![metrics::gauge(
            "collections_total",
            "number of collections",
            f64::from(u8::from(collection.is_some())),
        )];
        gauges.extend(metrics::of_device(&self.edge, collection.as_deref()));
        Ok(gauges)
    }

    fn collections(&self) -> Result<Vec<String>> {
        Ok(self.collection_name().into_iter().collect())
    }

    fn collection(&self, collection: &str) -> Result<CollectionState> {
        self.check(collection)?;
        let info = self.edge.shard().info().map_err(refusal)?;
        let parse = |json: &str| {
            serde_json::from_str::<Value>(json)
                .map_err(|error| Error::Internal(format!("the shard's state: {error}")))
        };
        Ok(CollectionState {
            config: parse(&info.config)?,
            payload_schema: parse(&info.payload_schema)?,
            points: info.points,
            indexed_vectors: info.indexed_vectors,
            segments: u64::from(info.segments),
            ..CollectionState::default()
        })
    }

    fn request(
        &self,
        collection: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Box<RawValue>> {
        self.check(collection)?;
        let result = self
            .edge
            .shard()
            .answer(method, path, body)
            .map_err(refusal)?
            .map_err(|refused| Error::Refused {
                status: refused.status,
                message: refused.message,
            })?;
        RawValue::from_string(result).map_err(|error| Error::Internal(format!("result: {error}")))
    }

    fn create_collection(&self, collection: &str, body: &str) -> Result<()> {
        let mut present = self.write();
        match present.as_deref() {
            Some(name) if name == collection => return Err(Error::collection_exists(collection)),
            Some(name) => {
                return Err(Error::Unsupported(format!(
                    "this endpoint holds one collection, `{name}`; `{collection}` needs a data \
                     directory of its own"
                )));
            }
            None => {}
        }
        if let Some(name) = &self.fixed
            && name != collection
        {
            return Err(Error::Unsupported(format!(
                "this endpoint is set to hold the collection `{name}`, `{collection}` cannot be \
                 created"
            )));
        }
        let shard = self.edge.shard();
        // Before the shard: a name without a shard means nothing.
        store_name(shard.directory(), collection).map_err(refusal)?;
        shard.create_here(body).map_err(|error| match error {
            // In the server's words and with its status, where a value is out of range.
            HostError::InvalidInput { field, message }
                if message.starts_with("value ")
                    && message.contains(" invalid, must be ")
                    // A server cannot even parse 0 where it wants a number of things.
                    && !message.starts_with("value 0 invalid, must be 1 or ") =>
            {
                Error::OutOfRange(format!("JSON body: [{field}: {message}]"))
            }
            error => refusal(error),
        })?;
        *present = Some(collection.to_owned());
        Ok(())
    }

    /// Of the shard alone: the collection on a server keeps its own parameters.
    fn update_collection(&self, collection: &str, body: &str) -> Result<()> {
        self.request(collection, "PATCH", "", body).map(drop)
    }

    fn optimize(&self, collection: &str) -> Result<()> {
        self.check(collection)?;
        self.edge.shard().optimize().map(drop).map_err(refusal)
    }

    /// Removes the shard, but nothing that is nowhere else: what waits for upload is uploaded
    /// first. The server's collection stays.
    fn delete_collection(&self, collection: &str) -> Result<bool> {
        if self.check(collection).is_err() {
            return Ok(false);
        }
        // Not under the lock: it may take a while, and others go on meanwhile.
        let failure = if self.edge.has_server() {
            self.upload_now().map_err(refusal)?
        } else {
            None
        };
        // Waits for the exchange under way, if there is one, and so not under the lock either.
        let _paused = self.edge.syncer().map(Syncer::pause);
        let mut present = self.write();
        if present.as_deref() != Some(collection) {
            return Ok(false);
        }
        let local_only = self.is_local_only().map_err(refusal)?;
        match self.edge.remove(local_only) {
            Ok(()) => {}
            Err(error @ HostError::Unsent { .. }) => {
                let what_to_do = match failure {
                    Some(failure) => format!("The upload before it failed: {failure}"),
                    None => "Upload what waits (`edge-sync sync`) and see `edge-sync rejected list`; or \
                             stop this endpoint and remove its data directory"
                        .to_owned(),
                };
                return Err(Error::Conflict(format!(
                    "`{collection}` is not deleted: {error}. {what_to_do}"
                )));
            }
            Err(error) => return Err(refusal(error)),
        }
        *present = None;
        // A name without a shard means nothing.
        let _ = std::fs::remove_file(self.edge.shard().directory().join(NAME_FILE));
        Ok(true)
    }

    fn create_snapshot(&self, scope: SnapshotScope<'_>) -> Result<SnapshotDescription> {
        Err(self.no_snapshots(scope))
    }

    fn snapshots(&self, scope: SnapshotScope<'_>) -> Result<Vec<SnapshotDescription>> {
        self.check(scope.collection)?;
        // There are none, since none can be made.
        Ok(Vec::new())
    }

    fn stored_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<StoredSnapshot> {
        self.check(scope.collection)?;
        let _ = name;
        // As a server says it of a collection that has none.
        Err(Error::NotFound(format!(
            "Snapshot directory: ./snapshots/{} not found",
            scope.collection
        )))
    }

    fn delete_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<()> {
        self.stored_snapshot(scope, name).map(drop)
    }

    fn stream_snapshot(&self, collection: &str, shard: u32) -> Result<File> {
        Err(self.no_snapshots(SnapshotScope {
            collection,
            shard: Some(shard),
        }))
    }
}

/// The name that the collection in `directory` was last served under.
pub fn stored_name(directory: &Path) -> Result<Option<String>, HostError> {
    let path = directory.join(NAME_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(HostError::Io {
                operation: "read the collection's name in",
                path,
                source,
            });
        }
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| HostError::Setting {
            name: "collection",
            message: format!(
                "{} does not hold a name ({error}); give --collection",
                path.display()
            ),
        })
}

/// Replaces the name as a whole, durably.
fn store_name(directory: &Path, name: &str) -> Result<(), HostError> {
    let path = directory.join(NAME_FILE);
    let new = directory.join(format!("{NAME_FILE}.new"));
    let text = Value::from(name).to_string();
    File::create(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&new, &path))
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|source| HostError::Io {
            operation: "write the collection's name to",
            path,
            source,
        })
}

/// What a shard without a name is called.
fn folder_name(directory: &Path) -> String {
    let full = directory.canonicalize();
    let path = full.as_deref().unwrap_or(directory);
    match path.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => "edge-sync".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_and_a_damaged_one_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(stored_name(directory.path()).unwrap(), None);
        for name in ["colours", "a \"name\"\nof two lines"] {
            store_name(directory.path(), name).unwrap();
            assert_eq!(
                stored_name(directory.path()).unwrap().as_deref(),
                Some(name)
            );
        }
        std::fs::write(directory.path().join(NAME_FILE), "{").unwrap();
        let error = stored_name(directory.path()).unwrap_err().to_string();
        assert!(error.contains("--collection"), "{error}");
    }
}
