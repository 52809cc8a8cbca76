//! Vectors of `f16`, as the bits of each, added up like those of `f32`.

use core::arch::wasm32::*;

use super::lanes::{load, store, sum_halves, sum_neighbours};
use crate::scalar::{self, half::value};

/// Σ a·b.
pub fn dot(a: &[u16], b: &[u16]) -> f32 {
    sum(
        a,
        b,
        scalar::half::dot,
        |sum, a, b| f32x4_add(f32x4_mul(a, b), sum),
        |a, b| a * b,
    )
}

/// Σ (a − b)².
pub fn euclid(a: &[u16], b: &[u16]) -> f32 {
    sum(
        a,
        b,
        scalar::half::euclid,
        |sum, a, b| {
            let difference = f32x4_sub(a, b);
            f32x4_add(f32x4_mul(difference, difference), sum)
        },
        |a, b| (a - b) * (a - b),
    )
}

/// Σ |a − b|.
pub fn manhattan(a: &[u16], b: &[u16]) -> f32 {
    sum(
        a,
        b,
        scalar::half::manhattan,
        |sum, a, b| f32x4_add(f32x4_abs(f32x4_sub(a, b)), sum),
        |a, b| (a - b).abs(),
    )
}

/// The values of all of `from`.
pub fn widen(from: &[u16], to: &mut [f32]) {
    let length = from.len().min(to.len());
    let (eights, rest) = from[..length].as_chunks::<8>();
    let (to, to_rest) = to[..length].as_chunks_mut::<8>();
    for (from, to) in eights.iter().zip(to) {
        let (fours, _) = to.as_chunks_mut::<4>();
        for (to, values) in fours.iter_mut().zip(values(load(from))) {
            store(to, values);
        }
    }
    scalar::half::widen(rest, to_rest);
}

#[inline(always)]
fn sum(
    a: &[u16],
    b: &[u16],
    short: impl Fn(&[u16], &[u16]) -> f32,
    step: impl Fn(v128, v128, v128) -> v128,
    term: impl Fn(f32, f32) -> f32,
) -> f32 {
    let (a, b) = crate::cut(a, b);
    let (mut sum, block) = if a.len() >= 32 {
        let [s1, s2, s3, s4] =
            fold(a, b, step).map(|[low, high]| sum_neighbours(f32x4_add(high, low)));
        (s1 + s2 + s3 + s4, 32)
    } else if a.len() >= 16 {
        let [[s1, s2], [s3, s4]] = fold(a, b, step).map(|pair| pair.map(sum_halves));
        (s1 + s2 + s3 + s4, 16)
    } else {
        return short(a, b);
    };
    let summed = a.len() - a.len() % block;
    for (a, b) in a[summed..].iter().zip(&b[summed..]) {
        sum += term(value(*a), value(*b));
    }
    sum
}

/// `PAIRS` pairs of vectors of sums: the first of every first eight of `8 · PAIRS` values, and so on.
#[inline(always)]
fn fold<const PAIRS: usize>(
    a: &[u16],
    b: &[u16],
    step: impl Fn(v128, v128, v128) -> v128,
) -> [[v128; 2]; PAIRS] {
    let (a, _) = a.as_chunks::<8>().0.as_chunks::<PAIRS>();
    let (b, _) = b.as_chunks::<8>().0.as_chunks::<PAIRS>();
    let mut sums = [[f32x4_splat(0.0); 2]; PAIRS];
    for (a, b) in a.iter().zip(b) {
        for (([low, high], a), b) in sums.iter_mut().zip(a).zip(b) {
            let [a_low, a_high] = values(load(a));
            let [b_low, b_high] = values(load(b));
            *low = step(*low, a_low, b_low);
            *high = step(*high, a_high, b_high);
        }
    }
    sums
}

/// The values of the lower four and of the upper four, as [`value`] makes them.
#[inline(always)]
fn values(bits: v128) -> [v128; 2] {
    [i32x4_extend_low_i16x8(bits), i32x4_extend_high_i16x8(bits)].map(|bits| {
        let moved = v128_and(i32x4_shl(bits, 13), u32x4_splat(0x8fff_e000));
        let values = f32x4_mul(moved, u32x4_splat(0x7780_0000));
        let special = f32x4_ge(f32x4_abs(values), f32x4_splat(65536.0));
        v128_or(values, v128_and(special, u32x4_splat(0x7f80_0000)))
    })
}
