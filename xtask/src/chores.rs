//! What every chore works with, and the cargo commands they share.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{cache::Cache, repository::Repository, toolchain::Toolchain};

/// Set for child processes, so that a chore started by a chore does not wait for itself.
const LOCK_HELD: &str = "EDGE_SYNC_CACHE_LOCK_HELD";

/// The clone, the cache and the toolchain.
pub struct Chores {
    /// The clone that is worked on.
    pub repository: Repository,
    /// What clones share.
    pub cache: Cache,
    /// The compiler in use.
    pub toolchain: Toolchain,
}

impl Chores {
    /// Looks around; changes nothing but to create the cache folder.
    ///
    /// # Errors
    /// Where Rust is missing or too old, or the cache folder cannot be made.
    pub fn new() -> Result<Self> {
        Ok(Self {
            repository: Repository::of_this_program()?,
            cache: Cache::open()?,
            toolchain: Toolchain::find()?,
        })
    }

    /// Does `work` while no other clone works with the cache.
    ///
    /// # Errors
    /// Those of `work`, and where the lock cannot be had.
    pub fn locked<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if std::env::var_os(LOCK_HELD).is_some() {
            return work();
        }
        let _lock = self.cache.lock()?;
        work()
    }

    /// A cargo command for this machine in `folder`, with artifacts in the cache's `kind`.
    pub fn cargo(&self, folder: &Path, kind: &str) -> Command {
        let mut command = self.toolchain.cargo();
        command
            .current_dir(folder)
            .env("CARGO_TARGET_DIR", self.cache.target(kind));
        self.environment(&mut command);
        command
    }

    /// What children find in their environment: where the cache and the built programs are.
    pub fn environment(&self, command: &mut Command) {
        command.env(LOCK_HELD, "1");
        for (name, value) in self.variables() {
            command.env(name, value);
        }
    }

    /// The variables by which tests and programs find the cache and what was built.
    pub fn variables(&self) -> [(&'static str, PathBuf); 3] {
        let products = self.repository.products();
        [
            ("EDGE_SYNC_CACHE", self.cache.root().to_owned()),
            ("EDGE_SYNC_COMPONENT", products.join("edge_sync.wasm")),
            ("EDGE_SYNC_BIN", products.join("edge-sync")),
        ]
    }
}
