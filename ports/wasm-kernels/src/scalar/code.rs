//! Codes of scalar quantization, which are at most 127.

/// Σ a·b. Of greater codes the result is unspecified.
pub fn dot(a: &[u8], b: &[u8]) -> u64 {
    super::byte::dot(a, b)
}
