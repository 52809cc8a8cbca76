//! What is free of the disk.

use std::path::Path;

/// Bytes that this process may still write to the file system that `directory` is on; none where
/// that is not known.
pub(crate) fn free_bytes(directory: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let status = rustix::fs::statvfs(directory).ok()?;
        // Some network file systems know nothing.
        (status.f_blocks > 0).then(|| status.f_bavail.saturating_mul(status.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = directory;
        None
    }
}
