//! Points on their way in.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use edge_sync_host::Error;

use super::spot::Spot;

/// Points as they come, with where they stand. Each is JSON text, which the shard reads.
pub struct Incoming {
    pub points: Box<dyn Iterator<Item = (Spot, Result<String, Error>)> + Send>,
    /// Bytes read so far.
    pub read: Arc<AtomicU64>,
}
