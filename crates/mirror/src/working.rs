//! The folder that the engine loads, from a mirror.
//!
//! The engine changes some files where they are, replaces some by new ones, and never touches
//! others once a segment is built. The last are links to the mirror's; the rest are copies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::apply::make_parents;
use crate::durable::Unsynced;
use crate::error::{Error, Result};
use crate::files::{self, Links, Placed, Placing};
use crate::mirror::{FileRecord, Mirror};

/// What a working folder was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Working {
    /// Files that are links to the mirror's.
    pub linked_files: u64,
    /// Their data, holes left out. Nothing read or wrote it.
    pub linked_bytes: u64,
    /// Where they are. Their bytes are durable.
    pub links: Vec<PathBuf>,
    /// Files that are copies.
    pub copied_files: u64,
    /// Their data, holes left out.
    pub copied_bytes: u64,
    /// What is not durable yet.
    pub unsynced: Unsynced,
}

/// Builds the segments of `mirror` in `segments` (a shard's folder `segments`), which must not be
/// there or be empty. Links files for which [`is_never_written`] says so, copies the rest and
/// compares the copies with their records.
///
/// There is no `wal/`, no clocks and no manifests in it: the engine numbers operations from the
/// highest version of a segment.
///
/// # Errors
/// [`Error::Damaged`] if a file that is copied is not what came; ask for its segment again.
/// [`Error::Io`]. What a failure leaves is the caller's to remove.
pub fn build(mirror: &Mirror, segments: &Path, links: Links) -> Result<Working> {
    build_linking(mirror, segments, links, is_never_written)
}

/// As [`build`], with another opinion on which files are linked: given a file's name in its
/// segment, and whether the segment can take no points. For tests that the opinion of [`build`]
/// matters.
///
/// # Errors
/// As [`build`].
pub fn build_linking(
    mirror: &Mirror,
    segments: &Path,
    links: Links,
    never_written: impl Fn(&str, bool) -> bool,
) -> Result<Working> {
    let mut working = Working::default();
    for (segment, record) in mirror.segments() {
        let immutable = takes_no_points(&record.files);
        let folder = segments.join(segment);
        for (file, known) in &record.files {
            let to = folder.join(file);
            make_parents(segments, &to, &mut working.unsynced)?;
            let links = match links {
                Links::Try if never_written(file, immutable) => Links::Try,
                _ => Links::Never,
            };
            match files::link_or_copy(&mirror.path(segment, file), &to, known, links) {
                Ok(Placed::Linked) => {
                    working.linked_files += 1;
                    working.linked_bytes += known.data();
                    working.links.push(to);
                }
                Ok(Placed::Copied(copied)) => {
                    working.copied_files += 1;
                    working.copied_bytes += copied.data();
                    working.unsynced.file(to);
                }
                Err(Placing::Failed(error)) => return Err(error),
                Err(Placing::Damaged(message)) => {
                    return Err(Error::Damaged {
                        segment: segment.clone(),
                        file: file.clone(),
                        message,
                    });
                }
            }
        }
    }
    Ok(working)
}

/// Whether a segment takes no points any more: its id tracker is one that is built once. Points
/// can only be deleted from it; what changes moves to another segment.
fn takes_no_points(files: &BTreeMap<String, FileRecord>) -> bool {
    SEALED.iter().any(|file| files.contains_key(*file))
}

/// Files of a segment, of which each tells that it takes no points.
pub(crate) const SEALED: [&str; 2] = ["id_tracker.mappings", "id_tracker.i2e"];

