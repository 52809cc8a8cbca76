//! Codes of binary quantization.

/// How many bits differ. Processors count those of 64 bits in one instruction, those of a vector
/// only some.
#[inline]
pub fn differing_bits(a: &[u8], b: &[u8]) -> u64 {
    let (a, b) = crate::cut(a, b);
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let words = a.iter().zip(b);
    let words = words.map(|(a, b)| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b));
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a ^ b);
    let of_words: u64 = words.map(|bits| u64::from(bits.count_ones())).sum();
    let of_rest: u64 = rest.map(|bits| u64::from(bits.count_ones())).sum();
    of_words + of_rest
}

/// Σᵢ 2ⁱ · (bits of the vector that differ from plane `i` of the query), for words of `WORD` bytes:
/// the query has `planes` words for each word of the vector.
pub fn differing_bits_of_planes<const WORD: usize>(
    vector: &[u8],
    query: &[u8],
    planes: usize,
) -> u64 {
    if planes == 0 {
        return 0;
    }
    let (words, _) = vector.as_chunks::<WORD>();
    let (query, _) = query.as_chunks::<WORD>();
    let mut sum = 0;
    for (word, planes) in words.iter().zip(query.chunks_exact(planes)) {
        for (index, plane) in planes.iter().enumerate() {
            sum += differing_bits(word, plane) << index;
        }
    }
    sum
}
