//! The kernels with vectors of 128 bits.

pub mod binary;
pub mod byte;
pub mod float;
pub mod hadamard;
pub mod half;
mod lanes;
pub mod quantile;
pub mod sparse;
pub mod turbo;
