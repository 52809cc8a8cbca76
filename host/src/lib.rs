//! A [Qdrant Edge](https://qdrant.tech/edge/) shard in your program, kept in step with a collection on a
//! Qdrant server. It answers without a network; what it writes waits on disk, and is uploaded when the
//! server can be reached.
//!
//! # Begin
//!
//! The shard, its log and its upload queue are a WebAssembly component, `edge_sync.wasm`, which
//! `cargo xtask build` makes; this crate runs it in Wasmtime. A program ships the component beside itself
//! ([`Component::load`]), or carries it ([`Component::from_bytes`] with `include_bytes!`). It is compiled
//! once on a machine, which takes half a minute ([`ComponentOptions::on_compile`] tells whoever waits),
//! and then comes from a cache.
//!
//! ```no_run
//! use edge_sync_host::{Component, EdgeSync, Point, SearchRequest};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), edge_sync_host::Error> {
//! let component = Component::load("edge_sync.wasm")?;
//! let edge = EdgeSync::builder(component, "data")
//!     .open_or_create(r#"{"vectors": {"size": 2, "distance": "Cosine"}}"#)?;
//!
//! let red = Point::dense(1, [0.6, 0.8]).payload(&json!({"name": "red", "warm": true}))?;
//! edge.shard().upsert(vec![red])?; // on disk when it returns
//!
//! let warm = json!({"must": [{"key": "warm", "match": {"value": true}}]});
//! let nearest = SearchRequest::nearest("", vec![0.5, 0.5], 10).filter_by(&warm)?;
//! for hit in edge.shard().search(nearest)? {
//!     println!("{:?} {}", hit.id, hit.score);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Keep in step
//!
//! A [`Builder::server`] says with which collection. Then either the program syncs when it likes, or a
//! worker does:
//!
//! ```no_run
//! # use edge_sync_host::{Component, EdgeSync, Secret, ServerSettings, SyncReport, SyncerOptions};
//! # fn main() -> Result<(), edge_sync_host::Error> {
//! # let component = Component::load("edge_sync.wasm")?;
//! let server = ServerSettings::new("https://qdrant.example:6333", "colours")
//!     .api_key(Secret::new(std::env::var("QDRANT_API_KEY").unwrap_or_default()));
//! let edge = EdgeSync::builder(component, "data").server(server.clone()).open()?;
//! let synced = edge.sync().and_then(SyncReport::into_result)?;
//! println!("{} operations uploaded", synced.uploaded);
//! # drop(edge);
//!
//! # let component = Component::load("edge_sync.wasm")?;
//! let edge = EdgeSync::builder(component, "data")
//!     .server(server)
//!     .background(SyncerOptions::default())
//!     .open()?;
//! for event in edge.events() {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A sync that gives up, because the server cannot be reached, is no error: [`SyncReport`] has what was
//! done and why it ended, and the queue is kept. [`SyncReport::into_result`] makes an error of it, for
//! `?`. A device that begins with nothing restores from the server: [`Builder::attach`],
//! [`EdgeSync::restore`].
//!
//! # Blocking or async
//!
//! Every call blocks the calling thread. Those that may take long have a twin whose name ends in `_async`
//! and whose arguments are the same, on [`Component`], [`Shard`], [`EdgeSync`] and [`Peek`] alike; any
//! executor can run these, tokio or another. Nothing here needs a runtime of the caller's. Handles can be
//! cloned and shared between threads.
//!
//! # What runs where
//!
//! - [`EdgeSync`] owns everything: the shard, the exchange with the server, the worker.
//! - [`Component`]: the component, compiled, the machine code cached on disk.
//! - [`Shard`]: an instance that has one data directory and no network.
//! - [`Courier`]: a second instance of the same component that may reach one HTTP origin and the
//!   staging folder, and knows no shard. The API key exists only there.
//! - [`Syncer`]: the worker that carries batches from the one to the other.
//! - A third instance of it for a while: for a restore or a pull it unpacks and checks what came, and
//!   for [`Shard::optimize`] it optimizes a copy; then it takes the shard's place. Reads and writes go on
//!   meanwhile.
//! - [`Peek`]: an instance that may only read, beside whatever process has the directory.
//!
//! Each instance answers one call after the other. A call to the shard runs on its caller's thread while no
//! other is under way, with a stack of its own; otherwise, within an async runtime, and for the other
//! instances, on a thread that is the instance's. A call that traps, or runs past its time or memory limit,
//! costs that call only: the instance is made anew, the shard opened again, and a write that was not
//! answered taken back. A shard that cannot be loaded, because there is too little memory or disk for it,
//! still hands out what waits for upload. The contract with the component is the WIT package
//! `edge-sync:shard`.
//!
//! # When something fails
//!
//! [`enum@Error`] says what was being done and to what; [`Error::kind`] is a name for programs. What the
//! caller can put right is [`Error::InvalidInput`], with the field; nothing was changed then.
//!
//! # Settings
//!
//! Structs of settings ([`ShardOptions`], [`SyncOptions`], [`SyncerOptions`], [`HttpLimits`], ...) may gain
//! fields. So they begin as their defaults ([`ServerSettings`] as [`ServerSettings::new`]), and each field
//! has a method that sets it:
//!
//! ```
//! use edge_sync_host::ShardOptions;
//!
//! let options = ShardOptions::default().memory_bytes(512 << 20);
//! ```
//!
//! # Examples
//!
//! `host/examples`: `embed`, `background` (a worker and its events), `follow` (restore, then follow;
//! async), `plugins` (two plugins that cannot touch each other), `service` (behind axum).

