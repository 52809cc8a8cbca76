//! What must reach the disk before a mirror comes into force.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Files and folders that were made and are not durable yet. Files that were linked are not in
/// it: their bytes have been durable since they came. Their new names become so with the folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsynced {
    files: Vec<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Unsynced {
    /// The files whose bytes must reach the disk.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The folders whose names must reach the disk, the inner before the outer. The outermost is
    /// what was built; that its own name becomes durable is up to whoever made the folder around
    /// it.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        // A folder comes before what is in it in the order of paths.
        self.folders.iter().rev().map(PathBuf::as_path)
    }

    /// Makes all of it durable.
    ///
    /// # Errors
    /// [`Error::Io`]; what is durable is open then.
    pub fn sync(&self) -> Result<()> {
        for path in self.files().chain(self.folders()) {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(|source| Error::io("sync to disk", path, source))?;
        }
        Ok(())
    }

    pub(crate) fn file(&mut self, path: PathBuf) {
        self.files.push(path);
    }

    pub(crate) fn has_folder(&self, path: &Path) -> bool {
        self.folders.contains(path)
    }

    pub(crate) fn folder(&mut self, path: PathBuf) {
        self.folders.insert(path);
    }
}
