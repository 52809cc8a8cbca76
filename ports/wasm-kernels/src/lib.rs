//! The engine's hot loops with WebAssembly's vector instructions.
//!
//! Each module at the root is the one of [`scalar`] of the same name, which says what the functions
//! compute, or, where the compiler may use `simd128`, one that computes the same with vectors:
//!
//! - integers are exact;
//! - floating-point sums of at least 16 values are added up in another order than the scalar ones, in
//!   that of the engine's kernels for x86;
//! - what is not a sum is the same to the bit.
//!
//! Results do not depend on the processor: no relaxed instructions are used.
//!
//! No input is out of bounds: of two slices of different lengths the longer one is cut.
#![no_std]

pub mod scalar;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use scalar::{binary, byte, float, hadamard, half, quantile, sparse, turbo};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd::{binary, byte, float, hadamard, half, quantile, sparse, turbo};

pub mod product;

/// Both slices, as long as the shorter one.
#[inline(always)]
fn cut<'a, A, B>(a: &'a [A], b: &'a [B]) -> (&'a [A], &'a [B]) {
    let length = a.len().min(b.len());
    (&a[..length], &b[..length])
}
