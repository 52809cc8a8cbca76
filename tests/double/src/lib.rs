//! A double of a Qdrant server: its REST API over the native engine, with faults on demand.
//!
//! What is uploaded to it can be searched, and what is downloaded from it is a real shard
//! snapshot. Every request is recorded; a script of [`Rule`]s says which of them go wrong and how.
//!
//! ```no_run
//! use edge_sync_double::{Fault, Options, QdrantDouble, Rule};
//!
//! let server = QdrantDouble::start(Options::default()).expect("a server");
//! server.faults().add(Rule::on("POST", "/points/batch$").times(2).fault(Fault::DropAnswer));
//! let url = server.url();
//! ```

mod collection;
mod exchange;
mod faults;
mod history;
mod keys;
mod native;
mod optimizations;
mod parts;
mod serve;
mod shaping;
mod stray;
mod strict_mode;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_sync_clients::rest::Client;
use edge_sync_rest::{Aliased, Backend as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub use exchange::{Exchange, PresentedKey};
pub use faults::{Fault, Faults, RandomFaults, Reply, Results, RetryAfter, Rule};

use native::NativeBackend;
use serve::{Listening, Shared};

/// Beside the folders of the collections.
const ALIASES_FILE: &str = "aliases.json";

/// How a double is started.
#[derive(Clone)]
pub struct Options {
    /// Where to listen. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Required in requests, if given.
    pub api_key: Option<String>,
    /// Where collections and snapshots are kept, and taken up again if there are any. None: a
    /// temporary folder.
    pub directory: Option<PathBuf>,
    /// Start without listening: connections are refused until [`QdrantDouble::resume`].
    pub down: bool,
    /// Largest request body, in bytes.
    pub body_limit: usize,
    /// Write requests are applied as a whole or not at all, as a shard on a device takes them, and
    /// not operation by operation, point by point, as a server does.
    pub whole_writes: bool,
    /// One node of a cluster, which has shard keys.
    pub cluster: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            api_key: None,
            directory: None,
            down: false,
            body_limit: edge_sync_rest::Options::default().body_limit,
            whole_writes: false,
            cluster: false,
        }
    }
}

/// A running double. Dropping it stops it, and removes its folder if that was temporary.
///
/// All methods may be called from any thread, inside and outside of an async runtime.
pub struct QdrantDouble {
    shared: Arc<Shared>,
    address: SocketAddr,
    api_key: Option<String>,
    listening: Mutex<Listening>,
    /// None only while dropping.
    runtime: Option<Runtime>,
    _temporary: Option<tempfile::TempDir>,
}

