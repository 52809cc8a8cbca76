//! Vectors in memory and in registers. All that is unsafe is here.
#![allow(unsafe_code)]

use core::arch::wasm32::*;

/// Sixteen bytes without padding, of which every bit pattern is a value.
///
/// # Safety
/// The type must be that.
pub unsafe trait Lanes {}

// SAFETY: arrays of numbers have no padding, and numbers no invalid bit patterns.
unsafe impl Lanes for [u8; 16] {}
// SAFETY: as above.
unsafe impl Lanes for [u16; 8] {}
// SAFETY: as above.
unsafe impl Lanes for [i16; 8] {}
// SAFETY: as above.
unsafe impl Lanes for [f32; 4] {}
// SAFETY: as above.
unsafe impl Lanes for [f64; 2] {}

#[inline(always)]
pub fn load<T: Lanes>(lanes: &T) -> v128 {
    const { assert!(size_of::<T>() == size_of::<v128>()) };
    // SAFETY: there are 16 bytes, all initialized; the load needs no alignment.
    unsafe { v128_load(core::ptr::from_ref(lanes).cast()) }
}

#[inline(always)]
pub fn store<T: Lanes>(lanes: &mut T, vector: v128) {
    const { assert!(size_of::<T>() == size_of::<v128>()) };
    // SAFETY: there are 16 bytes, for which all values are valid; the store needs no alignment.
    unsafe { v128_store(core::ptr::from_mut(lanes).cast(), vector) }
}

/// Writes to memory, also where that is written to again and not read.
#[inline(always)]
pub fn write_now(place: &mut v128, vector: v128) {
    // SAFETY: a reference is valid for writes, and aligned.
    unsafe { core::ptr::from_mut(place).write_volatile(vector) }
}

/// Eight numbers of 16 bits.
#[inline(always)]
pub fn load_u8s(lanes: &[u8; 8]) -> v128 {
    // SAFETY: there are 8 bytes; the load needs no alignment.
    unsafe { u16x8_load_extend_u8x8(core::ptr::from_ref(lanes).cast()) }
}

/// Eight numbers of 16 bits.
#[inline(always)]
pub fn load_i8s(lanes: &[i8; 8]) -> v128 {
    // SAFETY: there are 8 bytes; the load needs no alignment.
    unsafe { i16x8_load_extend_i8x8(core::ptr::from_ref(lanes).cast()) }
}

/// The bytes of `table` at `indexes`, which are less than 16.
#[inline(always)]
pub fn look_up(table: v128, indexes: v128) -> v128 {
    u8x16_swizzle(table, indexes)
}

/// The sum of four unsigned numbers of 32 bits.
#[inline(always)]
pub fn sum_u32(vector: v128) -> u64 {
    let pairs = u64x2_add(
        u64x2_extend_low_u32x4(vector),
        u64x2_extend_high_u32x4(vector),
    );
    u64x2_extract_lane::<0>(pairs) + u64x2_extract_lane::<1>(pairs)
}

/// The sum of four signed numbers of 32 bits.
#[inline(always)]
pub fn sum_i32(vector: v128) -> i64 {
    let pairs = i64x2_add(
        i64x2_extend_low_i32x4(vector),
        i64x2_extend_high_i32x4(vector),
    );
    sum_i64(pairs)
}

/// The sum of two numbers of 64 bits.
#[inline(always)]
pub fn sum_i64(vector: v128) -> i64 {
    i64x2_extract_lane::<0>(vector).wrapping_add(i64x2_extract_lane::<1>(vector))
}

/// The sum of the sixteen bytes, as four parts of 32 bits.
#[inline(always)]
pub fn widen_sums(bytes: v128) -> v128 {
    u32x4_extadd_pairwise_u16x8(u16x8_extadd_pairwise_u8x16(bytes))
}

/// (0 + 1) + (2 + 3), as AVX's horizontal addition does it.
#[inline(always)]
pub fn sum_neighbours(vector: v128) -> f32 {
    (f32x4_extract_lane::<0>(vector) + f32x4_extract_lane::<1>(vector))
        + (f32x4_extract_lane::<2>(vector) + f32x4_extract_lane::<3>(vector))
}

/// (0 + 2) + (1 + 3), as the engine's kernels for SSE do it.
#[inline(always)]
pub fn sum_halves(vector: v128) -> f32 {
    (f32x4_extract_lane::<0>(vector) + f32x4_extract_lane::<2>(vector))
        + (f32x4_extract_lane::<1>(vector) + f32x4_extract_lane::<3>(vector))
}
