//! What the kernels compute, one value after the other: the reference of the tests, and what runs
//! where there are no vector instructions.

pub mod binary;
pub mod byte;
pub mod float;
pub mod hadamard;
pub mod half;
pub mod quantile;
pub mod sparse;
pub mod turbo;
