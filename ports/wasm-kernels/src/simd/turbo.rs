//! Codes of turbo quantization: `PLANES` codes of `8 / PLANES` bits in each byte, from the lowest bits
//! on. `PLANES` is 1, 2, 4 or 8.
//!
//! Sums of products of 8-bit numbers are kept in 32 bits. Eight planes add up to 2³¹ after 65,536
//! bytes, which is half a million dimensions; longer vectors go the scalar way.

use core::arch::wasm32::*;

use super::lanes::{load, load_i8s, look_up, sum_i32, sum_i64};
use crate::scalar;

/// See above.
const LONGEST: usize = 1 << 15;

/// For each byte of a query that has `QUERY_BYTES` for each value, Σ query · value.
///
/// `query` has a plane of `plane_length` bytes for each byte of the query and each place of a code in
/// its byte: the byte `i` of the plane `byte · PLANES + place` belongs to the code at `place` in
/// byte `i` of the vector.
pub fn query<const PLANES: usize, const QUERY_BYTES: usize>(
    query: &[i8],
    plane_length: usize,
    codebook: &[u8; 16],
    vector: &[u8],
) -> [i64; QUERY_BYTES] {
    if vector.len() > LONGEST {
        return scalar::turbo::query::<PLANES, QUERY_BYTES>(query, plane_length, codebook, vector);
    }
    let vector = &vector[..vector.len().min(plane_length)];
    let (blocks, rest) = vector.as_chunks::<16>();
    let table = load(codebook);
    let mut sums = [[i32x4_splat(0); 2]; QUERY_BYTES];
    let mut totals = [0; QUERY_BYTES];
    for place in 0..PLANES {
        let planes: [&[i8]; QUERY_BYTES] = core::array::from_fn(|byte| {
            let start = (byte * PLANES + place) * plane_length;
            &query[start..start + plane_length][..vector.len()]
        });
        let planes_blocks = planes.map(|plane| plane.as_chunks::<8>().0.as_chunks::<2>().0);
        for (index, block) in blocks.iter().enumerate() {
            let values = values::<PLANES>(table, load(block), place);
            let low = u16x8_extend_low_u8x16(values);
            let high = u16x8_extend_high_u8x16(values);
            for (sums, plane) in sums.iter_mut().zip(&planes_blocks) {
                let [first, second] = &plane[index];
                sums[0] = i32x4_add(sums[0], i32x4_dot_i16x8(low, load_i8s(first)));
                sums[1] = i32x4_add(sums[1], i32x4_dot_i16x8(high, load_i8s(second)));
            }
        }
        for (total, plane) in totals.iter_mut().zip(planes) {
            let plane = &plane[blocks.len() * 16..];
            for (query, byte) in plane.iter().zip(rest) {
                let value = scalar::turbo::value::<PLANES>(codebook, *byte, place);
                *total += i64::from(*query) * i64::from(value);
            }
        }
    }
    for (total, [low, high]) in totals.iter_mut().zip(sums) {
        *total += sum_i32(low) + sum_i32(high);
    }
    totals
}

/// Σ (a − 128) · (b − 128), where `a` and `b` are what the codes of two vectors stand for.
pub fn vectors<const PLANES: usize>(codebook: &[u8; 16], a: &[u8], b: &[u8]) -> i64 {
    let (a, b) = crate::cut(a, b);
    if a.len() > LONGEST {
        return scalar::turbo::vectors::<PLANES>(codebook, a, b);
    }
    let table = load(codebook);
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let mut sums = [i32x4_splat(0); 2];
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (load(a), load(b));
        for place in 0..PLANES {
            let [a_low, a_high] = signed(values::<PLANES>(table, a, place));
            let [b_low, b_high] = signed(values::<PLANES>(table, b, place));
            sums[0] = i32x4_add(sums[0], i32x4_dot_i16x8(a_low, b_low));
            sums[1] = i32x4_add(sums[1], i32x4_dot_i16x8(a_high, b_high));
        }
    }
    let rest = scalar::turbo::vectors::<PLANES>(codebook, a_rest, b_rest);
    sum_i32(sums[0]) + sum_i32(sums[1]) + rest
}

