//! The Walsh-Hadamard transform.

use core::arch::wasm32::*;

use super::lanes::{load, store};
use crate::scalar;

/// Transforms `values`, as many as a power of two, in place, and multiplies the result by `scale`.
///
/// Two stages are done in one pass; the additions are those of the scalar code.
pub fn transform(values: &mut [f64], scale: f64) {
    let length = values.len();
    if length < 4 || !length.is_power_of_two() {
        return scalar::hadamard::transform(values, scale);
    }
    let scaled = |vector| f64x2_mul(vector, f64x2_splat(scale));
    if length == 4 {
        return first_two_stages(values, scaled);
    }
    first_two_stages(values, |vector| vector);
    let mut half = 4;
    while 4 * half < length {
        two_stages(values, half, |vector| vector);
        half *= 4;
    }
    if 4 * half == length {
        two_stages(values, half, scaled);
    } else {
        stage(values, half, scaled);
    }
}

/// The stages that pair neighbours and those after the next.
#[inline(always)]
fn first_two_stages(values: &mut [f64], finish: impl Fn(v128) -> v128) {
    for block in values.as_chunks_mut::<4>().0 {
        let (pairs, _) = block.as_chunks_mut::<2>();
        let [first, second] = pairs else {
            unreachable!("four values are two pairs");
        };
        let (a, b) = (load(first), load(second));
        let even = i64x2_shuffle::<0, 2>(a, b);
        let odd = i64x2_shuffle::<1, 3>(a, b);
        let (sums, differences) = (f64x2_add(even, odd), f64x2_sub(even, odd));
        let low = i64x2_shuffle::<0, 2>(sums, differences);
        let high = i64x2_shuffle::<1, 3>(sums, differences);
        store(first, finish(f64x2_add(low, high)));
        store(second, finish(f64x2_sub(low, high)));
    }
}

/// The stages that pair values `half` and `2 · half` apart.
#[inline(always)]
fn two_stages(values: &mut [f64], half: usize, finish: impl Fn(v128) -> v128) {
    for block in values.chunks_exact_mut(4 * half) {
        let (low, high) = block.split_at_mut(2 * half);
        let (a, b) = low.split_at_mut(half);
        let (c, d) = high.split_at_mut(half);
        let [a, b, c, d] = [a, b, c, d].map(|quarter| quarter.as_chunks_mut::<2>().0);
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let [va, vb, vc, vd] = [load(a), load(b), load(c), load(d)];
            let (ab, ab_difference) = (f64x2_add(va, vb), f64x2_sub(va, vb));
            let (cd, cd_difference) = (f64x2_add(vc, vd), f64x2_sub(vc, vd));
            store(a, finish(f64x2_add(ab, cd)));
            store(b, finish(f64x2_add(ab_difference, cd_difference)));
            store(c, finish(f64x2_sub(ab, cd)));
            store(d, finish(f64x2_sub(ab_difference, cd_difference)));
        }
    }
}

/// The stage that pairs values `half` apart.
#[inline(always)]
fn stage(values: &mut [f64], half: usize, finish: impl Fn(v128) -> v128) {
    for block in values.chunks_exact_mut(2 * half) {
        let (low, high) = block.split_at_mut(half);
        let (low, _) = low.as_chunks_mut::<2>();
        let (high, _) = high.as_chunks_mut::<2>();
        for (low, high) in low.iter_mut().zip(high) {
            let (a, b) = (load(low), load(high));
            store(low, finish(f64x2_add(a, b)));
            store(high, finish(f64x2_sub(a, b)));
        }
    }
}
