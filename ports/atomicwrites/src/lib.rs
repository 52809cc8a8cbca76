//! Files that are replaced as a whole: the interface of `atomicwrites` 0.4.4 for targets that it
//! does not support (WASI).
//!
//! A write goes to a temporary file beside its target, is synced, and is renamed over the target;
//! then the folder is synced. After a crash the target holds either all of its old content or all
//! of its new content, and once [`AtomicFile::write`] has returned, the new.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub use OverwriteBehavior::{AllowOverwrite, DisallowOverwrite};

/// Whether an existing target may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverwriteBehavior {
    /// Replace the target if it exists.
    AllowOverwrite,
    /// Fail with [`io::ErrorKind::AlreadyExists`], after the callback has run, if it exists.
    DisallowOverwrite,
}

/// Why an atomic write failed.
#[derive(Debug)]
pub enum Error<E> {
    /// Creating, syncing or renaming the temporary file failed.
    Internal(io::Error),
    /// The caller's callback failed. The target is untouched.
    User(E),
}

impl From<Error<io::Error>> for io::Error {
    fn from(error: Error<io::Error>) -> Self {
        match error {
            Error::Internal(error) | Error::User(error) => error,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Internal(error) => error.fmt(f),
            Error::User(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for Error<E> {}

/// A file that is written as a whole or not at all.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    overwrite: OverwriteBehavior,
    temporary_folder: PathBuf,
}

impl AtomicFile {
    /// A file at `path`, its temporary file in the same folder.
    pub fn new<P: AsRef<Path>>(path: P, overwrite: OverwriteBehavior) -> Self {
        let folder = parent(path.as_ref()).to_path_buf();
        Self::new_with_tmpdir(path, overwrite, folder)
    }

    /// A file at `path`, its temporary file in `folder`, which must exist on the same file system.
    pub fn new_with_tmpdir<P: AsRef<Path>, Q: AsRef<Path>>(
        path: P,
        overwrite: OverwriteBehavior,
        folder: Q,
    ) -> Self {
        Self {
            path: path.as_ref().to_path_buf(),
            overwrite,
            temporary_folder: folder.as_ref().to_path_buf(),
        }
    }

    /// The target.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `write` with an empty file and puts that file at [`Self::path`].
    ///
    /// # Errors
    /// [`Error::User`] if `write` fails; [`Error::Internal`] if anything else does. The temporary
    /// file is removed either way.
    pub fn write<T, E, F>(&self, write: F) -> Result<T, Error<E>>
    where
        F: FnOnce(&mut File) -> Result<T, E>,
    {
        let mut options = OpenOptions::new();
        options.write(true);
        self.write_with_options(write, options)
    }

    /// As [`Self::write`], with the temporary file opened by `options` (`create_new` is added).
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_with_options<T, E, F>(
        &self,
        write: F,
        mut options: OpenOptions,
    ) -> Result<T, Error<E>>
    where
        F: FnOnce(&mut File) -> Result<T, E>,
    {
        let (temporary, mut file) =
            create_temporary(&self.temporary_folder, &mut options).map_err(Error::Internal)?;
        let value = write(&mut file).map_err(Error::User)?;
        file.sync_all().map_err(Error::Internal)?;
        drop(file);
        match self.overwrite {
            AllowOverwrite => replace_atomic(&temporary.0, &self.path),
            DisallowOverwrite => move_atomic(&temporary.0, &self.path),
        }
        .map_err(Error::Internal)?;
        Ok(value)
    }
}

/// Renames `source` over `target` and syncs the folders of both.
///
/// # Errors
/// Those of the rename and of the syncs. An error of a sync means that the target is in place but
/// may not survive a crash.
pub fn replace_atomic(source: &Path, target: &Path) -> io::Result<()> {
    fs::rename(source, target)?;
    sync_folders(source, target)
}

/// Moves `source` to `target`, which must not exist, and syncs the folders of both.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if `target` exists; those of the move and of the syncs.
pub fn move_atomic(source: &Path, target: &Path) -> io::Result<()> {
    // A hard link fails on an existing target; WASI's rename has no such flag.
    fs::hard_link(source, target)?;
    fs::remove_file(source)?;
    sync_folders(source, target)
}

fn sync_folders(source: &Path, target: &Path) -> io::Result<()> {
    let (source, target) = (parent(source), parent(target));
    File::open(target)?.sync_all()?;
    if source != target {
        File::open(source)?.sync_all()?;
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Removes the file when dropped, if it has not been renamed by then.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing to remove; before it, the error that is being
        // returned matters more than a left-over.
        let _ = fs::remove_file(&self.0);
    }
}

/// Names are a counter of this process: left-overs of a crash are stepped over, never reused.
fn create_temporary(folder: &Path, options: &mut OpenOptions) -> io::Result<(Temporary, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".atomicwrite{number:08x}.tmp"));
        match options.create_new(true).open(&path) {
            Ok(file) => return Ok((Temporary(path), file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
