//! Universal queries: the bodies of `POST /points/query` and its kin, and what the engine runs.

mod body;
mod parse;
mod resolve;

pub(crate) use body::{GroupsBody, Input, QueryBody};
pub(crate) use parse::{Access, groups_body, limit, no_shard_key, query_body, vector_selection};
pub(crate) use resolve::StoredVectors;
