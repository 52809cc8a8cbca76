//! Codes of product quantization. There is no vector instruction that looks up in a table this large;
//! four sums that do not wait for each other are what there is to gain.

/// How many centroids there are unless there were fewer vectors.
const ALL_CODES: usize = 256;

/// Σ `table[i · centroids + codes[i]]`: what a query's table of `centroids` distances for each part of
/// the vector says of a vector.
///
/// The order of summing up is that of the engine's kernels for x86. A code without an entry, which
/// only a damaged file has, makes the sum −∞, the score of what is not found.
pub fn look_up(table: &[f32], centroids: usize, codes: &[u8]) -> f32 {
    if centroids == 0 {
        return 0.0;
    }
    if centroids == ALL_CODES {
        let (rows, _) = table.as_chunks::<ALL_CODES>();
        return sum(rows.iter(), codes, |row, code| row[usize::from(code)]);
    }
    sum(table.chunks_exact(centroids), codes, |row, code| {
        row.get(usize::from(code))
            .copied()
            .unwrap_or(f32::NEG_INFINITY)
    })
}

#[inline(always)]
fn sum<Row>(
    mut rows: impl ExactSizeIterator<Item = Row>,
    codes: &[u8],
    entry: impl Fn(Row, u8) -> f32,
) -> f32 {
    let (fours, rest) = codes[..codes.len().min(rows.len())].as_chunks::<4>();
    let mut sums = [0.0; 4];
    for codes in fours {
        for ((sum, code), row) in sums.iter_mut().zip(codes).zip(&mut rows) {
            *sum += entry(row, *code);
        }
    }
    let last = rest.iter().zip(rows);
    last.fold(together(sums), |sum, (code, row)| sum + entry(row, *code))
}

fn together([a, b, c, d]: [f32; 4]) -> f32 {
    (a + c) + (b + d)
}
