//! Shard snapshots: reading what a server streams, writing what a server would.

use std::path::Path;

use crate::error::Result;

/// Bounds on what a snapshot may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// Archive entries.
    pub entries: u64,
    /// Bytes of all files together, holes included.
    pub total_bytes: u64,
}

impl Default for SnapshotLimits {
    /// 100,000 entries, 1 TiB.
    fn default() -> Self {
        Self {
            entries: 100_000,
            total_bytes: 1 << 40,
        }
    }
}

/// Unpacks a shard snapshot (the body of `GET /collections/{c}/shards/{s}/snapshot`) into `target`,
/// for [`crate::Shard::load`]. The whole archive is checked before anything is written.
///
/// Errors: [`crate::Error::BadSnapshot`] names the entry; [`crate::Error::Storage`].
pub fn unpack_snapshot(_file: &Path, _target: &Path, _limits: SnapshotLimits) -> Result<()> {
    todo!()
}
