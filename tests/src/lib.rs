//! Whole-system tests of edge-sync and what they stand on.
//!
//! - [`api`]: what of Qdrant's API is understood, and the requests that show it.
//! - [`double`]: a Qdrant-compatible server over the native engine whose faults can be scripted;
//!   also the `qdrant-double` program.
//! - [`client`]: a small blocking REST client.
//! - [`fixture`]: what a real Qdrant 1.19.0 server held and answered, and how to compare with it.
//! - [`bench`]: what the benchmarks are made of.
//! - [`demo`]: what the demo shows and measures.
//! - [`digits`]: the handwritten digits, real vectors that a person can look at.
//! - [`openapi`]: checks answers against the server's own API description.
//! - [`python`]: Python programs with packages from the Python registry.
//! - [`simulator`]: the component on a simulated disk and network that fail as scripted.
//!
//! The tests themselves are in `tests/tests/`. Code here may panic on a broken fixture or a server
//! that cannot be started: its callers are tests.

pub mod api;
pub mod bench;
pub mod client;
pub mod demo;
pub mod digits;
pub mod double;
pub mod fixture;
pub mod openapi;
pub mod python;
pub mod simulator;

/// The folder of this package, as cargo says it when it runs a test. What was known when the test
/// was built may be another clone's folder, since clones share what they build.
///
/// # Panics
/// Outside of `cargo test`.
pub fn package_folder() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .expect("CARGO_MANIFEST_DIR, which cargo sets")
        .into()
}
