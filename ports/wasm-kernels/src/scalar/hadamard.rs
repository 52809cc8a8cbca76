//! The Walsh-Hadamard transform.

/// Transforms `values`, as many as a power of two, in place, and multiplies the result by `scale`.
///
/// Of another number of values, those beyond the last pair of a stage stay as they are in that
/// stage.
pub fn transform(values: &mut [f64], scale: f64) {
    let mut half = 1;
    while half < values.len() {
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
    for value in values {
        *value *= scale;
    }
}
