//! Vectors of `f32`.

/// Σ a·b.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Σ (a − b)².
pub fn euclid(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| a - b);
    differences.map(|difference| difference * difference).sum()
}

/// Σ |a − b|.
pub fn manhattan(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum()
}

/// Σ a².
pub fn squared_length(a: &[f32]) -> f32 {
    dot(a, a)
}

/// Divides all of `vector` by `length`.
pub fn divide(vector: &mut [f32], length: f32) {
    for value in vector {
        *value /= length;
    }
}
