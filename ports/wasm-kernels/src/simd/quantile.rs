//! Steps of the P² estimator of quantiles.

use core::arch::wasm32::*;

use super::lanes::{load, store};
use crate::scalar;

/// `positions[i] = 1 + probabilities[i] · count`.
pub fn desired_positions(positions: &mut [f64], probabilities: &[f64], count: f64) {
    let length = positions.len().min(probabilities.len());
    let (positions, last) = positions[..length].as_chunks_mut::<2>();
    let (probabilities, last_probabilities) = probabilities[..length].as_chunks::<2>();
    for (positions, probabilities) in positions.iter_mut().zip(probabilities) {
        let product = f64x2_mul(load(probabilities), f64x2_splat(count));
        store(positions, f64x2_add(f64x2_splat(1.0), product));
    }
    scalar::quantile::desired_positions(last, last_probabilities, count);
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
