//! Codes of product quantization. There is nothing to gain from vector instructions here, as there
//! is none that looks up: four sums that do not wait for each other are enough.

/// Σ `table[i · centroids + codes[i]]`: what a query's table of `centroids` distances for each part of
/// the vector says of a vector.
///
/// The order of summing up is that of the engine's kernels for x86. A code without an entry, which
/// only a damaged file has, makes the sum −∞, the score of what is not found.
pub fn look_up(table: &[f32], centroids: usize, codes: &[u8]) -> f32 {
    if centroids == 0 {
        return 0.0;
    }
    let entry = |part: &[f32], index: usize, code: u8| {
        let row = &part[index * centroids..][..centroids];
        row.get(usize::from(code))
            .copied()
            .unwrap_or(f32::NEG_INFINITY)
    };
    let parts = codes.len().min(table.len() / centroids);
    let (fours, rest) = codes[..parts].as_chunks::<4>();
    let (table, last) = table.split_at(fours.len() * 4 * centroids);
    let mut sums = [0.0; 4];
    for (codes, part) in fours.iter().zip(table.chunks_exact(4 * centroids)) {
        for (index, (sum, code)) in sums.iter_mut().zip(codes).enumerate() {
            *sum += entry(part, index, *code);
        }
    }
    let mut sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    for (index, code) in rest.iter().enumerate() {
        sum += entry(last, index, *code);
    }
    sum
}
