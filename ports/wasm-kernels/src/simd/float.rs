//! Vectors of `f32`, added up in the order of the engine's kernels for x86: from 32 values on in 32
//! sums as with AVX, from 16 on in 16 as with SSE.
//!
//! Products are rounded before they are added, which those for AVX leave out. To leave it out here
//! takes relaxed SIMD, whose results differ from processor to processor, and gains nothing that can be
//! measured: the loop waits for memory.

use core::arch::wasm32::*;

use super::lanes::{load, store, sum_halves, sum_neighbours, write_now};
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
    step: impl Fn(v128, v128, v128) -> v128 + Copy,
    term: impl Fn(f32, f32) -> f32,
) -> f32 {
    let (a, b) = crate::cut(a, b);
    let (sum, block) = if a.len() >= 32 {
        let [l1, h1, l2, h2, l3, h3, l4, h4] = fold(a, b, step);
        let low = f32x4_add(f32x4_add(l1, l2), f32x4_add(l3, l4));
        let high = f32x4_add(f32x4_add(h1, h2), f32x4_add(h3, h4));
        (sum_neighbours(f32x4_add(high, low)), 32)
    } else if a.len() >= 16 {
        let [s1, s2, s3, s4] = fold(a, b, step).map(sum_halves);
        (s1 + s2 + s3 + s4, 16)
    } else {
        return apart(|| short(a, b));
    };
    let rest = a.len() % block;
    if rest == 0 {
        return sum;
    }
    let summed = a.len() - rest;
    apart(|| {
        let mut sum = sum;
        for (a, b) in a[summed..].iter().zip(&b[summed..]) {
            sum += term(*a, *b);
        }
        sum
    })
}

/// Keeps what is rarely done from taking registers of what is done often.
#[inline(never)]
fn apart(work: impl FnOnce() -> f32) -> f32 {
    work()
}

/// `SUMS` vectors of sums: the first of every first four of `4 · SUMS` values, and so on.
#[inline(always)]
fn fold<const SUMS: usize>(
    a: &[f32],
    b: &[f32],
    step: impl Fn(v128, v128, v128) -> v128 + Copy,
) -> [v128; SUMS] {
    let (a, _) = a.as_chunks::<4>().0.as_chunks::<SUMS>();
    let (b, _) = b.as_chunks::<4>().0.as_chunks::<SUMS>();
    let (a, a_rest) = a.as_chunks::<UNROLLED>();
    let (b, b_rest) = b.as_chunks::<UNROLLED>();
    let mut many = a.iter().zip(b);
    let mut rest = a_rest
        .as_chunks::<1>()
        .0
        .iter()
        .zip(b_rest.as_chunks::<1>().0);
    let mut sums = if let Some((a, b)) = many.next() {
        sum_blocks(a, b, step)
    } else if let Some((a, b)) = rest.next() {
        sum_blocks(a, b, step)
    } else {
        [f32x4_splat(0.0); SUMS]
    };
    for (a, b) in many {
        add_blocks(&mut sums, a, b, step);
    }
    for (a, b) in rest {
        add_blocks(&mut sums, a, b, step);
    }
    sums
}

/// Blocks of values that are added up in one call.
const UNROLLED: usize = 4;

/// From zero on. Not inlined: what the caller has in registers would take room.
#[inline(never)]
fn sum_blocks<const SUMS: usize, const BLOCKS: usize>(
    a: &[[[f32; 4]; SUMS]; BLOCKS],
    b: &[[[f32; 4]; SUMS]; BLOCKS],
    step: impl Fn(v128, v128, v128) -> v128,
) -> [v128; SUMS] {
    in_turn([f32x4_splat(0.0); SUMS], a, b, step)
}

/// As [`sum_blocks`], on top of `sums`.
#[inline(never)]
fn add_blocks<const SUMS: usize, const BLOCKS: usize>(
    sums: &mut [v128; SUMS],
    a: &[[[f32; 4]; SUMS]; BLOCKS],
    b: &[[[f32; 4]; SUMS]; BLOCKS],
    step: impl Fn(v128, v128, v128) -> v128,
) {
    *sums = in_turn(*sums, a, b, step);
}

/// Without a loop, and with a store after each step: Cranelift (48) keeps on the stack what lives across the
/// start of a loop, which may be interrupted there, and computes as late as it can, so that without the
/// stores it would load everything first, which is more than the registers hold.
#[inline(always)]
fn in_turn<const SUMS: usize, const BLOCKS: usize>(
    mut sums: [v128; SUMS],
    a: &[[[f32; 4]; SUMS]; BLOCKS],
    b: &[[[f32; 4]; SUMS]; BLOCKS],
    step: impl Fn(v128, v128, v128) -> v128,
) -> [v128; SUMS] {
    let mut written = f32x4_splat(0.0);
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = step(*sum, load(a), load(b));
            write_now(&mut written, *sum);
        }
    }
    sums
}
