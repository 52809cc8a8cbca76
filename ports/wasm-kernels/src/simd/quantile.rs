//! Steps of the P² estimator of quantiles.

use core::arch::wasm32::*;

use super::lanes::{load, multiply_add_f64, store};
use crate::scalar;

/// `positions[i] = 1 + probabilities[i] · count`; fours of them with fused multiply-add, as the
/// engine's kernel for x86 does it.
pub fn desired_positions(positions: &mut [f64], probabilities: &[f64], count: f64) {
    let length = positions.len().min(probabilities.len());
    let fused = length - length % 4;
    let (positions, rest) = positions[..length].split_at_mut(fused);
    let (probabilities, rest_probabilities) = probabilities[..length].split_at(fused);
    let (positions, _) = positions.as_chunks_mut::<2>();
    let (probabilities, _) = probabilities.as_chunks::<2>();
    for (positions, probabilities) in positions.iter_mut().zip(probabilities) {
        let position = multiply_add_f64(load(probabilities), f64x2_splat(count), f64x2_splat(1.0));
        store(positions, position);
    }
    scalar::quantile::desired_positions(rest, rest_probabilities, count);
}

/// How many values are less than `limit`.
pub fn count_below(values: &[f64], limit: f64) -> usize {
    let (pairs, rest) = values.as_chunks::<2>();
    let mut count = scalar::quantile::count_below(rest, limit);
    for pair in pairs {
        let less = f64x2_lt(load(pair), f64x2_splat(limit));
        count += i64x2_bitmask(less).count_ones() as usize;
    }
    count
}
