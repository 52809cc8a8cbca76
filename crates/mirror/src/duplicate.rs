//! A second tree of files that are here: links to what nobody writes to, copies of the rest.
//!
//! For a shard that is about to be changed beside the one in force, and for the mirror that goes
//! with it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::durable::Unsynced;
use crate::error::{Error, Result};
use crate::files::{Links, NewFile, PIECE};
use crate::mirror::FILE as RECORD;
use crate::working::{SEALED, is_never_written};

/// What a second tree is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duplicate {
    /// Files that are links to those of the first tree.
    pub linked_files: u64,
    /// Files that are copies.
    pub copied_files: u64,
    /// What is not durable yet.
    pub unsynced: Unsynced,
}

/// From where on a file of a given length is zero: its length, where that is not known.
pub type DataLength<'a> = &'a dyn Fn(&File, u64) -> io::Result<u64>;

/// Of a file of which nobody knows from where on it is zero.
fn all_of_it(_file: &File, length: u64) -> io::Result<u64> {
    Ok(length)
}

/// Makes `to`, which must not be there, a second tree of the shard in `from`: its files as they are
/// on the disk, links to those that the engine never writes to ([`is_never_written`]). Nobody may
/// change `from` meanwhile. Files that are made at their full size are read as far as `data_length` says.
///
/// # Errors
/// [`Error::Io`]. What a failure leaves is the caller's to remove.
pub fn duplicate_shard(
    from: &Path,
    to: &Path,
    links: Links,
    data_length: DataLength<'_>,
) -> Result<Duplicate> {
    let files = files_below(from)?;
    // Segments that take no points.
    let mut sealed = BTreeSet::new();
    for file in &files.files {
        if let Some((segment, name)) = in_segment(file)
            && SEALED.contains(&name)
            && has_vectors(&from.join("segments").join(segment))
        {
            sealed.insert(segment);
        }
    }
    let is_linked = |file: &str| match in_segment(file) {
        Some((segment, name)) if links == Links::Try => {
            is_never_written(name, sealed.contains(segment))
        }
        _ => false,
    };
    duplicate(from, to, &files, is_linked, data_length)
}

/// Makes `to`, which must not be there, a second tree of the mirrors in `from`, whole or not: links
/// to the server's files, copies of their records. Nothing if there are none.
///
/// # Errors
/// As [`duplicate_shard`].
pub fn duplicate_mirrors(from: &Path, to: &Path, links: Links) -> Result<Duplicate> {
    if !from
        .try_exists()
        .map_err(|source| Error::io("look for", from, source))?
    {
        return Ok(Duplicate::default());
    }
    let files = files_below(from)?;
    let is_linked = |file: &str| links == Links::Try && file.rsplit('/').next() != Some(RECORD);
    duplicate(from, to, &files, is_linked, &all_of_it)
}

/// Whether a segment is known to have vectors. One that has none the engine (0.9) takes for one that
/// takes points, when it loads it.
fn has_vectors(segment: &Path) -> bool {
    let state = fs::read(segment.join("segment.json"));
    let state: Option<Value> = state.ok().and_then(|it| serde_json::from_slice(&it).ok());
    ["vector_data", "sparse_vector_data"].iter().any(|kind| {
        let vectors = state
            .as_ref()
            .and_then(|state| state["config"][kind].as_object());
        vectors.is_some_and(|vectors| !vectors.is_empty())
    })
}

/// A segment and the name of a file in it, of a path below a shard's folder.
fn in_segment(file: &str) -> Option<(&str, &str)> {
    file.strip_prefix("segments/")?.split_once('/')
}

/// Paths below a folder, with `/` between names.
#[derive(Default)]
struct Below {
    folders: Vec<String>,
    files: Vec<String>,
}

fn files_below(root: &Path) -> Result<Below> {
    let mut below = Below::default();
    let mut open = vec![String::new()];
    while let Some(folder) = open.pop() {
        let path = root.join(&folder);
        let failed = |source| Error::io("list", &path, source);
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| {
                failed(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a name is not UTF-8",
                ))
            })?;
            let name = match folder.as_str() {
                "" => name.to_owned(),
                folder => format!("{folder}/{name}"),
            };
            if entry.file_type().map_err(failed)?.is_dir() {
                open.push(name.clone());
                below.folders.push(name);
            } else {
                below.files.push(name);
            }
        }
    }
    Ok(below)
}

