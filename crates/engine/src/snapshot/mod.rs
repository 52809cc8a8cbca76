//! Snapshots: reading what a server makes.
//!
//! A shard snapshot is a GNU tar archive, as Qdrant 1.19 streams it from
//! `GET /collections/{c}/shards/{s}/snapshot`:
//!
//! ```text
//! segments_manifest.json            {"<uuid>": "active", ...}
//! segments/<uuid>/files/...         every file of the segment
//! newest_clocks.json, oldest_clocks.json
//! wal/, wal/closed-<n>              what the segments have not flushed; <n> is the number that the
//!                                   next operation will have
//! replica_state.json, shard_config.json
//! ```
//!
//! Files with holes are GNU sparse entries: storages preallocate, 32 MiB at a time.
//!
//! A stored snapshot (`POST /collections/{c}/shards/{s}/snapshots`) has each segment as an archive
//! within the archive, `segments/<uuid>.tar`, with the files under `snapshot/files/` in it. A real
//! server writes these without the two blocks of zeros that end an archive: the entry's size says
//! where such an archive ends. Old servers put the files there directly.
//!
//! A collection's snapshot (`POST /collections/{c}/snapshots`) has one folder for each shard, named by the
//! shard's number, each laid out as a stored snapshot and with the shard's write-ahead log; beside
//! the folders `config.json`, `version.info`, `shard_key_mapping.json`, `payload_index.json`. One of
//! a single shard is as good as that shard's own.
//!
//! Any of them may be compressed with gzip or zstd. [`content`] finds out by the first bytes, and
//! names what is no snapshot at all.

mod check;
mod content;
mod limits;
mod unpack;

use std::path::Path;

pub use limits::SnapshotLimits;

use crate::error::Result;

/// Unpacks a snapshot of one shard into `target`, for [`crate::Shard::load`]: a streamed or a stored
/// one of a shard, or one of a collection that has a single shard, each of them compressed or not.
/// The whole archive is checked before anything is written: it must be complete, hold nothing but
/// files and directories at names that a snapshot has, no name twice, and stay within `limits`. A
/// write-ahead log without entries is left out.
///
/// Answers how many segments the archive lists. What a failure leaves in `target` is the caller's to
/// remove.
///
/// Errors: [`crate::Error::BadSnapshot`] names the entry, or what the file is instead of a snapshot;
/// [`crate::Error::Storage`].
pub fn unpack_snapshot(file: &Path, target: &Path, limits: SnapshotLimits) -> Result<u64> {
    let (shard, segments) = check::check_archive(file, limits)?;
    unpack::unpack(file, target, limits, shard.as_deref())?;
    Ok(segments)
}
