//! Vectors of `u8`.

use core::arch::wasm32::*;

use super::lanes::{load, load_u8s, sum_u32, widen_sums};
use crate::scalar;

/// So many bytes add up to less than 2³² in each of four sums.
const PART: usize = 1 << 16;

/// Σ a·b.
pub fn dot(a: &[u8], b: &[u8]) -> u64 {
    let [sum] = sums(
        a,
        b,
        |[sum], a, b| [i32x4_add(sum, i32x4_dot_i16x8(a, b))],
        |a, b| [scalar::byte::dot(a, b)],
    );
    sum
}

/// Σ (a − b)².
pub fn euclid(a: &[u8], b: &[u8]) -> u64 {
    let [sum] = sums(
        a,
        b,
        |[sum], a, b| {
            let difference = i16x8_sub(a, b);
            [i32x4_add(sum, i32x4_dot_i16x8(difference, difference))]
        },
        |a, b| [scalar::byte::euclid(a, b)],
    );
    sum
}

/// Σ a·b, Σ a² and Σ b².
pub fn dot_and_squared_lengths(a: &[u8], b: &[u8]) -> [u64; 3] {
    sums(
        a,
        b,
        |[dot, square_a, square_b], a, b| {
            [
                i32x4_add(dot, i32x4_dot_i16x8(a, b)),
                i32x4_add(square_a, i32x4_dot_i16x8(a, a)),
                i32x4_add(square_b, i32x4_dot_i16x8(b, b)),
            ]
        },
        scalar::byte::dot_and_squared_lengths,
    )
}

/// Σ |a − b|.
pub fn manhattan(a: &[u8], b: &[u8]) -> u64 {
    let (a, b) = crate::cut(a, b);
    let mut total = 0;
    for (a, b) in a.chunks(PART).zip(b.chunks(PART)) {
        let (a, a_rest) = a.as_chunks::<16>();
        let (b, b_rest) = b.as_chunks::<16>();
        let mut sum = u32x4_splat(0);
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (load(a), load(b));
            let difference = v128_or(u8x16_sub_sat(a, b), u8x16_sub_sat(b, a));
            sum = u32x4_add(sum, widen_sums(difference));
        }
        total += sum_u32(sum) + scalar::byte::manhattan(a_rest, b_rest);
    }
    total
}

/// The sums that `step` adds eight pairs of numbers of 16 bits to, and `rest` what is less than eight.
#[inline(always)]
fn sums<const SUMS: usize>(
    a: &[u8],
    b: &[u8],
    step: impl Fn([v128; SUMS], v128, v128) -> [v128; SUMS],
    rest: impl Fn(&[u8], &[u8]) -> [u64; SUMS],
) -> [u64; SUMS] {
    let (a, b) = crate::cut(a, b);
    let mut totals = [0; SUMS];
    for (a, b) in a.chunks(PART).zip(b.chunks(PART)) {
        let (a, a_rest) = a.as_chunks::<8>();
        let (b, b_rest) = b.as_chunks::<8>();
        let (a_pairs, a_last) = a.as_chunks::<2>();
        let (b_pairs, b_last) = b.as_chunks::<2>();
        let mut even = [u32x4_splat(0); SUMS];
        let mut odd = even;
        for ([a_even, a_odd], [b_even, b_odd]) in a_pairs.iter().zip(b_pairs) {
            even = step(even, load_u8s(a_even), load_u8s(b_even));
            odd = step(odd, load_u8s(a_odd), load_u8s(b_odd));
        }
        for (a, b) in a_last.iter().zip(b_last) {
            even = step(even, load_u8s(a), load_u8s(b));
        }
        let rest = rest(a_rest, b_rest);
        for (((total, even), odd), rest) in totals.iter_mut().zip(even).zip(odd).zip(rest) {
            *total += sum_u32(even) + sum_u32(odd) + rest;
        }
    }
    totals
}
