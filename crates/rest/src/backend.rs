//! What the layer asks of whatever holds the points.

use std::fs::File;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{Error, Gauge, Operator, Result};

/// Holds collections and answers requests about them.
///
/// Calls block; the layer makes them on the runtime's blocking pool, several at a time. A request
/// whose client has gone away is still carried out.
pub trait Backend: Send + Sync + 'static {
    /// Names of the collections, in any order.
    ///
    /// # Errors
    /// Whatever keeps the backend from knowing.
    fn collections(&self) -> Result<Vec<String>>;

    /// State of one collection.
    ///
    /// # Errors
    /// [`Error::no_collection`] if it is not there.
    fn collection(&self, collection: &str) -> Result<CollectionState>;

    /// Carries out a request below `/collections/{collection}` and answers the REST `result`, as
    /// the JSON text that is sent: for a write, `{"operation_id", "status": "completed"}`.
    ///
    /// `path` begins with a slash (`/points/query`), is percent-encoded as the client sent it, and
    /// has no query string: `wait`, `ordering`, `timeout` and `consistency` are the layer's
    /// business. `body` is well-formed JSON, or empty where the endpoint takes none.
    ///
    /// # Errors
    /// [`Error::no_collection`], or what the request deserves.
    fn request(
        &self,
        collection: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Box<RawValue>>;

    /// What it has to say in `/metrics`, under the server's names where the server has them. It must
    /// not wait for long.
    ///
    /// # Errors
    /// Whatever keeps the backend from knowing.
    fn gauges(&self) -> Result<Vec<Gauge>> {
        Ok(vec![Gauge {
            name: "collections_total",
            help: "number of collections",
            label: None,
            value: self.collections()?.len() as f64,
        }])
    }

    /// What answers below `/edge-sync`; none where there is no such thing. `collection`: the one that
    /// the request names.
    ///
    /// # Errors
    /// [`Error::no_collection`]; [`Error::InvalidInput`] if one has to be named.
    fn operator(&self, collection: Option<&str>) -> Result<Option<Box<dyn Operator>>> {
        let _ = collection;
        Ok(None)
    }

    /// Creates a collection; `body` is that of `PUT /collections/{collection}`.
    ///
    /// # Errors
    /// [`Error::collection_exists`]; [`Error::InvalidInput`] for a configuration that cannot be.
    fn create_collection(&self, collection: &str, body: &str) -> Result<()> {
        let _ = body;
        Err(Error::Unsupported(format!(
            "this endpoint serves a fixed set of collections, `{collection}` cannot be created"
        )))
    }

    /// All aliases, in any order.
    ///
    /// # Errors
    /// Whatever keeps the backend from knowing.
    fn aliases(&self) -> Result<Vec<Alias>> {
        Ok(Vec::new())
    }

    /// Creates, renames and deletes aliases; `body` is that of `POST /collections/aliases`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless overridden.
    fn change_aliases(&self, body: &str) -> Result<()> {
        let _ = body;
        Err(Error::Unsupported(
            "this endpoint serves a fixed set of collections, without aliases".to_owned(),
        ))
    }

    /// Changes a collection's parameters; `body` is that of `PATCH /collections/{collection}`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless overridden.
    fn update_collection(&self, collection: &str, body: &str) -> Result<()> {
        let _ = body;
        Err(Error::Unsupported(format!(
            "the parameters of `{collection}` cannot be changed after creation"
        )))
    }

    /// Merges segments and builds indexes, as the server's optimizers do by themselves. Returns
    /// when that is done.
    ///
    /// # Errors
    /// [`Error::no_collection`]; [`Error::Unsupported`] unless overridden.
    fn optimize(&self, collection: &str) -> Result<()> {
        Err(Error::Unsupported(format!(
            "`{collection}` cannot be optimized over this endpoint"
        )))
    }

    /// Deletes a collection with its snapshots. False if there was none.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless overridden.
    fn delete_collection(&self, collection: &str) -> Result<bool> {
        Err(Error::Unsupported(format!(
            "this endpoint serves a fixed set of collections, `{collection}` cannot be deleted"
        )))
    }

    /// Makes a snapshot and keeps it until it is deleted.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless overridden.
    fn create_snapshot(&self, scope: SnapshotScope<'_>) -> Result<SnapshotDescription> {
        Err(no_snapshots(scope))
    }

    /// The stored snapshots, oldest first.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless overridden.
    fn snapshots(&self, scope: SnapshotScope<'_>) -> Result<Vec<SnapshotDescription>> {
        Err(no_snapshots(scope))
    }

    /// Where a stored snapshot lies.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unsupported`] unless overridden.
    fn stored_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<StoredSnapshot> {
        let _ = name;
        Err(no_snapshots(scope))
    }

    /// Deletes a stored snapshot.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unsupported`] unless overridden.
    fn delete_snapshot(&self, scope: SnapshotScope<'_>, name: &str) -> Result<()> {
        let _ = name;
        Err(no_snapshots(scope))
    }

    /// Makes a snapshot of one shard that is kept nowhere, for
    /// `GET /collections/{c}/shards/{s}/snapshot`. The file is sent from its start to its end and
    /// then closed; it may have no name any more.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless overridden.
    fn stream_snapshot(&self, collection: &str, shard: u32) -> Result<File> {
        Err(no_snapshots(SnapshotScope {
            collection,
            shard: Some(shard),
        }))
    }

    /// This server's number in the cluster that it is one of; none if it is alone.
    fn peer_of_cluster(&self) -> Option<u64> {
        None
    }

    /// `PUT /collections/{c}/shards`: makes a shard key, and a shard for it.
    ///
    /// # Errors
    /// As the API has them; by default there are no shard keys.
    fn create_shard_key(&self, collection: &str, body: &str) -> Result<()> {
        let _ = (collection, body);
        Err(no_shard_keys())
    }

    /// `POST /collections/{c}/shards/delete`: removes a shard key, and what is in its shards.
    ///
    /// # Errors
    /// As the API has them; by default there are no shard keys.
    fn delete_shard_key(&self, collection: &str, body: &str) -> Result<()> {
        let _ = (collection, body);
        Err(no_shard_keys())
    }

    /// What changed of one shard since `manifest`, segment manifests by segment, for
    /// `POST /collections/{c}/shards/{s}/snapshot/partial/create`. None: nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless overridden.
    fn partial_snapshot(
        &self,
        collection: &str,
        shard: u32,
        manifest: &serde_json::Value,
    ) -> Result<Option<File>> {
        let _ = manifest;
        Err(no_snapshots(SnapshotScope {
            collection,
            shard: Some(shard),
        }))
    }
}

