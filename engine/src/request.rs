//! Requests of Qdrant's points API, by method, path and body.

use serde_json::Value;

use crate::error::{Error, Result};

/// A parsed request.
#[derive(Debug, Clone)]
pub enum Request {
    /// Changes nothing; for [`crate::Shard::read`].
    Read(ReadRequest),
    /// Changes points, payload indexes or named vectors; for [`crate::Shard::prepare`].
    Write(Write),
}

/// A parsed request that only reads.
#[derive(Debug, Clone)]
pub struct ReadRequest {}

/// A parsed request that writes: one operation, or the list of `POST /points/batch`.
#[derive(Debug, Clone)]
pub struct Write {}

impl Write {
    /// Splits the write where an operation selects points by what earlier operations of the same
    /// batch left behind (filters, conditional upserts). Prepare and apply each step before
    /// preparing the next; most writes are a single step.
    pub fn steps(self) -> Vec<Write> {
        vec![self]
    }
}

/// Parses a request. `path` is below `/collections/{c}` and may carry a query string
/// (`/points?wait=true`); `body` may be empty where the request has none.
///
/// Errors: [`Error::InvalidInput`] names the field; [`Error::Unsupported`] says why;
/// [`Error::NotFound`] for a path that Qdrant does not have.
pub fn parse_request(_method: &str, _path: &str, _body: &str) -> Result<Request> {
    todo!()
}

/// Parses JSON text that was given as the argument `field`.
///
/// Errors: [`Error::InvalidInput`] with line and column.
pub fn parse_json(field: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::invalid(field, format!("not JSON: {error}")))
}
