//! One host a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Name of the lock file in the data directory. The component leaves names that begin with a dot
/// alone.
const FILE_NAME: &str = ".lock";

/// An exclusive lock on a data directory, held until it is dropped; the operating system gives it
/// up when the process dies. WASI has no file locks, so the host takes it before the component
/// sees the directory.
#[derive(Debug)]
pub struct DirectoryLock {
    // Holds the lock.
    _file: File,
    directory: PathBuf,
}

impl DirectoryLock {
    /// Takes the lock, or fails at once with [`Error::Locked`].
    pub fn acquire(directory: &Path) -> Result<DirectoryLock> {
        let path = directory.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let holder = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(Error::Locked {
                    directory: directory.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io {
                    operation: "lock",
                    path,
                    source,
                });
            }
        }
        // The process id is a courtesy to whoever is refused; the lock holds without it.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(DirectoryLock {
            _file: file,
            directory: directory.to_owned(),
        })
    }

    /// The directory that is locked.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_told_who_has_it_and_gets_it_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(directory.path()).unwrap();
        match DirectoryLock::acquire(directory.path()) {
            Err(Error::Locked { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