impl QdrantDouble {
    /// Starts a double.
    ///
    /// # Errors
    /// The address cannot be had, or the directory cannot be read.
    pub fn start(options: Options) -> io::Result<Self> {
        let (directory, temporary) = match options.directory {
            Some(directory) => (directory, None),
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("qdrant-double-")
                    .tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let backend = Arc::new(NativeBackend::open(
            &directory,
            options.whole_writes,
            options.cluster,
        )?);
        let aliased = Aliased::new(Arc::clone(&backend), directory.join(ALIASES_FILE))?;
        let router = edge_sync_rest::router(
            Arc::new(aliased),
            edge_sync_rest::Options {
                api_key: options.api_key.clone(),
                body_limit: options.body_limit,
                content_types: edge_sync_rest::ContentTypes::Any,
                ..edge_sync_rest::Options::default()
            },
        );
        let shared = Arc::new(Shared::new(backend, router, options.api_key.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("qdrant-double")
            .enable_all()
            .build()?;
        let listening = Listening::reserve(&runtime, options.listen)?;
        let double = Self {
            address: listening.address()?,
            shared,
            api_key: options.api_key,
            listening: Mutex::new(listening),
            runtime: Some(runtime),
            _temporary: temporary,
        };
        if !options.down {
            double.resume()?;
        }
        Ok(double)
    }

    /// Where it listens, also while it is down.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, also while it is down.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Refuses connections from now on and cuts those that are open; what was being applied is
    /// still applied. The port stays reserved and the collections stay. Nothing if it is down.
    ///
    /// # Errors
    /// The port cannot be reserved again.
    pub fn stop(&self) -> io::Result<()> {
        match &self.runtime {
            Some(runtime) => self.listening().stop(runtime, self.address),
            None => Ok(()),
        }
    }

    /// Listens (again). Nothing if it does.
    ///
    /// # Errors
    /// Whatever the socket reports.
    pub fn resume(&self) -> io::Result<()> {
        match &self.runtime {
            Some(runtime) => self.listening().resume(runtime, &self.shared),
            None => Ok(()),
        }
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The script of faults.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Accepts and at once resets the next `count` connections.
    pub fn refuse_connections(&self, count: u32) {
        self.shared.refuse_connections(count);
    }

    /// Sends snapshots no faster than this many bytes a second, until it is changed.
    pub fn throttle_snapshots(&self, bytes_per_second: Option<u64>) {
        self.shared.throttle_snapshots(bytes_per_second);
    }

    /// A client that presents the right API key.
    pub fn client(&self) -> Client {
        Client::new(&self.url(), self.api_key.as_deref())
    }

    /// Every request so far, in the order of arrival.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.log.all()
    }

    /// As [`QdrantDouble::exchanges`], and forgets them.
    pub fn take_exchanges(&self) -> Vec<Exchange> {
        self.shared.log.take()
    }

    /// Whether to keep request bodies in the record (they are by default).
    pub fn record_bodies(&self, keep: bool) {
        self.shared.log.keep_bodies(keep);
    }

    /// Waits until `condition` holds for the record of requests; it is asked after every answer.
    /// False if it does not within `patience`.
    pub fn wait_for(&self, patience: Duration, condition: impl FnMut(&[Exchange]) -> bool) -> bool {
        self.shared.log.wait_for(patience, condition)
    }

    /// Asks the engine itself: no HTTP, no record, no faults. `path` is below the collection.
    ///
    /// # Errors
    /// What a client would be told.
    pub fn inspect(
        &self,
        collection: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> edge_sync_rest::Result<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let result = self
            .shared
            .backend
            .request(collection, method, path, &body)?;
        serde_json::from_str(result.get())
            .map_err(|error| edge_sync_rest::Error::Internal(format!("result: {error}")))
    }

    /// How many points a collection holds, asked as [`QdrantDouble::inspect`] does.
    ///
    /// # Errors
    /// There is no such collection.
    pub fn count(&self, collection: &str) -> edge_sync_rest::Result<u64> {
        let result = self.inspect(collection, "POST", "/points/count", &json!({"exact": true}))?;
        Ok(result["count"].as_u64().unwrap_or_default())
    }

    /// All points of a collection with payload and vectors, as REST points by the text of their
    /// id, asked as [`QdrantDouble::inspect`] does.
    ///
    /// # Errors
    /// There is no such collection.
    pub fn points(&self, collection: &str) -> edge_sync_rest::Result<BTreeMap<String, Value>> {
        let mut points = BTreeMap::new();
        let mut offset = Value::Null;
        loop {
            let mut body = json!({"limit": 1000, "with_payload": true, "with_vector": true});
            if !offset.is_null() {
                body["offset"] = offset;
            }
            let mut page = self.inspect(collection, "POST", "/points/scroll", &body)?;
            let Value::Array(found) = page["points"].take() else {
                return Ok(points);
            };
            points.extend(
                found
                    .into_iter()
                    .map(|point| (point["id"].to_string(), point)),
            );
            offset = page["next_page_offset"].take();
            if offset.is_null() {
                return Ok(points);
            }
        }
    }

    /// Makes a collection out of a shard snapshot, in place of one of that name.
    ///
    /// # Errors
    /// The snapshot cannot be unpacked or loaded.
    pub fn restore(&self, collection: &str, snapshot: &Path) -> edge_sync_rest::Result<()> {
        self.shared.backend.restore(collection, snapshot)
    }

    /// Fills the write rate limit of a collection's strict mode, as a minute without writes does.
    ///
    /// # Errors
    /// There is no such collection.
    pub fn refill_rate_limit(&self, collection: &str) -> edge_sync_rest::Result<()> {
        self.shared.backend.refill_rate_limit(collection)
    }

    /// From now on `GET /collections/{c}/optimizations` answers this (its lists `queued`, `completed`
    /// and `idle_segments` only if they are asked for); null for the truth, which is that nothing is
    /// under way.
    ///
    /// # Errors
    /// There is no such collection.
    pub fn set_optimizations(
        &self,
        collection: &str,
        optimizations: Value,
    ) -> edge_sync_rest::Result<()> {
        self.shared
            .backend
            .set_optimizations(collection, optimizations)
    }

    /// Gives a tenant a shard key of its own: moves the points that `filter` selects from the shard of
    /// the key `from` to a new one of the key `to`.
    ///
    /// # Errors
    /// There is no such collection or key, or the new key is there.
    pub fn promote(
        &self,
        collection: &str,
        filter: &Value,
        from: &Value,
        to: &Value,
    ) -> edge_sync_rest::Result<()> {
        self.shared.backend.promote(collection, filter, from, to)
    }

    /// Merges segments and builds indexes. A server does that by itself; the double only here.
    /// True if anything was done; then `GET /collections/{c}/optimizations?with=completed` lists it,
    /// by the id of the segment that was built.
    ///
    /// # Errors
    /// There is no such collection, or the engine fails.
    pub fn optimize(&self, collection: &str) -> edge_sync_rest::Result<bool> {
        self.shared.backend.optimize(collection)
    }
}

impl fmt::Debug for QdrantDouble {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QdrantDouble")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for QdrantDouble {
    fn drop(&mut self) {
        let _ = self.stop();
        if let Some(runtime) = self.runtime.take() {
            // Waiting for blocking calls would panic when dropped inside an async test.
            runtime.shutdown_background();
        }
    }
}
