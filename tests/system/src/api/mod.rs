//! What of Qdrant's API a local shard understands.
//!
//! - [`examples`]: requests that together use all of it, and requests that are refused.
//! - [`schema`]: what the API description lists, and what of it a request uses.
//! - [`engine`]: the engine's own API, and how it is reached.
//! - [`mutate`]: the same requests, spoilt.
//! - [`table`]: `docs/api.md`, written from what came of sending the requests.

pub mod engine;
pub mod examples;
pub mod mutate;
pub mod schema;
pub mod table;
