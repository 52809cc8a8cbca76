//! Steps of the P² estimator of quantiles.

/// `positions[i] = 1 + probabilities[i] · count`.
pub fn desired_positions(positions: &mut [f64], probabilities: &[f64], count: f64) {
    for (position, probability) in positions.iter_mut().zip(probabilities) {
        *position = 1.0 + probability * count;
    }
}

/// How many values are less than `limit`.
pub fn count_below(values: &[f64], limit: f64) -> usize {
    values.iter().filter(|value| **value < limit).count()
}
