//! Snapshots of a shard as Qdrant 1.19 writes them; the module `snapshot` of `edge_sync_engine`, which
//! reads them, has the layouts.

mod archive;
mod sparse;

use std::fs;
use std::path::{Path, PathBuf};

use edge_sync_engine::{Error, Result, Shard};
use qdrant_edge::internal::SnapshotManifest;
use qdrant_edge::{SEGMENT_STATE_FILE, SegmentState};
use serde::Deserialize as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::archive::{Archive, listed};

/// How segments lie in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As in a streamed snapshot: as folders.
    Streamed,
    /// As in a stored snapshot: each an archive in the archive, without an end mark.
    Stored,
}

/// The history that a shard's operations are numbered in, and how far it has come.
#[derive(Debug, Clone, Copy)]
pub struct Lineage {
    /// The server.
    pub peer: u64,
    /// Number that the next operation will have in the server's log.
    pub next: u64,
    /// How many operations have had a tick of the server's clock.
    pub tick: u64,
    /// Drawn with the last tick.
    pub token: u64,
}

/// The size of the server's WAL files.
const WAL_BYTES: u64 = 32 << 20;

/// Start of an empty WAL file: its format, and the seed of its checksums.
const WAL_HEADER: [u8; 8] = *b"wal\0edge";

/// Writes a snapshot of `shard` to `file`. Flushes first; writes wait meanwhile.
///
/// # Errors
/// Storage errors.
pub fn create(shard: &Shard, file: &Path, layout: Layout) -> Result<()> {
    shard.at_rest(|dir| write(dir, file, layout))
}

/// Writes what changed since `old`, an earlier [`Shard::snapshot_manifest`], to `file`, as a server
/// streams it. False if nothing did; then there is no file. Flushes first; writes wait meanwhile.
///
/// # Errors
/// [`Error::InvalidInput`] if `old` is no manifest; storage errors.
pub fn create_partial(shard: &Shard, old: &Value, file: &Path, lineage: Lineage) -> Result<bool> {
    let old = manifest_of(old)?;
    // Compared before anything is flushed, as the server does. A version that is not there is not
    // equal to the segment's, though it counts as that.
    if manifest_of(&shard.snapshot_manifest()?)? == old {
        return Ok(false);
    }
    shard.at_rest(|dir| {
        let new = manifest_of(&shard.snapshot_manifest()?)?;
        write_changes_of(dir, &new, &old, file, lineage)
    })?;
    Ok(true)
}

/// As [`create`], of the shard in `dir`, which must be flushed and at rest.
///
/// # Errors
/// As there.
pub fn write(dir: &Path, file: &Path, layout: Layout) -> Result<()> {
    let segments = segments(&dir.join("segments"))?;
    let mut archive = Archive::create(file)?;
    list_segments(&mut archive, &segments)?;
    for segment in &segments {
        let name = &segment.name;
        match layout {
            Layout::Streamed => {
                archive.folder(&segment.path, &format!("segments/{name}/files"))?;
            }
            Layout::Stored => {
                archive.nested(
                    &segment.path,
                    "snapshot/files",
                    &format!("segments/{name}.tar"),
                )?;
            }
        }
    }
    end(archive, &segments, &json!([]), 1, 0)
}

/// As [`create_partial`], of the shard in `dir`, which must be flushed and at rest. `held` is the
/// [`Shard::snapshot_manifest`] that it had when it was closed.
///
/// # Errors
/// As there.
pub fn write_partial(
    dir: &Path,
    held: &Value,
    old: &Value,
    file: &Path,
    lineage: Lineage,
) -> Result<bool> {
    let (held, old) = (manifest_of(held)?, manifest_of(old)?);
    if held == old {
        return Ok(false);
    }
    write_changes_of(dir, &held, &old, file, lineage)?;
    Ok(true)
}

/// A manifest as it is in JSON: segment by segment, file by file, each with its version, as in the
/// body of `POST .../snapshot/partial/create`.
fn manifest_of(text: &Value) -> Result<SnapshotManifest> {
    SnapshotManifest::deserialize(text)
        .map_err(|error| Error::invalid("", format!("no manifest: {error}")))
}

