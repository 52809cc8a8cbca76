//! Bounds on what a snapshot may unpack to.

/// Bounds on what a snapshot may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// Archive entries, those of archives within the archive included.
    pub entries: u64,
    /// Bytes of all files together, holes included.
    pub total_bytes: u64,
    /// Bytes of the archive itself once a compressed one is decoded.
    pub decoded_bytes: u64,
}

impl Default for SnapshotLimits {
    /// 100,000 entries, 1 TiB, 64 GiB.
    fn default() -> Self {
        Self {
            entries: 100_000,
            total_bytes: 1 << 40,
            decoded_bytes: 64 << 30,
        }
    }
}