mod actor;
mod background;
mod bindings;
mod call_stack;
mod cancel;
mod client;
mod compiled;
mod component;
mod component_file;
mod compression;
mod connector;
mod courier;
mod device;
mod disk;
mod edge;
mod error;
mod events;
mod guest;
mod holder;
mod http_limits;
mod instance;
mod json_values;
mod json_words;
mod lock;
mod names;
mod no_answer;
mod optimize;
mod optimizer;
mod origin;
mod outbound;
mod peek;
mod progress;
mod proxy;
mod pull;
mod readers;
mod reports;
mod restore;
mod secret;
mod setters;
mod shard;
mod shard_options;
mod shard_state;
mod standing;
mod stderr;
mod sync;
mod sync_record;
mod syncer;
mod tls;
mod twins;
mod types;
mod watched;

pub use cancel::Cancel;
pub use component::{Component, ComponentOptions, OnCompile};
pub use courier::{Courier, ServerSettings};
pub use device::{DEVICE_HEADER, device_id};
pub use edge::{BoundServer, Builder, EdgeSync, bound_server, has_shard};
pub use error::{Error, Result, failure_class_name};
pub use events::{Event, Events};
pub use holder::Holder;
pub use http_limits::HttpLimits;
pub use instance::TimeLimits;
pub use json_values::to_json;
pub use json_words::json_error;
pub use lock::DirectoryLock;
pub use optimize::{OptimizeProgress, OptimizeReport};
pub use optimizer::AutoOptimizeOptions;
pub use origin::Origin;
pub use peek::Peek;
pub use progress::{Progress, RestoreProgress};
pub use reports::{PullReport, RestoreReport, SourceShard, SyncReport, Synced};
pub use restore::RestoreSource;
pub use secret::Secret;
pub use shard::{RetryReport, Shard};
pub use shard_options::{MOST_BUILDERS, MOST_READERS, ShardOptions};
pub use sync::{BackoffOptions, Direction, SyncOptions, SyncPermissions};
pub use sync_record::{Exchange, FailureNote, SyncRecord, UnderWay, WorkerState};
pub use syncer::{Syncer, SyncerOptions};
pub use tls::{ClientCertificate, TlsSettings};
pub use types::{
    BatchLimits, Binding, Corruption, Difference, Durability, FailureClass, Info, MemoryShortage,
    Mirror, NamedVector, Opened, Peeked, Point, PointId, PointTarget, Pulled, QueueLimits,
    QueueProgress, QueueStanding, QueueStatus, Receipt, Refusal, RejectedOperation, ScoredPoint,
    ScrollPage, ScrollRequest, SearchRequest, Selection, SequenceRange, ServerFailure,
    SnapshotSource, SparseVector, StorageFailure, StorageKind, StoredPoint, Target, UploadBatch,
    UploadRequest, Vector, WaitingOperation,
};