/// Σ (a − 128) · (b − 128) · weight, with a weight for each code. `PLANES` is 2 or 4.
pub fn weighted_vectors<const PLANES: usize>(
    codebook: &[u8; 16],
    a: &[u8],
    b: &[u8],
    weights: &[i16],
) -> i64 {
    let (a, b) = crate::cut(a, b);
    if !matches!(PLANES, 2 | 4) {
        return scalar::turbo::weighted_vectors::<PLANES>(codebook, a, b, weights);
    }
    let table = load(codebook);
    let blocks = a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0);
    // Two vectors of weights for each place of a code in its byte.
    let (all_weights, _) = weights.as_chunks::<8>().0.as_chunks::<2>();
    let mut sum = i64x2_splat(0);
    let mut done = 0;
    for ((a, b), weights) in blocks.zip(all_weights.chunks_exact(PLANES)) {
        let (a, b) = (load(a), load(b));
        let weights = weights.as_flattened();
        let product = |place| {
            let [a_low, a_high] = signed(values::<PLANES>(table, a, place));
            let [b_low, b_high] = signed(values::<PLANES>(table, b, place));
            // At most 2¹⁴.
            [i16x8_mul(a_low, b_low), i16x8_mul(a_high, b_high)]
        };
        // The products are put in the order of the dimensions, which is that of the weights.
        if PLANES == 2 {
            let [[a_low, a_high], [b_low, b_high]] = [product(0), product(1)];
            sum = add_weighted(sum, mix_low(a_low, b_low), &weights[0]);
            sum = add_weighted(sum, mix_high(a_low, b_low), &weights[1]);
            sum = add_weighted(sum, mix_low(a_high, b_high), &weights[2]);
            sum = add_weighted(sum, mix_high(a_high, b_high), &weights[3]);
        } else {
            let [a, b, c, d] = [product(0), product(1), product(2), product(3)];
            let (low, high) = weights.split_at(4);
            sum = add_weighted_fours(sum, [a[0], b[0], c[0], d[0]], low);
            sum = add_weighted_fours(sum, [a[1], b[1], c[1], d[1]], high);
        }
        done += 16;
    }
    let weights = &weights[done * PLANES..];
    let rest = scalar::turbo::weighted_vectors::<PLANES>(codebook, &a[done..], &b[done..], weights);
    sum_i64(sum) + rest
}

#[inline(always)]
fn add_weighted(sum: v128, products: v128, weights: &[i16; 8]) -> v128 {
    // At most 2³⁰.
    let pairs = i32x4_dot_i16x8(products, load(weights));
    let sum = i64x2_add(sum, i64x2_extend_low_i32x4(pairs));
    i64x2_add(sum, i64x2_extend_high_i32x4(pairs))
}

/// For the products of codes at four places in eight bytes.
#[inline(always)]
fn add_weighted_fours(sum: v128, [a, b, c, d]: [v128; 4], weights: &[[i16; 8]]) -> v128 {
    let (ab, cd) = (mix_low(a, b), mix_low(c, d));
    let sum = add_weighted(sum, mix_pairs_low(ab, cd), &weights[0]);
    let sum = add_weighted(sum, mix_pairs_high(ab, cd), &weights[1]);
    let (ab, cd) = (mix_high(a, b), mix_high(c, d));
    let sum = add_weighted(sum, mix_pairs_low(ab, cd), &weights[2]);
    add_weighted(sum, mix_pairs_high(ab, cd), &weights[3])
}

/// Σ a · b of vectors of little-endian 16-bit codes, none of which is −32,768.
pub fn wide_vectors(a: &[u8], b: &[u8]) -> i64 {
    let (a, b) = crate::cut(a, b);
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let mut sum = i64x2_splat(0);
    for (a, b) in a.iter().zip(b) {
        let pairs = i32x4_dot_i16x8(load(a), load(b));
        sum = i64x2_add(sum, i64x2_extend_low_i32x4(pairs));
        sum = i64x2_add(sum, i64x2_extend_high_i32x4(pairs));
    }
    sum_i64(sum) + scalar::turbo::wide_vectors(a_rest, b_rest)
}

/// What the codes at `place` stand for.
#[inline(always)]
fn values<const PLANES: usize>(table: v128, codes: v128, place: usize) -> v128 {
    if PLANES == 1 {
        return codes;
    }
    let bits = 8 / PLANES;
    // Bits of the neighbouring byte come along, and are masked.
    let shifted = u16x8_shr(codes, (place * bits) as u32);
    look_up(table, v128_and(shifted, u8x16_splat((1 << bits) - 1)))
}

/// Less 128, as sixteen numbers of 16 bits.
#[inline(always)]
fn signed(values: v128) -> [v128; 2] {
    let signed = v128_xor(values, u8x16_splat(0x80));
    [
        i16x8_extend_low_i8x16(signed),
        i16x8_extend_high_i8x16(signed),
    ]
}

/// a₀ b₀ a₁ b₁ a₂ b₂ a₃ b₃
#[inline(always)]
fn mix_low(a: v128, b: v128) -> v128 {
    i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b)
}

/// a₄ b₄ a₅ b₅ a₆ b₆ a₇ b₇
#[inline(always)]
fn mix_high(a: v128, b: v128) -> v128 {
    i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b)
}

/// a₀ a₁ b₀ b₁ a₂ a₃ b₂ b₃
#[inline(always)]
fn mix_pairs_low(a: v128, b: v128) -> v128 {
    i32x4_shuffle::<0, 4, 1, 5>(a, b)
}

/// a₄ a₅ b₄ b₅ a₆ a₇ b₆ b₇
#[inline(always)]
fn mix_pairs_high(a: v128, b: v128) -> v128 {
    i32x4_shuffle::<2, 6, 3, 7>(a, b)
}
