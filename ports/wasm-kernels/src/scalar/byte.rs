//! Vectors of `u8`.

/// Σ a·b.
pub fn dot(a: &[u8], b: &[u8]) -> u64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| u64::from(*a) * u64::from(*b))
        .sum()
}

/// Σ (a − b)².
pub fn euclid(a: &[u8], b: &[u8]) -> u64 {
    let differences = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b)));
    differences.map(|difference| difference * difference).sum()
}

/// Σ |a − b|.
pub fn manhattan(a: &[u8], b: &[u8]) -> u64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum()
}

/// Σ a·b, Σ a² and Σ b².
pub fn dot_and_squared_lengths(a: &[u8], b: &[u8]) -> [u64; 3] {
    let (a, b) = crate::cut(a, b);
    [dot(a, b), dot(a, a), dot(b, b)]
}