/// Whether the engine (0.9) never writes to a file, whatever is done to the shard: made when its
/// segment was built, and only ever read, replaced under its name or removed since. `file` is its
/// name in the segment; `immutable` says that the segment takes no points.
///
/// Everything that is not known to be so is taken for written.
pub fn is_never_written(file: &str, immutable: bool) -> bool {
    if !immutable {
        return false;
    }
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let top = folder.split('/').next().unwrap_or_default();
    let is_or_of = |kind: &str| {
        top.strip_prefix(kind)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if top.is_empty() {
        // Deletions go to `id_tracker.deleted` and `id_tracker.versions`.
        matches!(
            name,
            "id_tracker.mappings" | "id_tracker.i2e" | "id_tracker.e2i" | "id_tracker.is_uuid"
        )
    } else if is_or_of("vector_storage") {
        matches!(
            name,
            "matrix.dat" | "quantized.data" | "quantized.offsets.data"
        ) || is_chunk(folder, name)
            || is_page(folder, name, "store")
    } else if is_or_of("vector_index") {
        matches!(
            name,
            "graph.bin"
                | "links.bin"
                | "links_compressed.bin"
                | "links_comp_vec.bin"
                | "inverted_index.dat"
        )
    } else if top == "payload_index" {
        matches!(
            name,
            "data.bin"
                | "data_block_index.bin"
                | "histogram_borders.bin"
                | "values_to_points.bin"
                | "point_to_values.bin"
                | "counts_per_hash.bin"
                | "counts_per_hash_block_index.bin"
                | "points_map.bin"
                | "points_map_block_index.bin"
                | "points_map_ids.bin"
                | "postings.dat"
                | "vocab.dat"
                | "point_to_tokens_count.dat"
                | "point_to_doc_len.dat"
                | "term_frequencies.dat"
                | "prefix_index.bin"
                | "deleted_mask.bin"
        )
    } else {
        is_page(folder, name, "payload_storage")
    }
}

/// Values of a store of blobs. Deleting one changes the store's `tracker.dat`, `bitmask.dat` and
/// `gaps.dat` only; new ones go to segments that take points.
fn is_page(folder: &str, name: &str, store: &str) -> bool {
    folder.rsplit('/').next() == Some(store) && is_numbered(name, "page_", ".dat")
}

/// Vectors in chunks: of multivectors also in segments that take no points. What is deleted is
/// noted elsewhere.
fn is_chunk(folder: &str, name: &str) -> bool {
    let last = folder.rsplit('/').next();
    matches!(last, Some("vectors" | "offsets" | "quantized_data"))
        && is_numbered(name, "chunk_", ".mmap")
}

fn is_numbered(name: &str, prefix: &str, suffix: &str) -> bool {
    name.strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix(suffix))
        .is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::is_never_written;

    #[test]
    fn what_is_written_is_copied() {
        for file in [
            "id_tracker.deleted",
            "id_tracker.versions",
            "mutable_id_tracker.mappings",
            "segment.json",
            "version.info",
            "vector_storage/deleted.dat",
            "vector_storage-a/deleted/flags_a.dat",
            "vector_storage-a/vectors/status.dat",
            "vector_storage-s/store/tracker.dat",
            "vector_index-s/indices_tracker.json",
            "payload_storage/tracker.dat",
            "payload_storage/bitmask.dat",
            "payload_storage/gaps.dat",
            "payload_storage/config.json",
            "payload_index/config.json",
            "payload_index/x-n-map/page_0.dat",
            "payload_index/x-n-null/is_null/flags_a.dat",
            "payload_storage/page_x.dat",
            "something/new.bin",
            "matrix.dat",
        ] {
            assert!(!is_never_written(file, true), "{file}");
        }
    }

    #[test]
    fn what_is_large_and_never_written_is_linked() {
        for file in [
            "id_tracker.mappings",
            "vector_storage/matrix.dat",
            "vector_storage-a/quantized.data",
            "vector_storage-m/vectors/chunk_0.mmap",
            "vector_storage-m/offsets/chunk_12.mmap",
            "vector_storage-s/store/page_3.dat",
            "vector_index/links_compressed.bin",
            "vector_index-s/inverted_index.dat",
            "payload_storage/page_0.dat",
            "payload_index/x-n-map/values_to_points.bin",
        ] {
            assert!(is_never_written(file, true), "{file}");
            assert!(!is_never_written(file, false), "{file}");
        }
    }
}
