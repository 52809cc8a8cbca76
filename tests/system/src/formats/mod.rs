//! The component's files are the native engine's, and the other way round; and both do what a plain
//! model does.
//!
//! - `engines`: the two builds of the engine, driven by the same requests.
//! - `kinds`: every kind of vector, quantization and payload index, and the queries that read it.
//! - `interop`: one life of a shard for each set of kinds, on both builds, exchanging files.
//! - `layouts`: snapshots that are laid out as none of ours is.
//! - `files`: two folders compared file by file, byte by byte.
//! - `model` and `oracle`: random writes to both builds and to a plain model.

mod engines;
mod files;
mod interop;
mod kinds;
mod layouts;
mod model;
mod oracle;

use std::fs;
use std::path::Path;

/// Each of two folders in the place of the other.
fn exchange(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).expect("a rename");
    fs::rename(other, one).expect("a rename");
    fs::rename(&aside, other).expect("a rename");
}
