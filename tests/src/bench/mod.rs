//! What the benchmarks are made of: the contestants, and the statistics of their times.
//!
//! The order of the runs is in `src/bin/bench.rs`. Criterion is not used: what is asked for is the
//! ratio of two engines, and a ratio is only as good as its pairs are close in time. So the
//! contestants take turns batch by batch and query by query, where Criterion would measure one of
//! them for seconds, then the other; and an upsert or an optimization changes what it runs on, so
//! that it cannot be repeated in place.

pub mod contestants;
pub mod link;
pub mod load;
pub mod pulls;
pub mod report;
pub mod uploads;
