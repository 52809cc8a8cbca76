//! Names of segments and of their files: what may become a path.

use std::collections::BTreeMap;

/// Longest name; the engine's are about 150 bytes.
pub(crate) const MAX_NAME: usize = 1024;

/// The segment's manifest; in the archive among the segment's files.
pub(crate) const MANIFEST: &str = "segment_manifest.json";
/// The segment's configuration and version.
pub(crate) const STATE: &str = "segment.json";
/// The version of the segment's format.
pub(crate) const VERSION: &str = "version.info";
/// Which fields the segment has indexes for.
pub(crate) const PAYLOAD_CONFIG: &str = "payload_index/config.json";

/// The files that the server sends of every segment, changed or not, and names in no manifest.
pub(crate) const ALWAYS_SENT: [&str; 2] = [STATE, VERSION];

/// Whether this is a segment's name as the server writes it: a UUID in lower case.
pub(crate) fn is_segment(name: &str) -> bool {
    name.len() == 36
        && name.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// Why a name is not a plain path below the folder that it is joined to.
pub(crate) fn check_path(name: &str) -> Result<(), &'static str> {
    if name.len() > MAX_NAME {
        return Err("the name is too long");
    }
    if name.starts_with('/') {
        return Err("an absolute path");
    }
    if name.contains(['\\', ':']) || name.chars().any(char::is_control) {
        return Err("a character that no snapshot has in a name");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("a path that is not plain");
    }
    Ok(())
}

/// A name that stands both for a file and for a folder with files in it.
pub(crate) fn file_and_folder<T>(files: &BTreeMap<String, T>) -> Option<&str> {
    files.keys().find_map(|name| {
        name.match_indices('/')
            .filter_map(|(at, _)| name.get(..at))
            .find(|folder| files.contains_key(*folder))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_named_by_lower_case_uuids() {
        assert!(is_segment("f413efea-a665-47b8-b694-96d7394ab33d"));
        for name in [
            "",
            "F413EFEA-A665-47B8-B694-96D7394AB33D",
            "f413efeaa66547b8b69496d7394ab33d",
            "f413efea-a665-47b8-b694-96d7394ab33d.tar",
            "f413efea-a665-47b8-b694-96d7394ab33/",
            "../../../../../../../../../../../etc",
        ] {
            assert!(!is_segment(name), "{name}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for name in [
            "", "/", "/a", "a//b", "a/", "./a", "a/.", "..", "a/../b", "a\\b", "c:a", "a\0", "a\nb",
        ] {
            assert!(check_path(name).is_err(), "{name:?}");
        }
        assert!(check_path(&"a".repeat(MAX_NAME + 1)).is_err());
        for name in ["a", "vector_storage-ä b/vectors/chunk_0.mmap", "..a/b.."] {
            assert_eq!(check_path(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn a_file_cannot_be_a_folder() {
        let names = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), ())).collect();
        let clash: BTreeMap<_, _> = names(&["a/b", "a/b-c", "a/b/c"]);
        assert_eq!(file_and_folder(&clash), Some("a/b"));
        let fine: BTreeMap<_, _> = names(&["a/b", "a/b-c", "a/bb/c"]);
        assert_eq!(file_and_folder(&fine), None);
    }
}
