//! Folders, files and links of which errors name the path.

use std::{os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result};

/// Creates a folder and those it stands in.
///
/// # Errors
/// Where that fails, naming the folder.
pub fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("creating the folder {}", folder.display()))
}

/// Removes a file or link, if it is there.
///
/// # Errors
/// Where that fails, naming the file.
pub fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Makes `at` a link to `to`, whatever link was there before.
///
/// # Errors
/// Where something else than a link is there, or the folder cannot be written.
pub fn link(to: &Path, at: &Path) -> Result<()> {
    if at.read_link().is_ok_and(|present| present == to) {
        return Ok(());
    }
    if at.is_symlink() {
        remove(at)?;
    }
    symlink(to, at).with_context(|| format!("linking {} to {}", at.display(), to.display()))
}
