//! Codes of binary quantization.

use core::arch::wasm32::*;

use super::lanes::{load, look_up, sum_u32};
use crate::scalar;

/// So many vectors of counts of up to eight fit into bytes.
const COUNTS: usize = 31;

/// So few words are done before the sums of vectors are added up.
const FEW: usize = 2;

pub use crate::scalar::binary::differing_bits;

/// Σᵢ 2ⁱ · (bits of the vector that differ from plane `i` of the query), for words of `WORD` bytes:
/// the query has `planes` words for each word of the vector.
pub fn differing_bits_of_planes<const WORD: usize>(
    vector: &[u8],
    query: &[u8],
    planes: usize,
) -> u64 {
    match (WORD, planes) {
        (16, 4) => of_long_words::<4>(vector, query),
        (16, 8) => of_long_words::<8>(vector, query),
        (1, 4) => of_bytes::<4>(vector, query),
        (1, 8) => of_bytes::<8>(vector, query),
        _ => scalar::binary::differing_bits_of_planes::<WORD>(vector, query, planes),
    }
}

fn of_long_words<const PLANES: usize>(vector: &[u8], query: &[u8]) -> u64 {
    let (vector, _) = vector.as_chunks::<16>();
    let (query, _) = query.as_chunks::<16>().0.as_chunks::<PLANES>();
    let mut total = 0;
    if vector.len() <= FEW {
        for (word, planes) in vector.iter().zip(query) {
            for (index, plane) in planes.iter().enumerate() {
                total += differing_bits(word, plane) << index;
            }
        }
        return total;
    }
    for (vector, query) in vector.chunks(COUNTS).zip(query.chunks(COUNTS)) {
        let mut counts = [u8x16_splat(0); PLANES];
        for (word, planes) in vector.iter().zip(query) {
            let word = load(word);
            for (count, plane) in counts.iter_mut().zip(planes) {
                *count = u8x16_add(*count, differing(word, load(plane)));
            }
        }
        // The weights of four planes keep sums of two bytes within 16 bits.
        for (four, counts) in counts.as_chunks::<4>().0.iter().enumerate() {
            let [zero, one, two, three] = counts.map(|counts| u16x8_extadd_pairwise_u8x16(counts));
            let low = u16x8_add(zero, u16x8_shl(one, 1));
            let high = u16x8_add(two, u16x8_shl(three, 1));
            let weighted = u16x8_add(low, u16x8_shl(high, 2));
            total += sum_u32(u32x4_extadd_pairwise_u16x8(weighted)) << (4 * four);
        }
    }
    total
}

/// Each byte of the vector meets `PLANES` of the query, which are in a row.
fn of_bytes<const PLANES: usize>(vector: &[u8], query: &[u8]) -> u64 {
    let words = vector.len().min(query.len() / PLANES);
    let (vector, query) = (&vector[..words], &query[..words * PLANES]);
    let (blocks, rest) = vector.as_chunks::<16>();
    let (query_blocks, _) = query.as_chunks::<16>().0.as_chunks::<PLANES>();
    let weights = load(&core::array::from_fn(|lane| 1_u8 << (lane % PLANES)));
    let mut total = 0;
    for (block, query) in blocks.iter().zip(query_blocks) {
        let block = load(block);
        // Up to 64 in each byte.
        let mut counts = u8x16_splat(0);
        for (index, query) in query.iter().enumerate() {
            let repeat = core::array::from_fn(|lane| ((16 * index + lane) / PLANES) as u8);
            let repeated = look_up(block, load(&repeat));
            counts = u8x16_add(counts, differing(repeated, load(query)));
        }
        let low = u16x8_extmul_low_u8x16(counts, weights);
        let high = u16x8_extmul_high_u8x16(counts, weights);
        total += sum_u32(u32x4_extadd_pairwise_u16x8(u16x8_add(low, high)));
    }
    let done = blocks.len() * 16 * PLANES;
    total + scalar::binary::differing_bits_of_planes::<1>(rest, &query[done..], PLANES)
}

/// How many bits differ in each byte.
#[inline(always)]
fn differing(a: v128, b: v128) -> v128 {
    u8x16_popcnt(v128_xor(a, b))
}
