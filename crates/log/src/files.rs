//! The file operations that the crate is made of, each with its context in the error.
//!
//! Everything that changes the disk goes through here, so that unit tests can fail or stop at
//! any step, and so that the test switches (`docs/log-format.md`) have one place each.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Bytes written again at a time.
const PIECE: u64 = 256 << 10;

/// Creates `path`, or empties it, for reading and writing.
pub(crate) fn create(path: &Path, operation: &'static str) -> Result<File> {
    step()
        .and_then(|()| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)
        })
        .map_err(|source| Error::io(operation, path, source))
}

/// Opens an existing file for reading and writing.
pub(crate) fn open_to_write(path: &Path, operation: &'static str) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| Error::io(operation, path, source))
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_at(
    mut file: &File,
    path: &Path,
    offset: u64,
    bytes: &[u8],
    operation: &'static str,
) -> Result<()> {
    let mut write = || {
        file.seek(SeekFrom::Start(offset))?;
        if let Err(error) = step() {
            // A write that fails may have written some of it.
            file.write_all(bytes.get(..bytes.len() / 2).unwrap_or_default())?;
            return Err(error);
        }
        file.write_all(bytes)
    };
    write().map_err(|source| Error::io(operation, path, source))
}

/// Writes the bytes from `from` to `end` over themselves, for the next fsync to make them durable.
pub(crate) fn write_again(mut file: &File, path: &Path, from: u64, end: u64) -> Result<()> {
    let operation = "write log segment again";
    let mut piece = Vec::new();
    let mut at = from;
    while at < end {
        piece.clear();
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.take((end - at).min(PIECE)).read_to_end(&mut piece))
            .map_err(|source| Error::io(operation, path, source))?;
        if piece.is_empty() {
            break;
        }
        write_at(file, path, at, &piece, operation)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Sets the file's length.
pub(crate) fn set_len(file: &File, path: &Path, len: u64, operation: &'static str) -> Result<()> {
    step()
        .and_then(|()| file.set_len(len))
        .map_err(|source| Error::io(operation, path, source))
}

/// Makes the file's content and length durable.
pub(crate) fn sync(file: &File, path: &Path, operation: &'static str) -> Result<()> {
    step()
        .and_then(|()| file.sync_all())
        .map_err(|source| Error::io(operation, path, source))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    // Windows neither needs nor offers it.
    if cfg!(windows) {
        return Ok(());
    }
    step()
        .and_then(|()| File::open(path)?.sync_all())
        .map_err(|source| Error::io("sync directory", path, source))
}

/// Removes a file.
pub(crate) fn remove(path: &Path, operation: &'static str) -> Result<()> {
    step()
        .and_then(|()| fs::remove_file(path))
        .map_err(|source| Error::io(operation, path, source))
}

/// Puts `from` in the place of `to`, atomically.
pub(crate) fn rename(from: &Path, to: &Path, operation: &'static str) -> Result<()> {
    step()
        .and_then(|()| fs::rename(from, to))
        .map_err(|source| Error::io(operation, to, source))
}

/// Creates a directory, and those above it, and makes them durable, unless it is there.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    if parent != path {
        create_directory(parent)?;
    }
    step()
        .and_then(|()| fs::create_dir(path))
        .map_err(|source| Error::io("create directory", path, source))?;
    if parent.as_os_str().is_empty() {
        sync_directory(Path::new("."))
    } else {
        sync_directory(parent)
    }
}

#[cfg(not(test))]
#[inline]
#[expect(clippy::unnecessary_wraps, reason = "fails in tests")]
fn step() -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
use faults::step;

/// Faults for unit tests: which step of the calling thread fails, and whether it goes on.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::Cell;
    use std::io;

    #[derive(Clone, Copy)]
    struct Plan {
        left: u64,
        for_good: bool,
    }

    thread_local! {
        static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    /// Lets `steps` steps succeed and fails the next; all after it too, if `for_good`, as if the
    /// process had been stopped there.
    pub(crate) fn fail_after(steps: u64, for_good: bool) {
        PLAN.set(Some(Plan {
            left: steps,
            for_good,
        }));
    }

    /// No more faults.
    pub(crate) fn clear() {
        PLAN.set(None);
    }

    /// Steps so far on this thread.
    pub(crate) fn steps() -> u64 {
        STEPS.get()
    }

    pub(super) fn step() -> io::Result<()> {
        STEPS.set(STEPS.get() + 1);
        let Some(plan) = PLAN.get() else {
            return Ok(());
        };
        if plan.left > 0 {
            PLAN.set(Some(Plan {
                left: plan.left - 1,
                ..plan
            }));
            return Ok(());
        }
        PLAN.set(plan.for_good.then_some(plan));
        Err(io::Error::new(io::ErrorKind::StorageFull, "injected fault"))
    }
}
