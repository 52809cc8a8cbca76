//! Codes of scalar quantization, which are at most 127.

/// Σ a·b. Of greater codes the result is unspecified.
#[cfg(not(target_feature = "relaxed-simd"))]
pub fn dot(a: &[u8], b: &[u8]) -> u64 {
    super::byte::dot(a, b)
}

/// Σ a·b. Of greater codes the result is unspecified.
#[cfg(target_feature = "relaxed-simd")]
pub fn dot(a: &[u8], b: &[u8]) -> u64 {
    use core::arch::wasm32::{i32x4_relaxed_dot_i8x16_i7x16_add, u32x4_splat};

    use super::lanes::{load, sum_u32};

    let (a, b) = crate::cut(a, b);
    let mut total = 0;
    for (a, b) in a.chunks(1 << 16).zip(b.chunks(1 << 16)) {
        let (a, a_rest) = a.as_chunks::<16>();
        let (b, b_rest) = b.as_chunks::<16>();
        let (a_pairs, a_last) = a.as_chunks::<2>();
        let (b_pairs, b_last) = b.as_chunks::<2>();
        // Up to 127 both factors are of 7 bits, for which all processors give one result.
        let step = |sum, a, b| i32x4_relaxed_dot_i8x16_i7x16_add(load(a), load(b), sum);
        let mut even = u32x4_splat(0);
        let mut odd = even;
        for ([a_even, a_odd], [b_even, b_odd]) in a_pairs.iter().zip(b_pairs) {
            even = step(even, a_even, b_even);
            odd = step(odd, a_odd, b_odd);
        }
        for (a, b) in a_last.iter().zip(b_last) {
            even = step(even, a, b);
        }
        total += sum_u32(even) + sum_u32(odd) + crate::scalar::byte::dot(a_rest, b_rest);
    }
    total
}