fn duplicate(
    from: &Path,
    to: &Path,
    below: &Below,
    is_linked: impl Fn(&str) -> bool,
    data_length: DataLength<'_>,
) -> Result<Duplicate> {
    let mut made = Duplicate::default();
    // Empty ones as well: the engine may expect them.
    for folder in
        std::iter::once(PathBuf::from(to)).chain(below.folders.iter().map(|it| to.join(it)))
    {
        fs::create_dir_all(&folder)
            .map_err(|source| Error::io("create folder", &folder, source))?;
        made.unsynced.folder(folder);
    }
    for file in &below.files {
        let (source, target) = (from.join(file), to.join(file));
        // Whatever a link fails with, a copy may do.
        if is_linked(file) && fs::hard_link(&source, &target).is_ok() {
            made.linked_files += 1;
        } else {
            copy(&source, &target, data_length)?;
            made.copied_files += 1;
            made.unsynced.file(target);
        }
    }
    Ok(made)
}

/// Copies a file, holes left out.
fn copy(from: &Path, to: &Path, data_length: DataLength<'_>) -> Result<()> {
    let read = |source| Error::io("read", from, source);
    let source = File::open(from).map_err(read)?;
    let length = source.metadata().map_err(read)?.len();
    let mut data = (&source).take(data_length(&source, length).map_err(read)?);
    let mut target = NewFile::create(to)?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        match data.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                target.write(at, buffer.get(..count).unwrap_or_default())?;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read(error)),
        }
    }
    target.finish(length).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, bytes: &[u8]) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_is_never_written_is_linked_and_all_of_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut sparse = vec![0; 3 << 20];
        sparse[1 << 20] = 7;
        let state = br#"{"config": {"vector_data": {"": {}}}}"#;
        let bare = br#"{"config": {"vector_data": {}}}"#;
        let files: [(&str, &[u8], bool); 11] = [
            ("edge_config.json", b"{}", false),
            ("segments/a/segment.json", state, false),
            ("segments/b/segment.json", state, false),
            ("segments/c/segment.json", bare, false),
            ("segments/c/id_tracker.mappings", b"ids", false),
            ("segments/a/id_tracker.mappings", b"ids", true),
            ("segments/a/id_tracker.deleted", b"d", false),
            ("segments/a/vector_storage/matrix.dat", b"vectors", true),
            ("segments/a/payload_storage/page_0.dat", &sparse, true),
            ("segments/b/mutable_id_tracker.mappings", b"ids", false),
            ("segments/b/payload_storage/page_0.dat", &sparse, false),
        ];
        for (file, bytes, _) in files {
            put(&from, file, bytes);
        }
        fs::create_dir_all(from.join("segments/b/empty")).unwrap();
        let made = duplicate_shard(&from, &to, Links::Try, &all_of_it).unwrap();
        assert_eq!((made.linked_files, made.copied_files), (3, 8));
        assert!(to.join("segments/b/empty").is_dir());
        made.unsynced.sync().unwrap();
        // A link shows what is written to the other name.
        for (file, bytes, linked) in files {
            assert_eq!(fs::read(to.join(file)).unwrap(), bytes, "{file}");
            fs::write(from.join(file), b"changed").unwrap();
            let shows = fs::read(to.join(file)).unwrap() == b"changed";
            assert_eq!(shows, linked, "{file}");
        }

        let copied = dir.path().join("copied");
        let made = duplicate_shard(&from, &copied, Links::Never, &all_of_it).unwrap();
        assert_eq!((made.linked_files, made.copied_files), (0, 11));
    }

    #[test]
    fn a_file_is_read_as_far_as_its_data_goes_and_keeps_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut bytes = vec![0; 3 << 20];
        bytes[..5].copy_from_slice(b"bytes");
        // What nobody would find who looked no further.
        bytes[2 << 20] = 7;
        put(&from, "segments/b/payload_storage/page_0.dat", &bytes);
        duplicate_shard(&from, &to, Links::Try, &|_, _| Ok(1 << 20)).unwrap();
        bytes[2 << 20] = 0;
        let copied = fs::read(to.join("segments/b/payload_storage/page_0.dat")).unwrap();
        assert!(copied == bytes);
    }

    #[test]
    fn a_mirror_is_links_and_a_record_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        assert_eq!(
            duplicate_mirrors(&from, &to, Links::Try).unwrap(),
            Duplicate::default()
        );
        assert!(!to.exists());
        put(&from, &format!("0/{RECORD}"), b"{}");
        put(&from, "0/segments/a/segment.json", b"{}");
        let made = duplicate_mirrors(&from, &to, Links::Try).unwrap();
        assert_eq!((made.linked_files, made.copied_files), (1, 1));
        fs::write(from.join("0").join(RECORD), b"changed").unwrap();
        assert_eq!(fs::read(to.join("0").join(RECORD)).unwrap(), b"{}");
    }
}
