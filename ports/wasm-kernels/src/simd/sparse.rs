//! Sums of sparse vectors.

use core::arch::wasm32::*;

use super::lanes::load;
use crate::scalar;

/// The first place at or after `from` of a score that is greater than `threshold`, and not zero.
pub fn next_above(scores: &[f32], from: usize, threshold: f32) -> Option<usize> {
    let (blocks, rest) = scores.get(from..)?.as_chunks::<16>();
    let found = |four: &[f32; 4]| {
        let four = load(four);
        v128_and(
            f32x4_gt(four, f32x4_splat(threshold)),
            f32x4_ne(four, f32x4_splat(0.0)),
        )
    };
    for (index, block) in blocks.iter().enumerate() {
        let (fours, _) = block.as_chunks::<4>();
        let any = fours
            .iter()
            .fold(u32x4_splat(0), |any, four| v128_or(any, found(four)));
        if v128_any_true(any) {
            let within = scalar::sparse::next_above(block, 0, threshold)?;
            return Some(from + 16 * index + within);
        }
    }
    let start = scores.len() - rest.len();
    scalar::sparse::next_above(rest, 0, threshold).map(|index| start + index)
}
