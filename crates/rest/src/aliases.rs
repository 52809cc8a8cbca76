//! Aliases of collections, in front of a backend that knows none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::{
    Alias, Backend, CollectionState, Error, Gauge, Operator, Result, SnapshotDescription,
    SnapshotScope, StoredSnapshot,
};

/// Aliases by name, with the collection that each stands for. Kept in a file.
#[derive(Debug, Default)]
struct Aliases(BTreeMap<String, String>);

impl Aliases {
    /// Those in `file`; none without it.
    fn load(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(text) => Ok(Self(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file as a whole.
    fn store(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_vec(&self.0)?)?;
        fs::rename(&new, file)
    }

    /// All of them, as the API lists them.
    fn list(&self) -> Vec<Alias> {
        let aliases = self.0.iter();
        aliases
            .map(|(alias, collection)| Alias {
                alias_name: alias.clone(),
                collection_name: collection.clone(),
            })
            .collect()
    }

    /// Whether a name is an alias.
    fn contains(&self, alias: &str) -> bool {
        self.0.contains_key(alias)
    }

    /// The collection that a name stands for: itself, unless it is an alias.
    fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// Drops the aliases of a collection.
    fn forget(&mut self, collection: &str) {
        self.0.retain(|_, it| it != collection);
    }

    /// Carries out the body of `POST /collections/aliases`. Actions before one that is refused stay.
    fn change(&mut self, body: &str, exists: impl Fn(&str) -> bool) -> Result<()> {
        let body: Value = serde_json::from_str(body).map_err(Error::body_format)?;
        let Some(actions) = body["actions"].as_array() else {
            return Err(Error::body_format("missing field `actions`"));
        };
        for action in actions {
            self.carry_out(action, &exists)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: &Value, exists: &impl Fn(&str) -> bool) -> Result<()> {
        let text = |kind: &str, key: &str| {
            let text = action[kind][key].as_str().map(str::to_owned);
            text.ok_or_else(|| {
                Error::body_format(
                    "data did not match any variant of untagged enum AliasOperations",
                )
            })
        };
        if action.get("create_alias").is_some() {
            let collection = text("create_alias", "collection_name")?;
            let alias = text("create_alias", "alias_name")?;
            if !exists(&collection) {
                return Err(Error::no_collection(&collection));
            }
            if exists(&alias) {
                return Err(Error::collection_exists(&alias));
            }
            self.0.insert(alias, collection);
        } else if action.get("delete_alias").is_some() {
            self.0.remove(&text("delete_alias", "alias_name")?);
        } else {
            let old = text("rename_alias", "old_alias_name")?;
            let new = text("rename_alias", "new_alias_name")?;
            let Some(collection) = self.0.remove(&old) else {
                return Err(Error::NotFound(format!("Alias {old} does not exists!")));
            };
            self.0.insert(new, collection);
        }
        Ok(())
    }

    /// A collection may not have the name of an alias.
    fn check_free(&self, collection: &str) -> Result<()> {
        if !self.contains(collection) {
            return Ok(());
        }
        Err(Error::invalid(
            "",
            format!(
                "Can't create collection with name {collection}. Alias with the same name already \
                 exists"
            ),
        ))
    }
}

/// A backend whose collections have aliases, too.
#[derive(Debug)]
pub struct Aliased<B> {
    backend: Arc<B>,
    file: PathBuf,
    aliases: RwLock<Aliases>,
}

impl<B: Backend> Aliased<B> {
    /// Keeps the aliases in `file`.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn new(backend: Arc<B>, file: PathBuf) -> io::Result<Self> {
        let aliases = RwLock::new(Aliases::load(&file)?);
        Ok(Self {
            backend,
            file,
            aliases,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Aliases> {
        self.aliases.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self, name: &str) -> String {
        self.read().resolve(name).to_owned()
    }

    fn change(&self, change: impl FnOnce(&mut Aliases) -> Result<()>) -> Result<()> {
        let mut aliases = self.aliases.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut aliases);
        aliases.store(&self.file).map_err(|error| {
            let file = self.file.display();
            Error::Internal(format!("writing the aliases to {file}: {error}"))
        })?;
        changed
    }

    fn in_scope<T>(
        &self,
        scope: SnapshotScope<'_>,
        call: impl FnOnce(&B, SnapshotScope<'_>) -> Result<T>,
    ) -> Result<T> {
        let collection = self.named(scope.collection);
        let shard = scope.shard;
        call(
            &self.backend,
            SnapshotScope {
                collection: &collection,
                shard,
            },
        )
    }
}

impl<B: Backend> Backend for Aliased<B> {
    fn collections(&self) -> Result<Vec<String>> {
        self.backend.collections()
    }

    fn collection(&self, collection: &str) -> Result<CollectionState> {
        self.backend.collection(&self.named(collection))
    }

    fn request(
        &self,
        collection: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Box<RawValue>> {
        let collection = self.named(collection);
        self.backend.request(&collection, method, path, body)
    }

    fn gauges(&self) -> Result<Vec<Gauge>> {
        self.backend.gauges()
    }

    fn operator(&self, collection: Option<&str>) -> Result<Option<Box<dyn Operator>>> {
        let collection = collection.map(|name| self.named(name));
        self.backend.operator(collection.as_deref())
    }

    fn create_collection(&self, collection: &str, body: &str) -> Result<()> {
        // No alias comes to have the name meanwhile.
        let aliases = self.read();
        aliases.check_free(collection)?;
        self.backend.create_collection(collection, body)
    }

    fn aliases(&self) -> Result<Vec<Alias>> {
        Ok(self.read().list())
    }

    fn change_aliases(&self, body: &str) -> Result<()> {
        self.change(|aliases| {
            let names = self.backend.collections()?;
            aliases.change(body, |name| names.iter().any(|it| it == name))
        })
    }

    fn update_collection(&self, collection: &str, body: &str) -> Result<()> {
        self.backend
            .update_collection(&self.named(collection), body)
    }

    fn optimize(&self, collection: &str) -> Result<()> {
        self.backend.optimize(&self.named(collection))
    }

    /// By its own name, with its aliases.
    fn delete_collection(&self, collection: &str) -> Result<bool> {
        let was_there = self.backend.delete_collection(collection)?;
        if self
            .read()
            .list()
            .iter()
            .any(|it| it.collection_name == collection)
        {
            self.change(|aliases| {
                aliases.forget(collection);
                Ok(())
            })?;
        }
        Ok(was_there)
    }

    fn create_snapshot(&self, scope: SnapshotScope<'_>) -> Result<SnapshotDescription> {
        self.in_scope(scope, B::create_snapshot)
    }

    fn snapshots(&self, scope: SnapshotScope<'_>) -> Result<Vec<SnapshotDescription>> {
        self.in_scope(scope, B::snapshots)
    }

    fn stored_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<StoredSnapshot> {
        self.in_scope(scope, |backend, scope| backend.stored_snapshot(scope, name))
    }

    fn delete_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<()> {
        self.in_scope(scope, |backend, scope| backend.delete_snapshot(scope, name))
    }

    fn stream_snapshot(&self, collection: &str, shard: u32) -> Result<File> {
        self.backend.stream_snapshot(&self.named(collection), shard)
    }

    fn peer_of_cluster(&self) -> Option<u64> {
        self.backend.peer_of_cluster()
    }

    fn create_shard_key(&self, collection: &str, body: &str) -> Result<()> {
        self.backend.create_shard_key(&self.named(collection), body)
    }

    fn delete_shard_key(&self, collection: &str, body: &str) -> Result<()> {
        self.backend.delete_shard_key(&self.named(collection), body)
    }

    fn partial_snapshot(
        &self,
        collection: &str,
        shard: u32,
        manifest: &Value,
    ) -> Result<Option<File>> {
        let collection = self.named(collection);
        self.backend.partial_snapshot(&collection, shard, manifest)
    }
}
