//! Runs the edge-sync component in Wasmtime.
//!
//! The component holds a Qdrant Edge shard and keeps it in step with a collection on a Qdrant
//! server; the contract between it and this crate is the WIT package `edge-sync:shard`. Plugin
//! hosts start at [`EdgeSync`], which owns everything:
//!
//! - [`Component`]: the component, compiled, the machine code cached on disk.
//! - [`Shard`]: an instance that has one data directory and no network.
//! - [`Courier`]: a second instance of the same component that may reach one HTTP origin and the
//!   staging folder, and knows no shard. The API key exists only there.
//! - [`Syncer`]: the worker that carries batches from the one to the other.
//! - [`Peek`]: an instance that may only read, beside whatever process has the directory.
//!
//! Each instance lives on a thread of its own; calls are sent to it and answered one by one, so
//! every handle can be shared between threads. A call that traps, or runs past its time or memory
//! limit, costs that call only: the instance is made anew, the shard opened again, and a write that
//! was not answered taken back. A shard that cannot be loaded, because there is too little memory or
//! disk for it, still hands out what waits for upload.
//!
//! ```no_run
//! use edge_sync_host::{Component, EdgeSync, Point, PointId};
//!
//! # fn main() -> Result<(), edge_sync_host::Error> {
//! let component = Component::load("edge_sync.wasm")?;
//! let edge = EdgeSync::builder(component, "data")
//!     .open_or_create(r#"{"vectors": {"size": 2, "distance": "Cosine"}}"#)?;
//! edge.shard().upsert(vec![Point::new(PointId::Num(1)).with_vector("", vec![0.6, 0.8])])?;
//! # Ok(())
//! # }
//! ```

mod bindings;
mod client;
mod component;
mod connector;
mod courier;
mod disk;
mod edge;
mod error;
mod instance;
mod lock;
mod no_answer;
mod origin;
mod outbound;
mod owner;
mod peek;
mod proxy;
mod pull;
mod rest_point;
mod restore;
mod secret;
mod shard;
mod signal;
mod status;
mod stderr;
mod sync;
mod syncer;
mod tls;
mod types;

pub use component::{Component, ComponentOptions};
pub use courier::{Courier, HttpLimits, ServerSettings};
pub use edge::{Builder, EdgeSync, bound_server};
pub use error::{Error, Result};
pub use instance::TimeLimits;
pub use lock::{DirectoryLock, Holder};
pub use origin::Origin;
pub use peek::Peek;
pub use pull::PullReport;
pub use restore::{RestoreProgress, RestoreReport, RestoreSource};
pub use secret::Secret;
pub use shard::{RetryReport, Shard, ShardOptions};
pub use signal::Cancel;
pub use status::{Exchange, FailureNote, SyncRecord, UnderWay, WorkerState};
pub use sync::{BackoffOptions, Direction, Progress, SyncOptions, SyncPermissions, SyncReport};
pub use syncer::{Syncer, SyncerOptions};
pub use tls::{ClientCertificate, TlsSettings};
pub use types::{
    BatchLimits, Binding, Corruption, Durability, FailureClass, Info, MemoryShortage, Mirror,
    NamedVector, Opened, Peeked, Point, PointId, PointTarget, Pulled, QueueLimits, QueueProgress,
    QueueStanding, QueueStatus, Receipt, Refusal, RejectedOperation, ScoredPoint, ScrollPage,
    ScrollRequest, SearchRequest, Selection, SequenceRange, ServerFailure, SnapshotSource,
    SparseVector, StorageFailure, StorageKind, StoredPoint, Target, UploadBatch, UploadRequest,
    Vector, WaitingOperation,
};
