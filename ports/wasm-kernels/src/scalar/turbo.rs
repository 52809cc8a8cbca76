//! Codes of turbo quantization: `PLANES` codes of `8 / PLANES` bits in each byte, from the lowest bits
//! on. `PLANES` is 1, 2, 4 or 8.

/// What a code stands for: the code itself where it fills the byte, else an entry of the codebook.
#[inline(always)]
pub(crate) fn value<const PLANES: usize>(codebook: &[u8; 16], byte: u8, plane: usize) -> u8 {
    if PLANES == 1 {
        return byte;
    }
    let bits = 8 / PLANES;
    // At most four bits: always within the codebook.
    codebook[usize::from((byte >> (plane * bits)) & ((1 << bits) - 1) & 15)]
}

/// The same, less 128.
#[inline(always)]
fn signed<const PLANES: usize>(codebook: &[u8; 16], byte: u8, plane: usize) -> i64 {
    i64::from(value::<PLANES>(codebook, byte, plane)) - 128
}

/// For each byte of a query that has `QUERY_BYTES` for each value, Σ query · value.
///
/// `query` has a plane of `plane_length` bytes for each byte of the query and each place of a code in
/// its byte: the byte `i` of the plane `byte · PLANES + place` belongs to the code at `place` in
/// byte `i` of the vector.
pub fn query<const PLANES: usize, const QUERY_BYTES: usize>(
    query: &[i8],
    plane_length: usize,
    codebook: &[u8; 16],
    vector: &[u8],
) -> [i64; QUERY_BYTES] {
    core::array::from_fn(|byte| {
        let mut sum = 0;
        for place in 0..PLANES {
            let start = (byte * PLANES + place) * plane_length;
            let plane = &query[start..start + plane_length];
            for (query, code) in plane.iter().zip(vector) {
                sum += i64::from(*query) * i64::from(value::<PLANES>(codebook, *code, place));
            }
        }
        sum
    })
}

/// Σ (a − 128) · (b − 128), where `a` and `b` are what the codes of two vectors stand for.
pub fn vectors<const PLANES: usize>(codebook: &[u8; 16], a: &[u8], b: &[u8]) -> i64 {
    let mut sum = 0;
    for (a, b) in a.iter().zip(b) {
        for place in 0..PLANES {
            sum += signed::<PLANES>(codebook, *a, place) * signed::<PLANES>(codebook, *b, place);
        }
    }
    sum
}

/// Σ (a − 128) · (b − 128) · weight, with a weight for each code.
pub fn weighted_vectors<const PLANES: usize>(
    codebook: &[u8; 16],
    a: &[u8],
    b: &[u8],
    weights: &[i16],
) -> i64 {
    let mut sum = 0;
    for ((a, b), weights) in a.iter().zip(b).zip(weights.chunks_exact(PLANES)) {
        for (place, weight) in weights.iter().enumerate() {
            sum += signed::<PLANES>(codebook, *a, place)
                * signed::<PLANES>(codebook, *b, place)
                * i64::from(*weight);
        }
    }
    sum
}

/// Σ a · b of vectors of little-endian 16-bit codes, none of which is −32,768.
pub fn wide_vectors(a: &[u8], b: &[u8]) -> i64 {
    let (a, _) = a.as_chunks::<2>();
    let (b, _) = b.as_chunks::<2>();
    let pairs = a.iter().zip(b);
    pairs
        .map(|(a, b)| i64::from(i16::from_le_bytes(*a)) * i64::from(i16::from_le_bytes(*b)))
        .sum()
}
