//! What every chore works with, and the cargo commands they share.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    cache::Cache, remap, repository::Repository, target::WasmTarget, toolchain::Toolchain,
};

/// tokio refuses WASI unless told that its support there is known to be partial. Vector instructions
/// are those that all engines have; the relaxed ones are not.
const WASM_FLAGS: [&str; 4] = ["--cfg", "tokio_unstable", "-C", "target-feature=+simd128"];

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

    /// A cargo command for the component.
    ///
    /// # Errors
    /// As for [`Self::wasm_flags`].
    pub fn cargo_wasm(&self, target: &WasmTarget) -> Result<Command> {
        self.cargo_wasm_in(&self.repository.component(), "wasm", target)
    }

    /// A cargo command for WASI in `folder`, with artifacts in the cache's `kind`.
    ///
    /// # Errors
    /// As for [`Self::wasm_flags`].
    pub fn cargo_wasm_in(&self, folder: &Path, kind: &str, target: &WasmTarget) -> Result<Command> {
        let mut command = self.cargo(folder, kind);
        // The form that allows blanks in paths. It goes before all other flags, so that none of the
        // person's own get in the way.
        command.env(
            "CARGO_ENCODED_RUSTFLAGS",
            self.wasm_flags(target, "\u{1f}")?,
        );
        Ok(command)
    }

    /// The compiler flags for WASI.
    ///
    /// # Errors
    /// Where the folder of cargo's downloads is not known or cannot be read.
    pub fn wasm_flags(&self, target: &WasmTarget, separator: &str) -> Result<OsString> {
        let mut flags: Vec<OsString> = Vec::new();
        if let Some(sysroot) = &target.sysroot {
            flags.extend(["--sysroot".into(), sysroot.into()]);
        }
        flags.extend(WASM_FLAGS.map(OsString::from));
        flags.extend(remap::flags(
            &self.repository,
            &self.cache,
            &self.toolchain,
        )?);
        Ok(flags.join(OsStr::new(separator)))
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
