//! Codes of binary quantization.

/// How many bits differ.
pub fn differing_bits(a: &[u8], b: &[u8]) -> u64 {
    let differing = a.iter().zip(b).map(|(a, b)| a ^ b);
    differing.map(|bits| u64::from(bits.count_ones())).sum()
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
    let pairs = words.iter().zip(query.chunks_exact(planes));
    pairs
        .flat_map(|(word, planes)| planes.iter().enumerate().map(move |plane| (word, plane)))
        .map(|(word, (index, plane))| differing_bits(word, plane) << index)
        .sum()
}
