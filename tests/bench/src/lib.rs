//! What the benchmarks are made of: the contestants, the runs, and the statistics of their times.
//!
//! `main.rs` picks the run. Criterion is not used: what is asked for is the ratio of two
//! engines, and a ratio is only as good as its pairs are close in time. So the contestants take turns
//! batch by batch and query by query, where Criterion would measure one of them for seconds, then the
//! other; and an upsert or an optimization changes what it runs on, so that it cannot be repeated in
//! place.

pub mod calls;
pub mod clients;
pub mod contestants;
pub mod data;
pub mod engines;
pub mod figures;
pub mod footprint;
pub mod latencies;
pub mod link;
pub mod load;
pub mod memory;
pub mod optimizing;
pub mod profiled;
pub mod pulls;
pub mod report;
pub mod served;
pub mod sizes;
pub mod uploads;
pub mod vectors;

use std::path::Path;

/// A folder for the shards of a run, in `directory` or where the system has temporary files.
///
/// # Errors
/// Where it cannot be made.
pub fn folder(directory: Option<&Path>) -> std::io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("edge-sync-bench-");
    match directory {
        Some(directory) => builder.tempdir_in(directory),
        None => builder.tempdir(),
    }
}
