//! Qdrant's REST API over a pluggable backend.
//!
//! [`router`] turns a [`Backend`] into an axum router that speaks the part of Qdrant 1.19's REST
//! API that concerns points, payload indexes, collections and snapshots: its paths, its
//! `{"result", "status", "time"}` envelope, its error shape, statuses and wording, its `api-key`
//! header and its limit on bodies. `edge-sync serve` runs it over the component, the server double
//! of the tests over the native engine; both are therefore tested by the same requests.
//!
//! What the layer does not do is understand points or queries: everything below
//! `/collections/{collection}/points`, `/index`, `/vectors` and `/facet` goes to
//! [`Backend::request`] as method, path and body.
//!
//! Statuses and wording follow the server's own source (`src/actix`, `StorageError`) and what a
//! server has answered: a refused API key and a snapshot that cannot be sent are answered in plain
//! text, a path or method that there is not with an empty 404. `docs/differences.md` lists what
//! remains different, with reasons.

mod access;
mod aliases;
mod app;
mod backend;
mod bodies;
mod collection_info;
mod envelope;
mod error;
mod load;
mod manifest;
mod metrics;
mod older;
mod operator;
mod optimizations;
mod points;
mod room;
mod router;
mod server;
mod service;
mod snapshots;
mod turns;

pub use aliases::Aliased;
pub use app::{ContentTypes, Identity, Options};
pub use axum::http::{HeaderName, HeaderValue};
pub use backend::{
    Alias, Backend, CollectionState, ShardState, SnapshotDescription, SnapshotScope, StoredSnapshot,
};
pub use collection_info::collection_info;
pub use error::Error;
pub use load::{Limits, Load};
pub use metrics::Gauge;
pub use operator::{Chosen, Operator};
pub use router::{Router, router};
pub use server::serve;

/// What a backend call gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
