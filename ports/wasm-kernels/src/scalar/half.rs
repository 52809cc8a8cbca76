//! Vectors of `f16`, as the bits of each.

/// The value of an `f16`, exactly.
#[inline]
pub fn value(bits: u16) -> f32 {
    // The exponent and the fraction move to their places in an `f32`; the factor makes up for the
    // other bias, and turns what is subnormal in 16 bits into a normal number.
    let moved = ((i32::from(bits.cast_signed()) << 13).cast_unsigned()) & 0x8fff_e000;
    let value = f32::from_bits(moved) * f32::from_bits(0x7780_0000);
    if value.abs() >= 65536.0 {
        // Infinity, or not a number.
        return f32::from_bits(value.to_bits() | 0x7f80_0000);
    }
    value
}

/// Σ a·b.
pub fn dot(a: &[u16], b: &[u16]) -> f32 {
    a.iter().zip(b).map(|(a, b)| value(*a) * value(*b)).sum()
}

/// Σ (a − b)².
pub fn euclid(a: &[u16], b: &[u16]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| value(*a) - value(*b));
    differences.map(|difference| difference * difference).sum()
}

/// Σ |a − b|.
pub fn manhattan(a: &[u16], b: &[u16]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| value(*a) - value(*b));
    differences.map(f32::abs).sum()
}

/// The values of all of `from`.
pub fn widen(from: &[u16], to: &mut [f32]) {
    for (from, to) in from.iter().zip(to) {
        *to = value(*from);
    }
}
