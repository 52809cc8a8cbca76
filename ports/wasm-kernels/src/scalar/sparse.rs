//! Sums of sparse vectors.

/// The first place at or after `from` of a score that is greater than `threshold`, and not zero.
pub fn next_above(scores: &[f32], from: usize, threshold: f32) -> Option<usize> {
    let rest = scores.get(from..)?;
    let found = |score: &f32| *score != 0.0 && *score > threshold;
    rest.iter().position(found).map(|index| from + index)
}
