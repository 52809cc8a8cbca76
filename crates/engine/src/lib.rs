//! The local shard: everything that touches the qdrant-edge engine.
//!
//! Maps Qdrant's REST JSON (schema of Qdrant 1.19) to the engine's types, in one place:
//! [`parse_request`] turns a request into a [`ReadRequest`], a [`Write`] or [`Changes`], [`Shard::read`]
//! answers the former, and [`Shard::prepare`] turns the latter into [`Operation`]s that are logged, applied
//! with [`Shard::apply`], and uploaded. Unknown or misspelt fields are errors that name the field, unless a
//! request is to be read as a server reads it ([`Strictness::Server`]).
//!
//! The engine's own write-ahead log is off: what is not flushed is lost in a crash, and the
//! caller's log replays it. Applying an operation again is harmless.

mod allowance;
mod apply;
mod changes;
mod config;
mod encoding;
mod error;
mod filter;
mod json;
mod operation;
mod path;
mod point;
mod prepare;
mod query;
mod read;
mod repair;
mod request;
mod shard;
mod snapshot;
mod vector;
mod write;

pub use changes::Changes;
pub use config::CollectionConfig;
pub use error::{Error, Result, StorageKind};
pub use json::{Strictness, parse_json};
pub use operation::{Operation, UpdateMode, Upload, UploadElement, merge_uploads};
pub use path::encode_segment;
pub use point::{Payload, Point, PointId, ScoredPoint, StoredPoint, Vector, Vectors};
pub use request::{ReadRequest, Request, Write, parse_request, parse_request_as};
#[cfg(target_os = "wasi")]
pub use shard::PlannedOptimization;
pub use shard::{
    CONFIG_FILE, Info, ScrollPage, ScrollRequest, SearchRequest, Selection, Shard, Target,
};
pub use snapshot::{SnapshotLimits, unpack_snapshot};
