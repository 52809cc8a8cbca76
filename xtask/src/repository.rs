//! The clone that a chore works on: its folders, workspaces and files.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::command;

/// Folders that hold nothing of the repository's own, where git cannot be asked.
const NOT_OURS: [&str; 4] = [".git", ".ports", CLONE, "target"];

/// A link in the component's folder, to the clone: what is reached by it is below the component's
/// workspace for cargo, and so known by the same relative path in every clone.
pub const CLONE: &str = ".clone";

/// A clone of this repository.
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// The clone that this program was built from.
    ///
    /// # Errors
    /// Where that clone is gone.
    pub fn of_this_program() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask/ has no folder above it")?;
        Self::at(root)
    }

    /// The clone at `root`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn at(root: &Path) -> Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("the clone at {}", root.display()))?;
        ensure!(
            root.join("Cargo.toml").is_file(),
            "{} is no clone of edge-sync",
            root.display()
        );
        Ok(Self { root })
    }

    /// The clone's folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the component's workspace.
    pub fn component(&self) -> PathBuf {
        self.root.join("component")
    }

    /// The folder of the patches and stand-ins.
    pub fn ports(&self) -> PathBuf {
        self.root.join("ports")
    }

    /// The folder of the crate with the engine's vector instructions.
    pub fn kernels(&self) -> PathBuf {
        self.ports().join("wasm-kernels")
    }

    /// Where built programs are put.
    pub fn products(&self) -> PathBuf {
        self.root.join("target").join("edge-sync")
    }

    /// Where releases of the engine are tried.
    pub fn trials(&self) -> PathBuf {
        self.root.join("target").join("engine-releases")
    }

    /// The workspaces that need neither the engine nor Wasmtime: this program and the stand-ins.
    ///
    /// # Errors
    /// Where `ports/` cannot be read.
    pub fn small_workspaces(&self) -> Result<Vec<PathBuf>> {
        let mut workspaces = vec![self.root.join("xtask")];
        let ports = folders(&self.ports())?.into_iter();
        workspaces.extend(ports.filter(|folder| folder.join("Cargo.toml").is_file()));
        Ok(workspaces)
    }

    /// Every folder with a `Cargo.lock` of its own.
    ///
    /// # Errors
    /// Where `ports/` cannot be read.
    pub fn workspaces(&self) -> Result<Vec<PathBuf>> {
        let mut workspaces = vec![self.root.clone(), self.component()];
        workspaces.extend(self.small_workspaces()?);
        Ok(workspaces)
    }

    /// Every file that is or would be committed, relative to the root, in order.
    ///
    /// # Errors
    /// Where the folders cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = if self.root.join(".git").exists() {
            let listing = command::capture(
                Command::new("git")
                    // The clone may be another user's, as in a container.
                    .args(["-c", "safe.directory=*"])
                    .args([
                        "ls-files",
                        "-z",
                        "--cached",
                        "--others",
                        "--exclude-standard",
                    ])
                    .current_dir(&self.root),
            )?;
            listing
                .split('\0')
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
                .filter(|path| self.root.join(path).symlink_metadata().is_ok())
                .collect()
        } else {
            let mut files = Vec::new();
            walk(&self.root, &mut |path| {
                let relative = path.strip_prefix(&self.root).unwrap_or(path);
                files.push(relative.to_owned());
            })?;
            files
        };
        files.sort();
        files.dedup();
        Ok(files)
    }
}

/// The folders directly below `parent`, in order; none where `parent` is missing.
///
/// # Errors
/// Where `parent` cannot be read.
pub fn folders(parent: &Path) -> Result<Vec<PathBuf>> {
    if !parent.exists() {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for entry in read_folder(parent)? {
        if entry.is_dir() {
            folders.push(entry);
        }
    }
    Ok(folders)
}

/// Calls `see` with every file below `folder` that may be the repository's, links not followed.
///
/// # Errors
/// Where a folder cannot be read.
pub fn walk(folder: &Path, see: &mut impl FnMut(&Path)) -> Result<()> {
    for path in read_folder(folder)? {
        let kind = path
            .symlink_metadata()
            .with_context(|| path.display().to_string())?;
        let is_ours = !NOT_OURS
            .iter()
            .any(|name| path.file_name() == Some(OsStr::new(name)));
        match (is_ours, kind.is_dir()) {
            (true, true) => walk(&path, see)?,
            (true, false) => see(&path),
            (false, _) => {}
        }
    }
    Ok(())
}

fn read_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let describe = || format!("the folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in folder.read_dir().with_context(describe)? {
        paths.push(entry.with_context(describe)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_git_is_walked_without_what_is_built() {
        let folder = tempfile::tempdir().expect("a folder");
        for file in ["Cargo.toml", "src/lib.rs", "target/x", "component/.ports/y"] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, "").expect("a file");
        }
        std::os::unix::fs::symlink("..", folder.path().join("component").join(CLONE))
            .expect("a link");
        let repository = Repository::at(folder.path()).expect("a clone");
        assert_eq!(
            repository.files().expect("files"),
            [PathBuf::from("Cargo.toml"), PathBuf::from("src/lib.rs")]
        );
    }
}
