//! A collection's configuration: the body of `PUT /collections/{c}` and what the engine makes of it.

use serde_json::Value;

use crate::error::Result;

/// The body of `PUT /collections/{c}`, checked.
///
/// Settings that only a server has (`shard_number`, `replication_factor`, `wal_config`,
/// `strict_mode_config`, `metadata`, ...) are kept for upload and have no effect here.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionConfig {}

impl CollectionConfig {
    /// Parses and checks the body of `PUT /collections/{c}`.
    ///
    /// Errors: [`crate::Error::InvalidInput`] names the field.
    pub fn from_json(_json: &str) -> Result<Self> {
        todo!()
    }

    /// As [`CollectionConfig::from_json`], from parsed JSON.
    pub fn from_value(_json: &Value) -> Result<Self> {
        todo!()
    }

    /// Reads the configuration out of the `result` of `GET /collections/{c}`.
    ///
    /// Errors: [`crate::Error::InvalidInput`] names the field that is missing or not understood.
    pub fn from_collection_info(_result: &Value) -> Result<Self> {
        todo!()
    }

    /// The body of `PUT /collections/{c}` that creates such a collection.
    pub fn to_json(&self) -> Value {
        todo!()
    }

    /// Checks that `other` stores the same vectors: names, sizes, distances, datatypes,
    /// multivectors and sparse modifiers. Indexing and memory settings may differ.
    ///
    /// Errors: [`crate::Error::InvalidInput`] names the vector and both sides.
    pub fn check_same_vectors(&self, _other: &Self) -> Result<()> {
        todo!()
    }
}
