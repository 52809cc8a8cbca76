//! A folder of shards as the collections of a Qdrant server: what `serve --collections` answers from.
//!
//! Each collection is a data directory of its own, in a folder that is named after it. A shard is
//! opened by the first request for it, and closed when nobody has asked for it for a while: its
//! instance's memory is given back.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use edge_sync_host::{EdgeSync, Error as HostError, has_shard};
use edge_sync_rest::{
    Backend, CollectionState, Error, Gauge, Operator, Result, SnapshotDescription, SnapshotScope,
    StoredSnapshot,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::value::RawValue;

use crate::backend::{Devices, ShardBackend, stored_name};
use crate::metrics;
use crate::refusal::refusal;

/// What a name keeps as it is in the name of its folder; `.` and `/` have a meaning there.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Longest name of a folder that every file system takes, in bytes.
const LONGEST_FOLDER: usize = 255;

/// How long the end of the requests to a collection that was deleted is waited for, before its folder
/// is left to the next start.
const DELETED: Duration = Duration::from_secs(5);

/// How long the directory of a shard that was closed may still be held.
const CLOSED: Duration = Duration::from_secs(5);

/// Attaches the data directory of a collection.
pub type Attach =
    Box<dyn Fn(&Path, &str) -> std::result::Result<ShardBackend, HostError> + Send + Sync>;

/// A folder of shards.
pub struct Collections {
    folder: PathBuf,
    attach: Attach,
    /// After so long without a request a shard is closed.
    idle: Duration,
    slots: RwLock<BTreeMap<String, Arc<Slot>>>,
    /// Held while a collection is made or removed.
    changing: Mutex<()>,
}

/// One collection.
struct Slot {
    directory: PathBuf,
    state: Mutex<State>,
}

struct State {
    open: Option<Arc<ShardBackend>>,
    used: Instant,
}

impl Slot {
    fn new(directory: PathBuf, open: Option<Arc<ShardBackend>>) -> Arc<Slot> {
        let used = Instant::now();
        Arc::new(Slot {
            directory,
            state: Mutex::new(State { open, used }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collections {
    /// The collections in `folder`, which is made if it is not there. None is opened yet.
    ///
    /// Errors: [`HostError::Io`]; [`HostError::Setting`] if two folders say that they hold the same
    /// collection.
    pub fn open(
        folder: PathBuf,
        idle: Duration,
        attach: Attach,
    ) -> std::result::Result<Collections, HostError> {
        let failed = |operation| {
            let path = folder.clone();
            move |source| HostError::Io {
                operation,
                path,
                source,
            }
        };
        std::fs::create_dir_all(&folder).map_err(failed("create"))?;
        let mut slots: BTreeMap<String, Arc<Slot>> = BTreeMap::new();
        for entry in std::fs::read_dir(&folder).map_err(failed("list"))? {
            let directory = entry.map_err(failed("list"))?.path();
            if !has_shard(&directory) {
                continue;
            }
            let name = match stored_name(&directory)? {
                Some(name) => name,
                None => name_of_folder(&directory),
            };
            let slot = Slot::new(directory.clone(), None);
            if let Some(other) = slots.insert(name.clone(), slot) {
                return Err(HostError::Setting {
                    name: "collections",
                    message: format!(
                        "{} and {} both hold the collection `{name}`",
                        other.directory.display(),
                        directory.display()
                    ),
                });
            }
        }
        Ok(Collections {
            folder,
            attach,
            idle,
            slots: RwLock::new(slots),
            changing: Mutex::new(()),
        })
    }

    fn slots(&self) -> Vec<(String, Arc<Slot>)> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slots = slots.iter();
        slots
            .map(|(name, slot)| (name.clone(), Arc::clone(slot)))
            .collect()
    }

    fn slot(&self, name: &str) -> Result<Arc<Slot>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots
            .get(name)
            .cloned()
            .ok_or_else(|| Error::no_collection(name))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Arc<Slot>>)) {
        change(&mut self.slots.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The shard of a collection, opened if it is not. Others wait meanwhile, for this one only.
    fn shard(&self, name: &str) -> Result<Arc<ShardBackend>> {
        let slot = self.slot(name)?;
        let mut state = slot.state();
        state.used = Instant::now();
        if let Some(open) = &state.open {
            return Ok(Arc::clone(open));
        }
        let opened = Arc::new(self.attach(&slot.directory, name)?);
        state.open = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Waits for whoever still has a handle to what was closed just now, as the metrics may.
    fn attach(&self, directory: &Path, name: &str) -> Result<ShardBackend> {
        let end = Instant::now() + CLOSED;
        loop {
            match (self.attach)(directory, name) {
                Err(HostError::Locked { .. }) if Instant::now() < end => {}
                attached => return attached.map_err(refusal),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Folder for a new collection.
    fn directory(&self, name: &str) -> Result<PathBuf> {
        let encoded = utf8_percent_encode(name, ENCODED).to_string();
        if encoded.len() > LONGEST_FOLDER {
            return Err(Error::Unsupported(format!(
                "the collection's folder would have a name of {} bytes, and {LONGEST_FOLDER} is the \
                 longest that file systems take",
                encoded.len()
            )));
        }
        Ok(self.folder.join(encoded))
    }
}

/// The collection that a folder is named after.
fn name_of_folder(directory: &Path) -> String {
    let folder = directory.file_name().unwrap_or_default().to_string_lossy();
    percent_decode_str(&folder).decode_utf8_lossy().into_owned()
}

/// Whether everything that was written is on the server, where there is one.
fn is_drained(backend: &ShardBackend) -> bool {
    let edge = backend.edge();
    !edge.has_server()
        || edge
            .shard()
            .queue_status()
            .is_ok_and(|queue| queue.queued == 0)
}

impl Devices for Collections {
    fn open_shards(&self) -> Vec<(Option<String>, EdgeSync)> {
        let slots = self.slots().into_iter();
        slots
            .filter_map(|(name, slot)| {
                let open = slot.state().open.clone()?;
                Some((Some(name), open.edge().clone()))
            })
            .collect()
    }

    /// Closes what nobody has asked for in a while. What waits for upload keeps its shard open.
    fn give_back(&self) {
        for (name, slot) in self.slots() {
            // Whoever has it opens it, or has it looked after already.
            let Ok(mut state) = slot.state.try_lock() else {
                continue;
            };
            if state.used.elapsed() < self.idle {
                continue;
            }
            let Some(open) = state.open.take() else {
                continue;
            };
            if !is_drained(&open) {
                state.open = Some(open);
                continue;
            }
            // A request that still has the shard asks for it anew.
            match Arc::try_unwrap(open) {
                // Within the lock: the next request opens what is closed.
                Ok(backend) => {
                    if let Err(error) = backend.edge().shard().close() {
                        tracing::warn!("closing the collection `{name}`: {error}");
                    }
                    drop(backend.into_edge());
                }
                Err(in_use) => state.open = Some(in_use),
            }
        }
    }

    fn ready(&self) -> Vec<String> {
        self.slots().into_iter().map(|(name, _)| name).collect()
    }

    fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Backend for Collections {
    fn collections(&self) -> Result<Vec<String>> {
        Ok(self.ready())
    }

    fn operator(&self, collection: Option<&str>) -> Result<Option<Box<dyn Operator>>> {
        let name = collection.ok_or_else(|| {
            Error::invalid(
                "collection",
                "there are several: say which with `?collection=NAME`",
            )
        })?;
        self.shard(name)?.operator(None)
    }

    fn gauges(&self) -> Result<Vec<Gauge>> {
        let open = self.open_shards();
        let mut gauges = vec![
            metrics::gauge(
                "collections_total",
                "number of collections",
                self.slots().len() as f64,
            ),
            metrics::gauge(
                "edge_sync_open_shards",
                "collections whose shard is in memory",
                open.len() as f64,
            ),
        ];
        for (name, edge) in open {
            gauges.extend(metrics::of_collection(&edge, name.as_deref()));
        }
        Ok(gauges)
    }

    fn collection(&self, collection: &str) -> Result<CollectionState> {
        self.shard(collection)?.collection(collection)
    }

    fn request(
        &self,
        collection: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Box<RawValue>> {
        let shard = self.shard(collection)?;
        shard.request(collection, method, path, body)
    }

    fn create_collection(&self, collection: &str, body: &str) -> Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.slot(collection).is_ok() {
            return Err(Error::collection_exists(collection));
        }
        let directory = self.directory(collection)?;
        let attached = self.attach(&directory, collection)?;
        if let Err(error) = attached.create_collection(collection, body) {
            drop(attached.into_edge());
            if !has_shard(&directory) {
                let _ = std::fs::remove_dir_all(&directory);
            }
            return Err(error);
        }
        let slot = Slot::new(directory, Some(Arc::new(attached)));
        self.change(|slots| {
            slots.insert(collection.to_owned(), slot);
        });
        Ok(())
    }

    fn delete_collection(&self, collection: &str) -> Result<bool> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(slot) = self.slot(collection) else {
            return Ok(false);
        };
        if !self.shard(collection)?.delete_collection(collection)? {
            return Ok(false);
        }
        self.change(|slots| {
            slots.remove(collection);
        });
        let Some(mut open) = slot.state().open.take() else {
            return Ok(true);
        };
        let end = Instant::now() + DELETED;
        loop {
            match Arc::try_unwrap(open) {
                Ok(backend) => break drop(backend.into_edge()),
                // Without a shard, the folder is no collection whenever it is looked at.
                Err(_) if Instant::now() > end => return Ok(true),
                Err(in_use) => open = in_use,
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if !has_shard(&slot.directory) {
            let _ = std::fs::remove_dir_all(&slot.directory);
        }
        Ok(true)
    }

    fn update_collection(&self, collection: &str, body: &str) -> Result<()> {
        self.shard(collection)?.update_collection(collection, body)
    }

    fn optimize(&self, collection: &str) -> Result<()> {
        self.shard(collection)?.optimize(collection)
    }

    fn create_snapshot(&self, scope: SnapshotScope<'_>) -> Result<SnapshotDescription> {
        self.shard(scope.collection)?.create_snapshot(scope)
    }

    fn snapshots(&self, scope: SnapshotScope<'_>) -> Result<Vec<SnapshotDescription>> {
        self.shard(scope.collection)?.snapshots(scope)
    }

    fn stored_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<StoredSnapshot> {
        self.shard(scope.collection)?.stored_snapshot(scope, name)
    }

    fn delete_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<()> {
        self.shard(scope.collection)?.delete_snapshot(scope, name)
    }

    fn stream_snapshot(&self, collection: &str, shard: u32) -> Result<File> {
        self.shard(collection)?.stream_snapshot(collection, shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Attach {
        Box::new(|_, _| Err(HostError::Internal("not in this test".to_owned())))
    }

    fn opened(folder: &Path) -> std::result::Result<Collections, HostError> {
        Collections::open(folder.to_owned(), Duration::ZERO, nothing())
    }

    #[test]
    fn folders_are_named_after_collections_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let collections = opened(&folder.path().join("made")).unwrap();
        for name in ["colours", "a/b c", "..", "\u{e4}", "%41", "C_1-x"] {
            let directory = collections.directory(name).unwrap();
            assert_eq!(directory.parent(), Some(&*collections.folder), "{name}");
            assert_eq!(name_of_folder(&directory), name);
        }
        let long = "\u{e4}".repeat(100);
        let refused = collections.directory(&long).unwrap_err().to_string();
        assert!(refused.contains("600 bytes"), "{refused}");
    }

    #[test]
    fn only_folders_with_a_shard_are_collections_and_no_two_may_be_one() {
        let folder = tempfile::tempdir().unwrap();
        for (directory, is_shard, name) in [
            ("one", true, None),
            ("two%2E", true, None),
            ("three", true, Some("four")),
            ("none", false, Some("five")),
        ] {
            let directory = folder.path().join(directory);
            std::fs::create_dir(&directory).unwrap();
            if is_shard {
                std::fs::write(directory.join("CURRENT"), "").unwrap();
            }
            if let Some(name) = name {
                let text = serde_json::to_string(name).unwrap();
                std::fs::write(directory.join(".collection-name.json"), text).unwrap();
            }
        }
        std::fs::write(folder.path().join("a file"), "").unwrap();
        let collections = opened(folder.path()).unwrap();
        assert_eq!(collections.ready(), ["four", "one", "two."]);
        assert!(collections.open_shards().is_empty());
        let missing = collections.collection("five").unwrap_err();
        assert!(missing.to_string().contains("five"), "{missing}");

        let again = folder.path().join("again");
        std::fs::create_dir(&again).unwrap();
        std::fs::write(again.join("CURRENT"), "").unwrap();
        std::fs::write(again.join(".collection-name.json"), "\"one\"").unwrap();
        let Err(refused) = opened(folder.path()) else {
            panic!("two of one name");
        };
        let words = refused.to_string();
        assert!(words.contains("both hold the collection `one`"), "{words}");
    }
}
