//! One host for each data directory: the lock, and who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_sync_clock::now_ms;

use crate::error::{Error, Result};
use crate::holder::Holder;

/// Name of the lock file in the data directory. The component leaves names that begin with a dot
/// alone.
const FILE_NAME: &str = ".lock";

/// How often, and after how long, the lock is tried again: whoever looks who has it takes it for a
/// moment.
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// An exclusive lock on a data directory, held until it is dropped; the operating system gives it
/// up when the process dies, however it dies. WASI has no file locks, so the host takes it before
/// the component sees the directory.
#[derive(Debug)]
pub struct DirectoryLock {
    // Holds the lock.
    _file: File,
    directory: PathBuf,
}

impl DirectoryLock {
    /// Takes the lock, or fails with [`Error::Locked`], which names who has it. Others are told the
    /// name of this program.
    pub fn acquire(directory: &Path) -> Result<DirectoryLock> {
        DirectoryLock::acquire_as(directory, &program_name())
    }

    /// [`DirectoryLock::acquire`]; `command` is what others are told.
    pub fn acquire_as(directory: &Path, command: &str) -> Result<DirectoryLock> {
        let path = directory.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open the lock file", &path))?;
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempts > 0 => {
                    std::thread::sleep(BETWEEN_ATTEMPTS);
                }
                Err(TryLockError::WouldBlock) => return Err(locked(directory, &mut file)),
                Err(TryLockError::Error(source)) => return Err(cannot_lock(path, source)),
            }
        }
        // Who it is, is a courtesy to whoever is refused; the lock holds without it.
        let holder = Holder {
            pid: std::process::id(),
            command: Some(command.to_owned()),
            since_ms: Some(now_ms()),
        };
        let _ = serde_json::to_string(&holder)
            .map_err(std::io::Error::other)
            .and_then(|text| {
                file.set_len(0)?;
                writeln!(file, "{text}")
            });
        Ok(DirectoryLock {
            _file: file,
            directory: directory.to_owned(),
        })
    }

    /// Fails with [`Error::Locked`], which names who has the directory, if somebody has it. Leaves
    /// the directory as it is.
    pub fn check(directory: &Path) -> Result<()> {
        let path = directory.join(FILE_NAME);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::io("open the lock file", &path)(source)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(locked(directory, &mut file)),
            Err(TryLockError::Error(source)) => Err(cannot_lock(path, source)),
        }
    }

    /// The directory that is locked.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn locked(directory: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let holder = file
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| Holder::parse(&text));
    Error::Locked {
        directory: directory.to_owned(),
        holder,
    }
}

fn cannot_lock(path: PathBuf, source: std::io::Error) -> Error {
    Error::Io {
        operation: "lock",
        path,
        source,
    }
}

/// The executable's file name. Arguments may hold what is nobody's business.
fn program_name() -> String {
    std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "a host of edge-sync".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_told_who_has_it_and_gets_it_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        DirectoryLock::check(directory.path()).unwrap();
        let first = DirectoryLock::acquire_as(directory.path(), "a \"test\"").unwrap();
        for refused in [
            DirectoryLock::acquire(directory.path()).map(drop),
            DirectoryLock::check(directory.path()),
        ] {
            let Err(Error::Locked {
                holder: Some(holder),
                ..
            }) = refused
            else {
                panic!("{refused:?}")
            };
            assert_eq!(holder.pid, std::process::id());
            assert_eq!(holder.command.as_deref(), Some("a \"test\""));
            assert!(holder.since_ms.is_some());
        }
        drop(first);
        DirectoryLock::check(directory.path()).unwrap();
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