fn no_shard_keys() -> Error {
    Error::Unsupported(
        "shard keys: the API is there, but this is one shard, without keys and peers".to_owned(),
    )
}

fn no_snapshots(scope: SnapshotScope<'_>) -> Error {
    Error::Unsupported(format!(
        "this endpoint makes no snapshots of `{}`",
        scope.collection
    ))
}

/// State of a collection, from which `GET /collections/{collection}` is answered.
#[derive(Debug, Clone, Default)]
pub struct CollectionState {
    /// The configuration, as the body of `PUT /collections/{collection}`.
    pub config: Value,
    /// Payload indexes: field name to `{"data_type", "params", "points"}`.
    pub payload_schema: Value,
    /// Points held.
    pub points: u64,
    /// Vectors that an index covers.
    pub indexed_vectors: u64,
    /// Segments of the shard.
    pub segments: u64,
    /// Each shard that is there, by number. Empty: one shard, with all points, unless the collection is
    /// sharded by keys.
    pub shards: Vec<ShardState>,
    /// What the optimizers do, as `GET /collections/{collection}/optimizations` answers it with all
    /// its lists. Null: nothing.
    pub optimizations: Value,
    /// This server's number in a cluster. None: 1.
    pub peer: Option<u64>,
}

/// One shard of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// Its number.
    pub number: u32,
    /// Its shard key, a string or a number, in a collection that is sharded by keys.
    pub key: Option<Value>,
    /// Points in it.
    pub points: u64,
}

/// Another name of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alias {
    /// The name.
    pub alias_name: String,
    /// The collection that it stands for.
    pub collection_name: String,
}

/// Whose snapshots are meant: a whole collection's, or one shard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotScope<'a> {
    /// The collection.
    pub collection: &'a str,
    /// The shard, for `/collections/{c}/shards/{s}/snapshots`; none for
    /// `/collections/{c}/snapshots`.
    pub shard: Option<u32>,
}

/// A stored snapshot, as the API lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotDescription {
    /// File name, unique within its scope.
    pub name: String,
    /// UTC without zone, `2022-08-04T10:49:10`.
    pub creation_time: Option<String>,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub checksum: Option<String>,
}

/// A stored snapshot, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The file, on the machine that answers.
    pub path: PathBuf,
}
