//! What is known of a component's file from an earlier start, so that its many bytes need not be read
//! and hashed at each.
//!
//! ```text
//! files/<path>.json    length, time of change and SHA-256 of the file at that path
//! ```
//!
//! A record is believed if nobody but its user may write to the folder, and length and time are the
//! file's. As for a build, a file that is changed in the same moment as it was read would not be
//! noticed, so none is made of a file that is only just written.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::compiled::{check_private, create_private, modified, write};

/// Files that are known; more are forgotten.
const MOST_KNOWN: usize = 64;

/// How long a file must have been as it is.
const SETTLED: Duration = Duration::from_secs(3);

/// The record of one file.
pub(crate) struct ComponentFile {
    file: PathBuf,
    folder: PathBuf,
    record: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    file: PathBuf,
    length: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    sha256: String,
}

/// A file's length and time at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    length: u64,
    modified: u64,
}

impl ComponentFile {
    /// Of the component at `file`, with its record below `cache`.
    ///
    /// Errors: there is no such file.
    pub(crate) fn of(file: &Path, cache: &Path) -> io::Result<Self> {
        let file = fs::canonicalize(file)?;
        let mut name = DefaultHasher::new();
        file.hash(&mut name);
        let folder = cache.join("files");
        let record = folder.join(format!("{:016x}.json", name.finish()));
        Ok(Self {
            file,
            folder,
            record,
        })
    }

    /// How the file is now.
    pub(crate) fn state(&self) -> io::Result<State> {
        let metadata = fs::metadata(&self.file)?;
        Ok(State {
            length: metadata.len(),
            modified: modified(&metadata)?,
        })
    }

    /// The file's SHA-256, if it is known.
    pub(crate) fn digest(&self) -> Option<String> {
        let known = || -> io::Result<Option<String>> {
            check_private(&self.folder)?;
            let record: Record = serde_json::from_slice(&fs::read(&self.record)?)?;
            let state = State {
                length: record.length,
                modified: record.modified,
            };
            let is_it = record.file == self.file && state == self.state()?;
            Ok(is_it.then_some(record.sha256))
        };
        known().ok().flatten()
    }

    /// Takes note of what was found in the file, which was in `state` before it was read.
    ///
    /// Errors: of the file system. Nothing is noted of a file that may be changing.
    pub(crate) fn remember(&self, state: State, sha256: &str) -> io::Result<()> {
        let settled = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
            .and_then(|now| now.checked_sub(Duration::from_nanos(state.modified)))
            .is_some_and(|age| age >= SETTLED);
        if !settled || self.state()? != state {
            return Ok(());
        }
        create_private(&self.folder)?;
        check_private(&self.folder)?;
        if fs::read_dir(&self.folder)?.count() >= MOST_KNOWN {
            fs::remove_dir_all(&self.folder)?;
            create_private(&self.folder)?;
        }
        let record = Record {
            file: self.file.clone(),
            length: state.length,
            modified: state.modified,
            sha256: sha256.to_owned(),
        };
        write(&self.folder, &self.record, &serde_json::to_vec(&record)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_age(file: &Path, seconds: u64) {
        let file = fs::File::options().write(true).open(file).unwrap();
        let at = SystemTime::now() - Duration::from_secs(seconds);
        file.set_modified(at).unwrap();
    }

    #[test]
    fn a_file_is_known_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let path = folder.path().join("a.wasm");
        fs::write(&path, "one").unwrap();
        let file = ComponentFile::of(&path, &cache).unwrap();
        assert_eq!(file.digest(), None);
        // Just written.
        file.remember(file.state().unwrap(), "digest").unwrap();
        assert_eq!(file.digest(), None);

        set_age(&path, 100);
        let state = file.state().unwrap();
        file.remember(state, "digest").unwrap();
        assert_eq!(file.digest().as_deref(), Some("digest"));
        set_age(&path, 50);
        assert_eq!(file.digest(), None);
        // It changed while it was read.
        file.remember(state, "digest").unwrap();
        assert_eq!(file.digest(), None);
        file.remember(file.state().unwrap(), "other").unwrap();
        assert_eq!(file.digest().as_deref(), Some("other"));
        fs::write(&path, "longer").unwrap();
        assert_eq!(file.digest(), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_others_may_have_written_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        fs::write(&path, "one").unwrap();
        set_age(&path, 100);
        let file = ComponentFile::of(&path, folder.path()).unwrap();
        file.remember(file.state().unwrap(), "digest").unwrap();
        assert!(file.digest().is_some());
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(folder.path().join("files"), open).unwrap();
        assert_eq!(file.digest(), None);
    }
}
