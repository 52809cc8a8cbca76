//! Vectors of `f32`, added up in the order of the engine's kernels for x86: from 32 values on in 32
//! sums as with AVX, from 16 on in 16 as with SSE.
//!
//! Products are rounded before they are added, which those for AVX leave out. To leave it out here
//! takes relaxed SIMD, whose results differ from processor to processor, and gains nothing that can be
//! measured: the loop waits for memory.

use core::arch::wasm32::*;

use super::lanes::{load, store, sum_halves, sum_neighbours};
use crate::scalar;

/// Σ a·b.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(
        a,
        b,
        scalar::float::dot,
        |sum, a, b| f32x4_add(f32x4_mul(a, b), sum),
        |a, b| a * b,
    )
}

/// Σ (a − b)².
pub fn euclid(a: &[f32], b: &[f32]) -> f32 {
    sum(
        a,
        b,
        scalar::float::euclid,
        |sum, a, b| {
            let difference = f32x4_sub(a, b);
            f32x4_add(f32x4_mul(difference, difference), sum)
        },
        |a, b| (a - b) * (a - b),
    )
}

/// Σ |a − b|.
pub fn manhattan(a: &[f32], b: &[f32]) -> f32 {
    sum(
        a,
        b,
        scalar::float::manhattan,
        |sum, a, b| f32x4_add(f32x4_abs(f32x4_sub(a, b)), sum),
        |a, b| (a - b).abs(),
    )
}

/// Σ a².
pub fn squared_length(a: &[f32]) -> f32 {
    dot(a, a)
}

/// Divides all of `vector` by `length`; from 32 values on by multiplying with its reciprocal.
pub fn divide(vector: &mut [f32], length: f32) {
    if vector.len() < 32 {
        return scalar::float::divide(vector, length);
    }
    let factor = 1.0 / length;
    let (fours, rest) = vector.as_chunks_mut::<4>();
    for four in fours {
        let scaled = f32x4_mul(load(four), f32x4_splat(factor));
        store(four, scaled);
    }
    for value in rest {
        *value *= factor;
    }
}

#[inline(always)]
fn sum(
    a: &[f32],
    b: &[f32],
    short: impl Fn(&[f32], &[f32]) -> f32,
    step: impl Fn(v128, v128, v128) -> v128,
    term: impl Fn(f32, f32) -> f32,
) -> f32 {
    let (a, b) = crate::cut(a, b);
    let (mut sum, block) = if a.len() >= 32 {
        let [l1, h1, l2, h2, l3, h3, l4, h4] = fold(a, b, step);
        let low = f32x4_add(f32x4_add(l1, l2), f32x4_add(l3, l4));
        let high = f32x4_add(f32x4_add(h1, h2), f32x4_add(h3, h4));
        (sum_neighbours(f32x4_add(high, low)), 32)
    } else if a.len() >= 16 {
        let [s1, s2, s3, s4] = fold(a, b, step).map(sum_halves);
        (s1 + s2 + s3 + s4, 16)
    } else {
        return short(a, b);
    };
    let summed = a.len() - a.len() % block;
    for (a, b) in a[summed..].iter().zip(&b[summed..]) {
        sum += term(*a, *b);
    }
    sum
}

/// `SUMS` vectors of sums: the first of every first four of `4 · SUMS` values, and so on.
#[inline(always)]
fn fold<const SUMS: usize>(
    a: &[f32],
    b: &[f32],
    step: impl Fn(v128, v128, v128) -> v128,
) -> [v128; SUMS] {
    let (a, _) = a.as_chunks::<4>().0.as_chunks::<SUMS>();
    let (b, _) = b.as_chunks::<4>().0.as_chunks::<SUMS>();
    let mut sums = [f32x4_splat(0.0); SUMS];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = step(*sum, load(a), load(b));
        }
    }
    sums
}