/// What changed between `old`, which a client has, and `new`, which the shard holds, as Qdrant 1.19
/// sends it: a file goes out if the client does not have it, has it in a lower version, or if both
/// versions are 0; `segment.json` and `version.info` always do.
fn write_changes_of(
    dir: &Path,
    new: &SnapshotManifest,
    old: &SnapshotManifest,
    file: &Path,
    lineage: Lineage,
) -> Result<()> {
    let mut segments = segments(&dir.join("segments"))?;
    // Others are on their way out.
    segments.retain(|segment| new.get(&segment.name).is_some());
    let mut archive = Archive::create(file)?;
    list_segments(&mut archive, &segments)?;
    for segment in &segments {
        let folder = format!("segments/{}/files", segment.name);
        let Some(held) = new.get(&segment.name) else {
            continue;
        };
        let known = old.get(&segment.name);
        let mut manifest = serde_json::to_value(held)
            .map_err(|error| Error::Internal(format!("segment manifest: {error}")))?;
        // A server writes them in the order of a hash map; here the same shard gives the same bytes.
        manifest.sort_all_objects();
        archive.json(&format!("{folder}/segment_manifest.json"), &manifest)?;
        let mut files: Vec<_> = held.file_versions().collect();
        files.sort_unstable();
        for (path, version) in files {
            if goes_out(known.and_then(|known| known.file_version(path)), version) {
                let name = path.display();
                archive.file(&segment.path.join(path), &format!("{folder}/{name}"))?;
            }
        }
        for name in [SEGMENT_STATE_FILE, "version.info"] {
            archive.file(&segment.path.join(name), &format!("{folder}/{name}"))?;
        }
    }
    let clock = json!({
        "peer_id": lineage.peer,
        "clock_id": 0,
        "current_tick": lineage.tick,
        "token": lineage.token,
    });
    let clocks = if lineage.tick > 0 {
        json!([clock])
    } else {
        json!([])
    };
    end(archive, &segments, &clocks, lineage.peer, lineage.next)
}

/// Whether a file goes to a client that has it in version `old`, or does not have it: the rule of
/// Qdrant 1.19 (`lib/segment/src/segment/snapshot.rs`). Version 0 is that of a file before the first
/// operation and after it.
fn goes_out(old: Option<u64>, new: u64) -> bool {
    old.is_none_or(|old| old < new || (old == 0 && new == 0))
}

fn list_segments(archive: &mut Archive, segments: &[Segment]) -> Result<()> {
    let names = segments
        .iter()
        .map(|segment| (segment.name.clone(), json!("active")));
    archive.json("segments_manifest.json", &Value::Object(names.collect()))
}

/// What comes after the segments. `next` is the number of the next operation, unless the segments
/// have seen a later one.
fn end(
    mut archive: Archive,
    segments: &[Segment],
    clocks: &Value,
    peer: u64,
    next: u64,
) -> Result<()> {
    archive.json("newest_clocks.json", &json!({ "clocks": clocks }))?;
    archive.json("oldest_clocks.json", &json!({ "clocks": [] }))?;
    archive.directory("wal/")?;
    let wal = format!("wal/closed-{}", next_operation(segments).max(next));
    archive.preallocated(&wal, WAL_BYTES, &WAL_HEADER)?;
    let replica = json!({
        "is_local": true,
        "this_peer_id": peer,
        "peers": { peer.to_string(): "Active" },
    });
    archive.json("replica_state.json", &replica)?;
    archive.json("shard_config.json", &json!({ "type": "ReplicaSet" }))?;
    archive.finish()
}

fn next_operation(segments: &[Segment]) -> u64 {
    segments
        .iter()
        .filter_map(|segment| segment.version)
        .max()
        .map_or(0, |version| version.saturating_add(1))
}

struct Segment {
    name: String,
    path: PathBuf,
    version: Option<u64>,
}

/// The live segments: directories named by UUID that have been flushed once.
fn segments(dir: &Path) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for (name, path) in listed(dir)? {
        if Uuid::parse_str(&name).is_err() || !path.join("version.info").is_file() {
            continue;
        }
        let state = path.join(SEGMENT_STATE_FILE);
        let text =
            fs::read_to_string(&state).map_err(|error| Error::storage("read", &state, &error))?;
        let state: SegmentState = serde_json::from_str(&text).map_err(|error| Error::Corrupt {
            file: state.display().to_string(),
            offset: None,
            message: error.to_string(),
        })?;
        segments.push(Segment {
            name,
            path,
            version: state.version,
        });
    }
    Ok(segments)
}
