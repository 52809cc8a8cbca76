//! The folder that all clones on this machine share: downloads, patched sources, built artifacts.
//!
//! ```text
//! lock                      held by whoever works with the cache
//! sysroots/<compiler>/      the WASI target, where the toolchain has none
//! ports/<crate>-<digest>/   patched sources and stand-ins
//! target/{native,wasm,small}/   cargo's artifacts
//! target/sources            what they were made from (kept by `freshness`)
//! component-cache/          compiled components (kept by the host)
//! python/                   the same for Python (kept by its package)
//! python-*/, wasmtime-*/    Python environments of tests and of the wheel
//! node-*/, npm-build/       what tests and the npm packages are transpiled with
//! ```

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{files::create_folder, progress, repository::folders};

/// How folders begin that are not complete.
const STAGE: &str = "incomplete-";

/// The shared folder.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache folder of this user, created if need be.
    ///
    /// # Errors
    /// Where no place for it is known, or it cannot be created.
    pub fn open() -> Result<Self> {
        let root = place(|name| std::env::var_os(name).map(PathBuf::from))?;
        Self::at(&root)
    }

    /// The cache at `root`.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn at(root: &Path) -> Result<Self> {
        create_folder(root)?;
        let root = root
            .canonicalize()
            .with_context(|| format!("the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the folders of all kinds of artifacts are.
    pub fn targets(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Where cargo puts what it builds for `kind` (`native`, `wasm`, `small`).
    pub fn target(&self, kind: &str) -> PathBuf {
        self.targets().join(kind)
    }

    /// Keeps other clones from working with the cache until the file is dropped; waits for them.
    ///
    /// # Errors
    /// Where the file system has no locks or cannot be written.
    pub fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let describe = || format!("the lock {}", path.display());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(describe)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress::step(
                    &format!("waiting for another cargo xtask ({})", path.display()),
                    || file.lock().with_context(describe),
                )?;
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(describe),
        }
        Ok(file)
    }
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
    if let Some(root) = set("EDGE_SYNC_CACHE") {
        return Ok(root);
    }
    // The XDG specification wants relative paths to be ignored.
    if let Some(folder) = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Ok(folder.join("edge-sync"));
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".cache/edge-sync")),
        None => bail!("no place for the cache: set EDGE_SYNC_CACHE or HOME"),
    }
}

/// A new folder in `parent` for what is moved to its place once it is complete. Those that were left
/// behind by a chore that was killed go.
///
/// # Errors
/// Where `parent` cannot be written.
pub fn stage(parent: &Path) -> Result<TempDir> {
    create_folder(parent)?;
    for folder in folders(parent)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(STAGE) {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("removing {}", folder.display()))?;
        }
    }
    tempfile::Builder::new()
        .prefix(STAGE)
        .tempdir_in(parent)
        .with_context(|| format!("a new folder in {}", parent.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_looked_up_in_order() {
        let all = [
            ("EDGE_SYNC_CACHE", "/a"),
            ("XDG_CACHE_HOME", "/b"),
            ("HOME", "/c"),
        ];
        for (skipped, expected) in [(0, "/a"), (1, "/b/edge-sync"), (2, "/c/.cache/edge-sync")] {
            let found = place(|name| {
                let known = all.iter().skip(skipped).find(|(key, _)| *key == name);
                known.map(|(_, value)| PathBuf::from(value))
            });
            assert_eq!(found.expect("a place"), Path::new(expected));
        }
        assert!(place(|_| None).is_err());
    }

    #[test]
    fn what_a_killed_chore_left_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let left = stage(folder.path()).expect("a stage").keep();
        create_folder(&folder.path().join("complete")).expect("a folder");
        let stage = stage(folder.path()).expect("a stage");
        assert!(!left.exists());
        assert!(stage.path().exists());
        assert!(folder.path().join("complete").exists());
    }

    #[test]
    fn the_lock_is_exclusive() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path()).expect("a cache");
        let held = cache.lock().expect("the lock");
        let other = File::open(folder.path().join("lock")).expect("the file");
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        // Waits: a process that another test starts has a copy of the file until it executes.
        assert!(other.lock().is_ok());
    }
}
