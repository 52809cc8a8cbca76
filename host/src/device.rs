//! Which process this is: an endpoint shows it, and an upload that meets itself recognizes it.

use std::sync::OnceLock;

/// The header in which an endpoint over a shard says which device it is.
pub const DEVICE_HEADER: &str = "edge-sync-device";

/// Tells this process from all others, for as long as it runs.
pub fn device_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| format!("{:032x}", fastrand::u128(..)))
}

/// Whether an answer with these headers comes from this very process.
pub(crate) fn is_own(headers: &http::HeaderMap) -> bool {
    headers
        .get_all(DEVICE_HEADER)
        .iter()
        .any(|device| device.as_bytes() == device_id().as_bytes())
}
